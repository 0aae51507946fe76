"""The driver of a study: baselines first, then trials side by side, then what came of them."""

import errno
import threading
import traceback
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from typing import TypeGuard

from optuna.exceptions import StorageInternalError
from optuna.trial import Trial, TrialState

from orchestrator.cli import PLAIN
from orchestrator.config_errors import ConfigError
from orchestrator.disk import DiskTooSmall
from orchestrator.failures import known_failures
from orchestrator.run.folder import RunFolderFull
from orchestrator.run.lock import RunInUse
from orchestrator.tracking.refusals import one_line
from sweeps.study.ledger import study_record
from sweeps.study.record import StudyRecord
from sweeps.study.samplers import pruner_of, sampler_of
from sweeps.study.storage import StudyStore
from sweeps.study.trial import BASELINE, REASON, Grounds, TrialRuns, arm_of
from sweeps.study.watch import StopWatch

# What concerns the whole study and not the trial that met it.
COMMON = (ConfigError, DiskTooSmall, RunFolderFull)
FULL = {errno.ENOSPC, errno.EDQUOT, errno.EROFS}
BUSY_S, GRACE_S = 2.0, 10.0


class StorageLost(ConnectionError):
    """The database with the trials went away."""


class Study:
    """Runs what is left of a study. Other drivers may be at it as well.

    Study(grounds, store).run()
    """

    def __init__(self, grounds: Grounds, store: StudyStore, interrupted: threading.Event) -> None:
        """Define the driver.

        Args:
            grounds: what all runs have in common.
            store: the trials.
            interrupted: set here when the study is being ended; the runs watch it.
        """
        self._grounds = grounds
        self._store = store
        self._interrupted = interrupted
        self._console = grounds.console
        self._folder = grounds.runs / grounds.sweep.name
        self._failure: BaseException | None = None
        self._recording = threading.Lock()

    def run(self) -> StudyRecord:
        """Run to the end.

        Raises:
            As `Experiment.run`, for a baseline; for a trial only what every other would meet as well.
        """
        config = self._grounds.sweep.config
        if self._grounds.sweep.shares:
            self._run_beside(self._run_baselines, 1)
        self._run_beside(self._run_trials, min(config.parallel, config.trials))
        return self.record()

    def record(self) -> StudyRecord:
        """Write down how the study stands."""
        with self._recording:
            record = study_record(self._grounds.sweep, self._grounds.runs, self._store.trials())
            try:
                record.write(self._folder)
            except OSError as error:
                raise RunFolderFull(self._folder, error) from error
        return record

    def _run_beside(self, work: Callable[[], None], lanes: int) -> None:
        """Have threads do the work; this one waits, so that an interrupt ends them all."""
        # Not `Thread.join`: an interrupt in the midst of it makes Python 3.11 take the thread for one that has ended.
        ends = [threading.Event() for _ in range(lanes)]
        for i, end in enumerate(ends):
            threading.Thread(target=self._guarded, args=(work, end), name=f"lane-{i}").start()
        try:
            for end in ends:
                end.wait()
        except KeyboardInterrupt:
            self._interrupted.set()
            for end in ends:
                end.wait(GRACE_S)
            raise
        if self._failure is not None:
            raise self._failure

    def _guarded(self, work: Callable[[], None], end: threading.Event) -> None:
        try:
            work()
        except BaseException as failure:
            if self._failure is None:
                self._failure = self._told(failure)
            self._interrupted.set()
        finally:
            end.set()

    def _told(self, failure: BaseException) -> BaseException:
        if isinstance(failure, StorageInternalError):
            lost = StorageLost(
                f"the study's storage does not answer: {one_line(failure)}; --resume goes on when it does"
            )
            lost.__cause__ = failure
            return lost
        return RunFolderFull(self._folder, failure) if _is_full(failure) else failure

    def _run_baselines(self) -> None:
        grounds = self._grounds
        for seed in grounds.seeds:
            spec = grounds.spec(grounds.sweep.baseline_config(), BASELINE, seed)
            spec = replace(spec, watch=StopWatch(self._interrupted.is_set))
            while True:
                try:
                    grounds.run(spec)
                    break
                except RunInUse:  # another driver has it
                    if self._interrupted.wait(BUSY_S):
                        raise KeyboardInterrupt from None

    def _run_trials(self) -> None:
        while not self._interrupted.is_set():
            numbers = self._store.open_numbers()
            if not numbers:
                return
            if not any(self._run_trial(number) for number in numbers):  # the first that is free, if any is
                self._interrupted.wait(BUSY_S)  # others have what is left; they may die

    def _run_trial(self, number: int) -> bool:
        """Run a trial, unless somebody else does or has."""
        config = self._grounds.sweep.config
        folder = self._folder / arm_of(number)
        with self._store.claim(number, folder, sampler_of(config.sampler, number), pruner_of(config.pruner)) as trial:
            if trial is None:
                return False
            state, value = self._outcome(number, trial)
            self._store.tell(trial, value, state)
        self._say(trial, state, value)
        self.record()
        return True

    def _outcome(self, number: int, trial: Trial) -> tuple[TrialState, float | None]:
        try:
            return TrialRuns(self._grounds, number).run(trial)
        except COMMON:
            raise
        except Exception as error:
            if _is_full(error) or self._interrupted.is_set():  # then the workers are gone because the study is ended
                raise
            reason = f"{type(error).__name__}: {' '.join(str(error).split())}"
            trial.set_user_attr(REASON, reason)
            if not isinstance(error, known_failures()):  # then it is a bug
                with suppress(OSError):
                    (self._folder / arm_of(number) / "traceback.txt").write_text(traceback.format_exc())
            return TrialState.FAIL, None

    def _say(self, trial: Trial, state: TrialState, value: float | None) -> None:
        told = f"{state.name.lower()}: {trial.user_attrs.get(REASON)}" if value is None else f"value {value:.4g}"
        params = ", ".join(f"{path} {_short(value)}" for path, value in trial.params.items())
        self._console.print(f"{arm_of(trial.number)}: {told}  ({params})", **PLAIN)


def _is_full(error: BaseException) -> TypeGuard[OSError]:
    """Whether it says that nothing more can be written."""
    return isinstance(error, OSError) and error.errno in FULL


def _short(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
