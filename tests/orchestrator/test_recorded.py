"""Recorded log-probs from JSON lines and Parquet: both agree with the vectors, and every mistake has its place."""

import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from orchestrator import recorded
from orchestrator.config_errors import ConfigError
from orchestrator.recorded import COLUMNS, read_mismatch

VECTORS = sorted((Path(__file__).parents[1] / "data" / "vectors").glob("mismatch_*.json"))
Rows = Sequence[dict[str, Any]]
Writer = Callable[[Path, Rows], Path]


def write_json_lines(folder: Path, rows: Rows) -> Path:
    path = folder / "rollouts.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def write_parquet(folder: Path, rows: Rows, element: pa.DataType | None = None) -> Path:
    path = folder / "rollouts.parquet"
    names = list(dict.fromkeys(key for row in rows for key in row)) or list(COLUMNS)
    kind = pa.list_(element or pa.float64())
    columns = {name: pa.array([row.get(name) for row in rows], kind) for name in names}
    pq.write_table(pa.table(columns), path)
    return path


def rows_of(*sequences: tuple[list[Any] | None, list[Any] | None]) -> Rows:
    return [dict(zip(COLUMNS, sequence, strict=True)) for sequence in sequences]


def mistake_in(path: Path) -> str:
    """The message about a file, without its name; always one line."""
    with pytest.raises(ConfigError) as raised:
        read_mismatch(str(path))
    message = str(raised.value)
    assert "\n" not in message
    return message.removeprefix(f"{path}: ")


GOOD = ([-0.5, -1.0], [-0.25, -1.5])
BOTH = pytest.mark.parametrize("write", [write_json_lines, write_parquet])


@BOTH
@pytest.mark.parametrize("vector", VECTORS, ids=lambda path: path.stem)
def test_a_file_gives_the_metrics_of_the_vector(tmp_path: Path, write: Writer, vector: Path) -> None:
    content = json.loads(vector.read_text())
    pairs = zip(content["train_logprobs"], content["rollout_logprobs"], strict=True)
    metrics = read_mismatch(str(write(tmp_path, rows_of(*pairs)))).metrics()
    assert metrics == pytest.approx(content["expected"], rel=1e-6, abs=0)


def test_there_are_vectors_to_compare_with() -> None:
    assert len(VECTORS) == 4


@pytest.mark.parametrize("element", [pa.float16(), pa.float32(), pa.float64()])
def test_parquet_columns_may_hold_any_float_type(tmp_path: Path, element: pa.DataType) -> None:
    rows = rows_of(([np.float16(-0.5)], [np.float16(-0.25)]))
    metrics = read_mismatch(str(write_parquet(tmp_path, rows, element))).metrics()
    assert metrics["kl"] == 0.25


@pytest.mark.parametrize("kind", [pa.large_list(pa.float32()), pa.list_(pa.float32(), 2)], ids=str)
def test_other_lists_are_lists_too(tmp_path: Path, kind: pa.DataType) -> None:
    path = tmp_path / "rollouts.parquet"
    pq.write_table(pa.table({name: pa.array([[-0.5, -1.0], [-2.0, -3.0]], kind) for name in COLUMNS}), path)
    measured = read_mismatch(str(path)).metrics()
    assert (measured["tokens"], measured["train_log_ppl"]) == (4, (0.75 + 2.5) / 2)


@pytest.mark.parametrize("rows_at_once", [1, 2, 100])
def test_blank_lines_are_passed_over_and_count(
    tmp_path: Path, rows_at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recorded, "ROWS_AT_ONCE", rows_at_once)
    path = write_json_lines(tmp_path, rows_of(GOOD, GOOD))
    whole = read_mismatch(str(path)).metrics()
    first, second = path.read_text().splitlines()
    path.write_text(f"\n{first}\n \t\n\n{second}\n\n")
    assert read_mismatch(str(path)).metrics() == whole
    path.write_text(f"\n{first}\n\n{second}\n" + '{"train_logprobs": [-1], "rollout_logprobs": [NaN]}\n')
    assert mistake_in(path) == "line 5: rollout_logprobs[0]: got nan, expected a finite number"


