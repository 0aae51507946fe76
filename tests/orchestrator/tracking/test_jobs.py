"""The jobs of one run, each with what it does when it is refused."""

from typing import cast

import pytest

from orchestrator.records import RunCard, StepRecord
from orchestrator.tracking.jobs import Errand, FillIn, OpenRun, SendSteps, Target
from orchestrator.tracking.store import MlflowStore

CARD = RunCard(uid="0a", experiment="e", name="decay", tags={}, params={})
NO_STORE = cast(MlflowStore, None)


class FakeStore:
    def __init__(self) -> None:
        self.opened = list[tuple[str, str | None]]()

    def open_run(self, card: RunCard, parent_id: str | None) -> str:
        self.opened.append((card.uid, parent_id))
        return "id"

    def steps(self, run_id: str) -> set[int]:
        raise ValueError("you may not ask")


def target(told: list[str], run_id: str | None = None) -> Target:
    return Target(name="decay", tell_refused=lambda what, error: told.append(f"{what}: {error}"), id=run_id)


@pytest.mark.parametrize("parent_id", [None, "p"])
def test_a_run_is_opened_below_its_parent_if_that_is_there(parent_id: str | None) -> None:
    store, run = FakeStore(), target([])
    OpenRun(target=run, card=CARD, parent=target([], parent_id)).do(cast(MlflowStore, store))
    assert (run.id, store.opened) == ("id", [("0a", parent_id)])


def test_nothing_is_asked_for_a_run_that_could_not_be_opened() -> None:
    told, called = list[str](), list[str]()
    run = target(told)
    assert not OpenRun(target=run, card=CARD, parent=None).refuse(ValueError("no"))
    Errand(target=run, what="tags", call=lambda store, run_id: called.append(run_id)).do(NO_STORE)
    run.steps.put(StepRecord(step=0, time_ms=0, metrics={}, events=()))
    SendSteps(target=run).do(NO_STORE)
    assert (told, called, run.steps.missing()) == (["run decay: no"], [], 1)


def test_an_errand_is_given_up_when_it_is_refused() -> None:
    told = list[str]()
    assert not Errand(target=target(told, "id"), what="tags", call=lambda *_: None).refuse(ValueError("no"))
    assert told == ["tags of decay: no"]


def test_earlier_steps_are_given_up_when_mlflow_does_not_say_which_it_has_and_still_count_as_missing() -> None:
    told = list[str]()
    run = target(told, "id")
    row = StepRecord(step=0, time_ms=0, metrics={}, events=())
    job = FillIn(target=run, read=lambda: [row])
    with pytest.raises(ValueError, match="may not ask") as refusal:
        job.do(cast(MlflowStore, FakeStore()))
    assert not job.refuse(refusal.value)
    assert told == ["earlier steps of decay: you may not ask"]
    assert run.steps.missing(job.rows()) == 1


def test_earlier_steps_are_not_kept_once_they_are_sent() -> None:
    run = target([])
    job = FillIn(target=run, read=lambda: [StepRecord(step=0, time_ms=0, metrics={}, events=())])
    assert len(list(job.rows())) == 1
    job.do(NO_STORE)
    assert job.read is None
    assert list(job.rows()) == []
