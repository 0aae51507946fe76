"""What workers are started with: read off the config, with nothing started."""

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from experiment_files import resolved

from actors.faults import Faults
from actors.scheduler import Scheduler
from cluster.session import Session
from cluster.waiting import Patience
from orchestrator.config import ExperimentConfig
from orchestrator.crew import worker_specs
from orchestrator.model_files import ModelFiles

MODEL = ModelFiles(path="/models/tiny", context_length=512)
FAULTS = Faults(keep_prefix_cache=True)
HERE, ELSEWHERE = Session(local=True), Session(local=False)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "e.yaml"


def of(file: Path, changes: dict[str, Any] | None = None) -> ExperimentConfig:
    return resolved(file, changes or {})


def test_patience_is_as_the_cluster_block_says(file: Path) -> None:
    config = of(file, {"cluster": {"call_timeout_s": 90.0, "silence_timeout_s": 7.5}})
    assert worker_specs.patience_of(config) == Patience(call_s=90.0, silence_s=7.5)


def test_every_engine_knows_its_number(file: Path) -> None:
    config = of(file, {"rollout": {"workers": 3}})
    specs = worker_specs.engine_specs(config, MODEL, FAULTS)
    assert [spec.index for spec in specs] == [0, 1, 2]
    for spec in specs:
        assert (spec.model, spec.config, spec.transfer, spec.faults) == (MODEL.path, config.rollout, "gloo", FAULTS)


@pytest.mark.parametrize(
    ("prompt", "response", "context", "expected"),
    [
        (300, 100, 512, 400),  # what is wanted
        (10, 20, 512, 288),  # the self-test needs a prompt longer than two blocks
        (1024, 256, 512, 512),  # no more than the model takes
        (10, 20, 128, 128),
    ],
)
def test_an_engine_takes_what_is_wanted_and_the_self_test_needs_as_far_as_the_model_does(
    file: Path, prompt: int, response: int, context: int, expected: int
) -> None:
    config = of(file, {"rollout": {"max_prompt_tokens": prompt, "max_response_tokens": response}})
    [spec] = worker_specs.engine_specs(config, ModelFiles(path="m", context_length=context), FAULTS)
    assert spec.max_model_len == expected


def test_every_rank_knows_the_gang_and_how_responses_are_sampled_and_sent(file: Path) -> None:
    config = of(
        file,
        {"rollout": {"temperature": 0.7, "dtype": "float16", "quantize": "int8"}, "learner": {"workers": 2}},
    )
    specs = worker_specs.learner_specs(config, MODEL, FAULTS)
    assert [(spec.rank, spec.world_size) for spec in specs] == [(0, 2), (1, 2)]
    for spec in specs:
        assert (spec.model, spec.config, spec.transfer, spec.faults) == (MODEL.path, config.learner, "gloo", FAULTS)
        assert (spec.temperature, spec.max_response_tokens) == (0.7, 8)
        assert (spec.wire_dtype, spec.quantize) == ("float16", "int8")


@pytest.mark.parametrize(
    ("gpus", "colocate", "backend"),
    [(0, False, "gloo"), (0, True, "gloo"), (0.5, True, "ipc"), (1, False, "nccl")],
)
def test_weights_travel_as_the_devices_allow(file: Path, gpus: float, colocate: bool, backend: str) -> None:
    share = {"gpus_per_worker": gpus}
    config = of(file, {"rollout": share, "learner": share, "cluster": {"colocate": colocate}})
    assert worker_specs.transfer_backend(config) == backend


def test_the_scheduler_is_built_from_the_policy_and_its_shadows(file: Path) -> None:
    config = of(file, {"shadow": {"flat": {"kind": "constant", "lr": 5e-7}}})
    scheduler = Scheduler(*worker_specs.scheduler_arguments(config))
    metrics = scheduler.decide(0, [], {"response/length_mean": 5.0}, num_prompts=4).metrics
    assert metrics["scheduler/lr"] == 1e-6
    assert metrics["scheduler/shadow/flat/lr"] == 5e-7


def test_schedulers_do_not_share_their_memory(file: Path) -> None:
    arguments = [worker_specs.scheduler_arguments(of(file)) for _ in range(2)]
    assert arguments[0][0] is not arguments[1][0]


def test_on_one_machine_the_workers_of_a_role_share_its_cores_and_stay_on_loopback(file: Path) -> None:
    cores = len(os.sched_getaffinity(0))
    env = worker_specs.learner_env(of(file, {"learner": {"workers": 1}}), HERE, "/scratch")
    assert env["OMP_NUM_THREADS"] == str(cores)
    many = of(file, {"learner": {"workers": cores + 1}})
    assert worker_specs.learner_env(many, HERE, "/scratch")["OMP_NUM_THREADS"] == "1"
    assert (env["GLOO_SOCKET_IFNAME"], env["TMPDIR"]) == ("lo", "/scratch")


def test_in_a_cluster_nothing_is_said_of_this_machines_cores_network_and_folders(file: Path) -> None:
    env = worker_specs.learner_env(of(file), ELSEWHERE, "/scratch")
    assert env["OMP_NUM_THREADS"] == "1"
    reserving = of(file, {"learner": {"workers": 2, "cpus_per_worker": 6.5}})
    assert worker_specs.learner_env(reserving, ELSEWHERE, "/scratch")["OMP_NUM_THREADS"] == "6"
    assert not {"GLOO_SOCKET_IFNAME", "TMPDIR"} & env.keys()


def test_the_engine_of_a_tiny_model_gets_one_thread(file: Path, tmp_path: Path) -> None:
    weights = tmp_path / "model.safetensors"
    model = ModelFiles(path=str(tmp_path), context_length=512)
    weights.write_bytes(b"0" * 1000)
    assert worker_specs.is_tiny(model)
    assert worker_specs.rollout_env(of(file), model, HERE, "")["OMP_NUM_THREADS"] == "1"
    os.truncate(weights, worker_specs.TINY_BYTES)
    assert not worker_specs.is_tiny(model)


def test_threads_spin_for_a_moment_only_where_nobody_else_is_at_work(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("GOMP_SPINCOUNT", raising=False)
    turns, overlap = of(file), of(file, {"max_staleness": 1})
    spins = [
        worker_specs.rollout_env(config, MODEL, where, "")["GOMP_SPINCOUNT"]
        for config, where in ((turns, HERE), (overlap, HERE), (turns, ELSEWHERE), (turns, replace(HERE, shared=True)))
    ]
    assert spins == [str(worker_specs.SPINS), "0", "0", "0"]
    monkeypatch.setenv("GOMP_SPINCOUNT", "7")
    assert worker_specs.rollout_env(turns, MODEL, HERE, "")["GOMP_SPINCOUNT"] == "7"


def test_engines_have_the_common_environment_and_their_own(file: Path) -> None:
    config = of(file, {"rollout": {"workers": 2, "kv_cache_gib": 3}})
    env = worker_specs.rollout_env(config, MODEL, HERE, "/scratch")
    assert worker_specs.learner_env(config, HERE, "/scratch").keys() <= env.keys()
    assert env["VLLM_CPU_KVCACHE_SPACE"] == "3"
    assert env["VLLM_ENABLE_V1_MULTIPROCESSING"] == "0"
    assert env["TORCH_COMPILE_DISABLE"] == "1"
    assert all(isinstance(value, str) for value in env.values())
