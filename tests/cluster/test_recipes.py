"""Every recipe parses, names only fields that its reader knows, and keeps what they all promise."""

import copy
import json
import os
import re
import signal
import subprocess
import time
import tomllib
from collections.abc import Iterator
from fnmatch import fnmatch
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import ray.autoscaler
import typer
import yaml
from ray.autoscaler._private.util import prepare_config, validate_config

from sweeps.cli import app

ROOT = Path(__file__).resolve().parents[2]
DATA = ROOT / "tests" / "data"
RAY_SOURCE = Path(ray.autoscaler.__file__).parent

RAY_UP = ("aws", "gcp", "on-prem")
YAML = (*RAY_UP, "kuberay-rayjob")
FILES = (*(f"{name}.yaml" for name in YAML), "slurm.sbatch")

NODE_CONFIG = {"aws": "ec2.json", "gcp": "gce.json"}
COMMANDS = re.compile(r"(setup|start_ray|initialization)_commands$")
# Not imported: Ray's command line takes Ray Serve along.
_COMMAND_LINE = (Path(ray.__file__).parent / "scripts" / "scripts.py").read_text().partition("\ndef start(")[0]
START_OPTIONS = set(re.findall(r'"--([a-z-]+)"', _COMMAND_LINE.rpartition("@cli.command")[2]))
# Mappings whose keys are the writer's own, by the name of the field that holds them.
FREE = {"metadata", "available_node_types", "file_mounts", "annotations", "labels"}
# Ray and Kubernetes take resources of any name; these are what our plans ask for.
RESOURCES = {"CPU", "GPU"}
POD_RESOURCES = {"cpu", "memory", "nvidia.com/gpu"}


def text(file: str) -> str:
    return (ROOT / "cluster" / file).read_text()


@cache
def parsed(name: str) -> dict[str, Any]:
    recipe: dict[str, Any] = yaml.safe_load(text(f"{name}.yaml"))
    return recipe


def load(name: str) -> dict[str, Any]:
    # Not a deep copy: what an anchor shares would stay shared, and a change made once be seen twice.
    recipe: dict[str, Any] = json.loads(json.dumps(parsed(name)))
    return recipe


@cache
def validator(path: Path) -> jsonschema.Draft7Validator:
    return jsonschema.Draft7Validator(json.loads(path.read_text()))


RAY_SCHEMA = RAY_SOURCE / "ray-schema.json"
JOB_SCHEMA = DATA / "kuberay" / "rayjob.json"


def faults(value: Any, against: Path) -> list[str]:
    return [f"{error.json_path}: {error.message}" for error in validator(against).iter_errors(value)]


@cache
def provider_source(kind: str) -> str:
    return "".join(file.read_text() for file in (RAY_SOURCE / "_private" / kind).glob("*.py"))


def provider_faults(provider: dict[str, Any]) -> list[str]:
    """Ray's schema leaves this block open: what the provider's source does not read is a mistake."""
    read = provider_source(provider["type"])
    return [f"provider.{key}: unknown" for key in provider if f'"{key}"' not in read and key != "type"]


def pod_groups(job: dict[str, Any]) -> list[dict[str, Any]]:
    cluster = job["spec"]["rayClusterSpec"]
    return [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]


def container(group: dict[str, Any]) -> dict[str, Any]:
    (only,) = group["template"]["spec"]["containers"]
    found: dict[str, Any] = only
    return found


def mistakes(name: str, recipe: dict[str, Any]) -> list[str]:
    """What is wrong with a recipe, by the schemas of those who read it."""
    if name == "kuberay-rayjob":
        found = faults(recipe, JOB_SCHEMA)
        for group in pod_groups(recipe) if not found else []:
            found += sorted(group["rayStartParams"].keys() - START_OPTIONS)
            for amounts in container(group)["resources"].values():
                found += sorted(amounts.keys() - POD_RESOURCES)
        return found
    found = faults(recipe, RAY_SCHEMA)
    if not found:
        found += provider_faults(recipe["provider"])
    if name in NODE_CONFIG and not found:
        for node_type in recipe["available_node_types"].values():
            found += sorted(node_type["resources"].keys() - RESOURCES)
            found += faults(node_type["node_config"], DATA / "clouds" / NODE_CONFIG[name])
    return found


