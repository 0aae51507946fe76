"""Setting dotted paths in an experiment tree: what a block of another kind does not know falls away."""

from collections.abc import Mapping, Sequence
from copy import deepcopy
from typing import Any

from orchestrator.config import ExperimentConfig
from orchestrator.config_errors import known_keys
from orchestrator.experiment_file import Tree

KIND = "kind"


def set_params(tree: Tree, params: Mapping[str, Any]) -> Tree:
    """The tree with other values; kinds are set first, the outer ones before the inner ones.

    Example:
        >>> set_params({"scheduler": {"kind": "step", "lr": 1e-3, "period": 9}}, {"scheduler.kind": "constant"})
        {'scheduler': {'kind': 'constant', 'lr': 0.001}}
    """
    changed = deepcopy(tree)
    paths = {tuple(path.split(".")): value for path, value in params.items()}
    for path in sorted(paths, key=lambda path: (path[-1] != KIND, len(path))):
        block = _block(changed, path[:-1])
        if path[-1] == KIND:
            _set_kind(changed, block, path[:-1], paths[path])
        else:
            block[path[-1]] = paths[path]
    return changed


def node_at(tree: Tree, path: Sequence[str]) -> Any:
    """What stands at a path; None where nothing does."""
    node: Any = tree
    for key in path:
        node = node.get(key) if isinstance(node, Mapping) else None
    return node


def _set_kind(tree: Tree, block: Tree, path: Sequence[str], kind: Any) -> None:
    if block.get(KIND) == kind:
        return
    block[KIND] = kind
    known = known_keys(ExperimentConfig, path, tree)
    for key in [key for key in block if key not in known and key != KIND]:
        del block[key]


def _block(tree: Tree, path: Sequence[str]) -> Tree:
    """The mapping at a path, made where there is none yet."""
    node = tree
    for key in path:
        if not isinstance(node.get(key), dict):
            node[key] = {}
        node = node[key]
    return node
