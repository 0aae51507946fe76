"""Timed stand-ins for engine and model: the same calls, tiny weights, and sleep in place of work.

What they answer depends on weights, seeds and prompts alone, as it does for the real ones: so a run of theirs can be
compared step by step, and a lost update, a stale weight or a doubled prompt changes its numbers.
"""

import errno
import hashlib
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import ray

from actors.corrections import CorrectionSums
from actors.learner import LearnerSpec
from actors.messages import (
    GradientReport,
    LearnerShard,
    Response,
    SampleRequest,
    SavedFile,
    StepDecision,
    TrainSequence,
    UpdateReport,
)
from actors.rollout_worker import EngineShape, EngineSpec
from actors.statistics import MismatchSums
from actors.storage.writer import CheckpointNotWritten

SIZE = 8  # weights
LONGEST = 12  # tokens


class StandInEngine:
    """Lengths, tokens and log-probs come from a hash of weights, prompt and seed."""

    def __init__(self, spec: EngineSpec) -> None:
        self._weights = np.zeros(SIZE)
        self._version = 0

    def start(self) -> EngineShape:
        time.sleep(0.05)
        return EngineShape(block_size=16, max_model_len=512)

    def receive(self, weights: np.ndarray, version: int) -> None:
        self._weights, self._version = np.array(weights), version

    def generate(self, requests: Sequence[SampleRequest], max_tokens: int | None = None) -> list[tuple[Response, ...]]:
        time.sleep(0.05)
        return [tuple(self._response(request, seed) for seed in request.seeds) for request in requests]

    def _response(self, request: SampleRequest, seed: int) -> Response:
        digest = hashlib.blake2b(self._weights.tobytes() + request.prompt_ids.tobytes() + str(seed).encode())
        draws = np.frombuffer(digest.digest(), np.uint8)
        length = 1 + int(draws[0]) % LONGEST
        return Response(
            token_ids=(3 + draws[1 : 1 + length] % 10).astype(np.int32),
            logprobs=-draws[20 : 20 + length].astype(np.float32) / 256,
            finished=True,
            weight_version=self._version,
        )


class StandInLearner:
    """Every rank holds all weights, which drift with the rate and with what was sampled."""

    def __init__(self, spec: LearnerSpec) -> None:
        self._correction = spec.config.correction
        self._rank = spec.rank
        self._weights = np.zeros(SIZE)
        self._moment = np.zeros(SIZE)
        self._engines: Sequence[Any] = ()
        self._saved: tuple[SavedFile, ...] | CheckpointNotWritten = ()

    def open_rendezvous(self, host: str) -> str:
        return "nowhere"

    def start(self, address: str) -> None:
        time.sleep(0.05)

    def tensor_names(self) -> list[str]:
        return ["weights"]

    def connect(self, host: str, rollout_workers: Sequence[Any]) -> None:
        self._engines = rollout_workers

    def publish(self, version: int) -> None:
        time.sleep(0.02)
        if self._rank == 0:
            ray.get([engine.receive.remote(self._weights, version) for engine in self._engines])

    def compute_gradients(self, shard: LearnerShard) -> GradientReport:
        time.sleep(0.05)
        report = GradientReport(grad_square_sum=float(np.square(np.cos(self._weights)).sum()))
        for microbatch in shard.microbatches:
            for sequence in microbatch:
                report = report.merge(self._report(sequence))
        return report

    def _report(self, sequence: TrainSequence) -> GradientReport:
        rollout, lengths = sequence.rollout_logprobs, [len(sequence.rollout_logprobs)]
        train = rollout + np.float32(1e-3 * np.sin(self._weights[0]))
        weighed = self._correction.weigh(train, rollout, lengths)
        return GradientReport(
            mismatch=MismatchSums.from_logprobs(train, rollout, lengths),
            correction=CorrectionSums.of(weighed, lengths),
            entropy_sum=1.0,
            loss=float(train.sum()) / 100,
        )

    def apply(self, order: StepDecision) -> UpdateReport:
        if order.update:
            self._moment = 0.9 * self._moment + np.sin(np.arange(SIZE) + order.metrics["policy/loss"])
            self._weights = self._weights + order.decision.lr * 1e3 * self._moment
        return UpdateReport(weight_square_sum=1.0, update_square_sum=order.decision.lr)

    def save(self, folder: str) -> None:
        path = Path(folder) / f"rank-{self._rank}.json"
        content = json.dumps([self._weights.tolist(), self._moment.tolist()]).encode()
        digest = hashlib.sha256(content).hexdigest()
        self._saved = (SavedFile(name=f"learner/{path.name}", num_bytes=len(content), sha256=digest),)
        try:
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(content)
        except OSError as error:  # the real one writes in the background, and tells when it is asked
            self._saved = CheckpointNotWritten(str(error), disk_full=error.errno == errno.ENOSPC)

    def written(self, timeout_s: float) -> tuple[SavedFile, ...]:
        time.sleep(0.1)
        if isinstance(self._saved, CheckpointNotWritten):
            raise self._saved
        return self._saved

    def load(self, folder: str) -> None:
        weights, moment = json.loads((Path(folder) / f"rank-{self._rank}.json").read_text())
        self._weights, self._moment = np.array(weights), np.array(moment)
