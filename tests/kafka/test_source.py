"""KafkaSource on real Kafka: where it starts and stops, what it keeps, and what it says when records are gone."""

from __future__ import annotations

import logging
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import replace
from typing import Any

import pytest
from confluent_kafka import Consumer, ConsumerGroupTopicPartitions, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewPartitions

from headrace.broker import DevBroker
from headrace.connector import SourceContext, SourceReader, Split
from headrace.errors import ExternalError, StateError
from headrace.kafka import KafkaOffsetResetStrategy, KafkaOffsetsInitializer, KafkaSource, KafkaTopicPartition
from headrace.kafka.client.provision import create_topics
from headrace.kafka.source import KafkaSourceBuilder
from headrace.kafka.split import KafkaSplit

TIMEOUT_S = 30.0
CONTEXT = SourceContext("job", "source", 0, 1, commits_offsets=True)
LATEST = KafkaOffsetsInitializer.latest()


class Running:
    """A source at work: its enumerator and its reader."""

    def __init__(self, source: KafkaSource, restored: Sequence[Split] | None = None) -> None:
        self.enumerator = source.create_enumerator(CONTEXT)
        self.reader: SourceReader | None = None
        self.splits = [split for split in self.enumerator.start(restored) if isinstance(split, KafkaSplit)]
        self.reader = source.create_reader(CONTEXT)
        self.reader.add_splits(self.splits)

    def close(self) -> None:
        self.enumerator.close()
        if self.reader is not None:
            self.reader.close()

    def read(self, count: int, max_records: int = 500) -> list[bytes]:
        """Exactly `count` records, processed."""
        assert self.reader is not None
        values: list[bytes] = []
        deadline = time.monotonic() + TIMEOUT_S
        while len(values) < count:
            assert time.monotonic() < deadline, values
            for batch in self.reader.poll(min(max_records, count - len(values)), 0.2):
                values += batch.values
                batch.origin.advance(len(batch.values))
        return values

    def read_to_end(self) -> list[bytes]:
        """Everything up to the stop offsets."""
        assert self.reader is not None
        values: list[bytes] = []
        deadline = time.monotonic() + TIMEOUT_S
        while not all(self.reader.is_finished(split.split_id) for split in self.splits):
            assert time.monotonic() < deadline, values
            for batch in self.reader.poll(500, 0.2):
                values += batch.values
                batch.origin.advance(len(batch.values))
        return values

    def wait_until(self, condition: Callable[[SourceReader], bool]) -> None:
        """Poll, without records, until `condition` holds."""
        assert self.reader is not None
        deadline = time.monotonic() + TIMEOUT_S
        while not condition(self.reader):
            assert time.monotonic() < deadline
            assert not self.reader.poll(500, 0.1)

    def positions(self) -> list[int]:
        assert self.reader is not None
        return [split.position for split in self.reader.snapshot() if isinstance(split, KafkaSplit)]


@pytest.fixture
def run() -> Iterator[Callable[..., Running]]:
    """Starts sources, and closes them after the test."""
    with ExitStack() as stack:

        def start(source: KafkaSource, restored: Sequence[Split] | None = None) -> Running:
            running = Running(source, restored)
            stack.callback(running.close)
            return running

        yield start


@pytest.fixture
def builder(kafka: DevBroker) -> Callable[..., KafkaSourceBuilder]:
    def make(*topics: str) -> KafkaSourceBuilder:
        made = KafkaSource.builder().set_bootstrap_servers(kafka.bootstrap_servers)
        made.set_value_only_deserializer(bytes)
        return made.set_topics(*topics) if topics else made

    return make


@pytest.fixture
def admin(kafka: DevBroker) -> AdminClient:
    return AdminClient({"bootstrap.servers": kafka.bootstrap_servers, "log_level": 2})


@pytest.fixture
def write(kafka: DevBroker) -> Callable[..., None]:
    """`write(topic, *values)` to partition 0, plain or, with `transactional=True`, as a transaction."""

    def write(topic: str, *values: bytes, partition: int = 0, transactional: bool = False, at_ms: int = 0) -> None:
        config: dict[str, Any] = {"bootstrap.servers": kafka.bootstrap_servers, "log_level": 2}
        if transactional:
            config["transactional.id"] = topic
        producer = Producer(config)
        if transactional:
            producer.init_transactions(TIMEOUT_S)
            producer.begin_transaction()
        for value in values:
            producer.produce(topic, value, partition=partition, timestamp=at_ms)
        if transactional:
            producer.commit_transaction(TIMEOUT_S)
        else:
            assert producer.flush(TIMEOUT_S) == 0

    return write


