"""Real runs: the `evenkeel` command in a process of its own, with real vLLM, FSDP2, Ray and MLflow under it."""

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).parents[2]
LIMIT_S = 280

TINY = """\
name: tiny
model: {path: embedded}
task: {kind: arithmetic, digits: 3}
rollout: {workers: 1, prompts_per_step: 4, group_size: 4, max_response_tokens: 32}
learner: {workers: 1}
scheduler: {kind: constant, lr: 1.0e-4}
steps: 4
arms:
  baseline: {}
  twin: {}
  decay: {scheduler: {kind: length_triggered, lr: 1.0e-4, decay_period: 2}}
"""


def command(*arguments: str) -> list[str]:
    """The command line as a process can be started with it, wherever the tests run."""
    return [sys.executable, "-m", "sweeps", *arguments]


def environment(**changes: str) -> dict[str, str]:
    """This process's environment, with the repository importable and without what other tests may have left in it."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("RAY_", "EVENKEEL_"))}
    return {**kept, "PYTHONPATH": str(ROOT), "COLUMNS": "200", **changes}


def evenkeel(*arguments: str, cwd: Path, **changes: str) -> "subprocess.CompletedProcess[str]":
    """Run the command to its end."""
    return completed(command(*arguments), cwd, environment(**changes))


def completed(
    arguments: Sequence[str], cwd: Path, env: dict[str, str], limit_s: float = LIMIT_S
) -> "subprocess.CompletedProcess[str]":
    """A finished process with what it printed."""
    return subprocess.run(arguments, cwd=cwd, env=env, capture_output=True, text=True, timeout=limit_s, check=False)
