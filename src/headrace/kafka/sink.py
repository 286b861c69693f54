"""`KafkaSink`, its record serializer and their builders, and the writers that they make."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol

from headrace.common.refusal import refuses
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
from headrace.kafka.client.protocol import Admin, ClientError, OnStatistics, Producer, ProducerRecord, Settings
from headrace.kafka.failures import error_of, undelivered
from headrace.kafka.lineage import LineageVertex, kafka_datasets
from headrace.kafka.metrics import Statistics, bytes_out, forwards, producer_rows, with_statistics
from headrace.kafka.properties import (
    checked,
    masked,
    producer_settings,
    resolve_secrets,
    token_source,
    translate,
    with_brokers,
)
from headrace.kafka.property_table import Role, read_bool, read_int
from headrace.kafka.record_size import check_size, largest_record, topic_limits, wire_size, with_batch_size
from headrace.kafka.serialization import (
    BuiltSchema,
    KafkaProducerRecord,
    KafkaRecordSerializationSchema,
    KafkaRecordSerializationSchemaBuilder,
    KafkaSinkContext,
    check_record,
)
from headrace.kafka.topics import TopicPartitions, require_topics
from headrace.kafka.transaction import KafkaTransaction, create_transaction
from headrace.metrics.registry import Row

_LOG = logging.getLogger("headrace.kafka")

_TIMEOUT_MS = 30_000
_METADATA_MAX_AGE_MS = 300_000
_FLUSH_SLICE_S = 5.0
_MAX_PREFIX_BYTES = 64_000


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

    @property
    def topic(self) -> str | None:
        """The topic of all records; None if each record chooses."""
        return self.record_serializer.topic

    def get_lineage_vertex(self) -> LineageVertex:
        """*Extension*: which topic it writes; none if each record chooses."""
        topics = [] if self.topic is None else [self.topic]
        return LineageVertex(kafka_datasets(topics, None, dict(self.properties)) if topics else ())

    def client_settings(self) -> dict[str, str]:
        """Settings for a producer of this sink, under librdkafka's names."""
        return producer_settings(resolve_secrets(dict(self.properties)))

    def create_admin(self, timeout_s: float | None = None) -> Admin:
        """Asks this sink's cluster; each call waits for `timeout_s` at most, or as its properties say."""
        try:
            return default_client().admin(
                self.client_settings(),
                self.timeout_s if timeout_s is None else timeout_s,
                token=token_source(dict(self.properties)),
            )
        except ClientError as error:
            raise error_of("the Kafka sink could not be set up", error.failure, self.bootstrap_servers) from None

    def create_writer(self, context: WriterContext, transaction: Transaction | None) -> SinkWriter:
        if self.delivery_guarantee is DeliveryGuarantee.EXACTLY_ONCE:
            if not isinstance(transaction, KafkaTransaction):
                raise InternalError(f"an exactly-once Kafka sink was given {transaction!r} as its transaction")
            largest = self._largest_record(context, transaction.topic_limits)
            made = outgoing(self, context, lambda: transaction.producer, largest)
            return KafkaTransactionalWriter(self, made, transaction)
        statistics = Statistics()
        hear = statistics.hear if context.is_reported else None
        settings: Settings = {"client.id": f"{context.job_name}-{context.operator_name}-{context.subtask}"} | (
            self.client_settings()
        )
        settings = with_statistics(settings, is_reported=context.is_reported)
        producer = self._create_producer(settings, hear)
        try:
            # Meanwhile the producer connects.
            limits = self._look_at_topic()
            fitting = with_batch_size(settings, limits.values())
            if fitting != settings:
                producer.close()
                producer = self._create_producer(fitting, hear)
            made = outgoing(self, context, lambda: producer, self._largest_record(context, limits))
            return KafkaWriter(self, made, producer, statistics)
        except BaseException:
            producer.close()
            raise

    def check_client(self) -> None:
        """Raises `ConfigError` for properties that a producer cannot have."""
        self._create_producer(self.client_settings()).close()

    def _create_producer(self, settings: Settings, on_statistics: OnStatistics | None = None) -> Producer:
        try:
            return default_client().producer(
                settings, token=token_source(dict(self.properties)), on_statistics=on_statistics
            )
        except ClientError as error:
            raise error_of("the Kafka sink could not be set up", error.failure, self.bootstrap_servers) from None

    def _look_at_topic(self) -> dict[str, int]:
        """Whether the topic is there, and how many bytes it takes in one batch, if that may be known."""
        if self.topic is None:
            return {}
        admin = self.create_admin()
        try:
            require_topics(
                admin,
                [self.topic],
                self.bootstrap_servers,
                may_create=self.may_create_topics,
                timeout_s=self.timeout_s,
            )
            return topic_limits(admin, [self.topic])
        except ClientError as error:
            what = f"the settings of topic {self.topic!r} could not be read"
            raise error_of(what, error.failure, self.bootstrap_servers) from None
        finally:
            admin.close()

    def _largest_record(self, context: WriterContext, limits: Mapping[str, int]) -> int | None:
        """How many bytes a record may have; None where nobody has to know before it is sent."""
        limit = None if self.topic is None else limits.get(self.topic)
        return largest_record(self.client_settings(), limit) if context.checks_each else None

    def create_transaction(
        self, sinks: Sequence[Sink], sources: Sequence[Source], context: TransactionContext
    ) -> Transaction:
        return create_transaction([_kafka_sink(sink) for sink in sinks], sources, context)

    def __repr__(self) -> str:
        return (
            f"KafkaSink(topic={self.topic!r}, {self.delivery_guarantee.name}, "
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
        return self._set("set_bootstrap_servers", {"bootstrap.servers": bootstrap_servers})

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
        if not isinstance(transactional_id_prefix, str):
            raise ConfigError(f"`set_transactional_id_prefix` takes a text, got {transactional_id_prefix!r}")
        if len(transactional_id_prefix.encode()) > _MAX_PREFIX_BYTES:
            raise ConfigError(f"the transactional id prefix has more than {_MAX_PREFIX_BYTES} bytes; shorten it")
        self._prefix = transactional_id_prefix
        return self

    def set_record_serializer(self, record_serializer: KafkaRecordSerializationSchema) -> KafkaSinkBuilder:
        """How elements become records."""
        if not isinstance(record_serializer, KafkaRecordSerializationSchema):
            is_builder = isinstance(record_serializer, KafkaRecordSerializationSchemaBuilder)
            cure = "call its `build()`" if is_builder else "make one with `KafkaRecordSerializationSchema.builder()`"
            raise ConfigError(
                "`set_record_serializer` takes a KafkaRecordSerializationSchema, got "
                f"{type(record_serializer).__name__}; {cure}"
            )
        self._serializer = record_serializer
        return self

    def set_property(self, key: str, value: str) -> KafkaSinkBuilder:
        """A property of the Kafka producer, under the Java client's or librdkafka's name.

        *Extension*: `headrace.marker.topic` and `headrace.marker.group` say where an EXACTLY_ONCE sink keeps the proof
        of its last commit; the group's name is followed by the region's. The value of a property that is a secret may
        be `env:NAME` or `file:PATH`, and is looked up there when a client is made.
        """
        if not isinstance(key, str):
            raise ConfigError(f"`set_property` takes the name of a property, got {type(key).__name__}")
        return self._set("set_property", {key: value})

    def set_properties(self, props: Mapping[str, str]) -> KafkaSinkBuilder:
        """Several properties; later calls win. *Extension*: PyFlink's sink takes them singly only."""
        return self._set("set_properties", props)

    def set_kafka_producer_config(self, props: Mapping[str, str]) -> KafkaSinkBuilder:
        """The same as `set_properties`, under the name that it has in Flink's Java API. *Extension*."""
        return self._set("set_kafka_producer_config", props)

    def _set(self, setter: str, properties: Mapping[str, str]) -> KafkaSinkBuilder:
        self._properties.update(checked(properties, setter))
        return self

    def build(self) -> KafkaSink:
        """The sink. Raises `ConfigError` for what is missing or contradicts itself; nothing is contacted."""
        properties = with_brokers(self._properties, "a KafkaSink needs brokers: call `set_bootstrap_servers`")
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
        forwards(properties, "register.producer.metrics")
        read_int(properties, "transaction.timeout.ms", 0)
        read_int(properties, "default.api.timeout.ms", 0)
        read_bool(properties, "allow.auto.create.topics", True)
        for warning in translation.warnings:
            _LOG.warning("KafkaSink: %s", warning)
        return KafkaSink(tuple(properties.items()), self._serializer, self._guarantee, self._prefix)


class KafkaWriter(SinkWriter):
    """Writes without transactions: NONE and AT_LEAST_ONCE."""

    passes_over_failures = False
    """For the legacy sink to set."""

    def __init__(
        self, sink: KafkaSink, outgoing: Outgoing, producer: Producer, statistics: Statistics | None = None
    ) -> None:
        self.serialize, self.serializes_timestamp = outgoing.serialize, outgoing.serializes_timestamp
        self.outgoing = outgoing
        self._sink = sink
        self._statistics = statistics or Statistics()
        self._errors = 0
        self._servers = sink.bootstrap_servers
        self._waits = sink.delivery_guarantee is DeliveryGuarantee.AT_LEAST_ONCE
        self._producer = producer
        self._is_closed = False

    @property
    def dropped(self) -> int:
        return self.outgoing.dropped

    def write(self, values: Sequence[Any], timestamps: Sequence[int] | None) -> None:
        try:
            self.outgoing.produce(self._producer, values, timestamps)
        except ClientError as error:
            raise error_of("a record could not be written", error.failure, self._servers) from None
        self._raise_failures()

    def _raise_failures(self) -> None:
        failures = self._producer.take_failures()
        if not failures:
            return
        self._errors += len(failures)
        if not self.passes_over_failures:
            raise error_of(undelivered(failures), failures[0], self._servers)
        _LOG.error("%s, and lost, as `set_log_failures_only` has it: %s", undelivered(failures), failures[0])

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

    def metrics(self) -> Iterator[Row]:
        return writer_rows(self._sink, self._statistics, self._errors)

    def close(self) -> None:
        if not self._is_closed:
            self._is_closed = True
            self._producer.close()


class KafkaTransactionalWriter(SinkWriter):
    """Writes into its region's transaction: EXACTLY_ONCE."""

    def __init__(self, sink: KafkaSink, outgoing: Outgoing, transaction: KafkaTransaction) -> None:
        self._sink = sink
        self.serialize, self.serializes_timestamp = outgoing.serialize, outgoing.serializes_timestamp
        self.outgoing = outgoing
        self._transaction = transaction

    @property
    def dropped(self) -> int:
        return self.outgoing.dropped

    def write(self, values: Sequence[Any], timestamps: Sequence[int] | None) -> None:
        if values:
            with self._transaction.producing("a record could not be written") as producer:
                self.outgoing.produce(producer, values, timestamps)

    def poll(self) -> None:
        self._transaction.poll()

    def flush(self) -> None:
        self._transaction.flush()

    def metrics(self) -> Iterator[Row]:
        transaction, topic = self._transaction, self._sink.topic
        errors = transaction.failed.total() if topic is None else transaction.failed[topic]
        yield from writer_rows(self._sink, transaction.statistics, errors)
        yield from transaction.metrics()


def writer_rows(sink: KafkaSink, statistics: Statistics, errors: int) -> Iterator[Row]:
    """The metrics of a writer; of a producer that several sinks share each shows what went to its topic."""
    yield Row("numRecordsOutErrors", errors)
    yield Row("numRecordsSendErrors", errors)
    yield Row("currentSendTime", statistics.send_ms)
    size = bytes_out(statistics.found, sink.topic)
    yield Row("numBytesOut", size)
    yield Row("numBytesSend", size)
    if forwards(dict(sink.properties), "register.producer.metrics"):
        yield from producer_rows(statistics)


class Outgoing(Protocol):
    """How a writer's elements go out: what `serialize` makes of one, and `produce` of many of those."""

    serialize: Callable[..., Any] | None
    serializes_timestamp: bool
    dropped: int

    def produce(self, producer: Producer, values: Sequence[Any], timestamps: Sequence[int] | None) -> None: ...


def outgoing(
    sink: KafkaSink, context: WriterContext, producer: Callable[[], Producer], largest: int | None
) -> Outgoing:
    """What the sink's record serializer asks for, and no more. With `largest` what serializes raises for an element
    that cannot be written."""
    schema = sink.record_serializer
    if isinstance(schema, BuiltSchema) and schema.has_columns:
        return Columns(schema, largest)
    max_age_s = read_int(dict(sink.properties), "metadata.max.age.ms", _METADATA_MAX_AGE_MS) / 1000
    # The producer itself is asked, as it has to know of a partition before it writes there.
    partitions = TopicPartitions(
        lambda topic: producer().partitions(topic, sink.timeout_s), max_age_s, sink.bootstrap_servers
    )
    place = KafkaSinkContext(
        context.subtask, context.parallelism, partitions.of, context.metrics.add_group("serializer")
    )
    return WholeRecords(schema, place, largest)


class Columns(Outgoing):
    """Values, or pairs of key and value, all for one topic. The public attributes are for the legacy sink to set."""

    serializes_timestamp = False
    dropped = 0
    writes_timestamps = True
    partition: int | None = None
    """Where all records go; None: the partitioner chooses."""

    def __init__(self, schema: BuiltSchema, largest: int | None = None) -> None:
        assert schema.topic is not None
        self._topic = schema.topic
        self._has_keys = schema.key_schema is not None
        self.serialize = schema.columns()
        if largest is not None:
            self.serialize = self._checking(self.serialize, largest)

    def _checking(self, serialize: Callable[[Any], Any] | None, largest: int) -> Callable[[Any], Any]:
        topic = self._topic
        room = largest - wire_size(None)
        """For key and value together."""

        def look_closer(key: Any, value: Any) -> tuple[bytes | None, bytes | None]:
            (key,), (value,) = _as_bytes((key,), topic, "key"), _as_bytes((value,), topic)
            check_size(wire_size(value, key), largest)
            return key, value

        # Of each record: what is as it should be costs a look.

        def make(element: Any) -> Any:
            value = element if serialize is None else serialize(element)
            return value if type(value) is bytes and len(value) <= room else look_closer(None, value)[1]

        def make_pair(element: Any) -> Any:
            key, value = element if serialize is None else serialize(element)
            if type(value) is bytes and type(key) is bytes and len(key) + len(value) <= room:
                return key, value
            return look_closer(key, value)

        return make_pair if self._has_keys else make

    def produce(self, producer: Producer, values: Sequence[Any], timestamps: Sequence[int] | None) -> None:
        keys: Sequence[bytes | None] | None = None
        if self._has_keys and values:
            keys, values = zip(*values, strict=True)
        times = timestamps if self.writes_timestamps else None
        partitions = None if self.partition is None else [self.partition] * len(values)
        try:
            producer.produce(self._topic, values, keys, times, partitions)
        except TypeError:
            checked = None if keys is None else _as_bytes(keys, self._topic, "key")
            producer.produce(self._topic, _as_bytes(values, self._topic), checked, times, partitions)


class WholeRecords(Outgoing):
    """A record for each element, a tuple as a `KafkaProducerRecord` is one, or None, which is counted."""

    serializes_timestamp = True

    def __init__(
        self, schema: KafkaRecordSerializationSchema, context: KafkaSinkContext, largest: int | None = None
    ) -> None:
        schema.open(context)
        self.dropped = 0
        make: Callable[[Any, int], ProducerRecord | None]
        make = schema.maker(context) if isinstance(schema, BuiltSchema) else _checked(schema, context)
        self.serialize = make if largest is None else _fitting(make, largest, context)

    def produce(self, producer: Producer, values: Sequence[Any], timestamps: Sequence[int] | None) -> None:
        records = [record for record in values if record is not None]
        self.dropped += len(values) - len(records)
        try:
            producer.produce_records(records)
        except TypeError:
            producer.produce_records([_with_bytes(record) for record in records])


def _checked(
    schema: KafkaRecordSerializationSchema, context: KafkaSinkContext
) -> Callable[[Any, int], KafkaProducerRecord | None]:
    """A program's own serializer, with a look at what it gives."""

    def make(element: Any, timestamp: int) -> KafkaProducerRecord | None:
        record = schema.serialize(element, context, timestamp if timestamp >= 0 else None)
        if record is not None:
            check_record(record)
        return record

    return make


def _fitting(
    make: Callable[[Any, int], ProducerRecord | None], largest: int, context: KafkaSinkContext
) -> Callable[[Any, int], ProducerRecord | None]:
    """What `make` makes, with a look at what can be written of it."""

    def made(element: Any, timestamp: int) -> ProducerRecord | None:
        record = make(element, timestamp)
        if record is None:
            return None
        topic, value, key, partition, _, headers = record
        if _TOPIC.fullmatch(topic) is None:
            raise DataError(f"{topic!r:.300} cannot be the name of a topic: it has to be 1 to 249 of a-z A-Z 0-9 . _ -")
        if not (type(value) is bytes or value is None) or not (type(key) is bytes or key is None):
            record = _with_bytes(record)
            value, key = record.value, record.key
        check_size(wire_size(value, key, headers), largest)
        if partition is not None and partition not in context.get_partitions_for_topic(topic):
            raise DataError(f"topic {topic!r} has no partition {partition}")
        return record

    return made


_TOPIC: Final = re.compile(r"[a-zA-Z0-9._-]{1,249}")


def _with_bytes(record: ProducerRecord) -> KafkaProducerRecord:
    topic, given, given_key, partition, timestamp, headers = record
    (value,), (key,) = _as_bytes((given,), topic), _as_bytes((given_key,), topic, "key")
    return KafkaProducerRecord(topic, value, key, partition, timestamp, headers)


def _as_bytes(values: Sequence[Any], topic: str, part: str = "value") -> Sequence[bytes | None]:
    """The same values (or keys, as `part` says), which have to be like bytes, or None."""
    checked = [bytes(value) if isinstance(value, bytes | bytearray | memoryview) else value for value in values]
    for value in checked:
        if value is not None and not isinstance(value, bytes):
            raise DataError(
                f"the {part} of a record for topic {topic!r} is a {type(value).__name__}, and has to be bytes; "
                f"`set_{part}_serialization_schema` takes a schema that makes bytes of it (`SimpleStringSchema()` of "
                "a str)"
            )
    return checked
