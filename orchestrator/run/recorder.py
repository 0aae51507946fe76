"""Where the record of a step goes: first to judgement, then to the run's folder, to MLflow and to the screen."""

from collections.abc import Mapping
from typing import Any

from orchestrator.records import StepRecord
from orchestrator.run.folder import RunFolder
from orchestrator.run.metrics_file import Entry
from orchestrator.run.progress import Progress
from orchestrator.stability import StabilityConfig, StabilityMonitor, Verdict
from orchestrator.tracking.tracker import TrackedRun


class Recorder:
    """The one writer of a run; it also keeps the monitor that may end it."""

    def __init__(
        self,
        folder: RunFolder,
        tracked: TrackedRun,
        progress: Progress,
        stability: StabilityConfig,
        steps_ahead: int = 0,
    ) -> None:
        """Define the recorder.

        Args:
            folder: of the run.
            tracked: the run at MLflow.
            progress: the screen.
            stability: what counts as a collapse.
            steps_ahead: how many steps are recorded already, in the folder and (sent or about to be) at MLflow.
        """
        self._folder = folder
        self._tracked = tracked
        self._progress = progress
        self._monitor = StabilityMonitor(stability)
        self._stops = stability.on_collapse == "stop"
        self.collapsed = False  # and stopped therefore
        self.steps_ahead = steps_ahead

    def record(self, done: StepRecord) -> bool:
        """Record a step that has just ended; False when the run has collapsed and shall stop.

        A step that was recorded before, and is done again after a loss, is in the folder and at MLflow already.
        """
        verdict = self._monitor.observe(done.step, done.metrics)
        if verdict is not None:
            done.metrics["stability/collapsed"] = 1.0
        entry = self._folder.write_step(done.step, done.metrics)
        if done.step >= self.steps_ahead:
            self.steps_ahead = done.step + 1
            self._tracked.log_step(done)
        if entry is Entry.REPLACED:
            self._warn_of_difference(done.step)
        if done.events and entry is not Entry.SAME:
            self._folder.log.info("step %d: %s", done.step, ", ".join(done.events))
        self._progress.show(done)
        if verdict is None:
            return True
        self._tell(verdict)
        self.collapsed = self._stops
        return not self._stops

    def conclude(self) -> None:
        """Write down whether the run collapsed on its way, in the folder and at MLflow."""
        self._note(verdict_record(self._monitor.verdict))

    def stability_state(self) -> dict[str, Any]:
        """All that a later verdict depends on."""
        return self._monitor.state_dict()

    def sync(self) -> int:
        """Make sure that the metrics are on the disk; returns how many bytes of them there are."""
        return self._folder.sync()

    def rewind(self, stability: dict[str, Any], metrics_bytes: int) -> None:
        """Go back to where these were so: the steps from there on are done again."""
        self.collapsed = False  # where that stops a run, there is nothing after it to go back from
        self._monitor.load_state_dict(stability)
        self._folder.metrics.rewind(metrics_bytes)

    def _warn_of_difference(self, step: int) -> None:
        text = (
            f"step {step} was done again and came out otherwise; metrics.jsonl has what it is now, MLflow what it was"
        )
        self._progress.say(f"warning: {text}")
        self._folder.log.warning("%s", text)

    def _tell(self, verdict: Verdict) -> None:
        what_follows = "the run stops" if self._stops else "the run goes on"
        self._progress.say(f"collapsed at step {verdict.step}: {verdict.detail}; {what_follows}")
        self._folder.log.info("collapsed at step %d: %s: %s", verdict.step, verdict.reason, verdict.detail)
        self._note(verdict_record(verdict))

    def _note(self, record: Mapping[str, Any]) -> None:
        self._folder.write_verdict(record)
        self._tracked.set_tags(verdict_tags(record))


def verdict_record(verdict: Verdict | None) -> dict[str, Any]:
    """What stands in a run's folder of its verdict."""
    if verdict is None:
        return {"collapsed": False}
    return {"collapsed": True, "step": verdict.step, "reason": verdict.reason, "detail": verdict.detail}


def verdict_tags(record: Mapping[str, Any]) -> dict[str, str]:
    """The same for MLflow.

    >>> verdict_tags({"collapsed": True, "step": 81, "reason": "reward", "detail": "0.04, 10 steps in a row"})
    {'collapsed': 'true', 'collapse.step': '81', 'collapse.reason': 'reward'}
    """
    tags = {"collapsed": str(record["collapsed"]).lower()}
    return tags | {f"collapse.{key}": str(record[key]) for key in ("step", "reason") if key in record}