def fields(value: Any, path: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    """The paths of all fields of a recipe whose names somebody else has chosen."""
    if isinstance(value, dict):
        for key, inner in value.items():
            if not (path and path[-1] in FREE):
                yield (*path, key)
            if path or key not in ("metadata", "file_mounts"):
                yield from fields(inner, (*path, key))
    if isinstance(value, list):
        for index, inner in enumerate(value):
            yield from fields(inner, (*path, index))


def misspelt(recipe: dict[str, Any], path: tuple[str | int, ...]) -> dict[str, Any]:
    changed = copy.deepcopy(recipe)
    holder: Any = changed
    for step in path[:-1]:
        holder = holder[step]
    holder[f"{path[-1]}z"] = holder.pop(path[-1])
    return changed


def shell_lines(recipe: dict[str, Any]) -> list[str]:
    return [line for key, lines in recipe.items() if COMMANDS.search(key) for line in lines]


def ray_starts(file: str) -> list[str]:
    """The `ray start` commands of a recipe, continued lines joined."""
    if file.endswith(".yaml"):
        lines = shell_lines(yaml.safe_load(text(file)))
    else:
        lines = text(file).replace("\\\n", " ").splitlines()
    return [line[line.index("ray start") :] for line in lines if "ray start" in line and not line.startswith("#")]


@pytest.mark.parametrize("name", YAML)
def test_a_recipe_names_only_fields_that_its_reader_knows(name: str) -> None:
    assert mistakes(name, load(name)) == []


@pytest.mark.parametrize("name", YAML)
def test_any_field_that_is_misspelt_is_found(name: str) -> None:
    recipe = load(name)
    paths = list(fields(recipe))
    assert len(paths) > 10
    assert [path for path in paths if not mistakes(name, misspelt(recipe, path))] == []


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("spec", "ttlSecondsAfterFinished"), "600"),
        (("spec", "rayClusterSpec", "authOptions", "mode"), "tokens"),
        (("spec", "rayClusterSpec", "headGroupSpec", "rayStartParams", "num-gpus"), 0),
        (("spec", "rayClusterSpec", "headGroupSpec", "rayStartParams"), {"num-gpu": "0"}),
        (("spec", "rayClusterSpec", "workerGroupSpecs", 0, "replicas"), "two"),
    ],
)
def test_a_value_of_the_wrong_kind_is_found_in_a_rayjob(path: tuple[str | int, ...], value: object) -> None:
    recipe: Any = load("kuberay-rayjob")
    holder = recipe
    for step in path[:-1]:
        holder = holder[step]
    holder[path[-1]] = value
    assert len(mistakes("kuberay-rayjob", recipe)) == 1


@pytest.mark.parametrize("name", RAY_UP)
def test_ray_prepares_and_accepts_what_ray_up_would_read(name: str) -> None:
    prepared = prepare_config(load(name))
    validate_config(prepared)
    types = prepared["available_node_types"]
    workers = {kind: node for kind, node in types.items() if name == "on-prem" or kind != prepared["head_node_type"]}
    assert prepared["max_workers"] == sum(node["min_workers"] for node in workers.values()) > 0
    assert all(node["min_workers"] == node["max_workers"] for node in workers.values()), "a run needs all or none"


def test_what_is_said_of_a_google_machine_is_what_its_type_has() -> None:
    for node_type in load("gcp")["available_node_types"].values():
        assert node_type["resources"]["CPU"] == int(node_type["node_config"]["machineType"].rpartition("-")[2])


@pytest.mark.parametrize("name", RAY_UP)
def test_the_commands_of_a_recipe_are_shell(name: str) -> None:
    lines = shell_lines(load(name))
    assert len(lines) > 8
    # Each in a function of its own, so that nothing left open in one is closed by another.
    script = "".join(f"line{number}() {{\n{line}\n}}\n" for number, line in enumerate(lines))
    checked = subprocess.run(["bash", "-n"], input=script, capture_output=True, text=True, check=False)
    assert (checked.returncode, checked.stderr) == (0, "")


@pytest.mark.parametrize("name", RAY_UP)
def test_what_the_nodes_are_given_is_in_the_checkout(name: str) -> None:
    recipe = load(name)
    assert set(recipe["file_mounts"].values()) == {"requirements", "~/.ray/auth_token"}
    locks = set(re.findall(r"~/(requirements/\S+)", " ".join(shell_lines(recipe))))
    assert locks == {"requirements/gpu.txt"}
    assert all((ROOT / lock).is_file() for lock in locks)


@pytest.mark.parametrize("file", FILES)
def test_three_lines_on_top_are_to_be_edited(file: str) -> None:
    marked = [number for number, line in enumerate(text(file).splitlines(), 1) if "# EDIT" in line]
    assert len(marked) == 3
    assert marked[-1] <= 25


