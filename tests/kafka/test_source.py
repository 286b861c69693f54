"""KafkaSource on real Kafka: where it starts and stops, what it keeps, and what it says when records are gone."""

from __future__ import annotations

import json
import logging
import socket
import time
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from contextlib import ExitStack
from dataclasses import replace
from typing import Any

import pytest
from confluent_kafka import Consumer, ConsumerGroupTopicPartitions, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewPartitions
from tests.groups import committed_by

from headrace.broker import DevBroker
from headrace.connector import SourceContext, SourceReader, Split
from headrace.errors import ConfigError, ExternalError, StateError, UserCodeError
from headrace.kafka import (
    KafkaOffsetResetStrategy,
    KafkaOffsetsInitializer,
    KafkaSource,
    KafkaSubscriber,
    KafkaTopicPartition,
    OffsetsInitializer,
    PartitionOffsetsRetriever,
)
from headrace.kafka.client.protocol import Admin, TopicDescription
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


@pytest.mark.parametrize("isolation", ["read_uncommitted", "read_committed"])
def test_aborted_records_are_for_uncommitted_readers_only_and_end_a_bounded_read_all_the_same(
    run: Run, builder: Builder, make_topic: Make, kafka: DevBroker, isolation: str
) -> None:
    topic = make_topic()
    producer = Producer({"bootstrap.servers": kafka.bootstrap_servers, "transactional.id": topic, "log_level": 2})
    producer.init_transactions(TIMEOUT_S)
    for value, ends in ((b"kept", producer.commit_transaction), (b"dropped", producer.abort_transaction)):
        producer.begin_transaction()
        producer.produce(topic, value)
        producer.flush(TIMEOUT_S)
        ends(TIMEOUT_S)
    running = run(builder(topic).set_bounded(LATEST).set_property("isolation.level", isolation).build())
    assert running.read_to_end() == ([b"kept"] if isolation == "read_committed" else [b"kept", b"dropped"])
    assert running.positions() == [4]


def test_a_bounded_committed_read_waits_for_transactions_that_were_open_at_its_start(
    run: Run, builder: Builder, make_topic: Make, kafka: DevBroker
) -> None:
    topic = make_topic()
    producer = Producer({"bootstrap.servers": kafka.bootstrap_servers, "transactional.id": topic, "log_level": 2})
    producer.init_transactions(TIMEOUT_S)
    producer.begin_transaction()
    producer.produce(topic, b"open")
    producer.flush(TIMEOUT_S)
    running = run(builder(topic).set_bounded(LATEST).set_property("isolation.level", "read_committed").build())
    assert running.splits[0].stop == 1
    assert running.reader is not None
    running.wait_until(lambda reader: reader.is_caught_up(running.splits[0].split_id))
    assert not running.reader.is_finished(running.splits[0].split_id)
    producer.commit_transaction(TIMEOUT_S)
    assert running.read_to_end() == [b"open"]


def test_a_stop_offset_whose_records_were_compacted_away_ends_the_read(
    run: Run, builder: Builder, make_topic: Make, kafka: DevBroker, other_kafka: DevBroker
) -> None:
    servers, topic = other_kafka.bootstrap_servers, make_topic()
    config = {"cleanup.policy": "compact", "segment.ms": "100", "min.cleanable.dirty.ratio": "0.001"}
    create_topics(servers, {topic: 1}, config=config)
    # A record each time, so that segments end; all but the last ones of a key are removed sooner or later.
    offsets: list[int] = []
    producer = Producer({"bootstrap.servers": servers, "log_level": 2})
    consumer = Consumer({"bootstrap.servers": servers, "group.id": topic, "enable.partition.eof": True})
    deadline = time.monotonic() + 3 * TIMEOUT_S
    while not offsets or offsets[0] < 8:
        assert time.monotonic() < deadline, offsets
        producer.produce(topic, b"value", key=b"key")
        assert producer.flush(TIMEOUT_S) == 0
        consumer.assign([TopicPartition(topic, 0, 0)])
        message = consumer.poll(TIMEOUT_S)
        offsets = [] if message is None or message.error() else [message.offset() or 0]
    consumer.close()
    at = KafkaTopicPartition(topic, 0)
    made = builder(topic).set_bootstrap_servers(servers).set_bounded(KafkaOffsetsInitializer.offsets({at: 5}))
    running = run(made.build())
    assert running.splits[0].position == 0
    assert running.read_to_end() == []
    assert running.positions() == [5]


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


