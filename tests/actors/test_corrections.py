"""Every correction against loops over its formula, its validation, and sums that merge whatever the split."""

import doctest
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

import actors.corrections
from actors.corrections import (
    Correction,
    CorrectionConfig,
    CorrectionSums,
    GeometricMask,
    NoCorrection,
    SequenceMask,
    SequenceTis,
    TokenMask,
    TokenTis,
    TokenWeights,
)

KINDS: tuple[Correction, ...] = (
    NoCorrection(),
    TokenTis(),
    TokenTis(cap=0.7),
    SequenceTis(),
    SequenceTis(cap=1e12),  # above exp(20): shows where the sum is clipped
    TokenMask(),
    TokenMask(lo=0.0, hi=1e12),
    SequenceMask(),
    SequenceMask(lo=1e-6, hi=1e12),
    GeometricMask(),
    GeometricMask(lo=0.6, hi=1.5),
)
differences = st.one_of(st.floats(-1e-3, 1e-3), st.floats(-2, 2), st.floats(-45, 45))
sequences = st.lists(st.lists(differences, max_size=5), max_size=7)


def clipped_exp(value: float) -> float:
    return math.exp(min(20.0, max(-20.0, value)))


def weighed_by_loops(correction: Any, diffs: list[float]) -> tuple[list[float], bool]:
    """docs/method.md section 5 for one sequence: a weight per token, and whether the sequence is dropped."""
    tokens, whole = [clipped_exp(d) for d in diffs], clipped_exp(sum(diffs))
    match correction.kind:
        case "none":
            return [1.0] * len(diffs), False
        case "token_tis":
            return [min(rho, correction.cap) for rho in tokens], False
        case "sequence_tis":
            return [min(whole, correction.cap)] * len(diffs), False
        case "token_mask":
            return [rho if correction.lo <= rho <= correction.hi else 0.0 for rho in tokens], False
        case "sequence_mask":
            kept = correction.lo <= whole <= correction.hi
            return [whole if kept else 0.0] * len(diffs), not kept
        case "geometric_mask":
            mean = clipped_exp(sum(diffs) / len(diffs)) if diffs else 1.0
            kept = correction.lo <= mean <= correction.hi
            return [1.0 if kept else 0.0] * len(diffs), not kept
    raise AssertionError(correction.kind)


def weigh(correction: Correction, diffs: list[list[float]]) -> TokenWeights:
    """Of a learner whose log-probs exceed the sampler's by d."""
    flat = np.array([d for sequence in diffs for d in sequence])
    return correction.weigh(flat, np.zeros(len(flat)), [len(sequence) for sequence in diffs])


def sums_of(correction: Correction, diffs: list[list[float]]) -> CorrectionSums:
    return CorrectionSums.of(weigh(correction, diffs), [len(sequence) for sequence in diffs])


def test_the_examples_in_the_docstrings_are_true() -> None:
    assert doctest.testmod(actors.corrections) == (0, 5)


@pytest.mark.parametrize("correction", KINDS, ids=repr)
@given(diffs=sequences)
@settings(max_examples=60)
def test_the_weights_are_those_of_plain_loops(correction: Correction, diffs: list[list[float]]) -> None:
    weights, dropped = weigh(correction, diffs)
    expected = [weighed_by_loops(correction, sequence) for sequence in diffs]
    on_the_edge = [abs(ratio - bound) < 1e-9 * (1 + bound) for ratio, bound in edges(correction, diffs)]
    if not any(on_the_edge):  # of an interval, where rounding decides
        assert dropped.tolist() == [gone for _, gone in expected]
        assert weights.tolist() == pytest.approx([w for one, _ in expected for w in one], rel=1e-9, abs=0)


def edges(correction: Any, diffs: list[list[float]]) -> list[tuple[float, float]]:
    """Every ratio that a mask looks at, with each bound it is compared with."""
    if not hasattr(correction, "lo"):
        return []
    ratios = {
        "token_mask": [clipped_exp(d) for sequence in diffs for d in sequence],
        "sequence_mask": [clipped_exp(sum(sequence)) for sequence in diffs],
        "geometric_mask": [clipped_exp(sum(sequence) / max(1, len(sequence))) for sequence in diffs],
    }[correction.kind]
    return [(ratio, bound) for ratio in ratios for bound in (correction.lo, correction.hi)]


