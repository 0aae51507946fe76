"""A study that processes share, and that die at any moment: nothing is lost, and nothing is there twice."""

import json
import multiprocessing
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from optuna.storages.journal import JournalFileBackend
from optuna.trial import TrialState

from orchestrator.config_errors import ConfigError
from orchestrator.run.lock import run_lock
from sweeps.space import ask
from sweeps.study import storage
from sweeps.study.journal import JOURNAL
from sweeps.study.samplers import pruner_of, sampler_of
from sweeps.study.storage import StudyStore

FORK = multiprocessing.get_context("fork")
PATIENT_S = 120.0
# A driver as that of `conftest.py`, in an interpreter of its own, which starts quickly.
DRIVER = """
import os, sys, time
from pathlib import Path
from optuna.trial import TrialState
from sweeps.space import ask
from sweeps.study.samplers import pruner_of, sampler_of
from sweeps.study.storage import StudyStore
from sweeps.sweep_file import SweepFile

def run(number):
    place, sampler, pruner = folder / f"trial-{number}", sampler_of(config.sampler, number), pruner_of(config.pruner)
    with store.claim(number, place, sampler, pruner) as trial:
        if trial is not None:
            print(number, flush=True)
            sys.stdin.readline()
            store.tell(trial, ask(config.space, trial)["scheduler.ratio"], TrialState.COMPLETE)
        return trial is not None

os.fsync = lambda descriptor: None
sweep, folder = SweepFile.read(sys.argv[1]), Path(sys.argv[2])
config, store = sweep.config, StudyStore.open(sweep, folder, resume=True)
while numbers := store.open_numbers():
    any(run(number) for number in numbers)
"""


def states(store: StudyStore) -> list[str]:
    return [trial.state.name.lower() for trial in store.trials()]


def refused(action: Callable[[], object]) -> str:
    with pytest.raises(ConfigError) as raised:
        action()
    assert "\n" not in str(raised.value)
    return str(raised.value)


def in_process(work: Callable[[], object]) -> int | None:
    """How a process ends that does this; negative when a signal ended it."""
    process = FORK.Process(target=work)
    process.start()
    process.join(PATIENT_S)
    assert process.exitcode is not None
    return process.exitcode


def die_at(write: int, share: float) -> None:
    """Have this process killed in the so-manieth write to the journal, when so much of it is there."""
    whole, writes = JournalFileBackend.append_logs, count(1)

    def append(self: JournalFileBackend, logs: list[dict[str, Any]]) -> None:
        if next(writes) < write:
            return whole(self, logs)
        text = "".join(json.dumps(log, separators=(",", ":")) + "\n" for log in logs).encode()
        self._lock.acquire()
        with open(self._file_path, "ab") as file:
            file.write(text[: round(len(text) * share)])
        os.kill(os.getpid(), signal.SIGKILL)

    JournalFileBackend.append_logs = append  # type: ignore[method-assign]


def test_two_interpreters_that_share_a_journal_neither_lose_nor_double_a_trial(sweeps: Any) -> None:
    file = sweeps.read({"trials": 40}).path
    command = [sys.executable, "-c", DRIVER, file, str(sweeps.folder)]
    root = str(Path(__file__).resolve().parents[3])
    pipes: Any = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    drivers: Any = [subprocess.Popen(command, **pipes, env={**os.environ, "PYTHONPATH": root}) for _ in range(2)]
    try:
        done = [int(driver.stdout.readline()) for driver in drivers]  # each has one before either goes on
        for driver in drivers:
            driver.stdin.close()
        done += [int(line) for driver in drivers for line in driver.stdout]
    finally:
        for driver in drivers:
            driver.kill()
            driver.wait()
            driver.stdout.close()
    assert sorted(done) == list(range(40))
    assert states(sweeps.open({"trials": 40}, resume=True)) == ["complete"] * 40


def test_nor_do_four_processes(sweeps: Any, drive: Any) -> None:
    sweep, start, done = sweeps.read({"trials": 40}), FORK.Barrier(4), FORK.SimpleQueue()

    def work(name: int) -> None:
        store = StudyStore.open(sweep, sweeps.folder, resume=True)
        start.wait(PATIENT_S)
        for trial in drive(store, sweep, sweeps.folder).work():
            done.put((name, trial.number))

    drivers = [FORK.Process(target=work, args=(name,)) for name in range(4)]
    for driver in drivers:
        driver.start()
    finished = [done.get() for _ in range(40)]
    for driver in drivers:
        driver.join(PATIENT_S)
    assert [driver.exitcode for driver in drivers] == [0] * 4
    assert done.empty()
    assert sorted(number for _, number in finished) == list(range(40))
    assert len({name for name, _ in finished}) > 1
    assert states(sweeps.open({"trials": 40}, resume=True)) == ["complete"] * 40


