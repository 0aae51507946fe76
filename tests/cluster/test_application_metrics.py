"""The gauges of a run; that Ray shows them is seen in tests/end_to_end/test_submit.py."""

import math
import re

import pytest
from ray.util.metrics import Gauge

from cluster import application_metrics
from cluster.application_metrics import GAUGES, ApplicationMetrics

Seen = dict[str, tuple[float, dict[str, str]]]


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> Seen:
    """What each of Ray's gauges was set to last, by its name."""
    values: Seen = {}
    monkeypatch.setattr(Gauge, "set", lambda self, value, tags: values.update({self.info["name"]: (value, tags)}))
    application_metrics._gauge.cache_clear()
    return values


def test_names_are_prometheus_names_and_differ() -> None:
    names = [name for name, _ in GAUGES.values()]
    assert all(re.fullmatch("[a-z_]+", name) for name in names)
    assert len(set(names)) == len(names)


def test_a_step_sets_the_gauges_of_what_it_has_with_the_tags_of_its_run(seen: Seen) -> None:
    first, second = (ApplicationMetrics("demo", arm, 7) for arm in ("baseline", "decay"))
    first.show(3, {"reward/mean": 0.5, "sampling/rounds": 2.0}, collapsed=False)
    tags = {"run": "demo", "arm": "baseline", "seed": "7"}
    step, sound = ("evenkeel_step", 3.0), ("evenkeel_collapsed", 0.0)
    assert seen == {name: (value, tags) for name, value in (step, sound, ("evenkeel_reward_mean", 0.5))}
    second.show(4, {"gradient/norm": math.nan}, collapsed=True)
    assert seen["evenkeel_collapsed"] == (1.0, {**tags, "arm": "decay"})
    assert math.isnan(seen["evenkeel_gradient_norm"][0])
    assert seen["evenkeel_reward_mean"] == (0.5, tags)
