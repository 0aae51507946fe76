"""Places a plan on the cluster, all of it or nothing, within a bound of time."""

import secrets
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import ray
from ray._private.accelerators import get_accelerator_manager_for_resource
from ray._private.state import state
from ray._private.utils import get_num_cpus
from ray.util import placement_group_table
from ray.util.placement_group import PlacementGroup, placement_group, remove_placement_group

from cluster.fit import Node, shortfall
from cluster.plan import Bundle, Plan, Seat, amounts

ACCELERATOR = "ray.io/accelerator-type"  # Ray's label of a node


@dataclass(frozen=True, slots=True, kw_only=True)
class Slot:
    """A reserved place for one worker.

    Example:
        Slot(group=group, index=0, seat=Seat(role="rollout", cpus=0.25, gpus=0.0), timeout_s=60.0)
    """

    group: PlacementGroup
    index: int  # of the bundle inside the placement group
    seat: Seat
    timeout_s: float  # to wait for room when the node is lost


class PlacementError(RuntimeError):
    """The cluster has no room for the plan; the message says what is needed, what there is and what is missing."""


def nodes() -> list[Node]:
    """The nodes that are alive, and those that an autoscaler could still add."""
    alive = [_node(node["Resources"], node.get("Labels", {})) for node in ray.nodes() if node["Alive"]]
    return alive + [node for node, most in _scalable() for _ in range(most)]


def _scalable() -> list[tuple[Node, int]]:
    """What an autoscaler may start: each kind of node, and how many of them."""
    config = state.get_cluster_config()
    groups: Sequence[Any] = config.node_group_configs if config else ()
    return [(_node(group.resources, {}), _most(group.max_count)) for group in groups]


def _most(count: int) -> int:
    unlimited, plenty = -1, 1024
    return plenty if count == unlimited else min(count, plenty)


def _node(resources: Any, labels: dict[str, str]) -> Node:
    found = dict(resources)
    return Node(
        cpus=float(found.get("CPU", 0)), gpus=float(found.get("GPU", 0)), accelerator=labels.get(ACCELERATOR, "")
    )


def this_node() -> Node:
    """What a private Ray on this machine will have."""
    gpus = get_accelerator_manager_for_resource("GPU")
    return Node(cpus=float(get_num_cpus()), gpus=float(gpus.get_current_node_num_accelerators() if gpus else 0))


def require_room(plan: Plan, found: Sequence[Node]) -> None:
    """See to it that a plan fits these nodes, were they idle.

    Raises:
        PlacementError: it does not.
    """
    missing = shortfall(plan, found)
    if missing:
        raise PlacementError(str(missing))


def reserve(plan: Plan, timeout_s: float) -> PlacementGroup:
    """Reserve all bundles of the plan at once, or none.

    Raises:
        PlacementError: the cluster is too small, or had no room within `timeout_s` seconds.
    """
    require_room(plan, nodes())
    bundles = [bundle.resources() for bundle in plan.bundles]
    group: PlacementGroup = placement_group(bundles, strategy=plan.strategy, name=_unique(plan.name))
    try:
        placed = group.wait(timeout_s)
    except BaseException:
        remove_placement_group(group)
        raise
    if not placed:
        free, holders = amounts(ray.available_resources()), _holders(group)
        remove_placement_group(group)
        raise PlacementError(f"no room within {timeout_s:g} s: needs {plan}; free now: {free}{holders}")
    return group


def is_there(slot: Slot) -> bool:
    """Whether the place is there. It is not while its node is lost and Ray looks for another one that has room."""
    found = placement_group_table(slot.group)
    return bool(found and found["state"] == "CREATED")


def room_lost(slot: Slot) -> PlacementError:
    """What to raise when that has lasted for the slot's time."""
    needed, free = Bundle(seats=(slot.seat,)), amounts(ray.available_resources())
    return PlacementError(
        f"a node was lost, and within {slot.timeout_s:g} s no other had room in its place: needs {needed}; "
        f"free now: {free}"
    )


def _unique(name: str) -> str:
    """A name as Ray wants it, whose part up to the # is for people."""
    return f"{name} (Ray job {ray.get_runtime_context().get_job_id()})#{secrets.token_hex(8)}"


def _holders(mine: PlacementGroup) -> str:
    """Who has what of the cluster, by the names of their plans."""
    held: dict[str, dict[str, float]] = {}
    for key, group in placement_group_table().items():
        if group["state"] == "CREATED" and key != mine.id.hex():
            of_name = held.setdefault(group["name"].partition("#")[0] or "a placement group without a name", {})
            for bundle in group["bundles"].values():
                for name, amount in bundle.items():
                    of_name[name] = of_name.get(name, 0.0) + amount
    return "".join(f"; held by {name}: {amounts(resources)}" for name, resources in sorted(held.items()))


@contextmanager
def reserved(plan: Plan, timeout_s: float) -> Iterator[dict[str, list[Slot]]]:
    """Slots for all seats of the plan, by role and in its order, given back at the end of the with-block.

    Raises:
        PlacementError: as in `reserve`.
    """
    group = reserve(plan, timeout_s)
    slots: dict[str, list[Slot]] = {}
    for index, bundle in enumerate(plan.bundles):
        for seat in bundle.seats:
            slots.setdefault(seat.role, []).append(Slot(group=group, index=index, seat=seat, timeout_s=timeout_s))
    try:
        yield slots
    finally:
        remove_placement_group(group)
