"""Engines and learners that take turns on their GPUs, and transfers that do not heal, in pools without Ray."""

import pytest
from fake_pools import Simulation, request, seeds_of

from actors.lr_policies import LrDecision
from actors.messages import LearnerShard, StepDecision
from cluster.worker import WorkerLost

SHARD = LearnerShard(microbatches=(), num_first_half=None, num_tokens=0, num_sequences=0)
ORDER = StepDecision(decision=LrDecision(step=0, lr=1e-3, events=()), grad_scale=1.0, update=True, metrics={})
SLEEP = ["rollout-0 sleep", "rollout-1 sleep"]
COMPUTE = ["learner-0 compute_gradients", "learner-1 compute_gradients"]
CONNECTED = ["learner-0 connect host-of-learner-0", "learner-1 connect host-of-learner-0"]


def at_work(**changes: bool) -> Simulation:
    """A crew that has been started; its journal is empty."""
    simulation = Simulation(**changes)
    simulation.crew.start()
    simulation.spoken()
    return simulation


def test_engines_start_alone_and_sleep_before_the_learners_start() -> None:
    simulation = Simulation(colocated=True)
    simulation.crew.start()
    spoken = simulation.spoken()
    assert spoken[:4] == ["rollout-0 start", "rollout-1 start", *SLEEP]
    assert spoken[4].startswith("learner-0 open_rendezvous")
    assert spoken[-2:] == CONNECTED


def test_engines_sleep_while_gradients_are_computed_and_nobody_else_is_asked_to_wait() -> None:
    simulation = at_work(colocated=True)
    crew = simulation.crew
    crew.generate([request(1), request(2)])
    crew.compute_gradients([SHARD, SHARD])
    crew.apply(ORDER)
    crew.publish()
    crew.generate([request(3), request(4)])
    spoken = simulation.spoken()
    assert spoken[2:6] == [*SLEEP, *COMPUTE]
    assert [line for line in spoken if "sleep" in line] == SLEEP
    assert simulation.weights() == [(1, "model+1")] * 2


def test_a_step_without_an_update_leaves_the_engines_their_weights() -> None:
    simulation = at_work(colocated=True)
    crew = simulation.crew
    crew.compute_gradients([SHARD, SHARD])
    assert seeds_of(crew.generate([request(1), request(2), request(3)])) == [(1,), (2,), (3,)]
    assert simulation.weights() == [(0, "model")] * 2
    assert not any(worker.asleep for worker in simulation.rollouts.workers)


def test_an_engine_that_is_lost_on_its_way_to_sleep_is_replaced_and_then_all_sleep() -> None:
    simulation = at_work(colocated=True)
    simulation.rollouts.lose(1, "sleep")
    simulation.crew.compute_gradients([SHARD, SHARD])
    spoken = simulation.spoken()
    assert spoken[:5] == [*SLEEP, "rollout-1 start", *CONNECTED]
    assert spoken[-4:] == [*SLEEP, *COMPUTE]
    assert all(worker.asleep for worker in simulation.rollouts.workers)
    assert simulation.told == ["rollout-1: rollout-1 starts again"]


def test_a_gang_that_starts_anew_finds_all_engines_asleep() -> None:
    simulation = at_work(colocated=True)
    simulation.learners.lose(1, "apply")
    with pytest.raises(WorkerLost) as raised:
        simulation.crew.apply(ORDER)
    simulation.spoken()
    simulation.crew.recover(raised.value, "step-8", 5)
    spoken = simulation.spoken()
    assert spoken[:2] == SLEEP
    assert "learner-0 load step-8" in spoken
    assert simulation.weights() == [(5, "step-8")] * 2


def test_workers_with_gpus_of_their_own_or_on_cpus_never_sleep() -> None:
    simulation = Simulation()
    simulation.crew.start()
    simulation.crew.compute_gradients([SHARD, SHARD])
    assert not any("sleep" in line for line in simulation.spoken())


@pytest.mark.parametrize("method", ["receive", "generate"])
def test_where_the_transfer_does_not_heal_an_engine_lost_in_it_takes_gang_and_engines_along(method: str) -> None:
    simulation = at_work(transfer_heals=False)
    crew = simulation.crew
    crew.apply(ORDER)
    simulation.rollouts.lose(1, "receive")
    if method == "generate":  # an engine that is lost elsewhere is replaced; now its successor is lost in the transfer
        simulation.rollouts.lose(1, "generate")
    with pytest.raises(WorkerLost, match=r"learner-0 was lost in .*: rollout-1 was lost while it received") as raised:
        crew.publish() if method == "receive" else crew.generate([request(1), request(2)])
    simulation.spoken()
    crew.recover(raised.value, "step-8", 5)
    assert simulation.spoken()[:2] == ["rollout-0 start", "rollout-1 start"]
    assert simulation.weights() == [(5, "step-8")] * 2
    assert simulation.told[-1] == "learner-0: the learners start again from step-8"


def test_a_learner_lost_in_a_transfer_that_does_not_heal_takes_the_engines_along() -> None:
    simulation = at_work(transfer_heals=False)
    simulation.learners.lose(1, "publish")
    with pytest.raises(WorkerLost, match="learner-1") as raised:
        simulation.crew.publish()
    simulation.spoken()
    simulation.crew.recover(raised.value, None, 0)
    assert simulation.spoken()[:2] == ["rollout-0 start", "rollout-1 start"]
    assert simulation.weights() == [(0, "model")] * 2


def test_an_engine_lost_outside_of_the_transfer_is_replaced_there_too() -> None:
    simulation = at_work(transfer_heals=False)
    simulation.rollouts.lose(1, "generate")
    assert seeds_of(simulation.crew.generate([request(1), request(2)])) == [(1,), (2,)]
    assert simulation.told == ["rollout-1: rollout-1 starts again"]
