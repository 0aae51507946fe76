"""What a run needs of the cluster: a pure plan, its bill of materials, and a reservation bounded in time."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import ray
from ray.util.placement_group import PlacementGroup, placement_group, remove_placement_group

RESOLUTION = 4  # decimals in which Ray counts a resource


@dataclass(frozen=True, slots=True, kw_only=True)
class Bundle:
    """Room for one worker.

    Example:
        Bundle(role="learner", cpus=0.25, gpus=0.0)
    """

    role: str
    cpus: float
    gpus: float

    def resources(self) -> dict[str, float]:
        """Ray's spelling of this bundle; only what is asked for."""
        wanted = {"CPU": self.cpus, "GPU": self.gpus}
        return {name: amount for name, amount in wanted.items() if amount > 0}


@dataclass(frozen=True, slots=True, kw_only=True)
class Slot:
    """A reserved place for one worker.

    Example:
        Slot(group=group, index=0, bundle=Bundle(role="rollout", cpus=0.25, gpus=0.0))
    """

    group: PlacementGroup
    index: int  # of the bundle inside the placement group
    bundle: Bundle


class PlacementError(RuntimeError):
    """The cluster has no room for the plan; the message is the bill of materials."""


def bill_of_materials(plan: Sequence[Bundle], available: Mapping[str, float]) -> list[dict[str, str | float]]:
    """One row per role with its count and needs, and a last row that compares the sum with `available`.

    Example:
        >>> plan = [Bundle(role="learner", cpus=1, gpus=1)] * 2
        >>> bill_of_materials(plan, {"CPU": 8, "GPU": 1})[-1]
        {'role': 'missing', 'workers': '', 'CPU': 0.0, 'GPU': 1.0}
    """
    counts = Counter(plan)
    rows: list[dict[str, str | float]] = [
        {"role": bundle.role, "workers": count, "CPU": bundle.cpus * count, "GPU": bundle.gpus * count}
        for bundle, count in counts.items()
    ]
    total = {"CPU": sum(bundle.cpus for bundle in plan), "GPU": sum(bundle.gpus for bundle in plan)}
    have = {name: float(available.get(name, 0.0)) for name in total}
    rows.append({"role": "needed", "workers": len(plan), **total})
    rows.append({"role": "available", "workers": "", **have})
    rows.append(
        {
            "role": "missing",
            "workers": "",
            **{name: max(0.0, round(total[name] - have[name], RESOLUTION)) for name in total},
        }
    )
    return rows


def missing(plan: Sequence[Bundle], available: Mapping[str, float]) -> dict[str, float]:
    """Resources the plan needs beyond `available`, by Ray's names; empty when it fits in the sum."""
    last = bill_of_materials(plan, available)[-1]
    return {name: float(last[name]) for name in ("CPU", "GPU") if float(last[name]) > 0}


def reserve(plan: Sequence[Bundle], timeout_s: float) -> PlacementGroup:
    """Reserve all bundles of the plan at once, or none.

    Raises:
        PlacementError: the cluster is too small, or had no room within `timeout_s` seconds.
    """
    total = ray.cluster_resources()
    lacking = missing(plan, total)
    if lacking:
        raise PlacementError(f"the cluster lacks {_amounts(lacking)}: {_needs(plan)}; it has {_amounts(total)}")
    group: PlacementGroup = placement_group([bundle.resources() for bundle in plan], strategy="PACK")
    if not group.wait(timeout_s):
        remove_placement_group(group)
        raise PlacementError(
            f"no room within {timeout_s:g} s: {_needs(plan)}; free now: {_amounts(ray.available_resources())}"
        )
    return group


def _needs(plan: Sequence[Bundle]) -> str:
    counts = Counter(plan)
    return "needs " + ", ".join(f"{n} x {bundle.role} ({_amounts(bundle.resources())})" for bundle, n in counts.items())


def _amounts(resources: Mapping[str, float]) -> str:
    named = [f"{resources[name]:g} {name}" for name in ("CPU", "GPU") if resources.get(name)]
    return ", ".join(named) or "nothing"


@contextmanager
def reserved(plan: Sequence[Bundle], timeout_s: float) -> Iterator[list[Slot]]:
    """Slots for all bundles of the plan, in its order, given back at the end of the with-block.

    Raises:
        PlacementError: as in `reserve`.
    """
    group = reserve(plan, timeout_s)
    try:
        yield [Slot(group=group, index=index, bundle=bundle) for index, bundle in enumerate(plan)]
    finally:
        remove_placement_group(group)
