"""The experiment file: read, with its arms and `--set` merged in, and checked."""

import re
from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from orchestrator.config import ExperimentConfig
from orchestrator.config_errors import MISSING, NAME, NAME_PATTERN, ConfigError, describe
from orchestrator.yaml_files import parse_scalar, read_mapping

Tree = dict[str, Any]

DEFAULT_ARM = "default"
# What belongs to the experiment as a whole; an arm that changed it would not be an arm of the same experiment.
NOT_IN_ARMS = ("name", "arms", "seeds", "tracking", "cluster")


@dataclass(frozen=True, slots=True, kw_only=True)
class ExperimentFile:
    """An experiment file as written, checked together with all of its arms.

    Example:
        file = ExperimentFile.read("examples/demo.yaml", overrides=["steps=20"])
        file.arms()                 # ["baseline", "decay"]
        file.resolve("decay")       # the ExperimentConfig of that arm
    """

    path: str
    tree: Tree
    overrides: tuple[tuple[tuple[str, ...], Any], ...]  # (path, value) of each --set

    @classmethod
    def read(cls, path: str | Path, overrides: Sequence[str] = ()) -> "ExperimentFile":
        """Read and check a file and every arm in it.

        Args:
            path: of a YAML file.
            overrides: `a.b=value` each; they win over the file and its arms.

        Raises:
            ConfigError: with file, field, value and what was expected.
        """
        return cls.of(str(path), read_mapping(path), overrides)

    @classmethod
    def of(cls, path: str, tree: Tree, overrides: Sequence[str] = ()) -> "ExperimentFile":
        """Check what a file holds; as `read`, which says the rest."""
        changes = [_parse_override(text) for text in overrides]
        for key_path, value in changes:
            if key_path[0] == "arms":
                set_value(tree, key_path, value)
        over_arms = tuple(change for change in changes if change[0][0] != "arms")
        file = cls(path=path, tree=tree, overrides=over_arms)
        as_written = replace(file, overrides=())
        for arm in file.arms() or [DEFAULT_ARM]:
            as_written.resolve(arm)
        return file

    def arms(self) -> list[str]:
        """Names of the arms, in the file's order; none when the file has no `arms`."""
        arms = {} if self.tree.get("arms") is None else self.tree["arms"]
        if not isinstance(arms, Mapping):
            raise ConfigError(self.path, "arms", arms, "a mapping from arm names to what they change")
        for name, changes in arms.items():
            if not isinstance(changes, Mapping):
                raise ConfigError(self.path, f"arms.{name}", changes, "a mapping of what the arm changes")
            if not isinstance(name, str) or not re.fullmatch(NAME_PATTERN, name):
                raise ConfigError(self.path, "arms", name, NAME)
        return list(arms)

    def resolve(self, arm: str) -> ExperimentConfig:
        """The experiment with that arm and the overrides merged in; `default` is the file itself.

        Raises:
            ConfigError: no such arm, or the result is no valid experiment.
        """
        changes = self._changes(arm)
        tree = deepcopy({key: value for key, value in self.tree.items() if key != "arms"})
        tree = merge(tree, changes)
        for path, value in self.overrides:
            set_value(tree, path, value)
        try:
            return ExperimentConfig.model_validate(tree)
        except ValidationError as error:
            origin = f"arms.{arm}." if changes else ""
            raise describe(error, ExperimentConfig, tree, self.path, self._label(changes, origin)) from None

    def _changes(self, arm: str) -> Tree:
        arms = self.arms()
        if arm == DEFAULT_ARM and arm not in arms:
            return {}
        if arm not in arms:
            raise ConfigError(self.path, "arms", arm, f"one of: {', '.join(arms) or 'no arms in this file'}")
        changes: Tree = self.tree["arms"][arm]
        for key in changes:
            if key in NOT_IN_ARMS:
                raise ConfigError(self.path, f"arms.{arm}.{key}", changes[key], "something an arm may change")
        return changes

    def _label(self, changes: Tree, origin: str) -> Any:
        """How to name a field: with the arm or the --set that it came from."""

        def label(path: tuple[str, ...]) -> str:
            dotted = ".".join(path)
            if any(path[: len(changed)] == changed[: len(path)] for changed, _ in self.overrides):
                return f"--set {dotted}" + (
                    f" in arm {origin.removeprefix('arms.').removesuffix('.')}" if origin else ""
                )
            node: Any = changes
            for key in path:
                if not isinstance(node, Mapping) or key not in node:
                    return dotted
                node = node[key]
            return origin + dotted

        return label


def merge(base: Mapping[str, Any], changes: Mapping[str, Any]) -> Tree:
    """`base` with `changes` laid over it, mapping by mapping; a mapping with another `kind` replaces, it is not merged.

    Example:
        >>> merge({"scheduler": {"kind": "step", "lr": 1.0}}, {"scheduler": {"kind": "constant", "lr": 2.0}})
        {'scheduler': {'kind': 'constant', 'lr': 2.0}}
    """
    merged = dict(base)
    for key, value in changes.items():
        below = merged.get(key)
        if (
            isinstance(below, Mapping)
            and isinstance(value, Mapping)
            and value.get("kind", below.get("kind")) == below.get("kind")
        ):
            merged[key] = merge(below, value)
        else:
            merged[key] = deepcopy(value)
    return merged


def _parse_override(text: str) -> tuple[tuple[str, ...], Any]:
    name, equals, value = text.partition("=")
    path = tuple(name.strip().split("."))
    if not equals or not all(path):
        raise ConfigError("--set", text, MISSING, "KEY=VALUE with a dotted key, such as rollout.group_size=8")
    return path, parse_scalar(value, source=f"--set {name}")


def set_value(tree: Tree, path: Sequence[str], value: Any) -> None:
    """Put a value at a path of keys, as `--set` does.

    Raises:
        ConfigError: something on the way is no mapping.
    """
    node = tree
    for key in path[:-1]:
        below = node.setdefault(key, {})
        if not isinstance(below, dict):
            raise ConfigError("--set", ".".join(path), value, f"a key below {key!r}, which holds {below!r}")
        node = below
    node[path[-1]] = value
