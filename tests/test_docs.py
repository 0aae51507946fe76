"""What docs/ says of experiment files and metrics is what the code accepts and logs."""

import ast
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import pytest
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from actors.corrections import CorrectionConfig
from actors.lr_policies import SchedulerConfig
from actors.statistics import MismatchSums
from orchestrator.config import ExperimentConfig
from orchestrator.evaluation_metrics import evaluation_keys
from orchestrator.experiment_file import ExperimentFile
from orchestrator.metric_keys import CORRECTION
from orchestrator.task_config import TaskConfig

ROOT = Path(__file__).resolve().parents[1]
DOCS = sorted((ROOT / "docs").glob("*.md"))
METHOD, EXPERIMENT_FILE, METRICS = (
    (ROOT / "docs" / f"{name}.md").read_text() for name in ("method", "experiment-file", "metrics")
)

# What the code puts together from pieces or writes without an area; `literal_keys` finds the others by itself.
COMPOSED_KEYS = {
    *(f"scheduler/event/{event}" for event in ("surge", "decay", "floor")),
    *(f"time/{phase}" for phase in ("rollout", "score", "evaluate", "gradients", "decide", "apply", "publish")),
    *CORRECTION,
    *(key.replace("@7", "@<n>") for key in evaluation_keys("<set>", 7)),
}
AREAS = "correction|eval|gradient|mismatch|policy|response|reward|sampling|scheduler|stability|throughput|time"
KEY = re.compile(rf"(?:{AREAS})/\w+")
YAML_BLOCK = re.compile(r"^```ya?ml\n(name:.*?)^```", re.MULTILINE | re.DOTALL)


def in_backticks(text: str) -> set[str]:
    return set(re.findall(r"`([^`\n]+)`", text))


def rows(text: str) -> list[list[str]]:
    """The cells of every table row of a page."""
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line.startswith("|")]


def tables(text: str) -> list[list[list[str]]]:
    """The rows of each table of a page, its header first."""
    return [rows(block) for block in re.findall(r"(?:^\|.*\n)+", text, re.MULTILINE)]


def models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    """The config classes that a field's annotation names, on its own or in a union."""
    for part in (annotation, *get_args(annotation)):
        if isinstance(part, type) and issubclass(part, BaseModel):
            yield part


def kinds(union: Any) -> dict[str, type[BaseModel]]:
    """The config classes of a tagged union, by kind."""
    return {get_args(model.model_fields["kind"].annotation)[0]: model for model in models_in(get_args(union)[0])}


# The config classes whose own keys stand in a table of kinds.
UNIONS = (SchedulerConfig, CorrectionConfig, TaskConfig)
OF_A_KIND = {model for union in UNIONS for model in kinds(union).values()}


def fields_of(model: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, FieldInfo]]:
    """Dotted path and field of everything an experiment file may hold; of a kind only what is in blocks below it."""
    for name, field in model.model_fields.items():
        yield f"{prefix}{name}", field
        for below in models_in(field.annotation):
            for path, inner in fields_of(below, f"{prefix}{name}."):
                if below not in OF_A_KIND or path.count(".") > prefix.count(".") + 1:
                    yield path, inner


def default_cell(field: FieldInfo) -> str:
    """How a table writes a field's default."""
    if field.is_required():
        return "required"
    value = field.get_default(call_default_factory=True)
    if isinstance(value, BaseModel):
        return "none" if getattr(value, "kind", None) == "none" else "all defaults"
    if value == {}:
        return "none"
    return value if isinstance(value, str) else json.dumps(value)


def literal_keys() -> set[str]:
    """The metric keys that stand in the four packages as they are, with the phases that the clock is told."""
    found = set()
    for package in ("actors", "cluster", "orchestrator", "sweeps"):
        for path in (ROOT / package).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.Constant) and isinstance(node.value, str) and KEY.fullmatch(node.value):
                    found.add(node.value)
                if isinstance(node, ast.Call) and getattr(node.func, "attr", "") == "phase":
                    found |= {f"time/{name.value}" for name in node.args if isinstance(name, ast.Constant)}
    return found


def yaml_blocks(text: str) -> list[str]:
    """The YAML code blocks of a page that are whole experiment files."""
    return YAML_BLOCK.findall(text)