def numbers(first: int, behind: int) -> list[bytes]:
    return [b"%d" % number for number in range(first, behind)]


def trim(admin: AdminClient, topic: str, offset: int) -> None:
    for future in admin.delete_records([TopicPartition(topic, 0, offset)]).values():
        future.result(TIMEOUT_S)


def recreate(admin: AdminClient, kafka: DevBroker, topic: str) -> None:
    admin.delete_topics([topic])[topic].result(TIMEOUT_S)
    deadline = time.monotonic() + TIMEOUT_S
    while True:
        try:
            create_topics(kafka.bootstrap_servers, {topic: 1})
        except ExternalError:
            assert time.monotonic() < deadline
            continue
        if admin.list_topics(topic, timeout=TIMEOUT_S).topics[topic].partitions:
            return


Builder = Callable[..., KafkaSourceBuilder]
Run = Callable[..., Running]
Write = Callable[..., None]
Make = Callable[..., str]


def test_a_bounded_source_reads_every_record_once(run: Run, builder: Builder, write: Write, make_topic: Make) -> None:
    topic = make_topic(partitions=3)
    for partition in range(3):
        write(topic, *numbers(partition * 1000, partition * 1000 + 700), partition=partition)
    running = run(builder(topic).set_bounded(LATEST).build())
    write(topic, b"too late")
    values = running.read_to_end()
    assert sorted(values) == sorted(numbers(0, 700) + numbers(1000, 1700) + numbers(2000, 2700))
    assert running.positions() == [700, 700, 700]
    assert running.enumerator.discovery_interval_ms is None


@pytest.mark.parametrize("isolation", ["read_uncommitted", "read_committed"])
def test_a_bounded_read_ends_at_the_end_of_a_transactional_topic(
    run: Run, builder: Builder, write: Write, make_topic: Make, isolation: str
) -> None:
    topic = make_topic()
    write(topic, b"a", b"b", transactional=True)
    running = run(builder(topic).set_bounded(LATEST).set_property("isolation.level", isolation).build())
    assert running.splits[0].stop == 3
    assert running.read_to_end() == [b"a", b"b"]
    assert running.positions() == [3]


def test_an_empty_topic_ends_at_once(run: Run, builder: Builder, make_topic: Make) -> None:
    running = run(builder(make_topic(partitions=2)).set_bounded(LATEST).build())
    assert running.read_to_end() == []


def test_reading_stops_before_the_given_offset(run: Run, builder: Builder, write: Write, make_topic: Make) -> None:
    topic = make_topic()
    write(topic, *numbers(0, 900))
    at = KafkaTopicPartition(topic, 0)
    source = builder(topic).set_unbounded(KafkaOffsetsInitializer.offsets({at: 123})).build()
    running = run(source)
    assert source.ends
    assert running.read_to_end() == numbers(0, 123)
    assert running.positions() == [123]
    assert run(source, [replace(running.splits[0], position=123)]).read_to_end() == []


def test_each_kind_of_starting_offsets_finds_its_record(
    run: Run, builder: Builder, write: Write, make_topic: Make, admin: AdminClient
) -> None:
    topic, now_ms = make_topic(), int(time.time() * 1000)
    for number in range(10):
        write(topic, b"%d" % number, at_ms=now_ms + number)
    group = [ConsumerGroupTopicPartitions(topic, [TopicPartition(topic, 0, 4)])]
    admin.alter_consumer_group_offsets(group)[topic].result(TIMEOUT_S)
    at = KafkaTopicPartition(topic, 0)
    initializers = {
        KafkaOffsetsInitializer.earliest(): 0,
        KafkaOffsetsInitializer.latest(): 10,
        KafkaOffsetsInitializer.committed_offsets(): 4,
        KafkaOffsetsInitializer.timestamp(now_ms + 6): 6,
        KafkaOffsetsInitializer.timestamp(now_ms + 100): 10,
        KafkaOffsetsInitializer.offsets({at: 7}): 7,
        KafkaOffsetsInitializer.offsets({KafkaTopicPartition("other", 0): 7}): 4,
    }
    for initializer, offset in initializers.items():
        source = builder(topic).set_group_id(topic).set_starting_offsets(initializer).set_bounded(LATEST).build()
        running = run(source)
        assert [split.position for split in running.splits] == [offset], initializer
        assert running.read_to_end() == numbers(offset, 10)