def test_the_trial_of_a_driver_that_was_killed_goes_on_with_its_parameters(sweeps: Any, drive: Any) -> None:
    sweep, store = sweeps.read(), sweeps.open()
    told, tell = FORK.Pipe(duplex=False)

    def hold() -> None:
        mine = sweeps.open(resume=True)
        sampler, pruner = sampler_of(sweep.config.sampler, 3), pruner_of(sweep.config.pruner)
        with mine.claim(3, sweeps.folder / "trial-003", sampler, pruner) as trial:
            assert trial is not None
            params = ask(sweep.config.space, trial)
            trial.report(0.5, 0)
            tell.send(params)
            time.sleep(600)

    holder = FORK.Process(target=hold)
    holder.start()
    params = told.recv()
    driver = drive(store, sweep, sweeps.folder)
    assert driver.run(3) is None
    holder.kill()
    holder.join()
    assert driver.run(3).params == params
    assert store.trials()[3].intermediate_values[0] == 0.5
    assert states(store) == ["waiting"] * 3 + ["complete"] + ["waiting"] * 2


@pytest.mark.parametrize("seed", range(3))
def test_drivers_that_are_killed_in_any_write_lose_and_double_nothing(sweeps: Any, drive: Any, seed: int) -> None:
    sweep, chance, kills = sweeps.read(), random.Random(seed), 0
    seen: dict[int, dict[str, Any]] = {}

    def work() -> None:
        die_at(write, share)
        for _ in drive(StudyStore.open(sweep, sweeps.folder, resume=True), sweep, sweeps.folder).work():
            pass

    while True:
        write, share = chance.randint(1, 16), chance.choice([0, 0.5, 0.99, 1])
        if in_process(work) == 0:
            break
        kills += 1
        for trial in StudyStore.open(sweep, sweeps.folder, resume=True).trials() if kills % 4 == 0 else ():
            assert seen.setdefault(trial.number, {}).items() <= trial.params.items()
            seen[trial.number] = dict(trial.params)
    assert kills >= 4
    trials = StudyStore.open(sweep, sweeps.folder, resume=True).trials()
    assert [(trial.number, trial.state) for trial in trials] == [(n, TrialState.COMPLETE) for n in range(6)]
    assert all(seen[trial.number].items() <= trial.params.items() for trial in trials if trial.number in seen)
    lines = [json.loads(line) for line in (sweeps.folder / JOURNAL).read_text().splitlines()]
    ends = Counter(line["trial_id"] for line in lines if line.get("state") == TrialState.COMPLETE)
    assert ends == dict.fromkeys(range(6), 1)


def test_who_makes_it_may_be_killed_in_any_write(sweeps: Any) -> None:
    sweep, uids, write = sweeps.read(), set(), 0

    def make() -> None:
        die_at(write, 1)
        StudyStore.open(sweep, sweeps.folder, resume=False)

    while True:
        write += 1
        for path in sweeps.folder.glob("*"):
            path.unlink()

        if in_process(make) == 0:
            break
        assert "--resume goes on with it" in refused(lambda: StudyStore.open(sweep, sweeps.folder, resume=False))
        store = StudyStore.open(sweep, sweeps.folder, resume=True)
        assert states(store) == ["waiting"] * 6
        uids.add(store.uid)
    assert (
        len(uids) == write - 1 == 9
    )  # the study, its direction among it, six trials, what decides its numbers, its uid


def test_who_joins_waits_until_the_study_is_made(sweeps: Any) -> None:
    sweeps.folder.mkdir(parents=True)
    sweep, found = sweeps.read(), []
    with run_lock(sweeps.folder):
        joining = threading.Thread(target=lambda: found.append(sweeps.open(resume=True)))
        joining.start()
        joining.join(0.3)
        assert not found
        assert not (sweeps.folder / JOURNAL).exists()
    joining.join(PATIENT_S)
    assert states(found[0]) == ["waiting"] * sweep.config.trials


def test_who_makes_it_is_not_waited_for_without_end(sweeps: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storage, "MAKING_S", 0.0)
    sweeps.folder.mkdir(parents=True)
    with run_lock(sweeps.folder):
        assert f"is in use by process {os.getpid()}" in refused(sweeps.open)


def test_more_trials_are_added_once_whoever_asks_and_fewer_are_refused(sweeps: Any) -> None:
    sweeps.open()
    more = sweeps.read({"trials": 9})
    joining = [
        FORK.Process(target=StudyStore.open, args=(more, sweeps.folder), kwargs={"resume": True}) for _ in range(4)
    ]
    for process in joining:
        process.start()
    for process in joining:
        process.join(PATIENT_S)
    assert states(sweeps.open({"trials": 9}, resume=True)) == ["waiting"] * 9
    message = refused(lambda: sweeps.open({"trials": 8}, resume=True))
    assert message.endswith("ratios.yaml: trials: got 8, expected at least 9: so many the study has")
