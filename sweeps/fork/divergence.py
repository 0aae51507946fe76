"""How far a policy decides as a recorded run did."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from actors.lr_policies import LrDecision, SchedulerConfig
from orchestrator.run.metrics_file import MEASURED_ANEW

LR = "scheduler/lr"
# Recorded with a step, but not known yet when its learning rate is decided.
LATE = (*MEASURED_ANEW, "scheduler/", "stability/", "gradient/update_norm_ratio")


@dataclass(frozen=True, slots=True, kw_only=True)
class Divergence:
    """Where a policy's learning rate first differs from the recorded one, to the last bit.

    Example:
        Divergence(at=2, decisions=(LrDecision(step=0, lr=1e-6, events=()), LrDecision(step=1, lr=1e-6, events=())),
                   state=None)
    """

    at: int  # index of the first row with another lr; the number of rows when there is none
    decisions: tuple[LrDecision, ...]  # of the rows before it
    state: dict[str, Any] | None  # `state_dict` of the policy after all rows; None when one has another lr


def divergence(config: SchedulerConfig, total_steps: int, rows: Iterable[Mapping[str, Any]]) -> Divergence:
    """Let a fresh policy observe recorded rows as it would have in the run, up to the first that it decides otherwise.

    What follows that row would have come out differently, too, and is not read. Values that were not finite are missing
    in rows, and policies treat both alike.

    >>> from actors.lr_policies import StepConfig
    >>> rows = [{"step": step, "scheduler/lr": 2e-6} for step in range(5)]
    >>> divergence(StepConfig(lr=2e-6, period=3), 5, rows).at
    3

    Args:
        config: of the policy.
        total_steps: length of the experiment.
        rows: of the run's metrics, from step 0 on.
    """
    policy = config.build(total_steps)
    signals = [signal for signal in policy.signals if not signal.startswith(LATE)]
    decisions: list[LrDecision] = []
    for row in rows:
        decision = policy.observe(row["step"], {signal: row.get(signal) for signal in signals})
        if decision.lr != row.get(LR):
            return Divergence(at=len(decisions), decisions=tuple(decisions), state=None)
        decisions.append(decision)
    return Divergence(at=len(decisions), decisions=tuple(decisions), state=policy.state_dict())