def test_committed_offsets_that_are_not_there_are_an_error(run: Run, builder: Builder, make_topic: Make) -> None:
    topic = make_topic()
    source = builder(topic).set_group_id(topic).set_starting_offsets(KafkaOffsetsInitializer.committed_offsets())
    with pytest.raises(ExternalError, match=f"no offset for {topic}-0"):
        run(source.build())


def test_a_batch_that_was_cut_short_is_resumed_where_it_was_cut(
    run: Run, builder: Builder, write: Write, make_topic: Make
) -> None:
    topic = make_topic()
    write(topic, *numbers(0, 100))
    running = run(builder(topic).build())
    assert running.reader is not None
    batches: Sequence[Any] = []
    while not batches:
        batches = running.reader.poll(50, 1.0)
    assert running.positions() == [0]
    batches[0].origin.advance(1)
    assert running.positions() == [1]
    resumed = run(builder(topic).set_bounded(LATEST).build(), [replace(running.splits[0], position=1, stop=100)])
    assert resumed.read_to_end() == numbers(1, 100)


def test_a_record_is_described_by_topic_partition_offset_and_first_bytes(
    run: Run, builder: Builder, write: Write, make_topic: Make
) -> None:
    topic = make_topic()
    write(topic, b"short", b"x" * 1000)
    running = run(builder(topic).build())
    assert running.reader is not None
    running.read(1)
    batches: Sequence[Any] = []
    while not batches:
        batches = running.reader.poll(1, 1.0)
    assert batches[0].origin.describe(0) == f"topic {topic}, partition 0, offset 1: {b'x' * 64!r}… (1000 bytes)"


def test_a_partition_is_caught_up_only_at_the_end_of_its_log(
    run: Run, builder: Builder, write: Write, make_topic: Make
) -> None:
    topic = make_topic()
    write(topic, *numbers(0, 10))
    running = run(builder(topic).build())
    (split,) = running.splits
    assert running.reader is not None
    running.read(9)
    assert not running.reader.is_caught_up(split.split_id)
    running.read(1)
    running.wait_until(lambda reader: reader.is_caught_up(split.split_id))
    write(topic, b"more")
    running.read(1)
    assert not running.reader.is_caught_up(split.split_id)


def test_new_partitions_are_read_from_their_first_record(
    run: Run, builder: Builder, write: Write, make_topic: Make, admin: AdminClient
) -> None:
    topic = make_topic()
    write(topic, b"before")
    source = builder(topic).set_starting_offsets(LATEST).build()
    running = run(source)
    assert running.enumerator.discovery_interval_ms == 300_000
    admin.create_partitions([NewPartitions(topic, 2)])[topic].result(TIMEOUT_S)
    found: list[Split] = []
    deadline = time.monotonic() + TIMEOUT_S
    while not found:
        assert time.monotonic() < deadline
        found = running.enumerator.discover()
    write(topic, b"first", partition=1)
    assert running.enumerator.discover() == []
    assert running.reader is not None
    running.reader.add_splits(found)
    assert running.read(1) == [b"first"]
    restored = run(source, running.splits)
    assert [(split.partition.partition, split.position) for split in restored.splits] == [(0, 1), (1, 0)]


def test_a_pattern_finds_topics_by_their_whole_name(
    run: Run, builder: Builder, make_topic: Make, topic_name: Callable[[str], str]
) -> None:
    hint = topic_name("p")
    topics = {make_topic(hint=f"{hint}-a"), make_topic(hint=f"{hint}-b")}
    make_topic(hint=f"not-{hint}")
    running = run(builder().set_topic_pattern(f"{hint}-.*").build())
    assert {split.partition.topic for split in running.splits} == topics


def test_restored_partitions_that_the_program_no_longer_subscribes_to_are_read_and_warned_of(
    run: Run, builder: Builder, write: Write, make_topic: Make, caplog: pytest.LogCaptureFixture
) -> None:
    old, new = make_topic(partitions=2), make_topic()
    snapshot = run(builder(old).build()).splits
    write(old, b"old", partition=1)
    write(new, b"new")

    with caplog.at_level(logging.WARNING, "headrace"):
        resumed = run(builder(new).build(), snapshot)

    assert sorted(resumed.read(2)) == [b"new", b"old"]
    (warning,) = caplog.messages
    assert f"no longer subscribes to {old}-0, {old}-1, but they" in warning
    assert "are still read" in warning
    assert "`uid`" in warning
    assert "`--fresh`" in warning


