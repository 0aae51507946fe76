"""How a run stands, as its folder says: going on or how it ended, by which process, and for how many starts."""

import os
import socket
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from json import dumps
from pathlib import Path
from typing import Annotated, ClassVar, Literal
from uuid import uuid4

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError

from orchestrator.config_errors import EXPECTED, MISSING, ConfigError

STATUS = "run.json"
LONGEST_DETAIL = 500  # characters: a lost worker's traceback is in the log
End = Literal["finished", "collapsed", "stopped", "failed", "interrupted"]
Time = Annotated[str, Field(pattern=r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ$")]


@dataclass(frozen=True, slots=True, kw_only=True)
class RunStatus:
    """What `run.json` in a run's folder holds. A process that is killed leaves "running": see `run_lock`.

    Example:
        RunStatus(status="failed", uid="9f86d081884c4d659a2feaa0c55ad015", pid=4711, host="node-3",
                  started="2026-03-01T12:00:00Z", ended="2026-03-01T14:30:09Z", resumes=1, last_step=129,
                  mlflow_run_id="0c5b1c", detail="learner-0: died in apply")
    """

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(strict=True, extra="forbid")

    status: Literal["running", End]  # ended early, "collapsed" by the stability rule, "stopped" by who watched
    uid: Annotated[str, Field(pattern="^[0-9a-f]{32}$")]  # of the run, over all its resumes
    pid: Annotated[int, Field(ge=1)]  # of the process that started or resumed it last
    host: str  # where that process is
    started: Time  # for the first time
    ended: Time | None = None  # None while it runs
    resumes: Annotated[int, Field(ge=0)] = 0
    last_step: Annotated[int, Field(ge=0)] | None = None  # recorded; None before the first
    mlflow_run_id: str | None = None
    detail: str | None = None  # what ended it, in one line

    @classmethod
    def begin(cls, earlier: "RunStatus | None" = None) -> "RunStatus":
        """A run that starts now, in this process; with `earlier`, that one once more."""
        pid, host = os.getpid(), socket.gethostname()
        if earlier is None:
            return cls(status="running", uid=uuid4().hex, pid=pid, host=host, started=_now())
        resumes = earlier.resumes + 1
        return replace(earlier, status="running", pid=pid, host=host, ended=None, resumes=resumes, detail=None)

    def end(self, status: End, detail: str | None = None) -> "RunStatus":
        """The same run, ended now.

        Args:
            status: how.
            detail: what ended it; becomes one line that a terminal can show, cut where it is very long.
        """
        return replace(self, status=status, ended=_now(), detail=None if detail is None else _line(detail))

    @classmethod
    def read(cls, folder: Path) -> "RunStatus | None":
        """What stands in a run's folder; None when nothing does, as an older version left it.

        Raises:
            ConfigError: the file cannot be read, or holds something else.
        """
        path = folder / STATUS
        try:
            return _STORED.validate_json(path.read_bytes())
        except FileNotFoundError:
            return None
        except OSError as error:
            raise ConfigError(str(path), "", MISSING, f"a readable file ({error.strerror})") from None
        except ValidationError as error:
            raise _misread(path, error) from None

    def write(self, folder: Path) -> None:
        """Put it into a run's folder: whoever reads there, or after a crash, finds the old one or this one.

        Raises:
            OSError: it cannot be written; the old one is still there.
        """
        path = folder / STATUS
        partial = path.with_name(f".{STATUS}.{os.getpid()}.partial")
        try:
            with partial.open("w", encoding="utf-8") as file:
                file.write(dumps(asdict(self), indent=1) + "\n")
                file.flush()
                os.fsync(file.fileno())
            partial.replace(path)
        except BaseException:
            with suppress(OSError):
                partial.unlink()
            raise
        _sync_folder(folder)


_STORED = TypeAdapter(RunStatus)


def _misread(path: Path, error: ValidationError) -> ConfigError:
    """The first of pydantic's complaints, in our words."""
    details = error.errors()[0]
    field = ".".join(str(key) for key in details["loc"][:1])
    if not field:
        return ConfigError(str(path), "", MISSING, f"a run's state ({details['msg']})")
    value = MISSING if details["type"] == "missing" else details["input"]
    told = EXPECTED.get(details["type"], details["msg"].removeprefix("Input should be "))
    return ConfigError(str(path), field, value, told.format(**details.get("ctx", {})))


def _line(text: str) -> str:
    line = "".join(char for char in " ".join(text.split()) if char.isprintable())
    return line if len(line) <= LONGEST_DETAIL else line[: LONGEST_DETAIL - 3] + "..."


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _sync_folder(folder: Path) -> None:
    """Make a rename in it last; some network file systems know no such thing."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        with suppress(OSError):
            os.fsync(handle)
    finally:
        os.close(handle)
