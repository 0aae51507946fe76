"""What a job takes with it to the cluster: one folder, less what need not travel, as a zip file."""

import logging
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from zipfile import ZIP_DEFLATED, ZipFile, ZipInfo

from ray._private.runtime_env import packaging

ROOT = Path(__file__).parents[1]
PACKAGES = ("actors", "cluster", "orchestrator", "sweeps")
MOST_BYTES = 96 * 2**20  # Ray's job server takes 100 MiB
# What no job needs, as in a .gitignore; what a folder's own .gitignore and .rayignore name stays out as well.
LEFT_OUT = (
    *(".git/", ".venv/", "venv/", "__pycache__/", "*.egg-info/", ".*_cache/", ".hypothesis/"),
    *("runs/", "mlruns/", "mlartifacts/", "mlflow.db*", "optuna.db*", "spill/", "*.log"),
)
EARLIEST = (1980, 1, 1, 0, 0, 0)  # that a zip file can say: the same files give the same package, whenever they changed


class TooLarge(ValueError):
    """More than a job may take with it; `largest` has some of what is in the way, with sizes in bytes."""

    def __init__(self, largest: Sequence[tuple[str, int]]) -> None:
        super().__init__(f"more than {MOST_BYTES >> 20} MiB")
        self.largest = largest


@dataclass(frozen=True, slots=True, kw_only=True)
class Package:
    """A folder as it is sent.

    Example:
        Package(path=Path("/tmp/x/package.zip"), num_files=263, num_bytes=1_120_331)
    """

    path: Path
    num_files: int
    num_bytes: int


def pack(folder: Path, needed: Iterable[Path], left_out: Iterable[str], target: Path) -> Package:
    """Pack a folder, and with it our own packages if it is not our checkout.

    Ray does the same with a `working_dir` that is a folder, but finds out at the end, and by a time-out, that it is
    large; and it leaves out what an ignore file names, although the experiment needs it.

    Args:
        folder: becomes the working directory of the job.
        needed: files and folders in it that are sent in any case.
        left_out: patterns of what stays here, beside those that always do and those of the ignore files.
        target: a zip file that is written.

    Raises:
        TooLarge: as it says; nothing is sent.
    """
    files: dict[str, Path] = {}
    sizes: Counter[str] = Counter()

    def take(path: Path, above: Path = folder) -> None:
        name = path.relative_to(above).as_posix()
        if name not in files and path.is_file():
            files[name], sizes[name] = path, path.stat().st_size
            if sizes.total() > MOST_BYTES:
                raise TooLarge(sizes.most_common(3))

    _travel(folder, (*LEFT_OUT, *left_out), take)
    for path in needed:
        for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
            take(file)
    if not folder.samefile(ROOT):
        for name in PACKAGES:
            _travel(ROOT / name, LEFT_OUT, lambda path: take(path, ROOT))
    with ZipFile(target, "w", ZIP_DEFLATED) as package:
        for name, path in sorted(files.items()):
            info = ZipInfo(name, EARLIEST)
            info.external_attr = path.stat().st_mode << 16
            package.writestr(info, path.read_bytes(), ZIP_DEFLATED)
    return Package(path=target, num_files=len(files), num_bytes=target.stat().st_size)


def _travel(folder: Path, left_out: Sequence[str], take: Callable[[Path], None]) -> None:
    """Take what Ray would take of a folder."""
    ignored = packaging._get_excludes(folder, list(left_out))
    silent = logging.getLogger(f"{__name__}.ray")
    silent.disabled = True  # it tells of each ignore file
    packaging._dir_travel(folder, [ignored], take, include_gitignore=True, logger=silent)
