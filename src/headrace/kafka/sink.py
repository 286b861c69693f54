"""`KafkaSink`, its record serializer and their builders, and the writers that they make."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from headrace.common.refusal import refuses
from headrace.common.serialization import SerializationSchema, Serializer, serializer_of
from headrace.connector import (
    DeliveryGuarantee,
    Sink,
    SinkWriter,
    Source,
    Transaction,
    TransactionContext,
    WriterContext,
)
from headrace.errors import ConfigError, DataError, InternalError
from headrace.kafka.client import default_client
from headrace.kafka.client.protocol import Admin, ClientError, Producer, Settings
from headrace.kafka.failures import error_of, undelivered
from headrace.kafka.properties import (
    Role,
    masked,
    producer_settings,
    read_bool,
    read_int,
    resolve_secrets,
    token_source,
    translate,
)
from headrace.kafka.topics import require_topics
from headrace.kafka.transaction import KafkaTransaction, create_transaction

_LOG = logging.getLogger("headrace.kafka")

_TIMEOUT_MS = 30_000
_FLUSH_SLICE_S = 5.0
_MAX_PREFIX_BYTES = 64_000
_LATER = "it comes with a later version; set one topic, and put the rest into the value"


@dataclass(frozen=True)
class KafkaRecordSerializationSchema:
    """How an element becomes a record of a topic. Made by `KafkaRecordSerializationSchema.builder()`."""

    topic: str
    value_schema: SerializationSchema | Serializer
    key_schema: SerializationSchema | Serializer | None = None

    @staticmethod
    def builder() -> KafkaRecordSerializationSchemaBuilder:
        """A builder for a record serializer."""
        return KafkaRecordSerializationSchemaBuilder()

    def serializer(self) -> Callable[[Any], Any] | None:
        """One function for hot loops: element to value, or to (key, value); None: elements are values already."""
        to_value = serializer_of(self.value_schema)
        if self.key_schema is None:
            return to_value
        to_key = serializer_of(self.key_schema)
        if to_key is not None and to_value is not None:
            return lambda element: (to_key(element), to_value(element))
        if to_key is not None:
            return lambda element: (to_key(element), element)
        if to_value is not None:
            return lambda element: (element, to_value(element))
        return lambda element: (element, element)


@refuses({"set_topic_selector": _LATER, "set_header_provider": _LATER, "set_partitioner": _LATER})
class KafkaRecordSerializationSchemaBuilder:
    """Says how a sink's elements become records.

    >>> from headrace.common.serialization import SimpleStringSchema
    >>> schema = (
    ...     KafkaRecordSerializationSchema.builder()
    ...     .set_topic("rss.counts")
    ...     .set_key_serialization_schema(lambda element: element["source"].encode())
    ...     .set_value_serialization_schema(lambda element: str(element["count"]).encode())
    ...     .build()
    ... )
    >>> schema.serializer()({"source": "reuters", "count": 3})
    (b'reuters', b'3')
    """

    def __init__(self) -> None:
        self._topic: str | None = None
        self._key_schema: SerializationSchema | Serializer | None = None
        self._value_schema: SerializationSchema | Serializer | None = None

    def set_topic(self, topic: str) -> KafkaRecordSerializationSchemaBuilder:
        """The topic of all records."""
        if not isinstance(topic, str) or not topic:
            raise ConfigError(f"`set_topic` takes the name of a topic, got {topic!r}")
        self._topic = topic
        return self

    def set_key_serialization_schema(
        self, key_serialization_schema: SerializationSchema | Serializer
    ) -> KafkaRecordSerializationSchemaBuilder:
        """How an element becomes its record's key, which chooses the partition; without it records have no key.

        *Extension*: any callable that gives bytes will do.
        """
        serializer_of(key_serialization_schema)
        self._key_schema = key_serialization_schema
        return self

    def set_value_serialization_schema(
        self, value_serialization_schema: SerializationSchema | Serializer
    ) -> KafkaRecordSerializationSchemaBuilder:
        """How an element becomes its record's value. *Extension*: any callable that gives bytes will do."""
        serializer_of(value_serialization_schema)
        self._value_schema = value_serialization_schema
        return self

    def build(self) -> KafkaRecordSerializationSchema:
        """The record serializer. Raises `ConfigError` without a topic or a value schema."""
        if self._topic is None:
            raise ConfigError("a KafkaRecordSerializationSchema needs a topic: call `set_topic`")
        if self._value_schema is None:
            raise ConfigError(
                "a KafkaRecordSerializationSchema needs a value schema: call `set_value_serialization_schema`"
            )
        return KafkaRecordSerializationSchema(self._topic, self._value_schema, self._key_schema)


