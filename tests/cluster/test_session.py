"""What a session sends to the nodes, beside what Ray brings them with a job."""

from pathlib import Path

import pytest

from cluster import TELEMETRY_OFF
from cluster.config import ClusterConfig
from cluster.job import Job
from cluster.package import PACKAGES, ROOT
from cluster.placement import PlacementError, this_node
from cluster.plan import Bundle, Plan, Seat
from cluster.session import check_cluster, shipped


@pytest.fixture(autouse=True)
def telemetry_is_off(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in TELEMETRY_OFF.items():
        monkeypatch.setenv(name, value)


def job(folder: Path, **runtime_env: object) -> Job:
    return Job(submission_id="raysubmit_1", runtime_env=runtime_env, folder=folder)


def test_a_driver_of_its_own_sends_our_packages() -> None:
    sent = shipped(None)
    assert [Path(path).name for path in sent["py_modules"]] == list(PACKAGES)
    assert all(Path(path).is_dir() for path in sent["py_modules"])
    assert sent["env_vars"] == TELEMETRY_OFF


def test_a_job_that_has_our_packages_with_it_sends_them_no_second_time() -> None:
    assert "py_modules" not in shipped(job(ROOT, working_dir="gcs://a.zip"))
    assert "py_modules" not in shipped(job(Path("/elsewhere"), py_modules=["gcs://a.zip"]))
    assert "py_modules" in shipped(job(Path("/elsewhere"), working_dir="gcs://a.zip"))
    assert "py_modules" in shipped(job(ROOT))  # then the nodes get nothing from Ray


def test_what_a_job_says_of_the_environment_is_not_said_again() -> None:
    sent = shipped(job(ROOT, env_vars={"DO_NOT_TRACK": "0", "OTHER": "x"}))
    assert sent["env_vars"] == {name: value for name, value in TELEMETRY_OFF.items() if name != "DO_NOT_TRACK"}


def test_whether_a_plan_fits_this_machine_is_known_before_ray_is_started(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)

    def plan(cpus: float) -> Plan:
        return Plan(bundles=(Bundle(seats=(Seat(role="rollout", cpus=cpus, gpus=0.0),)),))

    cpus = this_node().cpus
    check_cluster(ClusterConfig(), [plan(cpus)])
    with pytest.raises(PlacementError, match=r"missing: nodes for 1 x rollout"):
        check_cluster(ClusterConfig(), [plan(cpus), plan(cpus + 1)])
