"""Where Optuna keeps a study, and how drivers agree on the trials in it: each is claimed by one of them, once."""

import time
import warnings
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

import optuna
from optuna.exceptions import DuplicatedStudyError, ExperimentalWarning
from optuna.samplers import BaseSampler
from optuna.storages import BaseStorage, RDBStorage
from optuna.trial import FrozenTrial, Trial, TrialState
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, NoSuchModuleError, SQLAlchemyError

from orchestrator.checkpoints.fingerprint import differing_fields
from orchestrator.config_errors import MISSING, ConfigError
from orchestrator.run.lock import RunInUse, run_lock
from orchestrator.tracking.refusals import one_line, without_passwords
from sweeps.study.journal import JOURNAL, journal_storage
from sweeps.sweep_file import SweepFile

# What the driver that has made a study leaves in it: what decides its numbers, and once all trials wait, its uid.
SWEEP, READY = "evenkeel.sweep", "evenkeel.uid"
CONNECT_TIMEOUT_S = 10
MAKING_S, PAUSE_S = 60.0, 0.2  # how long another driver may take to make the study, and when to look again
# These may change when a study goes on.
FREE = {"trials", "parallel", "storage", "enqueue"}
OPEN = (TrialState.WAITING, TrialState.RUNNING)


class StudyStore:
    """A study with a fixed number of trials. Drivers that share it share a folder, too: its locks tell who is alive.

    store = StudyStore.open(sweep, folder, resume=False)
    for number in store.open_numbers():
        with store.claim(number, folder / arm_of(number), sampler, pruner) as trial:
            ...
    """

    def __init__(self, storage: BaseStorage, name: str, folder: Path) -> None:
        self._storage = storage
        self._name = name
        self._folder = folder
        self.uid = ""

    @classmethod
    def open(cls, sweep: SweepFile, folder: Path, *, resume: bool) -> "StudyStore":
        """Make the study with all of its trials waiting; or with `resume` go on with the one that is there.

        Raises:
            ConfigError: the storage cannot be reached or used; the study is there and shall not be resumed.
        """
        _quiet()
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigError(str(folder), "", MISSING, f"a folder that can be made ({error.strerror})") from None
        with _alone(folder):
            store = cls(_storage(sweep.config.storage, folder, sweep.path), sweep.name, folder)
            store._make_or_join(sweep, resume)
        return store

    def _make_or_join(self, sweep: SweepFile, resume: bool) -> None:
        config = sweep.config
        try:
            optuna.create_study(storage=self._storage, study_name=self._name, direction=config.objective.direction)
        except DuplicatedStudyError:
            if not resume:
                where = _address(config.storage) if config.storage else str(self._folder / JOURNAL)
                expected = f"a study that is not in {where} yet; --resume goes on with it, or joins in"
                raise ConfigError(sweep.path, "name", self._name, expected) from None
        attributes = self._study().user_attrs
        if uid := attributes.get(READY):
            self.uid = str(uid)
            _check_same(attributes.get(SWEEP, {}), sweep)
            self._wait_for_more(sweep)
        else:  # it is new, or who made it died at that
            self._wait_for_more(sweep)
            self.uid = uuid4().hex
            self._study().set_user_attr(SWEEP, _decisive(sweep))
            self._study().set_user_attr(READY, self.uid)

    def _wait_for_more(self, sweep: SweepFile) -> None:
        """Have as many trials as are wanted: the given ones first, the others free."""
        study, config = self._study(), sweep.config
        there = len(study.get_trials(deepcopy=False))
        if there > config.trials:
            raise ConfigError(sweep.path, "trials", config.trials, f"at least {there}: so many the study has")
        for number in range(there, config.trials):
            study.enqueue_trial(dict(config.enqueue[number]) if number < len(config.enqueue) else {})

    def trials(self) -> list[FrozenTrial]:
        """All trials by number, as they stand."""
        return self._study().get_trials()

    def open_numbers(self) -> list[int]:
        """Trials that are not over, those first that nobody has begun."""
        found = self._study().get_trials(deepcopy=False, states=OPEN)
        return [
            trial.number for trial in sorted(found, key=lambda trial: (trial.state.name != "WAITING", trial.number))
        ]

    @contextmanager
    def claim(
        self, number: int, folder: Path, sampler: BaseSampler, pruner: optuna.pruners.BasePruner
    ) -> Iterator[Trial | None]:
        """Have a trial for oneself; None when another driver has it, or it is over.

        A trial is worked on under the lock of its folder. A running one whose lock is free was left by a driver that
        died: it goes on with the parameters it had.

        Args:
            number: of the trial.
            folder: of its runs.
            sampler: suggests its parameters.
            pruner: judges it on the way.
        """
        folder.mkdir(parents=True, exist_ok=True)
        with ExitStack() as stack:
            try:
                stack.enter_context(run_lock(folder))
            except RunInUse:
                yield None
                return
            yield self._begin(number, sampler, pruner)

    def _begin(self, number: int, sampler: BaseSampler, pruner: optuna.pruners.BasePruner) -> Trial | None:
        study = self._study(sampler, pruner)
        found = study.get_trials(deepcopy=False)[number]
        if found.state not in OPEN:
            return None
        if found.state is TrialState.WAITING:
            self._storage.set_trial_state_values(found._trial_id, TrialState.RUNNING)
        return Trial(study, found._trial_id)

    def tell(self, trial: Trial, value: float | None, state: TrialState) -> None:
        """End a trial."""
        self._study().tell(trial, value, state=state)

    def study(self) -> optuna.Study:
        """As Optuna knows it, for its plots."""
        return self._study()

    def _study(
        self, sampler: BaseSampler | None = None, pruner: optuna.pruners.BasePruner | None = None
    ) -> optuna.Study:
        return optuna.load_study(study_name=self._name, storage=self._storage, sampler=sampler, pruner=pruner)


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """One driver after the other makes a study, adds trials to it, or finds it made."""
    until = time.monotonic() + MAKING_S
    with ExitStack() as stack:
        while True:
            try:
                stack.enter_context(run_lock(folder))
                break
            except RunInUse:
                if time.monotonic() > until:
                    raise
                time.sleep(PAUSE_S)
        yield


