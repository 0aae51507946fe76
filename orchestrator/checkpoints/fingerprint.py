"""What decides a run's numbers: a digest of it, and where two runs differ in it."""

import json
from collections.abc import Iterator, Mapping
from hashlib import sha256
from typing import Any

from pydantic import ValidationError

from orchestrator.config import ExperimentConfig
from orchestrator.config_errors import LONGEST_VALUE, MISSING, ConfigError

Keys = tuple[str, ...]

# These may change when a run goes on: how far it goes, what it looks at, where it runs and what of it is kept.
FREE: frozenset[Keys] = frozenset(
    {
        ("steps",),
        ("evaluation",),
        ("tracking",),
        ("cluster",),
        ("checkpoint",),
        ("learner", "workers"),
        ("learner", "cpus_per_worker"),
        ("rollout", "cpus_per_worker"),
        ("seeds",),
        ("arms",),
    }
)


def fingerprint(tree: Mapping[str, Any]) -> str:
    """SHA-256 in hexadecimal of a resolved config, as `model_dump(mode="json")` gives it, without what is free.

    >>> fingerprint({"steps": 10, "scheduler": {"lr": 1e-6}}) == fingerprint({"scheduler": {"lr": 1e-6}, "steps": 20})
    True
    """
    return sha256(_canonical(_decisive(tree)).encode()).hexdigest()


def differing_fields(stored: Mapping[str, Any], given: Mapping[str, Any]) -> list[tuple[str, Any, Any]]:
    """Where two resolved configs differ in what decides a run's numbers: (dotted path, stored value, given value).

    A key that one of them lacks has MISSING there. Of two blocks of another `kind`, the keys that only one of them
    has are left out: that follows from the kind.

    >>> differing_fields({"steps": 10, "scheduler": {"lr": 1e-6}}, {"steps": 20, "scheduler": {"lr": 2e-6}})
    [('scheduler.lr', 1e-06, 2e-06)]
    """
    return list(_differences(_decisive(stored), _decisive(given), ()))


def check_same(stored: Mapping[str, Any], given: Mapping[str, Any], file: str) -> None:
    """Refuse to go on with a run under a config that decides its numbers differently.

    Fields that the schema got since the checkpoint was written count with their defaults.

    Args:
        stored: the resolved config of the checkpoint.
        given: the resolved config of today, without `arms`.
        file: where the given one was written, for the message.

    Raises:
        ConfigError: with the first field that differs, and the names of the others.
    """
    differing = differing_fields(_of_today(stored), given)
    if differing:
        (field, old, new), *others = differing
        more = f" (also different: {', '.join(name for name, _, _ in others)})" if others else ""
        raise ConfigError(file, field, new, f"the value of the run that is resumed: {_shown(old)}{more}")


def _of_today(stored: Mapping[str, Any]) -> Mapping[str, Any]:
    try:
        return ExperimentConfig.model_validate(stored).model_dump(mode="json", exclude={"arms"})
    except ValidationError:  # the schema has lost or changed something: as it stands it shows what
        return stored


def _decisive(tree: Mapping[str, Any], path: Keys = ()) -> dict[str, Any]:
    return {
        key: _decisive(value, (*path, key)) if isinstance(value, Mapping) else value
        for key, value in tree.items()
        if (*path, key) not in FREE
    }


def _differences(stored: Mapping[str, Any], given: Mapping[str, Any], path: Keys) -> Iterator[tuple[str, Any, Any]]:
    other_kind = "kind" in stored and "kind" in given and stored["kind"] != given["kind"]
    for key in sorted({**stored, **given}, key=lambda key: key != "kind"):  # which explains most of the others
        old, new = stored.get(key, MISSING), given.get(key, MISSING)
        if other_kind and (old is MISSING or new is MISSING):
            continue
        if isinstance(old, Mapping) and isinstance(new, Mapping):
            yield from _differences(old, new, (*path, key))
        elif old is MISSING or new is MISSING or _canonical(old) != _canonical(new):
            yield ".".join((*path, key)), old, new


def _canonical(value: Any) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"))


def _shown(value: Any) -> str:
    text = "not set" if value is MISSING else "null" if value is None else repr(value)
    return text if len(text) <= LONGEST_VALUE else text[: LONGEST_VALUE - 3] + "..."
