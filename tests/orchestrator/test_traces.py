"""Recorded runs from every source give the same trace, and every mistake in one has its place."""

import csv
import json
import math
import random
from collections.abc import Callable, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from orchestrator.config_errors import ConfigError
from orchestrator.records import StepRecord
from orchestrator.traces import Renames, Trace, read_trace
from orchestrator.tracking.store import MlflowStore

LENGTH = "response/length_mean"
Rows = list[dict[str, Any]]


def write_json_lines(rows: Rows, folder: Path) -> Path:
    path = folder / "trace.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def write_csv(rows: Rows, folder: Path) -> Path:
    path = folder / "trace.csv"
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=list(dict.fromkeys(key for row in rows for key in row)))
        writer.writeheader()
        writer.writerows(rows)
    return path


def write_parquet(rows: Rows, folder: Path) -> Path:
    path = folder / "trace.parquet"
    names = dict.fromkeys(key for row in rows for key in row)
    pq.write_table(pa.table({name: pa.array([row.get(name) for row in rows]) for name in names}), path)
    return path


Write = Callable[[Rows, Path], Path]
EVERY_FORMAT = pytest.mark.parametrize("write", [write_json_lines, write_csv, write_parquet])


def read(path: Path | str, *signals: str, maps: Sequence[str] = (), uri: str | None = None) -> Trace:
    return read_trace(str(path), signals, Renames.parse(maps), uri, Path("no runs"))


def mistake(path: Path | str, *signals: str, maps: Sequence[str] = (), uri: str | None = None) -> str:
    """The message about a source, without its name; always one line."""
    with pytest.raises(ConfigError) as raised:
        read(path, *signals, maps=maps, uri=uri)
    message = str(raised.value)
    assert "\n" not in message
    return message.removeprefix(f"{path}: ")


def written(folder: Path, name: str, text: str) -> Path:
    (folder / name).write_text(text)
    return folder / name


# What is read.


@EVERY_FORMAT
def test_the_steps_and_the_signals_are_read_as_they_stand(write: Write, tmp_path: Path) -> None:
    rows: Rows = [
        {"step": 3, LENGTH: 0.1 + 0.2, "gradient/norm": 2, "note": "warm"},
        {"step": 4, LENGTH: None, "gradient/norm": 3, "note": 'a "quoted", text'},
        {"step": 90, LENGTH: 1e300, "gradient/norm": 4, "note": None},
    ]
    trace = read(write(rows, tmp_path), LENGTH, "gradient/norm")
    assert trace.steps.tolist() == [3, 4, 90]
    np.testing.assert_array_equal(trace.columns[LENGTH], [0.1 + 0.2, math.nan, 1e300])
    assert [step for step, _ in trace.rows()] == [3, 4, 90]
    assert [metrics["gradient/norm"] for _, metrics in trace.rows()] == [2.0, 3.0, 4.0]


@EVERY_FORMAT
def test_what_is_not_finite_counts_as_missing(write: Write, tmp_path: Path) -> None:
    values = [1.0, math.nan, math.inf, -math.inf, None]
    trace = read(write([{"step": i, "x": value} for i, value in enumerate(values)], tmp_path), "x")
    np.testing.assert_array_equal(trace.columns["x"], [1.0] + [math.nan] * 4)


@EVERY_FORMAT
def test_random_numbers_come_back_bit_for_bit(write: Write, tmp_path: Path) -> None:
    draw = random.Random(0)
    values = [draw.uniform(-1, 1) * 10 ** draw.randint(-300, 300) for _ in range(2000)]
    trace = read(write([{"step": i, "x": value} for i, value in enumerate(values)], tmp_path), "x")
    assert trace.columns["x"].tolist() == values


@EVERY_FORMAT
def test_a_step_may_be_written_as_a_whole_float(write: Write, tmp_path: Path) -> None:
    assert read(write([{"step": 0.0}, {"step": 7.0}], tmp_path)).steps.tolist() == [0, 7]


@EVERY_FORMAT
def test_only_columns_that_are_asked_for_have_to_make_sense(write: Write, tmp_path: Path) -> None:
    assert not read(write([{"step": 0, "x": "text"}, {"step": 1, "x": "more"}], tmp_path)).columns


