"""What a crew asks of its workers when it starts, works, and loses some, in pools without Ray."""

from collections.abc import Callable
from typing import Any

import pytest
from fake_pools import Simulation, request, seeds_of
from scheduler_inputs import report

from actors.config import LearnerConfig
from actors.lr_policies import ConstantConfig, LrDecision
from actors.messages import LearnerShard, StepDecision
from actors.scheduler import Scheduler
from cluster.config import RestartsConfig
from cluster.worker import WorkerLost
from orchestrator.crew.restarts import Restarts, RestartsExhausted

ENGINES_UP = ["rollout-0 start", "rollout-1 start"]
ADDRESS = "host-of-learner-0:29500"
GANG_UP = [
    "learner-0 open_rendezvous host-of-learner-0",
    f"learner-0 start {ADDRESS}",
    f"learner-1 start {ADDRESS}",
]
CONNECTED = ["learner-0 connect host-of-learner-0", "learner-1 connect host-of-learner-0"]
LENGTHS = [1000.0, 1000.0, 3000.0, 3000.0, 3000.0, 3000.0, 3000.0, 3000.0]  # surge at step 2, decays at 3 and 6
SHARD = LearnerShard(microbatches=(), num_first_half=None, num_tokens=0, num_sequences=0)
ORDER = StepDecision(decision=LrDecision(step=0, lr=1e-3, events=()), grad_scale=1.0, update=True, metrics={})


def loaded(folder: str) -> list[str]:
    return [f"learner-0 load {folder}", f"learner-1 load {folder}"]


def published(version: int, weights: str) -> list[str]:
    """Rank 0 sends; that the learners are called and the engines receive is one story."""
    received = [f"rollout-{i} receive {version} {weights}" for i in (0, 1)]
    return [f"learner-0 publish {version}", *received, f"learner-1 publish {version}"]


def at_work(**allowed: int) -> Simulation:
    """A crew that has been started; its journal is empty."""
    simulation = Simulation(**allowed)
    simulation.crew.start()
    simulation.spoken()
    return simulation


def loss_of(simulation: Simulation, index: int = 1) -> WorkerLost:
    """A learner is lost in a step."""
    simulation.learners.lose(index, "compute_gradients")
    with pytest.raises(WorkerLost) as raised:
        simulation.crew.compute_gradients([SHARD, SHARD])
    simulation.spoken()
    return raised.value


def decisions(simulation: Simulation) -> list[StepDecision]:
    made = []
    for step, length in enumerate(LENGTHS):
        metrics = {"response/length_mean": length}
        made.append(simulation.crew.decide(step, [report(4.0 + step), report(5.0)], metrics, num_prompts=4))
    return made


# Starting.


def test_a_crew_that_starts_from_the_model_sends_no_weights() -> None:
    simulation = Simulation()
    simulation.crew.start()
    assert simulation.spoken() == [*ENGINES_UP, *GANG_UP, *CONNECTED]
    assert simulation.crew.version == 0
    assert simulation.weights() == [(0, "model")] * 2


def test_a_crew_that_starts_from_a_checkpoint_sends_its_weights_under_their_version() -> None:
    simulation = Simulation()
    simulation.crew.start("step-8", 5)
    assert simulation.spoken() == [*ENGINES_UP, *GANG_UP, *loaded("step-8"), *CONNECTED, *published(5, "step-8")]
    assert simulation.crew.version == 5
    assert simulation.weights() == [(5, "step-8")] * 2


def test_a_learner_that_is_lost_at_the_start_takes_the_gang_with_it_but_not_the_engines() -> None:
    simulation = Simulation()
    simulation.learners.lose(1, "start")
    simulation.crew.start()
    again = [*ENGINES_UP, *GANG_UP, *CONNECTED]  # an engine that is up already takes no time to start
    assert simulation.spoken() == [*ENGINES_UP, *GANG_UP, *again]
    assert simulation.told == ["learner-1: the learners start again from the model"]
    assert simulation.weights() == [(0, "model")] * 2


def test_an_engine_that_is_lost_at_the_start_is_replaced() -> None:
    simulation = Simulation()
    simulation.rollouts.lose(0, "start")
    simulation.crew.start("step-8", 5)
    assert simulation.weights() == [(5, "step-8")] * 2
    assert simulation.told == ["rollout-0: it starts again, and the learners from step-8"]


def test_a_crew_that_cannot_be_started_gives_up() -> None:
    simulation = Simulation(rollout=1)
    simulation.rollouts.lose(0, "start", 1, 2)
    with pytest.raises(RestartsExhausted, match=r"rollout-0 was lost in start: it died; 2 losses"):
        simulation.crew.start()