@pytest.mark.parametrize("file", [*(f"{name}.yaml" for name in RAY_UP), "slurm.sbatch"])
def test_ray_is_started_with_options_it_knows_without_gpus_on_the_head_and_its_dashboard_on_loopback(file: str) -> None:
    starts = ray_starts(file)
    assert len(starts) == 2
    for command in starts:
        assert set(re.findall(r"--([a-z-]+)", command)) <= START_OPTIONS
    head, worker = starts
    assert {"--head", "--num-gpus=0", "--dashboard-host=127.0.0.1"} <= set(head.split())
    assert "--address=" in worker
    assert "--num-gpus" not in worker
    assert "0.0.0.0" not in text(file)


@pytest.mark.parametrize("name", RAY_UP)
def test_every_ray_is_started_with_its_token_and_without_telemetry_and_the_token_is_the_owners_alone(name: str) -> None:
    lines = shell_lines(load(name))
    starts = [line for line in lines if "ray start" in line]
    assert all("; RAY_AUTH_MODE=token RAY_USAGE_STATS_ENABLED=0 ray start " in line for line in starts)
    assert "chmod 600 ~/.ray/auth_token" in lines


def test_a_rayjob_keeps_gpus_off_the_head_and_gangs_its_workers() -> None:
    job = load("kuberay-rayjob")
    cluster = job["spec"]["rayClusterSpec"]
    assert cluster["authOptions"] == {"mode": "token"}
    assert cluster["headGroupSpec"]["rayStartParams"]["num-gpus"] == "0"
    assert "nvidia.com/gpu" not in container(cluster["headGroupSpec"])["resources"]["limits"]
    assert "kueue.x-k8s.io/queue-name" in job["metadata"]["labels"]
    assert job["spec"]["shutdownAfterJobFinishes"] is True, "Kueue and the time to live both need it"
    assert cluster["enableInTreeAutoscaling"] is False, "Kueue needs it"
    for group in cluster["workerGroupSpecs"]:
        assert group["replicas"] == group["minReplicas"] == group["maxReplicas"]
        assert container(group)["resources"]["limits"]["nvidia.com/gpu"] > 0


def test_each_pod_of_a_rayjob_has_shared_memory_of_its_own_and_reports_to_nobody() -> None:
    for group in pod_groups(load("kuberay-rayjob")):
        volumes = {volume["name"]: volume for volume in group["template"]["spec"]["volumes"]}
        mounts = {mount["mountPath"]: volumes[mount["name"]] for mount in container(group)["volumeMounts"]}
        assert mounts.keys() == {"/dev/shm", "/shared"}
        memory = mounts["/dev/shm"]["emptyDir"]
        assert memory["medium"] == "Memory"
        limit = container(group)["resources"]["limits"]["memory"]
        assert int(memory["sizeLimit"].removesuffix("Gi")) < int(limit.removesuffix("Gi")) / 2
        environment = {entry["name"]: entry["value"] for entry in container(group)["env"]}
        assert environment["RAY_USAGE_STATS_ENABLED"] == "0"


def test_the_versions_in_the_recipes_are_those_of_the_locks() -> None:
    (ray_version,) = re.findall(r"^ray\[default]==(\S+)", (ROOT / "requirements" / "common.in").read_text(), re.M)
    python = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["requires-python"]
    (python_version,) = re.findall(r">=(3\.\d+)", python)
    image = f"rayproject/ray:{ray_version}-py{python_version.replace('.', '')}-gpu"
    assert re.findall(r"rayproject/ray:\S+", text("kuberay-rayjob.yaml")) == [image]
    assert load("kuberay-rayjob")["spec"]["rayClusterSpec"]["rayVersion"] == ray_version
    for name in RAY_UP:
        assert re.findall(r"--python (3\.\d+)", text(f"{name}.yaml")) == [python_version]


@pytest.mark.parametrize("file", FILES)
def test_what_a_recipe_submits_is_a_command_of_ours(file: str) -> None:
    if file == "slurm.sbatch":
        (arguments,) = re.findall(r"^command=\((.*?)\)", text(file), re.M)
    elif file == "kuberay-rayjob.yaml":
        entrypoint = load("kuberay-rayjob")["spec"]["entrypoint"]
        assert re.fullmatch(r"[\w./ -]+", entrypoint), "KubeRay pastes it into a shell line"
        arguments = entrypoint.removeprefix("python -m sweeps ")
    else:
        (arguments,) = re.findall(r"python -m sweeps ([^#\n]*?) +#", text(file))
    name, *rest = arguments.split()
    command = typer.main.get_command(app).commands[name]  # type: ignore[attr-defined]
    context = command.make_context(name, [*rest, "--resume"])
    assert {"file": "S.yaml", "resume": True}.items() <= context.params.items()


