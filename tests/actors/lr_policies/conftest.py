"""Drives policies over traces."""

from collections.abc import Callable, Iterable, Mapping

import pytest

from actors.lr_policies import LrDecision, LrPolicy, PolicyConfig

Trace = Iterable[tuple[int, Mapping[str, float | None]]]
Replay = Callable[[PolicyConfig, Trace], list[LrDecision]]


@pytest.fixture
def replay() -> Replay:
    """A function from a config and (step, metrics) pairs to the decisions of a fresh policy."""

    def run(config: PolicyConfig, trace: Trace) -> list[LrDecision]:
        policy: LrPolicy = config.build(total_steps=None)
        return [policy.observe(step, metrics) for step, metrics in trace]

    return run
