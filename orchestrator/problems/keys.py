"""Which columns of a file hold what: the keys of the experiment file, looked up in the file of problems."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from orchestrator.config_errors import MISSING, ConfigError, one_of
from orchestrator.problems.config import ANSWER_KEYS, EXTRA_KEY, PROMPT_KEYS, SOURCE_KEY, ColumnsConfig

Path = tuple[str, ...]
Names = Mapping[str, Any]  # of columns, and for a struct or object those of its fields; nothing below any other


@dataclass(frozen=True, slots=True, kw_only=True)
class Keys:
    """Where a row of one file has its four values.

    Example:
        Keys(
            prompt=("prompt",), answer=("reward_model", "ground_truth"), source=("data_source",), extra=("extra_info",)
        )
    """

    prompt: Path
    answer: Path
    source: Path | None  # None: the file has no such column
    extra: Path | None

    @classmethod
    def find(cls, config: ColumnsConfig, names: Names, file: str) -> "Keys":
        """Look the keys up among the names in a file.

        Raises:
            ConfigError: there is no such column, or there is nothing below it where a dot leads into it.
        """
        return cls(
            prompt=_needed("prompt_key", config.prompt_key, PROMPT_KEYS, names, file),
            answer=_needed("answer_key", config.answer_key, ANSWER_KEYS, names, file),
            source=_optional("source_key", config.source_key, SOURCE_KEY, names, file),
            extra=_optional("extra_key", config.extra_key, EXTRA_KEY, names, file),
        )

    def paths(self) -> Iterator[Path]:
        """Those that the file has."""
        yield from (path for path in (self.prompt, self.answer, self.source, self.extra) if path is not None)


def _needed(field: str, key: str | None, defaults: Sequence[str], names: Names, file: str) -> Path:
    if key is not None:
        return _asked_for(field, key, names, file)
    for default in defaults:
        path = _lookup(default, names)
        if path is not None:
            return path
    expected = f"the name of a column; there is none of {', '.join(defaults)}, only: {', '.join(names)}"
    raise ConfigError(file, field, MISSING, expected)


def _optional(field: str, key: str, default: str, names: Names, file: str) -> Path | None:
    return _lookup(key, names) if key == default else _asked_for(field, key, names, file)


def _asked_for(field: str, key: str, names: Names, file: str) -> Path:
    path = _lookup(key, names)
    if path is None:
        raise ConfigError(file, field, key, _instead(key, names))
    return path


def _lookup(key: str, names: Names) -> Path | None:
    if key in names:
        return (key,)
    path = tuple(key.split("."))
    below = names
    for name in path:
        if name not in below:
            return None
        below = below[name]
    return path


def _instead(key: str, names: Names) -> str:
    """What is expected instead of a key that leads nowhere."""
    above, below = "", names
    for name in key.split("."):
        if name not in below:
            what = f"a field of {above!r}" if above else "a column of the file"
            return f"{what}; {one_of(name, list(below))}" if below else f"a column with fields; {above!r} has none"
        above, below = f"{above}.{name}" if above else name, below[name]
    raise AssertionError(f"{key} is there")
