"""JSON lines: what is an object, what is passed over, and what is told of the rest."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.config_errors import ConfigError
from orchestrator.json_lines import json_objects

values = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**30), 10**30) | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(
    rows=st.lists(st.dictionaries(st.text(), values, max_size=4)), blank=st.sampled_from([b"\n", b" \t\r\n", b"\r\n"])
)
def test_objects_come_back_with_their_numbers_and_blank_lines_are_passed_over(
    rows: list[dict[str, object]], blank: bytes
) -> None:
    lines = [line for row in rows for line in (json.dumps(row).encode() + b"\n", blank)]
    assert list(json_objects(lines, "f")) == list(zip(range(1, 2 * len(rows), 2), rows, strict=True))


def test_a_mark_may_stand_before_the_first_line_only() -> None:
    assert list(json_objects([b'\xef\xbb\xbf{"a": 1}\n'], "f")) == [(1, {"a": 1})]
    with pytest.raises(ConfigError, match=r"^f: line 2: got "):
        list(json_objects([b"{}\n", b"\xef\xbb\xbf{}\n"], "f"))


@pytest.mark.parametrize(
    ("line", "told"),
    [
        (b"3\n", "got 3, expected a JSON object"),
        (b"null\n", "got null, expected a JSON object"),
        (b"{'a': 1}\n", "expected a JSON object (key must be a string)"),
        (b'{"a": 1\n', "expected a JSON object (EOF while parsing an object)"),
        (b'{"a": 1', "expected a JSON object (EOF while parsing an object; the file ends within this line)"),
        (b"[" * 100_000 + b"\n", "expected a JSON object (recursion limit exceeded)"),
        (b'{"a": 1' + b"0" * 5000 + b"}\n", "expected a JSON object (number out of range)"),
        (b'{"\xff": 1}\n', "expected a JSON object (invalid unicode code point)"),
    ],
)
def test_a_line_that_is_no_object_is_told_with_its_number(line: bytes, told: str) -> None:
    with pytest.raises(ConfigError) as raised:
        list(json_objects([b"{}\n", b"\n", line], "f.jsonl"))
    assert str(raised.value).startswith("f.jsonl: line 3: got ")
    assert str(raised.value).endswith(told)
