"""Folders as runs leave them, made by hand."""

import json
from pathlib import Path

from orchestrator.run.status import RunStatus


def make_run(folder: Path, done: int = 3, steps: int = 5, status: RunStatus | None = None) -> Path:
    """A run that has recorded steps 0 to done - 1; without `status` there is no run.json."""
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text(f"name: demo\nsteps: {steps}\nscheduler:\n  kind: constant\n  steps: 77\n")
    (folder / "metrics.jsonl").write_text("".join(json.dumps({"step": step}) + "\n" for step in range(done)))
    if status is not None:
        status.write(folder)
    return folder


def make_checkpoint(run: Path, name: str, num_bytes: int = 100, manifest: bool = True) -> Path:
    """A folder of that name in `checkpoints/`, with a file of that size."""
    folder = run / "checkpoints" / name
    (folder / "learner").mkdir(parents=True)
    (folder / "learner" / "weights").write_bytes(bytes(num_bytes))
    if manifest:
        (folder / "manifest.json").touch()
    return folder


def everything(folder: Path) -> dict[str, bytes | None]:
    """What lies below a folder: the bytes of files, None for folders."""
    return {str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None for path in folder.rglob("*")}