# Steps.


def test_a_step_reaches_everyone_once() -> None:
    simulation = at_work()
    crew = simulation.crew
    assert seeds_of(crew.generate([request(1), request(2), request(3)])) == [(1,), (2,), (3,)]
    assert [one.grad_square_sum for one in crew.compute_gradients([SHARD, SHARD])] == [4.0, 5.0]
    assert crew.token_records() == [[], []]
    assert [one.norm_ratio for one in crew.apply(ORDER)] == [0.5, 0.5]
    crew.publish()
    names = ["rollout generate", "learner compute_gradients", "learner token_records", "learner apply"]
    each = [f"{role}-{i} {method}" for role, method in map(str.split, names) for i in (0, 1)]
    assert simulation.spoken() == [*each, *published(1, "model+1")]
    assert crew.version == 1
    assert simulation.told == []


def test_responses_lost_with_an_engine_are_sampled_again_with_the_weights_in_force() -> None:
    simulation = at_work()
    simulation.crew.apply(ORDER)
    simulation.crew.publish()
    simulation.rollouts.lose(1, "generate")
    responses = simulation.crew.generate([request(1), request(2), request(3)])
    assert seeds_of(responses) == [(1,), (2,), (3,)]
    assert {one.weight_version for of_one in responses for one in of_one} == {1}
    assert simulation.weights() == [(1, "model+1")] * 2


def test_an_engine_that_is_lost_while_weights_are_sent_is_replaced_and_all_get_them_as_the_same_version() -> None:
    simulation = at_work()
    simulation.crew.apply(ORDER)
    simulation.spoken()
    simulation.rollouts.lose(1, "receive")
    simulation.crew.publish()
    cut_off = published(1, "model+1")
    assert simulation.spoken() == [*cut_off, "rollout-1 start", *CONNECTED, *published(1, "model+1")]
    assert simulation.crew.version == 1
    assert simulation.weights() == [(1, "model+1")] * 2
    assert simulation.told == ["rollout-1: rollout-1 starts again"]
    simulation.crew.publish()
    assert simulation.crew.version == 2


def test_engines_that_are_lost_again_and_again_while_weights_are_sent_count_every_time() -> None:
    simulation = at_work(rollout=2)
    simulation.rollouts.lose(0, "receive", 1, 2)
    simulation.crew.publish()
    assert simulation.weights() == [(1, "model")] * 2
    simulation.rollouts.lose(0, "receive")
    with pytest.raises(RestartsExhausted, match=r"cluster\.restarts\.rollout is 2"):
        simulation.crew.publish()


def test_a_learner_that_is_lost_while_an_engine_is_replaced_is_told_of() -> None:
    simulation = at_work()
    simulation.rollouts.lose(1, "receive")
    simulation.learners.lose(0, "connect")
    with pytest.raises(WorkerLost, match="learner-0 was lost in connect"):
        simulation.crew.publish()


CALLS: dict[str, Callable[[Simulation], Any]] = {
    "compute_gradients": lambda simulation: simulation.crew.compute_gradients([SHARD, SHARD]),
    "token_records": lambda simulation: simulation.crew.token_records(),
    "apply": lambda simulation: simulation.crew.apply(ORDER),
    "publish": lambda simulation: simulation.crew.publish(),
    "save": lambda simulation: simulation.crew.save("step-8"),
    "written": lambda simulation: simulation.crew.written(),
}


@pytest.mark.parametrize("rank", [0, 1])
@pytest.mark.parametrize("method", CALLS)
def test_the_loss_of_a_learner_is_told_to_the_caller_and_nobody_is_replaced(method: str, rank: int) -> None:
    simulation = at_work()
    simulation.learners.lose(rank, method)
    with pytest.raises(WorkerLost, match=f"learner-{rank} was lost in {method}: it died"):
        CALLS[method](simulation)
    assert simulation.told == []
    assert not any(" start" in line for line in simulation.spoken())


def test_the_files_of_a_checkpoint_are_those_of_all_ranks() -> None:
    simulation = at_work()
    simulation.crew.save("step-8")
    assert [file.name for file in simulation.crew.written()] == ["learner/0", "learner/1"]
    assert simulation.spoken()[:2] == ["learner-0 save step-8", "learner-1 save step-8"]


# Going on after the loss of a learner.


def test_after_the_loss_of_a_learner_the_whole_gang_starts_again_from_the_checkpoint() -> None:
    simulation = at_work()
    simulation.crew.apply(ORDER)
    simulation.crew.publish()
    before = list(simulation.learners.workers)
    lost = loss_of(simulation)
    simulation.crew.recover(lost, "step-8", 8)
    assert simulation.spoken() == [*GANG_UP, *loaded("step-8"), *CONNECTED, *published(8, "step-8")]
    assert not set(before) & set(simulation.learners.workers)
    assert simulation.crew.version == 8
    assert simulation.weights() == [(8, "step-8")] * 2
    assert simulation.told == ["learner-1: the learners start again from step-8"]


