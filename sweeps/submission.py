"""What `evenkeel submit` hands in: a command as it is written here, checked here, with the files that it needs."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from orchestrator.config import ExperimentConfig
from orchestrator.config_errors import MISSING, ConfigError
from orchestrator.experiment_file import DEFAULT_ARM, ExperimentFile
from orchestrator.model_files import EMBEDDED
from orchestrator.problems.files import ProblemFiles
from orchestrator.rewards.config import PythonReward
from orchestrator.task_config import ArithmeticTaskConfig
from sweeps.sweep_file import SweepFile

RUN, COMPARE, SWEEP = "run", "compare", "sweep"
ELSEWHERE = ("/", "~")  # what a path begins with that means the cluster's files, not those that are sent


@dataclass(frozen=True, slots=True, kw_only=True)
class Submission:
    """A command that has been checked, as far as that can be done without the cluster.

    Example:
        Submission(name="tiny", file=Path("tiny.yaml"), needed=(Path("tiny.yaml"), Path("data/train.parquet")))
    """

    name: str  # of the experiment or sweep
    file: Path  # seen from the folder that is sent
    needed: tuple[Path, ...]  # files and folders that the command reads, seen from there

    @classmethod
    def check(cls, command: str, file: str, overrides: Sequence[str], arm: str, folder: Path) -> "Submission":
        """Check the file of a command and what it names.

        Args:
            command: run, compare or sweep.
            file: the experiment file, or the sweep file.
            overrides: of the command's --set.
            arm: of the command `run`.
            folder: what is sent, and the working directory of this process.

        Raises:
            ConfigError: with file, field, value and what was expected.
        """
        path = _inside(file, folder, file, "")
        if command == SWEEP:
            swept = SweepFile.read(file, overrides)
            _check_lasting(swept.config.storage, file, "storage")
            experiment = _inside(swept.experiment.path, folder, file, "experiment")
            configs, name = [swept.baseline_config()], swept.name
            named_in, needed = swept.experiment.path, {path, experiment}
        else:
            written = ExperimentFile.read(file, overrides)
            arms = written.arms() if command == COMPARE else [arm or DEFAULT_ARM]
            if not arms:
                raise ConfigError(file, "arms", MISSING, "at least one arm to compare; this file has none")
            configs = [written.resolve(name) for name in arms]
            name, named_in, needed = configs[0].name, file, {path}
        for config in configs:
            _check_lasting(config.tracking.uri, named_in, "tracking.uri")
            needed |= set(_named(config, named_in, folder))
        return cls(name=name, file=path, needed=tuple(sorted(needed)))


def _named(config: ExperimentConfig, file: str, folder: Path) -> Iterator[Path]:
    """What an experiment names in the folder that is sent: model, problems, and the module of a reward."""
    model, task = config.model.path, config.task
    if model != EMBEDDED and not model.startswith(ELSEWHERE) and (folder / model).is_dir():
        yield _inside(model, folder, file, "model.path")
    if isinstance(task, ArithmeticTaskConfig):
        return
    sets = config.evaluation.sets if config.evaluation else {}
    fields = {"task.train": task.train, **{f"evaluation.sets.{name}": [path] for name, path in sets.items()}}
    for field, paths in fields.items():
        sent = [path for path in paths if not path.startswith(ELSEWHERE) and "://" not in path]
        if sent:
            ProblemFiles.open(sent, task, file, field)
        yield from (_inside(path, folder, file, field) for path in sent)
    if isinstance(task, PythonReward):
        top = task.function.partition(":")[0].partition(".")[0]
        yield from (Path(name) for name in (f"{top}.py", top) if (folder / name).exists())


def _inside(path: str, folder: Path, file: str, field: str) -> Path:
    """The path as seen from the folder that is sent."""
    try:
        return Path(path).resolve().relative_to(folder.resolve())
    except ValueError:
        expected = f"a file below the folder that is sent, {folder}: go to a folder that has all of them in it"
        raise ConfigError(file, field, path if field else MISSING, expected) from None


def _check_lasting(uri: str | None, file: str, field: str) -> None:
    """Pass unless it means a file in the working directory, which the job has to itself and loses."""
    if uri is not None and (path := local_path(uri)) is not None and not Path(path).is_absolute():
        expected = "an absolute path or a server: a job runs in a folder of its own, which does not last"
        raise ConfigError(file, field, uri, expected)


def local_path(uri: str) -> str | None:
    """The path of the file or folder that a URI of MLflow's or SQLAlchemy's names; None when it names none.

    Example:
        >>> local_path("sqlite:///mlflow.db"), local_path("sqlite:////shared/mlflow.db"), local_path("http://mlflow:5000")
        ('mlflow.db', '/shared/mlflow.db', None)
    """
    scheme, colon, rest = uri.partition(":")
    if not colon:
        return uri if "/" in uri or "." in uri else None
    if scheme.startswith("sqlite"):
        return rest.removeprefix("///")
    return rest.removeprefix("//") if scheme == "file" else None
