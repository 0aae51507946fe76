"""A whole training step against the same generate calls on bare vLLM and the same update of the bare model."""

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from transformers import AutoTokenizer

from actors.faults import Faults
from actors.messages import LearnerShard, Response, SampleRequest
from cluster.session import session
from orchestrator.bench.bare_process import BareProcess
from orchestrator.bench.pairs import Pairs
from orchestrator.bench.result import Figure, Result
from orchestrator.bench.sync import VLLM_ENV
from orchestrator.bench.trace import LOG, TRACED, Span, collect, write_trace
from orchestrator.bench.workloads import WORKLOADS, Workload
from orchestrator.clock import PhaseClock
from orchestrator.crew.crew import Crew
from orchestrator.crew.crews import Crews
from orchestrator.crew.standing import CrewRequest
from orchestrator.crew.worker_specs import SPINS, engine_specs, is_tiny
from orchestrator.crew.workers import REAL
from orchestrator.sampling import Sampler
from orchestrator.step import TrainingStep
from orchestrator.task_problems import TaskFiles, task_problems

WARM_UPS = 1
SEED = 0
PHASES = ("rollout", "score", "gradients", "decide", "apply", "publish")


@dataclass(slots=True)
class Witness:
    """Sees what a step asks of its workers, so that the bare parts can be asked for the same."""

    crew: Crew
    calls: list[dict[str, Any]]
    sequences: list[dict[str, list[int]]]

    def generate(self, requests: Sequence[SampleRequest]) -> list[tuple[Response, ...]]:
        """Have the crew do it."""
        prompts = [request.prompt_ids.tolist() for request in requests for _ in request.seeds]
        seeds = [seed for request in requests for seed in request.seeds]
        self.calls.append({"prompts": prompts, "seeds": seeds})
        return self.crew.generate(requests)

    def compute_gradients(self, shards: Sequence[LearnerShard]) -> Any:
        """Have the crew do it."""
        self.sequences += [
            {"prompt": sequence.prompt_ids.tolist(), "response": sequence.response_ids.tolist()}
            for shard in shards
            for microbatch in shard.microbatches
            for sequence in microbatch
        ]
        return self.crew.compute_gradients(shards)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.crew, name)


def measure(pairs: Mapping[str, int], trace: Path | None = None) -> Result:
    """Run steps, and the bare parts of each right after it.

    Args:
        pairs: steps that count, by the name of the workload.
        trace: where to write what driver and actors were at during one step of the last workload, which is then left
            out of the figures.

    Raises:
        ConfigError: the trace cannot be written.
    """
    figures: list[Figure] = []
    with TemporaryDirectory() as folder:
        for place, (name, num) in enumerate(pairs.items(), start=1):
            workload = WORKLOADS[name](Path(folder))
            is_traced = trace if place == len(pairs) else None
            figures += _figures(workload, *_measured(workload, num, is_traced))
    return Result(benchmark="step", settings={"pairs": dict(pairs)}, figures=tuple(figures))


Seconds = dict[str, list[float]]


def _measured(workload: Workload, pairs: int, trace: Path | None) -> tuple[Seconds, Seconds]:
    """Seconds of each phase of each step and of the whole, and of each bare part."""
    ours: Seconds = {phase: [] for phase in (*PHASES, "step")}
    bare: Seconds = {"generate": [], "train": []}
    with _bare(workload) as (generate, train), _step(workload, traced=trace is not None) as (witness, step):
        for program in (generate, train):
            program.answer()  # it is ready
        for number in range(-WARM_UPS, pairs):
            witness.calls, witness.sequences = [], []
            done = step.step(number + WARM_UPS, PhaseClock())
            parts = generate.once(witness.calls)["seconds"], train.once(witness.sequences)["seconds"]
            if number >= 0:
                for phase, seconds in ours.items():
                    seconds.append(done.metrics.get(f"time/{phase}", 0.0))
                for of_part, took in zip(bare.values(), parts, strict=True):
                    of_part.append(float(took))
        if trace is not None:
            write_trace(trace, _traced(witness.crew, step, pairs + WARM_UPS))
    return ours, bare


def _traced(crew: Crew, step: TrainingStep, number: int) -> dict[str, list[Span]]:
    """The spans of one more step, by process."""
    collect(crew)
    LOG.take()
    with LOG.span("step"):
        step.step(number, _SpanClock())
    return {"driver": LOG.take(), **collect(crew)}


class _SpanClock(PhaseClock):
    """A clock whose phases are spans, too."""

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        with LOG.span(name), super().phase(name):
            yield


def _figures(workload: Workload, ours: Seconds, bare: Seconds) -> Iterator[Figure]:
    parts = [sum(of_step) for of_step in zip(*bare.values(), strict=True)]
    whole = Pairs(ours=tuple(ours["step"]), bare=tuple(parts))
    yield Figure.ratio(f"{workload.name}: whole step / bare parts", whole, workload.target)
    told = [("whole step", ours["step"]), *((f"  {phase}", ours[phase]) for phase in PHASES)]
    told += [("bare parts", parts), *((f"  {part}", seconds) for part, seconds in bare.items())]
    for name, seconds in told:
        yield Figure.median(f"{workload.name}: {name}", "s", seconds)


@contextmanager
def _step(workload: Workload, *, traced: bool) -> Iterator[tuple[Witness, TrainingStep]]:
    config, model = workload.config, workload.model
    tokenizer = AutoTokenizer.from_pretrained(model.path)
    files = TaskFiles.open(config, "bench")
    with (
        session(config.cluster) as ray_session,
        task_problems(config, files, tokenizer, SEED, model.context_length) as problems,
        Crews(ray_session) as crews,
        crews.lend(CrewRequest(config=config, model=model, roles=TRACED if traced else REAL)) as (crew, _),
    ):
        witness = Witness(crew, [], [])
        step = TrainingStep(
            sampler=Sampler(config.rollout, SEED, problems.training, witness.generate),
            workers=witness,
            num_learners=config.learner.workers,
            evaluation=None,
            rollout_log=None,
            config=config.learner,
        )
        yield witness, step


@contextmanager
def _bare(workload: Workload) -> Iterator[tuple[BareProcess, BareProcess]]:
    """Both come up beside whatever the with-block begins with; their first answers say that they are ready."""
    rollout, learner = workload.config.rollout, workload.config.learner
    threads = len(os.sched_getaffinity(0))
    env = {**VLLM_ENV, "OMP_NUM_THREADS": str(threads), "GOMP_SPINCOUNT": os.environ.get("GOMP_SPINCOUNT", str(SPINS))}
    of_engine = {**env, "OMP_NUM_THREADS": "1"} if is_tiny(workload.model) else env
    engine = {
        "model": workload.model.path,
        "dtype": rollout.dtype,
        "max_model_len": engine_specs(workload.config, workload.model, Faults())[0].max_model_len,
        "max_num_seqs": rollout.max_concurrent,
        "temperature": rollout.temperature,
        "max_tokens": rollout.max_response_tokens,
    }
    trained = {
        "model": workload.model.path,
        "threads": threads,
        "tokens_per_microbatch": learner.tokens_per_microbatch,
        "temperature": rollout.temperature,
    }
    with ExitStack() as stack:
        programs = BareProcess.start("generate", engine, of_engine), BareProcess.start("train", trained, env)
        for program in programs:
            stack.callback(program.close)
        yield programs