def _storage(url: str | None, folder: Path, file: str) -> BaseStorage:
    if url is None:
        try:
            return journal_storage(folder)
        except (OSError, ValueError) as error:
            expected = f"a file that Optuna can use ({one_line(error)})"
            raise ConfigError(file, "storage", str(folder / JOURNAL), expected) from None
    try:
        backend = make_url(url).get_backend_name()
        options = {"connect_args": {"connect_timeout": CONNECT_TIMEOUT_S}} if backend == "postgresql" else {}
        return RDBStorage(url, engine_kwargs={**options, "pool_pre_ping": True})
    except (ArgumentError, NoSuchModuleError, SQLAlchemyError, ImportError, ValueError, RuntimeError) as error:
        cause = error.__cause__ if isinstance(error.__cause__, Exception) else error
        told = one_line(cause)
        raise ConfigError(file, "storage", _address(url), f"a storage that answers ({told})") from None


def _address(url: str) -> str:
    """A database without who logs in there, and how."""
    try:
        parts = make_url(url)
    except (ArgumentError, ValueError):
        return without_passwords(url)
    return URL.create(parts.drivername, host=parts.host, port=parts.port, database=parts.database).render_as_string()


def _decisive(sweep: SweepFile) -> dict[str, Any]:
    """What all drivers of a study must have alike."""
    experiment = sweep.baseline_config().model_dump(mode="json", exclude={"tracking", "cluster"})
    return {"sweep": sweep.config.model_dump(mode="json", exclude=FREE), "experiment": experiment}


def _check_same(stored: Mapping[str, Any], sweep: SweepFile) -> None:
    for field, old, new in differing_fields(stored, _decisive(sweep)):
        file = sweep.path if field.startswith("sweep.") else sweep.experiment.path
        name = field.partition(".")[2]
        raise ConfigError(file, name, new, f"the value of the study that is resumed: {_shown(old)}")


def _shown(value: Any) -> str:
    return "not set" if value is MISSING else "null" if value is None else repr(value)


def _quiet() -> None:
    """Optuna's words on single trials are ours to say."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    warnings.filterwarnings("ignore", category=ExperimentalWarning)