@pytest.mark.parametrize(
    "correction", [TokenTis(cap=1e12), SequenceTis(cap=1e12), TokenMask(hi=1e12, lo=0), SequenceMask(hi=1e12)]
)
def test_differences_beyond_twenty_nats_weigh_as_twenty_do(correction: Correction) -> None:
    assert weigh(correction, [[30.0], [-30.0]]).weights.tolist() == pytest.approx([math.exp(20), math.exp(-20)])


def test_sums_of_differences_are_clipped_as_a_whole_not_token_by_token() -> None:
    assert weigh(SequenceTis(cap=1e12), [[25.0, -25.0, 1.0]]).weights.tolist() == pytest.approx([math.e] * 3)
    assert weigh(SequenceTis(cap=1e12), [[15.0, 15.0]]).weights.tolist() == pytest.approx([math.exp(20)] * 2)


def test_the_sampler_s_log_probs_are_subtracted_in_float64_from_the_learner_s() -> None:
    train, rollout = np.float32([-1.0, -2.0]), np.float32([-1.5, -2.0])
    assert TokenTis().weigh(train, rollout, [2]).weights.tolist() == pytest.approx([math.exp(0.5), 1.0], rel=1e-15)


def test_a_weight_of_zero_keeps_the_sequence_and_a_mask_of_sequences_drops_it() -> None:
    far = [[3.0, 3.0], [0.0]]
    silenced, dropped = weigh(TokenMask(), far), weigh(SequenceMask(), far)
    assert silenced.weights.tolist() == dropped.weights.tolist() == [0.0, 0.0, 1.0]
    assert silenced.dropped.tolist() == [False, False]
    assert dropped.dropped.tolist() == [True, False]
    kept, gone = sums_of(TokenMask(), far), sums_of(SequenceMask(), far)
    assert (kept.tokens_counted, kept.tokens_kept, kept.sequences_kept) == (3, 1, 2)
    assert (gone.tokens_counted, gone.tokens_kept, gone.sequences_kept) == (1, 1, 1)


def test_the_bounds_of_an_interval_belong_to_it() -> None:
    assert weigh(TokenMask(lo=1.0, hi=2.0), [[0.0, -1e-9]]).weights.tolist() == [1.0, 0.0]
    assert weigh(SequenceMask(lo=0.0, hi=1.0), [[0.0], [1e-9]]).dropped.tolist() == [False, True]
    assert weigh(GeometricMask(lo=0.5, hi=1.0), [[0.0], [1e-9]]).dropped.tolist() == [False, True]
    assert weigh(TokenMask(lo=1.0, hi=1.0), [[-1e-9, 0.0, 1e-9]]).weights.tolist() == [0.0, 1.0, 0.0]


@pytest.mark.parametrize("correction", KINDS, ids=repr)
def test_empty_sequences_have_no_weights_and_move_nobody_else_s(correction: Correction) -> None:
    alone = weigh(correction, [[0.2, -0.1], [0.0005]])
    beside_empty = weigh(correction, [[], [0.2, -0.1], [], [0.0005], []])
    assert beside_empty.weights.tolist() == alone.weights.tolist()
    assert beside_empty.dropped.tolist() == [False, alone.dropped[0], False, alone.dropped[1], False]
    for nothing in ([], [[]]):
        weights, dropped = weigh(correction, nothing)
        assert (len(weights), len(dropped)) == (0, len(nothing))