@dataclass(frozen=True, repr=False)
class KafkaSink(Sink):
    """Writes records to a Kafka topic. Made by `KafkaSink.builder()`.

    | `DeliveryGuarantee` | on failure and restart |
    |---|---|
    | `EXACTLY_ONCE` | guarantees each result is visible once to `read_committed` readers, after its checkpoint |
    | `AT_LEAST_ONCE` | guarantees each result is acknowledged before its checkpoint completes; may repeat |
    | `NONE` (the default, as in Flink) | does not guarantee anything |

    *Differences from PyFlink*: a transaction that times out loses nothing, its records are produced again.
    """

    properties: tuple[tuple[str, str], ...]
    record_serializer: KafkaRecordSerializationSchema
    delivery_guarantee: DeliveryGuarantee = DeliveryGuarantee.NONE
    transactional_id_prefix: str | None = None

    @staticmethod
    def builder() -> KafkaSinkBuilder:
        """A builder for a sink."""
        return KafkaSinkBuilder()

    @property
    def bootstrap_servers(self) -> str:
        """The brokers to begin with."""
        return dict(self.properties)["bootstrap.servers"]

    @property
    def timeout_s(self) -> float:
        """How long a call may wait for the brokers."""
        return read_int(dict(self.properties), "default.api.timeout.ms", _TIMEOUT_MS) / 1000

    @property
    def may_create_topics(self) -> bool:
        """Whether brokers that create a topic when it is asked for may do so."""
        return read_bool(dict(self.properties), "allow.auto.create.topics", True)

    def client_settings(self) -> dict[str, str]:
        """Settings for a producer of this sink, under librdkafka's names."""
        return producer_settings(resolve_secrets(dict(self.properties)))

    def create_admin(self) -> Admin:
        """Asks this sink's cluster."""
        try:
            return default_client().admin(
                self.client_settings(), self.timeout_s, token=token_source(dict(self.properties))
            )
        except ClientError as error:
            raise error_of("the Kafka sink could not be set up", error.failure, self.bootstrap_servers) from None

    def create_writer(self, context: WriterContext, transaction: Transaction | None) -> SinkWriter:
        if self.delivery_guarantee is DeliveryGuarantee.EXACTLY_ONCE:
            if not isinstance(transaction, KafkaTransaction):
                raise InternalError(f"an exactly-once Kafka sink was given {transaction!r} as its transaction")
            return KafkaTransactionalWriter(self, transaction)
        settings: Settings = {"client.id": f"{context.job_name}-{context.operator_name}-{context.subtask}"} | (
            self.client_settings()
        )
        try:
            producer = default_client().producer(settings, token=token_source(dict(self.properties)))
        except ClientError as error:
            raise error_of("the Kafka sink could not be set up", error.failure, self.bootstrap_servers) from None
        try:
            # Meanwhile the producer connects.
            self._require_topic()
        except BaseException:
            producer.close()
            raise
        return KafkaWriter(self, producer)

    def _require_topic(self) -> None:
        admin = self.create_admin()
        try:
            require_topics(
                admin,
                [self.record_serializer.topic],
                self.bootstrap_servers,
                may_create=self.may_create_topics,
                timeout_s=self.timeout_s,
            )
        finally:
            admin.close()

    def create_transaction(
        self, sinks: Sequence[Sink], sources: Sequence[Source], context: TransactionContext
    ) -> Transaction:
        return create_transaction([_kafka_sink(sink) for sink in sinks], sources, context)

    def __repr__(self) -> str:
        return (
            f"KafkaSink(topic={self.record_serializer.topic!r}, {self.delivery_guarantee.name}, "
            f"properties={masked(dict(self.properties))})"
        )


def _kafka_sink(sink: Sink) -> KafkaSink:
    if not isinstance(sink, KafkaSink):
        raise ConfigError(
            f"a KafkaSink and a {type(sink).__name__} cannot share a transaction: give one of them another guarantee"
        )
    return sink


