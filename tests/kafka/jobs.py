"""Small jobs for the tests, and a reader of what they wrote."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from confluent_kafka import Consumer, TopicPartition

from headrace.common import Configuration
from headrace.common.serialization import SimpleStringSchema
from headrace.datastream import CloseableIterator, DataStream, StreamExecutionEnvironment
from headrace.kafka import (
    DeliveryGuarantee,
    KafkaOffsetsInitializer,
    KafkaRecordSerializationSchema,
    KafkaSink,
    KafkaSource,
)

TIMEOUT_S = 30.0


def environment(folder: Path | None = None, **options: str) -> StreamExecutionEnvironment:
    """An environment whose jobs keep their checkpoints in `folder`; `execution_checkpointing_interval="1 s"`."""
    configuration = Configuration()
    if folder is not None:
        configuration.set_string("execution.checkpointing.dir", str(folder))
    for name, value in options.items():
        configuration.set_string(name.replace("__", "-").replace("_", "."), value)
    return StreamExecutionEnvironment.get_execution_environment(configuration)


def source(servers: str, topic: str, properties: Mapping[str, str] | None = None) -> KafkaSource:
    """Everything that a topic holds now."""
    return (
        KafkaSource.builder()
        .set_bootstrap_servers(servers)
        .set_topics(topic)
        .set_bounded(KafkaOffsetsInitializer.latest())
        .set_value_only_deserializer(SimpleStringSchema())
        .set_properties(properties or {})
        .build()
    )


def sink(
    servers: str,
    topic: str,
    guarantee: DeliveryGuarantee = DeliveryGuarantee.EXACTLY_ONCE,
    properties: Mapping[str, str] | None = None,
) -> KafkaSink:
    """Strings to a topic."""
    schema = KafkaRecordSerializationSchema.builder().set_topic(topic)
    schema.set_value_serialization_schema(SimpleStringSchema())
    builder = KafkaSink.builder().set_bootstrap_servers(servers).set_record_serializer(schema.build())
    builder.set_delivery_guarantee(guarantee)
    if guarantee is DeliveryGuarantee.EXACTLY_ONCE:
        builder.set_transactional_id_prefix(f"{topic}-prefix")
    for name, value in (properties or {}).items():
        builder.set_property(name, value)
    return builder.build()


@contextlib.contextmanager
def collecting(stream: DataStream, job_name: str) -> Iterator[CloseableIterator]:
    """A stream's elements; the job is cancelled, and the wait for another one fails, if this takes too long."""
    elements = stream.execute_and_collect(job_name)
    assert isinstance(elements, CloseableIterator)
    timer = threading.Timer(TIMEOUT_S, elements._job.cancel)
    timer.start()
    try:
        with elements:
            yield elements
    finally:
        timer.cancel()


def committed(servers: str, topic: str, properties: Iterable[tuple[str, str]] = ()) -> list[bytes | None]:
    """What a `read_committed` reader finds in partition 0."""
    settings = {"bootstrap.servers": servers, "group.id": topic, "enable.partition.eof": True, "log_level": 2}
    consumer = Consumer({**settings, "isolation.level": "read_committed", **dict(properties)})
    consumer.assign([TopicPartition(topic, 0, 0)])
    values: list[bytes | None] = []
    deadline = time.monotonic() + TIMEOUT_S
    while True:
        assert time.monotonic() < deadline
        message = consumer.poll(1.0)
        if message is None:
            continue
        if message.error() is not None:
            consumer.close()
            return values
        values.append(message.value())
