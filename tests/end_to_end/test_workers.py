"""The workers of a run on a private Ray: what they listen on, what they measure, and whether weights arrive."""

import dataclasses
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import psutil
import pytest
import ray
from real_run import TINY
from rich.console import Console

from actors.faults import Faults
from actors.learner import Learner
from cluster.config import ClusterConfig
from cluster.session import Session, session
from orchestrator.clock import PhaseClock
from orchestrator.crew.crew import Crew
from orchestrator.crew.crews import Crews
from orchestrator.crew.standing import CrewRequest
from orchestrator.experiment import Experiment
from orchestrator.experiment_file import ExperimentFile
from orchestrator.model_files import find_model
from orchestrator.run_spec import RunSpec
from orchestrator.self_test import WeightSyncError
from orchestrator.task_problems import TaskFiles, TaskProblems

pytestmark = pytest.mark.slow


class Started(NamedTuple):
    experiment: Experiment
    problems: TaskProblems
    crew: Crew


@pytest.fixture(scope="module")
def ray_session() -> Iterator[Session]:
    with session(ClusterConfig()) as opened:
        yield opened


@contextmanager
def started(folder: Path, ray_session: Session, *overrides: str) -> Iterator[Started]:
    (folder / "tiny.yaml").write_text(TINY)
    config = ExperimentFile.read(folder / "tiny.yaml", overrides).resolve("baseline")
    model = find_model(config, "tiny.yaml")
    task = TaskFiles.open(config, "tiny.yaml")
    spec = RunSpec(config=config, model=model, task=task, arm="baseline", seed=0, folder=folder / "run")
    crews = Crews(ray_session)
    experiment = Experiment(spec, crews, Console())
    with experiment.problems() as problems, crews.lend(CrewRequest(config=config, model=model)) as (crew, _):
        yield Started(experiment, problems, crew)


@pytest.fixture(scope="module")
def two_ranks(tmp_path_factory: pytest.TempPathFactory, ray_session: Session) -> Iterator[Started]:
    folder = tmp_path_factory.mktemp("two-ranks")
    with started(folder, ray_session, "rollout.workers=2", "learner.workers=2") as running:
        yield running


def inject(crew: Crew, text: str) -> None:
    """Make running workers faulty: sending sources leave tensors out, engines keep their prefix cache."""
    faults = Faults.parse(text)

    def on_learner(learner: Learner) -> None:
        learner._publisher._transfer.source._keep = lambda name: not faults.drops(name)

    def on_rollout_worker(worker: object) -> None:
        worker._spec = dataclasses.replace(worker._spec, faults=faults)

    ray.get([handle.__ray_call__.remote(on_learner) for handle in crew.learners.handles])
    ray.get([handle.__ray_call__.remote(on_rollout_worker) for handle in crew.rollouts.handles])


def failure(experiment: Experiment, problems: TaskProblems, crew: Crew, fault: str) -> WeightSyncError:
    """What the self-test says of a fault; the workers are whole again afterwards."""
    inject(crew, fault)
    try:
        with pytest.raises(WeightSyncError) as raised:
            experiment.self_test(crew, problems.training)
    finally:
        inject(crew, "")
        crew.learners.broadcast(Learner.restore)
        crew.learners.broadcast(Learner.publish, 0)
    return raised.value


def test_the_self_test_passes_on_whole_workers_and_costs_two_syncs(two_ranks: Started) -> None:
    report = two_ranks.experiment.self_test(two_ranks.crew, two_ranks.problems.training)
    assert report.syncs == 2
    assert report.perturbed < report.limit


def test_a_dropped_tied_output_head_is_named(two_ranks: Started) -> None:
    assert failure(*two_ranks, "drop tensor lm_head.weight").part == "output head"


@pytest.mark.parametrize("layer", [0, 1])
def test_a_dropped_decoder_layer_is_named(two_ranks: Started, layer: int) -> None:
    assert failure(*two_ranks, f"drop tensor model.layers.{layer}.*").part == f"layer {layer}"


@pytest.mark.parametrize("tensor", ["mlp.down_proj.weight", "self_attn.k_norm.weight", "input_layernorm.weight"])
def test_a_single_dropped_tensor_is_named(two_ranks: Started, tensor: str) -> None:
    found = failure(*two_ranks, f"drop tensor model.layers.1.{tensor}")
    assert found.part == "layer 1"
    assert tensor in found.detail


def test_a_dropped_final_norm_is_named(two_ranks: Started) -> None:
    assert failure(*two_ranks, "drop tensor model.norm.weight").part == "final norm"


def test_a_kept_prefix_cache_is_named(two_ranks: Started) -> None:
    assert failure(*two_ranks, "keep prefix cache").part == "the prefix cache"


def test_everything_listens_on_loopback_only(two_ranks: Started) -> None:
    processes = [psutil.Process(), *psutil.Process().children(recursive=True)]
    names = {process.name().partition(".")[0] for process in processes}
    assert {"raylet", "gcs_server", "ray::RolloutWorker", "ray::Learner", "ray::Scheduler"} <= names
    open_to = {
        socket.laddr.ip
        for process in processes
        for socket in process.net_connections("inet")
        if socket.status == psutil.CONN_LISTEN
    }
    assert open_to and open_to <= {"127.0.0.1", "::1", "::ffff:127.0.0.1"}


def test_one_and_two_learner_ranks_measure_the_same(two_ranks: Started, tmp_path: Path, ray_session: Session) -> None:
    def first_step(running: Started) -> dict[str, float]:
        return running.experiment.step(running.crew, running.problems).step(0, PhaseClock()).metrics

    of_two = first_step(two_ranks)
    with started(tmp_path, ray_session, "rollout.workers=2") as one_rank:
        of_one = first_step(one_rank)
    assert of_one.keys() == of_two.keys()
    compared = [key for key in of_one if not key.startswith(("time/", "throughput/"))]
    # Differences of log-probs are near 0, and their float32 rounding depends on what shares a micro-batch.
    expected = {key: pytest.approx(of_one[key], rel=1e-5, abs=1e-6) for key in compared}
    assert {key: of_two[key] for key in compared} == expected
