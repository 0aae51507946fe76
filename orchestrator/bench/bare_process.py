"""A bare program as a process of its own: told by a line to do its work once, it answers with what that took."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

BARE = Path(__file__).parent / "bare"
EXIT_TIMEOUT_S = 20.0


class BareFailed(RuntimeError):
    """A bare program ended instead of answering; what it said is on the screen."""


class BareProcess:
    """A program of `orchestrator/bench/bare` that is up.

    with bare_process("exp", {"tokens": 1000}) as program:
        seconds = program.once()["seconds"]
    """

    def __init__(self, name: str, process: "subprocess.Popen[str]") -> None:
        self._name = name
        self._process = process

    @classmethod
    def start(
        cls,
        name: str | tuple[str, ...],
        settings: Mapping[str, Any],
        env: Mapping[str, str] | None = None,
        python: str = sys.executable,
    ) -> "BareProcess":
        """Start it; its first answer says that it is ready. Arguments as of `bare_process`, which does more."""
        program = (str(BARE / f"{name}.py"),) if isinstance(name, str) else name
        process = subprocess.Popen(
            [python, *program, json.dumps(settings)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, **(env or {})},
        )
        return cls(name if isinstance(name, str) else name[-1], process)

    def close(self) -> None:
        """End it."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            self._process.wait(EXIT_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def once(self, task: Any = None) -> dict[str, Any]:
        """Have it do its work once, on a task if it wants one; what it says of it. Errors as the two that follow."""
        self.begin(task)
        return self.answer()

    def begin(self, task: Any = None) -> None:
        """Have it begin to do its work.

        Raises:
            BareFailed: it has ended.
        """
        assert self._process.stdin is not None
        try:
            print(json.dumps(task), file=self._process.stdin, flush=True)
        except BrokenPipeError:
            raise BareFailed(f"{self._name} has ended") from None

    def answer(self) -> dict[str, Any]:
        """The next line of JSON that it writes; what libraries print in between is passed over.

        Raises:
            BareFailed: it has ended.
        """
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if line.startswith("{"):
                answered: dict[str, Any] = json.loads(line)
                return answered
        raise BareFailed(f"{self._name} has ended with exit code {self._process.wait()}")

    def seconds(self) -> float:
        """Have it do its work once; the seconds that it took."""
        return float(self.once()["seconds"])


@contextmanager
def bare_process(
    name: str | tuple[str, ...],
    settings: Mapping[str, Any],
    env: Mapping[str, str] | None = None,
    python: str = sys.executable,
) -> Iterator[BareProcess]:
    """Start a bare program, wait until it is ready, and end it after the with-block.

    Args:
        name: of its file, without the suffix; or arguments of the interpreter, for what is ours and answers likewise.
        settings: its argument, as JSON.
        env: environment variables beside those of this process.
        python: interpreter of the environment that it needs.

    Raises:
        BareFailed: it does not come up.
    """
    process = BareProcess.start(name, settings, env, python)
    try:
        process.answer()  # it is ready
        yield process
    finally:
        process.close()
