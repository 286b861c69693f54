"""Schemas in jobs on real Kafka: what they read and write, and what becomes of records that cannot be read."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from confluent_kafka import Producer
from google.protobuf.timestamp_pb2 import Timestamp
from tests.kafka.jobs import TIMEOUT_S, committed, environment

from headrace.broker import DevBroker
from headrace.common import DeserializationSchema, Row, SerializationSchema, Types, WatermarkStrategy
from headrace.datastream.formats.avro import AvroRowDeserializationSchema, AvroRowSerializationSchema
from headrace.datastream.formats.csv import CsvRowDeserializationSchema, CsvRowSerializationSchema
from headrace.datastream.formats.json import (
    JsonDeserializationSchema,
    JsonRowDeserializationSchema,
    JsonRowSerializationSchema,
    JsonSerializationSchema,
)
from headrace.datastream.formats.protobuf import (
    ProtobufDeserializationSchema,
    ProtobufRowDeserializationSchema,
    ProtobufRowSerializationSchema,
)
from headrace.errors import DataError
from headrace.functions import ProcessFunction
from headrace.kafka import (
    DeliveryGuarantee,
    KafkaOffsetsInitializer,
    KafkaRecordSerializationSchema,
    KafkaSink,
    KafkaSource,
)

Make = Callable[..., str]
NO_WATERMARKS = WatermarkStrategy.no_watermarks()
TRADES = Types.ROW_NAMED(["market", "price"], [Types.STRING(), Types.LONG()])
AVRO = (
    '{"type": "record", "name": "Trade", "fields": [{"name": "market", "type": "string"}, '
    '{"name": "price", "type": ["null", "long"]}]}'
)


@dataclasses.dataclass
class Trade:
    market: str
    price: int


def write(servers: str, topic: str, *values: bytes | None) -> None:
    producer = Producer({"bootstrap.servers": servers})
    for number, value in enumerate(values):
        producer.produce(topic, value, timestamp=1_700_000_000_000 + number)
    assert producer.flush(TIMEOUT_S) == 0


def source(servers: str, topic: str, schema: DeserializationSchema) -> KafkaSource:
    builder = KafkaSource.builder().set_bootstrap_servers(servers).set_topics(topic)
    return builder.set_bounded(KafkaOffsetsInitializer.latest()).set_value_only_deserializer(schema).build()


def sink(servers: str, topic: str, schema: SerializationSchema) -> KafkaSink:
    records = KafkaRecordSerializationSchema.builder().set_topic(topic).set_value_serialization_schema(schema).build()
    builder = KafkaSink.builder().set_bootstrap_servers(servers).set_record_serializer(records)
    return builder.set_delivery_guarantee(DeliveryGuarantee.AT_LEAST_ONCE).build()


def json_rows() -> JsonRowDeserializationSchema.Builder:
    return JsonRowDeserializationSchema.builder().type_info(TRADES)


def raised(row: Row) -> Row:
    return Row(row[0], row[1] + 1)


@pytest.mark.parametrize(
    ("reads", "writes", "given", "written"),
    [
        (
            json_rows().build(),
            JsonRowSerializationSchema(TRADES),
            b'{"price": "7", "market": "btc", "more": []}',
            b'{"market":"btc","price":8}',
        ),
        (CsvRowDeserializationSchema(TRADES), CsvRowSerializationSchema(TRADES), b"btc, 7\n", b"btc,8\n"),
        (
            AvroRowDeserializationSchema(avro_schema_string=AVRO),
            AvroRowSerializationSchema(avro_schema_string=AVRO),
            b"\x06btc\x02\x0e",
            b"\x06btc\x02\x10",
        ),
        (
            ProtobufRowDeserializationSchema(Timestamp),
            ProtobufRowSerializationSchema(Timestamp),
            b"\x08\x07\x10\x01",
            b"\x08\x07\x10\x02",
        ),
    ],
)
def test_rows_go_through_a_job(
    kafka: DevBroker,
    make_topic: Make,
    reads: DeserializationSchema,
    writes: SerializationSchema,
    given: bytes,
    written: bytes,
) -> None:
    there, here = make_topic(), make_topic()
    write(kafka.bootstrap_servers, there, given, None, given)
    env = environment()
    stream = env.from_source(source(kafka.bootstrap_servers, there, reads), NO_WATERMARKS, "rows")
    stream.map(lambda row: None if row is None else raised(row)).sink_to(sink(kafka.bootstrap_servers, here, writes))
    env.execute()
    assert committed(kafka.bootstrap_servers, here) == [written, None, written]


def test_values_of_a_class_go_through_a_job_in_lanes(kafka: DevBroker, make_topic: Make) -> None:
    there, here = make_topic(partitions=2), make_topic()
    write(kafka.bootstrap_servers, there, *[b'{"market": "btc", "price": %d}' % n for n in range(20)])
    env = environment()
    env.set_parallelism(2)
    reads, writes = JsonDeserializationSchema(Trade), JsonSerializationSchema(Trade)
    stream = env.from_source(source(kafka.bootstrap_servers, there, reads), NO_WATERMARKS, "trades")
    stream.map(lambda trade: Trade(trade.market.upper(), trade.price)).sink_to(
        sink(kafka.bootstrap_servers, here, writes)
    )
    env.execute()
    expected = [b'{"market":"BTC","price":%d}' % n for n in range(20)]
    assert sorted(filter(None, committed(kafka.bootstrap_servers, here))) == sorted(expected)


class WithTime(ProcessFunction):
    def process_element(self, value: Any, ctx: ProcessFunction.Context) -> Iterator[tuple[Any, int | None]]:
        yield value, ctx.timestamp()


BAD = [b"{", b"null", b"[]", b"\xff"]


def test_a_record_that_cannot_be_read_is_passed_over_and_its_neighbours_keep_their_times(
    kafka: DevBroker, make_topic: Make
) -> None:
    topic = make_topic()
    write(kafka.bootstrap_servers, topic, b'{"market": "a"}', *BAD, b'{"market": "b", "price": "x"}', None)
    reads = json_rows().ignore_parse_errors().build()
    strategy = WatermarkStrategy.for_monotonous_timestamps()
    stream = environment().from_source(source(kafka.bootstrap_servers, topic, reads), strategy, "trades")
    seconds = 1_700_000_000_000
    assert list(stream.process(WithTime()).execute_and_collect()) == [
        (Row(market="a", price=None), seconds),
        (Row(market="b", price=None), seconds + 5),
        (None, seconds + 6),
    ]


def test_a_record_that_cannot_be_read_ends_the_job_and_is_named(kafka: DevBroker, make_topic: Make) -> None:
    topic = make_topic()
    write(kafka.bootstrap_servers, topic, b'{"market": "a"}', b'{"market": "b", "price": "x"}')
    stream = environment().from_source(
        source(kafka.bootstrap_servers, topic, json_rows().build()), NO_WATERMARKS, "trades"
    )
    named = (
        f"`trades` cannot deserialize .* topic {topic}, partition 0, offset 1: .*field `price`: .*'x' is not a whole"
    )
    with pytest.raises(DataError, match=named):
        list(stream.execute_and_collect())


def test_messages_are_elements_and_the_one_that_is_none_is_named_or_passed_over(
    kafka: DevBroker, make_topic: Make
) -> None:
    topic = make_topic()
    write(kafka.bootstrap_servers, topic, b"\x08\x07", b"\xff", b"\x08\x09")
    stream = environment().from_source(
        source(kafka.bootstrap_servers, topic, ProtobufDeserializationSchema(Timestamp)), NO_WATERMARKS, "messages"
    )
    with pytest.raises(DataError, match=r"offset 1: .*ProtobufDeserializationSchema"):
        list(stream.execute_and_collect())
    rows = ProtobufRowDeserializationSchema(Timestamp, ignore_parse_errors=True)
    stream = environment().from_source(source(kafka.bootstrap_servers, topic, rows), NO_WATERMARKS, "rows")
    assert list(stream.execute_and_collect()) == [Row(seconds=7, nanos=0), Row(seconds=9, nanos=0)]
