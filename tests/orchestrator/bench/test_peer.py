"""What the turns of both sides come to, and what the peer is told."""

import json
from pathlib import Path

import pytest

from orchestrator.bench import peer
from orchestrator.bench.paced_run import SEED, Turn
from orchestrator.bench.workloads import demo
from orchestrator.config_errors import ConfigError
from orchestrator.records import StepRecord
from orchestrator.tasks import ArithmeticTask


def turn(seconds: float, tokens: int, rollout_s: float | None = None) -> Turn:
    if rollout_s is None:
        return Turn(seconds=seconds, tokens=tokens, sampling_s=seconds / 2)
    metrics = {f"time/{phase}": 0.0 for phase in peer.PHASES} | {"time/rollout": rollout_s}
    return Turn(seconds=seconds, tokens=tokens, records=(StepRecord(step=0, time_ms=0, metrics=metrics, events=()),))


def test_the_ratio_is_of_tokens_per_second() -> None:
    ours = [turn(1.0, 300, 0.5), turn(1.0, 330, 0.7), turn(1.0, 360, 0.6)]
    theirs = [turn(2.0, 220), turn(2.0, 200), turn(2.0, 240)]
    ratio, *told = peer.figures_of("bigger", ours, theirs)
    assert ratio.value == pytest.approx(3.0)
    assert ratio.target == 2.0
    assert ratio.holds
    values = {figure.name: figure.value for figure in told}
    assert values["bigger: ours"] == 330
    assert values["bigger: TRL"] == 110
    assert values["bigger: TRL, a step"] == 2.0
    assert values["bigger: TRL, tokens of a step"] == 220
    assert values["bigger: TRL, sampling of a step"] == 1.0
    assert values["bigger: ours, rollout of a step"] == 0.6


def test_a_turn_of_several_steps_is_told_by_the_step() -> None:
    steps = peer.STEPS_PER_TURN["demo"]
    figures = list(peer.figures_of("demo", [turn(1.0 * steps, 100 * steps, 0.5)], [turn(4.0 * steps, 100 * steps)]))
    values = {figure.name: figure.value for figure in figures}
    assert values["demo: ours, a step"] == 1.0
    assert values["demo: TRL, tokens of a step"] == 100


def test_less_than_the_target_does_not_hold() -> None:
    ratio, *_ = peer.figures_of("demo", [turn(1.0, 100, 0.1)], [turn(1.0, 90)])
    assert ratio.holds is False


def test_the_peer_gets_the_sizes_of_the_workload(tmp_path: Path) -> None:
    workload = peer.only_steps(demo(tmp_path))
    told = peer.peer_settings(workload)
    rollout = workload.config.rollout
    assert (told["prompts_per_step"], told["group_size"]) == (rollout.prompts_per_step, rollout.group_size)
    assert told["max_response_tokens"] == rollout.max_response_tokens
    assert told["lr"] == workload.config.scheduler.lr
    assert not rollout.filter_flat_groups
    assert workload.config.checkpoint is None


@pytest.mark.parametrize("name", ["demo", "bigger"])
def test_the_peer_has_whole_microbatches(name: str) -> None:
    responses = {"demo": 8 * 4, "bigger": 32 * 8}[name]
    assert responses % peer.TUNED[name]["responses_per_microbatch"] == 0


def test_the_problems_are_those_of_the_run(tmp_path: Path) -> None:
    config = demo(tmp_path).config
    peer.write_problems(tmp_path / "problems.jsonl", config)
    rows = [json.loads(line) for line in (tmp_path / "problems.jsonl").read_text().splitlines()]
    problem = ArithmeticTask(digits=3, seed=SEED).problem(17)
    assert len(rows) == peer.PROBLEMS
    assert rows[17] == {"prompt": problem.prompt, "answer": problem.answer}


def test_without_an_environment_it_says_how_to_make_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peer, "ENVIRONMENT", tmp_path)
    with pytest.raises(ConfigError, match="make bench-peer"):
        peer.measure(["demo"], turns=1)
