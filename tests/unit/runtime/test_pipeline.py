"""One source at work: whose fault an error is, and how far its splits have come in event time."""

from __future__ import annotations

import itertools
import traceback
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from tests.unit.runtime.endless import Ledger, LedgerSink, NumberOrigin, NumberReader, Numbers, NumberSplit

from headrace.common import Configuration, WatermarkStrategy
from headrace.connector import Batch, WriterContext
from headrace.connector.builtin import PrintSink
from headrace.errors import DataError, UserCodeError
from headrace.plan.graph import AssignTimestamps, Filter, Plan, PlanBuilder, ReadSource, WriteSink
from headrace.runtime.failures import Failures
from headrace.runtime.job import run_job
from headrace.runtime.loop import Calls, compile_loop
from headrace.runtime.pipeline import Pipeline

TIMED = WatermarkStrategy.for_monotonous_timestamps()
UNTIMED = WatermarkStrategy.no_watermarks()
NO_FAILURES = Failures("job", 0, lambda: 0.0)


def job_of(source: Any, *operators: Any, strategy: WatermarkStrategy = UNTIMED, sink: Any = None) -> Plan:
    builder = PlanBuilder()
    above = builder.add(ReadSource(source, strategy), "numbers").id
    for operator in operators:
        above = builder.add(operator, type(operator).__name__.lower(), (above,)).id
    builder.add(WriteSink(sink or PrintSink()), "sink", (above,))
    return builder.build("job")


class Words(Numbers):
    """Numbers that arrive as bytes; the fifth of them is none."""

    def create_reader(self, context: Any) -> Any:
        class Reader(NumberReader):
            @staticmethod
            def deserialize(value: int) -> int:
                return int(b"x" if value == 5 else str(value))

        return Reader(self)


# --- whose fault an error is -----------------------------------------------------------------------------------------

NO_TIMES: list[tuple[Callable[[Any, int], Any], str]] = [
    (lambda value, _: None if value == 3 else value, "None (NoneType)"),
    (lambda value, _: 0.5 if value == 3 else value, "0.5 (float)"),
    (lambda value, _: "noon" if value == 3 else value, "'noon' (str)"),
]


@pytest.mark.parametrize(("assigner", "shown"), NO_TIMES, ids=[shown for _, shown in NO_TIMES])
def test_a_timestamp_that_is_no_int_names_the_operator_the_record_and_what_came(
    assigner: Callable[[Any, int], Any], shown: str
) -> None:
    strategy = TIMED.with_timestamp_assigner(assigner)
    plans = {
        "numbers": job_of(Numbers(limit=9), strategy=strategy),
        "assigntimestamps": job_of(Numbers(limit=9), Filter(lambda x: True), AssignTimestamps(strategy)),
    }
    for name, plan in plans.items():
        with pytest.raises(UserCodeError) as raised:
            run_job(plan, Configuration())
        assert str(raised.value) == (
            f"`{name}` failed with TypeError: the timestamp assigner has to return an int, milliseconds since the "
            f"epoch, and returned {shown} on the record at number 3 of split a"
        )
        assert (raised.value.operator, raised.value.record) == (name, "number 3 of split a")


def test_a_timestamp_that_is_as_good_as_an_int_becomes_one() -> None:
    class Whole:
        """As numpy's integers are."""

        def __index__(self) -> int:
            return 7

    class TimesSink(LedgerSink):
        def create_writer(self, context: Any, transaction: Any) -> Any:
            writer = super().create_writer(context, transaction)
            writer.write = lambda values, timestamps: transaction.open_values.extend(timestamps)
            return writer

    ledger = Ledger()
    strategy = TIMED.with_timestamp_assigner(lambda value, _: (Whole(), True, value)[value])
    run_job(job_of(Numbers(limit=3), strategy=strategy, sink=TimesSink(ledger)), Configuration())
    assert ledger.values == [7, 1, 2]
    assert [type(value) for value in ledger.values] == [int, int, int]


def test_bytes_that_cannot_be_read_are_the_datas_fault_also_when_the_source_has_an_assigner() -> None:
    plain = TIMED.with_timestamp_assigner(lambda value, _: value)
    for strategy in (UNTIMED, TIMED, plain):
        with pytest.raises(
            DataError, match=r"`numbers` cannot deserialize .* number 5 .*: ValueError: invalid"
        ) as raised:
            run_job(job_of(Words(limit=9), strategy=strategy), Configuration())
        assert raised.value.record == "number 5 of split a"


