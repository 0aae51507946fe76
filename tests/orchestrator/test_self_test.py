"""The weight-sync self-test: probes, the parts of a model, and what it blames in a fleet of fakes."""

import doctest
import pickle
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import orchestrator.self_test
from actors.messages import Response, SampleRequest, TrainSequence
from actors.rollout_worker import EngineShape
from orchestrator.self_test import PROBE_TOKENS, SelfTest, WeightSyncError, _cut, part_of, probe_lengths, weight_groups

NAMES = [
    "model.embed_tokens.weight",
    "model.layers.0.self_attn.q_proj.weight",
    "model.layers.0.input_layernorm.weight",
    "model.layers.10.mlp.down_proj.weight",
    "model.norm.weight",
    "lm_head.weight",
]


def test_no_probe_is_longer_than_the_engine_takes() -> None:
    assert max(probe_lengths(128, max_model_len=200)) + PROBE_TOKENS == 200


@given(st.integers(1, 1024))
def test_one_probe_is_longer_than_two_blocks_and_the_others_are_short(block_size: int) -> None:
    *short, longest = probe_lengths(block_size, max_model_len=4096)
    assert longest > 2 * block_size
    assert short and max(short) < 32


@pytest.mark.parametrize(
    ("name", "part"),
    [
        ("model.embed_tokens.weight", "embedding"),
        ("transformer.wte.weight", "embedding"),
        ("model.layers.0.self_attn.q_proj.weight", "layer 0"),
        ("model.layers.10.input_layernorm.weight", "layer 10"),
        ("transformer.h.3.ln_1.weight", "layer 3"),
        ("model.language_model.layers.2.mlp.experts.7.up_proj.weight", "layer 2"),
        ("model.norm.weight", "final norm"),
        ("transformer.ln_f.bias", "final norm"),
        ("lm_head.weight", "output head"),
        ("lm_head.bias", "output head"),
    ],
)
def test_a_tensor_belongs_to_the_part_its_name_says(name: str, part: str) -> None:
    assert part_of(name) == part


def test_groups_hold_every_tensor_once_in_the_order_of_the_model() -> None:
    groups = weight_groups(NAMES)
    assert list(groups) == ["embedding", "layer 0", "layer 10", "final norm", "output head"]
    assert [name for names in groups.values() for name in names] == NAMES
    assert groups["layer 0"] == NAMES[1:3]


def test_no_tensors_are_no_groups() -> None:
    assert weight_groups([]) == {}


def test_probes_are_cut_one_after_the_other_and_around_the_end() -> None:
    text = np.arange(10, dtype=np.int32)
    pieces = _cut(text, [3, 4, 25], offset=5)
    assert [piece.tolist() for piece in pieces[:2]] == [[5, 6, 7], [8, 9, 0, 1]]
    assert pieces[2].tolist() == [(2 + i) % 10 for i in range(25)]
    assert all(piece.dtype == np.int32 for piece in pieces)


def test_the_error_survives_pickling_with_its_part() -> None:
    error = pickle.loads(pickle.dumps(WeightSyncError("layer 3", "log-probs differ")))
    assert (error.part, error.detail) == ("layer 3", "log-probs differ")
    assert str(error) == "weight-sync self-test failed: layer 3: log-probs differ"


def test_the_example_in_the_docstring_runs() -> None:
    results = doctest.testmod(orchestrator.self_test)
    assert results.attempted and not results.failed


