"""The workers of one run: planned, placed, started, connected, and gone afterwards."""

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from tempfile import TemporaryDirectory
from typing import Any

from actors.faults import Faults
from actors.learner import Learner, LearnerSpec
from actors.rollout_worker import EngineShape, EngineSpec, RolloutWorker
from actors.scheduler import Scheduler
from cluster.placement import Bundle, Slot, reserved
from cluster.pool import Pool
from cluster.session import Session
from orchestrator.config import ExperimentConfig
from orchestrator.model_files import ModelFiles

LONGEST_KV_BLOCK = 128  # tokens; vLLM's on CPUs. The self-test needs a prompt longer than two of them


@dataclass(frozen=True, slots=True, kw_only=True)
class Crew:
    """The three roles of a run, started and connected.

    Example:
        Crew(rollouts=pool_of_engines, learners=gang, scheduler=pool_of_one, engine_shape=shape)
    """

    rollouts: Pool[RolloutWorker]
    learners: Pool[Learner]
    scheduler: Pool[Scheduler]
    engine_shape: EngineShape


def plan_of(config: ExperimentConfig) -> list[Bundle]:
    """What the run needs: its rollout workers, then its learner ranks, then the scheduler."""
    rollout = Bundle(role="rollout", cpus=config.rollout.cpus_per_worker, gpus=config.rollout.gpus_per_worker)
    learner = Bundle(role="learner", cpus=config.learner.cpus_per_worker, gpus=config.learner.gpus_per_worker)
    scheduler = Bundle(role="scheduler", cpus=0.1, gpus=0.0)
    return [*[rollout] * config.rollout.workers, *[learner] * config.learner.workers, scheduler]


@contextmanager
def crew(config: ExperimentConfig, model: ModelFiles, session: Session, faults: Faults) -> Iterator[Crew]:
    """Place and start all workers, connect the weight transfer, and stop everything at the end.

    Raises:
        PlacementError: the cluster has no room.
        WorkerLost: a worker died while starting.
    """
    num_rollouts = config.rollout.workers
    timeout_s = config.cluster.call_timeout_s
    with ExitStack() as stack:
        scratch = stack.enter_context(TemporaryDirectory(prefix="evenkeel-"))  # the workers' temporary files
        slots = stack.enter_context(reserved(plan_of(config), config.cluster.placement_timeout_s))
        env = _rollout_env(config, session, scratch)
        rollouts = _rollout_pool(config, _engine_specs(config, model, faults), slots[:num_rollouts], env)
        stack.callback(rollouts.close)
        learners = Pool(
            Learner,
            slots[num_rollouts:-1],
            [(spec,) for spec in _learner_specs(config, model, faults)],
            env=_common_env(config.learner.workers, session, scratch),
            timeout_s=timeout_s,
        )
        stack.callback(learners.close)
        scheduler = Pool(Scheduler, slots[-1:], [_scheduler_arguments(config)], env={}, timeout_s=timeout_s)
        stack.callback(scheduler.close)
        shape = _start(rollouts, learners)
        yield Crew(rollouts=rollouts, learners=learners, scheduler=scheduler, engine_shape=shape)


@contextmanager
def engines(config: ExperimentConfig, model: ModelFiles, session: Session) -> Iterator[Pool[RolloutWorker]]:
    """The rollout workers alone, with the weights as they are in the model's files.

    Raises:
        PlacementError: the cluster has no room.
        WorkerLost: a worker died while starting.
    """
    with ExitStack() as stack:
        scratch = stack.enter_context(TemporaryDirectory(prefix="evenkeel-"))
        bundles = plan_of(config)[: config.rollout.workers]
        slots = stack.enter_context(reserved(bundles, config.cluster.placement_timeout_s))
        env = _rollout_env(config, session, scratch)
        rollouts = _rollout_pool(config, _engine_specs(config, model, Faults()), slots, env)
        stack.callback(rollouts.close)
        rollouts.broadcast(RolloutWorker.start)
        yield rollouts


