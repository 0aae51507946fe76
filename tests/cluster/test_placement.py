"""Places reserved on a real private Ray: all of a plan at once, or a refusal that explains itself."""

import pytest
import ray

from cluster.placement import PlacementError, nodes, reserved
from cluster.plan import Bundle, Plan, Seat

pytestmark = pytest.mark.slow


def everything(name: str) -> Plan:
    """A plan for all CPUs that there are."""
    seat = Seat(role="rollout", cpus=sum(node.cpus for node in nodes()), gpus=0.0)
    return Plan(bundles=(Bundle(seats=(seat,)),), name=name)


def free_cpus() -> float:
    return float(ray.available_resources().get("CPU", 0.0))


def test_a_private_ray_is_one_node(on_ray: None) -> None:
    (node,) = nodes()
    assert node.cpus >= 1
    assert node.gpus == 0


def test_a_plan_that_cannot_fit_is_refused_with_what_is_missing(on_ray: None) -> None:
    with (
        pytest.raises(PlacementError, match=r"needs 1 x learner \(1 CPU, 1 GPU\); it has 1 node of \d+ CPU; missing: "),
        reserved(Plan(bundles=(Bundle(seats=(Seat(role="learner", cpus=1, gpus=1),)),)), timeout_s=600),
    ):
        raise AssertionError("there is no GPU to be had")


def test_slots_come_by_role_and_those_of_one_bundle_share_it(on_ray: None) -> None:
    pair = Bundle(seats=(Seat(role="rollout", cpus=0.1, gpus=0.0), Seat(role="learner", cpus=0.2, gpus=0.0)))
    with reserved(Plan(bundles=(pair, pair)), timeout_s=30) as slots:
        assert [slot.index for slot in slots["rollout"]] == [slot.index for slot in slots["learner"]] == [0, 1]
        assert slots["learner"][0].seat == pair.seats[1]


def test_who_finds_no_room_in_time_is_told_who_has_it(on_ray: None) -> None:
    with reserved(everything("the first"), timeout_s=30):
        with (
            pytest.raises(
                PlacementError, match=r"no room within 0.5 s: .*; held by the first \(Ray job \w+\): \d+ CPU"
            ),
            reserved(everything("the second"), timeout_s=0.5),
        ):
            raise AssertionError("all is taken")
        assert free_cpus() == 0
    with reserved(everything("the third"), timeout_s=30):
        assert free_cpus() == 0
