"""Records that an operator fails on, on real Kafka: each kind of failure, byte for byte, with where it came from."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Message, Producer
from tests.kafka.jobs import TIMEOUT_S, environment
from tests.kafka.test_records import read

from headrace.broker import DevBroker
from headrace.common import WatermarkStrategy
from headrace.common.serialization import ByteArraySchema, SimpleStringSchema
from headrace.connector import DeliveryGuarantee, OriginalRecord, Stage
from headrace.datastream import DataStream, ErrorPolicy
from headrace.errors import ConfigError, DataError, ExternalError, UserCodeError
from headrace.kafka import (
    DeadLetterSerializationSchema,
    KafkaConsumerRecord,
    KafkaOffsetsInitializer,
    KafkaProducerRecord,
    KafkaRecordSerializationSchema,
    KafkaSink,
    KafkaSource,
    TimestampType,
)
from headrace.kafka.client import default_client
from headrace.kafka.client.native import NativeClient
from headrace.kafka.client.protocol import UNREADABLE_HEADERS
from headrace.kafka.client.provision import create_topics
from headrace.kafka.dead_letters import read_dead_letter
from kafka import KafkaProducer

Make = Callable[..., str]
NO_WATERMARKS = WatermarkStrategy.no_watermarks()

CHECKPOINTS = {"execution_checkpointing_interval": "100 ms", "restart__strategy_type": "none"}

GOOD = [b'{"n": 1}', b'{"n": 2}', b'{"n": 3}']
BAD = {
    "key": b"\x00key\xff",
    "value": b'{"n": \xff\xfe',
    "headers": [("trace", b"\x01\x02"), ("empty", b""), ("null", None), ("trace", b"again")],
    "timestamp": 1_700_000_000_123,
}


def parse(value: bytes) -> dict[str, int]:
    parsed = json.loads(value)
    assert isinstance(parsed, dict)
    return parsed


def write(servers: str, topic: str, bad: dict[str, Any] = BAD) -> None:
    """Two good records, the bad one, and a good one."""
    producer = Producer({"bootstrap.servers": servers})
    for record in ({"value": GOOD[0]}, {"value": GOOD[1]}, bad, {"value": GOOD[2]}):
        producer.produce(topic, partition=0, **record)
    assert producer.flush(TIMEOUT_S) == 0


def source(servers: str, topic: str, schema: Any) -> KafkaSource:
    builder = KafkaSource.builder().set_bootstrap_servers(servers).set_topics(topic)
    return builder.set_bounded(KafkaOffsetsInitializer.latest()).set_value_only_deserializer(schema).build()


def sink(servers: str, schema: KafkaRecordSerializationSchema, prefix: str | None, **properties: str) -> KafkaSink:
    builder = KafkaSink.builder().set_bootstrap_servers(servers).set_record_serializer(schema)
    builder.set_delivery_guarantee(DeliveryGuarantee.AT_LEAST_ONCE)
    if prefix is not None:
        builder.set_delivery_guarantee(DeliveryGuarantee.EXACTLY_ONCE).set_transactional_id_prefix(prefix)
    for name, value in properties.items():
        builder.set_property(name.replace("_", "."), value)
    return builder.build()


def results(topic: str, schema: Any = None) -> KafkaRecordSerializationSchema:
    builder = KafkaRecordSerializationSchema.builder().set_topic(topic)
    return builder.set_value_serialization_schema(schema or SimpleStringSchema()).build()


def as_read(message: Message) -> KafkaConsumerRecord:
    """What another client has read, as it came."""
    topic, partition, offset = message.topic(), message.partition(), message.offset()
    assert topic is not None
    assert partition is not None
    assert offset is not None
    headers: Any = message.headers()
    kind, timestamp = message.timestamp()
    return KafkaConsumerRecord(
        topic, partition, offset, timestamp, TimestampType(kind), message.key(), message.value(), headers or []
    )


class Fails(ByteArraySchema):
    """Bytes, but for those that are no JSON."""

    def deserialize(self, message: bytes) -> bytes:
        parse(message)
        return message


class Text(SimpleStringSchema):
    """Texts of at most 20 characters."""

    def serialize(self, value: str) -> bytes:
        if len(value) > 20:
            raise DataError(f"a text of {len(value)} characters")
        return value.encode()


def deserialization(stream: DataStream, policy: ErrorPolicy) -> DataStream:
    return stream.on_error(policy).map(lambda value: value.decode())


def function(stream: DataStream, policy: ErrorPolicy) -> DataStream:
    return stream.map(parse).name("parse").on_error(policy).map(json.dumps)


def flat_map(stream: DataStream, policy: ErrorPolicy) -> DataStream:
    def twice(value: bytes) -> Any:
        yield b"\xff" in value
        yield parse(value)

    return stream.flat_map(twice).name("parse").on_error(policy).filter(lambda v: v is not False).map(json.dumps)


def key(stream: DataStream, policy: ErrorPolicy) -> DataStream:
    def count(total: Any, value: Any) -> Any:
        return value

    keyed = stream.key_by(lambda value: [] if b"\xff" in value else value)
    return keyed.reduce(count).name("parse").on_error(policy).map(lambda value: value.decode())


STAGES: dict[str, tuple[Any, Any, Stage, str]] = {
    "deserialization": (Fails(), deserialization, Stage.DESERIALIZATION, "UnicodeDecodeError"),
    "function": (ByteArraySchema(), function, Stage.FUNCTION, "UnicodeDecodeError"),
    "function that gave something": (ByteArraySchema(), flat_map, Stage.FUNCTION, "UnicodeDecodeError"),
    "key": (ByteArraySchema(), key, Stage.FUNCTION, "TypeError"),
}


@pytest.mark.parametrize("kind", STAGES)
@pytest.mark.parametrize("guarantee", ["exactly once", "at least once"])
def test_a_record_that_fails_is_a_dead_letter_byte_for_byte(
    kafka: DevBroker, make_topic: Make, tmp_path: Path, kind: str, guarantee: str
) -> None:
    servers, read_from, out, dead = kafka.bootstrap_servers, make_topic(), make_topic(), make_topic()
    prefix = out if guarantee == "exactly once" else None
    write(servers, read_from)
    schema, build, stage, exception = STAGES[kind]
    policy = ErrorPolicy.dead_letter(sink(servers, DeadLetterSerializationSchema(dead), prefix))
    env = environment(tmp_path, **CHECKPOINTS)
    stream = build(env.from_source(source(servers, read_from, schema), NO_WATERMARKS, "news"), policy)
    stream.sink_to(sink(servers, results(out), prefix))
    env.execute("lag")
    assert [json.loads(message.value() or b"") for message in read(servers, out)] == [{"n": 1}, {"n": 2}, {"n": 3}]
    (message,) = read(servers, dead)
    assert message.key() == BAD["key"]
    assert message.value() == BAD["value"]
    assert message.timestamp() == (1, BAD["timestamp"])
    assert (message.headers() or [])[:4] == BAD["headers"]
    letter = read_dead_letter(as_read(message))
    assert letter.record == OriginalRecord(
        BAD["value"], BAD["key"], BAD["headers"], BAD["timestamp"], read_from, 0, 2, is_element=False
    )
    assert letter.stage is stage
    assert letter.operator == ("news" if kind == "deserialization" else "parse")
    assert letter.exception == exception
    assert letter.message
    assert (letter.job, letter.attempt) == ("lag", 0)


@pytest.mark.parametrize("given", ["a serializer that raises", "no bytes", "too large for the client"])
def test_what_cannot_be_written_is_a_dead_letter(kafka: DevBroker, make_topic: Make, given: str) -> None:
    servers, read_from, out, dead = kafka.bootstrap_servers, make_topic(), make_topic(), make_topic()
    bad = {**BAD, "value": b"x" * 2000}
    write(servers, read_from, bad)
    env = environment()
    policy = ErrorPolicy.dead_letter(sink(servers, DeadLetterSerializationSchema(dead), None))
    stream = env.from_source(source(servers, read_from, SimpleStringSchema()), NO_WATERMARKS, "news")
    schema: Any = Text() if given == "a serializer that raises" else None
    properties = {"max_request_size": "1500"} if given == "too large for the client" else {}
    if given == "no bytes":
        stream = stream.map(lambda text: text.encode() if len(text) < 20 else object())
        schema = ByteArraySchema()
    stream.sink_to(sink(servers, results(out, schema), None, **properties)).name("out").on_error(policy)
    env.execute("lag")
    assert [message.value() for message in read(servers, out)] == GOOD
    (message,) = read(servers, dead)
    letter = read_dead_letter(as_read(message))
    assert letter.record.value == bad["value"]
    assert letter.operator == "out"
    assert letter.stage is (Stage.SIZE if given == "too large for the client" else Stage.SERIALIZATION)


@pytest.mark.parametrize("shape", ["columns", "whole records"])
def test_a_record_that_the_topic_does_not_take_is_found_before_its_transaction_is_lost(
    kafka: DevBroker, make_topic: Make, tmp_path: Path, shape: str
) -> None:
    servers, read_from, dead = kafka.bootstrap_servers, make_topic(), make_topic()
    out = f"{read_from}-small"
    create_topics(servers, {out: 1}, config={"max.message.bytes": "1000"})
    write(servers, read_from, {**BAD, "value": b"x" * 950})
    # More than go into one batch that the topic takes.
    producer = Producer({"bootstrap.servers": servers})
    for _ in range(200):
        producer.produce(read_from, b"y" * 100)
    assert producer.flush(TIMEOUT_S) == 0
    schema: Any = results(out)
    if shape == "whole records":
        builder = KafkaRecordSerializationSchema.builder().set_topic(out)
        builder.set_value_serialization_schema(SimpleStringSchema()).set_header_provider(lambda text: {"n": b"1"})
        schema = builder.build()
    env = environment(tmp_path, **CHECKPOINTS)
    policy = ErrorPolicy.dead_letter(sink(servers, DeadLetterSerializationSchema(dead), out))
    stream = env.from_source(source(servers, read_from, SimpleStringSchema()), NO_WATERMARKS, "news")
    stream.sink_to(sink(servers, schema, out)).on_error(policy)
    env.execute("lag")
    assert [message.value() for message in read(servers, out)] == [*GOOD, *[b"y" * 100] * 200]
    (message,) = read(servers, dead)
    letter = read_dead_letter(as_read(message))
    assert letter.stage is Stage.SIZE
    assert "`max.message.bytes`" in letter.message


def test_what_is_dropped_is_logged_and_nothing_of_it_is_written(
    kafka: DevBroker, make_topic: Make, caplog: pytest.LogCaptureFixture
) -> None:
    servers, read_from, out = kafka.bootstrap_servers, make_topic(), make_topic()
    write(servers, read_from)
    env = environment().on_error(ErrorPolicy.drop())
    stream = env.from_source(source(servers, read_from, ByteArraySchema()), NO_WATERMARKS, "news")
    stream.map(lambda value: value.decode(errors="replace")).sink_to(sink(servers, results(out), None))
    stream.map(parse).map(json.dumps).sink_to(sink(servers, results(out), None))
    with caplog.at_level(logging.WARNING, "headrace"):
        env.execute("lag")
    assert sorted(message.value() or b"" for message in read(servers, out)) == sorted(GOOD * 2)
    said, total = [record.getMessage() for record in caplog.records if "dropped" in record.getMessage()]
    assert f"topic {read_from}, partition 0, offset 2" in said
    assert total == "`Map` failed on 1 records, which were dropped"


def test_a_service_that_does_not_answer_is_no_fault_of_the_record(kafka: DevBroker, make_topic: Make) -> None:
    servers, read_from = kafka.bootstrap_servers, make_topic()
    write(servers, read_from)

    def ask(value: bytes) -> bytes:
        raise ExternalError("no answer", retriable=False)

    env = environment().on_error(ErrorPolicy.drop())
    env.from_source(source(servers, read_from, ByteArraySchema()), NO_WATERMARKS, "news").map(ask)
    with pytest.raises(ExternalError, match="no answer"):
        env.execute("lag")


def test_an_operator_may_fail_the_job_where_others_do_not(kafka: DevBroker, make_topic: Make) -> None:
    servers, read_from = kafka.bootstrap_servers, make_topic()
    write(servers, read_from)
    env = environment().on_error(ErrorPolicy.drop())
    stream = env.from_source(source(servers, read_from, ByteArraySchema()), NO_WATERMARKS, "news")
    stream.map(parse).on_error(ErrorPolicy.fail())
    with pytest.raises(UserCodeError, match="offset 2"):
        env.execute("lag")


def test_lanes_share_a_sink_for_dead_letters(kafka: DevBroker, make_topic: Make, tmp_path: Path) -> None:
    servers, read_from, out, dead = kafka.bootstrap_servers, make_topic(4), make_topic(), make_topic()
    producer = Producer({"bootstrap.servers": servers})
    for number in range(400):
        value = b"%d" % number if number % 7 else b"bad %d" % number
        producer.produce(read_from, value, partition=number % 4)
    assert producer.flush(TIMEOUT_S) == 0
    env = environment(tmp_path, **CHECKPOINTS).set_parallelism(2)
    env.on_error(ErrorPolicy.dead_letter(sink(servers, DeadLetterSerializationSchema(dead), out)))
    stream = env.from_source(source(servers, read_from, SimpleStringSchema()), NO_WATERMARKS, "news")
    stream.map(int).map(str).sink_to(sink(servers, results(out), out))
    env.execute("lag")
    assert sorted(int(message.value() or b"") for message in read(servers, out)) == [n for n in range(400) if n % 7]
    letters = [read_dead_letter(as_read(message)) for message in read(servers, dead)]
    assert sorted(letter.record.value for letter in letters) == sorted(b"bad %d" % n for n in range(400) if n % 7 == 0)
    assert all(letter.record.partition == int(letter.record.value.split()[1]) % 4 for letter in letters)


def test_a_partition_that_there_is_not_is_the_fault_of_the_record(kafka: DevBroker, make_topic: Make) -> None:
    servers, read_from, out = kafka.bootstrap_servers, make_topic(), make_topic()

    class Chosen(KafkaRecordSerializationSchema):
        def serialize(self, element: Any, context: Any, timestamp: int | None) -> KafkaProducerRecord:
            return KafkaProducerRecord(out, element, partition=0 if element.startswith(b'{"n": ') else 7)

    write(servers, read_from, {"value": b"elsewhere"})
    env = environment().on_error(ErrorPolicy.drop())
    stream = env.from_source(source(servers, read_from, ByteArraySchema()), NO_WATERMARKS, "news")
    stream.sink_to(sink(servers, Chosen(), None))
    env.execute("lag")
    assert [message.value() for message in read(servers, out)] == GOOD


def test_a_record_whose_header_has_no_name_in_utf_8_is_a_dead_letter_too(kafka: DevBroker, make_topic: Make) -> None:
    servers, read_from, dead = kafka.bootstrap_servers, make_topic(), make_topic()

    class Name(str):
        def encode(self, *_: Any) -> bytes:
            return b"tr\xff\xfece"

    producer = KafkaProducer(bootstrap_servers=servers)
    producer.send(read_from, b"bad", headers=[(Name("trace"), b"7")])
    producer.flush()
    producer.close()
    env = environment()
    policy = ErrorPolicy.dead_letter(sink(servers, DeadLetterSerializationSchema(dead), None))
    env.from_source(source(servers, read_from, SimpleStringSchema()), NO_WATERMARKS, "news").map(int).on_error(policy)
    env.execute("lag")
    (message,) = read(servers, dead)
    assert message.value() == b"bad"
    names = [name for name, _ in message.headers() or []]
    assert names[0] == ("tr\ufffd\ufffdce" if isinstance(default_client(), NativeClient) else UNREADABLE_HEADERS)


def test_a_sink_that_might_lose_dead_letters_is_refused() -> None:
    builder = KafkaSink.builder().set_bootstrap_servers("localhost:9092")
    unsafe = builder.set_record_serializer(DeadLetterSerializationSchema("dead")).build()
    with pytest.raises(ConfigError, match="AT_LEAST_ONCE"):
        ErrorPolicy.dead_letter(unsafe)


def test_an_element_of_no_topic_is_written_as_text_and_marked(kafka: DevBroker, make_topic: Make) -> None:
    servers, dead = kafka.bootstrap_servers, make_topic()
    env = environment()
    policy = ErrorPolicy.dead_letter(sink(servers, DeadLetterSerializationSchema(dead), None))
    env.from_collection([("a", 1), ("b", 0)]).map(lambda pair: 1 / pair[1]).on_error(policy)
    env.execute("lag")
    (message,) = read(servers, dead)
    letter = read_dead_letter(as_read(message))
    assert (letter.record.value, letter.record.is_element) == (b"('b', 0)", True)
    assert letter.exception == "ZeroDivisionError"
