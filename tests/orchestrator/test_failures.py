"""What is known to go wrong: told in one line, whatever was loaded so far."""

import subprocess
import sys

from actors.policy_model import UnsupportedModel
from cluster.placement import PlacementError
from cluster.pool import WorkerLost
from orchestrator.failures import known_failures
from orchestrator.self_test import WeightSyncError


def test_failures_of_loaded_modules_are_known() -> None:
    known = known_failures()
    for error in (
        ConnectionError("no cluster"),
        PlacementError("no room"),
        WorkerLost("learner-0", "apply", "died"),
        WeightSyncError("layer 3", "stale"),
        UnsupportedModel("bias"),
    ):
        assert isinstance(error, known)


def test_bugs_are_not_known_failures() -> None:
    for error in (TypeError(), KeyError(), ValueError(), RuntimeError(), AssertionError()):
        assert not isinstance(error, known_failures())


def test_asking_loads_nothing() -> None:
    code = (
        "import sys, orchestrator.failures as f; f.known_failures();"
        "print({'ray', 'torch', 'vllm', 'mlflow'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
