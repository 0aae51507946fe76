"""What a trial's run is watched for: a collapse, Optuna's pruner, the end of the study."""

from collections.abc import Callable

from optuna.trial import Trial

from orchestrator.records import StepRecord

COLLAPSED = "stability/collapsed"


class TrialWatch:
    """Watches one run of a trial, from its first step on, forked steps included.

    watch = TrialWatch(trial, metric="eval/held_out/avg@1", offset=0, prune_on_collapse=True, stops_itself=False,
                       interrupted=stop.is_set)
    """

    def __init__(  # noqa: PLR0913 - one for each thing to look at
        self,
        trial: Trial,
        *,
        metric: str,
        offset: int,
        prune_on_collapse: bool,
        stops_itself: bool,
        interrupted: Callable[[], bool],
    ) -> None:
        """Begin.

        Args:
            trial: at Optuna.
            metric: of the objective; reported whenever a step has it.
            offset: added to the numbers of steps, so that those of several seeds follow each other.
            prune_on_collapse: whether a collapse ends the trial.
            stops_itself: whether it ends the run without this watch.
            interrupted: whether the study is being ended.
        """
        self._trial = trial
        self._metric = metric
        self._offset = offset
        self._prune_on_collapse = prune_on_collapse
        self._stops_itself = stops_itself
        self._interrupted = interrupted
        self._reported = set(trial.storage.get_trial(trial._trial_id).intermediate_values)
        self.reason: str | None = None  # why the trial ends early

    def see(self, record: StepRecord) -> bool:
        """Whether the run goes on after this step.

        Raises:
            KeyboardInterrupt: the study is being ended.
        """
        if self._interrupted():
            raise KeyboardInterrupt
        if self._prune_on_collapse and record.metrics.get(COLLAPSED):
            self.reason = f"collapsed at step {record.step}"
            return self._stops_itself
        if (value := record.metrics.get(self._metric)) is not None and self._is_behind(record.step, value):
            self.reason = f"behind the other trials at step {record.step}, with {self._metric} {value:.4g}"
        return self.reason is None

    def closing_tags(self) -> dict[str, str]:
        """What MLflow is told of the run at its end."""
        return {"trial.state": "complete" if self.reason is None else "pruned"}

    def _is_behind(self, step: int, value: float) -> bool:
        place = self._offset + step
        if place not in self._reported:  # by a driver that died
            self._reported.add(place)
            self._trial.report(value, place)
        # Optuna judges by the newest report. Before that one a driver that died went on.
        return place == max(self._reported) and self._trial.should_prune()


class StopWatch:
    """Watches a run for the end of the study, and for nothing else."""

    def __init__(self, interrupted: Callable[[], bool]) -> None:
        self._interrupted = interrupted

    def see(self, record: StepRecord) -> bool:
        """Go on; KeyboardInterrupt when the study is being ended."""
        if self._interrupted():
            raise KeyboardInterrupt
        return True

    def closing_tags(self) -> dict[str, str]:
        """None."""
        return {}
