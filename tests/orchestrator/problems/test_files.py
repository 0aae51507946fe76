"""Files of problems, Parquet and JSON lines alike: what is read, in what pieces, and every mistake with its place."""

import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.config_errors import ConfigError
from orchestrator.problems import json_lines, parquet
from orchestrator.problems.config import ColumnsConfig
from orchestrator.problems.files import ProblemFiles
from orchestrator.problems.problem import Message, Problem
from orchestrator.problems.stream import ShuffledStream

GSM8K = Path(__file__).parents[2] / "data" / "gsm8k" / "test.jsonl"
ANSWER = "an answer: a text that is not blank, a number, true or false"
Rows = Sequence[dict[str, Any]]
Writer = Callable[[Path, Rows], Path]


def write_json_lines(path: Path, rows: Rows) -> Path:
    path = path.with_suffix(".jsonl")
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def write_parquet(path: Path, rows: Rows) -> Path:
    path = path.with_suffix(".parquet")
    pq.write_table(pa.Table.from_pylist(list(rows)), path, row_group_size=3)
    return path


def open_files(*paths: Path | str, **keys: Any) -> ProblemFiles:
    return ProblemFiles.open([str(path) for path in paths], ColumnsConfig(**keys), "gsm8k.yaml", "task.train")


def mistake_in(path: Path, **keys: Any) -> str:
    """The message about a file, without its name; always one line."""
    with pytest.raises(ConfigError) as raised:
        open_files(path, **keys)
    message = str(raised.value)
    assert "\n" not in message
    return message.removeprefix(f"{path}: ")


def everything(problems: ProblemFiles) -> list[Problem]:
    return [problems.problem(row) for row in range(len(problems))]


def sums(size: int) -> Rows:
    return [{"prompt": f"{number}+1=", "answer": str(number + 1)} for number in range(size)]


def cut_at(monkeypatch: pytest.MonkeyPatch, rows: int = 32_768, size: int = 2**25) -> None:
    """Blocks of at most so many rows and bytes."""
    for module in (json_lines, parquet):
        monkeypatch.setattr(module, "BLOCK_ROWS", rows)
        monkeypatch.setattr(module, "BLOCK_BYTES", size)


BOTH = pytest.mark.parametrize("write", [write_json_lines, write_parquet])
PLACES = pytest.mark.parametrize(("write", "place"), [(write_json_lines, "line 5"), (write_parquet, "row 4")])


@BOTH
def test_the_layout_of_verl_is_read_as_it_is(tmp_path: Path, write: Writer) -> None:
    rows = [
        {
            "data_source": "openai/gsm8k",
            "prompt": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": f"{number}+1="}],
            "ability": "math",
            "reward_model": {"style": "rule", "ground_truth": str(number + 1)},
            "extra_info": {"split": "train", "index": number},
        }
        for number in range(5)
    ]
    assert everything(open_files(write(tmp_path / "train", rows))) == [
        Problem(
            prompt=(Message(role="system", content="Be brief."), Message(role="user", content=f"{number}+1=")),
            answer=str(number + 1),
            source="openai/gsm8k",
            extra={"split": "train", "index": number},
        )
        for number in range(5)
    ]


def test_gsm8k_is_read_as_it_is_published() -> None:
    problems = open_files(GSM8K, answer_pattern="#### (.+)")
    assert len(problems) == 1319
    first = problems.problem(0)
    assert (first.text[:15], first.answer) == ("Janet’s ducks l", "18")
    assert all(problem.answer.replace(",", "").lstrip("-").isdigit() for problem in everything(problems))


@BOTH
def test_text_prompts_answers_that_are_numbers_and_null_in_optional_columns(tmp_path: Path, write: Writer) -> None:
    rows = [
        {"question": "1+1=", "answer": 2, "data_source": None, "extra_info": None},
        {"question": "2+2=", "answer": 4, "data_source": "sums", "extra_info": {"index": 1}},
    ]
    assert everything(open_files(write(tmp_path / "train", rows))) == [
        Problem(prompt="1+1=", answer="2"),
        Problem(prompt="2+2=", answer="4", source="sums", extra={"index": 1}),
    ]


