"""Jobs with a process for each lane: what is brought there and back, and what happens when one is lost."""

from __future__ import annotations

import logging
import multiprocessing
import os
import pickle
import re
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import pytest
from tests.processes import wait_until
from tests.unit.runtime.endless import NumberEnumerator, Numbers, NumberSplit
from tests.unit.runtime.test_job import NO_WATERMARKS, RESTART_ONCE, job_of, settings

from headrace.connector import (
    Boundedness,
    SinkWriter,
    SourceContext,
    Split,
    SplitEnumerator,
    Transaction,
    WriterContext,
)
from headrace.connector.builtin import Collected, CollectSink, PrintSink
from headrace.datastream import MapFunction, RuntimeContext
from headrace.errors import ConfigError, ExternalError, RemoteTraceback, UserCodeError
from headrace.plan.graph import Filter, Map, PlanBuilder, ReadSource, WriteSink
from headrace.runtime import lane, team
from headrace.runtime.coordinator import Coordinator
from headrace.runtime.job import Job, run_job
from headrace.runtime.team import Team, _dumps

LANES = 2
SPLITS = ("a", "b", "c", "d")


def run(*operators: Any, limit: int = 300, on_checkpoint: bool = True, source: Any = None, **options: Any) -> list[Any]:
    """What a job of two lanes collects, in any order."""
    collected = Collected()
    taken: list[Any] = []

    def take() -> None:
        while (elements := collected.take()) is not None:
            taken.extend(elements)

    taker = threading.Thread(target=take)
    taker.start()
    given = {"parallelism_default": LANES, "execution_checkpointing_interval": "20 ms"} | RESTART_ONCE | options
    plan = job_of(source or Numbers(SPLITS, limit=limit), *operators, sink=CollectSink(collected, on_checkpoint))
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
    """So that checkpoints fall into the middle of a job."""
    time.sleep(0.001)
    return value


def slower(value: int) -> int:
    """So that more is found before all is read."""
    time.sleep(0.01)
    return value


def test_all_lanes_together_do_what_one_would(tmp_path: Path) -> None:
    results = run(Map(lambda value: (value, os.getpid())))
    assert Counter(value for value, _ in results) == Counter({n: len(SPLITS) for n in range(300)})
    pids = {pid for _, pid in results}
    assert len(pids) == LANES
    assert os.getpid() not in pids


def test_a_lane_that_has_nothing_to_read_is_told_of(caplog: pytest.LogCaptureFixture) -> None:
    assert Counter(run(parallelism_default=len(SPLITS) + 1, limit=5)) == Counter({n: len(SPLITS) for n in range(5)})
    assert re.search(r"`numbers` has 4 splits for 5 subtasks; idle until there are more: lane \d", caplog.text)


@pytest.mark.parametrize("strategy", ["region", "full"])
@pytest.mark.parametrize("at", [0, 150])
def test_a_worker_that_is_killed_is_replaced_and_nothing_is_lost_or_repeated(
    tmp_path: Path, strategy: str, at: int
) -> None:
    killed = once(tmp_path, lambda: os.kill(os.getpid(), signal.SIGKILL), at)
    results = run(Map(slowly), killed, jobmanager_execution_failover__strategy=strategy)
    assert Counter(results) == Counter({n: len(SPLITS) for n in range(300)})


@pytest.mark.parametrize(("strategy", "processes"), [("region", LANES + 1), ("full", 2 * LANES)])
def test_who_starts_again_is_the_lane_that_failed_or_all(tmp_path: Path, strategy: str, processes: int) -> None:
    killed = once(tmp_path, lambda: os.kill(os.getpid(), signal.SIGKILL), 150)
    where = Map(lambda value: (value, os.getpid()))
    results = run(Map(slowly), killed, where, jobmanager_execution_failover__strategy=strategy)
    assert len({pid for _, pid in results}) == processes