@refuses(
    {"set_transaction_naming_strategy": "Headrace needs one transactional id for each region, and no pool of them"}
)
class KafkaSinkBuilder:
    """Says where and how a `KafkaSink` writes. Every method but `build` returns the builder."""

    def __init__(self) -> None:
        self._properties: dict[str, str] = {}
        self._serializer: KafkaRecordSerializationSchema | None = None
        self._guarantee = DeliveryGuarantee.NONE
        self._prefix: str | None = None

    def set_bootstrap_servers(self, bootstrap_servers: str) -> KafkaSinkBuilder:
        """The brokers to begin with, `host:port`, separated by commas."""
        return self.set_property("bootstrap.servers", bootstrap_servers)

    def set_delivery_guarantee(self, delivery_guarantee: DeliveryGuarantee) -> KafkaSinkBuilder:
        """What holds after a failure; NONE without this call."""
        if not isinstance(delivery_guarantee, DeliveryGuarantee):
            raise ConfigError(f"`set_delivery_guarantee` takes a DeliveryGuarantee, got {delivery_guarantee!r}")
        self._guarantee = delivery_guarantee
        return self

    def set_transactional_id_prefix(self, transactional_id_prefix: str) -> KafkaSinkBuilder:
        """What transactional ids begin with; needed for EXACTLY_ONCE. Job and region follow it.

        *Differences from PyFlink*: connected sinks share a transaction, whose id begins with the first of their
        prefixes in the alphabet. They may have the same one.
        """
        if len(transactional_id_prefix.encode()) > _MAX_PREFIX_BYTES:
            raise ConfigError(f"the transactional id prefix has more than {_MAX_PREFIX_BYTES} bytes; shorten it")
        self._prefix = transactional_id_prefix
        return self

    def set_record_serializer(self, record_serializer: KafkaRecordSerializationSchema) -> KafkaSinkBuilder:
        """How elements become records."""
        if not isinstance(record_serializer, KafkaRecordSerializationSchema):
            raise ConfigError(
                "`set_record_serializer` takes a KafkaRecordSerializationSchema, got "
                f"{type(record_serializer).__name__}; make one with `KafkaRecordSerializationSchema.builder()`"
            )
        self._serializer = record_serializer
        return self

    def set_property(self, key: str, value: str) -> KafkaSinkBuilder:
        """A property of the Kafka producer, under the Java client's or librdkafka's name.

        *Extension*: `headrace.marker.topic` and `headrace.marker.group` say where an EXACTLY_ONCE sink keeps the proof
        of its last commit; the group's name is followed by the region's. The value of a property that is a secret may
        be `env:NAME` or `file:PATH`, and is looked up there when a client is made.
        """
        if not isinstance(key, str) or not isinstance(value, str):
            raise ConfigError(f"properties are strings; `{key}` is set to a {type(value).__name__}")
        self._properties[key] = value
        return self

    def set_properties(self, props: Mapping[str, str]) -> KafkaSinkBuilder:
        """Several properties; later calls win. *Extension*: PyFlink's sink takes them singly only."""
        for key, value in props.items():
            self.set_property(key, value)
        return self

    def set_kafka_producer_config(self, props: Mapping[str, str]) -> KafkaSinkBuilder:
        """The same as `set_properties`, under the name that it has in Flink's Java API. *Extension*."""
        return self.set_properties(props)

    def build(self) -> KafkaSink:
        """The sink. Raises `ConfigError` for what is missing or contradicts itself; nothing is contacted."""
        properties = self._properties
        if not properties.get("bootstrap.servers"):
            raise ConfigError("a KafkaSink needs brokers: call `set_bootstrap_servers`")
        if self._serializer is None:
            raise ConfigError("a KafkaSink needs a record serializer: call `set_record_serializer`")
        if self._guarantee is DeliveryGuarantee.EXACTLY_ONCE:
            if not self._prefix:
                raise ConfigError(
                    "DeliveryGuarantee.EXACTLY_ONCE needs a prefix for transactional ids, of this job alone on its "
                    "cluster: call `set_transactional_id_prefix`"
                )
            for name, needed in (("enable.idempotence", ("true",)), ("acks", ("all", "-1"))):
                if properties.get(name, needed[0]) not in needed:
                    raise ConfigError(
                        f"DeliveryGuarantee.EXACTLY_ONCE needs `{name}` {needed[0]}, it is {properties[name]!r}; "
                        "take it away"
                    )
        translation = translate(properties, Role.PRODUCER)
        settings = producer_settings(properties)
        if self._guarantee is DeliveryGuarantee.EXACTLY_ONCE and settings["enable.idempotence"] != "true":
            raise ConfigError(
                "DeliveryGuarantee.EXACTLY_ONCE needs idempotence, and cannot have it with `retries` 0, `acks` other "
                "than all, or with more than 5 `max.in.flight.requests.per.connection`; take what sets these away"
            )
        token_source(properties)
        read_int(properties, "transaction.timeout.ms", 0)
        read_int(properties, "default.api.timeout.ms", 0)
        read_bool(properties, "allow.auto.create.topics", True)
        for warning in translation.warnings:
            _LOG.warning("KafkaSink: %s", warning)
        return KafkaSink(tuple(properties.items()), self._serializer, self._guarantee, self._prefix)


