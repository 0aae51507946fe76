"""What a run tells: on the screen in a line, and in its log with all that is known."""

import logging

from cluster.worker import WorkerLost
from orchestrator.run.progress import Progress


class RunLog:
    """Screen and log of one run.

    told = RunLog(progress, folder.log)
    told.warn("rollout-0 was lost in generate", error)
    """

    def __init__(self, progress: Progress, log: logging.Logger) -> None:
        self._progress = progress
        self._log = log

    def say(self, text: str) -> None:
        """Something worth knowing."""
        self._progress.say(text)
        self._log.info("%s", text)

    def warn(self, text: str, error: BaseException | None = None) -> None:
        """Something that went wrong and is borne; the log gets the traceback, the remote one with it."""
        self._progress.say(f"warning: {text}")
        self._log.warning("%s", text, exc_info=error)

    def lost(self, lost: WorkerLost, remedy: str) -> None:
        """A worker was lost, and what is done about it."""
        self.warn(f"{lost}; {remedy}", lost)
