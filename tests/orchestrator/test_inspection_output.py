"""How an inspection looks: colours or brackets, nothing that acts on a terminal, and JSON that is JSON."""

import io
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from orchestrator.inspection import Inspection
from orchestrator.inspection_output import WINDOW, as_json, show, visible


def inspected(path: Path, diffs: list[list[float]], **others: list[Any]) -> Inspection:
    """Of a file whose sampler gives every token the log-prob -1."""
    columns = {
        "train_logprobs": [[diff - 1 for diff in row] for row in diffs],
        "rollout_logprobs": [[-1.0] * len(row) for row in diffs],
    }
    pq.write_table(pa.table({**columns, **others}), path)
    return Inspection.read(str(path))


def printed(inspection: Inspection, top: int = 10, **options: Any) -> str:
    file = io.StringIO()
    show(inspection, Console(file=file, width=100, **options), top)
    return file.getvalue()


COLOURED: dict[str, Any] = {"force_terminal": True, "color_system": "truecolor", "no_color": False}
TOKENS = [["The", " [bold]answer[/bold]", "\n", "\x1b[2J\x9b3m\r\u202e", "4"]]
DIFFS = [[0.0, 0.5, 0.02, -2.0, -0.2]]


@pytest.fixture
def small(tmp_path: Path) -> Inspection:
    others = {"prompt": ["so\x1b]0;title\x07?"], "answer": ["[red]\x1b[31m"], "step": [7], "score": [math.nan]}
    return inspected(tmp_path / "r\x1b[1m[b].parquet", DIFFS, tokens=TOKENS, **others)


def test_without_colours_the_worst_tokens_stand_in_brackets(small: Inspection) -> None:
    lines = printed(small).splitlines()
    body = next(line for line in lines if "The" in line)
    escaped = r"\x1b[2J\x9b3m\r\u202e"
    assert body == rf"so\x1b]0;title\x07? The[ [bold]answer[/bold] +0.5][↵ +0.02][{escaped} -2][4 -0.2]"
    assert any(
        "row 0, 5 tokens, mean d -0.336, sum d -1.68, step 7, answer [red]\\x1b[31m, score nan" in line
        for line in lines
    )
    assert any("in brackets: up to 5 tokens" in line for line in lines)


@pytest.mark.parametrize("options", [{}, COLOURED, {"force_terminal": True, "no_color": True}])
def test_no_text_of_the_file_acts_on_the_terminal(small: Inspection, options: dict[str, Any]) -> None:
    plain = printed(small, **options)
    for sequence in ("\x1b[2J", "\x1b]0;", "\x1b[31m", "\x07", "\x9b", "\r", "\u202e", "\x1b[1m[b]"):
        assert sequence not in plain
    assert "[bold]answer[/bold]" in plain


def test_no_color_in_the_environment_gives_brackets(small: Inspection, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    text = printed(small, force_terminal=True, color_system="truecolor")
    assert "[4 -0.2]" in text
    assert "48;2;" not in text


def test_colours_say_who_finds_a_token_likelier_and_how_far(small: Inspection) -> None:
    text = printed(small, **COLOURED)
    assert "\x1b[30;48;2;143;180;255m [bold]answer[/bold]\x1b[0m" in text  # 0.5: blue
    assert "\x1b[30;48;2;214;228;255m↵\x1b[0m" in text  # 0.02: pale blue
    assert "\x1b[37;48;2;200;30;30m\\x1b[2J" in text  # -2: deep red
    assert "\x1b[30;48;2;255;154;138m4\x1b[0m" in text  # -0.2: red
    assert "|d| from \x1b[30;48;2;214;228;255m 0.01 \x1b[0m" in text
    assert "[4 " not in text


def test_the_scale_of_colours_follows_small_differences(tmp_path: Path) -> None:
    text = printed(inspected(tmp_path / "r.parquet", [[3e-5, 0.0]]), **COLOURED)
    assert " 1e-07 " in text
    assert "\x1b[37;48;2;28;79;208m 1e-05 " in text


def test_a_long_response_is_cut_to_the_part_around_its_worst_token(tmp_path: Path) -> None:
    diffs = np.zeros(1000)
    diffs[500] = 1.0
    tokens = [f" t{position}" for position in range(1000)]
    found = inspected(tmp_path / "r.parquet", [diffs.tolist()], tokens=[tokens], prompt=["p" * 1000])
    body = next(line for line in printed(found).splitlines() if "t500" in line)
    assert "[ t500 +1]" in body
    assert body.startswith("…ppp")
    assert body.endswith(" …")
    assert body.count(" t") == WINDOW


def test_tables_count_tokens_and_a_sequence_is_shown_once(small: Inspection) -> None:
    text = printed(small)
    assert "by position in the response" in text
    row = next(line for line in text.splitlines() if "1-3" in line)
    assert [cell.strip() for cell in row.split("│")[1:6]] == ["1-3", "3", "0.84", "-0.49", "2"]
    assert text.count("title") == 1  # of the prompt
    assert "(see above)" in text
    row = next(line for line in text.splitlines() if "row 0 │" in line)
    assert [cell.strip() for cell in row.split("│")[1:6]] == ["row 0", "3", "-2", "0.0498", "0.368"]


def test_top_limits_what_is_shown(tmp_path: Path) -> None:
    found = inspected(tmp_path / "r.parquet", [[0.1 * n] for n in range(1, 6)])
    text = printed(found, top=2)
    assert [f"row {n}" in text for n in range(5)] == [False, False, False, True, True]


def test_a_file_without_any_difference_has_tables_only(tmp_path: Path) -> None:
    text = printed(inspected(tmp_path / "r.parquet", [[0.0, 0.0]]))
    assert "no token has different log-probs" in text
    assert "largest" not in text


def test_a_terminal_of_few_characters_gets_only_those(small: Inspection) -> None:
    raw = io.BytesIO()
    file = io.TextIOWrapper(raw, encoding="ascii")
    show(small, Console(file=file, width=100), 10)
    file.flush()
    assert b"\\u21b5 +0.02" in raw.getvalue()


def test_json_holds_all_that_was_kept_and_nothing_that_is_no_json(small: Inspection) -> None:
    tree = json.loads(json.dumps(as_json(small), allow_nan=False))
    assert tree["metrics"]["tokens"] == 5
    assert tree["steps"] == [7, 7]
    assert tree["by_position"]["0"] == {
        **{"tokens": 1, "mean_abs_diff": 0.0, "mean_diff": 0.0, "max_abs_diff": 0.0, "mean_prob_abs_diff": 0.0}
    }
    assert tree["by_probability"]["<1e-4"]["mean_diff"] is None
    (sequence,) = tree["worst_by_mean"]
    assert (sequence["tokens"], sequence["diffs"]) == (TOKENS[0], pytest.approx(DIFFS[0]))
    assert sequence["facts"] == {"step": 7, "answer": "[red]\x1b[31m", "score": None}
    assert [token["position"] for token in tree["worst_tokens"]] == [3, 1, 4, 2]


@given(st.text())
def test_visible_text_is_printable_in_any_encoding(text: str) -> None:
    assert visible(text).isprintable()
    assert visible(text, "ascii").isascii()


def test_what_is_printable_stays_as_it_is() -> None:
    assert visible("Größe 数 ✓") == "Größe 数 ✓"