class KafkaWriter(SinkWriter):
    """Writes without transactions: NONE and AT_LEAST_ONCE."""

    def __init__(self, sink: KafkaSink, producer: Producer) -> None:
        self.serialize = sink.record_serializer.serializer()
        self._topic = sink.record_serializer.topic
        self._has_keys = sink.record_serializer.key_schema is not None
        self._servers = sink.bootstrap_servers
        self._waits = sink.delivery_guarantee is DeliveryGuarantee.AT_LEAST_ONCE
        self._producer = producer
        self._is_closed = False

    def write(self, values: Sequence[Any], timestamps: Sequence[int] | None) -> None:
        try:
            produce(self._producer, self._topic, values, timestamps, has_keys=self._has_keys)
        except ClientError as error:
            raise error_of("a record could not be written", error.failure, self._servers) from None
        self._raise_failures()

    def _raise_failures(self) -> None:
        if failures := self._producer.take_failures():
            raise error_of(undelivered(failures), failures[0], self._servers)

    def poll(self) -> None:
        try:
            self._producer.poll()
        except ClientError as error:
            raise error_of("records could not be written", error.failure, self._servers) from None
        self._raise_failures()

    def flush(self) -> None:
        if self._waits:
            self.finish()
        else:
            self._raise_failures()

    def finish(self) -> None:
        # Ends: every record is delivered or fails within `delivery.timeout.ms`.
        try:
            while self._producer.flush(_FLUSH_SLICE_S) > 0:
                self._raise_failures()
        except ClientError as error:
            raise error_of("records could not be written", error.failure, self._servers) from None
        self._raise_failures()

    def close(self) -> None:
        if not self._is_closed:
            self._is_closed = True
            self._producer.close()


class KafkaTransactionalWriter(SinkWriter):
    """Writes into its region's transaction: EXACTLY_ONCE."""

    def __init__(self, sink: KafkaSink, transaction: KafkaTransaction) -> None:
        self.serialize = sink.record_serializer.serializer()
        self._topic = sink.record_serializer.topic
        self._has_keys = sink.record_serializer.key_schema is not None
        self._transaction = transaction

    def write(self, values: Sequence[Any], timestamps: Sequence[int] | None) -> None:
        if values:
            with self._transaction.producing(f"a record for topic {self._topic!r} could not be written") as producer:
                produce(producer, self._topic, values, timestamps, has_keys=self._has_keys)

    def poll(self) -> None:
        self._transaction.poll()

    def flush(self) -> None:
        self._transaction.flush()


def produce(
    producer: Producer, topic: str, values: Sequence[Any], timestamps: Sequence[int] | None, *, has_keys: bool
) -> None:
    """Hand over what `serialize` made: values, or pairs of key and value."""
    keys: Sequence[bytes | None] | None = None
    if has_keys and values:
        keys, values = zip(*values, strict=True)
    try:
        producer.produce(topic, values, keys, timestamps)
    except TypeError:
        checked = None if keys is None else _as_bytes(keys, topic)
        producer.produce(topic, _as_bytes(values, topic), checked, timestamps)


def _as_bytes(values: Sequence[Any], topic: str) -> Sequence[bytes | None]:
    """The same values, which have to be like bytes, or None."""
    checked = [bytes(value) if isinstance(value, bytes | bytearray | memoryview) else value for value in values]
    for value in checked:
        if value is not None and not isinstance(value, bytes):
            raise DataError(
                f"a record for topic {topic!r} is a {type(value).__name__}, and has to be bytes; set a serialization "
                "schema that makes bytes of it (`SimpleStringSchema` for str), or put a map before the sink"
            )
    return checked
