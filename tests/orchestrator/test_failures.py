"""What is known to go wrong: told in one line, whatever was loaded so far."""

import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

from actors.policy_model import UnsupportedModel
from cluster.config import RestartsConfig
from cluster.placement import PlacementError
from cluster.worker import WorkerLost
from orchestrator.crew.restarts import Restarts, RestartsExhausted
from orchestrator.failures import FAILURES, known_failures
from orchestrator.self_test import WeightSyncError

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(("module", "name"), FAILURES)
def test_every_failure_is_defined_where_it_is_looked_for(module: str, name: str) -> None:
    failure = getattr(import_module(module), name)
    assert issubclass(failure, Exception)
    assert failure.__module__ == module
    assert failure in known_failures()


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


def test_a_run_that_has_spent_its_restarts_is_a_known_failure() -> None:
    with pytest.raises(RestartsExhausted) as raised:
        Restarts(RestartsConfig(learner=0), lambda lost, remedy: None).spend(
            WorkerLost("learner-0", "apply", "died"), ""
        )
    assert isinstance(raised.value, known_failures())
    assert "\n" not in str(raised.value)


def test_bugs_are_not_known_failures() -> None:
    for error in (TypeError(), KeyError(), ValueError(), RuntimeError(), AssertionError()):
        assert not isinstance(error, known_failures())


def test_asking_loads_nothing() -> None:
    code = (
        "import sys, orchestrator.failures as f; f.known_failures();"
        "print({'ray', 'torch', 'vllm', 'mlflow'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
