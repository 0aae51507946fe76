"""How a run stands, as application metrics of Ray: on the metrics page of the driver's node, for Prometheus."""

from collections.abc import Mapping
from functools import cache

from ray.util.metrics import Gauge

TAGS = ("run", "arm", "seed")
PREFIX = "evenkeel_"  # Ray puts `ray_` in front of it
GAUGES = {  # metric of the run: name behind the prefix, description
    "step": ("step", "the step that ended last, from 0"),
    "reward/mean": ("reward_mean", "mean reward of the step's responses"),
    "response/length_mean": ("response_length_mean", "mean length of the step's responses, in tokens"),
    "mismatch/log_ppl_abs_diff": ("mismatch_log_ppl_abs_diff", "training-inference mismatch of the step"),
    "gradient/norm": ("gradient_norm", "norm of the gradient before clipping"),
    "scheduler/lr": ("scheduler_lr", "learning rate of the step"),
    "time/step": ("time_step_seconds", "duration of the step, in seconds"),
    "collapsed": ("collapsed", "1 from the step on at which the run collapsed, 0 before"),
}


class ApplicationMetrics:
    """The gauges of one run. To set one is to put a number down in this process; Ray fetches it every ten seconds.

    metrics = ApplicationMetrics(run="demo", arm="decay", seed=0)
    metrics.show(17, {"reward/mean": 0.42, "scheduler/lr": 1e-4}, collapsed=False)
    """

    def __init__(self, run: str, arm: str, seed: int) -> None:
        """Define them; a connection to Ray must be there."""
        self._tags = dict(zip(TAGS, (run, arm, str(seed)), strict=True))

    def show(self, step: int, metrics: Mapping[str, float], *, collapsed: bool) -> None:
        """Set the gauges of a step that has ended; those of metrics that it lacks stay as they are."""
        shown = {**metrics, "step": float(step), "collapsed": float(collapsed)}
        for key in GAUGES.keys() & shown.keys():
            _gauge(key).set(shown[key], self._tags)


@cache
def _gauge(key: str) -> Gauge:
    """One for all runs of the process: a name is registered once."""
    name, description = GAUGES[key]
    return Gauge(PREFIX + name, description, TAGS)