def test_an_offset_may_be_a_place_of_the_log_as_in_flink(
    run: Run, builder: Builder, write: Write, make_topic: Make, admin: AdminClient
) -> None:
    topic = make_topic(partitions=3)
    for partition in range(3):
        write(topic, *numbers(0, 10), partition=partition)
    group = [ConsumerGroupTopicPartitions(topic, [TopicPartition(topic, 2, 4)])]
    admin.alter_consumer_group_offsets(group)[topic].result(TIMEOUT_S)
    places = {KafkaTopicPartition(topic, partition): offset for partition, offset in enumerate((-1, -2, -3))}
    source = builder(topic).set_group_id(topic).set_starting_offsets(KafkaOffsetsInitializer.offsets(places)).build()
    assert [split.position for split in run(source).splits] == [10, 0, 4]


class Tail(OffsetsInitializer):
    """Two records before the end; before the committed offset where there is one."""

    def get_partition_offsets(
        self, partitions: Sequence[KafkaTopicPartition], partition_offsets_retriever: PartitionOffsetsRetriever
    ) -> Mapping[KafkaTopicPartition, int]:
        ask = partition_offsets_retriever
        places = {**ask.end_offsets(partitions), **ask.committed_offsets(partitions)}
        starts = ask.beginning_offsets(partitions)
        return {partition: max(place - 2, starts[partition]) for partition, place in places.items()}


class Since(OffsetsInitializer):
    """The first record at a time."""

    def __init__(self, time_ms: int) -> None:
        self.time_ms = time_ms

    def get_partition_offsets(
        self, partitions: Sequence[KafkaTopicPartition], partition_offsets_retriever: PartitionOffsetsRetriever
    ) -> Mapping[KafkaTopicPartition, int]:
        return partition_offsets_retriever.offsets_for_times(dict.fromkeys(partitions, self.time_ms))

    def get_auto_offset_reset_strategy(self) -> KafkaOffsetResetStrategy:
        return KafkaOffsetResetStrategy.NONE


def test_an_initializer_of_the_programs_own_asks_the_cluster_and_decides(
    run: Run, builder: Builder, write: Write, make_topic: Make, admin: AdminClient
) -> None:
    topic, now_ms = make_topic(partitions=2), int(time.time() * 1000)
    for number in range(10):
        write(topic, b"%d" % number, at_ms=now_ms + number)
    group = [ConsumerGroupTopicPartitions(topic, [TopicPartition(topic, 0, 7)])]
    admin.alter_consumer_group_offsets(group)[topic].result(TIMEOUT_S)
    made = builder(topic).set_group_id(topic).set_starting_offsets(Tail()).set_bounded(Since(now_ms + 8))
    running = run(made.build())
    # What it says nothing of has no end; the second partition holds no record at that time.
    assert [(split.position, split.stop) for split in running.splits] == [(5, 8), (0, None)]
    assert running.read(3) == numbers(5, 8)
    assert builder(topic).set_starting_offsets(Since(0)).build().reset_strategy is KafkaOffsetResetStrategy.NONE


def test_an_initializer_of_the_programs_own_that_fails_or_leaves_a_partition_out_is_named(
    run: Run, builder: Builder, make_topic: Make
) -> None:
    class Failing(Since):
        def get_partition_offsets(self, *_: object) -> Mapping[KafkaTopicPartition, int]:
            raise ValueError("no idea")

    topic = make_topic()
    with pytest.raises(ConfigError, match=f"`Since.get_partition_offsets` .* gave none for {topic}-0"):
        run(builder(topic).set_starting_offsets(Since(0)).build())
    with pytest.raises(UserCodeError, match=r"`Failing\.get_partition_offsets` failed with ValueError: no idea"):
        run(builder(topic).set_starting_offsets(Failing(0)).build())
    with pytest.raises(ConfigError, match="committed offsets need a group"):
        run(builder(topic).set_starting_offsets(Tail()).build())


