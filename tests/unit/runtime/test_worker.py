"""One worker, told what to do message by message: event time on its way down the plan, and what is closed."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, ClassVar

import pytest
from tests.unit.runtime.endless import NumberReader, Numbers

from headrace.common import Configuration, Duration, WatermarkGenerator, WatermarkOutput, WatermarkStrategy
from headrace.connector import SourceContext
from headrace.connector.builtin import PrintSink
from headrace.datastream.functions import MapFunction, ProcessFunction, RuntimeContext
from headrace.errors import StateError
from headrace.plan.graph import AssignTimestamps, Map, Plan, PlanBuilder, Process, ReadSource, WriteSink
from headrace.plan.identity import operator_ids
from headrace.runtime.messages import (
    AddSplits,
    AlignWatermarks,
    Close,
    Deploy,
    Failed,
    Fenced,
    FenceRecorded,
    InputEnded,
    Run,
    WatermarksReached,
)
from headrace.runtime.settings import read_settings
from headrace.runtime.watermarks import NO_TIMESTAMP
from headrace.runtime.worker import Worker

TIMED = WatermarkStrategy.for_monotonous_timestamps()


def job_of(source: Any, *operators: Any, strategy: WatermarkStrategy = TIMED) -> Plan:
    builder = PlanBuilder()
    above = builder.add(ReadSource(source, strategy), "numbers").id
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


class Tens(WatermarkGenerator):
    """A watermark behind each ten."""

    def on_event(self, event: Any, event_timestamp: int, output: WatermarkOutput) -> None:
        if event % 10 == 0:
            output.emit_watermark(event_timestamp + 5)

    def on_periodic_emit(self, output: WatermarkOutput) -> None: ...


def test_a_generator_of_the_programs_own_is_shown_every_element_and_its_timestamp(
    capsys: pytest.CaptureFixture[str],
) -> None:
    strategy = WatermarkStrategy.for_generator(Tens).with_timestamp_assigner(lambda value, _: value * 100)
    # As the clock has it, each element is a slice; a watermark reaches what is behind its slice.
    found = watermarks_behind(strategy, capsys)
    assert found == [NO_TIMESTAMP] + [5] * 10 + [1005] * 10 + [2005] * 10 + [3005] * 9 + [2**63 - 1]


def test_a_source_has_a_generator_of_the_programs_own_for_each_split() -> None:
    strategy = WatermarkStrategy.for_generator(Tens)
    worker = reading(job_of(Numbers(timestamps=True), strategy=strategy), "a", "b")
    seen = []
    for _ in range(3):
        worker.step(0)
        seen.append(worker._progress[0].watermark)
    # Each step is one number.
    assert seen == [None, 5, 5]
    worker.handle(Close())


@pytest.mark.parametrize(
    ("method", "text"),
    [
        ("on_event", "`numbers` failed with KeyError: 'x' on the record at number 0 of split a"),
        ("on_periodic_emit", "`numbers` failed with KeyError in on_periodic_emit(): 'x'"),
    ],
)
def test_what_a_generator_raises_names_the_operator(method: str, text: str) -> None:
    def fail(*_: Any) -> None:
        raise KeyError("x")

    broken = type("Broken", (Tens,), {method: fail})
    worker = reading(job_of(Numbers(limit=40, timestamps=True), strategy=WatermarkStrategy.for_generator(broken)), "a")
    worker.step(0)
    failed = worker.outbox[-1]
    assert isinstance(failed, Failed)
    assert str(failed.error) == text
    assert isinstance(failed.error.__cause__, KeyError)


def test_what_makes_no_generator_is_refused() -> None:
    worker = reading(job_of(Numbers(), strategy=WatermarkStrategy.for_generator(dict)), "a")  # type: ignore[arg-type]
    (failed,) = [said for said in worker.outbox if isinstance(said, Failed)]
    assert "has to make a WatermarkGenerator, and made a dict" in str(failed.error)


def reading(plan: Plan, *splits: str, **positions: int) -> Worker:
    """A worker that reads numbers of these splits."""
    worker = worker_of(plan)
    worker.handle(Deploy({}, {}))
    added = {name: {"id": name, "position": at} for name, at in (dict.fromkeys(splits, 0) | positions).items()}
    worker.handle(AddSplits(operator_ids(plan)[0], added))
    worker.handle(Run())
    return worker


class Pausing(NumberReader):
    """Splits of ten numbers each; they can be paused."""

    paused: frozenset[str] = frozenset()

    def poll(self, max_records: int, timeout_s: float) -> Any:
        return super().poll(10, timeout_s)

    def pause_or_resume_splits(self, splits_to_pause: Iterable[str], splits_to_resume: Iterable[str]) -> None:
        self.paused = (self.paused | set(splits_to_pause)) - set(splits_to_resume)


@dataclass(frozen=True, slots=True)
class PausingNumbers(Numbers):
    def create_reader(self, context: SourceContext) -> NumberReader:
        return Pausing(self)


def test_splits_that_are_too_far_ahead_of_their_group_are_paused_until_it_has_come_near() -> None:
    strategy = TIMED.with_watermark_alignment("group", Duration.of_millis(5))
    worker = reading(job_of(PausingNumbers(timestamps=True), strategy=strategy), slow=0, near=5, far=20)
    reader = worker._readers[0]
    assert isinstance(reader, Pausing)
    worker.step(0)
    # One that has no watermark yet is as far behind as can be.
    assert worker.outbox[-1] == WatermarksReached({"group": NO_TIMESTAMP})
    while reader.done["far"] < 30:
        worker.step(0)
    assert worker.outbox[-1] == WatermarksReached({"group": 8})

    for behind, paused in ((8, {"far"}), (3, {"near", "far"}), (8, {"far"}), (100, set()), (None, set())):
        worker.handle(AlignWatermarks({"group": behind}))
        assert reader.paused == paused
    worker.handle(Close())


def test_a_source_whose_splits_cannot_be_paused_is_not_aligned() -> None:
    worker = reading(
        job_of(Numbers(timestamps=True), strategy=TIMED.with_watermark_alignment("g", Duration.of_millis(5))), "a"
    )
    worker.handle(AlignWatermarks({"g": -100}))
    failed = worker.outbox[-1]
    assert isinstance(failed, Failed)
    assert "with_watermark_alignment" in str(failed.error)


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
