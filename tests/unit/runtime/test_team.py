"""Jobs with a process for each lane: what is brought there and back, and what happens when one is lost."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.unit.runtime.endless import Numbers
from tests.unit.runtime.test_job import RESTART_ONCE, job_of, settings

from headrace.connector.builtin import Collected, CollectSink
from headrace.errors import ConfigError, RemoteTraceback, UserCodeError
from headrace.plan.graph import Filter, Map
from headrace.runtime.job import run_job

LANES = 2
SPLITS = ("a", "b", "c", "d")


def run(*operators: Any, limit: int = 300, on_checkpoint: bool = True, **options: Any) -> list[Any]:
    """What a job of two lanes collects, in any order."""
    collected = Collected()
    taken: list[Any] = []

    def take() -> None:
        while (elements := collected.take()) is not None:
            taken.extend(elements)

    taker = threading.Thread(target=take)
    taker.start()
    given = {"parallelism_default": LANES, "execution_checkpointing_interval": "20 ms"} | RESTART_ONCE | options
    plan = job_of(Numbers(SPLITS, limit=limit), *operators, sink=CollectSink(collected, on_checkpoint))
    try:
        run_job(plan, settings(**given))
    finally:
        collected.end()
        taker.join()
    return taken


def once(folder: Path, act: Callable[[], Any], at: int = 100) -> Map:
    """A map that does something at one number, the first time only, whatever lane or copy of it runs."""

    def do(value: int) -> int:
        if value == at:
            try:
                (folder / "done").touch(exist_ok=False)
            except FileExistsError:
                return value
            act()
        return value

    return Map(do)


def slowly(value: int) -> int:
    time.sleep(0.001)
    return value


def test_all_lanes_together_do_what_one_would(tmp_path: Path) -> None:
    results = run(Map(lambda value: (value, os.getpid())))
    assert Counter(value for value, _ in results) == Counter({n: len(SPLITS) for n in range(300)})
    pids = {pid for _, pid in results}
    assert len(pids) == LANES
    assert os.getpid() not in pids


@pytest.mark.parametrize("strategy", ["region", "full"])
@pytest.mark.parametrize("at", [0, 150])
def test_a_worker_that_is_killed_is_replaced_and_nothing_is_lost_or_repeated(
    tmp_path: Path, strategy: str, at: int
) -> None:
    killed = once(tmp_path, lambda: os.kill(os.getpid(), signal.SIGKILL), at)
    results = run(Map(slowly), killed, jobmanager_execution_failover__strategy=strategy)
    assert Counter(results) == Counter({n: len(SPLITS) for n in range(300)})


def test_only_the_lane_that_failed_starts_again(tmp_path: Path) -> None:
    killed = once(tmp_path, lambda: os.kill(os.getpid(), signal.SIGKILL), 150)
    pids = {pid for _, pid in run(Map(slowly), killed, Map(lambda value: (value, os.getpid())))}
    assert len(pids) == LANES + 1


def test_a_worker_that_hangs_is_killed_and_replaced(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    halted = once(tmp_path, lambda: os.kill(os.getpid(), signal.SIGSTOP))
    with caplog.at_level(logging.INFO, "headrace"):
        results = run(Map(slowly), halted, heartbeat_timeout="1500 ms", heartbeat_interval="50 ms")
    assert Counter(results) == Counter({n: len(SPLITS) for n in range(300)})
    assert "gave no sign of life for 1.5 s (`heartbeat.timeout`)" in caplog.text


def test_a_slow_function_is_no_hang(tmp_path: Path) -> None:
    slept = once(tmp_path, lambda: time.sleep(2))
    run(slept, heartbeat_timeout="1500 ms", heartbeat_interval="50 ms", restart__strategy_type="none")


def test_an_error_in_a_function_names_lane_operator_and_record() -> None:
    def divide(value: int) -> float:
        return 1 / (value - 3)

    with pytest.raises(UserCodeError, match=r"lane [01]: `map` failed with ZeroDivisionError.*number 3") as raised:
        run(Map(divide), restart__strategy_type="none")
    cause = raised.value.__cause__
    assert isinstance(cause, ZeroDivisionError)
    assert isinstance(cause.__cause__, RemoteTraceback)
    assert "return 1 / (value - 3)" in str(cause.__cause__)


def test_an_exception_that_cannot_be_pickled_is_told_in_words() -> None:
    class Odd(Exception):
        def __init__(self, one: int, two: int) -> None:
            super().__init__(f"{one} and {two}")

    def fail(value: int) -> int:
        raise Odd(1, 2)

    with pytest.raises(UserCodeError, match=r"lane [01]: `map` failed with Odd: 1 and 2"):
        run(Map(fail), restart__strategy_type="none")


def test_a_function_that_cannot_be_brought_to_the_workers_is_refused() -> None:
    lock = threading.Lock()
    with pytest.raises(ConfigError, match=r"cannot be brought to its workers.*create that in `open\(\)`"):
        run(Map(lambda value: lock.locked() or value))


def test_elements_that_cannot_be_brought_back_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"cannot be brought from their lane.*Collect what can be pickled"):
        run(Map(lambda value: threading.Lock()))


def test_what_functions_log_is_logged_in_one_place(caplog: pytest.LogCaptureFixture) -> None:
    def log_it(value: int) -> int:
        if value == 7:
            logging.getLogger("users.own").warning("seven %s", "came")
            logging.getLogger("users.own").debug("not asked for")
        return value

    with caplog.at_level(logging.INFO):
        run(Map(log_it))
    found = [record for record in caplog.records if record.name == "users.own"]
    assert len(found) == len(SPLITS)
    assert {record.getMessage() for record in found} <= {"lane 0: seven came", "lane 1: seven came"}


def test_lanes_without_a_split_end_with_the_others() -> None:
    assert Counter(run(Filter(lambda value: True), parallelism_default=6)) == Counter(dict.fromkeys(range(300), 4))


PROGRAM = """
import sys
from dataclasses import dataclass
from headrace.common import Configuration
from headrace.datastream import StreamExecutionEnvironment
from headrace.common import WatermarkStrategy
from tests.unit.runtime.endless import Numbers
import beside

@dataclass
class Pair:
    number: int
    text: str

factor = 3

env = StreamExecutionEnvironment.get_execution_environment(Configuration())
env.set_parallelism(2)
numbers = env.from_source(Numbers(("a", "b"), limit=5), WatermarkStrategy.no_watermarks(), "numbers")
pairs = numbers.map(lambda n: Pair(n * factor, beside.text(n))).filter(lambda pair: isinstance(pair, Pair))
found = sorted((pair for pair in pairs.execute_and_collect("pairs")), key=lambda pair: pair.number)
assert all(type(pair) is Pair for pair in found)
print(found[::2], sys.argv[1:])
"""


def test_a_program_without_guard_runs_with_lambdas_and_classes_of_its_own_file_and_modules_beside_it(
    tmp_path: Path,
) -> None:
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    (tmp_path / "beside.py").write_text("def text(n):\n    return f'<{n}>'\n")
    root = Path(__file__).parents[3]
    path = os.pathsep.join([str(root), *filter(None, [os.environ.get("PYTHONPATH")])])
    done = subprocess.run(
        [sys.executable, str(program), "x"],
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, "PYTHONPATH": path},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    expected = [f"Pair(number={3 * n}, text='<{n}>')" for n in range(5)]
    assert done.stdout == f"[{', '.join(expected)}] ['x']\n"
