"""The loop over steps: whatever is lost and whenever, the records are those of an undisturbed run, each step once."""

import json
import signal
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from loop_world import PATIENCE, STEPS, Killed, Plan, Process, World, end_of, finish, process_of, undisturbed

from actors.faults import Strike
from orchestrator.clock import PhaseClock
from orchestrator.crew.restarts import RestartsExhausted
from orchestrator.records import StepRecord
from orchestrator.run.folder import METRICS, VERDICT


def check_is_as_undisturbed(world: World, process: Process, calm: World, calm_process: Process) -> None:
    rows = calm.rows()
    assert world.rows() == rows
    assert [row["step"] for row in rows] == world.sent == world.progress == list(range(len(rows)))
    assert (world.folder / VERDICT).read_text() == (calm.folder / VERDICT).read_text()
    assert process.recorder.end == calm_process.recorder.end
    assert process.is_ended_at_once or end_of(process) == end_of(calm_process)
    assert world.seen == calm.seen == list(range(len(rows)))  # in the last process, from the first step on
    states = {state.step: replace(state, metrics_bytes=0) for state in calm.saved}
    assert all(replace(state, metrics_bytes=0) == states[state.step] for state in world.saved)
    assert world.ends == (0 if process.is_ended_at_once else 1)
    assert not any("warning" in line for line in world.told)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "run"


plans = st.builds(
    Plan,
    every=st.none() | st.integers(1, 5),
    losses=st.sets(st.integers(1, 70), max_size=6),
    damaged=st.sets(st.integers(1, STEPS), max_size=4),
    deaths=st.sets(st.integers(1, 70), max_size=3),
    staleness=st.sampled_from([0, 1]),
    slow=st.booleans(),
    bad_from=st.none() | st.integers(0, STEPS),
    on_collapse=st.sampled_from(["stop", "record"]),
    enough=st.none() | st.integers(0, STEPS),
)


@settings(max_examples=60)
@given(plans)
def test_whatever_is_lost_and_whenever_the_run_is_that_of_an_undisturbed_one(
    tmp_path_factory: pytest.TempPathFactory, plan: Plan
) -> None:
    folder = tmp_path_factory.mktemp("runs")
    world = World(folder / "disturbed", plan)
    check_is_as_undisturbed(world, finish(world), *undisturbed(folder / "calm", plan))


@pytest.mark.parametrize("slow", [False, True])
def test_a_loss_in_any_call_is_borne(tmp_path: Path, slow: bool) -> None:
    calm = undisturbed(tmp_path / "calm", Plan(slow=slow))
    for number in range(1, len(calm[0].methods) + 1):
        world = World(tmp_path / str(number), Plan(slow=slow, losses={number}))
        process = finish(world)
        assert world.lost == [calm[0].methods[number - 1][1]]
        check_is_as_undisturbed(world, process, *calm)


@pytest.mark.parametrize("method", ["compute_gradients", "apply", "publish", "save", "written", "export"])
def test_it_makes_no_difference_in_which_call_a_learner_is_lost(tmp_path: Path, method: str) -> None:
    calm = undisturbed(tmp_path / "calm", Plan(slow=True))
    last = max(number for number, (_, called) in enumerate(calm[0].methods, start=1) if called == method)
    world = World(tmp_path / "run", Plan(slow=True, losses={last}))
    check_is_as_undisturbed(world, finish(world), *calm)
    assert world.lost == [method]
    assert len(world.recovered) == 1


def call_number(world: World, step: int, method: str) -> int:
    """Of the first such call in a run that has been."""
    return world.methods.index((step, method)) + 1


@pytest.mark.parametrize(
    ("plan", "back_to", "redone"),
    [
        (Plan(every=3), "/checkpoints/6/learner", [6, 7]),
        (Plan(every=3, damaged={6}), "/checkpoints/3/learner", [3, 4, 5, 6, 7]),
        (Plan(every=3, slow=True), "/checkpoints/3/learner", [3, 4, 5, 6, 7]),  # the one of step 6 is abandoned
        (Plan(every=3, damaged={3, 6}), None, list(range(8))),
        (Plan(every=None), None, list(range(8))),
    ],
    ids=["newest", "newest damaged", "newest under way", "all damaged", "none made"],
)
def test_a_loss_takes_the_run_back_to_its_newest_good_checkpoint_and_no_further(
    tmp_path: Path, plan: Plan, back_to: str | None, redone: list[int]
) -> None:
    calm = undisturbed(tmp_path / "calm", plan)
    world = World(tmp_path / "run", replace(plan, losses={call_number(calm[0], 7, "apply")}))
    process = finish(world)
    assert world.begun == [*range(8), *redone, 8]
    assert world.recovered == [back_to]
    check_is_as_undisturbed(world, process, *calm)