@BOTH
def test_a_suffix_counts_in_any_case(tmp_path: Path, write: Writer) -> None:
    path = write(tmp_path, rows_of(GOOD))
    other = path.rename(path.with_suffix(path.suffix.upper()))
    assert read_mismatch(str(other)).metrics()["tokens"] == 2


def test_whole_numbers_in_json_are_numbers(tmp_path: Path) -> None:
    assert read_mismatch(str(write_json_lines(tmp_path, rows_of(([-1], [-2]))))).metrics()["kl"] == -1.0


@BOTH
def test_other_columns_and_empty_sequences_do_no_harm(tmp_path: Path, write: Writer) -> None:
    rows = [{**row, "rewards": [1.0]} for row in rows_of(([], []), GOOD, ([], []))]
    metrics = read_mismatch(str(write(tmp_path, rows))).metrics()
    assert (metrics["sequences"], metrics["tokens"]) == (1, 2)


@BOTH
@pytest.mark.parametrize("rows_at_once", [1, 2, 5, 100])
def test_a_file_read_in_pieces_is_the_same_file(
    tmp_path: Path, write: Writer, rows_at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(0)
    pairs = [((-rng.random(size)).tolist(), (-rng.random(size)).tolist()) for size in (3, 1, 0, 7, 2, 5)]
    path = write(tmp_path, rows_of(*pairs))
    whole = read_mismatch(str(path)).metrics()
    monkeypatch.setattr(recorded, "ROWS_AT_ONCE", rows_at_once)
    assert read_mismatch(str(path)).metrics() == pytest.approx(whole, rel=1e-12)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize(("write", "place"), [(write_json_lines, "line 4"), (write_parquet, "row 3")])
def test_a_logprob_that_is_not_finite_is_named_by_line_or_row_and_index(
    tmp_path: Path, write: Writer, place: str, value: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recorded, "ROWS_AT_ONCE", 2)
    path = write(tmp_path, rows_of(GOOD, ([], []), GOOD, ([-0.5, -1.0], [-0.25, value]), GOOD))
    assert mistake_in(path) == f"{place}: rollout_logprobs[1]: got {value}, expected a finite number"


@pytest.mark.parametrize(("write", "place"), [(write_json_lines, "line 2"), (write_parquet, "row 1")])
def test_lists_of_unequal_length_are_named(tmp_path: Path, write: Writer, place: str) -> None:
    path = write(tmp_path, rows_of(GOOD, ([-0.5, -1.0], [-0.25])))
    assert mistake_in(path) == (
        f"{place}: rollout_logprobs: got '1 values', expected as many as train_logprobs has (2)"
    )


@pytest.mark.parametrize(("write", "place"), [(write_json_lines, "line 2"), (write_parquet, "row 1")])
@pytest.mark.parametrize("column", COLUMNS)
def test_a_null_in_the_place_of_a_list_is_named(tmp_path: Path, write: Writer, place: str, column: str) -> None:
    path = write(tmp_path, [*rows_of(GOOD), {**rows_of(GOOD)[0], column: None}])
    text = mistake_in(path)
    assert text.startswith(f"{place}: {column}: ")
    assert text.endswith("expected a list of numbers")


@pytest.mark.parametrize(("write", "place"), [(write_json_lines, "line 2"), (write_parquet, "row 1")])
def test_a_null_inside_a_list_is_named(tmp_path: Path, write: Writer, place: str) -> None:
    text = mistake_in(write(tmp_path, rows_of(GOOD, ([-0.5, None], [-0.5, -0.5]))))
    assert text.startswith(f"{place}: train_logprobs[1]: ")
    assert text.endswith("expected a finite number")


@BOTH
def test_a_missing_column_is_named_with_those_there_are(tmp_path: Path, write: Writer) -> None:
    text = mistake_in(write(tmp_path, [{"train_logprobs": [-0.5], "logprobs": [-0.5]}]))
    assert "rollout_logprobs: expected " in text
    assert "logprobs" in text and "train_logprobs" in text


@pytest.mark.parametrize("item", ["-0.5", True, [1.0], {}])
def test_an_item_that_is_no_number_is_named_with_its_index(tmp_path: Path, item: Any) -> None:
    text = mistake_in(write_json_lines(tmp_path, rows_of(GOOD, ([-0.5, item], [-0.5, -0.5]))))
    assert text.startswith("line 2: train_logprobs[1]: got ")
    assert repr(item) in text


def test_a_number_too_large_for_a_float_is_named(tmp_path: Path) -> None:
    text = mistake_in(write_json_lines(tmp_path, rows_of(GOOD, ([-(10**400)], [-0.5]))))
    assert text.startswith("line 2: train_logprobs")


@pytest.mark.parametrize("element", [pa.int64(), pa.string(), pa.bool_()])
def test_parquet_lists_of_another_type_are_refused_with_the_type(tmp_path: Path, element: pa.DataType) -> None:
    values: dict[pa.DataType, list[Any]] = {pa.int64(): [-1], pa.string(): ["-1"], pa.bool_(): [True]}
    text = mistake_in(write_parquet(tmp_path, rows_of((values[element], values[element])), element))
    assert text.startswith("train_logprobs: got 'list<")
    assert str(element) in text
    assert text.endswith("expected a list column of floating-point numbers")


def test_a_parquet_column_without_lists_is_refused_with_its_type(tmp_path: Path) -> None:
    path = tmp_path / "rollouts.parquet"
    pq.write_table(pa.table({name: pa.array([-0.5]) for name in COLUMNS}), path)
    assert mistake_in(path).startswith("train_logprobs: got 'double', expected a list column")


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("{", "line 2: got '{', expected a JSON object ("),
        ("[1]", "line 2: got [1], expected a JSON object"),
        ("3", "line 2: got 3, expected a JSON object"),
        ('{"train_logprobs": [-0.5], "rollout_logprobs": -0.5}', "line 2: rollout_logprobs: got -0.5, expected a list"),
    ],
)
def test_a_line_that_is_no_object_of_lists_is_named(tmp_path: Path, line: str, said: str) -> None:
    path = write_json_lines(tmp_path, rows_of(GOOD))
    path.write_text(path.read_text() + line + "\n")
    assert mistake_in(path).startswith(said)


