"""Inspection of recorded rollouts: counted by hand on small files, and in agreement with the metrics on any."""

import json
import math
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator import recorded
from orchestrator.config_errors import ConfigError
from orchestrator.inspection import BinSums, Inspection
from orchestrator.recorded import read_mismatch

Pair = tuple[list[float], list[float]]  # under learner and sampler


def write(path: Path, pairs: Sequence[Pair], **others: list[Any]) -> str:
    columns: dict[str, Any] = {
        name: pa.array([pair[i] for pair in pairs], pa.list_(pa.float64()))
        for i, name in enumerate(("train_logprobs", "rollout_logprobs"))
    }
    pq.write_table(pa.table({**columns, **others}), path)
    return str(path)


def write_json_lines(path: Path, pairs: Sequence[Pair], **others: list[Any]) -> str:
    rows = [
        {"train_logprobs": train, "rollout_logprobs": rollout, **{name: column[i] for name, column in others.items()}}
        for i, (train, rollout) in enumerate(pairs)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


LOG = math.log
# d of the first: 0, -log 2, +log 2; of the second: -log 4; the third is empty.
PAIRS: list[Pair] = [
    ([LOG(0.5), LOG(0.25), LOG(0.5)], [LOG(0.5), LOG(0.5), LOG(0.25)]),
    ([LOG(0.2)], [LOG(0.8)]),
    ([], []),
]
TEXTS = {
    "step": [3, 4, 4],
    "prompt": ["why?", "how?", ""],
    "tokens": [["a", "b", "c"], ["d"], []],
    "score": [1.0, 0.0, 0.0],
}


def test_a_small_file_is_counted_by_hand(tmp_path: Path) -> None:
    found = Inspection.read(write(tmp_path / "r.parquet", PAIRS, **TEXTS))
    assert (found.totals.sequences, found.totals.tokens, found.steps) == (2, 4, (3, 4))
    assert list(found.by_position) == ["0", "1-3"]
    first, later = found.by_position.values()
    assert (first.tokens, later.tokens) == (2, 2)
    assert first.diff == pytest.approx(-LOG(4))
    assert first.abs_diff == first.abs_diff_max == pytest.approx(LOG(4))
    assert first.prob_abs_diff == pytest.approx(0.6)
    assert (later.diff, later.abs_diff, later.prob_abs_diff) == pytest.approx((0, 2 * LOG(2), 0.5))
    counts = {label: sums.tokens for label, sums in found.by_probability.items() if sums.tokens}
    assert counts == {"0.1-0.5": 1, "0.5-0.9": 3}
    assert found.by_probability["0.1-0.5"].diff == pytest.approx(LOG(2))
    assert found.by_probability["<1e-4"] == BinSums()


def test_the_worst_come_in_order_with_what_is_known_of_them(tmp_path: Path) -> None:
    found = Inspection.read(write(tmp_path / "r.parquet", PAIRS, **TEXTS))
    (worst,) = found.worst_by_mean  # the first one's differences cancel
    assert (worst.place, worst.prompt, worst.tokens) == ("row 1", "how?", ("d",))
    assert worst.facts == {"step": 4, "score": 0.0}
    assert (worst.mean_diff, worst.sum_diff) == pytest.approx((-LOG(4), -LOG(4)))
    assert [(token.place, token.position) for token in found.worst_tokens] == [("row 1", 0), ("row 0", 1), ("row 0", 2)]
    second = found.worst_tokens[1]
    assert (second.before, second.token, second.after) == ("a", "b", "c")
    assert (math.exp(second.train_logprob), math.exp(second.rollout_logprob)) == pytest.approx((0.25, 0.5))
    assert second.diff == pytest.approx(-LOG(2))


def test_mean_and_sum_rank_sequences_differently_and_only_so_many_are_kept(tmp_path: Path) -> None:
    pairs = [([-1.0] * length, [-1.0 - diff] * length) for length, diff in [(1, 0.5), (8, 0.25), (2, 0.125), (2, 0.25)]]
    found = Inspection.read(write(tmp_path / "r.parquet", pairs), keep=3)
    assert [sequence.place for sequence in found.worst_by_mean] == ["row 0", "row 1", "row 3"]
    assert [sequence.place for sequence in found.worst_by_sum] == ["row 1", "row 0", "row 3"]
    assert [(token.place, token.position) for token in found.worst_tokens] == [("row 0", 0), ("row 1", 0), ("row 1", 1)]


def test_the_borders_of_the_bins_belong_to_the_upper_one(tmp_path: Path) -> None:
    values = [0.0, LOG(0.99), LOG(0.5), LOG(0.9) + 1e-9, LOG(0.9) - 1e-9, LOG(1e-4) - 1e-9, LOG(1e-4) + 1e-9]
    values += [LOG(1e-3) + 1e-9, LOG(0.05), LOG(0.2), *[LOG(0.01) + 1e-9] * 7]
    found = Inspection.read(write(tmp_path / "r.parquet", [(values, values)]))
    assert {label: sums.tokens for label, sums in found.by_position.items()} == {
        "0": 1,
        "1-3": 3,
        "4-15": 12,
        "16-63": 1,
    }
    assert {label: sums.tokens for label, sums in found.by_probability.items()} == {
        **{"<1e-4": 1, "1e-4-1e-3": 1, "1e-3-0.01": 1, "0.01-0.1": 8},
        **{"0.1-0.5": 1, "0.5-0.9": 2, "0.9-0.99": 1, ">=0.99": 2},
    }
    assert found.worst_tokens == found.worst_by_mean == found.worst_by_sum == ()


def test_json_lines_with_the_same_keys_are_the_same_but_for_the_places(tmp_path: Path) -> None:
    found = Inspection.read(write_json_lines(tmp_path / "r.jsonl", PAIRS, **TEXTS))
    same = Inspection.read(write(tmp_path / "r.parquet", PAIRS, **TEXTS))
    assert (found.by_position, found.by_probability, found.steps) == (same.by_position, same.by_probability, same.steps)
    assert [token.place for token in found.worst_tokens] == ["line 2", "line 1", "line 1"]
    assert [token.token for token in found.worst_tokens] == ["d", "b", "c"]


@pytest.mark.parametrize(
    ("others", "tokens"),
    [
        ({}, (" #0",)),
        ({"response_token_ids": [[5, 6, 7], [8], []]}, (" 8",)),
        ({"tokens": [["a"], ["d", "e"], []], "response_token_ids": [[5, 6, 7], [8], []]}, (" 8",)),
        ({"tokens": ["abc", "d", ""], "prompt": [["chat"]] * 3, "step": [["x"]] * 3, "score": [[1.0]] * 3}, (" #0",)),
    ],
)
def test_columns_that_are_missing_or_do_not_fit_are_left_out(
    tmp_path: Path, others: dict[str, list[Any]], tokens: tuple[str, ...]
) -> None:
    for path in (
        write(tmp_path / "r.parquet", PAIRS, **others),
        write_json_lines(tmp_path / "r.jsonl", PAIRS, **others),
    ):
        found = Inspection.read(path)
        assert found.worst_by_mean[0].tokens == tokens
        assert (found.worst_by_mean[0].prompt, found.worst_by_mean[0].facts, found.steps) == (None, {}, None)


logprobs = st.floats(-12, 0)
sequences = st.lists(st.tuples(logprobs, logprobs), max_size=20)


@given(st.lists(sequences, min_size=1, max_size=12).filter(any), st.integers(1, 4), st.integers(1, 40))
def test_any_file_agrees_with_the_metrics_in_whatever_pieces_it_is_read(
    pairs: list[list[tuple[float, float]]], rows_at_once: int, tokens_at_once: int
) -> None:
    with TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        path = write(Path(folder) / "r.parquet", [([a for a, _ in pair], [b for _, b in pair]) for pair in pairs])
        totals = read_mismatch(path)
        patch.setattr(recorded, "ROWS_AT_ONCE", rows_at_once)
        patch.setattr(recorded, "TOKENS_AT_ONCE", tokens_at_once)
        found = Inspection.read(path, keep=5)
    for bins in (found.by_position, found.by_probability):
        whole = BinSums().merge(*bins.values())
        assert (whole.tokens, whole.abs_diff_max) == (totals.tokens, totals.token_abs_diff_max)
        assert (-whole.diff, whole.abs_diff, whole.prob_abs_diff) == pytest.approx(
            (totals.kl, totals.token_abs_diff, totals.prob_abs_diff), rel=1e-9, abs=1e-9
        )
    sizes = sorted((abs(a - b) for pair in pairs for a, b in pair if a != b), reverse=True)
    assert [abs(token.diff) for token in found.worst_tokens] == sizes[:5]
    means = sorted((abs(np.mean([a - b for a, b in pair])) for pair in pairs if pair), reverse=True)
    means = [mean for mean in means if mean > 0]
    assert [abs(sequence.mean_diff) for sequence in found.worst_by_mean] == pytest.approx(
        means[:5], rel=1e-9, abs=1e-12
    )
    if found.worst_by_mean:
        extremes = max(abs(totals.log_ppl_diff_max), abs(totals.log_ppl_diff_min))
        assert abs(found.worst_by_mean[0].mean_diff) == pytest.approx(extremes, rel=1e-9, abs=1e-12)


@pytest.mark.parametrize(
    ("pairs", "said"),
    [
        ([([-0.5], [-0.5]), ([-0.5], [-0.5, -1.0])], "row 1: rollout_logprobs: got '2 values', expected as many as"),
        ([([-0.5], [-0.5]), ([math.nan], [-0.5])], "row 1: train_logprobs[0]: got nan, expected a finite number"),
        ([(None, [-0.5])], "row 0: train_logprobs: got 'null', expected a list of numbers"),  # as of an evaluation
        ([], "expected at least one sequence with at least one token"),
    ],
)
def test_a_mistake_in_the_file_has_its_place(tmp_path: Path, pairs: list[Pair], said: str) -> None:
    path = write(tmp_path / "r.parquet", pairs)
    with pytest.raises(ConfigError) as raised:
        Inspection.read(path)
    assert str(raised.value).removeprefix(f"{path}: ").startswith(said)


def test_memory_does_not_grow_with_the_file(tmp_path: Path) -> None:
    path, rng = tmp_path / "r.parquet", np.random.default_rng(0)
    values = pa.FixedSizeListArray.from_arrays(pa.array(rng.random(400_000)), 1000).cast(pa.list_(pa.float64()))
    pq.write_table(pa.table(dict.fromkeys(recorded.COLUMNS, values)), path, row_group_size=10)
    del values
    before = pa.total_allocated_bytes()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(recorded, "ROWS_AT_ONCE", 10)
        held = [pa.total_allocated_bytes() - before for _ in recorded.read_pieces(str(path))]
    assert max(held) < path.stat().st_size / 5
