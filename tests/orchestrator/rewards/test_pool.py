"""The pool: nothing a reward does stops it, delays it for long, or outlives it. With real processes."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from orchestrator.config_errors import ConfigError
from orchestrator.rewards.config import ExactReward, FormatConfig, LimitsConfig, MathReward, PythonReward, RegexReward
from orchestrator.rewards.pool import RewardPool
from orchestrator.rewards.scores import RewardItem, Score

ROOT = Path(__file__).parents[3]
LIMIT_S = 1.0
LATE_S = 4.0  # more than a slow machine takes beyond the limit
# What a response says is what happens to it.
USER_MODULE = """
import os, signal, subprocess, sys, time

def reward(response, answer, source, extra):
    match response.split():
        case ["hang"]:
            time.sleep(600)
        case ["spin"]:
            while True:
                pass
        case ["deaf"]:
            for number in set(signal.valid_signals()) - {signal.SIGKILL, signal.SIGSTOP}:
                signal.signal(number, signal.SIG_IGN)
            time.sleep(600)
        case ["stop"]:
            os.kill(os.getpid(), signal.SIGSTOP)
        case ["child", path]:
            child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
            open(path, "w").write(f"{os.getpid()} {child.pid} ")
            time.sleep(600)
        case ["sleep", seconds]:
            time.sleep(float(seconds))
            return 0.5
        case ["exit", code]:
            os._exit(int(code))
        case ["sys.exit"]:
            sys.exit(3)
        case ["kill", number]:
            os.kill(os.getpid(), int(number))
        case ["kill", "parent", number]:
            os.kill(os.getppid(), int(number))
            time.sleep(600)
        case ["close"]:
            os.closerange(0, 1000)
            time.sleep(600)
        case ["raise"]:
            raise LookupError("no\\nsuch thing")
        case ["huge"]:
            return len(bytearray(10**11))
        case ["grow"]:
            rows = []
            while True:
                rows.append(bytes(10**6))
        case ["recurse"]:
            return reward(response, answer, source, extra)
        case ["print"]:
            print("x" * 100_000, flush=True)
            print("y" * 100_000, file=sys.stderr, flush=True)
            os.write(1, b"z" * 100_000)
            return 0.25
        case ["return", value]:
            return eval(value)
        case ["see"]:
            return float(f"{len(answer)}.{len(source)}{extra['level']}")
        case ["loaded"]:
            return len({"torch", "ray", "vllm", "mlflow"} & set(sys.modules))
    return float(response == answer)
"""
BROKEN = {
    "raises": "1 / 0",
    "exits": "import sys; sys.exit(2)",
    "dies": "import os; os._exit(5)",
    "fills": "x = bytearray(10**11)",
    "plain": "reward = 3",
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The working directory, with the user's modules in it."""
    path = tmp_path_factory.mktemp("user")
    (path / "user_rewards.py").write_text(USER_MODULE)
    for name, source in BROKEN.items():
        (path / f"broken_{name}.py").write_text(source)
    before = Path.cwd()
    os.chdir(path)
    yield path
    os.chdir(before)


@pytest.fixture(scope="module")
def pool(folder: Path) -> Iterator[RewardPool]:
    limits = LimitsConfig(time_limit_s=LIMIT_S, memory_mib=512, workers=2)
    with RewardPool(PythonReward(function="user_rewards:reward"), limits) as built:
        yield built


def items_of(*responses: str) -> list[RewardItem]:
    return [RewardItem(response=response, answer="yes") for response in responses]


def gone(pid: int, within_s: float = 10.0) -> bool:
    until = time.monotonic() + within_s
    while time.monotonic() < until:
        if not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE:
            return True
        time.sleep(0.05)
    return False


def test_scores_come_in_the_order_of_the_items(pool: RewardPool) -> None:
    responses = ["yes" if i % 3 else "no" for i in range(500)]
    assert pool.score(items_of(*responses)) == [Score(value=float(response == "yes")) for response in responses]
    assert pool.score([]) == []


@pytest.mark.parametrize(
    ("response", "reason"),
    [
        ("hang", "took longer than 1 s"),
        ("spin", "took longer than 1 s"),
        ("deaf", "took longer than 1 s"),
        ("stop", "took longer than 1 s"),
        ("exit 0", "its process ended with exit code 0"),
        ("exit 7", "its process ended with exit code 7"),
        ("sys.exit", "SystemExit: 3"),
        (f"kill {signal.SIGKILL:d}", "its process was killed by signal 9 (SIGKILL)"),
        (f"kill {signal.SIGSEGV:d}", "its process was killed by signal 11 (SIGSEGV)"),
        ("close", "its process was killed by signal 9 (SIGKILL)"),
        ("raise", "LookupError: no such thing"),
        ("huge", "out of memory (limit 512 MiB)"),
        ("grow", "out of memory (limit 512 MiB)"),
        ("recurse", "RecursionError: maximum recursion depth exceeded"),
        ("return float('nan')", "returned nan, expected a finite number"),
        ("return float('-inf')", "returned -inf, expected a finite number"),
        ("return '1.0'", "returned a str, expected a finite number"),
        ("return None", "returned a NoneType, expected a finite number"),
        ("return [1.0]", "returned a list, expected a finite number"),
        ("return 10**400", "OverflowError: int too large to convert to float"),
    ],
)
def test_what_goes_wrong_costs_one_item_and_says_why(pool: RewardPool, response: str, reason: str) -> None:
    began = time.monotonic()
    scores = pool.score(items_of("yes", response, *["yes"] * 20))
    assert time.monotonic() - began < LIMIT_S + LATE_S
    assert scores[1].value == 0.0
    assert scores[1].error is not None and scores[1].error.startswith(reason)
    assert [score for i, score in enumerate(scores) if i != 1] == [Score(value=1.0)] * 21


