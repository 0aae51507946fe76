"""Where a run stands between two steps: all of it that the learners do not hold."""

import json
from dataclasses import asdict, dataclass, fields
from typing import Any

SMALLEST = {"step": 0, "weight_version": 0, "cursor": 0, "metrics_bytes": 0, "learner_ranks": 1}  # the whole numbers


@dataclass(frozen=True, slots=True, kw_only=True)
class RunState:
    """The driver's part of a checkpoint, in JSON types.

    Example:
        RunState(step=40, weight_version=40, cursor=656, scheduler={"policy": {"last_step": 39}},
                 stability={"signs": {}, "verdict": None}, mlflow_run_id="0c41f0", metrics_bytes=48211,
                 learner_ranks=2)
    """

    step: int  # the next one, which is also how many are done
    weight_version: int  # of the weights before it
    cursor: int  # the next unused prompt of the stream
    scheduler: dict[str, Any]  # `Scheduler.state_dict`
    stability: dict[str, Any]  # `StabilityMonitor.state_dict`
    mlflow_run_id: str | None  # None where MLflow made no run
    metrics_bytes: int  # length of metrics.jsonl with the lines of all steps before it
    learner_ranks: int  # that wrote the learners' files

    def to_json(self) -> str:
        """One JSON object. Floats come back to the last bit; those that are not finite as NaN and Infinity.

        Raises:
            TypeError: something in it is of no JSON type.
        """
        return json.dumps(asdict(self), indent=1) + "\n"

    @classmethod
    def from_json(cls, text: str) -> "RunState":
        """Read what `to_json` wrote.

        Raises:
            ValueError: it is something else; says which field, what stands there and what was expected.
        """
        tree = json.loads(text)
        names = [field.name for field in fields(cls)]
        if not isinstance(tree, dict):
            raise ValueError(f"got {tree!r}, expected an object")
        for name in [*names, *tree]:
            if name not in tree or name not in names:
                raise ValueError(f"{name}: {'is missing' if name in names else 'is no field of a run’s state'}")
            if expected := _misfit(name, tree[name]):
                raise ValueError(f"{name}: got {tree[name]!r}, expected {expected}")
        return cls(**tree)


def _misfit(name: str, value: Any) -> str | None:
    """What was expected of a field's value; None when it is that."""
    if name in SMALLEST:
        return None if type(value) is int and value >= SMALLEST[name] else f"a whole number from {SMALLEST[name]} on"
    if name == "mlflow_run_id":
        return None if value is None or isinstance(value, str) else "text or null"
    return None if isinstance(value, dict) else "an object"
