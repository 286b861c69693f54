"""Event time on real Kafka: where timestamps come from, and which partitions hold watermarks back."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from confluent_kafka import Producer
from tests.kafka.jobs import TIMEOUT_S, collecting, environment

from headrace.broker import DevBroker
from headrace.common import Duration, WatermarkGenerator, WatermarkOutput, WatermarkStrategy
from headrace.datastream import DataStream
from headrace.datastream.functions import ProcessFunction
from headrace.kafka import KafkaOffsetsInitializer, KafkaSourceBuilder
from headrace.runtime.watermarks import NO_TIMESTAMP

BEGIN_MS = 1_000_000_000_000
TIMED = WatermarkStrategy.for_monotonous_timestamps()
OFTEN = {"pipeline_auto__watermark__interval": "1 ms"}
LATEST = KafkaOffsetsInitializer.latest()

Make = Callable[..., str]
Write = Callable[..., None]
Read = Callable[..., KafkaSourceBuilder]


@pytest.fixture
def write(kafka: DevBroker) -> Write:
    """`write(topic, partition, first_ms, count)`: records a millisecond apart, which say their time and partition."""
    producer = Producer({"bootstrap.servers": kafka.bootstrap_servers, "log_level": 2})

    def write(topic: str, partition: int, first_ms: int, count: int) -> None:
        for at in range(first_ms, first_ms + count):
            producer.produce(topic, f"{partition} {at}", partition=partition, timestamp=BEGIN_MS + at)
        assert producer.flush(TIMEOUT_S) == 0

    return write


class Times(ProcessFunction):
    """Partition, timestamp, and the watermark that the record meets; times from the beginning on."""

    def process_element(self, value: str, ctx: ProcessFunction.Context) -> Iterator[Any]:
        watermark = ctx.timer_service().current_watermark()
        timestamp = ctx.timestamp()
        assert timestamp is not None
        yield (
            int(value.split()[0]),
            timestamp - BEGIN_MS,
            watermark if watermark == NO_TIMESTAMP else watermark - BEGIN_MS,
        )


def slow(value: Any) -> Any:
    """Half a millisecond for each record, so that watermarks come in between."""
    time.sleep(0.0005)
    return value


def collected(stream: DataStream) -> list[Any]:
    with collecting(stream, "event time") as elements:
        return list(elements)


def test_the_timestamp_of_a_record_is_kafkas_unless_an_assigner_makes_another_of_it(
    read: Read, write: Write, make_topic: Make
) -> None:
    topic = make_topic()
    write(topic, 0, 0, 10)
    source = read(topic).set_bounded(LATEST).build()
    for strategy in (WatermarkStrategy.no_watermarks(), TIMED):
        plain = collected(environment().from_source(source, strategy, "in").process(Times()))
        assert [at for _, at, _ in plain] == list(range(10))

        def later(value: str, record_timestamp: int) -> int:
            assert record_timestamp == BEGIN_MS + int(value.split()[1])
            return record_timestamp + 5000

        assigned = strategy.with_timestamp_assigner(later)
        moved = collected(environment().from_source(source, assigned, "in").process(Times()))
        assert [at for _, at, _ in moved] == list(range(5000, 5010))


@pytest.mark.parametrize("with_assigner", [False, True])
def test_no_record_is_late_however_far_apart_in_time_partitions_are(
    read: Read, write: Write, make_topic: Make, with_assigner: bool
) -> None:
    topic = make_topic(partitions=2)
    for partition in range(2):
        write(topic, partition, partition * 1_000_000, 1000)
    strategy = TIMED.with_timestamp_assigner(lambda value, timestamp: timestamp) if with_assigner else TIMED
    source = read(topic).set_bounded(LATEST).build()
    times = collected(environment(**OFTEN).from_source(source, strategy, "in").map(slow).process(Times()))
    assert len(times) == 2000
    assert [late for late in times if late[1] <= late[2]] == []
    # And there are watermarks.
    assert max(watermark for _, _, watermark in times) > 100


class Every(WatermarkGenerator):
    """A watermark at each hundredth millisecond."""

    def on_event(self, event: str, event_timestamp: int, output: WatermarkOutput) -> None:
        if event_timestamp % 100 == 0:
            output.emit_watermark(event_timestamp - 1)

    def on_periodic_emit(self, output: WatermarkOutput) -> None:
        pass


def test_watermarks_of_a_generator_of_the_programs_own_are_made_for_each_partition(
    read: Read, write: Write, make_topic: Make
) -> None:
    topic = make_topic(partitions=2)
    for partition in range(2):
        write(topic, partition, partition * 1_000_000, 1000)
    source = read(topic).set_bounded(LATEST).build()
    strategy = WatermarkStrategy.for_generator(Every)
    times = collected(environment(**OFTEN).from_source(source, strategy, "in").map(slow).process(Times()))
    watermarks = {watermark for _, _, watermark in times}
    assert [late for late in times if late[1] <= late[2]] == []
    assert watermarks - {NO_TIMESTAMP}
    assert {watermark % 100 for watermark in watermarks - {NO_TIMESTAMP}} == {99}


def first_watermark(stream: DataStream, write: Callable[[int], None]) -> int:
    """The first watermark that records meet, which are written as long as they meet none."""
    with collecting(stream.process(Times()), "first watermark") as elements:
        for at in itertools.count():
            write(at)
            _, _, watermark = next(elements)
            if watermark != NO_TIMESTAMP:
                return int(watermark)
    raise AssertionError


def test_a_partition_without_records_holds_time_back_until_it_is_idle(
    read: Read, write: Write, make_topic: Make
) -> None:
    topic = make_topic(partitions=2)
    idle = TIMED.with_idleness(Duration.of_millis(50))
    begun = time.monotonic()
    stream = environment(**OFTEN).from_source(read(topic).build(), idle, "in")
    assert first_watermark(stream, lambda at: write(topic, 0, at, 1)) >= -1
    assert time.monotonic() - begun >= 0.05

    write(topic, 0, 10_000, 1000)
    stream = environment(**OFTEN).from_source(read(topic).build(), TIMED, "in").map(slow).process(Times())
    times = stream.execute_and_collect("held back", limit=1000)
    assert {watermark for _, _, watermark in times} == {NO_TIMESTAMP}


def test_a_source_without_partitions_holds_nothing_back(
    read: Read, write: Write, make_topic: Make, topic_name: Make
) -> None:
    topic = make_topic()
    env = environment(**OFTEN)
    nothing = read().set_topic_pattern(topic_name("nothing-like-this")).build()
    empty = env.from_source(nothing, TIMED, "empty")
    stream = env.from_source(read(topic).build(), TIMED, "in").union(empty)
    assert first_watermark(stream, lambda at: write(topic, 0, at, 1)) >= -1


def done_at(value: str) -> tuple[int, float]:
    """The record's partition, and when it was processed."""
    return int(value.split()[0]), time.time()


