"""Parquet: all its types of text and number, only the columns that are needed, and files that are none or damaged."""

from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from orchestrator.config_errors import ConfigError
from orchestrator.problems.blocks import Cells
from orchestrator.problems.config import ColumnsConfig
from orchestrator.problems.parquet import ParquetRows
from orchestrator.problems.rows import canonical

MESSAGE = {"role": "user", "content": "1+1="}


def write(folder: Path, table: pa.Table, rows_per_group: int = 2) -> str:
    path = folder / "train.parquet"
    pq.write_table(table, path, row_group_size=rows_per_group)
    return str(path)


def cells_of(path: str, **keys: Any) -> list[Cells]:
    blocks = ParquetRows.open(path, ColumnsConfig(**keys)).blocks()
    return [block.cells(row) for block in blocks for row in range(len(block))]


def mistake_in(path: str) -> str:
    with pytest.raises(ConfigError) as raised:
        cells_of(path)
    assert "\n" not in str(raised.value)
    return str(raised.value).removeprefix(f"{path}: ")


@pytest.mark.parametrize(
    "kind", [pa.string(), pa.large_string(), pa.string_view(), pa.dictionary(pa.int32(), pa.string())]
)
def test_text_may_be_of_any_text_type_in_row_groups_that_are_put_together(tmp_path: Path, kind: pa.DataType) -> None:
    texts = pa.array(["a", "b", "c", "a", "d"]).cast(kind)
    rows = cells_of(write(tmp_path, pa.table({"prompt": texts, "answer": texts, "data_source": texts})))
    assert [(row.prompt, row.answer, row.source) for row in rows] == [(text, text, text) for text in "abcad"]


@pytest.mark.parametrize("kind", [pa.list_, pa.large_list])
def test_messages_may_be_in_lists_of_any_kind(tmp_path: Path, kind: Any) -> None:
    item = pa.struct({"role": pa.string(), "content": pa.string()})
    table = pa.table({"prompt": pa.array([[MESSAGE], [MESSAGE, MESSAGE]], kind(item)), "answer": ["2", "2"]})
    assert [row.prompt for row in cells_of(write(tmp_path, table))] == [[MESSAGE], [MESSAGE, MESSAGE]]


@pytest.mark.parametrize(
    ("value", "kind", "text"),
    [
        (18, pa.int8(), "18"),
        (2**63, pa.uint64(), "9223372036854775808"),
        (0.1, pa.float64(), "0.1"),
        (0.1, pa.float32(), "0.1"),
        (0.25, pa.float16(), "0.25"),
        (Decimal("3.50"), pa.decimal128(5, 2), "3.5"),
        (True, pa.bool_(), "true"),
    ],
)
def test_a_number_is_the_text_that_was_meant_by_it(tmp_path: Path, value: Any, kind: pa.DataType, text: str) -> None:
    plain = pa.table({"prompt": ["a", "b"], "answer": pa.array([value, None], kind)})
    assert [canonical(row.answer) for row in cells_of(write(tmp_path, plain))] == [text, ""]
    structs = pa.array([{"ground_truth": value}, None], pa.struct({"ground_truth": kind}))
    nested = pa.table({"prompt": ["a", "b"], "reward_model": structs})
    assert [canonical(row.answer) for row in cells_of(write(tmp_path, nested))] == [text, ""]


def test_columns_that_are_not_needed_are_not_read(tmp_path: Path) -> None:
    rows = [{"image": "noise", "prompt": "a", "reward_model": {"style": "noise", "ground_truth": "2"}}] * 3
    path = write(tmp_path, pa.Table.from_pylist(rows))
    content = bytearray(Path(path).read_bytes())
    groups = pq.read_metadata(path)
    for group in (groups.row_group(number) for number in range(groups.num_row_groups)):
        for column in (group.column(index) for index in range(group.num_columns)):
            if column.path_in_schema in ("image", "reward_model.style"):
                start, size = column.dictionary_page_offset, column.total_compressed_size
                content[start : start + size] = b"\xff" * size
    Path(path).write_bytes(bytes(content))
    for name in ("image", "reward_model.style"):
        with pytest.raises(OSError):
            pq.ParquetFile(path).read([name])
    assert [row.answer for row in cells_of(path)] == ["2"] * 3


@pytest.mark.parametrize("names", [["prompt", "answer", "answer"], ["prompt", "answer", "x", "x"]])
def test_columns_of_the_same_name_are_refused(tmp_path: Path, names: list[str]) -> None:
    path = write(tmp_path, pa.Table.from_arrays([pa.array(["2"])] * len(names), names))
    assert mistake_in(path) == f"{names[-1]}: expected one column of that name; there are several"


def test_text_that_is_no_utf_8_is_named(tmp_path: Path) -> None:
    bad = pa.Array.from_buffers(pa.string(), 2, pa.array([b"ok", b"\xff"], pa.binary()).buffers())
    path = write(tmp_path, pa.table({"prompt": bad, "answer": ["2", "2"]}))
    assert mistake_in(path) == (
        "row 1: expected readable values ('utf-8' codec can't decode byte 0xff in position 0: invalid start byte)"
    )


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"", "Parquet file size is 0 bytes"),
        (b"PAR1", "Parquet file size is 4 bytes, smaller than the minimum file footer (8 bytes)"),
        (
            b'{"prompt": "1+1=", "answer": "2"}\n',
            "Parquet magic bytes not found in footer. Either the file is corrupted or this is not a parquet file.",
        ),
    ],
)
def test_a_file_that_is_not_parquet_is_refused(tmp_path: Path, content: bytes, why: str) -> None:
    path = tmp_path / "train.parquet"
    path.write_bytes(content)
    assert mistake_in(str(path)) == f"expected an intact Parquet file ({why})"


def test_a_file_that_was_damaged_inside_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path, pa.table({"prompt": ["a"] * 50, "answer": ["2"] * 50}), rows_per_group=50)
    content = bytearray(Path(path).read_bytes())
    content[4:60] = b"\xff" * 56
    Path(path).write_bytes(bytes(content))
    assert mistake_in(path).startswith("expected an intact Parquet file (")


def test_a_file_that_says_it_has_more_rows_than_it_has_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path, pa.table({"prompt": ["a"] * 50, "answer": ["2"] * 50}), rows_per_group=50)
    content = bytearray(Path(path).read_bytes())
    content[content.rindex(b"\x16\x64") + 1] += 2  # the row group's 50 rows, written twice as large, and now 51
    Path(path).write_bytes(bytes(content))
    assert pq.read_metadata(path).row_group(0).num_rows == 51
    assert mistake_in(path) == "expected an intact Parquet file (it has fewer rows than it says)"


def test_a_file_that_was_cut_off_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path, pa.table({"prompt": ["a"], "answer": ["2"]}))
    Path(path).write_bytes(Path(path).read_bytes()[:-10])
    assert mistake_in(path).startswith("expected an intact Parquet file (Parquet magic bytes not found in footer.")