@pytest.mark.parametrize("file", FILES)
def test_a_recipe_names_no_host_and_is_packaged(file: str) -> None:
    assert set(re.findall(r"\w+://[^\s/]+", text(file))) <= {"http://127.0.0.1:8265", "s3://", "gs://"}
    patterns = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["package-data"]["cluster"]
    assert any(fnmatch(file, pattern) for pattern in patterns)


def directives(script: str) -> list[list[str]]:
    """The options of each part of a heterogeneous job, without values."""
    parts: list[list[str]] = [[]]
    for line in re.findall(r"^#SBATCH (.*)$", script, re.M):
        options = line.split(" #")[0].split()
        if options == ["hetjob"]:
            parts.append([])
        else:
            parts[-1] += options
    return parts


def unknown_directives(script: str) -> list[str]:
    names = (DATA / "slurm" / "sbatch-options.txt").read_text().splitlines()
    given = [option for part in directives(script) for option in part]
    return [option for option in given if option.removeprefix("--").split("=")[0] not in names or option[:2] != "--"]


def test_slurm_knows_the_directives() -> None:
    assert unknown_directives(text("slurm.sbatch")) == []
    head, workers = directives(text("slurm.sbatch"))
    assert "gpu" not in " ".join(head)
    assert "gpus-per-node" in " ".join(workers)


@pytest.mark.parametrize("directive", ["--node=2", "--gpu-per-node=4", "-N2", "exclusive"])
def test_a_directive_that_slurm_does_not_know_is_found(directive: str) -> None:
    assert unknown_directives(f"#!/bin/bash\n#SBATCH --time=1 {directive}  # comment\n") == [directive]


STAND_INS = {
    "srun": 'while [[ "$1" == --* ]]; do shift; done; exec "$@"',
    "sleep": "exec /bin/sleep 0.05",
    "ray": 'echo "ray $*" >> calls; echo $$ >> steps; exec /bin/sleep 60',
    "python": """
case "$*" in
  *"import secrets"*) printf secret ;;
  *"import ray"*) grep -c "^ray start" calls ;;
  *)
    echo "python $*" >> calls
    stat -c "token %a" "$RAY_AUTH_TOKEN_PATH" >> calls
    trap 'echo stopped >> calls; exit 130' TERM
    touch running
    if [ -e linger ]; then /bin/sleep 60 & echo $! >> steps; wait; fi
    exit 7 ;;
esac
""",
}


@pytest.fixture
def on_slurm(tmp_path: Path) -> Iterator[Path]:
    """A checkout where Slurm, Ray and our command are stand-ins that write down how they were called."""
    binaries = tmp_path / ".venv" / "bin"
    binaries.mkdir(parents=True)
    for name, script in STAND_INS.items():
        (binaries / name).write_text(f"#!/bin/bash\n{script}\n")
        (binaries / name).chmod(0o755)
    for name in ("calls", "steps"):
        (tmp_path / name).touch()
    yield tmp_path
    for pid in (tmp_path / "steps").read_text().split():
        os.kill(int(pid), signal.SIGKILL)


def sbatch(checkout: Path) -> subprocess.Popen[bytes]:
    environment = {
        "PATH": f"{checkout}/.venv/bin:{os.environ['PATH']}",
        "HOME": str(checkout),
        "SLURM_SUBMIT_DIR": str(checkout),
        "SLURM_JOB_ID": "1",
        "SLURMD_NODENAME": "localhost",
        "SLURM_JOB_NUM_NODES_HET_GROUP_1": "1",
    }
    return subprocess.Popen(["bash", ROOT / "cluster" / "slurm.sbatch"], env=environment, stderr=subprocess.DEVNULL)


def test_the_slurm_script_starts_head_workers_and_driver_in_turn_and_ends_as_the_driver_does(on_slurm: Path) -> None:
    assert sbatch(on_slurm).wait(20) == 7
    head, worker, driver, token = (on_slurm / "calls").read_text().splitlines()
    assert head.startswith("ray start --head --node-ip-address=127.0.0.1 --port=6379 --num-gpus=0")
    assert worker.startswith("ray start --address=127.0.0.1:6379")
    assert driver == "python -m sweeps sweep S.yaml --runs runs --resume"
    assert token == "token 600"
    assert list(on_slurm.glob(".evenkeel-token*")) == [], "it goes with the job"


def test_slurms_warning_before_the_time_limit_reaches_the_driver_and_its_end_is_awaited(on_slurm: Path) -> None:
    (on_slurm / "linger").touch()
    job = sbatch(on_slurm)
    deadline = time.monotonic() + 20
    while not (on_slurm / "running").exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    job.send_signal(signal.SIGTERM)
    assert job.wait(20) == 130
    assert (on_slurm / "calls").read_text().splitlines()[-1] == "stopped"
