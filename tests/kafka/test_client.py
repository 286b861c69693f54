"""The client protocol, on every implementation of it."""

from __future__ import annotations

import logging
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping

import pytest
from confluent_kafka import Consumer as AnyConsumer
from confluent_kafka import Producer as AnyProducer
from confluent_kafka.admin import AdminClient, NewPartitions
from tests.processes import wait_until

from headrace.broker import DevBroker
from headrace.kafka.client.protocol import (
    Admin,
    Client,
    ClientError,
    ClientFailed,
    Consumer,
    EndOfPartition,
    Event,
    Failure,
    GroupDescription,
    GroupMember,
    KafkaConsumerRecord,
    KafkaTopicPartition,
    PartitionFailed,
    PartitionReplicas,
    Position,
    Producer,
    ProducerRecord,
    Records,
    TimestampType,
    TopicDescription,
)
from headrace.kafka.properties import CONSUMER_DEFAULTS, PRODUCER_DEFAULTS

TIMEOUT_S = 30.0
NOW_MS = int(time.time() * 1000)


@pytest.fixture
def producer(client: Client, kafka: DevBroker) -> Iterator[Producer]:
    made = client.producer({**PRODUCER_DEFAULTS, "bootstrap.servers": kafka.bootstrap_servers})
    yield made
    made.close()


@pytest.fixture
def consumer(client: Client, kafka: DevBroker) -> Iterator[Consumer]:
    made = client.consumer(reading(kafka))
    yield made
    made.close()


@pytest.fixture
def admin(client: Client, kafka: DevBroker) -> Iterator[Admin]:
    made = client.admin({"bootstrap.servers": kafka.bootstrap_servers}, TIMEOUT_S)
    yield made
    made.close()


