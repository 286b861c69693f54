"""Whole records, read and written, on real Kafka: keys, headers, places, times, and elements of any number."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Consumer, Message, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewPartitions
from tests.kafka.jobs import TIMEOUT_S, environment
from tests.processes import wait_until

from headrace.broker import DevBroker
from headrace.common import WatermarkStrategy
from headrace.connector import SinkWriter, WriterContext
from headrace.errors import ConfigError, DataError, ExternalError
from headrace.kafka import (
    DeliveryGuarantee,
    KafkaConsumerRecord,
    KafkaOffsetsInitializer,
    KafkaPartitioner,
    KafkaProducerRecord,
    KafkaRecordDeserializationSchema,
    KafkaRecordSerializationSchema,
    KafkaSink,
    KafkaSinkContext,
    KafkaSource,
    TimestampType,
)
from headrace.kafka.client import default_client
from headrace.kafka.client.provision import create_topics

Make = Callable[..., str]
CONTEXT = WriterContext("job", "sink", 0, 1)
NO_WATERMARKS = WatermarkStrategy.no_watermarks()


class Whole(KafkaRecordDeserializationSchema):
    """Records as they are, each as often as its value says."""

    def open(self, context: Any) -> None:
        self.opened_for = context.operator_name

    def deserialize(self, record: KafkaConsumerRecord) -> Iterator[KafkaConsumerRecord] | None:
        assert self.opened_for == "records"
        if record.value == b"none":
            return None
        return iter([record] * (int(record.value) if (record.value or b"").isdigit() else 1))


def whole(servers: str, topic: str, **properties: str) -> KafkaSource:
    builder = KafkaSource.builder().set_bootstrap_servers(servers).set_topics(topic)
    builder.set_bounded(KafkaOffsetsInitializer.latest()).set_properties(properties)
    return builder.set_deserializer(Whole()).build()


def sink(servers: str, schema: KafkaRecordSerializationSchema, **properties: str) -> KafkaSink:
    builder = KafkaSink.builder().set_bootstrap_servers(servers).set_record_serializer(schema)
    builder.set_delivery_guarantee(DeliveryGuarantee.AT_LEAST_ONCE)
    for name, value in properties.items():
        builder.set_property(name.replace("_", "."), value)
    return builder.build()


def write(servers: str, topic: str, records: Sequence[dict[str, Any]]) -> None:
    producer = Producer({"bootstrap.servers": servers})
    for record in records:
        producer.produce(topic, **record)
    assert producer.flush(TIMEOUT_S) == 0


def read(servers: str, topic: str, partitions: int = 1, *, committed_only: bool = True) -> list[Message]:
    """Every record of a topic, partition after partition."""
    level = "read_committed" if committed_only else "read_uncommitted"
    settings = {"bootstrap.servers": servers, "group.id": topic, "enable.partition.eof": True, "log_level": 2}
    consumer = Consumer({**settings, "isolation.level": level})
    messages: list[Message] = []
    for number in range(partitions):
        consumer.assign([TopicPartition(topic, number, 0)])
        while (message := consumer.poll(TIMEOUT_S)) is not None and message.error() is None:
            messages.append(message)
        assert message is not None
    consumer.close()
    return messages


def test_a_record_is_read_with_all_that_it_has(kafka: DevBroker, make_topic: Make) -> None:
    topic = make_topic(2)
    headers = [("a", b"1"), ("a", b""), ("none", None)]
    write(
        kafka.bootstrap_servers,
        topic,
        [
            {"value": b"first", "key": b"k", "partition": 1, "timestamp": 1_700_000_000_123, "headers": headers},
            {"value": None, "key": b"gone", "partition": 1, "timestamp": 1_700_000_000_124},
            {"value": b"none", "partition": 1},
            {"value": b"", "partition": 1, "timestamp": 1_700_000_000_126},
        ],
    )
    env = environment()
    stream = env.from_source(whole(kafka.bootstrap_servers, topic), NO_WATERMARKS, "records")
    created = TimestampType.CREATE_TIME
    assert list(stream.execute_and_collect()) == [
        KafkaConsumerRecord(topic, 1, 0, 1_700_000_000_123, created, b"k", b"first", headers),
        KafkaConsumerRecord(topic, 1, 1, 1_700_000_000_124, created, b"gone", None, []),
        KafkaConsumerRecord(topic, 1, 3, 1_700_000_000_126, created, None, b"", []),
    ]


def test_a_brokers_own_timestamps_are_told_apart(kafka: DevBroker, make_topic: Make) -> None:
    topic = f"{make_topic()}-appended"
    create_topics(kafka.bootstrap_servers, {topic: 1}, config={"message.timestamp.type": "LogAppendTime"})
    write(kafka.bootstrap_servers, topic, [{"value": b"x", "timestamp": 5}])
    stream = environment().from_source(whole(kafka.bootstrap_servers, topic), NO_WATERMARKS, "records")
    (record,) = stream.execute_and_collect()
    assert record.timestamp_type is TimestampType.LOG_APPEND_TIME
    assert record.timestamp > 5


def test_any_number_of_elements_come_of_a_record_and_belong_to_its_checkpoint(
    kafka: DevBroker, make_topic: Make, tmp_path: Path
) -> None:
    topic = make_topic()
    write(kafka.bootstrap_servers, topic, [{"value": b"%d" % (n % 4)} for n in range(2000)])
    done = tmp_path / "done"

    def fail_once(record: KafkaConsumerRecord) -> int:
        if record.offset == 1203 and not done.exists():
            done.touch()
            raise RuntimeError("in the middle of a record's elements")
        return record.offset

    options = {"restart__strategy_type": "fixed-delay", "restart__strategy_fixed__delay_delay": "1 ms"}
    env = environment(tmp_path / "state", execution_checkpointing_interval="10 ms", **options)
    stream = env.from_source(whole(kafka.bootstrap_servers, topic), NO_WATERMARKS, "records").map(fail_once)
    assert list(stream.execute_and_collect()) == [n for n in range(2000) for _ in range(n % 4)]


def test_elements_have_their_records_time_or_what_an_assigner_makes_of_them(kafka: DevBroker, make_topic: Make) -> None:
    topic, plain, assigned = make_topic(), make_topic(), make_topic()
    write(kafka.bootstrap_servers, topic, [{"value": b"2", "timestamp": 1_700_000_000_000 + n} for n in range(3)])
    monotonous = WatermarkStrategy.for_monotonous_timestamps()
    for out, strategy in (
        (plain, NO_WATERMARKS),
        (assigned, monotonous.with_timestamp_assigner(lambda record, at: at + 1000 * (record.offset + 1))),
    ):
        env = environment()
        stream = env.from_source(whole(kafka.bootstrap_servers, topic), strategy, "records")
        schema = KafkaRecordSerializationSchema.builder().set_topic(out)
        schema.set_value_serialization_schema(lambda record: b"%d" % record.offset)
        stream.sink_to(sink(kafka.bootstrap_servers, schema.build()))
        env.execute()
    times = [message.timestamp()[1] - 1_700_000_000_000 for message in read(kafka.bootstrap_servers, plain)]
    assert times == [0, 0, 1, 1, 2, 2]
    times = [message.timestamp()[1] - 1_700_000_000_000 for message in read(kafka.bootstrap_servers, assigned)]
    assert times == [1000, 1000, 2001, 2001, 3002, 3002]


def test_a_record_that_cannot_be_deserialized_is_named(kafka: DevBroker, make_topic: Make) -> None:
    class Strict(KafkaRecordDeserializationSchema):
        def deserialize(self, record: KafkaConsumerRecord) -> Iterator[int]:
            yield int(record.value or b"")

    topic = make_topic()
    write(kafka.bootstrap_servers, topic, [{"value": b"1"}, {"value": b"two"}])
    builder = KafkaSource.builder().set_bootstrap_servers(kafka.bootstrap_servers).set_topics(topic)
    builder.set_bounded(KafkaOffsetsInitializer.latest()).set_deserializer(Strict())
    stream = environment().from_source(builder.build(), NO_WATERMARKS, "strict")
    with pytest.raises(DataError, match=f"`strict` cannot deserialize .* topic {topic}, partition 0, offset 1: b'two'"):
        list(stream.execute_and_collect())


def test_records_go_to_the_topics_keys_headers_and_partitions_that_they_are_given(
    kafka: DevBroker, make_topic: Make
) -> None:
    news, prices = make_topic(3), make_topic(3)

    class ByLength(KafkaPartitioner):
        def open(self, parallel_instance_id: int, parallel_instances: int) -> None:
            self.instance = parallel_instance_id

        def partition(
            self, record: Any, key: bytes | None, value: bytes | None, target_topic: str, partitions: Sequence[int]
        ) -> int:
            assert self.instance == 0
            return partitions[len(value or b"") % len(partitions)]

    builder = KafkaRecordSerializationSchema.builder()
    builder.set_topic_selector(lambda element: news if element["kind"] == "news" else prices)
    builder.set_key_serialization_schema(lambda element: element["kind"].encode())
    builder.set_value_serialization_schema(lambda element: bytes(element["n"]))
    builder.set_header_provider(lambda element: [("n", b"%d" % element["n"])])
    env = environment()
    elements = [{"kind": ("news", "price")[n % 2], "n": n} for n in range(1, 60)]
    env.from_collection(elements).sink_to(sink(kafka.bootstrap_servers, builder.set_partitioner(ByLength()).build()))
    env.execute()

    for topic, kind, odd in ((news, b"news", 0), (prices, b"price", 1)):
        messages = read(kafka.bootstrap_servers, topic, 3)
        assert sorted(len(message.value() or b"") for message in messages) == [n for n in range(1, 60) if n % 2 == odd]
        for message in messages:
            size = len(message.value() or b"")
            assert message.partition() == size % 3
            assert message.key() == kind
            assert message.headers() == [("n", b"%d" % size)]


class Own(KafkaRecordSerializationSchema):
    """A record with everything, of its own choice."""

    def __init__(self, topic: str) -> None:
        self.target = topic

    def serialize(self, element: Any, context: KafkaSinkContext, timestamp: int | None) -> KafkaProducerRecord | None:
        if element < 0:
            return None
        assert context.get_number_of_parallel_instances() == 1
        last = context.get_partitions_for_topic(self.target)[-1]
        return KafkaProducerRecord(self.target, b"%d" % element, b"key", last, 1_700_000_000_000, [("own", None)])


def test_a_programs_own_serializer_gives_whole_records_or_none(kafka: DevBroker, make_topic: Make) -> None:
    topic = make_topic(2)
    writer = sink(kafka.bootstrap_servers, Own(topic)).create_writer(CONTEXT, None)
    assert writer.serialize is not None
    records = [writer.serialize(element, 5) for element in (1, -1, 2)]
    writer.write(records, [5, 5, 5])
    writer.flush()
    writer.close()
    messages = read(kafka.bootstrap_servers, topic, 2)
    assert [(m.partition(), m.key(), m.value(), m.timestamp()[1], m.headers()) for m in messages] == [
        (1, b"key", value, 1_700_000_000_000, [("own", None)]) for value in (b"1", b"2")
    ]
    assert writer.dropped == 1


def test_what_is_no_record_is_refused_where_it_is_made(kafka: DevBroker, make_topic: Make) -> None:
    class Wrong(KafkaRecordSerializationSchema):
        def serialize(self, element: Any, context: KafkaSinkContext, timestamp: int | None) -> Any:
            return element

    env = environment()
    env.from_collection([b"bytes"]).sink_to(sink(kafka.bootstrap_servers, Wrong())).name("own")
    with pytest.raises(DataError, match=r"`own` cannot serialize .* has to give a KafkaProducerRecord or None"):
        env.execute()


def test_a_topic_that_a_record_chose_and_that_is_not_there_is_named(kafka: DevBroker, make_topic: Make) -> None:
    missing = f"{make_topic()}-missing"
    builder = KafkaRecordSerializationSchema.builder().set_topic_selector(lambda _: missing)
    schema = builder.set_value_serialization_schema(lambda element: element).build()
    env = environment()
    # How long the client takes a topic that it does not know for one that was just created.
    properties = {"allow_auto_create_topics": "false", "topic_metadata_propagation_max_ms": "1000"}
    env.from_collection([b"x"]).sink_to(sink(kafka.bootstrap_servers, schema, **properties))
    with pytest.raises(ExternalError, match=missing):
        env.execute()


def test_exactly_once_with_topics_of_each_records_choice_wants_a_topic_for_its_marker(
    kafka: DevBroker, make_topic: Make
) -> None:
    left, right = make_topic(), make_topic()

    def run(**properties: str) -> None:
        builder = KafkaRecordSerializationSchema.builder().set_topic_selector(lambda n: (left, right)[n % 2])
        schema = builder.set_value_serialization_schema(lambda n: b"%d" % n).build()
        kafka_sink = KafkaSink.builder().set_bootstrap_servers(kafka.bootstrap_servers).set_record_serializer(schema)
        kafka_sink.set_delivery_guarantee(DeliveryGuarantee.EXACTLY_ONCE).set_transactional_id_prefix(left)
        for name, value in properties.items():
            kafka_sink.set_property(name.replace("_", "."), value)
        env = environment()
        env.from_collection(range(10)).sink_to(kafka_sink.build())
        env.execute(left)

    with pytest.raises(ConfigError, match=r"headrace\.marker\.topic"):
        run()
    run(headrace_marker_topic=left)
    assert [m.value() for m in read(kafka.bootstrap_servers, left)] == [b"%d" % n for n in range(0, 10, 2)]
    assert [m.value() for m in read(kafka.bootstrap_servers, right)] == [b"%d" % n for n in range(1, 10, 2)]


class Newest(KafkaPartitioner):
    def partition(
        self, record: Any, key: bytes | None, value: bytes | None, target_topic: str, partitions: Sequence[int]
    ) -> int:
        return partitions[-1]


def test_partitions_added_while_a_partitioner_works_are_seen(kafka: DevBroker, make_topic: Make) -> None:
    topic = make_topic()
    builder = KafkaRecordSerializationSchema.builder().set_topic(topic)
    schema = builder.set_value_serialization_schema(lambda e: e).set_partitioner(Newest()).build()
    writer: SinkWriter = sink(kafka.bootstrap_servers, schema, metadata_max_age_ms="10").create_writer(CONTEXT, None)
    assert writer.serialize is not None
    assert KafkaProducerRecord._make(writer.serialize(b"x", -1)).partition == 0
    admin = AdminClient({"bootstrap.servers": kafka.bootstrap_servers})
    for future in admin.create_partitions([NewPartitions(topic, 3)]).values():
        future.result(TIMEOUT_S)
    wait_until(lambda: writer.serialize is not None and writer.serialize(b"x", -1)[3] == 2, "all three")
    writer.close()


def test_a_key_goes_to_the_partition_that_javas_producer_chooses(kafka: DevBroker, make_topic: Make) -> None:
    topic = make_topic(7)
    keys = [b"key-%d" % n for n in range(200)]
    builder = KafkaRecordSerializationSchema.builder().set_topic(topic)
    schema = builder.set_key_serialization_schema(lambda e: e).set_value_serialization_schema(lambda e: e)
    env = environment()
    env.from_collection(keys).sink_to(sink(kafka.bootstrap_servers, schema.set_header_provider(lambda _: []).build()))
    env.execute()
    found = {message.key(): message.partition() for message in read(kafka.bootstrap_servers, topic, 7)}
    assert found == dict(zip(keys, default_client().murmur2_partitions(keys, 7), strict=True))


def test_json_with_key_and_headers_goes_through_a_job_unharmed(kafka: DevBroker, make_topic: Make) -> None:
    source, target = make_topic(), make_topic()
    write(
        kafka.bootstrap_servers,
        source,
        [{"value": json.dumps({"n": n}), "key": b"k%d" % n, "headers": [("trace", b"%d" % n)]} for n in range(100)],
    )
    builder = KafkaRecordSerializationSchema.builder().set_topic(target)
    builder.set_key_serialization_schema(lambda record: record.key)
    builder.set_value_serialization_schema(lambda record: record.value)
    builder.set_header_provider(lambda record: record.headers)
    env = environment()
    stream = env.from_source(whole(kafka.bootstrap_servers, source), NO_WATERMARKS, "records")
    stream.sink_to(sink(kafka.bootstrap_servers, builder.build()))
    env.execute()
    came, went = (
        [(m.key(), m.value(), m.headers(), m.timestamp()) for m in read(kafka.bootstrap_servers, topic)]
        for topic in (source, target)
    )
    assert came == went
    assert len(went) == 100