@pytest.mark.parametrize("layout", ["one source", "two sources", "two lanes", "two lanes and an idle one"])
def test_a_partition_that_is_far_ahead_waits_for_the_others_of_its_group(
    read: Read, write: Write, make_topic: Make, layout: str
) -> None:
    count = 2000
    topics = [make_topic(partitions=2), make_topic(partitions=2)]
    env = environment(**OFTEN)
    strategy = TIMED.with_watermark_alignment("group", Duration.of_seconds(1), Duration.of_millis(1))
    if layout == "two sources":
        for topic, partition in zip(topics, range(2), strict=True):
            write(topic, partition, partition * 1_000_000, count)
        first, second = (env.from_source(read(t).set_bounded(LATEST).build(), strategy, t) for t in topics)
        stream = first.union(second)
    else:
        for partition in range(2):
            write(topics[0], partition, partition * 1_000_000, count)
        env.set_parallelism({"two lanes": 2, "two lanes and an idle one": 3}.get(layout, 1))
        stream = env.from_source(read(topics[0]).set_bounded(LATEST).build(), strategy, "in")
    done = collected(stream.map(slow).map(done_at))

    assert sorted(partition for partition, _ in done) == [0] * count + [1] * count
    # While both were read, the one that is ahead got no further than what it had been given before it was paused. It
    # may have begun before the other was there to wait for.
    begun, ended = (choose(at for partition, at in done if partition == 0) for choose in (min, max))
    assert sum(1 for partition, at in done if partition == 1 and begun < at < ended) < count / 2
