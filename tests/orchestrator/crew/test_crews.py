"""Crews lent to runs, on pools without Ray: who gets the workers of an earlier run, and what they begin with."""

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from experiment_files import resolved
from fake_pools import FakeLearner, Simulation
from scheduler_inputs import report

from actors.faults import Faults
from actors.messages import LearnerShard, StepDecision
from actors.scheduler import Scheduler
from actors.storage.writer import CheckpointNotWritten
from cluster.fit import Node
from cluster.placement import PlacementError
from cluster.plan import Bundle, Seat
from cluster.session import Session
from cluster.worker import WorkerLost
from orchestrator import disk
from orchestrator.config import ExperimentConfig
from orchestrator.crew import crews, standing, worker_specs
from orchestrator.crew.crew import Crew
from orchestrator.crew.crews import Crews
from orchestrator.crew.plans import plan_of
from orchestrator.crew.restarts import Restarts, Tell
from orchestrator.crew.standing import CrewRequest
from orchestrator.crew.workers import Roles
from orchestrator.model_files import ModelFiles

MODEL = ModelFiles(path="/models/tiny", context_length=512)
SHARD = LearnerShard(microbatches=(), num_first_half=None, num_tokens=0, num_sequences=0)
OTHER_ENGINES = {"rollout": {"temperature": 0.5}}
MORE_ENGINES = {"rollout": {"workers": 3}}


@dataclass(kw_only=True)
class Cluster:
    """Has room for so many crews of one rollout worker and one learner, and remembers whom it has placed."""

    folder: Path
    room: int = 100
    refuses: int = 0  # placements to come that find no room after all
    placed: list[Simulation] = field(default_factory=list)
    gone: list[Simulation] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def up(self) -> list[Simulation]:
        return [one for one in self.placed if one not in self.gone]

    def nodes(self) -> list[Node]:
        plan = plan_of(self.config())
        return [Node(cpus=self.room * sum(bundle.cpus for bundle in plan.bundles), gpus=0.0)]

    @contextmanager
    def workers(  # noqa: PLR0917 - as the real one
        self,
        config: ExperimentConfig,
        model: ModelFiles,
        session: Session,
        faults: Faults,
        tell: Tell,
        roles: Roles,
    ) -> Iterator[Crew]:
        with self.lock:
            if self.refuses:
                self.refuses -= 1
                raise PlacementError("no room")
            simulation = Simulation()
            simulation.scheduler.rebuild([worker_specs.scheduler_arguments(config)])
            simulation.crew.restarts = simulation.crew.engines.restarts = Restarts(config.cluster.restarts, tell)
            self.placed.append(simulation)
            assert len(self.up) <= self.room
        try:
            yield simulation.crew
        finally:
            with self.lock:
                self.gone.append(simulation)

    def config(self, changes: dict[str, Any] | None = None) -> ExperimentConfig:
        return resolved(self.folder / "e.yaml", changes or {})

    def request(self, changes: dict[str, Any] | None = None, **options: Any) -> CrewRequest:
        return CrewRequest(config=self.config(changes), model=MODEL, **options)

    @property
    def session(self) -> Session:
        return Session(local=True, scratch=str(self.folder))


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Cluster:
    found = Cluster(folder=tmp_path)
    monkeypatch.setattr(standing, "workers", found.workers)
    monkeypatch.setattr(crews, "nodes", found.nodes)
    return found


def train(crew: Crew, lr: float) -> None:
    """A step, by which everything that a crew has in memory becomes another."""
    order: StepDecision = crew.decide(0, [report(4.0)], {"response/length_mean": 5.0}, 4)
    assert order.decision.lr == lr
    crew.compute_gradients([SHARD, SHARD])
    crew.apply(order)
    crew.publish()


def serve(keeper: Crews, request: CrewRequest) -> bool:
    """A run; whether its workers were started for it."""
    with keeper.lend(request) as (crew, is_fresh):
        train(crew, request.config.scheduler.lr)
    return is_fresh


# One run after the other.


