"""Whether a plan fits the nodes of a cluster, and which bundles find no node when it does not: pure, without Ray."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from math import ceil

from cluster.plan import RESOLUTION, Bundle, Plan, amounts, listed

UNIT = 10**RESOLUTION
PATIENCE = 200_000  # arrangements that are looked at before the question is left to Ray

Need = tuple[int, int]  # CPUs and GPUs in Ray's units


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """A node, with what it has altogether.

    Example:
        Node(cpus=16.0, gpus=8.0, accelerator="H100")
    """

    cpus: float
    gpus: float
    accelerator: str = ""

    def __str__(self) -> str:
        gpu = f"GPU {self.accelerator}".strip()
        return amounts({"CPU": self.cpus, gpu: self.gpus}, ("CPU", gpu))


@dataclass(frozen=True, slots=True, kw_only=True)
class Shortfall:
    """Why a plan does not fit; its text is one line.

    Example:
        Shortfall(plan=plan, nodes=nodes, left=[Bundle(seats=(Seat(role="learner", cpus=1.0, gpus=8.0),))])
    """

    plan: Plan
    nodes: Sequence[Node]
    left: Sequence[Bundle]  # those that find no node

    def __str__(self) -> str:
        together = " on one node" if self.plan.strategy == "STRICT_PACK" else ""
        return (
            f"the cluster has no room: needs {self.plan}{together}; "
            f"it has {kinds(self.nodes)}; missing: nodes for {listed(self.left)}"
        )


def kinds(nodes: Iterable[Node]) -> str:
    """Nodes for a message: `2 nodes of 16 CPU, 8 GPU H100; 1 node of 4 CPU`."""
    counts = Counter(nodes)
    return "; ".join(f"{n} {'node' if n == 1 else 'nodes'} of {node}" for node, n in counts.items()) or "no nodes"


def shortfall(plan: Plan, nodes: Sequence[Node]) -> Shortfall | None:
    """What is missing when the plan cannot be placed on these nodes, were they all idle; None when it can.

    None, too, for the rare plan of which that could not be settled in good time: Ray then tries.
    """
    bundles = list(plan.bundles)
    if plan.strategy == "STRICT_PACK" and bundles:
        bundles = [Bundle(seats=tuple(plan.seats))]
    left = _left_over(bundles, nodes)
    if not left or _Search(bundles, nodes).finds_room():
        return None
    return Shortfall(plan=plan, nodes=nodes, left=left)


def _left_over(bundles: Sequence[Bundle], nodes: Sequence[Node]) -> list[Bundle]:
    """Those that find no room when the largest choose first, each the fullest node that takes it."""
    free = [_have(node) for node in nodes]
    left = []
    for bundle in sorted(bundles, key=_size, reverse=True):
        need = _need(bundle)
        fits = [i for i, have in enumerate(free) if _takes(have, need)]
        if not fits:
            left.append(bundle)
            continue
        best = min(fits, key=lambda i: (free[i][1], free[i][0]))
        free[best] = (free[best][0] - need[0], free[best][1] - need[1])
    return left


def _size(bundle: Bundle) -> tuple[float, float]:
    return bundle.gpus, bundle.cpus


def _need(bundle: Bundle) -> Need:
    return ceil(round(bundle.cpus * UNIT, 3)), ceil(round(bundle.gpus * UNIT, 3))


def _have(node: Node) -> Need:
    return round(node.cpus * UNIT), round(node.gpus * UNIT)


def _takes(have: Need, need: Need) -> bool:
    return have[0] >= need[0] and have[1] >= need[1]


@dataclass
class _Search:
    """Fills one node after the other in every way that leaves no room for more, and remembers what came to nothing."""

    bundles: Sequence[Bundle]
    nodes: Sequence[Node]
    looked_at: int = 0
    hopeless: set[tuple[int, tuple[int, ...]]] = field(default_factory=set)

    def finds_room(self) -> bool:
        """Whether there is an arrangement; True when looking for one was given up."""
        counts: Mapping[Need, int] = Counter(_need(bundle) for bundle in self.bundles)
        self._needs = sorted(counts, key=lambda need: (need[1], need[0]), reverse=True)
        self._free = sorted((_have(node) for node in self.nodes), key=lambda have: (have[1], have[0]))
        demand = [sum(need[i] * count for need, count in counts.items()) for i in (0, 1)]
        if any(demand[i] > sum(have[i] for have in self._free) for i in (0, 1)):
            return False
        if any(count > sum(_most(have, need) for have in self._free) for need, count in counts.items()):
            return False
        return self._places(tuple(counts[need] for need in self._needs), 0)

    def _places(self, wanted: tuple[int, ...], node: int) -> bool:
        if not any(wanted):
            return True
        if node == len(self._free) or (node, wanted) in self.hopeless:
            return False
        for placed in self._fillings(self._free[node], wanted, 0):
            self.looked_at += 1
            if self.looked_at > PATIENCE:
                return True
            if self._places(tuple(want - put for want, put in zip(wanted, placed, strict=True)), node + 1):
                return True
        self.hopeless.add((node, wanted))
        return False

    def _fillings(self, have: Need, wanted: tuple[int, ...], kind: int) -> Iterator[tuple[int, ...]]:
        """How many of each kind a node may take, the larger kinds first; of the last kind as many as it can."""
        most = min(wanted[kind], _most(have, self._needs[kind]))
        if kind == len(wanted) - 1:
            yield (most,)
            return
        for number in range(most, -1, -1):
            need = self._needs[kind]
            rest = (have[0] - number * need[0], have[1] - number * need[1])
            yield from ((number, *others) for others in self._fillings(rest, wanted, kind + 1))


def _most(have: Need, need: Need) -> int:
    """How many of these a node takes."""
    return min((have[i] // need[i] for i in (0, 1) if need[i]), default=UNIT)
