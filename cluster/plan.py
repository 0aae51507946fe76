"""What a run needs of the cluster, as a pure plan: who asks for how much, and who must be together on one node."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

RESOLUTION = 4  # decimals in which Ray counts a resource

# Ray's words. Bundles fill one node after the other; must all be on one node; are spread over nodes as far as possible.
Strategy = Literal["PACK", "STRICT_PACK", "SPREAD"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Seat:
    """What one worker asks for.

    Example:
        Seat(role="learner", cpus=0.25, gpus=1.0)
    """

    role: str
    cpus: float
    gpus: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Bundle:
    """Seats that must be on one node: those of a learner node, of workers that share a GPU, or of one worker alone.

    Example:
        Bundle(seats=(Seat(role="rollout", cpus=0.25, gpus=0.5), Seat(role="learner", cpus=0.25, gpus=0.5)))
    """

    seats: tuple[Seat, ...]

    @property
    def cpus(self) -> float:
        """Of all seats."""
        return round(sum(seat.cpus for seat in self.seats), RESOLUTION)

    @property
    def gpus(self) -> float:
        """Of all seats."""
        return round(sum(seat.gpus for seat in self.seats), RESOLUTION)

    def resources(self) -> dict[str, float]:
        """Ray's spelling of this bundle; only what is asked for."""
        wanted = {"CPU": self.cpus, "GPU": self.gpus}
        return {name: amount for name, amount in wanted.items() if amount > 0}

    def __str__(self) -> str:
        roles = Counter(seat.role for seat in self.seats)
        named = " + ".join(role if count == 1 else f"{count} {role}" for role, count in roles.items())
        return f"{named} ({amounts(self.resources())})"


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """All that one run has placed at once, or not at all.

    Example:
        Plan(name="demo/decay/seed-0", bundles=(Bundle(seats=(Seat(role="scheduler", cpus=0.1, gpus=0.0),)),))
    """

    bundles: tuple[Bundle, ...]
    strategy: Strategy = "PACK"
    name: str = ""  # of whoever wants it, for those who must wait for it

    @property
    def seats(self) -> list[Seat]:
        """Of all bundles, in their order."""
        return [seat for bundle in self.bundles for seat in bundle.seats]

    def only(self, role: str) -> "Plan":
        """The same plan for the workers of one role alone."""
        kept = (tuple(seat for seat in bundle.seats if seat.role == role) for bundle in self.bundles)
        return replace(self, bundles=tuple(Bundle(seats=seats) for seats in kept if seats))

    def __str__(self) -> str:
        return listed(self.bundles)


def bill_of_materials(plan: Plan, available: Mapping[str, float]) -> list[dict[str, str | float]]:
    """One row per kind of bundle with its count and needs, and three last ones that compare the sum with `available`.

    Example:
        >>> plan = Plan(bundles=(Bundle(seats=(Seat(role="learner", cpus=1, gpus=1),)),) * 2)
        >>> bill_of_materials(plan, {"CPU": 8, "GPU": 1})[-1]
        {'bundle': 'missing', 'number': '', 'CPU': 0.0, 'GPU': 1.0}
    """
    counts = Counter(plan.bundles)
    rows: list[dict[str, str | float]] = [
        {"bundle": str(bundle), "number": count, "CPU": bundle.cpus * count, "GPU": bundle.gpus * count}
        for bundle, count in counts.items()
    ]
    total = {
        "CPU": sum(bundle.cpus for bundle in plan.bundles),
        "GPU": sum(bundle.gpus for bundle in plan.bundles),
    }
    have = {name: float(available.get(name, 0.0)) for name in total}
    lacking = {name: max(0.0, round(total[name] - have[name], RESOLUTION)) for name in total}
    rows.append({"bundle": "needed", "number": len(plan.bundles), **total})
    rows.append({"bundle": "available", "number": "", **have})
    rows.append({"bundle": "missing", "number": "", **lacking})
    return rows


def listed(bundles: Iterable[Bundle]) -> str:
    """Bundles for a message: `2 x rollout (0.25 CPU, 1 GPU), 1 x scheduler (0.1 CPU)`."""
    return ", ".join(f"{count} x {bundle}" for bundle, count in Counter(bundles).items()) or "nothing"


def amounts(resources: Mapping[str, float], names: Sequence[str] = ("CPU", "GPU")) -> str:
    """Resources for a message: `8 CPU, 1 GPU`."""
    return ", ".join(f"{resources[name]:g} {name}" for name in names if resources.get(name)) or "nothing"
