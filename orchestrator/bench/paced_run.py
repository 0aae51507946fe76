"""A real run, whole with its records and its tracking, that does some steps whenever it is asked to."""

import os
import queue
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from rich.console import Console

from cluster.session import Session, session
from orchestrator.bench.workloads import Workload
from orchestrator.crew.crews import Crews
from orchestrator.experiment import Experiment
from orchestrator.records import StepRecord
from orchestrator.run_spec import RunSpec
from orchestrator.task_problems import TaskFiles
from orchestrator.tracking.tracker import Tracker

SEED = 0
FILE = "bench"  # how messages call the experiment, which is in no file


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    """Some steps, one after the other.

    Example:
        Turn(seconds=1.25, tokens=2120, records=(record, next_record))
    """

    seconds: float  # from the end of the step before to that of the last one, recorded
    tokens: int  # that were sampled
    records: tuple[StepRecord, ...] = ()  # none of a peer's
    sampling_s: float = 0.0  # of a peer, which has no records to tell it


class PacedRun:
    """The run's watch: it holds the run after the steps of a turn, until the next turn or the end is asked for.

    with paced_run(workload, steps_per_turn=5) as run:
        run.turn().seconds
    """

    def __init__(self, steps_per_turn: int) -> None:
        self._steps_per_turn = steps_per_turn
        self._orders: queue.SimpleQueue[int] = queue.SimpleQueue()  # steps to do; 0 is the end
        self._done: queue.SimpleQueue[Turn | BaseException] = queue.SimpleQueue()
        self._begin(1)  # the step with which it comes up

    def turn(self) -> Turn:
        """Have it do the steps of a turn; raises what ends the run."""
        self._orders.put(self._steps_per_turn)
        return self.await_turn()

    def await_turn(self) -> Turn:
        """What the turn that is under way comes to; raises what ends the run."""
        done = self._done.get()
        if isinstance(done, BaseException):
            raise done
        return done

    def end(self) -> None:
        """End the run."""
        self._orders.put(0)

    def fail(self, error: BaseException) -> None:
        """The run has ended by itself."""
        self._done.put(error)

    def see(self, record: StepRecord) -> bool:
        """Called by the run after each step, in its thread."""
        self._records.append(record)
        if len(self._records) < self._steps:
            return True
        seconds = time.perf_counter() - self._started
        tokens = int(sum(step.metrics["sampling/tokens"] for step in self._records))
        self._done.put(Turn(seconds=seconds, tokens=tokens, records=tuple(self._records)))
        return self._begin(self._orders.get())

    def closing_tags(self) -> dict[str, str]:
        """MLflow needs none."""
        return {}

    def _begin(self, steps: int) -> bool:
        self._steps = steps
        self._records: list[StepRecord] = []
        self._started = time.perf_counter()
        return steps > 0


def kept(turn: Callable[[], Turn], turns: list[Turn]) -> Callable[[], float]:
    """A side of a comparison, as `interleaved` takes it; each of its turns is added to `turns`."""

    def seconds() -> float:
        turns.append(turn())
        return turns[-1].seconds

    return seconds


@contextmanager
def paced_run(workload: Workload, steps_per_turn: int) -> Iterator[PacedRun]:
    """A run that has done one step; Ray and all workers are gone after the with-block.

    Raises:
        Whatever keeps the run from coming up.
    """
    with session(workload.config.cluster) as opened, paced_run_in(opened, workload, steps_per_turn) as run:
        yield run


@contextmanager
def paced_run_in(opened: Session, workload: Workload, steps_per_turn: int) -> Iterator[PacedRun]:
    """The same in a session that others may share; its workers are gone after the with-block.

    Raises:
        Whatever keeps the run from coming up.
    """
    run = PacedRun(steps_per_turn)
    with TemporaryDirectory(prefix="evenkeel-bench-") as place:
        spec = RunSpec(
            config=workload.config,
            model=workload.model,
            task=TaskFiles.open(workload.config, FILE),
            arm="default",
            seed=SEED,
            folder=Path(place) / "run",
            watch=run,
            quiet=True,
        )

        def work() -> None:
            try:
                with open(os.devnull, "w", encoding="utf-8") as nowhere:
                    Experiment(spec, Crews(opened), Console(file=nowhere)).run(tracker)
            except BaseException as error:
                run.fail(error)

        tracker = Tracker(f"sqlite:///{place}/mlflow.db", Path(place), warn=print)
        thread = threading.Thread(target=work, name="evenkeel-bench")
        thread.start()
        try:
            run.await_turn()
            yield run
        finally:
            run.end()
            thread.join()
            tracker.close()