def test_each_kind_of_stop_offsets_finds_its_end(
    run: Run, builder: Builder, write: Write, make_topic: Make, admin: AdminClient
) -> None:
    topic, now_ms = make_topic(), int(time.time() * 1000)
    for number in range(10):
        write(topic, b"%d" % number, at_ms=now_ms + number)
    group = [ConsumerGroupTopicPartitions(topic, [TopicPartition(topic, 0, 4)])]
    admin.alter_consumer_group_offsets(group)[topic].result(TIMEOUT_S)
    at = KafkaTopicPartition(topic, 0)
    initializers = {
        KafkaOffsetsInitializer.latest(): 10,
        KafkaOffsetsInitializer.committed_offsets(): 4,
        KafkaOffsetsInitializer.timestamp(now_ms + 6): 6,
        KafkaOffsetsInitializer.timestamp(now_ms + 100): 10,
        KafkaOffsetsInitializer.offsets({at: 7}): 7,
        KafkaOffsetsInitializer.offsets({at: -1}): 10,
        # Of a partition that is not named nothing is read, as its beginning is where it stops.
        KafkaOffsetsInitializer.offsets({KafkaTopicPartition("other", 0): 7}): 4,
    }
    for initializer, stop in initializers.items():
        running = run(builder(topic).set_group_id(topic).set_bounded(initializer).build())
        assert running.read_to_end() == numbers(0, stop), initializer


def test_a_partition_that_starts_at_its_end_or_behind_it_is_finished_at_once(
    run: Run, builder: Builder, write: Write, make_topic: Make
) -> None:
    topic = make_topic()
    write(topic, *numbers(0, 10))
    at = KafkaTopicPartition(topic, 0)
    for start in (5, 8):
        made = builder(topic).set_starting_offsets(KafkaOffsetsInitializer.offsets({at: start}))
        running = run(made.set_bounded(KafkaOffsetsInitializer.offsets({at: 5})).build())
        assert running.reader is not None
        assert running.reader.is_finished(running.splits[0].split_id)
        assert running.positions() == [start]


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


def discovered(running: Running) -> list[tuple[str, int, int]]:
    """Topic, partition and position of what the next discovery that finds anything finds."""
    deadline = time.monotonic() + TIMEOUT_S
    while True:
        assert time.monotonic() < deadline
        try:
            found = running.enumerator.discover()
        except ExternalError as error:
            # A topic that is so young that nobody leads it yet.
            if not error.retriable:
                raise
            continue
        if found:
            return [(s.partition.topic, s.partition.partition, s.position) for s in found if isinstance(s, KafkaSplit)]


def test_the_starting_offsets_are_for_the_first_partitions_that_are_found_and_later_ones_start_at_their_first_record(
    run: Run, builder: Builder, write: Write, kafka: DevBroker, topic_name: Callable[[str], str]
) -> None:
    hint = topic_name("p")
    source = builder().set_topic_pattern(f"{hint}.*").set_starting_offsets(LATEST).build()
    running = run(source)
    assert running.splits == []
    for topic, position in ((f"{hint}-a", 3), (f"{hint}-b", 0)):
        create_topics(kafka.bootstrap_servers, {topic: 1})
        write(topic, *numbers(0, 3))
        assert discovered(running) == [(topic, 0, position)]
    # A start that goes on from a checkpoint without any: `latest` may have been found, and be behind what was read.
    assert {split.position for split in run(source, []).splits} == {0}


def test_a_subscriber_of_the_programs_own_decides_which_partitions_are_read(
    run: Run, builder: Builder, write: Write, make_topic: Make, admin: AdminClient, caplog: pytest.LogCaptureFixture
) -> None:
    class Even(KafkaSubscriber):
        def get_subscribed_topic_partitions(self, admin_client: Admin) -> Set[KafkaTopicPartition]:
            assert topic in admin_client.topic_names()
            (described,) = admin_client.describe_topics([topic]).values()
            assert isinstance(described, TopicDescription)
            return {KafkaTopicPartition(topic, number) for number in described.partitions if number % 2 == 0}

    topic = make_topic(partitions=2)
    source = builder().set_kafka_subscriber(Even()).set_starting_offsets(LATEST).build()
    write(topic, b"before")
    running = run(source)
    assert [(split.partition.partition, split.position) for split in running.splits] == [(0, 1)]
    assert running.enumerator.discovery_interval_ms == 300_000
    admin.create_partitions([NewPartitions(topic, 4)])[topic].result(TIMEOUT_S)
    assert discovered(running) == [(topic, 2, 0)]
    odd = KafkaSplit(KafkaTopicPartition(topic, 1), 0)
    with caplog.at_level(logging.WARNING, "headrace"):
        run(source, [*running.splits, odd])
    (warning,) = caplog.messages
    assert f"no longer subscribes to {topic}-1, but" in warning


