"""A stand-in for a learner rank: statistics of what it is given, in the time that a model would take."""

import errno
import hashlib
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

import numpy as np

from actors.corrections import CorrectionConfig, CorrectionSums
from actors.faults import Faults
from actors.gradient_noise import HalfSums
from actors.messages import (
    FloatArray,
    GradientReport,
    LearnerShard,
    SavedFile,
    StepDecision,
    TokenRecord,
    TrainSequence,
    UpdateReport,
)
from actors.simulated.config import SimulationConfig
from actors.simulated.pace import Pace
from actors.simulated.rollout_worker import positions_of
from actors.simulated.weights import NAMES, Weights, logprobs
from actors.statistics import MismatchSums

ENTROPY = 0.5  # nats a token


class Peer(Protocol):
    """A rollout worker as a learner reaches it, wherever that is."""

    def ask(self, method: str, *args: object) -> Callable[[], object]:
        """Call a method; what this returns waits for the result."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SimulatedLearnerSpec:
    """What a stand-in for a learner rank needs to know.

    Example:
        SimulatedLearnerSpec(config=simulation, correction=NoCorrection(), rank=0, world_size=64, faults=Faults())
    """

    config: SimulationConfig
    correction: CorrectionConfig
    rank: int
    world_size: int
    faults: Faults


class SimulatedLearner:
    """Has the calls of `Learner`. Every rank holds all weights, and updates them as all others do."""

    def __init__(self, spec: SimulatedLearnerSpec) -> None:
        self._spec = spec
        self._pace = Pace(spec.config, "learner", spec.rank)
        self._weights = Weights()
        self._version = 0
        self._before: dict[str, float] | None = None  # what the self-test has perturbed
        self._peers: Sequence[Peer] = ()
        self._tokens: list[list[TokenRecord]] = []
        self._saved: tuple[SavedFile, ...] | OSError = ()

    def open_rendezvous(self, host: str) -> str:
        """Nothing to open: stand-ins need no meeting."""
        return f"nowhere:{host}"

    def start(self, address: str) -> None:
        """Come up."""
        with self._pace.taking("start", 0):
            pass

    def connect(self, host: str, rollout_workers: Sequence[Peer]) -> None:
        """Have rank 0 publish to these rollout workers."""
        self._peers = rollout_workers

    def publish(self, version: int) -> None:
        """Rank 0 brings the weights to all rollout workers, all messages for that within its time for it."""
        if self._spec.rank == 0:
            with self._pace.taking("publish", version):
                values = self._weights.values
                sent = {name: value for name, value in values.items() if not self._spec.faults.drops(name)}
                for received in [peer.ask("receive", sent, version) for peer in self._peers]:
                    received()
        self._version = version

    def compute_gradients(self, shard: LearnerShard) -> GradientReport:
        """What a gradient at these weights could be like; statistics and correction are exact."""
        with self._pace.taking("gradients", self._version):
            self._tokens = []
            halves = shard.num_first_half
            first, rest = shard.microbatches[: halves or 0], shard.microbatches[halves or 0 :]
            one, two = self._report(first, shard), self._report(rest, shard)
            merged = one.merge(two)
            if halves is not None:
                merged = replace(merged, halves=_products(one, two))
            return replace(merged, grad_square_sum=_slope(merged) ** 2 / self._spec.world_size)

    def _report(self, microbatches: Sequence[Sequence[TrainSequence]], shard: LearnerShard) -> GradientReport:
        sequences = [sequence for microbatch in microbatches for sequence in microbatch]
        if shard.keep_tokens:
            self._tokens += [self._records(microbatch) for microbatch in microbatches]
        if not sequences:
            return GradientReport()
        lengths = [len(sequence.response_ids) for sequence in sequences]
        train = np.concatenate(self._scored(sequences, self._weights.values))
        rollout = np.concatenate([sequence.rollout_logprobs for sequence in sequences])
        weighed = self._spec.correction.weigh(train, rollout, lengths)
        advantages = np.repeat([sequence.advantage for sequence in sequences], lengths)
        return GradientReport(
            mismatch=MismatchSums.from_logprobs(train, rollout, lengths),
            correction=CorrectionSums.of(weighed, lengths),
            entropy_sum=ENTROPY * len(train),
            loss=float(-(weighed.weights * advantages * np.exp(train)).sum()) / max(1, shard.num_tokens),
        )

    def _records(self, microbatch: Sequence[TrainSequence]) -> list[TokenRecord]:
        return [
            TokenRecord(train_logprobs=values, advantages=np.full(len(values), sequence.advantage))
            for sequence, values in zip(microbatch, self._scored(microbatch, self._weights.values), strict=True)
        ]

    def _scored(self, sequences: Sequence[TrainSequence], values: Mapping[str, float]) -> list[FloatArray]:
        if not sequences:
            return []
        lengths = [len(sequence.response_ids) for sequence in sequences]
        tokens = np.concatenate([sequence.response_ids for sequence in sequences])
        found = logprobs(values, tokens, positions_of(lengths)).astype(np.float32)
        return np.split(found, np.cumsum(lengths)[:-1])

    def token_records(self) -> list[list[TokenRecord]]:
        """What was kept of the last shard's sequences, micro-batch by micro-batch; empty when it did not ask for it."""
        return self._tokens

    def apply(self, order: StepDecision) -> UpdateReport:
        """Update the weights as the order says."""
        with self._pace.taking("apply", self._version):
            if not order.update:
                return UpdateReport()
            before, added = self._weights.move(order.decision.lr, order.metrics.get("policy/loss", 0.0))
            ranks = self._spec.world_size
            return UpdateReport(weight_square_sum=before / ranks, update_square_sum=added / ranks)

    def save(self, folder: str) -> None:
        """Write this rank's file; what goes wrong is told by `written`, as by the real one."""
        path = Path(folder) / f"rank-{self._spec.rank}.json"
        content = self._weights.to_json().encode()
        digest = hashlib.sha256(content).hexdigest()
        self._saved = (SavedFile(name=f"learner/{path.name}", num_bytes=len(content), sha256=digest),)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        except OSError as error:
            self._saved = error

    def written(self, timeout_s: float) -> tuple[SavedFile, ...]:
        """The file of this rank.

        Raises:
            CheckpointNotWritten: it could not be written.
        """
        if isinstance(self._saved, OSError):
            # Torch comes with it, which no stand-in needs but for this.
            from actors.storage.writer import CheckpointNotWritten  # noqa: PLC0415

            raise CheckpointNotWritten(str(self._saved), disk_full=self._saved.errno == errno.ENOSPC)
        return self._saved

    def load(self, folder: str) -> None:
        """Become the rank that was saved."""
        self._weights = Weights.from_json((Path(folder) / f"rank-{self._spec.rank}.json").read_text())
        self._before = None

    def perturb(self, seed: int) -> None:
        """Change every weight strongly; `restore` takes it back bit for bit."""
        self._before = dict(self._weights.values)
        self._weights.values = self._weights.perturbed(seed)

    def restore(self) -> None:
        """Take `perturb` back."""
        if self._before is not None:
            self._weights.values, self._before = self._before, None

    def tensor_names(self) -> list[str]:
        """Names of all tensors that a publication sends, faults left out of account."""
        return list(NAMES)

    def score(self, sequences: Sequence[TrainSequence], stale: Sequence[str] = ()) -> list[FloatArray]:
        """Log-probs of each sequence's response tokens; `stale` tensors are taken as they were before `perturb`."""
        before = self._before or {}
        old = {name: before[name] for name in stale if name in before}
        return self._scored(sequences, {**self._weights.values, **old})


def _slope(report: GradientReport) -> float:
    """Of a gradient with one element, for a report: the loss and a share that every token adds."""
    return report.loss + 1e-4 * math.sqrt(report.correction.tokens_counted)


def _products(one: GradientReport, two: GradientReport) -> HalfSums:
    first, second = _slope(one), _slope(two)
    return HalfSums(
        first_square=first**2,
        second_square=second**2,
        product=first * second,
        first_tokens=one.correction.tokens_counted,
        first_sequences=one.correction.sequences_kept,
    )
