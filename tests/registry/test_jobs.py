"""Jobs that read and write with a schema registry, on real Kafka."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.schema_registry import SchemaRegistryClient, topic_subject_name_strategy
from confluent_kafka.schema_registry.avro import AvroDeserializer, AvroSerializer
from confluent_kafka.serialization import SerializationContext
from tests.kafka.door import Door
from tests.kafka.jobs import collecting, environment

from headrace.broker import DevBroker
from headrace.common import WatermarkStrategy
from headrace.datastream.connectors.kafka import (
    DeliveryGuarantee,
    KafkaConsumerRecord,
    KafkaOffsetsInitializer,
    KafkaRecordDeserializationSchema,
    KafkaRecordSerializationSchema,
    KafkaSink,
    KafkaSource,
)
from headrace.datastream.formats.registry import (
    ConfluentRegistryAvroDeserializationSchema,
    ConfluentRegistryAvroSerializationSchema,
    SubjectNameStrategy,
)
from headrace.errors import ConfigError, DataError

URL = {"type": "record", "name": "Url", "namespace": "feeds", "fields": [{"name": "url", "type": "string"}]}
COUNT = {"type": "record", "name": "Count", "namespace": "feeds", "fields": [{"name": "count", "type": "int"}]}
BY_TOPIC = {"subject.name.strategy": topic_subject_name_strategy}
QUICK = {"timeout": 2, "max.retries": 0}


class KeyAndValue(KafkaRecordDeserializationSchema):
    def __init__(self, registry: str) -> None:
        self.keys = ConfluentRegistryAvroDeserializationSchema.for_generic(URL, registry)
        self.values = ConfluentRegistryAvroDeserializationSchema.for_generic(COUNT, registry)

    def deserialize(self, record: KafkaConsumerRecord) -> Iterable[Any]:
        yield self.keys.deserialize(record.key), self.values.deserialize(record.value)


def fill(kafka: DevBroker, confluent: SchemaRegistryClient, topic: str, count: int, partitions: int = 1) -> None:
    """Keys and values by Confluent's serializers."""
    to_key, to_value = (AvroSerializer(confluent, json.dumps(schema), conf=BY_TOPIC) for schema in (URL, COUNT))
    producer = Producer({"bootstrap.servers": kafka.bootstrap_servers})
    for number in range(count):
        key = to_key({"url": f"http://{number}"}, SerializationContext(topic, "key"))
        value = to_value({"count": number}, SerializationContext(topic, "value"))
        producer.produce(topic, value, key, partition=number % partitions)
    producer.flush()


def reading(kafka: DevBroker, topic: str, schema: Any) -> KafkaSource:
    builder = KafkaSource.builder().set_bootstrap_servers(kafka.bootstrap_servers).set_topics(topic)
    if isinstance(schema, KafkaRecordDeserializationSchema):
        builder.set_deserializer(schema)
    else:
        builder.set_value_only_deserializer(schema)
    return builder.set_bounded(KafkaOffsetsInitializer.latest()).build()


def writing(kafka: DevBroker, topic: str, registry: str) -> KafkaSink:
    def avro(schema: Any) -> ConfluentRegistryAvroSerializationSchema:
        return ConfluentRegistryAvroSerializationSchema.for_generic(SubjectNameStrategy.TOPIC, schema, registry)

    records = (
        KafkaRecordSerializationSchema.builder()
        .set_topic(topic)
        .set_key_serialization_schema(avro({**URL, "fields": [*URL["fields"], *COUNT["fields"]]}))
        .set_value_serialization_schema(avro(COUNT))
        .build()
    )
    return (
        KafkaSink.builder()
        .set_bootstrap_servers(kafka.bootstrap_servers)
        .set_record_serializer(records)
        .set_delivery_guarantee(DeliveryGuarantee.EXACTLY_ONCE)
        .set_transactional_id_prefix(topic)
        .build()
    )


def written(kafka: DevBroker, confluent: SchemaRegistryClient, topic: str, count: int) -> Iterator[tuple[Any, Any]]:
    """Keys and values by Confluent's deserializers."""
    settings = {"bootstrap.servers": kafka.bootstrap_servers, "group.id": topic, "isolation.level": "read_committed"}
    reader, consumer = AvroDeserializer(confluent), Consumer(settings)
    consumer.assign([TopicPartition(topic, 0, 0)])
    for _ in range(count):
        record = consumer.poll(30)
        assert record is not None
        assert record.error() is None
        yield reader(record.key(), None), reader(record.value(), None)
    consumer.close()