class FakeFleet:
    """Learners and rollout workers in one: a token's log-prob is minus the sum of all weights.

    `lost` are the names that never arrive, at the worker of that index; `keeps_cache` answers prompts it has seen with
    the log-probs of then.
    """

    def __init__(
        self, lost: dict[int, list[str]] | None = None, keeps_cache: bool = False, num_workers: int = 2
    ) -> None:
        self.weights = {name: 0.1 * (i + 1) for i, name in enumerate(NAMES)}
        self.lost = lost or {}
        self.keeps_cache = keeps_cache
        self.names = [f"rollout-{i}" for i in range(num_workers)]
        self.engines = [dict(self.weights) for _ in self.names]
        self.originals = dict(self.weights)
        self.cached: dict[tuple[int, bytes], float] = {}
        self.versions: list[int] = []  # published
        self.needed: list[Any] = []  # in the calls of one role that need another

    def needing(self, other: Any) -> "FakeFleet":
        self.needed.append(other)
        return self

    def broadcast(self, method: Any, *args: Any, **kwargs: Any) -> list[Any]:
        return list(getattr(self, f"do_{method.__name__}")(*args, **kwargs))

    def first(self, method: Any, *args: Any) -> Any:
        return self.broadcast(method, *args)[0]

    def do_tensor_names(self) -> list[list[str]]:
        return [NAMES]

    def do_perturb(self, seed: int) -> list[None]:
        self.weights = {name: value + 2.0**i for i, (name, value) in enumerate(self.weights.items())}
        return [None]

    def do_restore(self) -> list[None]:
        self.weights = dict(self.originals)
        return [None]

    def do_publish(self, version: int) -> list[None]:
        self.versions.append(version)
        for i, engine in enumerate(self.engines):
            engine |= {name: value for name, value in self.weights.items() if name not in self.lost.get(i, [])}
        return [None]

    def do_generate(self, requests: list[SampleRequest], max_tokens: int) -> list[list[tuple[Response, ...]]]:
        return [[(self.response(i, request),) for request in requests] for i in range(len(self.engines))]

    def response(self, worker: int, request: SampleRequest) -> Response:
        logprob = -sum(self.engines[worker].values())
        if self.keeps_cache:
            logprob = self.cached.setdefault((worker, request.prompt_ids.tobytes()), logprob)
        return Response(
            token_ids=np.zeros(2, np.int32),
            logprobs=np.full(2, logprob, np.float32),
            finished=True,
            weight_version=0,
        )

    def do_score(self, sequences: list[TrainSequence], stale: Sequence[str] = ()) -> list[list[np.ndarray]]:
        weights = {name: self.originals[name] if name in stale else value for name, value in self.weights.items()}
        return [[np.full(2, -sum(weights.values()), np.float32) for _ in sequences]]


def self_test_of(fleet: Any, version: int = 0) -> SelfTest:
    shape = EngineShape(block_size=16, max_model_len=512)
    return SelfTest(fleet, fleet, np.arange(2000, dtype=np.int32), shape, version)


def test_weights_that_arrive_pass_with_two_syncs_and_are_what_they_were() -> None:
    fleet = FakeFleet()
    before = dict(fleet.weights)
    report = self_test_of(fleet).run()
    assert report.syncs == 2
    assert report.perturbed <= report.limit
    assert fleet.weights == before
    assert fleet.engines == [before, before]


@pytest.mark.parametrize("version", [0, 40])
def test_weights_keep_their_version_and_the_engines_are_watched_while_they_are_sent(version: int) -> None:
    fleet = FakeFleet()
    self_test_of(fleet, version).run()
    assert fleet.versions == [version] * 2
    assert fleet.needed == [fleet] * 2


@pytest.mark.parametrize("lost", NAMES)
def test_a_tensor_that_does_not_arrive_is_named_with_its_part_and_the_worker(lost: str) -> None:
    with pytest.raises(WeightSyncError) as raised:
        self_test_of(FakeFleet(lost={1: [lost]})).run()
    assert raised.value.part == part_of(lost)
    assert f"{lost} did not arrive at rollout-1" in raised.value.detail


def test_a_whole_layer_that_does_not_arrive_is_named_as_one() -> None:
    with pytest.raises(WeightSyncError) as raised:
        self_test_of(FakeFleet(lost={0: NAMES[1:3]})).run()
    assert raised.value.part == "layer 0"
    assert f"{NAMES[1]} and 1 more did not arrive at rollout-0" in raised.value.detail


def test_parts_that_are_lost_together_are_not_blamed_on_one() -> None:
    with pytest.raises(WeightSyncError) as raised:
        self_test_of(FakeFleet(lost={0: [NAMES[0], NAMES[4]]})).run()
    assert raised.value.part == "more than one part of the model"


def test_a_kept_prefix_cache_is_told_from_a_lost_tensor() -> None:
    with pytest.raises(WeightSyncError) as raised:
        self_test_of(FakeFleet(keeps_cache=True)).run()
    assert raised.value.part == "the prefix cache"
    assert "rollout-0" in raised.value.detail


def test_logprobs_that_are_not_a_number_do_not_pass() -> None:
    fleet = FakeFleet()
    fleet.do_perturb = lambda seed: [fleet.weights.update({NAMES[0]: float("nan")})]  # type: ignore[method-assign]
    with pytest.raises(WeightSyncError, match="nan"):
        self_test_of(fleet).run()