def test_a_key_may_be_absent_from_some_lines(tmp_path: Path) -> None:
    trace = read(write_json_lines([{"step": 0}, {"step": 1, "x": 5}, {"step": 2, "y": 1}], tmp_path), "x")
    np.testing.assert_array_equal(trace.columns["x"], [math.nan, 5.0, math.nan])


def test_an_integer_beyond_all_floats_is_not_finite(tmp_path: Path) -> None:
    trace = read(written(tmp_path, "t.jsonl", f'{{"step": 0, "x": 1}}\n{{"step": 1, "x": 1{"0" * 400}}}\n'), "x")
    np.testing.assert_array_equal(trace.columns["x"], [1.0, math.nan])


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("t.jsonl", '\ufeff{"step": 0, "x": 1}\r\n\r\n  \n{"step": 1, "x": 2}'),
        ("t.csv", "\ufeffstep,x\r\n0,1\r\n\r\n1,2\r\n"),
        ("t.csv", '"step", x,note\n0, 1 ,"a\nb"\n1,2,c'),
        ("t.CSV", "note,step,x\r,0,1\r,1,2\r"),
    ],
    ids=["json with mark, blank lines, no last newline", "csv with mark and blank line", "quotes", "old line ends"],
)
def test_the_ways_in_which_text_files_differ_make_no_difference(name: str, text: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(text.encode())
    trace = read(tmp_path / name, "x")
    assert (trace.steps.tolist(), trace.columns["x"].tolist()) == ([0, 1], [1.0, 2.0])


@pytest.mark.parametrize(
    "cell", ["", " ", "NaN", "nan", "-nan", "NULL", "None", "NA", "n/a", "<NA>", "inf", "-Infinity"]
)
def test_the_ways_in_which_csv_files_say_missing(cell: str, tmp_path: Path) -> None:
    trace = read(written(tmp_path, "t.csv", f"step,x\n0,1\n1,{cell}\n"), "x")
    np.testing.assert_array_equal(trace.columns["x"], [1.0, math.nan])


def test_a_run_folder_stands_for_its_metrics(tmp_path: Path) -> None:
    written(tmp_path, "metrics.jsonl", '{"step": 0, "x": 1}\n')
    assert read(tmp_path, "x").steps.tolist() == [0]


# Names.


@EVERY_FORMAT
def test_columns_are_read_under_the_names_they_are_mapped_to(write: Write, tmp_path: Path) -> None:
    path = write([{"global_step": 5, "response_length/mean": 2.5, "other": 1}], tmp_path)
    trace = read(path, LENGTH, maps=["global_step=step", f"response_length/mean={LENGTH}"])
    assert (trace.steps.tolist(), {key: column.tolist() for key, column in trace.columns.items()}) == (
        [5],
        {LENGTH: [2.5]},
    )


@EVERY_FORMAT
def test_a_map_of_a_column_that_is_not_there_is_refused(write: Write, tmp_path: Path) -> None:
    path = write([{"step": 0, "length_mean": 1.0, "x": 2.0}], tmp_path)
    message = mistake(path, "x", maps=["lenght_mean=y"])
    assert message.startswith(f"--map: got 'lenght_mean=y', expected a column of {path}; the columns are ")
    assert message.endswith("; did you mean 'length_mean'?")


@EVERY_FORMAT
def test_a_map_onto_a_name_that_is_there_is_refused(write: Write, tmp_path: Path) -> None:
    path = write([{"step": 0, "old": 1.0, "x": 2.0}], tmp_path)
    assert mistake(path, "x", maps=["old=x"]) == f"--map: got 'old=x', expected a new name; {path} has a column 'x'"
    assert mistake(path, "x", maps=["old=step"]).endswith("has a column 'step'")
    assert mistake(path, "old", maps=["x=old"]).endswith("has a column 'old'")


@pytest.mark.parametrize("maps", [["x"], ["=x"], ["x="], ["="], ["a=b", "c=b"], ["a=b", "a=c"]])
def test_a_map_that_says_nothing_or_two_things_is_refused(maps: list[str]) -> None:
    with pytest.raises(ConfigError, match=rf"--map: got '{maps[-1]}', expected "):
        Renames.parse(maps)


def test_the_last_equals_sign_of_a_map_divides_it() -> None:
    assert Renames.parse(["a=b=c"]).recorded("c") == "a=b"


@EVERY_FORMAT
def test_a_signal_that_is_not_there_is_refused_with_what_is(write: Write, tmp_path: Path) -> None:
    message = mistake(write([{"step": 0, "response_length/mean": 1.0, "z": 1}], tmp_path), LENGTH)
    assert message.startswith(f"{LENGTH}: expected a column of that name; the columns are ")
    for name in ("step", "z", "did you mean 'response_length/mean'?", f"--map response_length/mean={LENGTH} renames"):
        assert name in message


@EVERY_FORMAT
def test_without_a_step_column_nothing_is_read(write: Write, tmp_path: Path) -> None:
    message = mistake(write([{"global_step": 0, "x": 1.0}], tmp_path), "x")
    assert message.startswith("step: expected a column of that name; the columns are global_step, x; did you mean")
    assert message.endswith("--map global_step=step renames a column")


@EVERY_FORMAT
def test_a_signal_without_a_finite_number_is_refused(write: Write, tmp_path: Path) -> None:
    path = write([{"step": 0, "x": math.nan}, {"step": 1, "x": math.inf}], tmp_path)
    assert mistake(path, "x") == "x: expected a finite number in at least one row"


# Steps and values.


@pytest.mark.parametrize(
    ("steps", "message"),
    [
        ([0, 1, 1], "got 1, expected more than 1, the step before it"),
        ([0, 7, 3], "got 3, expected more than 7, the step before it"),
        ([0, 1, -1], "got -1, expected a whole number from 0 on"),
        ([0, 1, 1.5], "got 1.5, expected a whole number from 0 on"),
        ([0, 1, None], "expected a whole number from 0 on; it is missing"),
        ([0, 1, math.inf], "got inf, expected a whole number from 0 on"),
        ([0, 1, 2.0**63], "got 9.223372036854775e+18, expected a whole number from 0 on"),
    ],
)
@pytest.mark.parametrize(
    ("write", "place"), [(write_json_lines, "line 3"), (write_csv, "line 4"), (write_parquet, "row 2")]
)
def test_a_bad_step_is_told_with_its_place(
    write: Write, place: str, steps: list[Any], message: str, tmp_path: Path
) -> None:
    told = mistake(write([{"step": step, "x": 1.0} for step in steps], tmp_path), "x")
    assert told.replace("9.223372036854776e+18", "9.223372036854775e+18") == f"{place}: step: {message}"


@pytest.mark.parametrize(
    ("write", "place"), [(write_json_lines, "line 2"), (write_csv, "line 3"), (write_parquet, "row 1")]
)
def test_text_where_a_number_should_be_is_told_with_its_place(write: Write, place: str, tmp_path: Path) -> None:
    path = write([{"step": 0, "x": None}, {"step": 1, "x": "high"}], tmp_path)
    assert mistake(path, "x") == f"{place}: x: got 'high', expected a number"


@pytest.mark.parametrize("value", ["true", "[1]", '{"a": 1}', '"1.5"', '"NaN"'])
def test_json_that_is_no_number_is_refused_as_a_value_and_as_a_step(value: str, tmp_path: Path) -> None:
    path = written(tmp_path, "t.jsonl", f'{{"t": 0, "x": {value}}}\n')
    assert mistake(path, "x", maps=["t=step"]).endswith(", expected a number")
    assert mistake(path, maps=["x=step"]).endswith(", expected a whole number from 0 on")
    assert mistake(path, maps=["x=step"]).startswith("line 1: x: got ")


@pytest.mark.parametrize("cell", ["1_000", "0x10", "one", "1.5.2", "True", "\u0663"])
def test_csv_that_is_no_number_is_refused_as_a_value_and_as_a_step(cell: str, tmp_path: Path) -> None:
    path = written(tmp_path, "t.csv", f"t,x\n0,{cell}\n")
    assert mistake(path, "x", maps=["t=step"]) == f"line 2: x: got {cell!r}, expected a number"
    assert mistake(path, maps=["x=step"]) == f"line 2: x: got {cell!r}, expected a whole number from 0 on"


def test_a_boolean_parquet_column_is_no_signal(tmp_path: Path) -> None:
    assert mistake(write_parquet([{"step": 0, "x": True}], tmp_path), "x") == "row 0: x: got True, expected a number"


@pytest.mark.parametrize(
    "column",
    [
        pa.array([2**50], pa.timestamp("ms")),
        pa.array([0], pa.timestamp("ms", tz="Nowhere/Else")),
        pa.array([2**60], pa.duration("ms")),
        pa.array([2**30], pa.date32()),
        pa.array([[2**50]], pa.list_(pa.timestamp("ms"))),
        pa.array([b"1"]),
    ],
    ids=lambda column: str(column.type),
)
def test_a_parquet_column_of_neither_numbers_nor_text_is_told_by_its_type(column: pa.Array, tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    pq.write_table(pa.table({"step": [0], "x": [1.0], "when": column}), path)
    shown = str(pq.read_schema(path).field("when").type)
    assert mistake(path, "when") == f"row 0: when: got {shown!r}, expected a number"
    assert read(path, "x").columns["x"].tolist() == [1.0]
    pq.write_table(pa.table({"when": column, "x": [1.0]}), path)
    message = mistake(path, "x", maps=["when=step"])
    assert message == f"row 0: when: got {shown!r}, expected a whole number from 0 on"


def test_a_date_that_is_missing_is_a_missing_value(tmp_path: Path) -> None:
    when = pa.array([None, 2**50], pa.timestamp("ms"))
    pq.write_table(pa.table({"step": [0, 1], "when": when}), tmp_path / "t.parquet")
    assert mistake(tmp_path / "t.parquet", "when").startswith("row 1: when: got 'timestamp[ms]', ")


@pytest.mark.parametrize("kind", [pa.decimal128(38, 0), pa.decimal128(38, 3), pa.decimal256(76, 0)], ids=str)
def test_a_decimal_is_a_number_of_any_size(kind: pa.DataType, tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    largest = Decimal(10) ** (kind.precision - kind.scale - 3)
    cells = pa.array([Decimal(7), largest], kind)
    pq.write_table(pa.table({"far": cells, "x": cells}), path)
    message = mistake(path, "x", maps=["far=step"])
    assert message.startswith("row 1: far: got Decimal('10000")
    assert message.endswith(", expected a whole number from 0 on")
    pq.write_table(pa.table({"step": pa.array([Decimal(7), Decimal(8)], kind), "x": cells}), path)
    trace = read(path, "x")
    assert (trace.steps.tolist(), trace.columns["x"].tolist()) == ([7, 8], [7.0, float(largest)])


# Files.


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ('{"step": 1, "x": 2', "EOF while parsing an object"),
        ('{"step": 1} x', "trailing characters"),
        ('{"step": 1}{"step": 2}', "trailing characters"),
        ("{'step': 1}", "key must be a string"),
        ("step", "expected value"),
    ],
)
def test_a_malformed_line_is_told_with_its_number(line: str, why: str, tmp_path: Path) -> None:
    path = written(tmp_path, "t.jsonl", f'{{"step": 0}}\n{line}\n{{"step": 3}}\n')
    assert mistake(path) == f"line 2: got {line!r}, expected a JSON object ({why})"


@pytest.mark.parametrize("line", ["null", "[1]", "3", '"text"'])
def test_a_line_that_is_no_object_is_told_with_its_number(line: str, tmp_path: Path) -> None:
    message = mistake(written(tmp_path, "t.jsonl", f'{{"step": 0}}\n{line}\n'))
    assert message.startswith("line 2: got ")
    assert message.endswith(", expected a JSON object")


def test_deep_nesting_and_bytes_that_are_no_text_are_malformed_lines(tmp_path: Path) -> None:
    message = mistake(written(tmp_path, "t.jsonl", '{"step": 0}\n{"a": ' + "[" * 100_000 + "]" * 100_000 + "}\n"))
    assert message.startswith("line 2: got ")
    (tmp_path / "t.jsonl").write_bytes(b'{"step": 0, "note": "\xff"}\n')
    assert mistake(tmp_path / "t.jsonl").startswith("line 1: got ")


def test_a_last_line_that_was_cut_off_is_told_as_that(tmp_path: Path) -> None:
    written(tmp_path, "metrics.jsonl", '{"step": 0, "x": 1}\n{"step": 1, "x')
    assert mistake(tmp_path / "metrics.jsonl", "x").endswith("; the file ends within this line)")
    assert 'line 2: got \'{"step": 1, "x\', expected a JSON object' in mistake(tmp_path, "x")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("step,x\n0,1\n1,2,3\n", "line 3: got '3 cells', expected 2, as the header has"),
        ("step,x\n0\n", "line 2: got '1 cells', expected 2, as the header has"),
        ('step,x\n0,"1\n', "line 2: expected a CSV row (unexpected end of data)"),
        ('step,x\n0,"1"2\n', "line 2: expected a CSV row (',' expected after '\"')"),
        ('step,"x\n', "line 1: expected a CSV row (unexpected end of data)"),
        ("step,x,x\n0,1,2\n", "x: expected one column of that name; there are several"),
        ("", "expected a line with the names of the columns, then a line per step"),
    ],
)
def test_a_malformed_csv_file_is_told_with_its_line(text: str, message: str, tmp_path: Path) -> None:
    assert mistake(written(tmp_path, "t.csv", text), "x") == message