@pytest.mark.parametrize(
    ("every", "made"), [(1, list(range(1, 10))), (3, [3, 6, 9]), (4, [4, 8, 9]), (100, [9]), (None, [])]
)
def test_checkpoints_are_made_every_so_often_and_after_the_last_step(
    folder: Path, every: int | None, made: list[int]
) -> None:
    world = World(folder, Plan(every=every))
    finish(world)
    assert [state.step for state in world.saved] == made
    assert sorted(world.disk) == made


@pytest.mark.parametrize("bad_from", [2, STEPS - PATIENCE], ids=["in the middle", "at the last step"])
def test_none_is_made_after_a_collapse_that_stops_the_run(folder: Path, bad_from: int) -> None:
    world = World(folder, Plan(every=1, bad_from=bad_from, on_collapse="stop"))
    assert finish(world).recorder.collapsed
    collapse = bad_from + PATIENCE - 1
    assert [row["step"] for row in world.rows()] == list(range(collapse + 1))
    assert [state.step for state in world.saved] == list(range(1, collapse + 1))
    assert world.ends == 1


def test_a_collapse_that_is_only_noted_changes_nothing(folder: Path) -> None:
    world = World(folder, Plan(every=3, bad_from=2, on_collapse="record"))
    assert not finish(world).recorder.collapsed
    assert len(world.rows()) == STEPS
    assert [state.step for state in world.saved] == [3, 6, 9]


@pytest.mark.parametrize("enough", [2, STEPS - 1], ids=["in the middle", "at the last step"])
def test_none_is_made_after_who_watches_has_seen_enough(folder: Path, enough: int) -> None:
    world = World(folder, Plan(every=1, enough=enough))
    assert finish(world).recorder.end == "stopped"
    assert [row["step"] for row in world.rows()] == list(range(enough + 1))
    assert [state.step for state in world.saved] == list(range(1, enough + 1))
    assert world.ends == 1


def test_a_state_tells_where_the_run_stands_before_its_step(folder: Path) -> None:
    world = World(folder, Plan(every=4))
    finish(world)
    state = world.saved[0]
    assert (state.step, state.weight_version, state.learner_ranks, state.mlflow_run_id) == (4, 4, 2, "0c41f0")
    assert state.cursor == world.rows()[3]["cursor"]
    assert state.scheduler["decided"] == 4
    assert state.stability["verdict"] is None


@pytest.mark.parametrize("plan", [Plan(), Plan(bad_from=4)], ids=["after the last step", "after a collapse"])
def test_a_loss_at_the_end_goes_back_to_the_last_checkpoint_and_to_the_end_once_more(
    tmp_path: Path, plan: Plan
) -> None:
    calm = undisturbed(tmp_path / "calm", plan)
    export = len(calm[0].methods)
    assert calm[0].methods[-1][1] == "export"
    world = World(tmp_path / "run", replace(plan, losses={export}))
    check_is_as_undisturbed(world, finish(world), *calm)
    newest = calm[0].saved[-1].step
    assert world.recovered == [f"/checkpoints/{newest}/learner"]
    assert world.begun == [*calm[0].begun, *range(newest, len(calm[0].begun))]


def test_a_run_that_goes_on_begins_with_the_step_of_its_checkpoint(tmp_path: Path) -> None:
    calm = undisturbed(tmp_path / "calm", Plan())
    world = World(tmp_path / "run", Plan(deaths={call_number(calm[0], 6, "publish")}))
    check_is_as_undisturbed(world, finish(world), *calm)
    assert world.begun == [*range(7), *range(4, 9)]


