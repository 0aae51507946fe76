"""Does the space of a sweep fit its experiment? Every path and every edge, before the first trial."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from difflib import get_close_matches
from itertools import product
from typing import Any

from orchestrator.config import ExperimentConfig
from orchestrator.config_errors import MISSING, ConfigError, known_keys
from orchestrator.experiment_file import Tree
from sweeps.objective import metric_keys
from sweeps.space import Dimension, Params, exists, in_order
from sweeps.sweep_config import NOT_IN_SPACE, SweepConfig
from sweeps.trial_tree import KIND, node_at, set_params

MOST_PROPOSED = 3


class SpaceCheck:
    """Compares a sweep with the experiment that its trials change.

    SpaceCheck("sweep.yaml", config, tree, trial_config).run()
    """

    def __init__(
        self, file: str, config: SweepConfig, tree: Tree, trial_config: Callable[[Params], ExperimentConfig]
    ) -> None:
        """Define the check.

        Args:
            file: the sweep's, for messages.
            config: what it says.
            tree: the experiment with all of its defaults.
            trial_config: the experiment of a trial; ConfigError when it is none.
        """
        self._file = file
        self._config = config
        self._space = in_order(config.space)
        self._tree = tree
        self._trial_config = trial_config

    def run(self) -> None:
        """ConfigError: with the place in the sweep file."""
        self._check_paths()
        corners = [corner for chosen in switches(self._space) for corner in corners_of(self._space, chosen)]
        logged = [(params, metric_keys(self._trial(params, path))) for params, path in corners]
        self._check_metric(("objective", "metric"), self._config.objective.metric, logged)
        for i, constraint in enumerate(self._config.constraints):
            self._check_metric(("constraints", str(i), "metric"), constraint.metric, logged)

    def _check_paths(self) -> None:
        """Every path must lead to a value of the experiment, whichever kinds a trial has where it exists."""
        leaves = [(chosen, self._leaf_paths(chosen)) for chosen in switches(self._space)]
        known = list(dict.fromkeys(path for _, found in leaves for path in found))
        self._check_known(filter(is_kind, self._space), known)
        for chosen, _ in leaves:
            self._check_kinds(chosen)
        self._check_known(self._space, known)
        for chosen, found in leaves:
            for path, dimension in self._space.items():
                if path not in found and exists(dimension, chosen):
                    expected = f"conditions that leave it out where {_in_words(chosen)}, which has no such key"
                    raise self._mistake(("space", path, "when"), MISSING, expected)

    def _check_known(self, paths: Iterable[str], known: Sequence[str]) -> None:
        for path in paths:
            if path not in known:
                expected = f"a path to a value in the experiment; {_nearest(path, known)}"
                raise self._mistake(("space", path), MISSING, expected)

    def _check_kinds(self, chosen: Params) -> None:
        """Each must be one of its block's."""
        for path, kind in chosen.items():
            tree, block = set_params(self._tree, {path: kind}), path.split(".")[:-1]
            if is_kind(path) and not known_keys(ExperimentConfig, block, tree):
                self._trial({path: kind}, path)  # which says what is expected

    def _leaf_paths(self, chosen: Params) -> list[str]:
        """What a trial with these kinds could set."""
        tree = set_params(self._tree, {path: value for path, value in chosen.items() if is_kind(path)})
        return [path for path in leaf_paths(tree) if path.partition(".")[0] not in NOT_IN_SPACE]

    def _trial(self, params: Params, path: str | None) -> ExperimentConfig:
        """The experiment of a trial; what is wrong with it is told of the path that the trial is about."""
        try:
            return self._trial_config(params)
        except ConfigError as error:
            named = error.field if error.field in params else path or self._culprit(params)
            expected = error.expected if error.field == named else f"{error.field}: {error.expected}"
            if named is None:
                raise self._mistake(("space",), params, f"values that go together; {expected}") from None
            raise self._mistake(("space", named), params[named], expected) from None

    def _culprit(self, params: Params) -> str | None:
        """The path without whose value it would be an experiment."""
        for path in params:
            try:
                self._trial_config({other: value for other, value in params.items() if other != path})
            except ConfigError:
                continue
            return path
        return None

    def _check_metric(
        self, place: Sequence[str], metric: str, logged: Sequence[tuple[Params, tuple[str, ...]]]
    ) -> None:
        """Every trial must log it."""
        without = [params for params, keys in logged if metric not in keys]
        if not without:
            return
        with_it = [params for params, keys in logged if metric in keys]
        known = logged[0][1]
        if with_it:
            decisive = {path: value for path, value in without[0].items() if all(p.get(path) != value for p in with_it)}
            where = f", also where {_in_words(decisive)}" if decisive else ""
            expected = f"a metric that every trial logs{where}"
        elif metric.startswith("eval/") and not any(key.startswith("eval/") for key in known):
            expected = "a metric of a step, as the experiment has no `evaluation`"
        else:
            expected = f"a metric that the runs log; {_nearest(metric, known)}"
        raise self._mistake(place, metric, expected)

    def _mistake(self, place: Sequence[str], value: Any, expected: str) -> ConfigError:
        return ConfigError(self._file, ".".join(place), value, expected)


def is_kind(path: str) -> bool:
    """Whether it chooses among the kinds of a block."""
    return path.rpartition(".")[2] == KIND


def leaf_paths(tree: Tree, above: tuple[str, ...] = ()) -> Iterator[str]:
    """The dotted paths of all single values that an experiment of the kinds in `tree` can have.

    Args:
        tree: an experiment, defaults included, as they tell kinds.
        above: the keys that lead to the block to begin with.
    """
    node = node_at(tree, above)
    for key in known_keys(ExperimentConfig, above, tree) or (list(node) if isinstance(node, Mapping) else []):
        path = (*above, key)
        below = list(leaf_paths(tree, path))
        yield from below or ([] if isinstance(node_at(tree, path), Mapping) else [".".join(path)])


def switches(space: Mapping[str, Dimension]) -> list[Params]:
    """All combinations of what decides which dimensions, and which keys of the experiment, exist."""
    named = {path for dimension in space.values() for path in dimension.when}
    paths = [path for path in space if path in named or is_kind(path)]
    found: list[Params] = []
    for values in product(*(space[path].edges() for path in paths)):
        chosen: Params = {}
        for path, value in zip(paths, values, strict=True):
            if exists(space[path], chosen):
                chosen[path] = value
        if chosen not in found:
            found.append(chosen)
    return found


def corners_of(space: Mapping[str, Dimension], chosen: Params) -> Iterator[tuple[Params, str | None]]:
    """Parameters of trials at the edges, each with the path that it is about, if it is about one.

    The others are all at their first or all at their last value: any two ranges meet at all four of their corners.

    Args:
        space: in the order of its conditions.
        chosen: one of its switches.
    """
    free = [path for path in space if path not in chosen and exists(space[path], chosen)]
    for end in (0, -1):
        base = chosen | {path: space[path].edges()[end] for path in free}
        yield base, None
        for path in free:
            yield from (({**base, path: value}, path) for value in space[path].edges() if value != base[path])


def _in_words(params: Params) -> str:
    return " and ".join(f"{path} is {value}" for path, value in params.items())


def _nearest(written: str, known: Sequence[str]) -> str:
    """What exists instead: what lies below it, or is written most like it."""
    below = [path for path in known if path.startswith(f"{written}.")]
    close = below[:MOST_PROPOSED] or get_close_matches(written, known, n=MOST_PROPOSED)
    if not close:
        return f"such as {known[0]!r}"
    return f"did you mean {' or '.join(map(repr, close))}?"
