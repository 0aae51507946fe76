"""What a learning-rate policy would have decided on a recorded run, row by row."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from actors.lr_policies import (
    LengthTriggeredPolicy,
    LrDecision,
    LrPolicy,
    SchedulerConfig,
    SignalTriggeredConfig,
    SignalTriggeredPolicy,
)
from actors.lr_policies.detector import Detector
from actors.misfit import Misfit
from orchestrator.config_errors import ConfigError
from orchestrator.trace_tables import STEP
from orchestrator.traces import Trace
from orchestrator.yaml_files import read_mapping
from sweeps.scheduler_block import scheduler_block


@dataclass(frozen=True, slots=True, kw_only=True)
class Watch:
    """What a policy's detector showed at each step.

    Example:
        Watch(ema=array([812.5, 840.1]), level=array([nan, 1625.0]), count=array([0.0, 0.0]))
    """

    ema: NDArray[np.float64]  # [N] in the signal's unit; NaN before the first usable value
    level: NDArray[np.float64]  # [N] in the signal's unit; NaN while the baseline is being collected
    count: NDArray[np.float64]  # [N] before the policy set it back; all three are NaN when it is asked no more


@dataclass(frozen=True, slots=True, kw_only=True)
class Replay:
    """A trace and what a policy decided on it.

    replayed = replay(read_policy("policy.yaml"), trace, "policy.yaml")
    """

    trace: Trace
    config: SchedulerConfig
    decisions: Sequence[LrDecision]  # [N]
    watch: Watch | None  # None when no signal is read, or nobody asked


def read_policy(path: str) -> SchedulerConfig:
    """The policy in a YAML file: what stands below `scheduler` in an experiment file, and nothing else.

    Raises:
        ConfigError: with file, field, value and what was expected.
    """
    config = scheduler_block(read_mapping(path), path)
    if isinstance(config, SignalTriggeredConfig) and config.signal == STEP:
        raise ConfigError(path, "signal", STEP, "a metric, which the number of a step is not")
    return config


def signals_of(config: SchedulerConfig) -> tuple[str, ...]:
    """The metrics that the policy reads; the length of the run, not known yet, does not matter for that."""
    return config.build(total_steps=config.warmup_steps + 1).signals


def replay(config: SchedulerConfig, trace: Trace, path: str, watch: bool = False) -> Replay:
    """Let a fresh policy observe every row of a trace.

    Args:
        config: of the policy; where it needs total_steps and has none, they are the trace's last step + 1.
        trace: with the signals of the policy as columns.
        path: of the policy's file, for messages.
        watch: keep what the detector showed at each step, too.

    Raises:
        ConfigError: the warm-up is as long as the trace, and the policy says nothing about what comes after.
    """
    policy = _build(config, trace, path)
    detector = _detector(policy) if watch else None
    if detector is None:
        decisions = [policy.observe(step, metrics) for step, metrics in trace.rows()]
        return Replay(trace=trace, config=config, decisions=decisions, watch=None)
    decisions, shown = [], []
    for step, metrics in trace.rows():
        decisions.append(policy.observe(step, metrics))
        shown.append((detector.ema, detector.level, detector.count))
    return Replay(trace=trace, config=config, decisions=decisions, watch=_watch(config, decisions, shown))


def _build(config: SchedulerConfig, trace: Trace, path: str) -> LrPolicy:
    total_steps = int(trace.steps[-1]) + 1
    try:
        return config.build(total_steps)
    except Misfit as misfit:
        expected = f"less than total_steps, by default the trace's last step + 1: {total_steps}"
        raise ConfigError(path, misfit.field, misfit.value, expected) from None


def _detector(policy: LrPolicy) -> Detector | None:
    if isinstance(policy, LengthTriggeredPolicy | SignalTriggeredPolicy) and policy.signals:
        return policy.detector
    return None


def _watch(
    config: SchedulerConfig, decisions: Sequence[LrDecision], shown: Sequence[tuple[float | None, float | None, int]]
) -> Watch:
    columns = np.array(shown, np.float64)  # [N, 3]; None becomes NaN
    counts = columns[:, 2]
    restarts = isinstance(config, SignalTriggeredConfig)
    for row, decision in enumerate(decisions):
        if "surge" in decision.events:
            columns[row + 1 :] = np.nan  # what it looked for is found
            break
        if "decay" in decision.events and restarts:
            counts[row] = 1 + (shown[row - 1][2] if row else 0)  # what it had come to before it was set back
    return Watch(ema=columns[:, 0], level=columns[:, 1], count=counts)
