"""Runs and studies made by hand."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from sweeps.curves import Curves
from sweeps.study.record import StudyRecord

SPACE = {
    "scheduler.kind": {"kind": "categorical", "choices": ["length_triggered", "signal_triggered"]},
    "scheduler.ratio": {"kind": "float", "low": 1.2, "high": 3.0, "log": False, "when": {}},
    "scheduler.patience": {"kind": "int", "low": 1, "high": 8, "log": True},
}
MakeRun = Callable[..., Curves]
MakeStudy = Callable[..., StudyRecord]


@pytest.fixture
def make_run() -> MakeRun:
    """A run of so many steps that recorded everything there is to draw."""

    def make(arm: str, seed: int = 0, steps: int = 8, mismatch: float = 0.001, accuracy: float = 0.5) -> Curves:
        rows: list[dict[str, float]] = [
            {
                "step": step,
                "reward/mean": 0.1 + 0.01 * step + 0.001 * seed,
                "mismatch/log_ppl_abs_diff": mismatch * (1 + step + seed),
                "gradient/norm_smoothed": 0.5,
                "gradient/noise_scale": 12.0,
                "response/length_mean": 30.0 + step,
                "scheduler/lr": 1e-5 if step < 4 else 5e-6,
                **({"eval/held_out/avg@4": accuracy + 0.01 * seed} if step % 4 == 3 else {}),
                **({"scheduler/event/decay": 1.0} if step == 4 else {}),
            }
            for step in range(steps)
        ]
        return Curves(arm=arm, seed=seed, steps=np.arange(steps), rows=tuple(rows))

    return make


def trial(number: int, **changed: Any) -> dict[str, Any]:
    """A trial as study.json has it: complete, better with every number."""
    kind = "length_triggered" if number % 2 else "signal_triggered"
    params: dict[str, Any] = {"scheduler.kind": kind, "scheduler.patience": 1 + number % 8}
    if number % 2:
        params["scheduler.ratio"] = 1.5 + 0.1 * number
    shared = {"steps": 8, "executed": 3, "source": "baseline", "forked_at": 5}
    told = {
        "number": number,
        "arm": f"trial-{number:03d}",
        "state": "complete",
        "params": params,
        "value": 0.5 + 0.01 * number,
        "constraints": {"mismatch p95": -0.001},
        "reason": None,
        "seeds": {"0": shared, "1": shared},
    }
    return {**told, **changed}


@pytest.fixture
def make_study() -> MakeStudy:
    """A study of these trials; a number stands for a complete one, and what it is to be different in may follow."""

    def make(*trials: int | tuple[int, dict[str, Any]], **changed: Any) -> StudyRecord:
        numbered = [trial(entry) if isinstance(entry, int) else trial(entry[0], **entry[1]) for entry in trials]
        tree = {
            "name": "thresholds",
            "direction": "maximize",
            "objective": {"metric": "eval/held_out/avg@4", "last": 2, "aggregate": "mean"},
            "space": SPACE,
            "seeds": [0, 1],
            "steps": 8,
            "sharing": True,
            "trials": numbered,
            "accounting": {"executed": 22, "saved": 10, "naive": 32, "free": 1, "merged": 0},
        }
        return StudyRecord.model_validate({**tree, **changed})

    return make
