"""A Ray actor made from a plain class, in a reserved place, under a name that people can read."""

import secrets
from collections.abc import Mapping
from typing import Any

import ray
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from cluster.packing import TakesPacked
from cluster.placement import Slot

# Threads of an actor beside the one that works: signs of life, and what waits for work in the background.
PULSE, ASIDE = "pulse", "aside"
GROUPS = {PULSE: 1, ASIDE: 1}


def actor(  # noqa: PLR0913 - all that Ray is told
    worker: type[Any],
    slot: Slot,
    name: str,
    arguments: tuple[Any, ...],
    env: Mapping[str, str],
    *,
    title: str = "",
    groups: Mapping[str, int] = GROUPS,
) -> Any:
    """Ray's handle of an actor made from a plain class, in a reserved place; it is not up yet.

    Args:
        worker: the class, whose name Ray shows.
        slot: the place.
        name: shown by Ray, with the title; what follows them is no other actor's, successors included.
        arguments: of the class's constructor.
        env: environment variables of its process.
        title: of what it works for.
        groups: threads, by the name of the group that calls are made in.
    """
    remote: Any = ray.remote  # its types do not know of concurrency groups
    placed = PlacementGroupSchedulingStrategy(slot.group, placement_group_bundle_index=slot.index)
    options = {
        "name": " ".join(filter(None, (name, title, secrets.token_hex(3)))),
        "num_cpus": slot.seat.cpus,
        "num_gpus": slot.seat.gpus,
        "scheduling_strategy": placed,
        "runtime_env": {"env_vars": dict(env)},
        "_labels": {"evenkeel": name},
    }
    made = {"__doc__": worker.__doc__, "__module__": worker.__module__, "__qualname__": worker.__qualname__}
    acting = type(worker.__name__, (worker, TakesPacked), made)
    return remote(concurrency_groups=dict(groups))(acting).options(**options).remote(*arguments)