@pytest.fixture
def nobody() -> Iterator[str]:
    """An address that refuses connections: a port that is taken, and not listened on."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield f"127.0.0.1:{taken.getsockname()[1]}"


def reading(kafka: DevBroker, **more: str) -> dict[str, str]:
    return {
        **CONSUMER_DEFAULTS,
        "bootstrap.servers": kafka.bootstrap_servers,
        "group.id": "test-client",
        "enable.auto.commit": "false",
        "auto.offset.reset": "error",
        **more,
    }


def consume_until(consumer: Consumer, enough: Callable[[list[Event]], bool], max_records: int = 500) -> list[Event]:
    events: list[Event] = []
    deadline = time.monotonic() + TIMEOUT_S
    while not enough(events):
        assert time.monotonic() < deadline, events
        events += consumer.consume(max_records, 1.0)
    return events


def records(events: list[Event]) -> list[Records]:
    return [event for event in events if isinstance(event, Records)]


def ends(events: list[Event]) -> dict[KafkaTopicPartition, int]:
    return {event.partition: event.offset for event in events if isinstance(event, EndOfPartition)}


def write(producer: Producer, topic: str, values: list[bytes | None]) -> None:
    producer.produce(topic, values, None, None)
    assert producer.flush(TIMEOUT_S) == 0
    assert producer.take_failures() == []


def test_records_come_in_lists_of_one_partition_each(
    producer: Producer, consumer: Consumer, make_topic: Callable[..., str]
) -> None:
    topics = [make_topic(partitions=2), make_topic(partitions=2)]
    for topic in topics:
        producer.produce(topic, [b"%d" % n for n in range(200)], [b"%d" % n for n in range(200)], [NOW_MS] * 200)
    assert producer.flush(TIMEOUT_S) == 0
    partitions = [KafkaTopicPartition(topic, number) for topic in topics for number in (0, 1)]
    consumer.assign(dict.fromkeys(partitions, 0))
    events = consume_until(consumer, lambda events: len(ends(events)) == 4)
    read: dict[KafkaTopicPartition, list[bytes | None]] = {partition: [] for partition in partitions}
    for batch in records(events):
        assert len(batch.values) == len(batch.timestamps)
        assert set(batch.timestamps) == {NOW_MS}
        assert batch.source.offset(0) == len(read[batch.partition])
        assert batch.source.key(0) == batch.values[0]
        read[batch.partition] += batch.values
        assert batch.next_offset == len(read[batch.partition])
    assert ends(events) == {partition: len(values) for partition, values in read.items()}
    for topic in topics:
        both = [value for number in (0, 1) for value in read[KafkaTopicPartition(topic, number)]]
        assert sorted(both, key=lambda value: int(value or 0)) == [b"%d" % n for n in range(200)]


def test_whole_records_are_written_and_read_with_all_that_they_have(
    client: Client, kafka: DevBroker, producer: Producer, make_topic: Callable[..., str]
) -> None:
    left, right = make_topic(partitions=2), make_topic()
    headers = [("name", b"x"), ("none", None), ("name", b""), ("größe", b"\xff")]
    written: list[ProducerRecord] = [
        (left, b"first", b"", 1, NOW_MS, headers),
        (right, b"other", None, None, NOW_MS + 1, ()),
        (left, None, b"gone", 1, NOW_MS + 2, tuple(headers[2:])),
        (left, b"", None, 1, None, []),
    ]
    producer.produce_records(written)
    assert producer.flush(TIMEOUT_S) == 0
    consumer = client.consumer(reading(kafka), whole_records=True)
    consumer.assign({KafkaTopicPartition(left, 1): 0, KafkaTopicPartition(right, 0): 0})
    events = consume_until(consumer, lambda events: len(ends(events)) == 2)
    read = {
        topic: [r for batch in records(events) for r in batch.values if r.topic == topic] for topic in (left, right)
    }
    consumer.close()
    created = TimestampType.CREATE_TIME
    assert read[right] == [KafkaConsumerRecord(right, 0, 0, NOW_MS + 1, created, None, b"other", [])]
    now = read[left][2].timestamp
    assert abs(now - time.time() * 1000) < 60_000
    assert read[left] == [
        KafkaConsumerRecord(left, 1, 0, NOW_MS, created, b"", b"first", headers),
        KafkaConsumerRecord(left, 1, 1, NOW_MS + 2, created, b"gone", None, headers[2:]),
        KafkaConsumerRecord(left, 1, 2, now, created, None, b"", []),
    ]
    assert {type(record) for each in read.values() for record in each} == {KafkaConsumerRecord}


def test_a_whole_record_that_is_refused_says_which_it_was(client: Client, producer: Producer) -> None:
    with pytest.raises(ClientError) as raised:
        producer.produce_records([("some-topic", b"x" * 2_000_000, b"key", None, None, [("name", b"x")])])
    failure = raised.value.failure
    assert (failure.name, failure.topic, failure.size_bytes) == ("MSG_SIZE_TOO_LARGE", "some-topic", 2_000_003)


def test_whole_records_wait_for_room(client: Client, kafka: DevBroker, make_topic: Callable[..., str]) -> None:
    topic = make_topic()
    small = {"bootstrap.servers": kafka.bootstrap_servers, "queue.buffering.max.messages": "10", "linger.ms": "0"}
    producer = client.producer({**PRODUCER_DEFAULTS, **small})
    producer.produce_records([(topic, b"%d" % n, None, None, None, [("n", b"%d" % n)]) for n in range(500)])
    assert producer.flush(TIMEOUT_S) == 0
    consumer = client.consumer(reading(kafka), whole_records=True)
    consumer.assign({KafkaTopicPartition(topic, 0): 0})
    events = consume_until(consumer, lambda events: bool(ends(events)))
    found = [(record.value, record.headers) for batch in records(events) for record in batch.values]
    assert found == [(b"%d" % n, [("n", b"%d" % n)]) for n in range(500)]
    consumer.close()
    producer.close()


def test_the_first_record_is_not_kept_waiting_for_more(
    producer: Producer, consumer: Consumer, make_topic: Callable[..., str]
) -> None:
    topic = make_topic()
    consumer.assign({KafkaTopicPartition(topic, 0): 0})
    consume_until(consumer, lambda events: bool(ends(events)))
    write(producer, topic, [b"x"])
    begun = time.monotonic()
    events = consumer.consume(500, TIMEOUT_S)
    assert [list(batch.values) for batch in records(events)] == [[b"x"]]
    assert time.monotonic() - begun < TIMEOUT_S / 3


def test_no_more_records_come_than_asked_for(
    producer: Producer, consumer: Consumer, make_topic: Callable[..., str]
) -> None:
    topic = make_topic()
    write(producer, topic, [b"%d" % n for n in range(100)])
    consumer.assign({KafkaTopicPartition(topic, 0): 30})
    events = consume_until(consumer, lambda events: bool(ends(events)), max_records=7)
    assert max(len(batch.values) for batch in records(events)) <= 7
    assert [v for batch in records(events) for v in batch.values] == [b"%d" % n for n in range(30, 100)]


def test_a_position_that_the_log_does_not_hold_is_a_value_and_moves_nothing(
    producer: Producer, consumer: Consumer, make_topic: Callable[..., str]
) -> None:
    topic = make_topic()
    write(producer, topic, [b"x"])
    partition = KafkaTopicPartition(topic, 0)
    consumer.assign({partition: 7})
    events = consume_until(consumer, lambda events: any(isinstance(e, PartitionFailed) for e in events))
    assert records(events) == []
    failed = next(event for event in events if isinstance(event, PartitionFailed))
    assert (failed.partition, failed.failure.name) == (partition, "_AUTO_OFFSET_RESET")


def test_an_unassigned_partition_gives_nothing_more(
    producer: Producer, consumer: Consumer, make_topic: Callable[..., str]
) -> None:
    topic = make_topic(partitions=2)
    # Enough that the end of neither comes with the first record.
    for number in (0, 1):
        producer.produce(topic, [b"x"] * 200, partitions=[number] * 200)
    assert producer.flush(TIMEOUT_S) == 0
    consumer.assign({KafkaTopicPartition(topic, number): 0 for number in (0, 1)})
    consume_until(consumer, lambda events: bool(records(events)), max_records=1)
    consumer.unassign([KafkaTopicPartition(topic, 0)])
    events = consume_until(consumer, lambda events: KafkaTopicPartition(topic, 1) in ends(events))
    assert {batch.partition.partition for batch in records(events)} <= {1}


def test_the_end_of_a_transactional_topic_is_behind_its_control_record(
    client: Client, kafka: DevBroker, consumer: Consumer, make_topic: Callable[..., str]
) -> None:
    topic = make_topic()
    settings = {
        **PRODUCER_DEFAULTS,
        "bootstrap.servers": kafka.bootstrap_servers,
        "transactional.id": topic,
        "transaction.timeout.ms": "120000",
    }
    producer = client.producer(settings)
    producer.init_transactions(TIMEOUT_S)
    producer.begin_transaction()
    producer.produce(topic, [b"a", b"b"], None, None)
    producer.commit_transaction(TIMEOUT_S)
    producer.close()
    partition = KafkaTopicPartition(topic, 0)
    consumer.assign({partition: 0})
    events = consume_until(consumer, lambda events: bool(ends(events)))
    assert records(events)[-1].next_offset == 2
    assert ends(events) == {partition: 3}
    assert consumer.end_seen(partition) == 3


def test_a_full_queue_is_waited_for_and_drops_nothing(
    client: Client, kafka: DevBroker, admin: Admin, make_topic: Callable[..., str]
) -> None:
    topic = make_topic()
    settings = {**PRODUCER_DEFAULTS, "bootstrap.servers": kafka.bootstrap_servers, "queue.buffering.max.messages": "10"}
    producer = client.producer(settings)
    producer.produce(topic, [b"%d" % n for n in range(1000)], None, [NOW_MS] * 1000)
    assert producer.flush(TIMEOUT_S) == 0
    producer.close()
    partition = KafkaTopicPartition(topic, 0)
    assert admin.list_offsets([partition], Position.LATEST) == {partition: 1000}


def test_keys_choose_the_partition_as_in_java(
    producer: Producer, consumer: Consumer, make_topic: Callable[..., str]
) -> None:
    topic = make_topic(partitions=7)
    hashes = {b"21": -973932308, b"foobar": -790332482, b"a-little-bit-long-string": -985981536, b"abc": 479470107}
    producer.produce(topic, list(hashes), list(hashes), None)
    assert producer.flush(TIMEOUT_S) == 0
    consumer.assign({KafkaTopicPartition(topic, number): 0 for number in range(7)})
    events = consume_until(consumer, lambda events: len(ends(events)) == 7)
    found = {value: batch.partition.partition for batch in records(events) for value in batch.values}
    assert found == {key: (value & 0x7FFFFFFF) % 7 for key, value in hashes.items()}


def test_a_record_over_the_clients_limit_is_refused_with_its_size(
    producer: Producer, make_topic: Callable[..., str]
) -> None:
    topic = make_topic()
    with pytest.raises(ClientError) as raised:
        producer.produce(topic, [b"x" * 2_000_000], None, None)
    failure = raised.value.failure
    assert (failure.name, failure.topic, failure.size_bytes) == ("MSG_SIZE_TOO_LARGE", topic, 2_000_000)


def test_a_failed_delivery_is_heard_of_once_with_its_size(producer: Producer, make_topic: Callable[..., str]) -> None:
    topic = make_topic(**{"max.message.bytes": "1000"})
    producer.produce(topic, [b"x" * 2_000], None, None)
    assert producer.flush(TIMEOUT_S) == 0
    (failure,) = producer.take_failures()
    assert (failure.name, failure.topic, failure.size_bytes) == ("MSG_SIZE_TOO_LARGE", topic, 2_000)
    assert producer.take_failures() == []


def test_the_clients_log_and_statistics_come_to_the_log(
    client: Client, kafka: DevBroker, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "headrace.kafka.client")
    consumer = client.consumer(reading(kafka, **{"statistics.interval.ms": "50", "debug": "broker"}))
    deadline = time.monotonic() + TIMEOUT_S
    while not any(text.startswith("statistics {") for text in caplog.messages):
        assert time.monotonic() < deadline
        consumer.consume(1, 0.1)
    consumer.close()
    assert any("Broker changed state" in text for text in caplog.messages)


def test_what_was_fatal_is_named_by_every_call_that_follows(
    client: Client, kafka: DevBroker, make_topic: Callable[..., str]
) -> None:
    topic = make_topic()
    settings = {**PRODUCER_DEFAULTS, "bootstrap.servers": kafka.bootstrap_servers, "transactional.id": topic}
    settings |= {"transaction.timeout.ms": "60000", "delivery.timeout.ms": "30000"}
    older, newer = client.producer(settings), client.producer(settings)
    older.init_transactions(TIMEOUT_S)
    older.begin_transaction()
    older.produce(topic, [b"x"])
    assert older.flush(TIMEOUT_S) == 0
    newer.init_transactions(TIMEOUT_S)
    with pytest.raises(ClientError) as raised:
        older.commit_transaction(TIMEOUT_S)
    assert (raised.value.failure.name, raised.value.failure.is_fatal) == ("_FENCED", True)
    with pytest.raises(ClientError) as raised:
        older.produce(topic, [b"y"])
    assert raised.value.failure.is_fatal
    assert raised.value.failure.name in ("_FENCED", "INVALID_PRODUCER_EPOCH")
    for producer in (older, newer):
        producer.close()


def test_a_paused_partition_gives_nothing_until_it_is_resumed(
    producer: Producer, consumer: Consumer, make_topic: Callable[..., str]
) -> None:
    topic = make_topic(partitions=2)
    first, second = KafkaTopicPartition(topic, 0), KafkaTopicPartition(topic, 1)
    consumer.assign({first: 0, second: 0})
    consume_until(consumer, lambda events: len(ends(events)) == 2)
    consumer.pause([first])
    for number in (0, 1):
        producer.produce(topic, [b"x"] * 10, partitions=[number] * 10)
    assert producer.flush(TIMEOUT_S) == 0
    events = consume_until(consumer, lambda events: ends(events).get(second) == 10)
    assert {batch.partition for batch in records(events)} == {second}
    consumer.resume([first])
    events = consume_until(consumer, lambda events: ends(events).get(first) == 10)
    assert sum(len(batch.values) for batch in records(events)) == 10


def test_a_consumer_goes_on_where_it_is_sent(
    producer: Producer, consumer: Consumer, make_topic: Callable[..., str]
) -> None:
    topic = make_topic()
    partition = KafkaTopicPartition(topic, 0)
    write(producer, topic, [b"%d" % n for n in range(100)])
    consumer.assign({partition: 0})
    consume_until(consumer, lambda events: bool(records(events)), max_records=5)
    consumer.seek({partition: 90}, TIMEOUT_S)
    events = consume_until(consumer, lambda events: bool(ends(events)))
    read = [value for batch in records(events) for value in batch.values]
    assert read[-10:] == [b"%d" % n for n in range(90, 100)]
    consumer.seek({partition: 95}, TIMEOUT_S)
    events = consume_until(consumer, lambda events: bool(ends(events)))
    assert [value for batch in records(events) for value in batch.values] == [b"%d" % n for n in range(95, 100)]


def test_topics_and_offsets_are_described(
    admin: Admin, producer: Producer, make_topic: Callable[..., str], topic_name: Callable[[str], str]
) -> None:
    topic, missing = make_topic(partitions=3), topic_name("missing")
    described = admin.describe_topics([topic, missing])
    found, absent = described[topic], described[missing]
    assert isinstance(found, TopicDescription)
    assert found.topic_id
    assert found.partitions == (0, 1, 2)
    assert isinstance(absent, Failure)
    assert absent.name == "UNKNOWN_TOPIC_OR_PART"
    assert topic in admin.topic_names()
    producer.produce(topic, [b"x"] * 3, [b"abc"] * 3, [NOW_MS, NOW_MS + 10, NOW_MS + 20])
    producer.flush(TIMEOUT_S)
    partition = KafkaTopicPartition(topic, 479470107 % 3)
    assert admin.list_offsets([partition], Position.EARLIEST) == {partition: 0}
    assert admin.list_offsets([partition], Position.LATEST) == {partition: 3}
    assert admin.list_offsets([partition], NOW_MS + 5) == {partition: 1}
    assert admin.list_offsets([partition], NOW_MS + 21) == {partition: None}
    assert admin.committed(topic, [partition], stable=True) == {partition: None}
    assert int(admin.broker_setting("transaction.max.timeout.ms") or 0) >= 900_000


def test_the_admin_describes_cluster_groups_settings_and_times(
    client: Client, kafka: DevBroker, admin: Admin, make_topic: Callable[..., str], topic_name: Callable[[str], str]
) -> None:
    topic, missing, group = make_topic(**{"retention.ms": "1234000"}), topic_name("missing"), topic_name("group")
    partition = KafkaTopicPartition(topic, 0)
    cluster = admin.describe_cluster()
    assert cluster.cluster_id == admin.cluster_id()
    assert cluster.brokers == (1,)
    assert cluster.operations is not None
    assert "IDEMPOTENT_WRITE" in cluster.operations
    described = admin.describe_topics([topic])[topic]
    assert isinstance(described, TopicDescription)
    assert described.replicas == {0: PartitionReplicas(1, (1,), (1,))}

    settings = admin.describe_configs([topic, missing])
    assert isinstance(settings[missing], Failure)
    found = settings[topic]
    assert isinstance(found, Mapping)
    assert (found["retention.ms"], found["cleanup.policy"]) == ("1234000", "delete")
    broker = admin.broker_settings()
    assert isinstance(broker, Mapping)
    assert broker["auto.create.topics.enable"] == "false"

    assert admin.newest_times([partition]) == {partition: None}
    writer = AnyProducer({"bootstrap.servers": kafka.bootstrap_servers})
    for time_ms in (NOW_MS, NOW_MS - 7):
        writer.produce(topic, b"x", timestamp=time_ms)
        assert writer.flush(TIMEOUT_S) == 0
    assert admin.newest_times([partition]) == {partition: NOW_MS}

    assert admin.describe_groups([group])[group] == GroupDescription("DEAD", ())
    reader = AnyConsumer({"bootstrap.servers": kafka.bootstrap_servers, "group.id": group, "client.id": "somebody"})
    reader.subscribe([topic])
    deadline = time.monotonic() + TIMEOUT_S
    while not reader.assignment():
        assert time.monotonic() < deadline
        reader.poll(0.1)
    member = GroupMember("somebody", "127.0.0.1", (partition,))
    assert admin.describe_groups([group])[group] == GroupDescription("STABLE", (member,))
    reader.close()


def test_a_group_that_is_found_when_nobody_waits_for_it_any_more_harms_nothing(
    client: Client, other_kafka: DevBroker, topic_name: Callable[[str], str]
) -> None:
    group = topic_name("group")
    admin = client.admin({"bootstrap.servers": other_kafka.bootstrap_servers}, 0.5)
    admin.cluster_id()
    other_kafka.pause()
    try:
        with pytest.raises(ClientError, match=r"no answer within 0\.5 s"):
            admin.group_operations(group)
    finally:
        other_kafka.resume()

    def answered() -> bool:
        try:
            return admin.group_operations(group) is not None
        except ClientError:
            return False

    wait_until(answered, "the coordinator is known")
    admin.close()


def test_a_group_is_asked_about_again_until_its_coordinator_is_there(
    client: Client, other_kafka: DevBroker, topic_name: Callable[[str], str]
) -> None:
    admin = client.admin({"bootstrap.servers": other_kafka.bootstrap_servers}, TIMEOUT_S)
    admin.cluster_id()
    other_kafka.pause()
    # Later than it is asked for the second time.
    threading.Timer(2.5, other_kafka.resume).start()
    assert admin.group_operations(topic_name("group")) == {"READ", "DELETE", "DESCRIBE"}
    admin.close()


def test_brokers_that_are_not_there_are_told_of_in_time_with_the_cause(client: Client, nobody: str) -> None:
    admin = client.admin({"bootstrap.servers": nobody}, 2.0)
    begun = time.monotonic()
    with pytest.raises(ClientError) as raised:
        admin.cluster_id()
    assert time.monotonic() - begun < 10
    cause = raised.value.failure.cause
    assert cause is not None
    assert "refused" in cause.text
    admin.close()


def test_a_consumer_without_brokers_hears_the_cause_while_it_waits(client: Client, nobody: str) -> None:
    consumer = client.consumer({"bootstrap.servers": nobody, "group.id": "g"})
    consumer.assign({KafkaTopicPartition("t", 0): 0})
    events = consume_until(consumer, lambda events: any(isinstance(event, ClientFailed) for event in events))
    assert "_TRANSPORT" in {event.failure.name for event in events if isinstance(event, ClientFailed)}
    consumer.close()


def test_a_producer_that_has_delivered_nothing_fails_with_its_connection_at_once(client: Client) -> None:
    producer = client.producer({"bootstrap.servers": "nobody.invalid:9092"})
    producer.produce("t", [b"x"])
    with pytest.raises(ClientError) as raised:
        producer.flush(TIMEOUT_S)
    assert raised.value.failure.name == "_RESOLVE"
    assert producer.take_failures() == []
    producer.close()


def test_a_producer_knows_the_partitions_it_has_asked_for(
    client: Client, kafka: DevBroker, producer: Producer, make_topic: Callable[..., str]
) -> None:
    topic = make_topic(2)
    write(producer, topic, [b"x"])
    assert producer.partitions(topic, TIMEOUT_S) == (0, 1)
    admin = AdminClient({"bootstrap.servers": kafka.bootstrap_servers})
    for future in admin.create_partitions([NewPartitions(topic, 3)]).values():
        future.result(TIMEOUT_S)
    deadline = time.monotonic() + TIMEOUT_S
    while producer.partitions(topic, TIMEOUT_S) != (0, 1, 2):
        assert time.monotonic() < deadline
    # Without having asked it would refuse the last one.
    producer.produce(topic, [b"y"], partitions=[2])
    assert producer.flush(TIMEOUT_S) == 0
    assert producer.take_failures() == []


def test_the_partitions_of_a_topic_that_is_not_there_are_an_error(
    client: Client, kafka: DevBroker, make_topic: Callable[..., str]
) -> None:
    settings = {**PRODUCER_DEFAULTS, "bootstrap.servers": kafka.bootstrap_servers, "allow.auto.create.topics": "false"}
    producer = client.producer(settings)
    with pytest.raises(ClientError, match="UNKNOWN_TOPIC"):
        producer.partitions("not-a-topic-of-anybody", TIMEOUT_S)
    producer.close()