@pytest.mark.parametrize(
    ("block", "said"),
    [
        ({"kind": "token_mask", "lo": 5.0, "hi": 0.5}, "lo at most hi, which is 0.5"),
        ({"kind": "sequence_mask", "lo": 2.5}, "lo at most hi, which is 2"),
        ({"kind": "geometric_mask", "hi": 0.9}, "lo at most hi, which is 0.9"),
        ({"kind": "token_mask", "lo": -0.5}, r"lo[\s\S]*greater than or equal to 0.*input_value=-0.5"),
        ({"kind": "sequence_mask", "hi": -1.0}, r"hi[\s\S]*greater than or equal to 0.*input_value=-1.0"),
        ({"kind": "geometric_mask", "hi": math.inf}, r"hi[\s\S]*finite.*input_value=inf"),
        ({"kind": "token_tis", "cap": 0.0}, r"cap[\s\S]*greater than 0.*input_value=0.0"),
        ({"kind": "sequence_tis", "cap": -2.0}, r"cap[\s\S]*greater than 0.*input_value=-2.0"),
        ({"kind": "token_tis", "lo": 0.1}, r"lo[\s\S]*not permitted"),
        ({"kind": "icepop"}, "icepop"),
    ],
)
def test_what_makes_no_sense_is_refused_by_name_and_value(block: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        TypeAdapter(CorrectionConfig).validate_python(block)


@pytest.mark.parametrize("correction", KINDS, ids=repr)
def test_a_kind_is_read_back_from_its_own_block(correction: Correction) -> None:
    assert TypeAdapter(CorrectionConfig).validate_python(correction.model_dump()) == correction


@pytest.mark.parametrize("correction", [TokenTis(), TokenMask(), SequenceMask()], ids=repr)
@given(diffs=st.lists(st.lists(differences, max_size=3), max_size=40), data=st.data())
@settings(max_examples=50)
def test_the_sums_of_any_split_are_those_of_the_whole(
    correction: Correction, diffs: list[list[float]], data: st.DataObject
) -> None:
    owners = data.draw(st.lists(st.integers(0, 63), min_size=len(diffs), max_size=len(diffs)))
    num_parts = data.draw(st.integers(max(owners, default=0) + 1, 64))
    parts = [[one for one, owner in zip(diffs, owners, strict=True) if owner == part] for part in range(num_parts)]
    merged = CorrectionSums().merge(*(sums_of(correction, part) for part in parts))
    whole = sums_of(correction, diffs)
    exact = ("tokens", "tokens_kept", "tokens_counted", "sequences", "sequences_kept", "weight_max")
    assert [getattr(merged, name) for name in exact] == [getattr(whole, name) for name in exact]
    assert merged.weight == pytest.approx(whole.weight, rel=1e-12)
    assert merged.weight_squared == pytest.approx(whole.weight_squared, rel=1e-12)
    assert merged.metrics() == pytest.approx(whole.metrics(), rel=1e-9)


@given(diffs=sequences.filter(any))
def test_the_metrics_are_those_of_plain_loops(diffs: list[list[float]]) -> None:
    correction = TokenMask(lo=0.4, hi=6.0)
    if any(abs(ratio - bound) < 1e-9 for ratio, bound in edges(correction, diffs)):
        return
    weights = [w for sequence in diffs for w in weighed_by_loops(correction, sequence)[0]]
    expected = {
        "tokens_kept": sum(w > 0 for w in weights) / len(weights),
        "sequences_kept": 1.0,
        "weight_mean": sum(weights) / len(weights),
        "weight_max": max(weights),
    }
    if any(weights):
        expected["ess"] = sum(weights) ** 2 / (len(weights) * sum(w * w for w in weights))
    assert sums_of(correction, diffs).metrics() == pytest.approx(expected, rel=1e-9)


def test_the_metrics_of_dropped_sequences_are_by_hand() -> None:
    metrics = sums_of(SequenceMask(), [[3.0, 3.0], [math.log(1.5)], [0.0]]).metrics()
    assert metrics == pytest.approx(
        {
            "tokens_kept": 2 / 4,
            "sequences_kept": 2 / 3,
            "weight_mean": 2.5 / 4,
            "weight_max": 1.5,
            "ess": 2.5**2 / (4 * 3.25),
        }
    )


def test_nothing_has_no_metrics_and_all_dropped_no_effective_sample_size() -> None:
    assert CorrectionSums().metrics() == sums_of(TokenTis(), [[], []]).metrics() == {}
    everything = sums_of(SequenceMask(), [[9.0], [8.0, 1.0]])
    assert everything.tokens_kept == everything.tokens_counted == everything.sequences_kept == 0
    assert everything.metrics() == {"tokens_kept": 0, "sequences_kept": 0, "weight_mean": 0, "weight_max": 0}


def test_the_effective_sample_size_never_exceeds_one() -> None:
    for weight in np.linspace(0.1, 1.9, 50):
        ess = sums_of(TokenTis(), [[math.log(weight)] * 7]).metrics()["ess"]
        assert ess == pytest.approx(1.0) and ess <= 1.0