def test_csv_that_is_no_utf_8_is_told_with_its_line(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_bytes(b"step,x\n0,1\n1,\xff\n")
    assert mistake(tmp_path / "t.csv", "x") == "line 3: expected UTF-8 text (invalid start byte)"


def test_a_damaged_parquet_file_is_refused(tmp_path: Path) -> None:
    path = write_parquet([{"step": i, "x": float(i)} for i in range(1000)], tmp_path)
    whole = path.read_bytes()
    for damaged in (b"", b"PAR1", whole[: len(whole) // 2], whole[:40] + bytes(200) + whole[240:]):
        path.write_bytes(damaged)
        assert mistake(path, "x").startswith("expected an intact Parquet file (")


def test_two_parquet_columns_of_one_name_are_refused(tmp_path: Path) -> None:
    column = pa.array([0])
    pq.write_table(pa.Table.from_arrays([column, column, column], ["step", "x", "x"]), tmp_path / "t.parquet")
    assert mistake(tmp_path / "t.parquet", "x") == "x: expected one column of that name; there are several"


@pytest.mark.parametrize("name", ["t.jsonl", "t.csv", "t.parquet"])
def test_a_trace_without_rows_is_refused(name: str, tmp_path: Path) -> None:
    if name == "t.parquet":
        pq.write_table(pa.table({"step": pa.array([], pa.int64()), "x": pa.array([], pa.float64())}), tmp_path / name)
    else:
        written(tmp_path, name, "step,x\n" if name == "t.csv" else "\n")
    assert mistake(tmp_path / name, "x") == "expected at least one step; it has none"


def test_what_is_no_trace_file_is_refused(tmp_path: Path) -> None:
    kinds = "expected a .jsonl, .csv or .parquet file, a run folder or an MLflow run id"
    assert mistake(written(tmp_path, "t.txt", ""), "x") == kinds
    assert mistake(tmp_path / "gone.txt", "x") == kinds
    assert mistake(tmp_path / "gone.csv", "x") == "expected a readable file (it is not there)"
    (tmp_path / "empty").mkdir()
    assert (
        mistake(tmp_path / "empty", "x")
        == f"{tmp_path}/empty/metrics.jsonl: expected a readable file (it is not there)"
    )


# MLflow.


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> str:
    return f"sqlite:///{tmp_path_factory.mktemp('mlflow') / 'mlflow.db'}"


def logged(database: str, steps: Sequence[tuple[int, dict[str, float]]]) -> str:
    """A run with these metrics; its id."""
    store = MlflowStore(database, None)
    run_id = store.create_run("traces", "run", {}, None)
    store.log_steps(run_id, [StepRecord(step=n, time_ms=abs(n), metrics=metrics, events=()) for n, metrics in steps])
    return run_id


def test_an_mlflow_run_is_a_trace_with_a_row_for_every_step_it_logged(database: str) -> None:
    run_id = logged(
        database,
        [
            (4, {"x": 0.5, "eval/aime24/avg@32": 0.25}),
            (0, {"x": math.nan}),
            (1, {"x": math.inf}),
            (2, {"x": -math.inf}),
            (9, {"y": 1.0}),
            (77, {"system/cpu": 3.0}),
        ],
    )
    trace = read(run_id, "x", "eval/aime24/avg@32", uri=database)
    assert trace.source == f"MLflow run {run_id}"
    assert trace.steps.tolist() == [0, 1, 2, 4, 9]
    np.testing.assert_array_equal(trace.columns["x"], [math.nan] * 3 + [0.5, math.nan])
    np.testing.assert_array_equal(trace.columns["eval/aime24/avg@32"], [math.nan] * 3 + [0.25, math.nan])
    assert read(run_id, "z", maps=["y=z"], uri=database).columns["z"][-1] == 1.0


def test_the_database_is_found_among_the_runs_or_in_the_environment(
    database: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    run_id = logged(database, [(0, {"x": 1.0})])
    folder = Path(database.removeprefix("sqlite:///")).parent
    assert read_trace(run_id, ["x"], Renames({}), None, folder).columns["x"].tolist() == [1.0]
    monkeypatch.setenv("MLFLOW_TRACKING_URI", database)
    assert read(run_id, "x").columns["x"].tolist() == [1.0]
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/gone.db")
    assert read(run_id, "x", uri=database).columns["x"].tolist() == [1.0]


def test_a_value_that_was_sent_twice_counts_once_and_two_values_at_a_step_are_refused(database: str) -> None:
    assert read(logged(database, [(0, {"x": 1.0}), (0, {"x": 1.0})]), "x", uri=database).steps.tolist() == [0]
    run_id = logged(database, [(0, {"x": 1.0}), (7, {"x": 1.0}), (7, {"x": 2.0})])
    message = f"MLflow run {run_id}: x: got 2.0, expected one value at step 7, which has 1.0 already"
    assert mistake(run_id, "x", uri=database) == message


def test_a_negative_step_and_a_run_without_metrics_are_refused(database: str) -> None:
    run_id = logged(database, [(-1, {"x": 1.0})])
    message = f"MLflow run {run_id}: row 0: step: got -1, expected a whole number from 0 on"
    assert mistake(run_id, "x", uri=database) == message
    assert mistake(logged(database, []), "x", uri=database).endswith("expected at least one step; it has none")


def test_a_signal_that_a_run_did_not_log_is_refused_with_those_it_did(database: str) -> None:
    run_id = logged(database, [(0, {"response/lengths_mean": 1.0})])
    message = mistake(run_id, LENGTH, uri=database)
    assert f"{LENGTH}: expected a column of that name; the columns are step, response/lengths_mean; did you" in message


@pytest.mark.parametrize("run_id", ["a" * 32, "no-such-run"])
def test_a_run_that_the_store_does_not_know_is_refused(database: str, run_id: str) -> None:
    assert mistake(run_id, "x", uri=database) == f"expected a file, a run folder or the id of a run in {database}"


def test_a_store_that_is_not_there_is_told_and_not_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    assert "for a run id, --tracking-uri, MLFLOW_TRACKING_URI or no runs/mlflow.db must say" in mistake("a" * 32, "x")
    written(tmp_path, "text.db", "no database")
    written(tmp_path, "empty.db", "")
    expected = {
        f"sqlite:///{tmp_path}/gone.db": "expected a database file that is there",
        f"sqlite:///{tmp_path}/text.db": "expected a database of MLflow's (file is not a database)",
        f"sqlite:///{tmp_path}/empty.db": "expected a database of MLflow's (no such table: runs)",
        f"file://{tmp_path}/gone": "expected a folder that is there",
        f"{tmp_path}/gone": "expected a folder that is there",
    }
    for uri, message in expected.items():
        assert mistake("a" * 32, "x", uri=uri) == f"tracking URI: {uri}: {message}"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["empty.db", "text.db"]
    assert (tmp_path / "empty.db").stat().st_size == 0


def test_a_store_that_does_not_answer_is_told_without_its_password(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    message = mistake("a" * 32, "x", uri="http://ada:secret@127.0.0.1:1")
    assert message.startswith("tracking URI: http://127.0.0.1:1: expected a tracking store that answers (")
    assert "secret" not in message
