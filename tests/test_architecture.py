"""The tree keeps to its architecture: arrows, no cycles, short files, docstrings, cheap configs, no machine paths."""

import ast
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

# Each package and those of ours that it may import.
ARROWS = {
    "actors": set[str](),
    "cluster": set[str](),
    "orchestrator": {"actors", "cluster"},
    "sweeps": {"actors", "cluster", "orchestrator"},
}
MAX_FILE_LINES = 300
MAX_FUNCTION_LINES = 60
HEAVY = {"torch", "ray", "vllm", "mlflow", "optuna"}

# Spelled in pieces, so that this file passes its own test.
HOSTS = re.compile(
    r"py" r"pi\.org|python" r"hosted\.org|npm" r"js\.(?:org|com)|(?:deb|security|snapshot)\.deb" r"ian\.org"
    r"|download\.py" r"torch\.org|conda\.ana" r"conda\.org"
)  # fmt: skip
MACHINE_PATHS = re.compile(r"(?<![\w/.~)}-])/(?:(?:opt|work|root)/[\w.-]+|home/[\w.-]+)")
ALLOWED_HOST = re.compile(r"^TORCH_CPU_INDEX \?= \S+$", re.MULTILINE)


# What the tests below stand on. A "tree" maps module names to their parsed source.


def house_files() -> list[Path]:
    """Every Python file of the four packages."""
    return sorted(path for package in ARROWS for path in (ROOT / package).rglob("*.py"))


def module_name(path: Path) -> str:
    """`actors/config.py` -> `actors.config`, `actors/__init__.py` -> `actors`."""
    parts = path.with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def house_tree() -> dict[str, ast.Module]:
    """The four packages as module name -> parsed source; for a package the name is that of its `__init__`."""
    return {module_name(path.relative_to(ROOT)): ast.parse(path.read_text()) for path in house_files()}


def imports(module: str, source: ast.Module, is_package: bool = False) -> Iterator[str]:
    """Every dotted name that a module imports, anywhere in it; `from a import b` yields `a.b` (b may be a module)."""
    for node in ast.walk(source):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = module.split(".")[: None if is_package else -1]
            above = base[: len(base) - node.level + 1] if node.level else []
            origin = ".".join([*above, *([node.module] if node.module else [])])
            yield from (f"{origin}.{alias.name}" for alias in node.names)


def is_package(module: str, tree: dict[str, ast.Module]) -> bool:
    """Whether other modules of the tree lie below this one."""
    return any(other.startswith(f"{module}.") for other in tree)


def wrong_arrows(tree: dict[str, ast.Module]) -> list[str]:
    """`module -> imported` for every import that points where no arrow does, and for ray outside cluster."""
    wrong = []
    for module, source in tree.items():
        package = module.partition(".")[0]
        for name in imports(module, source, is_package(module, tree)):
            target = name.partition(".")[0]
            of_ours = target in ARROWS and target != package
            if (of_ours and target not in ARROWS[package]) or (target == "ray" and package != "cluster"):
                wrong.append(f"{module} -> {name}")
    return wrong


def import_cycle(tree: dict[str, ast.Module]) -> list[str]:
    """The modules of one import cycle, the first of them again at the end; empty when there is none."""

    def resolve(name: str) -> str | None:
        return name if name in tree else name.rpartition(".")[0] if name.rpartition(".")[0] in tree else None

    graph: dict[str, set[str]] = {}
    for module, source in tree.items():
        targets = {resolve(name) for name in imports(module, source, is_package(module, tree))}
        graph[module] = {target for target in targets if target and target != module}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return list(error.args[1])
    return []


def too_long(name: str, text: str) -> list[str]:
    """The file when it has too many lines, and its functions that have."""
    lines = text.count("\n")
    found = [f"{name} ({lines} lines)"] if lines > MAX_FILE_LINES else []
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            length = (node.end_lineno or node.lineno) - node.lineno + 1
            if length > MAX_FUNCTION_LINES:
                found.append(f"{name}:{node.lineno} {node.name} ({length} lines)")
    return found


def leaks(name: str, text: str) -> list[str]:
    """Registry hosts and absolute machine paths in a file, as `file:line found`."""
    if name == "Makefile":
        text = ALLOWED_HOST.sub("TORCH_CPU_INDEX", text)
    matches = [*HOSTS.finditer(text), *MACHINE_PATHS.finditer(text)]
    return [f"{name}:{text.count(chr(10), 0, match.start()) + 1} {match.group()}" for match in matches]


