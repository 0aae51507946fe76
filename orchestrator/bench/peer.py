"""Whole steps of ours and of TRL's GRPOTrainer in turns: the same model, prompts, sizes and number of updates."""

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from importlib.metadata import distributions
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from orchestrator.bench.bare_process import bare_process
from orchestrator.bench.paced_run import SEED, Turn, kept, paced_run
from orchestrator.bench.pairs import Pairs, interleaved
from orchestrator.bench.result import Figure, Result
from orchestrator.bench.workloads import WORKLOADS, Workload
from orchestrator.config import ExperimentConfig
from orchestrator.config_errors import ConfigError
from orchestrator.task_config import ArithmeticTaskConfig
from orchestrator.tasks import ArithmeticTask

ENVIRONMENT = Path(__file__).parents[2] / ".venv-peer"
READY = ".ready"  # the Makefile's, once all is installed
PACKAGES = ("trl", "transformers", "torch", "accelerate")
TARGETS = {"demo": 1.2, "bigger": 2.0}  # tokens per second, ours over TRL's
STEPS_PER_TURN = {"demo": 5, "bigger": 1}
# The fastest of those tried: see docs/benchmarks.md.
TUNED: dict[str, dict[str, Any]] = {
    "demo": {
        "bf16": False,
        "attention": "sdpa",
        "compile": False,
        "continuous_batching": False,
        "responses_per_microbatch": 32,
    },
    "bigger": {
        "bf16": True,
        "attention": "eager",
        "compile": True,
        "continuous_batching": False,
        "responses_per_microbatch": 64,
    },
}
# Ours: one rank needs no collectives; for larger matrices passes in bfloat16 are worth it, and so is compiling. Plain
# attention, as the backward pass of the fused one is slow on CPUs. Two engines of one thread each share out what vLLM
# does in Python, once there are sequences enough for both.
OURS: dict[str, dict[str, dict[str, Any]]] = {
    "demo": {"rollout": {"workers": 1}, "learner": {"workers": 1, "dtype": "float32"}},
    "bigger": {
        "rollout": {"workers": 2},
        "learner": {"workers": 1, "dtype": "bfloat16", "attention": "eager", "compile": True},
    },
}
PHASES = ("rollout", "score", "gradients", "decide", "apply", "publish")
WARM_UPS = 1
RAY_NICENESS = 15  # of its workers, unless RAY_worker_niceness says otherwise: on a busy machine it counts
PROBLEMS = 4096  # that the peer has before they come again
# Nothing but steps, and all of them alike: the peer has no groups sampled in place of flat ones.
ONLY_STEPS = {"steps": 1_000_000, "evaluation": None, "checkpoint": None}


def measure(names: Sequence[str], turns: int, changes: Mapping[str, Any] | None = None) -> Result:
    """Time steps of both, one side waiting while the other works.

    Args:
        names: of workloads.
        turns: that are timed of each side.
        changes: to how the peer is tuned.

    Raises:
        ConfigError: there is no environment with the peer.
        BareFailed: the peer has ended.
        Whatever keeps our run from coming up.
    """
    if not (ENVIRONMENT / READY).exists():
        raise ConfigError("bench peer", "environment", str(ENVIRONMENT), "one with TRL: `make bench-peer` makes it")
    figures: list[Figure] = []
    tuned = {name: {**TUNED[name], **(changes or {})} for name in names}
    for name in names:
        with TemporaryDirectory(prefix="evenkeel-peer-") as folder:
            workload = only_steps(WORKLOADS[name](Path(folder)))
            problems = Path(folder) / "problems.jsonl"
            write_problems(problems, workload.config)
            told = {**peer_settings(workload), "problems": str(problems), **tuned[name]}
            figures += figures_of(name, *_turns(workload, told, turns))
    settings = {
        "turns": turns,
        "steps_per_turn": STEPS_PER_TURN,
        "ours": {name: OURS[name] for name in names},
        "tuned": tuned,
        "peer": _versions(),
    }
    return Result(benchmark="peer", settings=settings, figures=tuple(figures))


