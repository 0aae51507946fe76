"""The files that a command is to write: checked before it reads or writes anything."""

import os
from collections.abc import Iterable, Mapping
from pathlib import Path

from orchestrator.config_errors import ConfigError


def check_targets(targets: Mapping[str, Path | None], sources: Iterable[tuple[str, Path]]) -> None:
    """Refuse what cannot be written to, or must not be.

    Args:
        targets: what each option names; None where it is not given.
        sources: what the command reads, by the name that a message has for it.

    Raises:
        ConfigError: no such folder, no ordinary file, one of the sources, or the target of an earlier option.
    """
    taken = list(sources)
    for option, path in targets.items():
        if path is None:
            continue
        if not os.path.isdir(path.parent):
            raise ConfigError(option, "", str(path), "a file in a folder that exists")
        if os.path.exists(path) and not os.path.isfile(path):
            raise ConfigError(option, "", str(path), "a file, new or to be replaced")
        for name, other in taken:
            if _same(path, other):
                raise ConfigError(option, "", str(path), f"another file than {name}")
        taken.append((f"that of {option}", path))


def _same(one: Path, other: Path) -> bool:
    """Whether both are the same file, there or not; links are followed."""
    if os.path.exists(one) and os.path.exists(other):
        return os.path.samefile(one, other)
    return os.path.realpath(one) == os.path.realpath(other)
