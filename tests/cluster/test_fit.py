"""Plans against nodes, without a cluster: what fits, what does not, and what is then missing."""

from collections.abc import Sequence
from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster import fit
from cluster.fit import Node, kinds, shortfall
from cluster.plan import Bundle, Plan, Seat, Strategy


def bundle(role: str, cpus: float, gpus: float = 0.0, seats: int = 1) -> Bundle:
    return Bundle(seats=(Seat(role=role, cpus=cpus, gpus=gpus),) * seats)


def plan(*bundles: Bundle, strategy: Strategy = "PACK") -> Plan:
    return Plan(bundles=bundles, strategy=strategy)


ENGINE = bundle("rollout", 1, 2)
RANK = bundle("learner", 1, 1)
SCHEDULER = bundle("scheduler", 0.1)
HEAD = Node(cpus=4, gpus=0)
EIGHT = Node(cpus=32, gpus=8, accelerator="H100")


def test_a_plan_fits_when_every_bundle_finds_a_node() -> None:
    assert shortfall(plan(*[ENGINE] * 2, *[RANK] * 4, SCHEDULER), [HEAD, EIGHT]) is None


def test_what_is_missing_is_told_by_kind_of_node() -> None:
    missing = shortfall(plan(*[ENGINE] * 3, *[bundle("learner", 1, 1, seats=8)] * 2, SCHEDULER), [HEAD, EIGHT, EIGHT])
    assert str(missing) == (
        "the cluster has no room: needs 3 x rollout (1 CPU, 2 GPU), 2 x 8 learner (8 CPU, 8 GPU), "
        "1 x scheduler (0.1 CPU); it has 1 node of 4 CPU; 2 nodes of 32 CPU, 8 GPU H100; "
        "missing: nodes for 3 x rollout (1 CPU, 2 GPU)"
    )


def test_a_sum_that_suffices_is_not_enough_where_no_node_is_large_enough() -> None:
    four = Node(cpus=16, gpus=4)
    missing = shortfall(plan(bundle("rollout", 1, 8)), [four, four])
    assert missing is not None
    assert "missing: nodes for 1 x rollout (1 CPU, 8 GPU)" in str(missing)


def test_bundles_that_fit_one_by_one_may_not_fit_together() -> None:
    four = Node(cpus=16, gpus=4)
    three, two = bundle("rollout", 1, 3), bundle("learner", 1, 1, seats=2)
    assert shortfall(plan(three, three), [four, four]) is None
    assert shortfall(plan(two), [four, four]) is None
    missing = shortfall(plan(three, three, two), [four, four])
    assert missing is not None and list(missing.left) == [two]


def test_an_arrangement_is_found_that_taking_the_largest_first_misses() -> None:
    # 5 into the node of 6 leaves 1 there, and 4 and 3 need the node of 7.
    bundles = [bundle("a", 5), bundle("b", 4), bundle("c", 2), bundle("d", 2)]
    assert shortfall(plan(*bundles), [Node(cpus=7, gpus=0), Node(cpus=6, gpus=0)]) is None


def test_all_on_one_node_means_all_on_one() -> None:
    two = plan(RANK, RANK, strategy="STRICT_PACK")
    single = Node(cpus=8, gpus=1)
    assert shortfall(two, [Node(cpus=8, gpus=2)]) is None
    missing = shortfall(two, [single, single])
    assert missing is not None
    assert "needs 2 x learner (1 CPU, 1 GPU) on one node" in str(missing)
    assert shortfall(plan(RANK, RANK, strategy="SPREAD"), [single, single]) is None


def test_fifteen_workers_with_a_fifth_of_a_cpu_fit_on_three() -> None:
    assert shortfall(plan(*[bundle("rollout", 0.2)] * 15), [Node(cpus=3, gpus=0)]) is None
    assert shortfall(plan(*[bundle("rollout", 0.2)] * 16), [Node(cpus=3, gpus=0)]) is not None


@pytest.mark.parametrize(("nodes", "text"), [([], "no nodes"), ([HEAD], "1 node of 4 CPU")])
def test_kinds_of_nodes_read_well(nodes: list[Node], text: str) -> None:
    assert kinds(nodes) == text


def fits_by_trying_everything(bundles: Sequence[Bundle], nodes: Sequence[Node]) -> bool:
    for choice in product(range(len(nodes)), repeat=len(bundles)):
        cpus, gpus = [node.cpus for node in nodes], [node.gpus for node in nodes]
        for one, place in zip(bundles, choice, strict=True):
            cpus[place] -= one.cpus
            gpus[place] -= one.gpus
        if min([*cpus, *gpus]) >= 0:
            return True
    return not bundles


SIZES = st.tuples(st.integers(1, 4), st.integers(0, 3))


@given(st.lists(SIZES, max_size=5), st.lists(SIZES, min_size=1, max_size=3))
def test_the_answer_is_that_of_trying_everything(wanted: list[tuple[int, int]], have: list[tuple[int, int]]) -> None:
    bundles = [bundle("one", cpus, gpus) for cpus, gpus in wanted]
    nodes = [Node(cpus=2 * cpus, gpus=2 * gpus) for cpus, gpus in have]
    assert (shortfall(plan(*bundles), nodes) is None) == fits_by_trying_everything(bundles, nodes)


def test_a_plan_of_many_workers_is_settled_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fit, "PATIENCE", 5_000)
    nodes = [EIGHT] * 80
    many = [*[ENGINE] * 256, *[bundle("learner", 1, 1, seats=8)] * 16]
    assert shortfall(plan(*many, SCHEDULER), nodes) is None
    assert shortfall(plan(*many, RANK, SCHEDULER), nodes) is not None


def test_what_cannot_be_settled_in_good_time_is_left_to_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    three, two, four = bundle("rollout", 1, 3), bundle("learner", 1, 1, seats=2), Node(cpus=16, gpus=4)
    monkeypatch.setattr(fit, "PATIENCE", 1)
    assert shortfall(plan(three, three, two), [four, four]) is None
