"""A job handed in and followed, against a small server that answers as a cluster's dashboard does."""

import asyncio
import os
import secrets
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from aiohttp import web

from cluster import submit
from cluster.submit import JobClient, JobEnd, JobOrder, NoAccess, Unreachable

JOB = "raysubmit_1"
LINES = ["Running entrypoint\n", "step 1/3\n", "step 2/3\n", "step 3/3\n"]


class FakeDashboard:
    """A cluster with one job, whose output it can be made to break off."""

    def __init__(self) -> None:
        self.status = 200  # of every answer
        self.states = ["SUCCEEDED"]  # of the job, one for each time that somebody asks; the last one stays
        self.exit_code: int | None = 0
        self.breaks_after: list[int] = []  # lines after which the connection breaks, one for each time that it is made
        self.requests: list[dict[str, Any]] = []
        self.address = ""
        self._loop = asyncio.new_event_loop()

    async def _version(self, request: web.Request) -> web.Response:
        return web.json_response({"version": "4", "ray_version": "2.60.0"}, status=self.status)

    async def _has_package(self, request: web.Request) -> web.Response:
        return web.json_response({})

    async def _submit(self, request: web.Request) -> web.Response:
        self.requests.append(await request.json())
        return web.json_response({"job_id": JOB, "submission_id": JOB}, status=self.status)

    async def _info(self, request: web.Request) -> web.Response:
        state = self.states.pop(0) if len(self.states) > 1 else self.states[0]
        described = {"type": "SUBMISSION", "status": state, "entrypoint": "true", "driver_exit_code": self.exit_code}
        return web.json_response(described, status=self.status)

    async def _tail(self, request: web.Request) -> web.StreamResponse:
        answer = web.WebSocketResponse()
        await answer.prepare(request)
        last = self.breaks_after.pop(0) if self.breaks_after else None
        for line in LINES[:last]:
            await answer.send_str(line)
        if last is not None and request.transport is not None:
            await asyncio.sleep(0.05)
            request.transport.abort()
        await answer.close()
        return answer

    async def _start(self) -> None:
        app = web.Application()
        app.router.add_get("/api/version", self._version)
        app.router.add_post("/api/jobs/", self._submit)
        app.router.add_get(f"/api/jobs/{JOB}", self._info)
        app.router.add_get(f"/api/jobs/{JOB}/logs/tail", self._tail)
        app.router.add_get("/api/packages/{protocol}/{name}", self._has_package)
        self._runner = web.AppRunner(app)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        self.address = f"http://127.0.0.1:{self._runner.addresses[0][1]}"

    def __enter__(self) -> "FakeDashboard":
        self._loop.run_until_complete(self._start())
        self._thread = threading.Thread(target=self._loop.run_forever)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        asyncio.run_coroutine_threadsafe(self._runner.cleanup(), self._loop).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


@pytest.fixture
def dashboard(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeDashboard]:
    # As a private Ray does, and for as long: Ray reads it once in a process.
    os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
    monkeypatch.setattr(submit, "PAUSE_S", 0.01)
    with FakeDashboard() as fake:
        yield fake


def followed(dashboard: FakeDashboard) -> tuple[str, JobEnd]:
    told: list[str] = []
    end = JobClient(dashboard.address).follow(JOB, told.append)
    return "".join(told), end


def test_what_a_job_prints_is_told_until_it_ends(dashboard: FakeDashboard) -> None:
    assert followed(dashboard) == ("".join(LINES), JobEnd(state="succeeded", exit_code=0, message=""))


def test_each_line_is_told_once_whatever_happens_to_the_connection(dashboard: FakeDashboard) -> None:
    dashboard.states = ["PENDING", "RUNNING", "RUNNING", "FAILED"]
    dashboard.exit_code = 3
    dashboard.breaks_after = [0, 2, 1, 3]
    assert followed(dashboard) == ("".join(LINES), JobEnd(state="failed", exit_code=3, message=""))


def test_who_follows_again_hears_only_what_is_new(dashboard: FakeDashboard) -> None:
    client, told = JobClient(dashboard.address), []
    client.follow(JOB, told.append)
    client.follow(JOB, told.append)
    assert told == LINES


def test_a_cluster_that_is_gone_for_long_is_given_up(dashboard: FakeDashboard, monkeypatch: pytest.MonkeyPatch) -> None:
    client = JobClient(dashboard.address)
    dashboard.status = 500
    monkeypatch.setattr(submit, "LOST_S", 0.05)
    with pytest.raises(Unreachable, match="does not answer any more"):
        client.follow(JOB, lambda text: None)


def test_the_driver_gets_a_cpu_time_to_end_and_the_package(dashboard: FakeDashboard, tmp_path: Any) -> None:
    (tmp_path / "tiny.zip").write_bytes(b"PK\x05\x06" + bytes(18))
    order = JobOrder(entrypoint="python -m sweeps run", package=str(tmp_path / "tiny.zip"), cpus=0.5, labels={"a": "b"})
    assert JobClient(dashboard.address).submit(order) == JOB
    [request] = dashboard.requests
    assert request["entrypoint"] == "python -m sweeps run"
    assert (request["entrypoint_num_cpus"], request["entrypoint_label_selector"]) == (0.5, {"a": "b"})
    assert request["runtime_env"]["working_dir"].startswith("gcs://_ray_pkg_")
    assert request["runtime_env"]["env_vars"] == {"RAY_JOB_STOP_WAIT_TIME_S": "60"}


@pytest.mark.parametrize(("status", "problem"), [(401, "there is none here"), (403, "the one here is another")])
def test_a_refusal_says_what_is_wrong_with_the_token(dashboard: FakeDashboard, status: int, problem: str) -> None:
    dashboard.status = status
    with pytest.raises(NoAccess, match=f"the token of the cluster at {dashboard.address}: {problem}"):
        JobClient(dashboard.address)


@pytest.mark.parametrize("status", [404, 500])
def test_a_server_that_is_no_dashboard_is_told(dashboard: FakeDashboard, status: int) -> None:
    dashboard.status = status
    with pytest.raises(Unreachable, match=f"no Ray cluster's dashboard answers at {dashboard.address}"):
        JobClient(dashboard.address)


def test_the_address_that_is_given_counts(dashboard: FakeDashboard, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RAY_ADDRESS", "RAY_API_SERVER_ADDRESS"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    JobClient(dashboard.address)
    with pytest.raises(Unreachable):
        JobClient("http://127.0.0.1:1")