def test_a_run_that_has_all_its_steps_has_only_its_end_before_it(tmp_path: Path) -> None:
    calm = undisturbed(tmp_path / "calm", Plan())
    world = World(tmp_path / "run", Plan(deaths={len(calm[0].methods)}))
    check_is_as_undisturbed(world, finish(world), *calm)
    assert world.begun == list(range(STEPS))


def test_a_run_of_more_steps_goes_on_where_it_ended(tmp_path: Path) -> None:
    calm = undisturbed(tmp_path / "calm", Plan())
    world = World(tmp_path / "run", Plan())
    finish(world, last=4)
    process = finish(world)
    assert world.rows() == calm[0].rows()
    assert end_of(process) == end_of(calm[1])
    assert (world.begun, world.ends) == (list(range(STEPS)), 2)


def test_a_run_that_went_on_from_a_checkpoint_that_is_no_good_any_more_begins_anew(tmp_path: Path) -> None:
    plan = Plan(every=4)
    calm = undisturbed(tmp_path / "calm", plan)
    world = World(tmp_path / "run", replace(plan, deaths={call_number(calm[0], 6, "apply")}))
    with pytest.raises(Killed), process_of(world) as process:
        process.run(STEPS - 1)
    with process_of(world) as process:
        assert process.checkpoints.newest() is not None
        world.plan.losses.add(len(world.methods) + 2)
        world.begun.clear()
        begin = process.step.step

        def damage(step: int, clock: PhaseClock, ahead: PhaseClock | None = None) -> StepRecord:
            world.plan.damaged.add(4)
            return begin(step, clock, ahead)

        process.step.step = damage  # type: ignore[method-assign]
        process.run(STEPS - 1)
        process.recorder.conclude()
    assert world.begun == [4, *range(STEPS)]
    assert world.recovered == [None]
    check_is_as_undisturbed(world, process, *calm)


def test_losses_are_counted_anew_after_every_step_that_is_new(tmp_path: Path) -> None:
    plan = Plan(every=2, restarts=1)
    calm = undisturbed(tmp_path / "calm", plan)
    losses: set[int] = set()
    for step in range(STEPS):  # one loss in each
        world = World(tmp_path / f"up to {step}", replace(plan, losses=set(losses)))
        finish(world)
        losses.add(call_number(world, step, "apply"))
    world = World(tmp_path / "run", replace(plan, losses=losses))
    check_is_as_undisturbed(world, finish(world), *calm)
    assert world.lost == ["apply"] * STEPS


def test_a_run_whose_learners_are_lost_again_and_again_at_the_same_step_gives_up(tmp_path: Path) -> None:
    plan = Plan(every=4, restarts=1)
    calm = undisturbed(tmp_path / "calm", plan)
    first = call_number(calm[0], 6, "publish")
    # steps 4 and 5 are done again in between: they are not new
    world = World(tmp_path / "run", replace(plan, losses={first, first + 3 + 3 + 3}))
    with pytest.raises(RestartsExhausted, match=r"learner-1 was lost in publish: .*cluster\.restarts\.learner"):
        finish(world)
    assert world.begun == [*range(7), 4, 5, 6]
    assert world.rows() == calm[0].rows()[:6]
    assert world.ends == 0


def test_a_record_tells_how_long_the_one_before_took(folder: Path) -> None:
    finish(World(folder, Plan()))
    seconds = [json.loads(line)["time/record"] for line in (folder / METRICS).read_text().splitlines()]
    assert seconds[0] == 0.0
    assert all(of_one > 0.0 for of_one in seconds[1:])


def test_a_strike_hits_in_its_phase_of_its_step_and_once_only_although_the_step_is_done_again(folder: Path) -> None:
    strikes = [
        Strike(action="kill", role="learner", index=1, step=2, phase="record", after_s=0),
        Strike(action="stop", role="learner", index=0, step=2, phase="publish", after_s=0),
    ]
    world = World(folder, Plan(losses={3 * 3 + 1}))
    with process_of(world) as process:
        process.run(STEPS - 1, strikes)
    assert world.begun == [0, 1, 2, 3, *range(STEPS)]
    assert process.crew.learners.struck == [(0, signal.SIGSTOP), (1, signal.SIGKILL)]