def _rollout_pool(
    config: ExperimentConfig, specs: Sequence[EngineSpec], slots: Sequence[Slot], env: Mapping[str, str]
) -> Pool[RolloutWorker]:
    timeout_s = config.cluster.call_timeout_s
    return Pool(RolloutWorker, slots, [(spec,) for spec in specs], env=env, timeout_s=timeout_s)


def _scheduler_arguments(config: ExperimentConfig) -> tuple[Any, ...]:
    shadows = {name: shadow.build(config.steps) for name, shadow in config.shadow.items()}
    return config.scheduler.build(config.steps), config.learner, shadows


def _start(rollouts: Pool[RolloutWorker], learners: Pool[Learner]) -> EngineShape:
    engines = rollouts.begin(RolloutWorker.start)  # the slow part; the learners start beside it
    host = learners.hosts()[0]
    learners.broadcast(Learner.start, learners.first(Learner.open_rendezvous, host))
    shapes = engines()
    learners.broadcast(Learner.connect, host, rollouts.handles)
    return shapes[0]


def transfer_backend(config: ExperimentConfig) -> str:
    """vLLM's name of the weight transfer between these workers: gloo on CPUs, ipc on shared GPUs, nccl between GPUs."""
    if config.rollout.device == "cpu":
        return "gloo"
    return "ipc" if max(config.rollout.gpus_per_worker, config.learner.gpus_per_worker) < 1 else "nccl"


def _engine_specs(config: ExperimentConfig, model: ModelFiles, faults: Faults) -> list[EngineSpec]:
    wanted = config.rollout.max_prompt_tokens + config.rollout.max_response_tokens
    needed_by_self_test = 2 * LONGEST_KV_BLOCK + 32
    return [
        EngineSpec(
            model=model.path,
            config=config.rollout,
            max_model_len=min(model.context_length, max(wanted, needed_by_self_test)),
            transfer=transfer_backend(config),
            index=index,
            faults=faults,
        )
        for index in range(config.rollout.workers)
    ]


def _learner_specs(config: ExperimentConfig, model: ModelFiles, faults: Faults) -> list[LearnerSpec]:
    return [
        LearnerSpec(
            model=model.path,
            config=config.learner,
            rank=rank,
            world_size=config.learner.workers,
            temperature=config.rollout.temperature,
            max_response_tokens=config.rollout.max_response_tokens,
            wire_dtype=config.rollout.dtype,
            quantize=config.rollout.quantize,
            transfer=transfer_backend(config),
            faults=faults,
        )
        for rank in range(config.learner.workers)
    ]


def _rollout_env(config: ExperimentConfig, session: Session, scratch: str) -> dict[str, str]:
    return {
        **_common_env(config.rollout.workers, session, scratch),
        "VLLM_ENABLE_V1_MULTIPROCESSING": "0",  # the engine in the actor's own process
        "VLLM_CPU_OMP_THREADS_BIND": "nobind",  # its binding fights with the learners over few cores
        "VLLM_CPU_KVCACHE_SPACE": str(config.rollout.kv_cache_gib),
    }


def _common_env(workers: int, session: Session, scratch: str) -> dict[str, str]:
    # The phases of a step take turns: the workers of one role share the machine, those of another then wait.
    threads = max(1, len(os.sched_getaffinity(0)) // workers) if session.local else 1
    # Passive: on cores that others need, threads that spin at every barrier cost far more than sleeping ones
    # (measured in docs/operations.md).
    env = {
        "OMP_NUM_THREADS": str(threads),
        "OMP_WAIT_POLICY": "PASSIVE",
        "TOKENIZERS_PARALLELISM": "false",
        "VLLM_LOGGING_LEVEL": "WARNING",
    }
    return {**env, "GLOO_SOCKET_IFNAME": "lo", "TMPDIR": scratch} if session.local else env
