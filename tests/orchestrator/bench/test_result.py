"""What a benchmark found, on the screen and as JSON."""

import json
from pathlib import Path

import pytest
from rich.console import Console

from orchestrator.bench.machine import Machine
from orchestrator.bench.pairs import Pairs
from orchestrator.bench.result import Figure, Result
from orchestrator.config_errors import ConfigError

MACHINE = Machine(
    cpu="a processor", cores=2, memory_gib=24.0, load=0.5, versions={"python": "3.11", "torch": "2"}, commit="abc"
)
PAIRS = Pairs(ours=(1.0, 1.2, 1.1), bare=(1.0, 1.0, 1.0))


def result(*figures: Figure) -> Result:
    return Result(benchmark="step", settings={"pairs": 3}, figures=figures, machine=MACHINE)


def shown(*figures: Figure) -> str:
    console = Console(width=120, record=True, file=None, quiet=False)
    with console.capture() as captured:
        result(*figures).show(console)
    return captured.get()


def test_a_target_is_a_ceiling_or_a_floor_or_there_is_none() -> None:
    assert Figure(name="a", value=1.0, target=1.1).holds is True
    assert Figure(name="a", value=1.2, target=1.1).holds is False
    assert Figure(name="a", value=0.7, target=0.8, at_least=True).holds is False
    assert Figure(name="a", value=0.9, target=0.8, at_least=True).holds is True
    assert Figure(name="a", value=0.9).holds is None


def test_the_table_names_figure_spread_target_and_machine() -> None:
    text = shown(Figure.ratio("whole / parts", PAIRS, 1.05), Figure(name="seconds", value=2.5, unit="s"))
    for piece in ("whole / parts", "1.1", "1.05 to 1.15", "at most 1.05", "does not hold", "2.5 s"):
        assert piece in text
    for piece in ("a processor, 2 cores, 24 GiB, load 0.5", "torch 2", "commit abc"):
        assert piece in text


def test_large_numbers_are_whole_ones_and_small_ones_have_three_digits() -> None:
    text = shown(Figure(name="steps", value=1626.0), Figure(name="share", value=0.37208))
    assert "1,626" in text and "0.372 " in text


def test_the_json_has_every_single_measurement(tmp_path: Path) -> None:
    path = tmp_path / "new" / "step.json"
    result(Figure.ratio("whole / parts", PAIRS, 1.2)).write(path)
    written = json.loads(path.read_text())
    assert written["machine"]["versions"]["torch"] == "2"
    assert written["settings"] == {"pairs": 3}
    (figure,) = written["figures"]
    assert figure["pairs"] == {"ours": [1.0, 1.2, 1.1], "bare": [1.0, 1.0, 1.0]}
    assert (figure["value"], figure["target"], figure["holds"]) == (1.1, 1.2, True)
    assert figure["spread"]["median"] == pytest.approx(1.1)


def test_a_file_that_cannot_be_written_is_told_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match=r"--json: got '.*, expected a file that can be written"):
        result().write(tmp_path / "file" / "step.json")


def test_this_machine_tells_its_cores_memory_and_versions() -> None:
    machine = Machine.here()
    assert machine.cores >= 1 and machine.memory_gib > 0 and machine.cpu
    assert {"python", "torch", "ray", "numpy"} <= set(machine.versions)