def test_a_subscriber_of_the_programs_own_that_fails_is_named(run: Run, builder: Builder, make_topic: Make) -> None:
    class Given(KafkaSubscriber):
        def __init__(self, partitions: Any) -> None:
            self.partitions = partitions

        def get_subscribed_topic_partitions(self, admin_client: Admin) -> Set[KafkaTopicPartition]:
            return set(self.partitions)

    with pytest.raises(UserCodeError, match=r"`Given\.get_subscribed_topic_partitions` failed with TypeError"):
        run(builder().set_kafka_subscriber(Given(5)).build())
    with pytest.raises(ConfigError, match="set of KafkaTopicPartition, and 'a' is in it"):
        run(builder().set_kafka_subscriber(Given("a")).build())
    topic = make_topic()
    with pytest.raises(ExternalError, match=f"no partition {topic}-1"):
        run(builder().set_kafka_subscriber(Given([KafkaTopicPartition(topic, 1)])).build())


@pytest.mark.parametrize("is_pattern", [True, False])
def test_a_topic_that_is_deleted_while_it_is_read_is_told_of_and_ends_nothing(
    run: Run,
    builder: Builder,
    write: Write,
    make_topic: Make,
    admin: AdminClient,
    topic_name: Callable[[str], str],
    caplog: pytest.LogCaptureFixture,
    is_pattern: bool,
) -> None:
    hint = topic_name("p")
    stays, goes = make_topic(hint=f"{hint}-a"), make_topic(hint=f"{hint}-b")
    write(goes, b"first")
    running = run((builder().set_topic_pattern(f"{hint}.*") if is_pattern else builder(stays, goes)).build())
    assert running.read(1) == [b"first"]
    admin.delete_topics([goes])[goes].result(TIMEOUT_S)
    with caplog.at_level(logging.WARNING, "headrace"):
        deadline = time.monotonic() + TIMEOUT_S
        while not caplog.messages:
            assert time.monotonic() < deadline
            assert running.enumerator.discover() == []
        assert running.enumerator.discover() == []
    assert [f"{goes!r} is not there any more" in message for message in caplog.messages] == [True]
    write(stays, *numbers(0, 10))
    assert running.read(10) == numbers(0, 10)
    assert len(running.positions()) == 2
    if is_pattern:
        # Nor does it end the next start; a topic that is named does.
        again = run(builder().set_topic_pattern(f"{hint}.*").build(), restored=running.reader.snapshot())
        write(stays, b"more")
        assert again.read(1) == [b"more"]
        assert len(again.positions()) == 2


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


@pytest.mark.parametrize("strategy", ["latest", "none"])
def test_the_reset_strategy_decides_about_records_that_go_while_reading(
    run: Run,
    builder: Builder,
    write: Write,
    make_topic: Make,
    admin: AdminClient,
    caplog: pytest.LogCaptureFixture,
    strategy: str,
) -> None:
    topic = make_topic()
    write(topic, *numbers(0, 10))
    running = run(builder(topic).set_bounded(LATEST).build())
    running.close()
    trim(admin, topic, 8)
    reader = builder(topic).set_property("auto.offset.reset", strategy).build().create_reader(CONTEXT)
    running.reader = reader
    reader.add_splits([replace(running.splits[0], position=3, stop=None, is_start=False)])
    text = f"offsets 3 to 7 of {topic}-0 are gone"
    with caplog.at_level(logging.WARNING, "headrace"):
        if strategy == "none":
            with pytest.raises(ExternalError, match=f"{text}.*`auto.offset.reset`"):
                running.wait_until(lambda _: False)
        else:
            running.wait_until(lambda _: running.positions() == [10])
            assert f"{text} (its log now holds 8 to 9): 5 records were not read; going on at its end" in caplog.text


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