def test_bytes_that_are_no_text_are_a_mistake_in_the_file(tmp_path: Path) -> None:
    path = write_json_lines(tmp_path, rows_of(GOOD))
    path.write_bytes(path.read_bytes() + b'{"train_logprobs": "\xff"}\n')
    assert "invalid unicode" in mistake_in(path)


@BOTH
@pytest.mark.parametrize("rows", [[], rows_of(([], []))])
def test_a_file_without_a_single_token_is_refused(tmp_path: Path, write: Writer, rows: Rows) -> None:
    assert mistake_in(write(tmp_path, rows)) == "expected at least one sequence with at least one token"


@pytest.mark.parametrize("content", [b"", b"PAR1", b"not parquet at all", b"\x00" * 64])
def test_what_is_no_parquet_file_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "rollouts.parquet"
    path.write_bytes(content)
    assert mistake_in(path).startswith("expected a Parquet file (")


def test_a_parquet_file_that_was_damaged_inside_is_refused(tmp_path: Path) -> None:
    path = write_parquet(tmp_path, rows_of(*[GOOD] * 500))
    content = bytearray(path.read_bytes())
    content[4:200] = b"\xff" * 196
    path.write_bytes(bytes(content))
    assert "Parquet" in mistake_in(path)


@pytest.mark.parametrize("name", ["rollouts.csv", "rollouts", "rollouts.json"])
def test_another_kind_of_file_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("x")
    assert mistake_in(tmp_path / name) == "expected a .jsonl or .parquet file"


@pytest.mark.parametrize("name", ["no.jsonl", "no.parquet", "folder.jsonl"])
def test_a_missing_file_and_a_folder_are_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / "folder.jsonl").mkdir()
    assert mistake_in(tmp_path / name).startswith("expected a readable file")
