"""Jobs from start to end, with a source and a sink in memory: failures, restarts, resuming, stopping."""

from __future__ import annotations

import errno
import json
import logging
import signal
import threading
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.processes import wait_until
from tests.unit.checkpoint.test_storage import Instead
from tests.unit.runtime.endless import Ledger, LedgerSink, NumberEnumerator, NumberReader, Numbers

from headrace.checkpoint import storage
from headrace.checkpoint.marker import Marker, SnapshotId
from headrace.checkpoint.storage import CheckpointFolder
from headrace.common import Configuration, Types, WatermarkStrategy
from headrace.connector.builtin import Collected, CollectionSource, CollectSink, PrintSink
from headrace.datastream.functions import KeyedProcessFunction, MapFunction, RuntimeContext
from headrace.datastream.state import ValueStateDescriptor
from headrace.errors import ConfigError, DataError, ExternalError, NotSupportedError, StateError, UserCodeError
from headrace.plan.graph import Filter, FlatMap, Map, Plan, PlanBuilder, Process, ReadSource, Reduce, WriteSink
from headrace.runtime.coordinator import CheckpointFailed
from headrace.runtime.job import Job, JobCancelled, run_job, start_job

NO_WATERMARKS = WatermarkStrategy.no_watermarks()
RESTART_ONCE = {"restart__strategy_type": "fixed-delay", "restart__strategy_fixed__delay_delay": "1 ms"}


def settings(**options: Any) -> Configuration:
    configuration = Configuration()
    for key, value in options.items():
        configuration.set_string(key.replace("__", "-").replace("_", "."), str(value))
    return configuration


def with_folder(folder: Path, **options: Any) -> Configuration:
    return settings(**{"execution_checkpointing_dir": folder, "execution_checkpointing_interval": "10 ms"} | options)


def job_of(source: Any, *operators: Any, sink: Any = None, strategy: Any = NO_WATERMARKS, name: str = "job") -> Plan:
    """A chain; an operator is given as itself, or with the key of its input as a pair."""
    builder = PlanBuilder()
    above = builder.add(ReadSource(source, strategy), "numbers").id
    for operator in operators:
        operator, key = operator if isinstance(operator, tuple) else (operator, None)
        above = builder.add(operator, type(operator).__name__.lower(), (above,), key_selector=key).id
    builder.add(WriteSink(sink or PrintSink()), "sink", (above,))
    return builder.build(name)


def failing_once(folder: Path, at: int) -> Callable[[int], int]:
    """Raises for one number, the first time only, whatever copy of it runs."""
    marker = folder / "failed"

    def check(value: int) -> int:
        if value == at:
            try:
                # One of several lanes makes it.
                marker.touch(exist_ok=False)
            except FileExistsError:
                return value
            raise ValueError("not today")
        return value

    return check