@pytest.mark.parametrize(("value", "number"), [("True", 1.0), ("0", 0.0), ("-2", -2.0), ("0.125", 0.125)])
def test_truth_values_and_numbers_are_scores(pool: RewardPool, value: str, number: float) -> None:
    assert pool.score(items_of(f"return {value}")) == [Score(value=number)]


def test_the_function_gets_answer_source_and_extra_columns(pool: RewardPool) -> None:
    item = RewardItem(response="see", answer="four", source="gsm8k", extra={"level": 3})
    assert pool.score([item]) == [Score(value=4.53)]


def test_the_processes_load_nothing_heavy(pool: RewardPool) -> None:
    assert pool.score(items_of("loaded")) == [Score(value=0.0)]


def test_what_a_process_prints_goes_nowhere(pool: RewardPool, capfd: pytest.CaptureFixture[str]) -> None:
    assert pool.score(items_of(*["print"] * 5)) == [Score(value=0.25)] * 5
    assert capfd.readouterr() == ("", "")


def test_a_killed_nursery_costs_what_was_being_scored_and_no_more(pool: RewardPool) -> None:
    scores = pool.score(items_of(f"kill parent {signal.SIGKILL:d}", *["yes"] * 20))
    assert scores[0].error is not None
    assert sum(score.value for score in scores[1:]) >= 19  # the other process may have had one of them
    assert pool.score(items_of("yes")) == [Score(value=1.0)]


def test_processes_that_died_between_two_calls_are_replaced(pool: RewardPool) -> None:
    pool.score(items_of("yes"))
    children = psutil.Process().children(recursive=True)
    for child in children:
        child.kill()
    assert all([gone(child.pid) for child in children])
    assert pool.score(items_of(*["yes"] * 20)) == [Score(value=1.0)] * 20


def test_slow_items_hold_nobody_up_and_are_scored(pool: RewardPool) -> None:
    began = time.monotonic()
    scores = pool.score(items_of(*["sleep 0.6"] * 12, *["yes"] * 100))
    assert time.monotonic() - began < 0.6 + LATE_S  # 12 of them one after the other in two processes take 3.6 s
    assert scores == [Score(value=0.5)] * 12 + [Score(value=1.0)] * 100


def test_a_few_that_hang_delay_a_call_by_the_limit_only(pool: RewardPool) -> None:
    began = time.monotonic()
    scores = pool.score(items_of(*["hang"] * 12, *["yes"] * 200))
    assert time.monotonic() - began < LIMIT_S + LATE_S
    assert [score.error for score in scores] == ["took longer than 1 s"] * 12 + [None] * 200
    assert sum(score.value for score in scores) == 200


def test_a_function_that_always_hangs_delays_a_call_by_the_limit_only(pool: RewardPool) -> None:
    began = time.monotonic()
    scores = pool.score(items_of(*["hang"] * 64))
    assert LIMIT_S <= time.monotonic() - began < LIMIT_S + LATE_S
    assert {score.error for score in scores} == {"took longer than 1 s", "nothing could be scored for 1 s"}
    assert pool.score(items_of("yes")) == [Score(value=1.0)]


def test_a_batch_that_always_crashes_ends(pool: RewardPool) -> None:
    scores = pool.score(items_of(*["exit 1"] * 64))
    assert {score.error for score in scores} == {"its process ended with exit code 1"}