def repository_files() -> Iterator[str]:
    """Paths of all files that are, or could be, committed; without git, of all files outside the usual litter."""
    listing = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    try:
        done = subprocess.run(listing, cwd=ROOT, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        litter = {".git", ".venv", "runs", "mlruns", "__pycache__"}
        for folder, folders, files in os.walk(ROOT):
            folders[:] = [name for name in folders if name not in litter and not name.endswith(("_cache", ".egg-info"))]
            yield from (str((Path(folder) / name).relative_to(ROOT)) for name in files)
    else:
        yield from (name for name in done.stdout.splitlines() if (ROOT / name).is_file())


# The tree.


def test_imports_follow_the_arrows_and_only_cluster_imports_ray() -> None:
    assert wrong_arrows(house_tree()) == []


def test_our_modules_import_each_other_in_no_cycle() -> None:
    assert import_cycle(house_tree()) == []


def test_every_module_opens_with_a_docstring() -> None:
    files = [ROOT / name for name in repository_files() if name.endswith(".py")]
    assert [str(path.relative_to(ROOT)) for path in files if not ast.get_docstring(ast.parse(path.read_text()))] == []


def test_files_and_functions_stay_short() -> None:
    assert [row for path in house_files() for row in too_long(str(path.relative_to(ROOT)), path.read_text())] == []


def test_no_file_names_a_registry_host_or_a_path_of_this_machine() -> None:
    found = []
    for name in repository_files():
        try:
            found += leaks(name, (ROOT / name).read_text(encoding="utf-8"))
        except UnicodeDecodeError:
            continue  # model weights and pictures
    assert found == []


def test_importing_a_config_loads_nothing_heavy() -> None:
    configs = [module_name(path.relative_to(ROOT)) for path in house_files() if path.name == "config.py"]
    assert configs, "no config.py in the four packages: this test would prove nothing"
    for config in configs:
        code = f"import sys, {config}; print(*sorted({HEAVY!r} & set(sys.modules)))"
        done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        assert done.stdout.split() == [], f"importing {config} loads {done.stdout.strip()}"


# The checks can fail.


def parsed(**sources: str) -> dict[str, ast.Module]:
    """A tree from hand-made sources; `__` in a keyword stands for the dot."""
    return {name.replace("__", "."): ast.parse(source) for name, source in sources.items()}


@pytest.mark.parametrize(
    ("module", "source", "found"),
    [
        ("actors.losses", "import cluster.pool", ["actors.losses -> cluster.pool"]),
        ("actors.losses", "def f():\n    from ray import get", ["actors.losses -> ray.get"]),
        ("cluster.pool", "import ray\nfrom actors import losses", ["cluster.pool -> actors.losses"]),
        ("orchestrator.loop", "from sweeps.study import Study", ["orchestrator.loop -> sweeps.study.Study"]),
        ("sweeps.study", "from cluster import pool\nfrom . import space\nimport orchestrator", []),
    ],
)
def test_an_arrow_that_points_up_is_found(module: str, source: str, found: list[str]) -> None:
    assert wrong_arrows({module: ast.parse(source)}) == found


def test_a_cycle_is_found_however_it_is_spelled() -> None:
    absolute = parsed(actors__a="from actors import b", actors__b="import actors.a")
    relative_and_late = parsed(actors__a="from .b import B", actors__b="def f():\n    from actors.a import A")
    assert set(import_cycle(absolute)) == set(import_cycle(relative_and_late)) == {"actors.a", "actors.b"}


def test_a_room_that_imports_from_its_own_package_is_a_cycle_unless_it_names_a_sibling() -> None:
    cyclic = parsed(actors__p="from .c import C", actors__p__c="from actors.p import Base")
    sound = parsed(actors__p="from .c import C", actors__p__c="from actors.p import base", actors__p__base="")
    assert set(import_cycle(cyclic)) == {"actors.p", "actors.p.c"}
    assert import_cycle(sound) == []


def test_long_files_and_functions_are_found() -> None:
    body = "    pass\n"
    assert too_long("a.py", "x = 1\n" * 300 + "def f():\n" + body * 59) == ["a.py (360 lines)"]
    assert too_long("a.py", "def f():\n" + body * 60) == ["a.py:1 f (61 lines)"]
    assert too_long("a.py", "def f():\n" + body * 59) == []


def test_hosts_and_machine_paths_are_found() -> None:
    host, index = "files.python" + "hosted.org", "https://download.py" + "torch.org/whl/cpu"
    assert leaks("a.txt", f"one\nhttps://{host}/x") == ["a.txt:2 python" + "hosted.org"]
    assert leaks("Makefile", f"TORCH_CPU_INDEX ?= {index}\n") == []
    assert leaks("Makefile", f"A = {index}\n") == ["Makefile:1 download.py" + "torch.org"]
    for path in ("/opt" + "/wheels", "/root" + "/.cache", "/work" + "/main", "/home" + "/ada"):
        assert leaks("a.py", f"open('{path}')") == [f"a.py:1 {path}"]
    for path in ("runs", "~", "${HOME}", "https://a.b", "huggingface.co"):
        assert leaks("a.py", path + "/work" + "/x") == []
