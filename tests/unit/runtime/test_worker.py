"""One worker, told what to do message by message: event time on its way down the plan, and what is closed."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field
from typing import Any, ClassVar

import pytest
from tests.unit.runtime.endless import NumberReader, Numbers

from headrace.common import Configuration, WatermarkStrategy
from headrace.connector import SourceContext
from headrace.connector.builtin import PrintSink
from headrace.datastream.functions import MapFunction, ProcessFunction, RuntimeContext
from headrace.errors import StateError
from headrace.plan.graph import AssignTimestamps, Map, Plan, PlanBuilder, Process, ReadSource, WriteSink
from headrace.plan.identity import operator_ids
from headrace.runtime.messages import AddSplits, Close, Deploy, Failed, Fenced, FenceRecorded, InputEnded, Run
from headrace.runtime.settings import read_settings
from headrace.runtime.watermarks import NO_TIMESTAMP
from headrace.runtime.worker import Worker

TIMED = WatermarkStrategy.for_monotonous_timestamps()


def job_of(source: Any, *operators: Any) -> Plan:
    builder = PlanBuilder()
    above = builder.add(ReadSource(source, TIMED), "numbers").id
    for operator in operators:
        above = builder.add(operator, type(operator).__name__.lower(), (above,)).id
    builder.add(WriteSink(PrintSink()), "sink", (above,))
    return builder.build("job")


def worker_of(plan: Plan) -> Worker:
    """A worker without state files. Each look at the clock finds a step's time over, and watermarks due."""
    clock = itertools.count(1.0)
    return Worker(plan, read_settings(Configuration()), None, clock=lambda: next(clock))  # type: ignore[arg-type]


class Watermark(ProcessFunction):
    """Gives the watermark that each element meets."""

    def process_element(self, value: Any, ctx: ProcessFunction.Context) -> Any:
        yield ctx.timer_service().current_watermark()


def watermarks_behind(strategy: WatermarkStrategy, capsys: pytest.CaptureFixture[str]) -> list[int]:
    """The watermark before each of forty numbers behind `assign_timestamps_and_watermarks`, and the one at the end."""
    plan = job_of(Numbers(limit=40, timestamps=True), AssignTimestamps(strategy), Process(Watermark()))
    worker = worker_of(plan)
    worker.handle(Deploy({}, {}))
    worker.handle(AddSplits(operator_ids(plan)[0], {"a": {"id": "a", "position": 0}}))
    worker.handle(Run())
    while worker.is_running:
        worker.step(0)
    assert isinstance(worker.outbox[-1], InputEnded)
    last = worker._operators[2].time.current_watermark()
    worker.handle(Close())
    return [*map(int, capsys.readouterr().out.split()), last]


def test_behind_a_strategy_without_watermarks_there_is_none_until_the_end(capsys: pytest.CaptureFixture[str]) -> None:
    found = watermarks_behind(WatermarkStrategy.no_watermarks(), capsys)
    assert found == [NO_TIMESTAMP] * 40 + [2**63 - 1]


def test_behind_a_strategy_with_watermarks_there_are_its_own(capsys: pytest.CaptureFixture[str]) -> None:
    found = watermarks_behind(TIMED.with_timestamp_assigner(lambda value, _: value * 10), capsys)
    assert found[-2:] == [38 * 10 - 1, 2**63 - 1]


@dataclass(frozen=True, slots=True)
class Closing(Numbers):
    """Numbers whose readers say when they are closed."""

    closed: list[str] = field(default_factory=list, compare=False)

    def create_reader(self, context: SourceContext) -> NumberReader:
        reader = NumberReader(self)
        reader.close = lambda: self.closed.append(context.operator_name)  # type: ignore[method-assign]
        return reader


def test_a_reader_is_closed_also_when_what_is_opened_behind_it_fails() -> None:
    class Broken(MapFunction):
        def open(self, runtime_context: RuntimeContext) -> None:
            raise OSError("no such model")

        def map(self, value: Any) -> Any:
            return value

    source = Closing()
    worker = worker_of(job_of(source, Map(Broken())))
    worker.handle(Deploy({}, {}))
    assert isinstance(worker.outbox[-1], Failed)
    worker.handle(Close())
    assert source.closed == ["numbers"]


class Elsewhere:
    """A transaction on another cluster."""

    location: ClassVar = {"transactional_id": "elsewhere"}

    def fence(self, recorded: Any = None) -> None:
        raise StateError("that is on another cluster")


class Here:
    location: ClassVar = {"transactional_id": "here"}

    def __init__(self) -> None:
        self.fenced: list[Any] = []

    def fence(self, recorded: Any = None) -> None:
        self.fenced.append(recorded)


def test_a_recorded_transaction_is_reached_through_whichever_of_todays_can() -> None:
    worker, here, recorded = worker_of(job_of(Numbers())), Here(), {"transactional_id": "of-a-lane-that-is-gone"}
    worker._transactions = {"a": Elsewhere(), "b": here}  # type: ignore[dict-item]
    worker.handle(FenceRecorded((recorded,)))
    assert here.fenced == [recorded]
    assert isinstance(worker.outbox[-1], Fenced)


def test_a_recorded_transaction_that_none_of_todays_can_reach_is_refused() -> None:
    worker = worker_of(job_of(Numbers()))
    worker._transactions = {"a": Elsewhere()}  # type: ignore[dict-item]
    worker.handle(FenceRecorded(({"transactional_id": "gone"},)))
    (failed,) = worker.outbox
    assert isinstance(failed, Failed)
    assert "another cluster" in str(failed.error)