def test_several_threads_may_score(pool: RewardPool) -> None:
    results: dict[int, list[Score]] = {}
    threads = [
        threading.Thread(target=lambda n=n: results.update({n: pool.score(items_of(f"return {n}") * 50)}))  # type: ignore[misc]
        for n in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == {n: [Score(value=float(n))] * 50 for n in range(4)}


@pytest.mark.parametrize(
    ("function", "reason"),
    [
        ("no_such_module:reward", "importing no_such_module failed: ModuleNotFoundError"),
        ("user_rewards:nothing", "user_rewards has no nothing"),
        ("broken_plain:reward", "reward in broken_plain is a int, no function"),
        ("broken_raises:reward", "importing broken_raises failed: ZeroDivisionError: division by zero"),
        ("broken_exits:reward", "importing broken_exits failed: SystemExit: 2"),
        ("broken_dies:reward", "its process ended with exit code 5"),
        ("broken_fills:reward", "importing broken_fills failed: MemoryError"),
    ],
)
def test_a_function_that_cannot_be_used_is_a_mistake_in_the_file(folder: Path, function: str, reason: str) -> None:
    with pytest.raises(ConfigError) as raised:
        RewardPool(PythonReward(function=function), LimitsConfig(workers=1))
    message = str(raised.value)
    assert message.startswith(f"task.function: got '{function}', expected a function that a reward process can import")
    assert reason in message and "\n" not in message


def test_nothing_of_a_closed_pool_is_left(folder: Path) -> None:
    before = set(psutil.Process().children(recursive=True))
    with RewardPool(ExactReward(), LimitsConfig(workers=2)) as pool:
        assert pool.score(items_of("yes", "no")) == [Score(value=1.0, answer="yes"), Score(value=0.0, answer="no")]
        started = set(psutil.Process().children(recursive=True)) - before
    assert len(started) == 3  # the nursery and two
    assert all(gone(process.pid) for process in started)


def test_a_pattern_that_backtracks_forever_is_cut_off() -> None:
    with RewardPool(RegexReward(pattern=r"(a+)+$"), LimitsConfig(time_limit_s=0.5, workers=1)) as pool:
        bad, good = pool.score([RewardItem(response=text, answer="aa") for text in ("a" * 60 + "b", "aa")])
    assert bad.error == "took longer than 0.5 s"
    assert good == Score(value=1.0, answer="aa")


def test_mathematics_runs_in_the_pool() -> None:
    with RewardPool(MathReward(), LimitsConfig(workers=1)) as pool:
        assert pool.score([RewardItem(response=r"\boxed{\frac12}", answer="0.5")]) == [Score(value=1.0, answer="1/2")]


DRIVER = """
import sys
from orchestrator.rewards.config import LimitsConfig, PythonReward
from orchestrator.rewards.pool import RewardPool
from orchestrator.rewards.scores import RewardItem
with RewardPool(PythonReward(function="user_rewards:reward"), LimitsConfig(time_limit_s=100, workers=2)) as pool:
    pool.score([RewardItem(response=text, answer="") for text in sys.argv[1:]])
"""


@pytest.fixture
def driver(folder: Path) -> Iterator[subprocess.Popen[str]]:
    """A driver whose reward processes hang, one of them with a child of its own."""
    (folder / "pids").unlink(missing_ok=True)
    running = subprocess.Popen(
        [sys.executable, "-c", DRIVER, "deaf", f"child {folder / 'pids'}"],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stderr=subprocess.PIPE,
        text=True,
    )
    yield running
    running.kill()
    running.wait()


def processes_of(driver: subprocess.Popen[str], folder: Path) -> list[int]:
    until = time.monotonic() + 30
    while time.monotonic() < until:
        pids = (folder / "pids").read_text().split() if (folder / "pids").exists() else []
        if len(pids) == 2:
            found = [child.pid for child in psutil.Process(driver.pid).children(recursive=True)]
            assert set(map(int, pids)) < set(found)
            return found
        time.sleep(0.05)
    raise AssertionError("the driver has not begun to score")


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_no_process_outlives_a_killed_driver(driver: subprocess.Popen[str], folder: Path, number: int) -> None:
    pids = processes_of(driver, folder)
    assert len(pids) >= 4  # the nursery, two that hang, and the child of one
    driver.send_signal(number)
    driver.wait(10)
    assert all([gone(pid) for pid in pids])


def test_an_interrupted_driver_ends_its_processes_and_they_say_nothing(
    driver: subprocess.Popen[str], folder: Path
) -> None:
    pids = processes_of(driver, folder)
    driver.send_signal(signal.SIGINT)
    _, said = driver.communicate(timeout=20)
    assert said.count("Traceback") == 1 and said.rstrip().endswith("KeyboardInterrupt")  # the driver's own
    assert all([gone(pid) for pid in pids])


def test_the_bonus_for_form_is_found_in_the_processes_too_whose_limits_hold_for_its_pattern() -> None:
    form = FormatConfig(pattern=r"^<b>(a+)+</b>", bonus=0.25)
    responses = ["<b>a</b>18", "18", "<b>" + "a" * 60 + "!"]
    with RewardPool(ExactReward(), LimitsConfig(time_limit_s=LIMIT_S, workers=2), form) as pool:
        started = time.monotonic()
        scores = pool.score([RewardItem(response=response, answer="18") for response in responses])
        assert time.monotonic() - started < LIMIT_S + LATE_S
    assert [(score.value, score.bonus) for score in scores] == [(0.0, 0.25), (1.0, 0.0), (0.0, 0.0)]
    assert scores[2].error
