"""All mismatch metrics of a large step against a single exponential of its tokens."""

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from actors.statistics import MismatchSums
from orchestrator.bench.bare_process import bare_process
from orchestrator.bench.pairs import interleaved, timed
from orchestrator.bench.result import Figure, Result

SHORTEST, LONGEST = 256, 8192  # tokens of a sequence
TARGET = 2.0
THREADS = "OMP_NUM_THREADS"


def measure(sequences: int, pairs: int) -> Result:
    """Time float32 log-probs to metrics, with sums in float64.

    Args:
        sequences: of 256 to 8,192 tokens each.
        pairs: measurements of both sides.
    """
    rng = np.random.default_rng(0)
    lengths = rng.integers(SHORTEST, LONGEST + 1, sequences)
    rollout = (-rng.exponential(0.7, lengths.sum())).astype(np.float32)
    train = np.minimum(rollout + rng.normal(0, 0.02, rollout.size).astype(np.float32), np.float32(0))
    ours = timed(lambda: MismatchSums.from_logprobs(train, rollout, lengths).metrics())
    cores = len(os.sched_getaffinity(0))
    with TemporaryDirectory() as folder, ExitStack() as stack:
        bare = []
        for name, tokens in (("float32", train), ("float64", train.astype(np.float64))):
            file = str(Path(folder) / f"{name}.npy")
            np.save(file, tokens)
            bare.append(stack.enter_context(bare_process("exp", {"file": file}, {THREADS: "1"})))
        converting, ready = bare
        with _threads(1):
            one_core = interleaved(ours, converting.seconds, pairs)
            unconverted = interleaved(ours, ready.seconds, pairs)
        with _threads(cores):
            all_cores = interleaved(ours, converting.seconds, pairs)
            all_unconverted = interleaved(ours, ready.seconds, pairs)
    on_all = f"on {cores} cores"
    return Result(
        benchmark="metrics",
        settings={"sequences": sequences, "tokens": int(lengths.sum()), "cores": cores},
        figures=(
            Figure.ratio("all metrics on one core / exponentials of the same float32 tokens", one_core, TARGET),
            Figure.ratio("the same / exponentials of tokens that are float64 already", unconverted, None),
            Figure.ratio(f"all metrics {on_all} / exponentials of the same float32 tokens, on one", all_cores, TARGET),
            Figure.ratio("these / exponentials of tokens that are float64 already", all_unconverted, None),
        ),
    )


@contextmanager
def _threads(num: int) -> Iterator[None]:
    before = os.environ.get(THREADS)
    os.environ[THREADS] = str(num)
    try:
        yield
    finally:
        if before is None:
            del os.environ[THREADS]
        else:
            os.environ[THREADS] = before
