"""Where the record of a step goes: first to judgement, then to the run's folder, MLflow, the screen and gauges."""

from collections.abc import Iterable, Mapping
from typing import Any, Protocol

from orchestrator.records import StepRecord
from orchestrator.run.folder import RunFolder
from orchestrator.run.metrics_file import Entry
from orchestrator.run.progress import Progress
from orchestrator.run.status import End
from orchestrator.stability import StabilityConfig, StabilityMonitor, Verdict, judge
from orchestrator.tracking.tracker import TrackedRun


class Watch(Protocol):
    """Looks on at a run, and may stop it. It is asked in the thread of the run; what it raises ends the run.

    if not watch.see(record):       # once for each step, in their order, also those of earlier processes
        ...                         # the run ends here as "stopped"
    tags = watch.closing_tags()     # whenever a run ends, in whatever way
    """

    def see(self, record: StepRecord) -> bool:
        """Look at a step that stands in the run's folder; False stops the run."""
        ...

    def closing_tags(self) -> dict[str, str]:
        """What MLflow is told of the run at its end."""
        ...


class Gauges(Protocol):
    """Where others look how a run stands; what is put there may wait for nobody.

    gauges.show(17, {"reward/mean": 0.42}, collapsed=False)
    """

    def show(self, step: int, metrics: Mapping[str, float], *, collapsed: bool) -> None:
        """Show a step that has ended, and whether the run had collapsed by then."""
        ...


class Recorder:
    """The one writer of a run; it also asks those who may end it: the stability monitor, and who watches."""

    def __init__(  # noqa: PLR0913 - one for each part
        self,
        folder: RunFolder,
        tracked: TrackedRun,
        progress: Progress,
        stability: StabilityConfig,
        steps_ahead: int = 0,
        *,
        watch: Watch | None = None,
        gauges: Gauges | None = None,
    ) -> None:
        """Define the recorder.

        Args:
            folder: of the run.
            tracked: the run at MLflow.
            progress: the screen.
            stability: what counts as a collapse.
            steps_ahead: how many steps are recorded already, in the folder and (sent or about to be) at MLflow.
            watch: sees every step that is recorded from here on; for those before it see `review`.
            gauges: show every step, also one that is done again.
        """
        self._folder = folder
        self._tracked = tracked
        self._progress = progress
        self._stability = stability
        self._monitor = StabilityMonitor(stability)
        self._watch = watch
        self._gauges = gauges
        self._stopped_at: int | None = None  # the step after which the watch would not have the run go on
        self._stops = stability.on_collapse == "stop"
        self.collapsed = False  # and stopped therefore
        self.steps_ahead = steps_ahead

    @property
    def end(self) -> End:
        """How the run ends if it ends now."""
        if self.collapsed:
            return "collapsed"
        return "finished" if self._stopped_at is None else "stopped"

    def review(self, recorded: Iterable[StepRecord]) -> bool:
        """Have the watch see what earlier processes have recorded; False when the run shall end there.

        A run that ends so has no further step: its verdict is written here.
        """
        seen = []
        for record in recorded if self._watch is not None else ():
            seen.append({"step": record.step, **record.metrics})
            self._see(record)
            if self._stopped_at is not None:
                verdict = judge(seen, self._stability)
                self.collapsed = self._stops and verdict is not None
                self._note(verdict_record(verdict))
                return False
        return True

    def record(self, done: StepRecord) -> bool:
        """Record a step that has just ended; False when the run has collapsed and shall stop, or was stopped.

        A step that was recorded before, and is done again after a loss, is in the folder and at MLflow already.
        """
        verdict = self._monitor.observe(done.step, done.metrics)
        if verdict is not None:
            done.metrics["stability/collapsed"] = 1.0
        entry = self._folder.write_step(done.step, done.metrics)
        is_first = done.step >= self.steps_ahead
        if is_first:
            self.steps_ahead = done.step + 1
            self._tracked.log_step(done)
        if entry is Entry.REPLACED:
            self._warn_of_difference(done.step)
        if done.events and entry is not Entry.SAME:
            self._folder.log.info("step %d: %s", done.step, ", ".join(done.events))
        self._progress.show(done)
        if self._gauges is not None:
            self._gauges.show(done.step, done.metrics, collapsed=self._monitor.verdict is not None)
        if verdict is not None:
            self._tell(verdict)
            self.collapsed = self._stops
        if is_first:
            self._see(done)
        # A step that is done again after a loss at the run's very end ends the run once more.
        is_stopped = self._stopped_at is not None and done.step >= self._stopped_at
        return not (self.collapsed or is_stopped)

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

    def _see(self, record: StepRecord) -> None:
        if self._watch is not None and not self._watch.see(record):
            self._stopped_at = record.step
            self._progress.say(f"stopped after step {record.step}")
            self._folder.log.info("stopped after step %d", record.step)

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