@BOTH
def test_keys_may_lead_into_what_is_read_as_a_whole_too(tmp_path: Path, write: Writer) -> None:
    extra = {"q": "1+1=", "a": {"text": "2"}}
    rows = [{"extra_info": extra, "a.b": "sums"}]
    problems = open_files(
        write(tmp_path / "train", rows), prompt_key="extra_info.q", answer_key="extra_info.a.text", source_key="a.b"
    )
    assert everything(problems) == [Problem(prompt="1+1=", answer="2", source="sums", extra=extra)]


@BOTH
@pytest.mark.parametrize("rows_at_most", [1, 2, 4, 5, 100])
@pytest.mark.parametrize("bytes_at_most", [1, 100, 2**25])
def test_a_file_in_blocks_is_the_same_file(
    tmp_path: Path, write: Writer, rows_at_most: int, bytes_at_most: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(tmp_path / "train", sums(11))
    whole = everything(open_files(path))
    monkeypatch.setattr(json_lines, "LONGEST_LINE", 2**25)
    cut_at(monkeypatch, rows_at_most, bytes_at_most)
    problems = open_files(path)
    assert sum(problems.blocks) == len(problems) == 11
    assert max(problems.blocks) <= rows_at_most
    assert bytes_at_most > 1 or set(problems.blocks) == {1}
    assert everything(problems) == whole
    assert [problems.problem(row) for row in (10, 0, 5, 10, 3)] == [whole[row] for row in (10, 0, 5, 10, 3)]


@BOTH
def test_a_small_file_is_one_block(tmp_path: Path, write: Writer) -> None:
    assert open_files(write(tmp_path / "train", sums(11))).blocks == (11,)


@given(groups=st.lists(st.integers(0, 5), min_size=1, max_size=6), rows_at_most=st.integers(1, 8))
def test_row_groups_are_put_together_or_cut_whatever_their_sizes(
    tmp_path_factory: pytest.TempPathFactory, groups: list[int], rows_at_most: int
) -> None:
    path = tmp_path_factory.mktemp("groups") / "train.parquet"
    size = sum(groups)
    schema = pa.schema({"prompt": pa.string(), "answer": pa.int64()})
    table = pa.table({"prompt": [f"{row}+1=" for row in range(size)], "answer": list(range(size))}, schema)
    with pq.ParquetWriter(path, schema) as writer:
        start = 0
        for rows in groups:
            writer.write_table(table.slice(start, rows))
            start += rows
    with pytest.MonkeyPatch.context() as monkeypatch:
        cut_at(monkeypatch, rows_at_most)
        monkeypatch.setattr(parquet, "ROWS_AT_ONCE", 2)
        if size == 0:
            assert mistake_in(path) == "expected at least one problem; the file is empty"
            return
        problems = open_files(path)
        assert max(problems.blocks) <= rows_at_most
        backwards = [problems.problem(row).answer for row in reversed(range(len(problems)))]
    assert backwards == [str(row) for row in reversed(range(size))]


def test_files_follow_one_another_each_with_its_own_columns(tmp_path: Path) -> None:
    one = write_parquet(tmp_path / "one", sums(4))
    two = write_json_lines(tmp_path / "two", [{"problem": "5+5=", "solution": 10}])
    problems = open_files(one, two, one)
    assert [problem.answer for problem in everything(problems)] == ["1", "2", "3", "4", "10", "1", "2", "3", "4"]
    assert problems.blocks == (4, 1, 4)
    assert [problems.place(row) for row in (3, 4, 5)] == [
        (str(one), "row 3"),
        (str(two), "line 1"),
        (str(one), "row 0"),
    ]


def test_a_file_may_be_named_alone_from_the_home_folder_or_the_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_json_lines(tmp_path / "train", sums(2))
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    for path in ("~/train.jsonl", "train.jsonl"):
        assert len(ProblemFiles.open(path, ColumnsConfig(), "gsm8k.yaml", "task.train")) == 2


@pytest.mark.parametrize("row", [-1, 11])
def test_a_row_that_is_not_there_is_an_index_error(tmp_path: Path, row: int) -> None:
    with pytest.raises(IndexError, match=f"problem {row} of 11"):
        open_files(write_json_lines(tmp_path / "train", sums(11))).problem(row)


@BOTH
def test_no_more_than_two_blocks_are_kept_and_a_stream_reads_each_once_an_epoch(
    tmp_path: Path, write: Writer, monkeypatch: pytest.MonkeyPatch
) -> None:
    cut_at(monkeypatch, rows=3)
    problems = open_files(write(tmp_path / "train", sums(11)))
    stream = ShuffledStream(problems, seed=0)
    assert sorted(int(stream.problem(number).answer) for number in range(11)) == list(range(1, 12))
    cache = problems._load.cache_info()
    assert (cache.misses, cache.currsize) == (4, 2)


# Mistakes in a row.


@PLACES
@pytest.mark.parametrize(("value", "got"), [(None, "null"), ("", "''"), (" ", "' '")])
def test_a_row_without_an_answer_is_named(tmp_path: Path, write: Writer, place: str, value: Any, got: str) -> None:
    rows = [*sums(4), {"prompt": "4+1=", "answer": value}]
    assert mistake_in(write(tmp_path / "train", rows)) == f"{place}: answer: got {got}, expected {ANSWER}"


@PLACES
def test_a_row_in_which_the_pattern_finds_no_answer_is_named(tmp_path: Path, write: Writer, place: str) -> None:
    rows = [*({**row, "answer": f"#### {row['answer']}"} for row in sums(4)), {"prompt": "4+1=", "answer": "five"}]
    assert mistake_in(write(tmp_path / "train", rows), answer_pattern="#### (.+)") == (
        f"{place}: answer: got 'five', expected a text in which answer_pattern '#### (.+)' finds an answer"
    )


@PLACES
def test_a_struct_that_is_null_has_no_answer(tmp_path: Path, write: Writer, place: str) -> None:
    rows = [{"prompt": "a", "reward_model": {"ground_truth": "1"}}] * 4 + [{"prompt": "a", "reward_model": None}]
    got = "" if write is write_json_lines else "got null, "
    missing = "; it is missing" if write is write_json_lines else ""
    assert mistake_in(write(tmp_path / "train", rows)) == (
        f"{place}: reward_model.ground_truth: {got}expected {ANSWER}{missing}"
    )


@PLACES
def test_a_row_without_a_prompt_is_named(tmp_path: Path, write: Writer, place: str) -> None:
    assert mistake_in(write(tmp_path / "train", [*sums(4), {"prompt": "", "answer": "5"}])) == (
        f"{place}: prompt: got '', expected a text that is not blank, or a list of messages with role and content"
    )


@PLACES
def test_a_message_without_content_is_named(tmp_path: Path, write: Writer, place: str) -> None:
    message = {"role": "user", "content": "1+1="}
    rows = [{"prompt": [message], "answer": "2"}] * 4
    rows = [*rows, {"prompt": [message, {"role": "user", "content": None}], "answer": "2"}]
    assert mistake_in(write(tmp_path / "train", rows)) == f"{place}: prompt[1].content: got null, expected a text"


@pytest.mark.parametrize(("write", "place"), [(write_json_lines, "line 1"), (write_parquet, "row 0")])
@pytest.mark.parametrize(
    ("row", "said"),
    [
        (
            {"prompt": 3, "answer": "2"},
            "prompt: got 3, expected a text that is not blank, or a list of messages with role and content",
        ),
        ({"prompt": ["1+1="], "answer": "2"}, "prompt[0]: got '1+1=', expected a message with role and content"),
        ({"prompt": "1+1=", "answer": ["2"]}, f"answer: got ['2'], expected {ANSWER}"),
        ({"prompt": "1+1=", "answer": {"a": 2}}, f"answer: got {{'a': 2}}, expected {ANSWER}"),
        ({"prompt": "1+1=", "answer": "2", "data_source": 1}, "data_source: got 1, expected a text or null"),
        (
            {"prompt": "1+1=", "answer": "2", "extra_info": "x"},
            "extra_info: got 'x', expected a struct, an object or null",
        ),
    ],
)
def test_values_of_other_types_are_named(
    tmp_path: Path, write: Writer, place: str, row: dict[str, Any], said: str
) -> None:
    assert mistake_in(write(tmp_path / "train", [row])) == f"{place}: {said}"


# Mistakes in the columns.


@BOTH
def test_a_missing_column_is_told_with_those_there_are(tmp_path: Path, write: Writer) -> None:
    path = write(tmp_path / "train", [{"promt": "1+1=", "answer": "2"}])
    assert mistake_in(path) == (
        "prompt_key: expected the name of a column; there is none of prompt, problem, question, only: promt, answer"
    )
    assert mistake_in(path, prompt_key="prompt") == (
        "prompt_key: got 'prompt', expected a column of the file; did you mean 'promt'? one of: promt, answer"
    )


@BOTH
@pytest.mark.parametrize("value", ["2", ["2"], 2])
def test_a_dot_does_not_lead_into_what_has_no_fields(tmp_path: Path, write: Writer, value: Any) -> None:
    path = write(tmp_path / "train", [{"prompt": "1+1=", "answer": value}])
    assert mistake_in(path, answer_key="answer.text") == (
        "answer_key: got 'answer.text', expected a column with fields; 'answer' has none"
    )


# Mistakes in the file.


@BOTH
def test_a_file_without_a_row_is_refused(tmp_path: Path, write: Writer) -> None:
    path = write(tmp_path / "train", [])
    if write is write_parquet:
        pq.write_table(pa.table({"prompt": pa.array([], pa.string()), "answer": pa.array([], pa.string())}), path)
    assert mistake_in(path) == "expected at least one problem; the file is empty"


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("none.jsonl", "a readable file (it is not there)"),
        ("none.parquet", "a readable file (it is not there)"),
        ("~nobody-of-that-name/a.jsonl", "a readable file (it is not there)"),
        ("folder", "a file, not a folder"),
        ("folder.parquet", "a file, not a folder"),
        ("train.json", "a .parquet or .jsonl file"),
        ("train.csv", "a .parquet or .jsonl file"),
        ("train", "a .parquet or .jsonl file"),
        ("", "a file, not a folder"),
    ],
)
def test_a_path_that_is_none_of_a_file_of_problems_is_told_with_the_key_that_has_it(
    tmp_path: Path, name: str, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for folder in ("folder", "folder.parquet"):
        Path(folder).mkdir()
    for file in ("train.json", "train.csv", "train"):
        Path(file).write_text("{}")
    with pytest.raises(ConfigError) as raised:
        open_files(name)
    assert str(raised.value) == f"gsm8k.yaml: task.train: got {name!r}, expected {expected}"


def test_a_list_without_a_file_is_refused() -> None:
    with pytest.raises(ConfigError) as raised:
        open_files()
    assert str(raised.value) == "gsm8k.yaml: task.train: got [], expected at least one file"


def test_all_paths_are_looked_at_before_the_first_file_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    bad = write_json_lines(Path("bad"), [{}])
    with pytest.raises(ConfigError) as raised:
        open_files(bad, Path("none.jsonl"))
    assert "none.jsonl" in str(raised.value)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
@BOTH
def test_a_file_that_may_not_be_read_is_refused(tmp_path: Path, write: Writer) -> None:
    path = write(tmp_path / "train", sums(1))
    path.chmod(0)
    assert mistake_in(path) == "expected a readable file (Permission denied)"


def test_a_file_that_fails_when_it_is_read_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "train.jsonl"
    path.symlink_to("/proc/self/mem")  # may be opened, but has nothing at 0
    assert mistake_in(path) == "expected a readable file (Input/output error)"


@BOTH
def test_a_file_that_changes_or_goes_during_a_run_is_no_longer_read(
    tmp_path: Path, write: Writer, monkeypatch: pytest.MonkeyPatch
) -> None:
    cut_at(monkeypatch, rows=3)
    path = write(tmp_path / "train", sums(11))
    problems = open_files(path)
    write(tmp_path / "train", sums(12))
    with pytest.raises(ConfigError) as raised:
        problems.problem(0)
    assert str(raised.value) == f"{path}: expected the file as it was when the run began; it has changed"
    path.unlink()
    with pytest.raises(ConfigError) as raised:
        problems.problem(0)
    assert str(raised.value) == f"{path}: expected a readable file (No such file or directory)"
