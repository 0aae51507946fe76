"""How early does a detector fire? Lead times, misses and false alarms over recorded runs (docs/method.md section 8)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median

from rich.table import Table

from actors.lr_policies import LengthTriggeredConfig
from actors.lr_policies.detector import DetectorConfig
from orchestrator.stability import Verdict
from sweeps.curves import Curves


@dataclass(frozen=True, slots=True, kw_only=True)
class LeadTimes:
    """What one detector would have said about all the runs.

    Every run stands in exactly one of: caught, missed, quiet, false alarms, unfinished, no signal.

    Example:
        LeadTimes(detector="length", lead_steps=(204, 187), num_missed=1, num_quiet=5, num_false_alarms=1,
                  num_unfinished=0, num_without_signal=0)
    """

    detector: str
    lead_steps: tuple[int, ...]  # of each caught run, from the firing to the collapse
    num_missed: int  # collapsed, and the detector had not fired by then
    num_quiet: int  # came to the end without a collapse, and the detector had not fired
    num_false_alarms: int  # fired, but the run came to the end without a collapse
    num_unfinished: int  # neither collapsed nor at the end, so that nobody knows: not counted above
    num_without_signal: int  # runs that never carry what the detector looks at: not counted above

    @property
    def num_collapsed(self) -> int:
        """Runs that collapsed, of those that carry the signal."""
        return len(self.lead_steps) + self.num_missed

    @property
    def num_stable(self) -> int:
        """Runs that came to their end without a collapse, of those that carry the signal."""
        return self.num_quiet + self.num_false_alarms


def first_firing(run: Curves, detector: DetectorConfig) -> int | None:
    """The first step at which the policy reports an event on the recorded metrics; None when it never does.

    Of `length_triggered` only the surge counts: decays of a period set by hand say nothing about the run.
    """
    policy = detector.build(total_steps=None)
    counts = {"surge"} if isinstance(detector, LengthTriggeredConfig) else None
    for row in run.rows:
        events = policy.observe(int(row["step"]), row).events
        if events and (counts is None or counts & set(events)):
            return int(row["step"])
    return None


def carries_signal(run: Curves, detector: DetectorConfig) -> bool:
    """Whether the run recorded each metric that the policy reads, at one step at least."""
    signals = detector.build(total_steps=None).signals
    return all(any(signal in row for row in run.rows) for signal in signals)


def lead_times(runs: Sequence[Curves], detectors: Mapping[str, DetectorConfig]) -> list[LeadTimes]:
    """Each detector's record over all runs, every run judged by its own `stability` settings."""
    verdicts = [run.verdict() for run in runs]
    return [_record(name, detector, runs, verdicts) for name, detector in detectors.items()]


def _record(
    name: str, detector: DetectorConfig, runs: Sequence[Curves], verdicts: Sequence[Verdict | None]
) -> LeadTimes:
    judged = [(run, verdict) for run, verdict in zip(runs, verdicts, strict=True) if carries_signal(run, detector)]
    collapsed = [(first_firing(run, detector), verdict.step) for run, verdict in judged if verdict is not None]
    stable = [first_firing(run, detector) for run, verdict in judged if verdict is None and run.finished]
    leads = tuple(collapse - firing for firing, collapse in collapsed if firing is not None and firing <= collapse)
    return LeadTimes(
        detector=name,
        lead_steps=leads,
        num_missed=len(collapsed) - len(leads),
        num_quiet=stable.count(None),
        num_false_alarms=len(stable) - stable.count(None),
        num_unfinished=len(judged) - len(collapsed) - len(stable),
        num_without_signal=len(runs) - len(judged),
    )


def lead_time_table(records: Sequence[LeadTimes]) -> Table:
    """A row per detector; `2 of 3` names the number of runs behind a figure."""
    table = Table(
        "detector",
        "caught",
        "lead time in steps:\nmedian (range)",
        "missed",
        "false alarms",
        "left out:\nunfinished",
        "left out:\nno signal",
        title="detectors: caught and missed of the runs that collapsed, false alarms of those that ended without",
        title_justify="left",
    )
    for record in records:
        table.add_row(
            record.detector,
            f"{len(record.lead_steps)} of {record.num_collapsed}",
            _spread(record.lead_steps),
            f"{record.num_missed} of {record.num_collapsed}",
            f"{record.num_false_alarms} of {record.num_stable}",
            str(record.num_unfinished),
            str(record.num_without_signal),
        )
    return table


def _spread(steps: Sequence[int]) -> str:
    return f"{median(steps):g} ({min(steps)}-{max(steps)})" if steps else "-"