# The pages.


def test_every_key_of_an_experiment_file_is_documented_with_its_default() -> None:
    documented = {cells[0].strip("`"): cells[2] for cells in rows(EXPERIMENT_FILE) if len(cells) == 4}
    expected = {path: default_cell(field) for path, field in fields_of(ExperimentConfig)}
    assert {path: documented.get(path) for path in expected} == expected


def test_every_documented_key_of_an_experiment_file_exists() -> None:
    known = {path for path, _ in fields_of(ExperimentConfig)}
    keys = [cells[0] for cells in rows(EXPERIMENT_FILE) if len(cells) == 4 and cells[0].startswith("`")]
    assert {key.strip("`") for key in keys} - known == set()


@pytest.mark.parametrize(
    ("union", "column"),
    [(SchedulerConfig, "length_triggered"), (CorrectionConfig, "token_tis"), (TaskConfig, "python")],
)
def test_every_parameter_of_every_kind_is_documented_with_its_default(union: Any, column: str) -> None:
    ((header, *cells),) = [table for table in tables(EXPERIMENT_FILE) if column in table[0]]
    table = [dict(zip(header, row, strict=True)) for row in cells]
    documented = {row["key"].strip("`"): row for row in table if row["key"].startswith("`")}
    assert set(kinds(union)) == set(header[1:-1])
    for kind, model in kinds(union).items():
        expected = {name: default_cell(field) for name, field in model.model_fields.items() if name != "kind"}
        assert {name: row[kind] for name, row in documented.items() if row[kind] != "-"} == expected, kind


def test_every_field_of_every_config_is_named_in_backticks() -> None:
    named = in_backticks(EXPERIMENT_FILE)
    wanted = {path for path, _ in fields_of(ExperimentConfig)}
    wanted |= {name for model in OF_A_KIND for name in model.model_fields if name != "kind"}
    assert wanted - named == set()


def test_every_mismatch_metric_has_its_formula_in_section_two() -> None:
    section = METHOD.partition("\n## 2. ")[2].partition("\n## 3. ")[0]
    formulas = {cells[0].strip("`") for cells in rows(section) if cells[0].startswith("`")}
    assert formulas == set(MismatchSums.from_logprobs([-1.0], [-1.0], [1]).metrics())


def test_every_metric_that_the_code_can_log_is_documented() -> None:
    named = in_backticks(METHOD) | in_backticks(METRICS)
    assert (literal_keys() | COMPOSED_KEYS) - named == set()


def test_every_experiment_in_the_docs_validates(tmp_path: Path) -> None:
    blocks = [block for page in DOCS for block in yaml_blocks(page.read_text())]
    assert blocks, "no experiment in docs/: this test would prove nothing"
    for block in blocks:
        (tmp_path / "experiment.yaml").write_text(block)
        assert ExperimentFile.read(tmp_path / "experiment.yaml").tree["name"]


def test_method_has_the_sections_that_docstrings_refer_to() -> None:
    sections = set(re.findall(r"^## (\d+)\. ", METHOD, re.MULTILINE))
    sources = [path.read_text() for package in ("actors", "orchestrator") for path in (ROOT / package).rglob("*.py")]
    cited = {number for text in sources for number in re.findall(r"method\.md section (\d+)", text)}
    assert sections == set("123456789")
    assert cited
    assert cited <= sections


@pytest.mark.parametrize("page", DOCS, ids=lambda page: page.name)
def test_a_page_stays_readable(page: Path) -> None:
    assert page.read_text().count("\n") < 300


# The checks can fail.


def test_the_scan_finds_the_keys_that_the_code_writes() -> None:
    assert {"gradient/norm", "reward/mean", "response/length_mean_kept", "time/step", "time/publish"} <= literal_keys()


def test_tables_and_experiments_are_found_in_a_page() -> None:
    page = "| `a.b` | integer | 3 |\n```yaml\nname: x\nsteps: 1\n```\n```yaml\nother: 1\n```\n"
    assert rows(page) == [["`a.b`", "integer", "3"]]
    assert yaml_blocks(page) == ["name: x\nsteps: 1\n"]
