"""The runs in a folder: which there are, and which of them a user means."""

import os
import re
from difflib import get_close_matches
from pathlib import Path

from orchestrator.config_errors import NAME_PATTERN, ConfigError
from orchestrator.run.folder import CONFIG, METRICS
from orchestrator.run.status import STATUS

SEED_FOLDER = re.compile(r"seed-(\d+)(?:\.old-(\d+))?")  # the second kind: moved aside by a later run
FEW = 10  # names that a message may list


def find_runs(root: Path) -> dict[str, Path]:
    """The folder of each run by `<name>/<arm>/seed-<n>`, by name and number; what lies behind a link is none.

    Raises:
        ConfigError: `root` is no folder, or cannot be read.
    """
    found: list[tuple[str, str, int, int, Path]] = []
    try:
        os.stat(root)
        for arm in arm_folders(root):
            for entry in _folders(arm):
                seed = SEED_FOLDER.fullmatch(entry.name)
                if seed and any(os.path.lexists(f"{entry.path}/{file}") for file in (CONFIG, STATUS, METRICS)):
                    found.append((arm.parent.name, arm.name, int(seed[1]), int(seed[2] or 0), Path(entry.path)))
    except OSError as error:
        raise ConfigError("--runs", "", str(root), f"a folder that holds runs ({error.strerror})") from None
    return {f"{name}/{arm}/{path.name}": path for name, arm, _, _, path in sorted(found)}


def arm_folders(root: Path) -> list[Path]:
    """All `<root>/<name>/<arm>`, without those behind links; OSError when one cannot be read."""
    return [Path(arm.path) for name in _folders(root) for arm in _folders(name.path)]


def choose(written: str, root: Path, runs: dict[str, Path]) -> str:
    """The key of the run that a path, or `<name>/<arm>/seed-<n>`, stands for.

    Args:
        written: by the user.
        root: the folder of all runs.
        runs: those that `find_runs` has found in it.

    Raises:
        ConfigError: there is none; it proposes some.
    """
    roots = (os.path.abspath(root), os.path.realpath(root))
    keys = [os.path.normpath(written), *(os.path.relpath(os.path.abspath(written), place) for place in roots)]
    for key in keys:
        if written and key in runs:
            return key
    close = get_close_matches(os.path.normpath(written), runs, n=3) if written else []
    close = close or [key for key in runs if written in key][:3]
    meant = f"; did you mean {' or '.join(map(repr, close))}?" if close else ""
    every = f"; there are: {', '.join(runs)}" if not close and 0 < len(runs) <= FEW else ""
    raise ConfigError("RUN", "", written, f"a run in {root}, as NAME/ARM/seed-N or its path{meant or every}")


def _folders(path: str | Path) -> list[os.DirEntry[str]]:
    """The folders in a folder whose names a run could have given them."""
    try:
        with os.scandir(path) as entries:
            folders = [entry for entry in entries if entry.is_dir(follow_symlinks=False)]
    except FileNotFoundError:  # deleted since it was listed
        return []
    return [folder for folder in folders if re.match(NAME_PATTERN, folder.name)]