def test_a_cold_keeper_starts_workers_for_every_run_and_leaves_none(cluster: Cluster) -> None:
    with Crews(cluster.session) as keeper:
        for number in (1, 2):
            with keeper.lend(cluster.request()) as (crew, is_fresh):
                assert is_fresh
                assert cluster.up == [cluster.placed[-1]]
                assert cluster.up[0].weights() == [(0, "model")] * 2
                train(crew, 1e-6)
            assert len(cluster.gone) == number
    assert not any("save" in line for one in cluster.placed for line in one.spoken())


def test_a_warm_keeper_has_one_crew_serve_runs_that_differ_in_their_scheduler(cluster: Cluster) -> None:
    with Crews(cluster.session, warm=True) as keeper:
        lent = []
        for lr in (1e-6, 3e-6, 5e-6):
            request = cluster.request({"scheduler": {"kind": "constant", "lr": lr}, "steps": int(lr * 1e7)})
            with keeper.lend(request) as (crew, is_fresh):
                lent.append(is_fresh)
                assert crew.version == 0
                assert cluster.placed[0].weights() == [(0, "model")] * 2
                fresh = Scheduler(*worker_specs.scheduler_arguments(request.config))
                assert crew.scheduler_state() == fresh.state_dict()
                train(crew, lr)
                assert cluster.placed[0].weights() == [(1, "model+1")] * 2
        assert lent == [True, False, False]
        assert (len(cluster.placed), cluster.gone) == (1, [])
    assert cluster.gone == cluster.placed
    assert [path.name for path in cluster.folder.iterdir()] == ["e.yaml"]


def test_a_run_that_goes_on_begins_at_its_checkpoint_on_warm_workers_too(cluster: Cluster) -> None:
    with Crews(cluster.session, warm=True) as keeper:
        serve(keeper, cluster.request())
        with keeper.lend(cluster.request(checkpoint="step-8", version=8)) as (crew, is_fresh):
            assert not is_fresh
            assert crew.version == 8
            assert cluster.placed[0].weights() == [(8, "step-8")] * 2
            train(crew, 1e-6)
        with keeper.lend(cluster.request()):
            assert cluster.placed[0].weights() == [(0, "model")] * 2


def test_workers_that_began_at_a_checkpoint_begin_at_the_model_by_a_new_start_of_the_learners_once(
    cluster: Cluster,
) -> None:
    with Crews(cluster.session, warm=True) as keeper:
        serve(keeper, cluster.request(checkpoint="step-8", version=8))
        [simulation] = cluster.placed
        for starts in (2, 0):
            simulation.spoken()
            with keeper.lend(cluster.request()) as (crew, _):
                assert simulation.weights() == [(0, "model")] * 2
                train(crew, 1e-6)
            spoken = simulation.spoken()
            assert sum(line.startswith("learner") and " start" in line for line in spoken) == starts
            assert not any(line.startswith("rollout") and " start" in line for line in spoken)


def test_each_run_hears_of_its_own_losses_and_none_of_another(cluster: Cluster) -> None:
    told: list[list[str]] = [[], []]
    with Crews(cluster.session, warm=True) as keeper:
        for hears in told:
            request = cluster.request(tell=lambda lost, remedy, hears=hears: hears.append(lost.worker))
            with keeper.lend(request) as (crew, _):
                cluster.placed[0].scheduler.lose(0, "decide")
                train(crew, 1e-6)
                assert crew.restarts.total == 1
    assert told == [["scheduler-0"]] * 2


class BadDisk(FakeLearner):
    def written(self, timeout_s: float) -> Any:
        raise CheckpointNotWritten("No space left on device", disk_full=True)


@pytest.mark.parametrize("trouble", ["lost", "not written", "small disk", "cluster"])
def test_where_the_untouched_state_cannot_be_kept_the_learners_start_anew(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch, trouble: str
) -> None:
    place = cluster.workers

    @contextmanager
    def troubled(*args: Any) -> Iterator[Crew]:
        with place(*args) as crew:
            learners = cluster.placed[-1].learners
            if trouble == "lost":
                learners.lose(1, "save")
            if trouble == "not written":
                learners.workers[1] = BadDisk(1)
            yield crew

    monkeypatch.setattr(standing, "workers", troubled)
    if trouble == "small disk":
        monkeypatch.setattr(disk, "checkpoint_bytes", lambda model: 2**80)
    session = Session(local=False) if trouble == "cluster" else cluster.session
    with Crews(session, warm=True) as keeper:
        with keeper.lend(cluster.request()) as (crew, _):
            if trouble == "lost":  # as the run finds out by its first call
                with pytest.raises(WorkerLost) as raised:
                    crew.compute_gradients([SHARD, SHARD])
                crew.recover(raised.value, None, 0)
            train(crew, 1e-6)
        cluster.placed[0].spoken()
        with keeper.lend(cluster.request()):
            assert cluster.placed[0].weights() == [(0, "model")] * 2
        assert "learner-1 start host-of-learner-0:29500" in cluster.placed[0].spoken()