def test_offsets_are_committed_when_a_checkpoint_is_complete(
    run: Run, builder: Builder, write: Write, make_topic: Make, kafka: DevBroker
) -> None:
    topic = make_topic()
    write(topic, *numbers(0, 10))
    running = run(builder(topic).set_group_id(topic).build())
    running.read(4)
    assert running.reader is not None
    snapshot = running.reader.snapshot()
    running.read(6)
    assert committed_by(kafka.bootstrap_servers, topic, topic).offset < 0
    running.reader.notify_checkpoint_complete(snapshot)
    running.close()
    assert committed_by(kafka.bootstrap_servers, topic, topic).offset == 4


def test_behind_the_records_of_a_transaction_the_offset_that_is_committed_is_behind_its_marker_too(
    run: Run, builder: Builder, write: Write, make_topic: Make, kafka: DevBroker
) -> None:
    topic = make_topic()
    write(topic, b"a", b"b", transactional=True)
    running = run(builder(topic).set_group_id(topic).build())
    assert running.read(2) == [b"a", b"b"]
    running.wait_until(lambda reader: reader.is_caught_up(running.splits[0].split_id))
    assert running.reader is not None
    running.reader.notify_checkpoint_complete(running.reader.snapshot())
    running.close()
    assert committed_by(kafka.bootstrap_servers, topic, topic).offset == 3


def test_restored_positions_win_over_committed_offsets(
    run: Run, builder: Builder, write: Write, make_topic: Make, admin: AdminClient
) -> None:
    topic = make_topic()
    write(topic, *numbers(0, 10))
    group = [ConsumerGroupTopicPartitions(topic, [TopicPartition(topic, 0, 8)])]
    admin.alter_consumer_group_offsets(group)[topic].result(TIMEOUT_S)
    made = builder(topic).set_group_id(topic).set_starting_offsets(KafkaOffsetsInitializer.committed_offsets())
    source = made.set_bounded(LATEST).build()
    fresh = run(source)
    assert fresh.read_to_end() == numbers(8, 10)
    assert run(source, [replace(fresh.splits[0], position=3)]).read_to_end() == numbers(3, 10)


def test_with_auto_commit_offsets_are_committed_also_without_checkpoints(
    run: Run, builder: Builder, write: Write, make_topic: Make, kafka: DevBroker
) -> None:
    topic = make_topic()
    write(topic, *numbers(0, 10))
    running = run(builder(topic).set_group_id(topic).set_property("enable.auto.commit", "true").build())
    running.read(10)
    running.close()
    assert committed_by(kafka.bootstrap_servers, topic, topic).offset == 10


