"""KafkaSink without transactions, on real Kafka."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest
from confluent_kafka import Consumer, Message, TopicPartition
from tests.kafka.jobs import committed, environment, sink

from headrace.broker import DevBroker
from headrace.connector import SinkWriter, WriterContext
from headrace.errors import DataError, ExternalError
from headrace.kafka import DeliveryGuarantee, KafkaRecordSerializationSchema, KafkaSink
from headrace.kafka.client import default_client
from headrace.kafka.client.provision import create_topics
from headrace.kafka.sink import KafkaWriter, outgoing

TIMEOUT_S = 30.0
CONTEXT = WriterContext("job", "sink", 0, 1)


@pytest.fixture
def open_writer(kafka: DevBroker) -> Iterator[Callable[..., SinkWriter]]:
    """`open_writer(topic, guarantee, key=…, **properties)`; closed after the test."""
    with ExitStack() as stack:

        def open_writer(
            topic: str,
            guarantee: DeliveryGuarantee = DeliveryGuarantee.AT_LEAST_ONCE,
            key: Callable[[Any], bytes | None] | None = None,
            servers: str = kafka.bootstrap_servers,
            **properties: str,
        ) -> SinkWriter:
            schema = KafkaRecordSerializationSchema.builder().set_topic(topic)
            schema.set_value_serialization_schema(lambda element: element)
            if key is not None:
                schema.set_key_serialization_schema(key)
            builder = KafkaSink.builder().set_bootstrap_servers(servers).set_delivery_guarantee(guarantee)
            builder.set_record_serializer(schema.build())
            for name, value in properties.items():
                builder.set_property(name, value)
            writer = builder.build().create_writer(CONTEXT, None)
            stack.callback(writer.close)
            return writer

        yield open_writer


def read_all(kafka: DevBroker, topic: str) -> list[Message]:
    """Every record of partition 0."""
    consumer = Consumer(
        {"bootstrap.servers": kafka.bootstrap_servers, "group.id": topic, "enable.partition.eof": True, "log_level": 2}
    )
    consumer.assign([TopicPartition(topic, 0, 0)])
    messages: list[Message] = []
    deadline = time.monotonic() + TIMEOUT_S
    while True:
        assert time.monotonic() < deadline
        message = consumer.poll(1.0)
        if message is None:
            continue
        if message.error() is not None:
            consumer.close()
            return messages
        messages.append(message)


Open = Callable[..., SinkWriter]
Make = Callable[..., str]


def test_records_that_fit_are_written_whatever_the_topic_takes_in_one_batch(
    kafka: DevBroker, make_topic: Callable[..., str]
) -> None:
    topic = f"{make_topic()}-small"
    create_topics(kafka.bootstrap_servers, {topic: 1}, config={"max.message.bytes": "1000"})
    env = environment()
    values = env.from_collection(["y" * 100] * 500)
    values.sink_to(sink(kafka.bootstrap_servers, topic, DeliveryGuarantee.AT_LEAST_ONCE))
    env.execute("small")
    assert len(committed(kafka.bootstrap_servers, topic)) == 500


def test_at_least_once_has_everything_acknowledged_after_a_flush(
    kafka: DevBroker, open_writer: Open, make_topic: Make
) -> None:
    topic = make_topic()
    writer = open_writer(topic)
    values = [b"%d" % number for number in range(5000)]
    writer.write(values[:2500], None)
    values_of_the_engine = list(values[2500:])
    writer.write(values_of_the_engine, [1] * 0 + [int(time.time() * 1000)] * 2500)
    values_of_the_engine.clear()
    writer.poll()
    writer.flush()
    assert [message.value() for message in read_all(kafka, topic)] == values


def test_none_has_everything_acknowledged_at_the_end_of_input(
    kafka: DevBroker, open_writer: Open, make_topic: Make
) -> None:
    topic = make_topic()
    writer = open_writer(topic, DeliveryGuarantee.NONE)
    writer.write([b"x"] * 100, None)
    writer.flush()
    writer.finish()
    assert len(read_all(kafka, topic)) == 100


def test_timestamps_are_written_where_there_are_any(kafka: DevBroker, open_writer: Open, make_topic: Make) -> None:
    topic, now_ms = make_topic(), int(time.time() * 1000)
    writer = open_writer(topic)
    writer.write([b"a", b"b"], [now_ms - 5000, -(2**63)])
    writer.flush()
    first, second = (message.timestamp()[1] for message in read_all(kafka, topic))
    assert first == now_ms - 5000
    assert now_ms <= second <= now_ms + 60_000


def test_keys_are_written_and_a_missing_value_is_a_tombstone(
    kafka: DevBroker, open_writer: Open, make_topic: Make
) -> None:
    topic = make_topic()
    writer = open_writer(topic, key=lambda element: b"k" if element else None)
    assert writer.serialize is not None
    writer.write([writer.serialize(element) for element in (b"v", None)], [int(time.time() * 1000)] * 2)
    writer.write([], None)
    writer.flush()
    assert [(message.key(), message.value()) for message in read_all(kafka, topic)] == [(b"k", b"v"), (None, None)]


def test_a_record_too_large_for_the_client_is_named_with_its_size_and_settings(
    open_writer: Open, make_topic: Make
) -> None:
    topic = make_topic()
    writer = open_writer(topic)
    with pytest.raises(
        ExternalError, match=rf"2000000 bytes for topic {topic} is too large.*`max.request.size`"
    ) as raised:
        writer.write([b"x" * 2_000_000], None)
    assert not raised.value.retriable


def test_a_record_too_large_for_the_topic_is_named_at_the_flush(open_writer: Open, make_topic: Make) -> None:
    topic = make_topic(**{"max.message.bytes": "1000"})
    writer = open_writer(topic)
    writer.write([b"x" * 2_000], None)
    with pytest.raises(ExternalError, match=rf"2000 bytes for topic {topic} is too large.*`max.message.bytes`"):
        writer.flush()


@pytest.mark.parametrize("guarantee", [DeliveryGuarantee.NONE, DeliveryGuarantee.AT_LEAST_ONCE])
def test_a_topic_that_does_not_exist_is_named_before_anything_is_written(
    guarantee: DeliveryGuarantee, open_writer: Open, topic_name: Callable[[str], str]
) -> None:
    topic = topic_name("missing")
    begun = time.monotonic()
    with pytest.raises(
        ExternalError, match=rf"'{topic}' does not exist on .*create it.*`auto.create.topics.enable`"
    ) as e:
        open_writer(topic, guarantee)
    assert time.monotonic() - begun < 2
    assert not e.value.retriable


def test_a_topic_that_the_brokers_create_when_asked_is_created(
    other_kafka: DevBroker, open_writer: Open, topic_name: Callable[[str], str], caplog: pytest.LogCaptureFixture
) -> None:
    servers, topic, unwanted = other_kafka.bootstrap_servers, topic_name("made"), topic_name("unwanted")
    writer = open_writer(topic, servers=servers)
    writer.write([b"x"], None)
    writer.flush()
    assert [message.value() for message in read_all(other_kafka, topic)] == [b"x"]
    assert f"topic '{topic}' did not exist; the brokers created it" in caplog.text
    with pytest.raises(ExternalError, match=f"'{unwanted}' does not exist"):
        open_writer(unwanted, servers=servers, **{"allow.auto.create.topics": "false"})


def test_brokers_that_are_not_there_are_an_error_in_time_with_the_cause(open_writer: Open) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        servers = f"127.0.0.1:{taken.getsockname()[1]}"
        begun = time.monotonic()
        with pytest.raises(
            ExternalError, match=rf"{servers} cannot be reached: .*refused.*1 s.*`default.api.timeout.ms`"
        ):
            open_writer("t", servers=servers, **{"default.api.timeout.ms": "1000"})
        assert time.monotonic() - begun < 3


def test_what_is_no_bytes_is_a_data_error(open_writer: Open, make_topic: Make) -> None:
    writer = open_writer(make_topic())
    with pytest.raises(DataError, match=r"the value of a record .* is a dict.*`set_value_serialization_schema`"):
        writer.write([b"x", {"a": 1}], None)
    with_keys = open_writer(make_topic(), key=len)
    with pytest.raises(DataError, match=r"the key of a record .* is a int.*`set_key_serialization_schema`"):
        with_keys.write([(1, b"x")], None)


def test_closing_waits_for_nobody() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        schema = KafkaRecordSerializationSchema.builder().set_topic("t").set_value_serialization_schema(bytes).build()
        builder = KafkaSink.builder().set_bootstrap_servers(f"127.0.0.1:{taken.getsockname()[1]}")
        sink = builder.set_record_serializer(schema).build()
        producer = default_client().producer(sink.client_settings())
        writer = KafkaWriter(sink, outgoing(sink, CONTEXT, lambda: producer, None), producer)
        writer.write([b"x"] * 1000, None)
        begun = time.monotonic()
        writer.close()
        writer.close()
        assert time.monotonic() - begun < 5