# Who gets which workers.


@pytest.mark.parametrize(
    "changes",
    [
        OTHER_ENGINES,
        MORE_ENGINES,
        {"learner": {"grad_clip": 0.5}},
        {"cluster": {"silence_timeout_s": 7.0}},
    ],
    ids=["engines", "number", "learners", "patience"],
)
def test_runs_whose_workers_are_started_otherwise_have_others(cluster: Cluster, changes: dict[str, Any]) -> None:
    with Crews(cluster.session, warm=True) as keeper:
        assert serve(keeper, cluster.request())
        assert serve(keeper, cluster.request(changes))
        assert len(cluster.up) == 2
        assert not serve(keeper, cluster.request())
        assert not serve(keeper, cluster.request(changes))
    assert len(cluster.gone) == 2


def test_other_classes_are_other_workers(cluster: Cluster) -> None:
    class Other(Scheduler):
        pass

    with Crews(cluster.session, warm=True) as keeper:
        assert serve(keeper, cluster.request())
        assert serve(keeper, cluster.request(roles=Roles(scheduler=Other)))


def test_workers_with_faults_serve_one_run(cluster: Cluster) -> None:
    faults = Faults(keep_prefix_cache=True)
    with Crews(cluster.session, warm=True) as keeper:
        serve(keeper, cluster.request())
        for _ in range(2):
            assert serve(keeper, cluster.request(faults=faults))
            assert cluster.up == [cluster.placed[0]]
        assert not serve(keeper, cluster.request())


@pytest.mark.parametrize("error", [RuntimeError("a"), KeyboardInterrupt(), WorkerLost("learner-0", "apply", "b")])
def test_what_ends_with_an_exception_ends_the_workers(cluster: Cluster, error: BaseException) -> None:
    with Crews(cluster.session, warm=True) as keeper:
        with pytest.raises(type(error)), keeper.lend(cluster.request()):
            raise error
        assert cluster.up == []
        assert serve(keeper, cluster.request())


def test_workers_that_do_not_come_up_are_ended(cluster: Cluster) -> None:
    with Crews(cluster.session, warm=True) as keeper:
        serve(keeper, cluster.request())
        cluster.placed[0].learners.lose(0, "load", *range(1, 9))
        with pytest.raises(RuntimeError, match=r"cluster\.restarts\.learner"), keeper.lend(cluster.request()):
            pass
        assert cluster.up == []


# Room.


def test_idle_workers_make_room_for_those_of_another_kind(cluster: Cluster) -> None:
    cluster.room = 1
    with Crews(cluster.session, warm=True) as keeper:
        for changes in ({}, OTHER_ENGINES, {}):
            assert serve(keeper, cluster.request(changes))
            assert len(cluster.up) == 1
        assert not serve(keeper, cluster.request())


def test_few_idle_workers_stay_up_beside_others_however_much_room_there_is(cluster: Cluster) -> None:
    with Crews(cluster.session, warm=True) as keeper:
        for clip in range(1, 6):
            serve(keeper, cluster.request({"learner": {"grad_clip": float(clip)}}))
            assert len(cluster.up) <= 1 + crews.MOST_IDLE
        assert not serve(keeper, cluster.request({"learner": {"grad_clip": 4.0}}))


def test_where_the_cluster_has_no_room_after_all_idle_workers_are_ended_and_it_is_tried_once_more(
    cluster: Cluster,
) -> None:
    with Crews(cluster.session, warm=True) as keeper:
        serve(keeper, cluster.request())
        cluster.refuses = 1
        assert serve(keeper, cluster.request(OTHER_ENGINES))
        assert cluster.gone == [cluster.placed[0]]
        cluster.refuses = 2
        with pytest.raises(PlacementError), keeper.lend(cluster.request()):
            pass
        assert cluster.up == []
        cluster.refuses = 1
        with pytest.raises(PlacementError), keeper.lend(cluster.request()):
            pass
        assert cluster.refuses == 0


