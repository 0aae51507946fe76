"""What a run tells: a line on the screen, and in the log all that is known."""

import logging
from collections.abc import Iterator
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

from cluster.worker import WorkerLost
from orchestrator.run.log import RunLog
from orchestrator.run.progress import Progress


@pytest.fixture
def out() -> StringIO:
    return StringIO()


@pytest.fixture
def log(tmp_path: Path) -> Iterator[Path]:
    """The file that the log goes to."""
    yield tmp_path / "log.txt"


@pytest.fixture
def told(out: StringIO, log: Path) -> Iterator[RunLog]:
    logger = logging.getLogger(f"test.{log}")
    logger.setLevel(logging.INFO)
    handler = logging.FileHandler(log)
    handler.setFormatter(logging.Formatter("%(levelname)s %(message)s"))
    logger.addHandler(handler)
    yield RunLog(Progress(Console(file=out, width=40), "decay seed 0", steps=9), logger)
    handler.close()


def test_what_is_worth_knowing_is_a_line_in_both(told: RunLog, out: StringIO, log: Path) -> None:
    told.say("goes on with step 40, 50% done [as %s says]")
    assert out.getvalue() == "decay seed 0: goes on with step 40, 50% done [as %s says]\n"
    assert log.read_text() == "INFO goes on with step 40, 50% done [as %s says]\n"


def test_a_warning_without_an_error_is_a_line_in_both(told: RunLog, out: StringIO, log: Path) -> None:
    told.warn("checkpoint runs/x is not used")
    assert out.getvalue() == "decay seed 0: warning: checkpoint runs/x is not used\n"
    assert log.read_text() == "WARNING checkpoint runs/x is not used\n"


def test_a_loss_is_one_line_on_the_screen_and_has_its_remote_traceback_in_the_log(
    told: RunLog, out: StringIO, log: Path
) -> None:
    try:
        try:
            raise OSError("far away")
        except OSError as error:
            raise WorkerLost("learner-1", "apply", "it died") from error
    except WorkerLost as lost:
        told.lost(lost, "the learners start again from the model")
    text = "learner-1 was lost in apply: it died; the learners start again from the model"
    assert out.getvalue() == f"decay seed 0: warning: {text}\n"
    first, *traceback = log.read_text().splitlines()
    assert first == f"WARNING {text}"
    assert "OSError: far away" in traceback
    assert traceback[-1] == "cluster.worker.WorkerLost: learner-1 was lost in apply: it died"
