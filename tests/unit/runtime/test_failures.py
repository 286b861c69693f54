"""What becomes of a record that an operator fails on: what came of it is withdrawn, and all else is as before."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import pytest

from headrace.common import WatermarkStrategy
from headrace.connector import DeadLetter, RecordTooLarge, Sink, SinkWriter, Stage, Transaction, WriterContext
from headrace.datastream import DataStream, ErrorPolicy, KeyedProcessFunction, StreamExecutionEnvironment
from headrace.errors import ConfigError, DataError, ExternalError, HeadraceError, NotSupportedError, UserCodeError
from headrace.runtime.failures import is_of_the_record
from headrace.runtime.loop import OUTPUT_LIMIT
from headrace.runtime.watermarks import NO_TIMESTAMP
from headrace.state.key_groups import UnusableKey

WRITTEN: dict[str, list[tuple[Any, int | None]]] = {}
"""What went to each sink, with timestamps. Sinks are copied, this is not."""


@dataclass(frozen=True)
class Kept(Sink):
    """Keeps what is written to it."""

    name: str

    def create_writer(self, context: WriterContext, transaction: Transaction | None) -> SinkWriter:
        WRITTEN[self.name] = kept = []

        class Writer(SinkWriter):
            def write(self, values: Sequence[Any], timestamps: Sequence[int] | None) -> None:
                kept.extend(zip(values, timestamps or [None] * len(values), strict=True))

            def flush(self) -> None:
                pass

        return Writer()


def stream(*elements: Any, policy: ErrorPolicy | None = None) -> DataStream:
    env = StreamExecutionEnvironment.get_execution_environment()
    if policy is not None:
        env.on_error(policy)
    return env.from_collection(elements)


def run(*streams: DataStream) -> list[list[Any]]:
    for number, each in enumerate(streams):
        each.sink_to(Kept(str(number)))
    streams[0].get_execution_environment().execute("job")
    return [[value for value, _ in WRITTEN[str(number)]] for number in range(len(streams))]


def dead() -> list[DeadLetter]:
    return [letter for letter, _ in WRITTEN["dead"]]


def test_only_the_record_at_fault_is_missing_behind_each_operator() -> None:
    def each_and_share(n: int) -> Iterator[int]:
        yield n
        yield 8 // n

    numbers = stream(1, 2, 0, 4, policy=ErrorPolicy.drop())
    assert run(
        numbers.map(lambda n: 8 // n),
        numbers.filter(lambda n: 8 // n > 2),
        numbers.flat_map(each_and_share),
        numbers.key_by(lambda n: 8 // n).reduce(max),
        numbers.union(numbers).map(lambda n: 4 // n),
    ) == [[8, 4, 2], [1, 2], [1, 8, 2, 4, 4, 2], [1, 2, 4], [4, 4, 2, 2, 1, 1]]


def test_what_came_of_a_record_before_it_failed_is_withdrawn_from_every_sink() -> None:
    numbers = stream(1, 0, 2, policy=ErrorPolicy.drop())
    numbers.sink_to(Kept("first"))
    assert run(numbers.filter(bool), numbers.map(lambda n: 2 // n)) == [[1, 2], [2, 1]]
    assert WRITTEN["first"] == [(1, NO_TIMESTAMP), (2, NO_TIMESTAMP)]


def test_a_record_of_more_results_than_are_held_goes_out_whole_or_not_at_all() -> None:
    def many(count: int) -> Iterator[int]:
        yield from range(OUTPUT_LIMIT * 2)
        yield 1 // count

    (results,) = run(stream(1, 0, 1, policy=ErrorPolicy.drop()).flat_map(many))
    assert len(results) == 2 * (OUTPUT_LIMIT * 2 + 1)


def test_timestamps_stay_with_their_elements() -> None:
    timed = WatermarkStrategy.for_monotonous_timestamps().with_timestamp_assigner(lambda n, _: n * 1000)
    run(stream(1, 0, 3, policy=ErrorPolicy.drop()).assign_timestamps_and_watermarks(timed).map(lambda n: 3 // n))
    assert WRITTEN["0"] == [(3, 1000), (1, 3000)]


def test_stop_iteration_of_a_function_is_a_failure_like_any_other() -> None:
    def stop(n: int) -> int:
        return next(iter([n] if n else []))

    def stop_within(n: int) -> Iterator[int]:
        yield stop(n)

    def stop_by_another_name(n: int) -> int:
        if not n:
            raise RuntimeError("nothing there") from StopIteration()
        return n

    numbers = stream(1, 0, 3, policy=ErrorPolicy.drop())
    functions = (lambda n: [stop(n)], stop_within)
    assert run(numbers.map(stop), *map(numbers.flat_map, functions), numbers.map(stop_by_another_name)) == [[1, 3]] * 4


def test_a_dead_letter_says_what_happened_and_holds_the_element_as_it_came() -> None:
    def divide(each: dict[str, int]) -> int:
        return 1 // each.pop("n")

    numbers = stream({"n": 1}, {"n": 0})
    results = numbers.map(divide).name("divide").on_error(ErrorPolicy.dead_letter(Kept("dead")))
    assert run(results) == [[1]]
    (letter,) = dead()
    assert letter.record.value == {"n": 0}
    assert letter.record.is_element
    assert (letter.stage, letter.operator, letter.exception) == (Stage.FUNCTION, "divide", "ZeroDivisionError")
    assert (letter.job, letter.checkpoint, letter.attempt) == ("job", 0, 0)
    assert letter.message


def test_operators_share_the_sink_of_a_policy_and_each_may_have_its_own() -> None:
    policy = ErrorPolicy.dead_letter(Kept("dead"))
    numbers = stream("1", "x", "0", "2", policy=policy)
    divided = numbers.map(int).name("parse").map(lambda n: 2 // n).name("divide")
    assert run(divided, divided.map(lambda n: 1 // (n - 1)).on_error(ErrorPolicy.drop())) == [[2], [1]]
    assert [(letter.operator, letter.record.value) for letter in dead()] == [("parse", "x"), ("divide", "0")]


@pytest.mark.parametrize(
    ("error", "kind"),
    [(ExternalError("no answer", retriable=False), ExternalError), (ConfigError("no such setting"), ConfigError)],
)
def test_what_is_no_fault_of_the_record_fails_the_job_all_the_same(error: Exception, kind: type[Exception]) -> None:
    def fail(_: int) -> None:
        raise error

    with pytest.raises(kind):
        run(stream(1, policy=ErrorPolicy.drop()).map(fail))


@pytest.mark.parametrize("timestamp", [1 << 63, -(1 << 63) - 1, 10**30])
def test_a_timestamp_that_can_be_none_is_a_fault_of_the_record(timestamp: int) -> None:
    strategy = WatermarkStrategy.no_watermarks().with_timestamp_assigner(lambda value, _: value)
    timed = stream(1, timestamp, (1 << 63) - 1, policy=ErrorPolicy.drop()).assign_timestamps_and_watermarks(strategy)
    assert run(timed) == [[1, (1 << 63) - 1]]


def test_an_exception_that_cannot_say_what_it_is_drops_its_record_all_the_same() -> None:
    class Mute(Exception):
        def __str__(self) -> str:
            return self.args[7]  # type: ignore[no-any-return]

    def refuse(value: int) -> int:
        if value == 2:
            raise Mute
        return value

    assert run(stream(1, 2, 3, policy=ErrorPolicy.drop()).map(refuse)) == [[1, 3]]


def test_a_key_that_cannot_be_one_is_a_fault_of_the_record() -> None:
    class Count(KeyedProcessFunction):
        def process_element(self, value: Any, ctx: Any) -> Iterator[Any]:
            yield value

    keyed = stream(1.0, float("nan"), 2.0, policy=ErrorPolicy.drop()).key_by(lambda value: value)
    assert run(keyed.reduce(max), keyed.process(Count())) == [[1.0, 2.0], [1.0, 2.0]]


def test_an_operator_that_says_fail_fails_the_job() -> None:
    with pytest.raises(UserCodeError, match="element 1 of the collection"):
        run(stream(1, 0, policy=ErrorPolicy.drop()).map(lambda n: 1 // n).on_error(ErrorPolicy.fail()))


@pytest.mark.parametrize(
    ("refusal", "kind"),
    [
        # A restart would end as this attempt did.
        (TypeError("no bytes"), ConfigError),
        (RecordTooLarge("too long"), DataError),
        (ExternalError("no answer"), ExternalError),
    ],
)
def test_a_dead_letter_that_cannot_be_written_fails_the_job_and_says_both(
    refusal: Exception, kind: type[HeadraceError]
) -> None:
    class Picky(Kept):
        def create_writer(self, context: WriterContext, transaction: Transaction | None) -> SinkWriter:
            writer = super().create_writer(context, transaction)

            def refuse(letter: DeadLetter) -> None:
                raise refusal

            writer.serialize = refuse
            return writer

    policy = ErrorPolicy.dead_letter(Picky("dead"))
    with pytest.raises(HeadraceError, match=str(refusal)) as raised:
        run(stream(1, 0).map(lambda n: 1 // n).on_error(policy))
    assert type(raised.value) is kind
    if kind is not ExternalError:
        assert re.search(
            rf"division.* and the dead letter cannot be written: {type(refusal).__name__}", str(raised.value)
        )


def test_failures_are_logged_once_for_each_operator_and_then_now_and_again(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "headrace"):
        run(stream(*[0] * 1000, policy=ErrorPolicy.drop()).map(lambda n: 1 // n))
    first, total = [record.getMessage() for record in caplog.records if "dropped" in record.getMessage()]
    assert "element 0 of the collection" in first
    assert total == "`Map` failed on 1000 records, which were dropped"


def test_a_policy_is_one() -> None:
    with pytest.raises(ConfigError, match="ErrorPolicy"):
        stream(1).on_error("drop")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="takes a sink"):
        ErrorPolicy.dead_letter("dead")  # type: ignore[arg-type]


def test_an_error_is_of_the_record_unless_it_is_of_the_outside_or_of_a_setting() -> None:
    assert is_of_the_record(UnusableKey("this key"))
    assert not is_of_the_record(NotSupportedError("timers"))
    assert not is_of_the_record(MemoryError())
