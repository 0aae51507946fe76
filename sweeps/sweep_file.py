"""A sweep file with the experiment it is about: checked as a whole, and asked for the experiment of each trial."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from actors.lr_policies import ConstantConfig
from orchestrator.config import ExperimentConfig
from orchestrator.config_errors import MISSING, ConfigError, describe, one_of
from orchestrator.experiment_file import DEFAULT_ARM, ExperimentFile, Tree, merge, set_value
from orchestrator.yaml_files import parse_scalar, read_mapping
from sweeps.space_check import SpaceCheck
from sweeps.sweep_config import SweepConfig
from sweeps.trial_tree import node_at, set_params

Override = tuple[tuple[str, ...], Any]  # keys and value of a --set


@dataclass(frozen=True, slots=True, kw_only=True)
class SweepFile:
    """A sweep file as checked, against the experiment too.

    Example:
        sweep = SweepFile.read("examples/sweeps/thresholds.yaml")
        sweep.trial_config({"scheduler.ratio": 1.4})    # an ExperimentConfig
    """

    path: str
    config: SweepConfig
    experiment: ExperimentFile  # with the arm and the changes laid over it: no arms; name and seeds are the sweep's

    @classmethod
    def read(cls, path: str | Path, overrides: Sequence[str] = ()) -> "SweepFile":
        """Read and check a sweep file, and the experiment of every corner of its space.

        Args:
            path: of a YAML file.
            overrides: `a.b=value` each, over the sweep file; `changes.a.b=value` reaches the experiment.

        Raises:
            ConfigError: with file, field, value and what was expected.
        """
        tree = read_mapping(path)
        tree["name"] = Path(path).stem if tree.get("name") is None else tree["name"]
        changes = [_override(text, tree) for text in overrides]
        for keys, value in changes:
            set_value(tree, keys, value)
        config = _sweep_config(tree, str(path), changes)
        file = cls(path=str(path), config=config, experiment=_experiment(config, str(path)))
        SpaceCheck(file.path, config, file._with_defaults(), file.trial_config).run()
        return file

    @property
    def name(self) -> str:
        """Of the sweep, and of the folder of its runs."""
        return self.config.name

    @property
    def shares(self) -> bool:
        """Whether trials share steps."""
        return self.config.shares

    def trial_config(self, params: Mapping[str, Any]) -> ExperimentConfig:
        """The experiment of a trial.

        Args:
            params: values by dotted path; where a kind changes, keys stay that the new one knows.

        Raises:
            ConfigError: the values do not go together.
        """
        tree = set_params(self.experiment.tree, params)
        return _validated(tree, self.path)

    def baseline_config(self) -> ExperimentConfig:
        """The experiment with a constant learning rate, that of its own scheduler after the same warm-up."""
        scheduler = self.experiment.resolve(DEFAULT_ARM).scheduler
        constant = ConstantConfig(lr=scheduler.lr, warmup_steps=scheduler.warmup_steps)
        tree = {**self.experiment.tree, "scheduler": constant.model_dump()}
        return _validated(tree, self.path)

    def _with_defaults(self) -> Tree:
        return self.experiment.resolve(DEFAULT_ARM).model_dump(mode="json")


def _experiment(config: SweepConfig, file: str) -> ExperimentFile:
    """The experiment that the sweep's trials change."""
    source = Path(file).parent / config.experiment
    if not source.is_file():
        raise ConfigError(file, "experiment", config.experiment, f"an experiment file, seen from here: no {source}")
    written = ExperimentFile.read(source)
    arms = written.arms()
    if config.arm is None:
        written = replace(written, tree={key: value for key, value in written.tree.items() if key != "arms"})
    elif config.arm not in arms:
        expected = f"an arm of {source}; {one_of(config.arm, arms)}" if arms else f"null, as {source} has no arms"
        raise ConfigError(file, "arm", config.arm, expected)
    resolved = written.resolve(config.arm or DEFAULT_ARM).model_dump(mode="json", exclude_unset=True)
    own = {"name": config.name} | ({} if config.seeds is None else {"seeds": config.seeds})
    tree = merge(resolved, config.changes) | own
    _validated(tree, file, above="changes.")
    return ExperimentFile(path=str(source), tree=tree, overrides=())


def _validated(tree: Tree, file: str, above: str = "") -> ExperimentConfig:
    try:
        return ExperimentConfig.model_validate(tree)
    except ValidationError as error:
        raise describe(error, ExperimentConfig, tree, file, lambda path: above + ".".join(path)) from None


def _sweep_config(tree: Tree, file: str, overrides: Sequence[Override]) -> SweepConfig:
    def label(path: tuple[str, ...]) -> str:
        overridden = any(path[: len(keys)] == keys[: len(path)] for keys, _ in overrides)
        return ("--set " if overridden else "") + ".".join(path)

    try:
        return SweepConfig.model_validate(tree)
    except ValidationError as error:
        raise describe(error, SweepConfig, tree, file, label) from None


def _override(text: str, tree: Tree) -> Override:
    name, equals, value = text.partition("=")
    keys = tuple(name.strip().split("."))
    if not equals or not all(keys):
        raise ConfigError("--set", text, MISSING, "KEY=VALUE with a dotted key, such as trials=8")
    return _in_space(keys, tree) if keys[0] == "space" else keys, parse_scalar(value, source=f"--set {name}")


def _in_space(keys: tuple[str, ...], tree: Tree) -> tuple[str, ...]:
    """Below `space` keys have dots: the longest one that is there, and the rest; or else all as a new one."""
    known = node_at(tree, ("space",))
    for length in range(len(keys), 1, -1):
        path = ".".join(keys[1:length])
        if isinstance(known, Mapping) and path in known:
            return ("space", path, *keys[length:])
    return tuple(filter(None, ("space", ".".join(keys[1:]))))
