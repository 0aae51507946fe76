"""Where the record of a step goes: first to judgement, then to the run's folder, to MLflow and to the screen."""

from orchestrator.progress import Progress
from orchestrator.records import StepRecord
from orchestrator.run_folder import RunFolder
from orchestrator.stability import StabilityConfig, StabilityMonitor, Verdict
from orchestrator.tracking import TrackedRun


class Recorder:
    """The one writer of a run; it also keeps the monitor that may end it."""

    def __init__(self, folder: RunFolder, tracked: TrackedRun, progress: Progress, stability: StabilityConfig) -> None:
        self._folder = folder
        self._tracked = tracked
        self._progress = progress
        self._monitor = StabilityMonitor(stability)
        self._stops = stability.on_collapse == "stop"

    def record(self, done: StepRecord) -> bool:
        """Record a step that has just ended; False when the run has collapsed and shall stop."""
        verdict = self._monitor.observe(done.step, done.metrics)
        if verdict is not None:
            done.metrics["stability/collapsed"] = 1.0
        self._folder.write_step(done.step, done.metrics)
        if done.events:
            self._folder.log.info("step %d: %s", done.step, ", ".join(done.events))
        self._tracked.log_step(done)
        self._progress.show(done)
        if verdict is None:
            return True
        self._tell(verdict)
        return not self._stops

    def conclude(self) -> None:
        """Write down that the run came to its end without a collapse, if so it did."""
        if self._monitor.verdict is None:
            self._folder.write_verdict({"collapsed": False})
            self._tracked.set_tags({"collapsed": "false"})

    def _tell(self, verdict: Verdict) -> None:
        what_follows = "the run stops" if self._stops else "the run goes on"
        self._progress.say(f"collapsed at step {verdict.step}: {verdict.detail}; {what_follows}")
        self._folder.log.info("collapsed at step %d: %s: %s", verdict.step, verdict.reason, verdict.detail)
        self._folder.write_verdict(
            {"collapsed": True, "step": verdict.step, "reason": verdict.reason, "detail": verdict.detail}
        )
        self._tracked.set_tags(
            {"collapsed": "true", "collapse.step": str(verdict.step), "collapse.reason": verdict.reason}
        )