@pytest.mark.parametrize("lanes", [1, 2])
def test_a_job_reads_and_writes_keys_and_values_with_confluents_on_both_sides(
    kafka: DevBroker,
    registry: str,
    confluent: SchemaRegistryClient,
    make_topic: Callable[..., str],
    tmp_path: Path,
    lanes: int,
) -> None:
    topic_in, topic_out = make_topic(partitions=2), make_topic()
    fill(kafka, confluent, topic_in, 20, partitions=2)
    env = environment(tmp_path)
    env.set_parallelism(lanes)
    stream = env.from_source(
        reading(kafka, topic_in, KeyAndValue(registry)), WatermarkStrategy.no_watermarks(), "records"
    )
    stream.map(lambda pair: {**pair[0], **pair[1]}).sink_to(writing(kafka, topic_out, registry))

    env.execute(topic_out)

    found = sorted(written(kafka, confluent, topic_out, 20), key=lambda pair: pair[1]["count"])
    assert found == [({"url": f"http://{n}", "count": n}, {"count": n}) for n in range(20)]
    assert {f"{topic_out}-key", f"{topic_out}-value"} <= set(confluent.get_subjects())


def test_a_job_waits_for_a_registry_that_is_away(
    kafka: DevBroker, registry: str, confluent: SchemaRegistryClient, make_topic: Callable[..., str], tmp_path: Path
) -> None:
    topic = make_topic()
    fill(kafka, confluent, topic, 1)
    options = {"restart__strategy_type": "fixed-delay", "restart__strategy_fixed__delay_attempts": "1000"}
    options |= {"restart__strategy_fixed__delay_delay": "10 ms", "execution_checkpointing_interval": "50 ms"}
    env = environment(tmp_path, **options)
    with Door() as door:
        at = urlsplit(registry)
        assert at.port is not None
        door.lead_to(at.port)
        values = ConfluentRegistryAvroDeserializationSchema.for_generic(
            None, f"http://127.0.0.1:{door.port}{at.path}", QUICK
        )
        source = (
            KafkaSource.builder()
            .set_bootstrap_servers(kafka.bootstrap_servers)
            .set_topics(topic)
            .set_value_only_deserializer(values)
            .build()
        )
        with collecting(
            env.from_source(source, WatermarkStrategy.no_watermarks(), "values"), "a registry that is away"
        ) as found:
            assert next(found) == {"count": 0}
            door.shut()
            # A schema that the job does not know yet.
            theirs = AvroSerializer(confluent, json.dumps(URL), conf={**BY_TOPIC})
            producer = Producer({"bootstrap.servers": kafka.bootstrap_servers})
            producer.produce(topic, theirs({"url": "http://new"}, SerializationContext(f"{topic}-2", "value")))
            producer.flush()
            seen = threading.Event()
            while door.turned_away < 2:
                seen.wait(0.01)
            door.open()
            assert next(found) == {"url": "http://new"}


def test_a_record_whose_schema_is_not_known_is_named(
    kafka: DevBroker, registry: str, make_topic: Callable[..., str], tmp_path: Path
) -> None:
    topic = make_topic()
    producer = Producer({"bootstrap.servers": kafka.bootstrap_servers})
    producer.produce(topic, b"\0" + (2_000_000_001).to_bytes(4, "big") + b"x")
    producer.flush()
    env = environment(tmp_path)
    values = ConfluentRegistryAvroDeserializationSchema.for_generic(None, registry)
    env.from_source(reading(kafka, topic, values), WatermarkStrategy.no_watermarks(), "values").map(print)

    with pytest.raises(DataError, match=rf"at .*{topic}.*offset 0.*has no schema with id 2000000001") as caught:
        env.execute()
    assert caught.value.record is not None


def test_a_schema_that_the_registry_refuses_ends_the_job(
    kafka: DevBroker, registry: str, confluent: SchemaRegistryClient, make_topic: Callable[..., str], tmp_path: Path
) -> None:
    topic_in, topic_out = make_topic(), make_topic()
    fill(kafka, confluent, topic_in, 1)
    fill(kafka, confluent, topic_out, 1)
    confluent.set_compatibility(f"{topic_out}-key", "BACKWARD")
    env = environment(tmp_path)
    stream = env.from_source(
        reading(kafka, topic_in, KeyAndValue(registry)), WatermarkStrategy.no_watermarks(), "records"
    )
    stream.map(lambda pair: {**pair[0], **pair[1]}).sink_to(writing(kafka, topic_out, registry))

    with pytest.raises(ConfigError, match=f"not compatible with what subject '{topic_out}-key' has"):
        env.execute()
