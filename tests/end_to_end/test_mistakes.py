"""What a user can get wrong: one line on standard error, exit code 2, no traceback, nothing started."""

import json
from pathlib import Path

import pytest
from real_run import evenkeel


def mistake(folder: Path, *arguments: str, **changes: str) -> str:
    """The one line that the command prints."""
    finished = evenkeel(*arguments, cwd=folder, **changes)
    assert finished.returncode == 2, finished.stderr
    [line] = finished.stderr.splitlines()
    assert not (folder / "runs" / "tiny").exists()
    return line.removeprefix("evenkeel: ")


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("rollout.groupsize=8", "rollout.groupsize: got 8, expected a known key; did you mean 'group_size'?"),
        ("steps=many", "steps: got 'many', expected a valid integer"),
        ("scheduler.kind=magic", "scheduler.kind: got 'magic', expected a kind out of 'constant', "),
        ("model.path=./nowhere", "model.path: got './nowhere', expected 'embedded', a model folder"),
        ("rollout.group_size=1", "rollout.group_size: got 1, expected at least 2 responses per prompt for advantage"),
        ("rollout.prompts_per_step=0", "rollout.prompts_per_step: got 0, expected greater than or equal to 1"),
        ("rollout.prompts_per_step=-4", "rollout.prompts_per_step: got -4, expected greater than or equal to 1"),
        ("rollout.max_response_tokens=512", "rollout.max_response_tokens: got 512, expected less than the model's"),
        ("arms.decay.scheduler.speed=1", "arms.decay.scheduler.speed: got 1, expected a known key"),
        ("arms.decay.seeds=[1]", "arms.decay.seeds: got [1], expected something an arm may change"),
    ],
)
def test_a_mistake_in_an_experiment_is_told_in_one_line(tiny: Path, override: str, expected: str) -> None:
    line = mistake(tiny, "run", "tiny.yaml", "--arm", "baseline", "--set", override)
    assert line.startswith("tiny.yaml: ")
    assert expected in line


def test_an_unknown_arm_is_told_with_the_arms_there_are(tiny: Path) -> None:
    line = mistake(tiny, "run", "tiny.yaml", "--arm", "decoy")
    assert line == "tiny.yaml: arms: got 'decoy', expected one of: baseline, twin, decay"


def test_a_missing_file_is_told(tiny: Path) -> None:
    assert mistake(tiny, "compare", "gone.yaml") == "gone.yaml: expected a readable file (No such file or directory)"


def test_an_unknown_fault_is_told_before_anything_starts(tiny: Path) -> None:
    line = mistake(tiny, "run", "tiny.yaml", "--arm", "twin", EVENKEEL_FAULTS="drop everything")
    assert line.startswith("environment: EVENKEEL_FAULTS: got 'drop everything', expected 'drop tensor NAME'")


def test_a_nan_in_recorded_log_probs_is_told_with_file_and_line(tiny: Path) -> None:
    rows = [{"train_logprobs": [-1.0, value], "rollout_logprobs": [-1.0, -1.1]} for value in (-0.5, float("nan"))]
    (tiny / "rollouts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    line = mistake(tiny, "metrics", "rollouts.jsonl", "--json")
    assert line == "rollouts.jsonl: line 2: train_logprobs[1]: got nan, expected a finite number"


def test_metrics_of_recorded_log_probs_are_one_json_object(tiny: Path) -> None:
    (tiny / "rollouts.jsonl").write_text('{"train_logprobs": [-1.0, -0.5], "rollout_logprobs": [-1.0, -0.7]}\n')
    finished = evenkeel("metrics", "rollouts.jsonl", "--json", cwd=tiny)
    measured = json.loads(finished.stdout)
    assert finished.returncode == 0
    assert measured["kl"] == pytest.approx(-0.1)
    assert (measured["tokens"], measured["sequences"]) == (2, 1)


def test_a_command_without_its_argument_is_a_mistake(tiny: Path) -> None:
    assert mistake(tiny, "run") == "Missing argument 'E.yaml'."


def test_a_plan_that_does_not_fit_is_told_before_anything_is_started_or_written(tiny: Path) -> None:
    finished = evenkeel("compare", "tiny.yaml", "--set", "rollout.workers=1000", cwd=tiny)
    assert finished.returncode == 1
    [line] = finished.stderr.splitlines()
    assert line.startswith("evenkeel: the cluster has no room: needs 1000 x rollout (0.25 CPU), ")
    assert "missing: nodes for " in line
    assert not (tiny / "runs").exists()
