"""Rows of recorded rollouts: what goes into a table comes out of it, and `evenkeel metrics` reads it as it is."""

from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.statistics import MismatchSums
from orchestrator.config_errors import ConfigError
from orchestrator.recorded import read_mismatch
from orchestrator.rollout_records import SCHEMA, VERSION, VERSION_KEY, RolloutRow, table_of

ROW = RolloutRow(
    step=40,
    split="train",
    problem=812,
    sample=3,
    source="arithmetic",
    prompt="347+285=",
    response="#632",
    answer="632",
    extracted="632",
    prompt_token_ids=np.array([5, 14], np.int32),
    response_token_ids=np.array([11, 9, 2], np.int32),
    tokens=("#", "632", "<end>"),
    train_logprobs=np.array([-0.5, -1.0, -0.25], np.float32),
    rollout_logprobs=np.array([-0.25, -1.5, -0.25], np.float32),
    score=1.0,
    reward=0.95,
    advantage=0.7,
    error=None,
    finished=True,
    weight_version=40,
)


def plain(row: RolloutRow) -> dict[str, Any]:
    """A row as Arrow gives it back."""
    values = {field.name: getattr(row, field.name) for field in fields(row)}
    lists = (np.ndarray, tuple)
    return {name: list(value) if isinstance(value, lists) else value for name, value in values.items()}


def of_length(length: int, **values: Any) -> RolloutRow:
    logprobs = np.zeros(length, np.float32)
    tokens = tuple("x" for _ in range(length))
    ids = np.arange(length, dtype=np.int32)
    return replace(
        ROW, response_token_ids=ids, tokens=tokens, train_logprobs=logprobs, rollout_logprobs=logprobs, **values
    )


def test_the_schema_has_the_fields_of_a_row_in_their_order_and_a_version() -> None:
    assert SCHEMA.names == [field.name for field in fields(RolloutRow)]
    assert SCHEMA.metadata == {VERSION_KEY.encode(): VERSION.encode()}


def test_a_row_comes_out_of_a_file_as_it_went_in(tmp_path: Path) -> None:
    rows = [ROW, of_length(0), replace(ROW, train_logprobs=None, advantage=None, extracted=None, error="no verdict")]
    pq.write_table(table_of(rows), tmp_path / "r.parquet")
    table = pq.read_table(tmp_path / "r.parquet")
    assert table.schema.equals(SCHEMA)
    assert table.schema.metadata == SCHEMA.metadata
    assert table.to_pylist() == [plain(row) for row in rows]


@given(
    st.lists(st.tuples(st.integers(0, 4), st.booleans(), st.text(max_size=3), st.none() | st.floats(-9, 9)), max_size=5)
)
def test_any_rows_come_out_of_a_table_as_they_went_in(shapes: list[tuple[int, bool, str, float | None]]) -> None:
    rows = [
        replace(of_length(length, prompt=text, advantage=advantage), **({} if train else {"train_logprobs": None}))
        for length, train, text, advantage in shapes
    ]
    assert table_of(rows).to_pylist() == [plain(row) for row in rows]


def test_no_rows_are_an_empty_table() -> None:
    assert table_of([]).equals(SCHEMA.empty_table())


def test_half_a_surrogate_pair_becomes_a_question_mark() -> None:
    row = replace(ROW, prompt="a\ud83d", tokens=("\ud83d", "b", "c"))
    table = table_of([row, replace(ROW, extracted=None)])
    assert table.column("prompt").to_pylist() == ["a?", ROW.prompt]
    assert table.column("tokens")[0].as_py() == ["?", "b", "c"]
    assert table.column("extracted").to_pylist() == ["632", None]


@pytest.mark.parametrize(
    ("name", "values"),
    [("tokens", ("#",)), ("train_logprobs", np.zeros(1, np.float32)), ("rollout_logprobs", np.zeros(1, np.float32))],
)
def test_a_row_whose_lists_do_not_fit_together_is_refused(name: str, values: Any) -> None:
    with pytest.raises(
        ValueError, match=rf"row 1: {name}: got 1 values, expected as many as response_token_ids has \(3"
    ):
        table_of([ROW, replace(ROW, **{name: values})])


def test_a_file_is_one_that_the_metrics_are_computed_from(tmp_path: Path) -> None:
    path = tmp_path / "r.parquet"
    pq.write_table(table_of([ROW, of_length(0), ROW]), path)
    train, rollout = (np.tile(values, 2) for values in (ROW.train_logprobs, ROW.rollout_logprobs))
    assert read_mismatch(str(path)) == MismatchSums.from_logprobs(train, rollout, [3, 0, 3])


def test_a_file_of_an_evaluation_is_refused_in_one_line(tmp_path: Path) -> None:
    path = tmp_path / "r.parquet"
    pq.write_table(table_of([replace(ROW, train_logprobs=None, advantage=None)] * 2), path)
    assert pq.read_schema(path).field("train_logprobs").type == pa.list_(pa.float32())
    with pytest.raises(ConfigError) as raised:
        read_mismatch(str(path))
    assert str(raised.value) == f"{path}: row 0: train_logprobs: got 'null', expected a list of numbers"