def test_of_restored_partitions_only_the_unread_ones_that_are_not_subscribed_to_are_warned_of(
    run: Run, builder: Builder, make_topic: Make, caplog: pytest.LogCaptureFixture
) -> None:
    topic = make_topic(partitions=2)
    first, second = sorted(run(builder(topic).build()).splits, key=lambda split: split.partition)
    only_first = {first.partition}
    with caplog.at_level(logging.WARNING, "headrace"):
        run(builder(topic).build(), [first, second])
        run(builder().set_topic_pattern(f"{topic[:-1]}.").build(), [first, second])
        run(builder().set_partitions(only_first).build(), [first, replace(second, stop=second.position)])
        assert caplog.messages == []
        run(builder().set_partitions(only_first).build(), [first, second])
    assert [f"subscribes to {second.partition}, but" in message for message in caplog.messages] == [True]


def test_only_the_given_partitions_are_read(run: Run, builder: Builder, write: Write, make_topic: Make) -> None:
    topic = make_topic(partitions=2)
    write(topic, b"no", partition=0)
    write(topic, b"yes", partition=1)
    chosen = builder().set_partitions({KafkaTopicPartition(topic, 1)}).set_bounded(LATEST)
    assert run(chosen.build()).read_to_end() == [b"yes"]
    unbounded = builder().set_partitions({KafkaTopicPartition(topic, 1)}).build()
    assert run(unbounded).enumerator.discovery_interval_ms is None
    with pytest.raises(ExternalError, match=f"no partition {topic}-2"):
        run(builder().set_partitions({KafkaTopicPartition(topic, 2)}).build())


def test_a_topic_that_does_not_exist_is_named(run: Run, builder: Builder, topic_name: Callable[[str], str]) -> None:
    topic = topic_name("missing")
    with pytest.raises(ExternalError, match=f"'{topic}' cannot be read.*create the topic") as raised:
        run(builder(topic).build())
    assert not raised.value.retriable


def test_brokers_that_are_not_there_are_an_error_in_time(run: Run, builder: Builder) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        servers = f"127.0.0.1:{taken.getsockname()[1]}"
        source = builder("t").set_bootstrap_servers(servers).set_property("default.api.timeout.ms", "1000").build()
        begun = time.monotonic()
        with pytest.raises(ExternalError, match=f"{servers} cannot be reached: .*refused.*`bootstrap.servers`"):
            run(source)
    assert time.monotonic() - begun < 10


def test_records_trimmed_before_a_restore_are_named(
    run: Run, builder: Builder, write: Write, make_topic: Make, admin: AdminClient, caplog: pytest.LogCaptureFixture
) -> None:
    topic = make_topic()
    write(topic, *numbers(0, 10))
    first = run(builder(topic).build())
    first.read(3)
    assert first.reader is not None
    snapshot = first.reader.snapshot()
    trim(admin, topic, 8)
    with caplog.at_level(logging.WARNING):
        resumed = run(builder(topic).build(), snapshot)
    assert f"offsets 3 to 7 of {topic}-0 are gone" in caplog.text
    assert resumed.read(2) == numbers(8, 10)
    with pytest.raises(ExternalError, match=f"offsets 3 to 7 of {topic}-0 are gone.*`auto.offset.reset`"):
        run(builder(topic).set_property("auto.offset.reset", "none").build(), snapshot)


def test_records_trimmed_while_reading_are_named(
    run: Run, builder: Builder, write: Write, make_topic: Make, admin: AdminClient, caplog: pytest.LogCaptureFixture
) -> None:
    topic = make_topic()
    write(topic, *numbers(0, 10))
    trim(admin, topic, 8)
    running = run(builder(topic).set_starting_offsets(LATEST).build())
    source = builder(topic).set_property("auto.offset.reset", "earliest").build()
    reader = source.create_reader(CONTEXT)
    running.reader, stale = reader, running.reader
    assert stale is not None
    stale.close()
    reader.add_splits([replace(running.splits[0], position=3)])
    with caplog.at_level(logging.WARNING):
        assert running.read(2) == numbers(8, 10)
    assert f"offsets 3 to 7 of {topic}-0 are gone" in caplog.text
    assert running.positions() == [10]