def test_without_a_checkpoint_the_engines_get_the_weights_of_the_model_back() -> None:
    simulation = at_work()
    simulation.crew.apply(ORDER)
    simulation.crew.publish()
    assert simulation.weights() == [(1, "model+1")] * 2
    simulation.crew.recover(loss_of(simulation), None, 0)
    assert simulation.spoken() == [*GANG_UP, *CONNECTED, *published(0, "model")]
    assert simulation.weights() == [(0, "model")] * 2
    assert simulation.told == ["learner-1: the learners start again from the model"]


def test_engines_that_are_lost_at_the_same_time_are_replaced_along_with_the_gang() -> None:
    simulation = at_work()
    simulation.rollouts.lose(0, "receive")
    simulation.rollouts.outcome(0, "receive", 1, "model")
    lost = loss_of(simulation)
    simulation.crew.recover(lost, "step-8", 8)
    assert simulation.spoken()[0] == "rollout-0 start"
    assert simulation.weights() == [(8, "step-8")] * 2
    assert len(simulation.told) == 1


@pytest.mark.parametrize(
    ("role", "index", "method"),
    [
        ("learners", 0, "open_rendezvous"),
        ("learners", 1, "start"),
        ("learners", 1, "load"),
        ("learners", 0, "connect"),
        ("learners", 1, "publish"),
        ("rollouts", 0, "receive"),
    ],
)
def test_losses_while_the_gang_starts_again_are_made_good_in_the_same_way(role: str, index: int, method: str) -> None:
    simulation = at_work()
    lost = loss_of(simulation)
    getattr(simulation, role).lose(index, method, 1, 2)
    simulation.crew.recover(lost, "step-8", 8)
    last = [*GANG_UP, *loaded("step-8"), *CONNECTED, *published(8, "step-8")]
    assert simulation.spoken()[-len(last) :] == last
    assert simulation.weights() == [(8, "step-8")] * 2
    assert len(simulation.told) == 3
    assert simulation.crew.restarts.total == 3


def test_a_gang_that_does_not_come_up_again_is_given_up() -> None:
    simulation = at_work(learner=2)
    lost = loss_of(simulation)
    simulation.learners.lose(0, "load", 1, 2, 3)
    with pytest.raises(RestartsExhausted, match=r"learner-0 was lost in load: it died; 3 losses"):
        simulation.crew.recover(lost, "step-8", 8)


def test_a_gang_that_may_not_be_restarted_is_not() -> None:
    simulation = at_work(learner=0)
    lost = loss_of(simulation)
    with pytest.raises(RestartsExhausted, match=r"cluster\.restarts\.learner is 0"):
        simulation.crew.recover(lost, "step-8", 8)
    assert simulation.spoken() == []


# Serving another run.

POLICY = ConstantConfig(lr=2e-4).build(total_steps=None)


def used(**allowed: int) -> Simulation:
    """A crew that has served a run; its journal is empty."""
    simulation = at_work(**allowed)
    decisions(simulation)
    simulation.crew.apply(ORDER)
    simulation.crew.publish()
    simulation.spoken()
    return simulation


def renew(simulation: Simulation, files: str | None, version: int, **allowed: int) -> list[str]:
    """Returns the losses that are borne from here on, as they come."""
    told: list[str] = []
    restarts = Restarts(RestartsConfig(**allowed), lambda lost, remedy: told.append(f"{lost.worker}: {remedy}"))
    simulation.crew.renew((POLICY, LearnerConfig()), restarts, files, version)
    return told


def test_for_another_run_the_workers_stay_up_and_everyone_has_its_weights() -> None:
    simulation = used()
    before = [*simulation.rollouts.workers, *simulation.learners.workers]
    assert renew(simulation, "step-8", 8) == []
    assert simulation.spoken() == [*loaded("step-8"), *published(8, "step-8")]
    assert [*simulation.rollouts.workers, *simulation.learners.workers] == before
    assert simulation.crew.version == 8
    assert simulation.weights() == [(8, "step-8")] * 2
    assert simulation.told == []


def test_without_files_the_learners_start_anew_and_the_engines_get_the_weights_of_the_model() -> None:
    simulation = used()
    assert renew(simulation, None, 0) == []
    assert simulation.spoken() == [*GANG_UP, *CONNECTED, *published(0, "model")]
    assert simulation.weights() == [(0, "model")] * 2