def test_a_worker_that_is_out_of_memory_starts_again(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    filled = once(tmp_path, lambda: bytearray(1 << 60))
    assert Counter(run(Map(slowly), filled)) == Counter({n: len(SPLITS) for n in range(300)})
    assert "MemoryError" in caplog.text


def test_a_worker_that_hangs_is_killed_and_replaced(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    halted = once(tmp_path, lambda: os.kill(os.getpid(), signal.SIGSTOP))
    with caplog.at_level(logging.INFO, "headrace"):
        results = run(Map(slowly), halted, heartbeat_timeout="1500 ms", heartbeat_interval="50 ms")
    assert Counter(results) == Counter({n: len(SPLITS) for n in range(300)})
    assert "gave no sign of life for 1.5 s (`heartbeat.timeout`)" in caplog.text


def test_a_step_of_a_lane_ends_when_the_coordinator_has_spoken() -> None:
    channel = lane._Channel(multiprocessing.Pipe()[0])
    called: list[bool] = []

    class Asking:
        def step(self, timeout_s: float, is_called: Callable[[], bool]) -> None:
            called.append(is_called())
            channel._inbox.put("a message")
            called.append(is_called())

    lane._step(Asking(), channel)  # type: ignore[arg-type]
    assert called == [False, True]
    assert channel.next(wait=False) == "a message"
    assert not channel.has_next()


def test_a_slow_function_is_no_hang(tmp_path: Path) -> None:
    # Longer than the timeout: that is the case.
    slept = once(tmp_path, lambda: time.sleep(4))
    run(slept, heartbeat_timeout="3 s", heartbeat_interval="50 ms", restart__strategy_type="none")


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


class GrowingEnumerator(NumberEnumerator):
    """Finds one more split, for the second lane, when it looks for the first time."""

    discovery_interval_ms = 100
    _has_looked = False

    def discover(self) -> list[Split]:
        found, self._has_looked = [] if self._has_looked else [NumberSplit("new")], True
        return list(found)

    def lane_of(self, split: Split, loads: Sequence[int]) -> int:
        return int(split.split_id == "new") % len(loads)


@dataclass(frozen=True, slots=True)
class Growing(Numbers):
    """Ends when all of its splits are at their end, and may have more by then."""

    @property
    def boundedness(self) -> Boundedness:
        return Boundedness.CONTINUOUS_UNBOUNDED

    @property
    def ends(self) -> bool:
        return True

    def create_enumerator(self, context: SourceContext) -> SplitEnumerator:
        return GrowingEnumerator(self.splits)


@pytest.mark.parametrize("lanes", [1, 2])
def test_a_lane_that_was_at_its_end_reads_a_split_that_is_found_later(lanes: int) -> None:
    source = Growing(("old",), limit=60)
    taken = run(Map(slower), source=source, parallelism_default=lanes, execution_checkpointing_interval="50 ms")
    assert Counter(taken) == Counter(dict.fromkeys(range(60), 2))


class BalancedEnumerator(NumberEnumerator):
    def lane_of(self, split: Split, loads: Sequence[int]) -> int:
        return loads.index(min(loads))


@dataclass(frozen=True, slots=True)
class Balanced(Numbers):
    """Each split goes where the fewest are."""

    def create_enumerator(self, context: SourceContext) -> SplitEnumerator:
        return BalancedEnumerator(self.splits)


def test_an_enumerator_knows_how_many_splits_each_lane_has() -> None:
    for count in (4, 6):
        source = Balanced(tuple(map(str, range(count))), limit=5)
        results = run(Map(lambda value: os.getpid()), source=source)
        assert sorted(Counter(results).values()) == [count // 2 * 5] * 2


class Opened(MapFunction):
    """Leaves a file in a folder while it is open, and fails once."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def open(self, runtime_context: RuntimeContext) -> None:
        self.mine = self.folder / f"open-{os.getpid()}"
        self.mine.touch()

    def map(self, value: int) -> int:
        if value == 150 and not (self.folder / "failed").exists():
            (self.folder / "failed").touch()
            raise ValueError("not today")
        return value

    def close(self) -> None:
        self.mine.unlink()


@pytest.mark.parametrize("strategy", ["region", "full"])
def test_a_lane_that_starts_again_closes_its_functions_first(tmp_path: Path, strategy: str) -> None:
    results = run(Map(slowly), Map(Opened(tmp_path)), jobmanager_execution_failover__strategy=strategy)
    assert Counter(results) == Counter({n: len(SPLITS) for n in range(300)})
    assert [file.name for file in tmp_path.iterdir()] == ["failed"]


def test_a_lane_that_hangs_is_noticed_while_another_talks(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    halted = once(tmp_path, lambda: os.kill(os.getpid(), signal.SIGSTOP))

    def talk(value: int) -> int:
        if (tmp_path / "done").exists() and not (tmp_path / "talked").exists():
            (tmp_path / "talked").touch()
            for _ in range(2000):
                logging.getLogger("users.own").warning("still here")
        return value

    class Slow(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            # So that there is always something more to be heard.
            time.sleep(0.002)

    logger, handler = logging.getLogger("users.own"), Slow()
    logger.addHandler(handler)
    try:
        with caplog.at_level(logging.WARNING):
            results = run(Map(slowly), halted, Map(talk), heartbeat_timeout="1500 ms", heartbeat_interval="50 ms")
    finally:
        logger.removeHandler(handler)
    assert Counter(results) == Counter({n: len(SPLITS) for n in range(300)})
    said = [record.getMessage() for record in caplog.records]
    noticed = next(at for at, text in enumerate(said) if "gave no sign of life" in text)
    assert any(text.endswith("still here") for text in said[noticed:])


class Unreadable(Exception):
    """Can be pickled, and not unpickled."""

    def __init__(self, one: str, two: str) -> None:
        super().__init__(one)


def test_what_a_log_record_brings_along_is_text_where_it_cannot_travel(caplog: pytest.LogCaptureFixture) -> None:
    def log_it(value: int) -> int:
        if value == 7:
            extra = {"lock": threading.Lock(), "broken": Unreadable("a", "b"), "fine": {"n": value}}
            logging.getLogger("users.own").warning("seven", extra=extra)
        return value

    with caplog.at_level(logging.INFO):
        assert len(run(Map(log_it))) == 300 * len(SPLITS)
    found = [vars(record) for record in caplog.records if record.name == "users.own"]
    assert len(found) == len(SPLITS)
    assert {record["lock"].split(" at ")[0] for record in found} == {"<unlocked _thread.lock object"}
    assert {record["broken"] for record in found} == {"Unreadable('a')"}
    assert [record["fine"] for record in found] == [{"n": 7}] * len(SPLITS)


def test_a_function_that_would_end_its_process_is_told_not_to() -> None:
    def leave(value: int) -> int:
        if value == 7:
            sys.exit("seven")
        return value

    with pytest.raises(UserCodeError, match=r"lane \d: a function called sys.exit\('seven'\)"):
        run(Map(leave), restart__strategy_type="none")


def test_a_finalizer_that_logs_does_not_stop_its_worker(caplog: pytest.LogCaptureFixture) -> None:
    class Session:
        def __del__(self) -> None:
            logging.getLogger("users.own").warning("not closed")

    def leak(value: int) -> int:
        session = Session()
        session.itself = session  # type: ignore[attr-defined]
        logging.getLogger("users.own").warning("value %s", [value] * 50)
        return value

    with caplog.at_level(logging.INFO):
        assert len(run(Map(leak), limit=2000, heartbeat_timeout="5 s")) == 2000 * len(SPLITS)


def test_a_function_that_takes_its_time_to_close_is_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(team, "_CLOSE_S", 0.2)

    class Slow(MapFunction):
        def map(self, value: int) -> int:
            return value

        def close(self) -> None:
            # Longer than is borne in silence: that is the case.
            time.sleep(1.0)
            (tmp_path / f"closed-{os.getpid()}").touch()

    with caplog.at_level(logging.WARNING, "headrace"):
        run(Map(Slow()))
    assert len(list(tmp_path.iterdir())) == LANES
    assert "still closing after 0.2 s" in caplog.text


def test_parts_of_a_job_may_have_lanes_of_their_own(capfd: pytest.CaptureFixture[str]) -> None:
    builder = PlanBuilder()
    for name, parallelism in (("wide", 3), ("narrow", 1)):
        source = builder.add(ReadSource(Numbers(SPLITS, limit=5), NO_WATERMARKS), name).id
        for n in (source, builder.add(WriteSink(PrintSink(name)), f"{name} out", (source,)).id):
            builder.change(n, parallelism=parallelism)
    run_job(builder.build("job"), settings(execution_checkpointing_interval="20 ms"))
    lines = Counter(line.rsplit("> ")[0] for line in capfd.readouterr().out.splitlines())
    assert lines.pop("narrow") == 5 * len(SPLITS)
    assert set(lines) <= {"wide:1", "wide:2", "wide:3"}
    assert sum(lines.values()) == 5 * len(SPLITS)


# --- a lane that is lost at a bad moment -----------------------------------------------------------------------------


@dataclass(frozen=True)
class Lines(PrintSink):
    """Appends numbers to a file of each lane's own. Its `flush` fails once, in lane 1, and so does what follows."""

    folder: Path = Path()

    def create_writer(self, context: WriterContext, transaction: Transaction | None) -> SinkWriter:
        return LinesWriter(self.folder, context.subtask)


class LinesWriter(SinkWriter):
    def __init__(self, folder: Path, lane: int) -> None:
        self._folder, self._lane = folder, lane
        self._has_failed = False

    def write(self, values: Any, timestamps: Any) -> None:
        with (self._folder / f"lane-{self._lane}").open("a") as file:
            file.writelines(f"{value}\n" for value in values)

    def flush(self) -> None:
        if self._lane == 1 and not (self._folder / "failed").exists():
            (self._folder / "failed").touch()
            self._has_failed = True
            raise ExternalError("delivery failed")

    def poll(self) -> None:
        if self._has_failed:
            raise ExternalError("delivery failed before")


def test_a_lane_whose_checkpoint_fails_reads_nothing_more_and_counts_as_one_failure(tmp_path: Path) -> None:
    plan = job_of(Numbers(SPLITS, limit=300), Map(slowly), sink=Lines(folder=tmp_path))
    later = RESTART_ONCE | {"restart__strategy_fixed__delay_delay": "300 ms"}
    run_job(plan, settings(parallelism_default=2, execution_checkpointing_interval="50 ms", **later))
    written = Counter(line for file in tmp_path.glob("lane-*") for line in file.read_text().splitlines())
    assert all(written[str(number)] >= len(SPLITS) for number in range(300))


def test_a_worker_that_is_gone_is_not_asked_who_took_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = iter([True])
    monkeypatch.setattr(Coordinator, "is_overtaken", lambda self: next(asked, False))
    killed = once(tmp_path, lambda: os.kill(os.getpid(), signal.SIGKILL))
    assert Counter(run(Map(slowly), killed)) == Counter(dict.fromkeys(range(300), 4))


def test_a_start_whose_second_worker_cannot_be_started_leaves_no_first(monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[subprocess.Popen[bytes]] = []

    def popen(*arguments: Any, **options: Any) -> subprocess.Popen[bytes]:
        if started:
            raise BlockingIOError("no more processes")
        started.append(real(*arguments, **options))
        return started[0]

    real = subprocess.Popen
    monkeypatch.setattr(subprocess, "Popen", popen)
    with pytest.raises(ExternalError, match="worker of lane 1 cannot be started: no more processes"):
        run(Map(slowly))
    assert started[0].poll() is not None


def test_a_lane_that_is_lost_in_the_last_commit_leaves_the_job_finished(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The first commit is the claim.
    monkeypatch.setenv("HEADRACE_CRASH_POINT", "commit.region@2#1")
    given = {"execution_checkpointing_interval": "1 h", "execution_checkpointing_dir": str(tmp_path)}
    assert Counter(run(Filter(lambda value: True), **given)) == Counter(dict.fromkeys(range(300), 4))
    assert len(list(tmp_path.glob("job/*.finished"))) == 1


def test_a_job_that_is_stopped_while_a_lane_is_away_brings_it_back_and_stops(tmp_path: Path) -> None:
    killed = once(tmp_path, lambda: os.kill(os.getpid(), signal.SIGKILL))
    later = RESTART_ONCE | {"restart__strategy_fixed__delay_delay": "1 h"}
    plan = job_of(Numbers(SPLITS), killed, Filter(lambda value: value < 0))
    job = Job(plan, settings(parallelism_default=2, execution_checkpointing_interval="10 ms", **later))
    runner = threading.Thread(target=job.run)
    runner.start()
    wait_until(lambda: job.progress is not None and job.progress.restarts, "a lane is away")
    job.stop()
    job.get_job_execution_result().result()
    runner.join()


@pytest.mark.parametrize("dies_again", [False, True])
def test_a_lane_that_dies_while_the_job_stops_comes_back_once(tmp_path: Path, dies_again: bool) -> None:
    def die() -> None:
        (tmp_path / "dying").touch()
        wait_until((tmp_path / "stopping").exists, "the job is to stop")
        os.kill(os.getpid(), signal.SIGKILL)

    def die_again(value: int) -> int:
        if dies_again and (tmp_path / "stopping").exists():
            os.kill(os.getpid(), signal.SIGKILL)
        return value

    plan = job_of(Numbers(SPLITS), Map(die_again), once(tmp_path, die), Filter(lambda value: value < 0))
    job = Job(plan, settings(parallelism_default=2, execution_checkpointing_interval="1 h", **RESTART_ONCE))
    job.start()
    wait_until((tmp_path / "dying").exists, "a lane is about to die")
    job.stop()
    (tmp_path / "stopping").touch()
    if dies_again:
        with pytest.raises(ExternalError, match="SIGKILL"):
            job.get_job_execution_result().result()
    else:
        job.get_job_execution_result().result()


def test_a_worker_that_dies_behind_the_end_changes_nothing(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    close = Team.close

    def kill_and_close(team: Team) -> list[BaseException]:
        for member in team._members.values():
            if member.is_alive:
                member._process.kill()
                member._process.wait()
        return close(team)

    monkeypatch.setattr(Team, "close", kill_and_close)
    with caplog.at_level(logging.WARNING, "headrace"):
        assert len(run(Filter(lambda value: True))) == 300 * len(SPLITS)
    assert "while everything was closed: lane 0: its worker was ended by SIGKILL" in caplog.text


def test_a_dead_worker_is_noticed_also_where_a_child_of_its_own_holds_the_socket(tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    os.mkfifo(gate)

    def fork_and_die() -> None:
        if os.fork() == 0:
            gate.read_bytes()  # until the test opens it
            os._exit(0)
        os.kill(os.getpid(), signal.SIGKILL)

    results = run(Map(slowly), once(tmp_path, fork_and_die), heartbeat_timeout="1 h", heartbeat_interval="1 h")
    os.close(os.open(gate, os.O_WRONLY | os.O_NONBLOCK))  # fails if nobody has waited
    assert Counter(results) == Counter(dict.fromkeys(range(300), 4))


def test_programs_that_functions_start_hear_signals(tmp_path: Path) -> None:
    def start_and_end() -> None:
        program = subprocess.Popen(["sleep", "3600"])
        program.terminate()
        assert program.wait(60) == -signal.SIGTERM

    run(once(tmp_path, start_and_end), restart__strategy_type="none")


class Picky(Exception):
    """Can be pickled, and not be read again."""

    def __init__(self, one: int, two: int) -> None:
        super().__init__(one)


def test_elements_that_cannot_be_read_again_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"lane [01]: what it hands over cannot be read here: TypeError"):
        run(Map(lambda value: Picky(1, 2)))


PROGRAM = """
import functools
import sys
import typing
from dataclasses import dataclass
from headrace.common import Configuration
from headrace.datastream import StreamExecutionEnvironment
from headrace.common import WatermarkStrategy
from tests.unit.runtime.endless import NumberEnumerator, Numbers, NumberSplit
import beside

@dataclass
class Pair:
    number: int
    text: str

Label = typing.NewType("Label", str)
factor = 3

@functools.lru_cache
def times(n):
    return times(n - 1) + factor if n else 0

def labelled(make):
    def label(n) -> Label:
        return Label(make(n))
    return label

label = labelled(beside.text)

env = StreamExecutionEnvironment.get_execution_environment(Configuration())
env.set_parallelism(2)
numbers = env.from_source(Numbers(("a", "b"), limit=5), WatermarkStrategy.no_watermarks(), "numbers")
pairs = numbers.map(lambda n: Pair(times(n), label(n))).filter(lambda pair: isinstance(pair, Pair))
found = sorted((pair for pair in pairs.execute_and_collect("pairs")), key=lambda pair: pair.number)
assert all(type(pair) is Pair for pair in found)
print(found[::2], sys.argv[1:])
"""


def output_of(text: str, folder: Path, *arguments: str) -> str:
    """What a program prints, which has to end well."""
    program = folder / "program.py"
    program.write_text(text)
    root = Path(__file__).parents[3]
    path = os.pathsep.join([str(root), *filter(None, [os.environ.get("PYTHONPATH")])])
    done = subprocess.run(
        [sys.executable, str(program), *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, "PYTHONPATH": path},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_program_without_guard_runs_with_what_its_own_file_has_and_modules_beside_it(tmp_path: Path) -> None:
    (tmp_path / "beside.py").write_text("def text(n):\n    return f'<{n}>'\n")
    expected = [f"Pair(number={3 * n}, text='<{n}>')" for n in range(5)]
    assert output_of(PROGRAM, tmp_path, "x") == f"[{', '.join(expected)}] ['x']\n"


WITH_HELPER = """
import multiprocessing
import signal
import sys
from headrace.common import WatermarkStrategy
from headrace.datastream import MapFunction, StreamExecutionEnvironment
from tests.unit.runtime.endless import Numbers

class Helped(MapFunction):
    def open(self, context):
        fork = multiprocessing.get_context("fork")
        self.helper = fork.Process(target=signal.pause, daemon=True)
        self.helper.start()

    def map(self, value):
        return value

    def close(self):
        self.helper.terminate()
        self.helper.join()
        print("ended by", -self.helper.exitcode)

env = StreamExecutionEnvironment.get_execution_environment()
env.set_parallelism(int(sys.argv[1]))
numbers = env.from_source(Numbers(("a", "b"), limit=5), WatermarkStrategy.no_watermarks(), "numbers")
numbers.map(Helped()).filter(lambda value: False).print()
env.execute("helped")
"""


@pytest.mark.parametrize("lanes", [1, 2])
def test_processes_that_functions_fork_hear_signals(tmp_path: Path, lanes: int) -> None:
    assert output_of(WITH_HELPER, tmp_path, str(lanes)) == f"ended by {signal.SIGTERM:d}\n" * lanes


def test_what_would_go_by_its_name_alone_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    class Named:
        def __reduce__(self) -> str:
            return "named"

    named = Named()
    named.__module__ = "__main__"
    monkeypatch.setattr(sys.modules["__main__"], "named", named, raising=False)
    with pytest.raises(ConfigError, match=r"`named` of the program's own file, of .*Named, .* into a module"):
        _dumps(lambda: named)


def test_a_dataclass_that_msgspec_knows_travels_and_a_struct_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    @dataclass
    class Item:
        cents: int

    class Price(msgspec.Struct):
        cents: int

    for kind in (Item, Price):
        kind.__module__, kind.__qualname__ = "__main__", kind.__name__
        monkeypatch.setattr(sys.modules["__main__"], kind.__name__, kind, raising=False)
        msgspec.json.decode(b'{"cents": 1}', type=kind)
    there: Any = pickle.loads(_dumps(lambda: Item(1)))
    assert there().cents == 1
    with pytest.raises(ConfigError, match=r"`Price` of the program's own file is a msgspec Struct.* into a module"):
        _dumps(lambda: Price(1))
