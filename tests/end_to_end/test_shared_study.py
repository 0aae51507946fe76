"""Two drivers on one PostgreSQL storage work off one study."""

import json
import re
import subprocess
from pathlib import Path

import pytest
from postgres import postgres_server
from real_run import LIMIT_S, command, environment

from sweeps.study.record import StudyRecord

TRIALS = 8
SWEEP = f"""\
name: shared
experiment: tiny.yaml
changes: {{steps: 6, evaluation: {{every: 3}}, rollout: {{prompts_per_step: 3}}}}
space:
  scheduler.kind: {{kind: categorical, choices: [length_triggered]}}
  scheduler.decay_period: {{kind: int, low: 1, high: 6}}
objective: {{metric: reward/mean}}
trials: {TRIALS}
sharing: {{every: 2}}
"""

pytestmark = pytest.mark.slow


def test_two_drivers_on_one_storage_share_a_study_without_a_doubled_trial(tiny: Path) -> None:
    (tiny / "sweep.yaml").write_text(SWEEP)
    with postgres_server() as url:
        arguments = command("sweep", "sweep.yaml", "--resume", "--set", f"storage={url}")
        drivers = [
            subprocess.Popen(
                arguments, cwd=tiny, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
            )
            for _ in range(2)
        ]
        ends = [driver.communicate(timeout=LIMIT_S) for driver in drivers]
    assert [driver.returncode for driver in drivers] == [0, 0], [errors for _, errors in ends]
    told = [re.findall(r"^trial-(\d+): value", screen, re.MULTILINE) for screen, _ in ends]
    assert sorted(map(int, [*told[0], *told[1]])) == list(range(TRIALS))
    record = StudyRecord.read(tiny / "runs" / "shared")
    assert [(trial.number, trial.state) for trial in record.trials] == [(n, "complete") for n in range(TRIALS)]
    for arm in ["baseline", *(trial.arm for trial in record.trials)]:
        lines = (tiny / "runs" / "shared" / arm / "seed-0" / "metrics.jsonl").read_text().splitlines()
        assert [json.loads(line)["step"] for line in lines] == list(range(6))
