"""The same files under a second name: hard links, or copies where the file system has none."""

import errno
import os
import shutil
from collections.abc import Callable
from pathlib import Path

# Another file system, one without hard links (some say so in one way, some in another), or too many of this file.
NO_LINK = {errno.EXDEV, errno.EPERM, errno.EACCES, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EMLINK, errno.ENOSYS}


def link_files(source: Path, target: Path, wanted: Callable[[str], bool] = lambda name: True) -> None:
    """Have the files below a folder in another one, too; only for files that nobody ever changes in place.

    Args:
        source: may be changed meanwhile by whoever it belongs to: what vanishes before it is reached is left out.
        target: made, with all folders above it.
        wanted: whether a file is, by its name without folders.

    Raises:
        FileNotFoundError: a file vanished just when it was linked.
        OSError: the disk refuses.
    """
    target.mkdir(parents=True, exist_ok=True)
    for parent, folders, names in os.walk(source):
        into = target / Path(parent).relative_to(source)
        for folder in folders:
            (into / folder).mkdir()
        for name in filter(wanted, names):
            _link(Path(parent, name), into / name)


def _link(source: Path, target: Path) -> None:
    try:
        os.link(source, target)
    except OSError as error:
        if error.errno not in NO_LINK:
            raise
        shutil.copyfile(source, target)