def test_without_checkpoints_or_a_group_nothing_is_committed(
    run: Run, builder: Builder, write: Write, make_topic: Make, kafka: DevBroker
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
    assert committed_by(kafka.bootstrap_servers, topic, topic).offset < 0


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


# --- clients ---------------------------------------------------------------------------------------------------------


def statistics_of(
    running: Running, caplog: pytest.LogCaptureFixture, until: Callable[[Any], bool], work_s: float = 0.0
) -> Any:
    """What the reader's client says of itself (librdkafka's statistics), once it is as it should be. Each record that
    comes meanwhile takes `work_s`."""
    assert running.reader is not None
    deadline = time.monotonic() + TIMEOUT_S
    while True:
        assert time.monotonic() < deadline
        caplog.clear()
        if running.reader.poll(1, 0.1):
            time.sleep(work_s)
        for message in caplog.messages:
            if message.startswith("statistics {") and until(told := json.loads(message.removeprefix("statistics "))):
                return told


def test_clients_are_named_by_the_prefix_and_the_subtask(
    builder: Builder, make_topic: Make, caplog: pytest.LogCaptureFixture
) -> None:
    topic = make_topic()
    caplog.set_level(logging.DEBUG, "headrace.kafka")
    made = builder(topic).set_properties({"statistics.interval.ms": "50", "client.id": "overwritten"})
    for change, name in (
        (lambda: made, "KafkaSource-7"),
        (lambda: made.set_group_id("group"), "group-7"),
        (lambda: made.set_client_id_prefix("reader"), "reader-7"),
    ):
        source = change().build()
        running = Running(source)
        assert running.reader is not None
        running.reader.close()
        running.reader = source.create_reader(replace(CONTEXT, subtask=7))
        assert statistics_of(running, caplog, lambda _: True)["client_id"] == name
        running.close()
        assert source.client_settings("enumerator-admin-client")["client.id"] == f"{name[:-2]}-enumerator-admin-client"


def test_what_is_read_slowly_is_not_fetched_ahead_without_end(
    run: Run, builder: Builder, write: Write, make_topic: Make, caplog: pytest.LogCaptureFixture
) -> None:
    record, count = 10_000, 2_000
    topic = make_topic()
    write(topic, *[b"x" * record] * count)
    caplog.set_level(logging.DEBUG, "headrace.kafka")
    bounds = {"statistics.interval.ms": "50", "queued.max.messages.kbytes": "1024"}
    running = run(builder(topic).set_properties(bounds).build())

    def told_of(told: Any) -> Any:
        return told["topics"].get(topic, {}).get("partitions", {}).get("0", {})

    full = statistics_of(running, caplog, lambda told: told_of(told).get("fetchq_size", 0) > 1_000_000, 0.02)
    later = statistics_of(running, caplog, lambda told: told["ts"] > full["ts"] + 500_000, 0.02)
    # A fetch gives at least one whole batch of the producer's, up to 1 MB.
    assert told_of(later)["fetchq_size"] <= 2_200_000
    assert told_of(later)["rxmsgs"] < count / 4


def test_a_paused_partition_gives_nothing_until_it_is_resumed(
    run: Run, builder: Builder, write: Write, make_topic: Make
) -> None:
    topic = make_topic(partitions=2)
    for partition in range(2):
        write(topic, *numbers(partition * 1000, partition * 1000 + 500), partition=partition)
    running = run(builder(topic).set_bounded(LATEST).build())
    assert running.reader is not None
    first, second = (split.split_id for split in running.splits)
    running.reader.pause_or_resume_splits([second], [])
    assert sorted(running.read(500)) == sorted(numbers(0, 500))
    running.wait_until(lambda reader: reader.is_finished(first))
    # One that is finished is passed over.
    running.reader.pause_or_resume_splits([first], [second])
    assert running.read_to_end() == numbers(1000, 1500)


def test_a_rate_limit_is_kept(run: Run, builder: Builder, write: Write, make_topic: Make) -> None:
    topic = make_topic()
    write(topic, *numbers(0, 1000))
    running = run(builder(topic).set_rate_limit(500).build())
    begun = time.monotonic()
    assert running.read(200) == numbers(0, 200)
    assert time.monotonic() - begun >= 0.39


def test_while_a_record_waits_for_its_permit_other_news_are_heard_and_none_is_lost(
    run: Run, builder: Builder, write: Write, make_topic: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    topic = make_topic(partitions=2)
    write(topic, *numbers(0, 4))
    later_s, clock = [0.0], time.monotonic
    monkeypatch.setattr("headrace.kafka.reader.time.monotonic", lambda: clock() + later_s[0])
    running = run(builder(topic).set_rate_limit(0.001).build())
    assert running.reader is not None
    full, empty = (split.split_id for split in running.splits)
    # The first permit is due in a quarter of an hour.
    running.wait_until(lambda reader: reader.is_caught_up(empty))
    for number in numbers(0, 4):
        running.wait_until(lambda reader: full in {str(partition) for partition in reader._ahead})  # type: ignore[attr-defined]
        assert not running.reader.is_caught_up(full)
        running.reader.pause_or_resume_splits([full], [])
        later_s[0] += 1_000.0
        assert not running.reader.poll(500, 0.1)
        running.reader.pause_or_resume_splits([], [full])
        assert running.read(1) == [number]
    running.wait_until(lambda reader: reader.is_caught_up(full))
    assert running.positions() == [4, 0]
