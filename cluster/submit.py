"""A job on a Ray cluster: handed in, followed to its end through whatever happens to the connection, or stopped."""

import asyncio
import logging
import os
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar

import aiohttp
import requests
from ray.exceptions import AuthenticationError
from ray.job_submission import JobStatus, JobSubmissionClient

TIMEOUTS_S = (10, 120)  # for a connection, and for an answer; Ray's client would wait for ever
PAUSE_S, LOST_S = 2.0, 300.0  # before the cluster is asked again, and when it counts as gone
STOP_S = 60  # that a driver has for its end when its job is stopped; Ray's own default is 3
# Ray's client lets these overrule the address that it is given.
OVERRULING = ("RAY_API_SERVER_ADDRESS", "RAY_ADDRESS")
Answer = TypeVar("Answer")


class Unreachable(ConnectionError):
    """No Ray cluster answers at that address, or none any more."""


class NoAccess(PermissionError):
    """The cluster wants a token, and there is none here, or another one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class JobOrder:
    """A job to hand in.

    Example:
        JobOrder(entrypoint="python -m sweeps compare tiny.yaml --runs /shared/runs", package="/tmp/x/package.zip",
                 cpus=1.0, labels={"market-type": "on-demand"})
    """

    entrypoint: str
    package: str  # a zip file, which becomes the working directory
    cpus: float  # that are reserved for the driver, on a node without GPUs if one has them free
    labels: Mapping[str, str] = field(default_factory=dict)  # that the driver's node must have
    env_vars: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class JobEnd:
    """How a job ended.

    Example:
        JobEnd(state="failed", exit_code=2, message="Job entrypoint command failed with exit code 2")
    """

    state: Literal["succeeded", "failed", "stopped"]
    exit_code: int | None  # the driver's; None where it had none
    message: str


class JobClient:
    """The job server of a cluster.

    client = JobClient("http://head:8265")
    job = client.submit(order)
    end = client.follow(job, lambda text: print(text, end=""))
    """

    def __init__(self, address: str) -> None:
        """Connect.

        Args:
            address: URL of the cluster's dashboard.

        Raises:
            Unreachable, NoAccess: as they say.
        """
        _silence()
        for name in OVERRULING:
            os.environ.pop(name, None)
        self._address = address
        self._told: Counter[str] = Counter()  # characters of each job's output
        self._client = self._ask(lambda: _PromptClient(address))

    def submit(self, order: JobOrder) -> str:
        """Send the package and start the job; returns its submission id.

        Raises:
            Unreachable, NoAccess: as they say; nothing is started.
        """
        return self._ask(
            lambda: self._client.submit_job(
                entrypoint=order.entrypoint,
                runtime_env={
                    "working_dir": order.package,
                    "env_vars": {"RAY_JOB_STOP_WAIT_TIME_S": str(STOP_S), **order.env_vars},
                },
                entrypoint_num_cpus=order.cpus,
                entrypoint_label_selector=dict(order.labels) or None,
            )
        )

    def follow(self, job: str, tell: Callable[[str], None]) -> JobEnd:
        """Tell what the job prints, each piece once however often this is called, until it ends.

        A connection that breaks is made again; the job knows nothing of it.

        Raises:
            Unreachable: the cluster has not answered for minutes; the job may go on.
        """
        answered = time.monotonic()
        while True:
            try:
                asyncio.run(self._tell(job, tell))
                if (end := self.end(job)) is not None:
                    return end
                answered = time.monotonic()
            except (Unreachable, aiohttp.ClientError, OSError, RuntimeError) as error:
                if time.monotonic() - answered > LOST_S:
                    raise Unreachable(f"{self._address} does not answer any more: {error}") from error
            time.sleep(PAUSE_S)

    async def _tell(self, job: str, tell: Callable[[str], None]) -> None:
        """Tell what is new; Ray begins with the first line each time."""
        seen = 0
        async for text in self._client.tail_job_logs(job):
            seen += len(text)
            if (new := seen - self._told[job]) > 0:
                self._told[job] = seen
                tell(text[-new:])

    def end(self, job: str) -> JobEnd | None:
        """How it ended, if it did.

        Raises:
            Unreachable: the cluster does not answer.
        """
        seen = self._ask(lambda: self._client.get_job_info(job))
        states: dict[JobStatus, Literal["succeeded", "failed", "stopped"]] = {
            JobStatus.SUCCEEDED: "succeeded",
            JobStatus.FAILED: "failed",
            JobStatus.STOPPED: "stopped",
        }
        if seen.status not in states:
            return None
        return JobEnd(state=states[seen.status], exit_code=seen.driver_exit_code, message=seen.message or "")

    def stop(self, job: str) -> None:
        """Have the driver end as by Ctrl-C; `follow` goes on to tell of it.

        Raises:
            Unreachable: the cluster does not answer.
        """
        self._ask(lambda: self._client.stop_job(job))

    def _ask(self, call: Callable[[], Answer]) -> Answer:
        try:
            return call()
        except AuthenticationError as error:
            is_missing = "couldn't find" in str(error) or "required" in str(error)
            problem = "there is none here" if is_missing else "the one here is another"
            raise NoAccess(f"the token of the cluster at {self._address}: {problem}") from error
        except (requests.RequestException, ConnectionError, RuntimeError, ValueError) as error:
            raise Unreachable(f"no Ray cluster's dashboard answers at {self._address}: {error}") from error


class _PromptClient(JobSubmissionClient):
    """Gives up on a server that does not answer."""

    def _do_request(self, method: str, endpoint: str, **options: Any) -> requests.Response:
        return super()._do_request(method, endpoint, timeout=TIMEOUTS_S, **options)


def _silence() -> None:
    """Ray's client tells of each request; what goes wrong it raises as well."""
    for name in ("ray.dashboard.modules.dashboard_sdk", "ray.dashboard.modules.job.sdk"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
