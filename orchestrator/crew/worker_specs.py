"""What the workers of a run are started with, read off its config: room, arguments, environment."""

import os
from pathlib import Path
from typing import Any

from actors.config import LearnerConfig, RolloutConfig
from actors.faults import Faults
from actors.learner import LearnerSpec
from actors.rollout_worker import EngineSpec
from cluster.session import Session
from cluster.waiting import Patience
from orchestrator.config import ExperimentConfig
from orchestrator.crew.plans import plan_of
from orchestrator.model_files import ModelFiles

# How often an OpenMP thread that waits at a barrier looks before it sleeps. Five times as often gained 2% on idle cores
# and was many times slower beside a busy process.
SPINS = 2000
TINY_BYTES = 2**22  # of weights. One thread was the faster at 0.6 MB, two at 14 MB; where it turns was not measured
LONGEST_KV_BLOCK = 128  # tokens; vLLM's on CPUs. The self-test needs a prompt longer than two of them


def patience_of(config: ExperimentConfig) -> Patience:
    """How long workers are waited for."""
    return Patience(call_s=config.cluster.call_timeout_s, silence_s=config.cluster.silence_timeout_s)


def scheduler_arguments(config: ExperimentConfig) -> tuple[Any, ...]:
    """Of the scheduler's constructor."""
    shadows = {name: shadow.build(config.steps) for name, shadow in config.shadow.items()}
    return config.scheduler.build(config.steps), config.learner, shadows


def started_with(config: ExperimentConfig, model: ModelFiles, session: Session) -> tuple[Any, ...]:
    """All that the processes of a run without faults depend on, but for the scheduler's: equal for runs that can take
    turns with the same ones.
    """
    envs = (rollout_env(config, model, session, ""), learner_env(config, session, ""))
    specs = (engine_specs(config, model, Faults()), learner_specs(config, model, Faults()))
    return (plan_of(config), patience_of(config), config.simulation, *envs, *specs)


def transfer_backend(config: ExperimentConfig) -> str:
    """vLLM's name of the weight transfer between these workers: gloo on CPUs, ipc on shared GPUs, nccl between GPUs."""
    if config.rollout.device == "cpu":
        return "gloo"
    return "ipc" if config.cluster.colocate else "nccl"


def engine_specs(config: ExperimentConfig, model: ModelFiles, faults: Faults) -> list[EngineSpec]:
    """One for each rollout worker."""
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


def learner_specs(config: ExperimentConfig, model: ModelFiles, faults: Faults) -> list[LearnerSpec]:
    """One for each learner rank."""
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
            engine_processes=config.rollout.tensor_parallel_size,
            faults=faults,
        )
        for rank in range(config.learner.workers)
    ]


def rollout_env(config: ExperimentConfig, model: ModelFiles, session: Session, scratch: str) -> dict[str, str]:
    """Environment of a rollout worker's process; `scratch` is for its temporary files."""
    env = _common_env(config, config.rollout, session, scratch)
    return {
        **env,
        "OMP_NUM_THREADS": "1" if is_tiny(model) else env["OMP_NUM_THREADS"],
        "VLLM_ENABLE_V1_MULTIPROCESSING": "0",  # the engine in the actor's own process
        "VLLM_CPU_OMP_THREADS_BIND": "nobind",  # its binding fights with the learners over few cores
        "VLLM_CPU_KVCACHE_SPACE": str(config.rollout.kv_cache_gib),
        # Ten seconds of C++ at every start, for two helpers of the sampler that hardly run.
        **({"TORCH_COMPILE_DISABLE": "1"} if config.rollout.device == "cpu" else {}),
    }


def learner_env(config: ExperimentConfig, session: Session, scratch: str) -> dict[str, str]:
    """Environment of a learner's process; `scratch` is for its temporary files."""
    return _common_env(config, config.learner, session, scratch)


def is_tiny(model: ModelFiles) -> bool:
    """Whether its weights, if they are in a folder, are so few that one thread suits an engine best."""
    sizes = [file.stat().st_size for file in Path(model.path).glob("*.safetensors")]
    return 0 < sum(sizes) < TINY_BYTES


def _common_env(
    config: ExperimentConfig, role: RolloutConfig | LearnerConfig, session: Session, scratch: str
) -> dict[str, str]:
    # The phases of a step take turns: the workers of one role share the machine, those of another then wait. On a
    # cluster's nodes others may be at work, too.
    threads = len(os.sched_getaffinity(0)) // role.workers if session.local else int(role.cpus_per_worker)
    # On cores that others need, threads that spin at every barrier cost far more than sleeping ones; on idle cores
    # falling asleep at once does (measured in docs/operations.md).
    alone = session.local and not session.shared and not config.max_staleness
    spins = SPINS if alone else 0
    env = {
        "OMP_NUM_THREADS": str(max(1, threads)),
        "OMP_WAIT_POLICY": "PASSIVE",
        "GOMP_SPINCOUNT": os.environ.get("GOMP_SPINCOUNT", str(spins)),  # stands above the policy
        "TOKENIZERS_PARALLELISM": "false",
        "VLLM_LOGGING_LEVEL": "WARNING",
    }
    at_home = {"GLOO_SOCKET_IFNAME": "lo", "NCCL_SOCKET_IFNAME": "=lo", "TMPDIR": scratch}
    return {**env, **at_home} if session.local else env