def only_steps(workload: Workload) -> Workload:
    """The workload with the same work in every step, which the peer can do as well, and with ours tuned."""
    tree = workload.config.model_dump()
    tree["learner"] |= OURS[workload.name]["learner"]
    tree["rollout"] |= {**OURS[workload.name]["rollout"], "filter_flat_groups": False}
    return replace(workload, config=ExperimentConfig.model_validate({**tree, **ONLY_STEPS}))


def write_problems(path: Path, config: ExperimentConfig) -> None:
    """Write the problems that the experiment trains on, in its order: JSON lines with prompt and answer."""
    assert isinstance(config.task, ArithmeticTaskConfig)
    task = ArithmeticTask(digits=config.task.digits, seed=SEED)
    lines = [json.dumps({"prompt": made.prompt, "answer": made.answer}) for made in map(task.problem, range(PROBLEMS))]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def peer_settings(workload: Workload) -> dict[str, Any]:
    """What `bare/trl_grpo.py` is told of a workload."""
    config = workload.config
    rollout = config.rollout
    return {
        "model": workload.model.path,
        "prompts_per_step": rollout.prompts_per_step,
        "group_size": rollout.group_size,
        "max_response_tokens": rollout.max_response_tokens,
        "lr": config.scheduler.lr,
        "steps_per_turn": STEPS_PER_TURN[workload.name],
        "threads": len(os.sched_getaffinity(0)),
        "niceness": RAY_NICENESS,
    }


def _turns(workload: Workload, settings: Mapping[str, Any], num: int) -> tuple[list[Turn], list[Turn]]:
    """Ours and the peer's, as many as are timed."""
    python = str(ENVIRONMENT / "bin" / "python")
    with (
        bare_process("trl_grpo", settings, python=python) as peer,
        paced_run(workload, settings["steps_per_turn"]) as run,
    ):
        ours: list[Turn] = []
        theirs: list[Turn] = []
        interleaved(kept(run.turn, ours), kept(lambda: Turn(**peer.once()), theirs), num, warm_ups=WARM_UPS)
    return ours[WARM_UPS:], theirs[WARM_UPS:]


def figures_of(name: str, ours: Sequence[Turn], theirs: Sequence[Turn]) -> Iterator[Figure]:
    """What the turns of a workload come to: the ratio with its target, both sides' figures, and where our time goes.

    Args:
        name: of the workload.
        ours: turn by turn.
        theirs: those of the peer, each beside ours in time.
    """
    rates = Pairs(ours=tuple(map(_rate, ours)), bare=tuple(map(_rate, theirs)))
    yield Figure(
        name=f"{name}: tokens per second / TRL's",
        value=rates.ratio,
        target=TARGETS[name],
        at_least=True,
        spread=rates.ratios,
        pairs=rates,
    )
    steps = STEPS_PER_TURN[name]
    for side, turns in (("ours", ours), ("TRL", theirs)):
        yield Figure.median(f"{name}: {side}", "tokens/s", [_rate(turn) for turn in turns])
        yield Figure.median(f"{name}: {side}, a step", "s", [turn.seconds / steps for turn in turns])
        yield Figure.median(f"{name}: {side}, tokens of a step", "", [turn.tokens / steps for turn in turns])
    sampling = [turn.sampling_s / steps for turn in theirs]
    yield Figure.median(f"{name}: TRL, sampling of a step", "s", sampling)
    records = [record for turn in ours for record in turn.records]
    for phase in PHASES:
        seconds = [record.metrics[f"time/{phase}"] for record in records]
        yield Figure.median(f"{name}: ours, {phase} of a step", "s", seconds)


def _rate(turn: Turn) -> float:
    return turn.tokens / turn.seconds


def _versions() -> dict[str, str]:
    """Of what the peer's environment holds."""
    folders = [str(folder) for folder in ENVIRONMENT.glob("lib/python*/site-packages")]
    found = {package.name: package.version for package in distributions(path=folders)}
    return {name: found[name] for name in PACKAGES if name in found}