def fill_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let no file be written any more, until `monkeypatch` takes it back."""

    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, "no space left on device")

    monkeypatch.setattr(storage, "os", Instead(write=full))


class Count(KeyedProcessFunction):
    """How many of each key; state of the name `count`."""

    def open(self, runtime_context: RuntimeContext) -> None:
        self.count = runtime_context.get_state(ValueStateDescriptor("count", Types.INT()))

    def process_element(self, value: Any, ctx: KeyedProcessFunction.Context) -> Any:
        count = (self.count.value() or 0) + 1
        self.count.update(count)
        yield ctx.get_current_key(), count


def frames_of_cause(error: BaseException) -> list[str]:
    assert error.__cause__ is not None
    return [frame.name for frame in traceback.extract_tb(error.__cause__.__traceback__)]


# --- errors ----------------------------------------------------------------------------------------------------------


def test_an_error_in_a_function_names_operator_and_record_with_the_users_own_traceback() -> None:
    def divide(value: int) -> float:
        return 1 / (value - 3)

    plan = job_of(Numbers(limit=10), Map(lambda x: x), Map(divide))
    with pytest.raises(UserCodeError, match=r"`map` failed with ZeroDivisionError.*number 3 of split a") as raised:
        run_job(plan, settings())
    assert raised.value.record == "number 3 of split a"
    assert frames_of_cause(raised.value) == ["divide"]


def test_the_record_is_found_behind_filters_and_flat_maps() -> None:
    plan = job_of(Numbers(limit=50), Filter(lambda x: x % 2), FlatMap(lambda x: [x] * x), Map(lambda x: 1 / (x - 21)))
    with pytest.raises(UserCodeError, match="number 21 of split a"):
        run_job(plan, settings())


def test_a_stop_iteration_of_the_users_is_an_error_and_no_end() -> None:
    plan = job_of(Numbers(limit=10), Map(lambda x: next(iter(())) if x == 4 else x))
    with pytest.raises(UserCodeError, match=r"StopIteration.*number 4"):
        run_job(plan, settings())
    plan = job_of(Numbers(limit=10), FlatMap(lambda x: next(iter(())) if x == 4 else [x]))
    with pytest.raises(UserCodeError, match=r"StopIteration.*number 4"):
        run_job(plan, settings())


def test_a_key_that_cannot_be_a_key_names_the_operator() -> None:
    with pytest.raises(
        NotSupportedError, match=r"the key that `key_by` gives for `reduce` .*unhashable.*number 0 of split a"
    ):
        run_job(job_of(Numbers(limit=3), (Reduce(max), lambda x: [x])), settings())


def test_an_error_of_a_serializer_is_one_of_data() -> None:
    class Strings(PrintSink):
        def create_writer(self, context: Any, transaction: Any) -> Any:
            writer = super().create_writer(context, transaction)
            writer.serialize = str.encode
            return writer

    with pytest.raises(DataError, match=r"`sink` cannot serialize.*number 0 of split a"):
        run_job(job_of(Numbers(limit=3), sink=Strings()), settings())


def test_a_function_that_cannot_be_copied_is_refused_with_the_cure() -> None:
    lock = threading.Lock()
    with pytest.raises(ConfigError, match=r"`map` cannot be copied.*create that in `open\(\)`"):
        run_job(job_of(Numbers(limit=3), Map(lambda x: lock and x)), settings())


def test_an_error_in_open_names_the_operator() -> None:
    class Broken(MapFunction):
        def open(self, runtime_context: RuntimeContext) -> None:
            raise OSError("no such model")

        def map(self, value: Any) -> Any:
            return value

    with pytest.raises(UserCodeError, match=r"`map` failed in open\(\).*no such model"):
        run_job(job_of(Numbers(limit=3), Map(Broken())), settings())


def test_keyed_state_without_a_key_is_refused_by_name() -> None:
    class Stateful(MapFunction):
        def open(self, runtime_context: RuntimeContext) -> None:
            runtime_context.get_state(ValueStateDescriptor("x", Types.INT()))

        def map(self, value: Any) -> Any:
            return value

    with pytest.raises(ConfigError, match=r"`map` failed in open\(\): it asks .* not keyed; put `key_by`"):
        run_job(job_of(Numbers(limit=3), Map(Stateful())), settings())


def test_what_is_refused_while_a_job_runs_names_operator_record_and_the_users_own_line(tmp_path: Path) -> None:
    class Waiting(KeyedProcessFunction):
        def process_element(self, value: Any, ctx: KeyedProcessFunction.Context) -> Any:
            if value == 3:
                ctx.timer_service().register_event_time_timer(value)
            yield value

    plan = job_of(Numbers(limit=10), (Process(Waiting()), lambda x: 0))
    with pytest.raises(
        NotSupportedError,
        match=r"`process` failed on the record at number 3 .*: `TimerService.register_event_time_timer`",
    ) as raised:
        run_job(plan, with_folder(tmp_path, **RESTART_ONCE))
    assert frames_of_cause(raised.value)[0] == "process_element"


def test_what_is_refused_in_open_names_the_operator_and_the_users_own_line() -> None:
    class Listing(MapFunction):
        def open(self, runtime_context: RuntimeContext) -> None:
            runtime_context.get_list_state(None)  # type: ignore[attr-defined]

        def map(self, value: Any) -> Any:
            return value

    with pytest.raises(NotSupportedError, match=r"`map` failed in open\(\): `RuntimeContext.get_list_state`") as raised:
        run_job(job_of(Numbers(limit=3), Map(Listing())), settings())
    assert frames_of_cause(raised.value)[0] == "open"


def test_a_failure_before_the_first_run_ends_the_job_whatever_the_restart_strategy(tmp_path: Path) -> None:
    class Absent(Numbers):
        def create_reader(self, context: Any) -> Any:
            raise OSError("no broker")

    with pytest.raises(OSError, match="no broker"):
        run_job(job_of(Absent()), with_folder(tmp_path))


def test_keyed_parallelism_above_one_is_refused_by_name() -> None:
    with pytest.raises(NotSupportedError, match="parallelism 2 of `reduce`, which is keyed"):
        run_job(job_of(Numbers(limit=3), (Reduce(max), str)), settings(parallelism_default=2))


def test_exactly_once_without_checkpoints_on_an_unbounded_job_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"nothing would ever be committed.*`execution.checkpointing.interval`"):
        run_job(job_of(Numbers(), sink=LedgerSink(Ledger())), settings())


# --- restarts --------------------------------------------------------------------------------------------------------


def test_a_restart_continues_at_the_last_checkpoint(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    ledger = Ledger()
    caplog.set_level(logging.INFO, "headrace")
    operators = (Map(failing_once(tmp_path, 400_000)), (Process(Count()), lambda x: x % 7))
    plan = job_of(Numbers(limit=500_000), *operators, sink=LedgerSink(ledger))
    run_job(plan, with_folder(tmp_path, **RESTART_ONCE))
    assert "job `job` resumes from checkpoint" in caplog.text
    assert ledger.values == [(x % 7, x // 7 + 1) for x in range(500_000)]


def test_functions_are_fresh_after_a_restart(tmp_path: Path) -> None:
    class Numbering(MapFunction):
        def open(self, runtime_context: RuntimeContext) -> None:
            self.seen = getattr(self, "seen", 0)
            (tmp_path / f"attempt-{runtime_context.get_attempt_number()}-{self.seen}").touch()

        def map(self, value: int) -> int:
            self.seen += 1
            return value

    plan = job_of(Numbers(limit=3_000), Map(Numbering()), Map(failing_once(tmp_path, 2_000)))
    run_job(plan, with_folder(tmp_path / "c", **RESTART_ONCE))
    assert sorted(path.name for path in tmp_path.glob("attempt-*")) == ["attempt-0-0", "attempt-1-0"]


def test_a_restart_says_when_the_same_record_failed_before(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    attempt = tmp_path / "attempt"
    attempt.write_text("0")

    def fail(value: int) -> int:
        number = int(attempt.read_text())
        if number < 6 and value == (2_000 if number == 3 else 1_000):
            attempt.write_text(str(number + 1))
            raise ValueError("not today")
        return value

    # No checkpoint falls between the records that are counted.
    options = RESTART_ONCE | {"restart__strategy_fixed__delay_attempts": 9, "execution_checkpointing_interval": "1 h"}
    run_job(job_of(Numbers(limit=3_000), Map(fail)), with_folder(tmp_path / "c", **options))

    restarts = [message.partition("number ")[2] for message in caplog.messages if "restarting in" in message]
    again = "1000 of split a; the same record failed {} times in a row: a restart may not help, `on_error` may"
    assert restarts == [
        "1000 of split a",
        again.format(2),
        again.format(3),
        "2000 of split a",
        "1000 of split a",
        again.format(2),
    ]


def test_bytes_that_fail_again_are_told_of_like_any_record(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    class Broken(NumberReader):
        @staticmethod
        def deserialize(value: int) -> int:
            return 1 // (value - 5)

    class Source(Numbers):
        def create_reader(self, context: Any) -> Any:
            return Broken(self)

    options = RESTART_ONCE | {"restart__strategy_fixed__delay_attempts": 2}
    with pytest.raises(DataError) as raised:
        run_job(job_of(Source(limit=10)), with_folder(tmp_path, **options))
    assert raised.value.record == "number 5 of split a"
    assert "the same record failed 2 times in a row" in caplog.text


def test_without_a_restart_strategy_the_first_failure_is_the_last(tmp_path: Path) -> None:
    plan = job_of(Numbers(limit=3_000), Map(failing_once(tmp_path, 2_000)))
    with pytest.raises(UserCodeError, match="not today"):
        run_job(plan, with_folder(tmp_path / "c", restart__strategy_type="none"))


def test_more_failed_checkpoints_in_a_row_than_tolerated_fail_the_job(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    ledger = Ledger()
    # From the claim on: the baseline is written.
    ledger.before_commit = lambda: fill_disk(monkeypatch)
    plan = job_of(Numbers(), (Process(Count()), lambda x: 0), sink=LedgerSink(ledger))
    tolerant = {"execution_checkpointing_tolerable__failed__checkpoints": 2, "restart__strategy_type": "none"}
    with pytest.raises(CheckpointFailed, match=r"cannot write .*\.state: No space left"):
        run_job(plan, with_folder(tmp_path, **tolerant))
    assert len([line for line in caplog.messages if line.startswith("checkpoint ")]) == 3
    assert ledger.values == []


# --- resuming --------------------------------------------------------------------------------------------------------


def run_until(plan: Plan, configuration: Configuration, ledger: Ledger, values: int) -> None:
    """Run a job until so many values are committed; then it stops with a last checkpoint."""
    job = Job(plan, configuration)
    ledger.before_commit = lambda: job.stop() if len(ledger.values) >= values else None
    job.run()
    ledger.before_commit = None


def test_a_stopped_job_goes_on_where_it_stopped(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    ledger = Ledger()
    plan = job_of(Numbers(), (Process(Count()), lambda x: x % 3), sink=LedgerSink(ledger))
    run_until(plan, with_folder(tmp_path), ledger, 1_000)
    first = len(ledger.values)
    with caplog.at_level(logging.INFO, "headrace"):
        run_until(plan, with_folder(tmp_path), ledger, first + 1_000)
    assert "job `job` resumes from checkpoint" in caplog.text
    assert ledger.values == [(x % 3, x // 3 + 1) for x in range(len(ledger.values))]


def test_an_edited_program_resumes_by_its_uids(tmp_path: Path) -> None:
    ledger = Ledger()

    def program(edited: bool) -> Plan:
        builder = PlanBuilder()
        above = builder.add(ReadSource(Numbers(), NO_WATERMARKS), "numbers").id
        builder.change(above, uid="numbers")
        if edited:
            above = builder.add(Map(lambda x: x), "new", (above,)).id
            side = builder.add(Filter(lambda x: False), "also new", (above,)).id
            builder.add(WriteSink(PrintSink()), "new sink", (side,))
        count = builder.add(Process(Count()), "count", (above,), key_selector=lambda x: 0).id
        builder.change(count, uid="count", name="renamed" if edited else "count")
        builder.add(WriteSink(LedgerSink(ledger)), "sink", (count,))
        return builder.build("job")

    run_until(program(edited=False), with_folder(tmp_path), ledger, 500)
    run_until(program(edited=True), with_folder(tmp_path), ledger, len(ledger.values) + 500)
    assert [count for _, count in ledger.values] == list(range(1, len(ledger.values) + 1))


def test_state_without_an_operator_is_refused_unless_it_may_be_left_behind(tmp_path: Path) -> None:
    ledger = Ledger()
    run_until(
        job_of(Numbers(), (Process(Count()), lambda x: 0), sink=LedgerSink(ledger)), with_folder(tmp_path), ledger, 9
    )
    without = job_of(Numbers(), sink=LedgerSink(ledger))
    with pytest.raises(StateError, match=r"keyed operator `process` \(.*no operator.* claims.*ignore-unclaimed-state"):
        run_job(without, with_folder(tmp_path))
    allowed = with_folder(tmp_path)
    allowed.set_string("execution.state-recovery.ignore-unclaimed-state", "true")
    run_until(without, allowed, ledger, len(ledger.values) + 1)


def test_a_finished_job_says_so_and_does_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    ledger = Ledger()
    plan = job_of(Numbers(limit=10), sink=LedgerSink(ledger))
    run_job(plan, with_folder(tmp_path))
    run_job(plan, with_folder(tmp_path))
    assert ledger.values == list(range(10))
    assert "has finished before" in caplog.text
    assert "`--fresh`" in caplog.text


def test_fresh_starts_a_finished_job_over(tmp_path: Path) -> None:
    ledger = Ledger()
    plan = job_of(Numbers(limit=10), sink=LedgerSink(ledger))
    run_job(plan, with_folder(tmp_path))
    run_job(plan, with_folder(tmp_path, headrace_fresh="true"))
    assert ledger.values == [*range(10), *range(10)]


def test_without_a_folder_each_run_starts_over_and_exactly_once_is_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    ledger = Ledger()
    plan = job_of(Numbers(limit=10), sink=LedgerSink(ledger))
    run_job(plan, settings())
    run_job(plan, settings())
    assert "exactly once within this run only" in caplog.text
    assert ledger.values == [*range(10), *range(10)]


@pytest.mark.parametrize("word", ["committed", "aborted"])
def test_what_the_user_assumes_holds_for_no_checkpoint_of_the_run_itself(tmp_path: Path, word: str) -> None:
    ledger = Ledger()
    plan = job_of(Numbers(limit=5_000), sink=LedgerSink(ledger))
    commits: list[str] = []

    def lose_marker() -> None:
        commits.append("claim" if len(commits) % 2 == 0 else "checkpoint")
        if commits[-1] == "checkpoint":
            ledger.markers.clear()
            raise ValueError("not today")

    ledger.before_commit = lose_marker
    with pytest.raises(ValueError, match="not today"):
        run_job(plan, with_folder(tmp_path, restart__strategy_type="none"))
    with pytest.raises(StateError, match=r"nobody knows whether checkpoint 4 of epoch 2 .* was committed"):
        run_job(plan, with_folder(tmp_path, headrace_assume=word, **RESTART_ONCE))
    assert commits == ["claim", "checkpoint"] * 2


def test_a_source_that_had_no_splits_is_no_new_one_when_the_job_resumes(tmp_path: Path) -> None:
    ledger, begun = Ledger(), list[Any]()

    class Enumerator(NumberEnumerator):
        def start(self, restored: Any) -> Any:
            begun.append(restored)
            return super().start(restored)

    class Empty(Numbers):
        def create_enumerator(self, context: Any) -> Any:
            return Enumerator(())

    plan = job_of(Empty(), sink=LedgerSink(ledger))
    run_until(plan, with_folder(tmp_path), ledger, 0)
    run_until(plan, with_folder(tmp_path), ledger, 0)
    assert begun == [None, []]


def test_a_savepoint_can_be_started_from(tmp_path: Path) -> None:
    ledger = Ledger()
    plan = job_of(Numbers(), (Process(Count()), lambda x: 0), sink=LedgerSink(ledger))
    client = start_job(plan, with_folder(tmp_path / "c"))
    path = client.stop_with_savepoint(False, str(tmp_path / "savepoints")).result()
    client.get_job_execution_result().result()
    committed = len(ledger.values)
    run_until(plan, with_folder(tmp_path / "c"), ledger, committed + 100)
    later = len(ledger.values)
    run_until(plan, with_folder(tmp_path / "c", execution_state__recovery_path=path), ledger, later + 1)
    assert ledger.values[later] == (0, committed + 1)


def test_a_savepoint_that_cannot_be_written_costs_the_job_nothing(tmp_path: Path) -> None:
    ledger = Ledger()
    client = start_job(job_of(Numbers(), sink=LedgerSink(ledger)), with_folder(tmp_path / "c"))
    (tmp_path / "file").touch()
    with pytest.raises(ExternalError, match="cannot create"):
        client.trigger_savepoint(str(tmp_path / "file")).result()
    path = client.stop_with_savepoint(False, str(tmp_path)).result()
    assert Path(path).is_dir()
    client.get_job_execution_result().result()
    assert ledger.values == list(range(len(ledger.values)))


def test_a_second_copy_in_the_same_folder_is_refused_naming_the_first(tmp_path: Path) -> None:
    plan = job_of(Numbers(), sink=LedgerSink(Ledger()))
    client = start_job(plan, with_folder(tmp_path))
    try:
        while client.get_job_status().result().name != "RUNNING":
            pass
        with pytest.raises(StateError, match="already running: process"):
            run_job(plan, with_folder(tmp_path))
    finally:
        client.cancel()
    with pytest.raises(JobCancelled):
        client.get_job_execution_result().result()


def test_a_corrupt_manifest_is_refused_by_name(tmp_path: Path) -> None:
    plan = job_of(Numbers(limit=10), sink=LedgerSink(Ledger()))
    run_job(plan, with_folder(tmp_path))
    newest = sorted((tmp_path / "job").glob("*checkpoint*.json"))[-1]
    newest.write_text(json.dumps(json.loads(newest.read_text()) | {"job": "altered"}))
    with pytest.raises(StateError, match="half-written or altered"):
        run_job(plan, with_folder(tmp_path))


def test_a_lost_folder_is_refused_while_markers_are_left(tmp_path: Path) -> None:
    ledger = Ledger()
    plan = job_of(Numbers(limit=10), sink=LedgerSink(ledger))
    run_job(plan, with_folder(tmp_path / "one"))
    with pytest.raises(StateError, match=r"folder is empty.*`--fresh`"):
        run_job(plan, with_folder(tmp_path / "two"))
    run_job(plan, with_folder(tmp_path / "two", headrace_fresh="true"))


# --- fencing ---------------------------------------------------------------------------------------------------------


def take_over(ledger: Ledger) -> None:
    """What another copy does: initialises the transactional id, and claims it."""
    for name in ledger.owner:
        ledger.owner[name] += 1
        ledger.markers[name] = Marker("5e1f", SnapshotId(9, 99, "newer")).encode()


def test_a_copy_that_another_one_fenced_stops_and_names_it(tmp_path: Path) -> None:
    ledger = Ledger()

    def overtake() -> None:
        if ledger.values:
            take_over(ledger)

    ledger.before_commit = overtake
    with pytest.raises(StateError, match=r"another copy of job 'job' took over.*attempt newer.*does not come back"):
        run_job(job_of(Numbers(), sink=LedgerSink(ledger)), with_folder(tmp_path))


def test_a_copy_without_transactions_stops_when_another_one_began_an_epoch_and_names_it(tmp_path: Path) -> None:
    root, began = tmp_path / "c", tmp_path / "began"

    def overtake(value: int) -> int:
        """Run another copy to its end at one number, once: as if on another host, where the lock keeps nobody out."""
        if value == 500 and not began.exists():
            began.touch()
            (root / "job" / "lock").unlink()
            run_job(job_of(Numbers(limit=10)), with_folder(root))
        return value

    with pytest.raises(StateError, match=r"another copy of job 'job' took over.*does not come back") as raised:
        run_job(job_of(Numbers(limit=1_000), Map(overtake)), with_folder(root, **RESTART_ONCE))
    newest = CheckpointFolder(root, "job").read().newest
    assert newest is not None
    assert newest.id.epoch == 2
    assert f"snapshot {newest.id}" in str(raised.value)


def test_a_transaction_that_timed_out_is_produced_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ledger = Ledger()
    commits: list[int] = []

    def time_out() -> None:
        commits.append(len(ledger.values))
        if len(commits) == 2:  # the first is the claim
            for name in ledger.owner:
                ledger.owner[name] += 1

    # Nobody claims, so the grace is waited for in vain: let its clock run.
    monkeypatch.setattr("headrace.runtime.coordinator.FENCING_GRACE_MS", 0)
    ledger.before_commit = time_out
    run_job(job_of(Numbers(limit=5_000), sink=LedgerSink(ledger)), with_folder(tmp_path, **RESTART_ONCE))
    assert len(ledger.fenced) == 2
    assert ledger.values == list(range(5_000))


def test_every_recorded_transaction_is_fenced_also_those_the_program_no_longer_uses(tmp_path: Path) -> None:
    ledger = Ledger()
    run_job(job_of(Numbers(limit=10), sink=LedgerSink(ledger)), with_folder(tmp_path))
    (old,) = ledger.owner
    ledger.fenced.clear()
    builder = PlanBuilder()
    source = builder.add(ReadSource(Numbers(limit=20), NO_WATERMARKS), "numbers").id
    sink = builder.add(WriteSink(LedgerSink(ledger)), "sink", (source,)).id
    builder.change(sink, uid="another")
    run_job(builder.build("job"), with_folder(tmp_path, headrace_fresh="true"))
    assert old in ledger.fenced
    assert len(set(ledger.fenced)) == 2


# --- stopping --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_stops_with_a_last_checkpoint(tmp_path: Path, number: signal.Signals) -> None:
    ledger = Ledger()
    plan = job_of(Numbers(), sink=LedgerSink(ledger))
    values_at_signal: list[int] = []

    def once() -> None:
        if len(ledger.values) > 500 and not values_at_signal:
            values_at_signal.append(len(ledger.values))
            signal.raise_signal(number)

    ledger.before_commit = once
    run_job(plan, with_folder(tmp_path))
    assert ledger.values == list(range(len(ledger.values)))
    assert len(ledger.values) >= values_at_signal[0]


def test_cancel_ends_without_a_last_checkpoint(tmp_path: Path) -> None:
    ledger = Ledger()
    client = start_job(job_of(Numbers(), sink=LedgerSink(ledger)), with_folder(tmp_path))
    client.cancel().result()
    with pytest.raises(JobCancelled):
        client.get_job_execution_result().result()
    assert client.get_job_status().result().name == "CANCELED"


# --- time ------------------------------------------------------------------------------------------------------------


def test_a_bounded_job_ends_with_every_watermark_at_its_maximum(tmp_path: Path) -> None:
    class LastWatermark(KeyedProcessFunction):
        def process_element(self, value: Any, ctx: KeyedProcessFunction.Context) -> Any:
            self.ctx = ctx

        def close(self) -> None:
            (tmp_path / "watermark").write_text(str(self.ctx.timer_service().current_watermark()))

    strategy = WatermarkStrategy.for_monotonous_timestamps()
    plan = job_of(Numbers(limit=10, timestamps=True), (Process(LastWatermark()), lambda x: 0), strategy=strategy)
    run_job(plan, settings())
    assert (tmp_path / "watermark").read_text() == str(2**63 - 1)


def test_a_timestamp_assigner_of_a_source_gives_elements_their_time(tmp_path: Path) -> None:
    class Time(KeyedProcessFunction):
        def process_element(self, value: Any, ctx: KeyedProcessFunction.Context) -> Any:
            yield value, ctx.timestamp()

    ledger = Ledger()
    strategy = WatermarkStrategy.for_monotonous_timestamps().with_timestamp_assigner(lambda value, _: value * 10)
    plan = job_of(Numbers(limit=5), (Process(Time()), lambda x: 0), sink=LedgerSink(ledger), strategy=strategy)
    run_job(plan, settings())
    assert ledger.values == [(x, x * 10) for x in range(5)]


@pytest.mark.parametrize("interval", ["0 s", "10 ms"])
def test_what_close_raises_fails_the_job(tmp_path: Path, interval: str) -> None:
    class Broken(MapFunction):
        def map(self, value: Any) -> Any:
            return value

        def close(self) -> None:
            raise OSError("flush failed")

    with pytest.raises(UserCodeError, match=r"`map` failed in close\(\).*flush failed"):
        run_job(
            job_of(Numbers(limit=3), Map(Broken())),
            with_folder(tmp_path, execution_checkpointing_interval=interval, **RESTART_ONCE),
        )


def test_a_failure_that_nobody_foresaw_is_logged_with_its_traceback(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    failed = iter([True])

    class Odd(LedgerSink):
        def create_writer(self, context: Any, transaction: Any) -> Any:
            writer = super().create_writer(context, transaction)

            def poll() -> None:
                if next(failed, False):
                    raise KeyError("x")

            writer.poll = poll  # type: ignore[method-assign]
            return writer

    with caplog.at_level(logging.ERROR, "headrace"):
        run_job(job_of(Numbers(limit=3), sink=Odd(Ledger())), with_folder(tmp_path, **RESTART_ONCE))
    assert "KeyError: 'x'" in caplog.text
    assert "in poll" in caplog.text


def test_what_is_collected_in_front_of_a_checkpoint_is_not_lost_when_its_flag_cannot_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mark, failed = CheckpointFolder.mark_committed, iter([True])

    def fail_once(folder: CheckpointFolder, at: SnapshotId) -> None:
        if next(failed, False):
            raise ExternalError("disk full")
        mark(folder, at)

    monkeypatch.setattr(CheckpointFolder, "mark_committed", fail_once)
    collected, taken = Collected(), list[int]()
    client = start_job(
        job_of(Numbers(limit=1000), sink=CollectSink(collected, on_checkpoint=True)),
        with_folder(tmp_path, **RESTART_ONCE),
    )
    client.get_job_execution_result().when_done(collected.end)
    while (elements := collected.take()) is not None:
        taken += elements
    assert taken == list(range(1000))


def test_elements_of_a_collection_come_in_order_and_once(capsys: pytest.CaptureFixture[str]) -> None:
    run_job(job_of(CollectionSource(tuple("abc")), Map(str.upper)), settings())
    assert capsys.readouterr().out == "A\nB\nC\n"


def test_a_second_exactly_once_job_of_one_name_is_refused_in_one_process(tmp_path: Path) -> None:
    def job_in(folder: str) -> Job:
        plan = job_of(Numbers(), sink=LedgerSink(Ledger()), name="twice")
        return Job(plan, with_folder(tmp_path / folder))

    first = job_in("first")
    first.start()
    wait_until(lambda: first.has_begun, "the first one runs")
    with pytest.raises(StateError, match=r"a job 'twice' runs in this process already, and works in .*first"):
        job_in("second").run()
    first.stop()
    first.wait()
    # It is its name only while it runs.
    second = job_in("second")
    second.start()
    wait_until(lambda: second.has_begun, "the second one runs")
    second.stop()
    second.get_job_execution_result().result()
