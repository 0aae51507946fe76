"""JSON lines: torn and other lines, byte order marks, blank lines, and no more in memory than a block."""

from pathlib import Path

import pytest

from orchestrator.config_errors import ConfigError
from orchestrator.problems import json_lines
from orchestrator.problems.config import ColumnsConfig
from orchestrator.problems.json_lines import JsonLines

GOOD = b'{"prompt": "1+1=", "answer": "2"}\n'


def write(folder: Path, content: bytes) -> str:
    path = folder / "train.jsonl"
    path.write_bytes(content)
    return str(path)


def places(path: str) -> list[str]:
    blocks = list(JsonLines.open(path, ColumnsConfig()).blocks())
    assert all(block.cells(row).answer == "2" for block in blocks for row in range(len(block)))
    return [block.place(row) for block in blocks for row in range(len(block))]


def mistake_in(path: str) -> str:
    with pytest.raises(ConfigError) as raised:
        places(path)
    return str(raised.value).removeprefix(f"{path}: ")


@pytest.mark.parametrize("start", [b"", b"\xef\xbb\xbf"])
@pytest.mark.parametrize("rows_at_most", [1, 2, 100])
def test_a_byte_order_mark_and_blank_lines_are_passed_over_and_lines_keep_their_numbers(
    tmp_path: Path, start: bytes, rows_at_most: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(json_lines, "BLOCK_ROWS", rows_at_most)
    path = write(tmp_path, start + b"\n \r\n" + GOOD + b"\n" + GOOD.replace(b"\n", b"\r\n") + GOOD.rstrip() + b"\n\n")
    assert places(path) == ["line 3", "line 5", "line 6"]
    file = JsonLines.open(path, ColumnsConfig())
    for block in file.blocks():
        assert file.load(block.where) == block


def test_the_last_line_needs_no_end(tmp_path: Path) -> None:
    assert places(write(tmp_path, GOOD + GOOD.rstrip())) == ["line 1", "line 2"]


@pytest.mark.parametrize("content", [b"", b"\n\n", b"\xef\xbb\xbf", b" \t"])
def test_a_file_of_nothing_but_white_space_is_empty(tmp_path: Path, content: bytes) -> None:
    assert mistake_in(write(tmp_path, content)) == "expected at least one problem; the file is empty"


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (
            b'{"prompt": "1+',
            """got '{"prompt": "1+', expected a JSON object (EOF while parsing a string; the file ends within this """
            "line)",
        ),
        (
            b'{"prompt": "1+\n',
            """got '{"prompt": "1+', expected a JSON object (control character (\\u0000-\\u001F) found while """
            "parsing a string)",
        ),
        (b"1+1=2\n", "got '1+1=2', expected a JSON object (trailing characters)"),
        (b"[1]\n", "got [1], expected a JSON object"),
        (b"null\n", "got null, expected a JSON object"),
        (b'"{}"\n', "got '{}', expected a JSON object"),
        (
            b'{"prompt": "\xff", "answer": "2"}\n',
            """got '{"prompt": "\ufffd", "answer": "2"}', expected a JSON object (invalid unicode code point)""",
        ),
        (
            b'{"prompt": "\\ud800", "answer": "2"}\n',
            """got '{"prompt": "\\\\ud800", "answer": "2"}', expected a JSON object (unexpected end of hex escape)""",
        ),
    ],
)
def test_a_line_that_is_no_object_is_named(tmp_path: Path, line: bytes, said: str) -> None:
    assert mistake_in(write(tmp_path, GOOD + b"\n" + line)) == f"line 3: {said}"
    assert mistake_in(write(tmp_path, line)) == f"line 1: {said}"


def test_a_line_longer_than_a_block_is_refused_without_reading_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(json_lines, "LONGEST_LINE", len(GOOD))
    assert places(write(tmp_path, GOOD + GOOD)) == ["line 1", "line 2"]
    assert mistake_in(write(tmp_path, GOOD + b" " + GOOD)) == "line 2: expected a JSON object of at most 34 bytes"


def test_a_file_that_cannot_be_read_is_an_os_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        JsonLines.open(str(tmp_path / "none.jsonl"), ColumnsConfig())
