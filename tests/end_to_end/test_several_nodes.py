"""A run over several nodes of which one is lost: it ends as if nothing had happened, or says what is missing.

Each worker fills a node, so that no two can be on one: a learner on the head, one on the next, the engine on the last.
"""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from disturbed_run import RUN, differences, rows
from nodes import ClusterNode, RayNodes, await_that, kind_of_network, ray_nodes
from real_run import command

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]
LIMIT_S = 600.0
LEARNER_CPUS, ENGINE_CPUS = 2, 4  # of their nodes
FILE = """\
name: tiny
model: {path: embedded}
task: {kind: arithmetic, digits: 3}
rollout: {workers: 1, cpus_per_worker: 3, prompts_per_step: 4, group_size: 4, max_response_tokens: 32}
learner: {workers: 2, cpus_per_worker: 1.5}
scheduler: {kind: length_triggered, lr: 1.0e-4, decay_period: 2}
steps: 8
checkpoint: {every: 2, keep: 2}
cluster: {silence_timeout_s: 30, placement_timeout_s: 200}
"""


@pytest.fixture(scope="module", params=[kind_of_network()])
def cluster(request: pytest.FixtureRequest) -> Iterator[RayNodes]:
    """Three nodes; the id of a test says what joins them."""
    with ray_nodes(LEARNER_CPUS, LEARNER_CPUS, ENGINE_CPUS) as started:
        assert started.network.kind == request.param
        yield started


class Driver:
    """A run whose driver is beside the head."""

    def __init__(self, cluster: RayNodes, folder: Path, *options: str) -> None:
        """Start it in a folder."""
        folder.mkdir(exist_ok=True)
        (folder / "tiny.yaml").write_text(FILE)
        self._run = folder / RUN
        self._screen = folder / "screen.txt"
        self._process = cluster.start(command("run", "tiny.yaml", *options), folder, self._screen)

    def await_steps(self, number: int) -> None:
        """Wait until so many are recorded."""
        metrics = self._run / "metrics.jsonl"

        def recorded() -> bool:
            assert self._process.poll() is None, self.account()
            return metrics.exists() and metrics.read_bytes().count(b"\n") >= number

        await_that(recorded, LIMIT_S, self.account)

    def ended(self) -> int:
        """Wait until it has; its exit code."""
        return self._process.wait(LIMIT_S)

    def screen(self) -> str:
        """What it has printed."""
        return self._screen.read_text()

    def account(self) -> str:
        """How far it has come, and what it has printed."""
        log = self._run / "log.txt"
        return (log.read_text() if log.exists() else "") + self.screen()


def holder(cluster: RayNodes, role: str) -> ClusterNode:
    """The last node that has a worker of a role."""
    return [node for node in cluster.nodes if node.has(role)][-1]


@pytest.fixture(scope="module")
def undisturbed(cluster: RayNodes, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a run that nothing has happened to."""
    folder = tmp_path_factory.mktemp("undisturbed")
    driver = Driver(cluster, folder)
    driver.await_steps(1)
    places = [[role for role in ("Learner", "RolloutWorker") if node.has(role)] for node in cluster.nodes]
    assert driver.ended() == 0, driver.account()
    assert places == [["Learner"], ["Learner"], ["RolloutWorker"]]
    return folder


@pytest.mark.parametrize(
    ("role", "cpus"),
    [("Learner", LEARNER_CPUS), pytest.param("RolloutWorker", ENGINE_CPUS, marks=pytest.mark.long)],
)
def test_a_run_goes_on_when_a_node_is_lost_and_another_comes(
    cluster: RayNodes, undisturbed: Path, tmp_path: Path, role: str, cpus: int
) -> None:
    driver = Driver(cluster, tmp_path)
    driver.await_steps(3)
    cluster.lose(holder(cluster, role))
    cluster.add(cpus)
    assert driver.ended() == 0, driver.account()
    assert " was lost in " in driver.screen() and "Traceback" not in driver.screen(), driver.account()
    assert differences(rows(undisturbed), rows(tmp_path)) == []
    assert json.loads((tmp_path / RUN / "run.json").read_text())["status"] == "finished"


@pytest.mark.long
def test_a_run_ends_in_good_time_when_a_node_is_lost_and_none_comes(cluster: RayNodes, tmp_path: Path) -> None:
    driver = Driver(cluster, tmp_path, "--set", "cluster.placement_timeout_s=20")
    driver.await_steps(3)
    cluster.lose(holder(cluster, "Learner"))
    assert driver.ended() == 1, driver.account()
    cluster.add(LEARNER_CPUS)  # for whoever comes next
    cluster.await_all()
    [line] = [line for line in driver.screen().splitlines() if line.startswith("evenkeel: ")]
    assert "a node was lost, and within 20 s no other had room in its place: needs learner (1.5 CPU)" in line
    assert "Traceback" not in driver.screen()
