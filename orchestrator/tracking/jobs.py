"""What is done for one run in the tracker's thread, once the store is there."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from orchestrator.records import RunCard, StepRecord
from orchestrator.tracking.unsent_steps import UnsentSteps

if TYPE_CHECKING:
    from orchestrator.tracking.store import MlflowStore

TellRefused = Callable[[str, Exception], None]  # what, and why


@dataclass(slots=True, kw_only=True)
class Target:
    """A run as far as the tracker's thread knows it.

    Example:
        Target(name="demo/decay/seed-0", tell_refused=tracker.tell_refused)
    """

    name: str
    tell_refused: TellRefused
    id: str | None = None  # None until it is made, and for good when that was refused
    steps: UnsentSteps = field(default_factory=UnsentSteps)
    has_told: bool = False  # that a step was refused

    def refuse_step(self, error: Exception) -> None:
        """Give up a step; only the first one is told of, all are counted."""
        step = self.steps.refuse()
        if step is not None and not self.has_told:
            self.has_told = True
            self.tell_refused(f"step {step} of {self.name}", error)


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenRun:
    """Find the run or make it, as a child of another if that one is there.

    Example:
        OpenRun(target=target, card=card, parent=None)
    """

    target: Target
    card: RunCard
    parent: Target | None

    def do(self, store: "MlflowStore") -> None:
        self.target.id = store.open_run(self.card, self.parent.id if self.parent else None)

    def refuse(self, error: Exception) -> bool:
        self.target.tell_refused(f"run {self.target.name}", error)
        return False


@dataclass(frozen=True, slots=True, kw_only=True)
class Errand:
    """A single call; none when the run could not be made.

    Example:
        Errand(target=target, what="tags", call=lambda store, run_id: store.set_tags(run_id, {"collapsed": "true"}))
    """

    target: Target
    what: str
    call: "Callable[[MlflowStore, str], None]"

    def do(self, store: "MlflowStore") -> None:
        if self.target.id is not None:
            self.call(store, self.target.id)

    def refuse(self, error: Exception) -> bool:
        self.target.tell_refused(f"{self.what} of {self.target.name}", error)
        return False


@dataclass(frozen=True, slots=True, kw_only=True)
class SendSteps:
    """Send what waits by the time the job is done.

    Example:
        SendSteps(target=target)
    """

    target: Target

    def do(self, store: "MlflowStore") -> None:
        self.target.steps.send(store, self.target.id)

    def refuse(self, error: Exception) -> bool:
        if self.target.steps.is_sending:
            self.target.refuse_step(error)
            return True
        self.target.steps.give_up()  # there is no store
        return False


@dataclass(slots=True, kw_only=True)
class FillIn:
    """Send the steps recorded earlier that MLflow lacks.

    Example:
        FillIn(target=target, read=lambda: read_steps(Path("runs/demo/decay/seed-0/metrics.jsonl")))
    """

    target: Target
    read: Callable[[], Iterable[StepRecord]] | None  # None once it is done: the steps need not be kept for it

    def do(self, store: "MlflowStore") -> None:
        self.target.steps.fill(store, self.target.id, self.rows())
        self.read = None

    def refuse(self, error: Exception) -> bool:
        if self.target.steps.is_sending:
            self.target.refuse_step(error)
            return True
        self.target.tell_refused(f"earlier steps of {self.target.name}", error)
        return False

    def rows(self) -> Iterator[StepRecord]:
        """The steps recorded earlier that are not yet sent, up to where they cannot be read."""
        read = self.read
        try:
            yield from read() if read is not None else ()
        except Exception as error:
            self.target.tell_refused(f"earlier steps of {self.target.name}", error)
