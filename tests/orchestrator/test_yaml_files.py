"""YAML as people write it: numbers, duplicate keys, and files that are no YAML."""

from pathlib import Path
from typing import Any

import pytest

from orchestrator.config_errors import ConfigError
from orchestrator.yaml_files import dump, parse_scalar, read_mapping


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "e.yaml"


def mistake_in(file: Path, text: str | bytes) -> str:
    """The message about a file with this content; always one line that begins with the file's name."""
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(ConfigError) as raised:
        read_mapping(file)
    message = str(raised.value)
    assert message.startswith(str(file))
    assert "\n" not in message
    return message.removeprefix(str(file))


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-6", 1e-6),
        ("1E6", 1e6),
        ("-1e+3", -1000.0),
        ("1.0e-6", 1e-6),
        (".5", 0.5),
        ("2.", 2.0),
        ("12", 12),
        ("-3", -3),
        ("true", True),
        ("null", None),
        ("", None),
        ("'1e-6'", "1e-6"),
        ("e6", "e6"),
        ("1e", "1e"),
        ("1e-6x", "1e-6x"),
        ("[1, 2.5]", [1, 2.5]),
        ("{kind: step}", {"kind": "step"}),
    ],
)
def test_a_value_is_what_it_looks_like(text: str, value: Any) -> None:
    parsed = parse_scalar(text, source="--set lr")
    assert parsed == value
    assert type(parsed) is type(value)


def test_a_mapping_is_read_in_its_order(file: Path) -> None:
    file.write_text("b: 1\na: {d: [1, 2], c: ü}\n", encoding="utf-8")
    assert read_mapping(file) == {"b": 1, "a": {"d": [1, 2], "c": "ü"}}
    assert list(read_mapping(str(file))) == ["b", "a"]


def test_what_is_dumped_is_read_back(file: Path) -> None:
    tree = {"z": 1e-06, "a": {"text": "1e-6", "none": None, "list": [1, True]}, "ü": "ß"}
    file.write_text(dump(tree), encoding="utf-8")
    assert read_mapping(file) == tree
    assert list(read_mapping(file)) == list(tree)


def test_a_key_that_stands_twice_is_named_with_its_line(file: Path) -> None:
    assert mistake_in(file, "steps: 1\nname: x\nsteps: 2\n") == ":3: expected YAML (the key 'steps' stands twice)"
    assert mistake_in(file, "a:\n  b: 1\n  b: 2\n").startswith(":3: ")


@pytest.mark.parametrize(
    ("text", "line"), [("a: 1\nb: [1, 2\nc: 3\n", 3), ("a: b: c\n", 1), ("a: 1\n\tb: 2\n", 2), ("a: 1\n---\nb: 2\n", 2)]
)
def test_what_is_no_yaml_is_named_with_its_line(file: Path, text: str, line: int) -> None:
    assert mistake_in(file, text).startswith(f":{line}: expected YAML (")


@pytest.mark.parametrize(
    ("text", "got"),
    [("", ""), ("# only a comment\n", ""), ("- 1\n", "got [1], "), ("3\n", "got 3, "), ("1: 2\n", "got {1: 2}, ")],
)
def test_what_is_no_mapping_is_shown(file: Path, text: str, got: str) -> None:
    assert mistake_in(file, text) == f": {got}expected a mapping with text keys at the top level"


def test_a_control_character_is_a_mistake_told_in_one_line(file: Path) -> None:
    assert "#x0001" in mistake_in(file, "name: \x01\n")


@pytest.mark.parametrize("key", ["[a, b]", "{a: 1}"])
def test_a_key_that_is_no_scalar_is_a_mistake_told_in_one_line(file: Path, key: str) -> None:
    assert mistake_in(file, f"name: x\n? {key}\n: 1\n").startswith(":2")


def test_python_objects_are_never_made(file: Path) -> None:
    assert "could not determine a constructor" in mistake_in(file, "a: !!python/object/apply:os.getcwd []\n")


def test_bytes_that_are_no_text_are_named_with_their_place(file: Path) -> None:
    assert "expected UTF-8 text" in mistake_in(file, b"name: \xff\n")
    assert "at byte 6" in mistake_in(file, b"name: \xff\n")


def test_a_folder_and_a_missing_file_cannot_be_read(tmp_path: Path) -> None:
    for path, reason in ((tmp_path, "Is a directory"), (tmp_path / "no.yaml", "No such file")):
        with pytest.raises(ConfigError) as raised:
            read_mapping(path)
        assert str(raised.value).startswith(f"{path}: expected a readable file ({reason}")


def test_a_value_that_is_no_yaml_is_named_with_its_source() -> None:
    with pytest.raises(ConfigError, match=r"--set seeds:1: expected YAML \("):
        parse_scalar("[1, 2", source="--set seeds")