def test_an_unread_start_follows_retention_in_silence(
    run: Run, builder: Builder, write: Write, make_topic: Make, admin: AdminClient, caplog: pytest.LogCaptureFixture
) -> None:
    topic = make_topic()
    write(topic, *numbers(0, 10))
    first = run(builder(topic).set_property("auto.offset.reset", "none").build())
    assert first.reader is not None
    snapshot = first.reader.snapshot()
    trim(admin, topic, 8)
    with caplog.at_level(logging.WARNING, "headrace"):
        resumed = run(builder(topic).set_property("auto.offset.reset", "none").build(), snapshot)
        assert resumed.read(2) == numbers(8, 10)
    assert caplog.records == []


def test_a_topic_created_again_is_told_from_the_old_one(
    run: Run,
    builder: Builder,
    write: Write,
    make_topic: Make,
    admin: AdminClient,
    kafka: DevBroker,
    caplog: pytest.LogCaptureFixture,
) -> None:
    topic = make_topic()
    write(topic, *numbers(0, 5))
    first = run(builder(topic).build())
    first.read(3)
    assert first.reader is not None
    snapshot = first.reader.snapshot()
    first.close()
    recreate(admin, kafka, topic)
    write(topic, *numbers(100, 110))
    with caplog.at_level(logging.WARNING):
        resumed = run(builder(topic).build(), snapshot)
    assert f"{topic} was deleted and created again" in caplog.text
    assert resumed.read(10) == numbers(100, 110)
    with pytest.raises(ExternalError, match="deleted and created again"):
        run(builder(topic).set_property("auto.offset.reset", "none").build(), snapshot)


def test_splits_survive_their_encoding(run: Run, builder: Builder, make_topic: Make) -> None:
    source = builder(make_topic()).set_bounded(LATEST).build()
    (split,) = run(source).splits
    assert source.decode_split(source.encode_split(split)) == split
    with pytest.raises(StateError, match="cannot be read"):
        source.decode_split({"topic": "t"})


def committed(admin: AdminClient, group: str, topic: str) -> int:
    request = [ConsumerGroupTopicPartitions(group, [TopicPartition(topic, 0)])]
    answer = admin.list_consumer_group_offsets(request)[group].result(TIMEOUT_S)
    return int(answer.topic_partitions[0].offset)


def test_offsets_are_committed_when_a_checkpoint_is_complete(
    run: Run, builder: Builder, write: Write, make_topic: Make, admin: AdminClient
) -> None:
    topic = make_topic()
    write(topic, *numbers(0, 10))
    running = run(builder(topic).set_group_id(topic).build())
    running.read(4)
    assert running.reader is not None
    snapshot = running.reader.snapshot()
    running.read(6)
    assert committed(admin, topic, topic) < 0
    running.reader.notify_checkpoint_complete(snapshot)
    running.close()
    assert committed(admin, topic, topic) == 4


def test_without_checkpoints_or_a_group_nothing_is_committed(
    run: Run, builder: Builder, write: Write, make_topic: Make, admin: AdminClient
) -> None:
    topic = make_topic()
    write(topic, *numbers(0, 10))
    for source in (
        builder(topic).build(),
        builder(topic).set_group_id(topic).set_property("commit.offsets.on.checkpoint", "false").build(),
    ):
        running = run(source)
        running.read(10)
        assert running.reader is not None
        running.reader.notify_checkpoint_complete(running.reader.snapshot())
        running.close()
    assert committed(admin, topic, topic) < 0


def test_another_member_of_the_group_is_told_of_and_stops_nothing(
    run: Run,
    builder: Builder,
    write: Write,
    make_topic: Make,
    kafka: DevBroker,
    caplog: pytest.LogCaptureFixture,
) -> None:
    topic = make_topic()
    write(topic, *numbers(0, 10))
    member = Consumer(
        {"bootstrap.servers": kafka.bootstrap_servers, "group.id": topic, "auto.offset.reset": "earliest"}
    )
    member.subscribe([topic])
    assert member.poll(TIMEOUT_S) is not None
    running = run(builder(topic).set_group_id(topic).build())
    running.read(10)
    assert running.reader is not None
    running.reader.notify_checkpoint_complete(running.reader.snapshot())
    with caplog.at_level(logging.WARNING):
        running.wait_until(lambda _: "another application has joined it" in caplog.text)
    member.close()


def test_the_strategy_of_the_starting_offsets_is_the_default_for_resets(builder: Builder) -> None:
    source = builder("t").set_starting_offsets(KafkaOffsetsInitializer.timestamp(1)).build()
    assert source.reset_strategy is KafkaOffsetResetStrategy.LATEST