def test_a_run_that_can_never_fit_is_for_the_cluster_to_refuse(cluster: Cluster) -> None:
    cluster.room, cluster.refuses = 0, 1
    started = time.monotonic()
    with Crews(cluster.session, warm=True) as keeper, pytest.raises(PlacementError), keeper.lend(cluster.request()):
        pass
    assert time.monotonic() - started < 5


# Side by side.


@pytest.mark.parametrize("kinds", [[{}], [{}, OTHER_ENGINES], [{}, OTHER_ENGINES, {"learner": {"grad_clip": 2.0}}]])
@pytest.mark.parametrize("room", [1, 2, 5])
def test_however_many_want_one_a_crew_is_lent_to_one_at_a_time_and_no_more_are_up_than_fit(
    cluster: Cluster, kinds: list[dict[str, Any]], room: int
) -> None:
    cluster.room = room
    in_use: set[int] = set()
    guard = threading.Lock()
    requests = [cluster.request(kinds[number % len(kinds)]) for number in range(24)]

    def borrow(keeper: Crews, request: CrewRequest) -> None:
        with keeper.lend(request) as (crew, _):
            with guard:
                assert id(crew) not in in_use
                in_use.add(id(crew))
                assert len(in_use) <= room
            time.sleep(0.002)
            train(crew, 1e-6)
            with guard:
                in_use.remove(id(crew))

    with Crews(cluster.session, warm=True) as keeper, ThreadPoolExecutor(5) as pool:
        for done in [pool.submit(borrow, keeper, request) for request in requests]:
            done.result(timeout=60)
    assert cluster.up == []
    if len(kinds) == 1:
        assert len(cluster.placed) <= room


def test_who_waits_for_room_gets_the_workers_that_are_given_back(cluster: Cluster) -> None:
    cluster.room = 1
    with Crews(cluster.session, warm=True) as keeper, ExitStack() as first, ThreadPoolExecutor(1) as pool:
        first.enter_context(keeper.lend(cluster.request()))
        waiting = pool.submit(serve, keeper, cluster.request())
        time.sleep(0.1)
        assert not waiting.done()
        first.close()
        assert waiting.result(timeout=10) is False


def test_who_wants_more_than_the_cluster_has_does_not_wait_for_others(cluster: Cluster) -> None:
    cluster.room = 1
    with Crews(cluster.session, warm=True) as keeper, keeper.lend(cluster.request()):
        cluster.refuses = 1
        with pytest.raises(PlacementError, match="no room"), keeper.lend(cluster.request(MORE_ENGINES)):
            pass


def test_who_waits_when_the_keeper_ends_gets_nothing(cluster: Cluster) -> None:
    cluster.room = 1
    with ThreadPoolExecutor(1) as pool, ExitStack() as first:
        with Crews(cluster.session, warm=True) as keeper:
            first.enter_context(keeper.lend(cluster.request()))
            waiting = pool.submit(serve, keeper, cluster.request())
            time.sleep(0.1)
        with pytest.raises(PlacementError, match="no workers are lent any more"):
            waiting.result(timeout=10)


def test_workers_that_are_given_back_after_the_end_are_ended_too(cluster: Cluster) -> None:
    with ExitStack() as late:
        with Crews(cluster.session, warm=True) as keeper:
            late.enter_context(keeper.lend(cluster.request()))
        assert len(cluster.up) == 1
    assert cluster.up == []


def test_room_is_counted_in_what_the_workers_of_a_run_need(cluster: Cluster) -> None:
    plan = plan_of(cluster.config())
    assert Bundle(seats=(Seat(role="scheduler", cpus=0.1, gpus=0.0),)) in plan.bundles
    cluster.room = 2
    with Crews(cluster.session, warm=True) as keeper, keeper.lend(cluster.request()):
        with keeper.lend(cluster.request(OTHER_ENGINES)):
            assert len(cluster.up) == 2
        with keeper.lend(cluster.request({"learner": {"grad_clip": 2.0}})):
            assert len(cluster.up) == 2