def test_the_scheduler_of_another_run_is_its_own_and_remembers_nothing_also_when_it_is_lost() -> None:
    simulation = used()
    renew(simulation, "step-8", 8)
    fresh = Scheduler(ConstantConfig(lr=2e-4).build(total_steps=None), LearnerConfig())
    assert simulation.crew.scheduler_state() == fresh.state_dict()
    simulation.scheduler.lose(0, "decide", 2)
    expected = [fresh.decide(0, [report(4.0)], {}, 4), fresh.decide(1, [report(5.0)], {}, 4)]
    assert [simulation.crew.decide(step, [report(4.0 + step)], {}, 4) for step in (0, 1)] == expected


@pytest.mark.parametrize(
    ("role", "index", "method"), [("learners", 1, "load"), ("learners", 0, "publish"), ("rollouts", 1, "receive")]
)
def test_who_was_lost_since_the_last_run_is_replaced_at_the_cost_of_the_next_one(
    role: str, index: int, method: str
) -> None:
    simulation = used(learner=0, rollout=0)
    getattr(simulation, role).lose(index, method)
    told = renew(simulation, "step-8", 8)
    assert len(told) == 1 and told[0].endswith("from step-8")
    assert simulation.told == []
    assert simulation.crew.version == 8
    assert simulation.weights() == [(8, "step-8")] * 2
    assert simulation.crew.restarts.total == 1


def test_engines_that_are_lost_in_another_run_count_there() -> None:
    simulation = used(rollout=0)
    told = renew(simulation, "step-8", 8, rollout=1)
    simulation.rollouts.lose(0, "generate")
    assert seeds_of(simulation.crew.generate([request(1), request(2)])) == [(1,), (2,)]
    assert told == ["rollout-0: rollout-0 starts again"]
    assert simulation.weights() == [(8, "step-8")] * 2


# The scheduler.


def test_the_scheduler_of_these_tests_has_a_memory() -> None:
    events = [made.decision.events for made in decisions(at_work())]
    assert events == [(), (), ("surge",), ("decay",), (), (), ("decay",), ()]


@pytest.mark.parametrize("method", ["decide", "state_dict"])
@pytest.mark.parametrize("call", range(1, len(LENGTHS) + 1))
def test_whenever_the_scheduler_is_lost_its_decisions_stay_the_same(method: str, call: int) -> None:
    undisturbed = decisions(at_work())
    simulation = at_work()
    simulation.scheduler.lose(0, method, call)
    assert decisions(simulation) == undisturbed
    assert simulation.told == ["scheduler-0: it starts again from its last recorded state"]
    assert simulation.crew.scheduler_state() == simulation.scheduler.workers[0].state_dict()


def test_a_lost_scheduler_gets_its_state_before_the_decision_is_asked_for_again() -> None:
    simulation = at_work()
    simulation.scheduler.lose(0, "decide", 3)
    decisions(simulation)
    spoken = [line.removeprefix("scheduler-0 ").split()[0] for line in simulation.spoken()]
    assert spoken[4:8] == ["decide", "load_state_dict", "decide", "state_dict"]


def test_a_scheduler_whose_successor_is_lost_as_well_is_replaced_once_more() -> None:
    undisturbed = decisions(at_work())
    simulation = at_work(scheduler=3)
    simulation.scheduler.lose(0, "decide", 3)
    simulation.scheduler.lose(0, "load_state_dict", 1, 2)
    assert decisions(simulation) == undisturbed
    assert len(simulation.told) == 3


def test_a_scheduler_that_is_lost_too_often_ends_the_run() -> None:
    simulation = at_work(scheduler=1)
    simulation.scheduler.lose(0, "decide", 1, 2)
    with pytest.raises(RestartsExhausted, match=r"scheduler-0 was lost in decide: it died; 2 losses"):
        decisions(simulation)


def test_a_scheduler_can_be_set_back_and_decides_the_same_again() -> None:
    simulation = at_work()
    origin = simulation.crew.scheduler_state()
    first = decisions(simulation)
    simulation.crew.set_scheduler_state(origin)
    assert simulation.crew.scheduler_state() == origin
    assert decisions(simulation) == first


def test_a_scheduler_that_is_lost_while_it_is_asked_for_its_state_or_set_back_is_replaced() -> None:
    simulation = at_work()
    simulation.scheduler.lose(0, "state_dict")
    origin = simulation.crew.scheduler_state()
    first = decisions(simulation)
    simulation.scheduler.lose(0, "load_state_dict")
    simulation.crew.set_scheduler_state(origin)
    assert decisions(simulation) == first
    assert len(simulation.told) == 2