def test_what_an_assigner_raises_is_its_own_fault_also_when_the_source_has_a_deserializer() -> None:
    def noon(value: int, _: int) -> int:
        return {0: 0, 1: 1}[value]

    strategy = TIMED.with_timestamp_assigner(noon)
    with pytest.raises(UserCodeError, match="`numbers` failed with KeyError: 2 on the record at number 2") as raised:
        run_job(job_of(Words(limit=9), strategy=strategy), Configuration())
    assert raised.value.__cause__ is not None
    assert [frame.name for frame in traceback.extract_tb(raised.value.__cause__.__traceback__)][-1] == "noon"


# --- event time ------------------------------------------------------------------------------------------------------


class AtOnce(NumberReader):
    """Hands out three records of each split in one poll: `late` has come to its end with them, `early` has not."""

    def poll(self, max_records: int, timeout_s: float) -> Sequence[Batch]:
        times = {"early": [7, 8, 9], "late": [1, 2, 3]}
        return [Batch([0, 0, 0], times[name], NumberOrigin(self, name, 0)) for name in times]

    def is_finished(self, split_id: str) -> bool:
        return split_id == "late"


def test_a_split_holds_the_watermark_back_until_what_it_gave_last_is_processed() -> None:
    plan = job_of(Numbers(limit=3), strategy=TIMED)
    reader = AtOnce(Numbers(limit=3))
    writers = {1: PrintSink().create_writer(WriterContext("job", "sink", 0, 1), None)}
    # Every look at the clock finds the step's time over.
    clock = itertools.count(1.0)
    loop = compile_loop(plan, 0, {0: Calls(), 1: Calls()})
    pipeline = Pipeline(plan, plan.node(0), reader, loop, writers, lambda: next(clock), NO_FAILURES)
    pipeline.add_splits([NumberSplit("early"), NumberSplit("late")])

    reached = []
    while reader.done["late"] < 3:
        pipeline.step(0)
        reached.append((reader.done["early"], reader.done["late"], pipeline.progress(0).watermark))
    # A watermark is one below the last timestamp of the split that is furthest behind, until that one is over.
    assert reached == [(1, 0, None), (2, 0, None), (3, 0, None), (3, 1, 0), (3, 2, 1), (3, 3, 8)]


def test_a_step_ends_behind_a_slice_when_somebody_calls() -> None:
    plan = job_of(Numbers(limit=3), strategy=TIMED)
    reader = AtOnce(Numbers(limit=3))
    writers = {1: PrintSink().create_writer(WriterContext("job", "sink", 0, 1), None)}
    loop = compile_loop(plan, 0, {0: Calls(), 1: Calls()})
    # No time passes: only a call ends a step. Slices grow, as nothing is known of what they take.
    pipeline = Pipeline(plan, plan.node(0), reader, loop, writers, lambda: 1.0, NO_FAILURES)
    pipeline.add_splits([NumberSplit("early"), NumberSplit("late")])

    reached = []
    for _ in range(3):
        pipeline.step(0, lambda: True)
        reached.append((reader.done["early"], reader.done["late"]))
    assert reached == [(1, 0), (3, 0), (3, 3)]


def test_nothing_is_presumed_of_a_functions_cost_before_its_first_record() -> None:
    """One that takes seconds for each record must not hold a signal up for a whole batch."""
    asked: list[int] = []

    class Reader(NumberReader):
        def poll(self, max_records: int, timeout_s: float) -> Sequence[Batch]:
            asked.append(max_records)
            return super().poll(max_records, timeout_s)

    plan = job_of(Numbers(limit=1000))
    writers = {1: PrintSink().create_writer(WriterContext("job", "sink", 0, 1), None)}
    loop = compile_loop(plan, 0, {0: Calls(), 1: Calls()})
    pipeline = Pipeline(plan, plan.node(0), Reader(Numbers(limit=1000)), loop, writers, lambda: 0.0, NO_FAILURES)
    pipeline.add_splits([NumberSplit("a")])
    pipeline.step(0)
    assert asked[:4] == [1, 2, 4, 8]
