"""`FlinkKafkaConsumer`, `FlinkKafkaProducer` and `Semantic`: Flink's Kafka API before `KafkaSource` and `KafkaSink`.

Flink removed them with 2.0; programs for PyFlink 1.20 and older still have them. Each object makes a list of the calls
of the new builders that say the same: the source or sink is built by them, and the deprecation warning prints them, so
what is shown is what is done. Where the new classes do otherwise, `LegacyKafkaSource` and `LegacyKafkaSink` do as the
old ones did, and the warning says so.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import Enum
from typing import Any, Self

from headrace.common import TypeInformation, Types
from headrace.common.serialization import (
    ByteArraySchema,
    DeserializationSchema,
    SerializationSchema,
    SimpleStringSchema,
    deserializer_of,
    serializer_of,
)
from headrace.connector import (
    DeliveryGuarantee,
    SinkWriter,
    SourceContext,
    SourceReader,
    Transaction,
    WriterContext,
)
from headrace.connector.legacy import SinkFunction, SourceFunction
from headrace.errors import ConfigError
from headrace.kafka.client.protocol import ClientError, Failure
from headrace.kafka.failures import error_of
from headrace.kafka.offsets import Committed, KafkaOffsetResetStrategy, KafkaOffsetsInitializer
from headrace.kafka.properties import is_secret, with_brokers
from headrace.kafka.serialization import FlinkFixedPartitioner, KafkaRecordSerializationSchema
from headrace.kafka.sink import Columns, KafkaSink, KafkaTransactionalWriter, KafkaWriter
from headrace.kafka.source import KafkaSource

_DISCOVERY = "flink.partition-discovery.interval-millis"
_POLL_TIMEOUT = "flink.poll-timeout"
_DISABLE_METRICS = "flink.disable-metrics"


@dataclass(frozen=True, slots=True)
class _Chain:
    """Calls of a builder: as the value that they build, and as their text."""

    of: type[KafkaSource] | type[KafkaSink] | type[KafkaRecordSerializationSchema]
    calls: tuple[tuple[str, tuple[Any, ...]], ...]

    def build(self) -> Any:
        builder: Any = self.of.builder()
        for name, arguments in self.calls:
            getattr(builder, name)(*(a.build() if isinstance(a, _Chain) else a for a in arguments))
        return builder.build()

    def text(self, indent: str = "    ") -> str:
        calls = (f".{name}({self._shown(name, arguments, indent)})" for name, arguments in self.calls)
        return "".join(f"{indent}{line}\n" for line in (f"{self.of.__name__}.builder()", *calls, ".build()"))

    def _shown(self, name: str, arguments: tuple[Any, ...], indent: str) -> str:
        if name == "set_property" and is_secret(arguments[0]):
            return f"{arguments[0]!r}, '***'"
        if isinstance(arguments[0], _Chain):
            return f"\n{arguments[0].text(indent + '    ')}{indent}"
        return ", ".join(map(_as_code, arguments))


def _as_code(value: object) -> str:
    """An argument as a program would write it, as far as that is known."""
    match value:
        case SimpleStringSchema():
            return repr(value).replace("'utf-8'", "")
        case str() | int() | ByteArraySchema():
            return repr(value)
        case DeliveryGuarantee():
            return str(value)
        case KafkaOffsetsInitializer(Committed(), strategy):
            return f"KafkaOffsetsInitializer.committed_offsets({strategy})"
        case KafkaOffsetsInitializer():
            return repr(value)
        case _:
            # A schema of the program's own.
            name = getattr(value, "__name__", None)
            return name if isinstance(name, str) else f"{type(value).__name__}(…)"


def _warning(old: str, name: str, chain: _Chain, last: str, differences: Iterable[str]) -> str:
    """The text of a deprecation warning."""
    what = f"{old} is of Flink's old API, which Flink 2.0 removed. In the new one:"
    code = f"{name} = (\n{chain.text()})\n{last}\n"
    noted = "".join(f"- {difference}\n" for difference in differences)
    return f"{what}\n\n{code}" + (f"\nWhat that does otherwise:\n\n{noted}" if noted else "")


def _checked(properties: Mapping[str, str], whose: str, argument: str) -> dict[str, str]:
    """The properties, which are strings, and name the brokers."""
    if not isinstance(properties, Mapping):
        raise ConfigError(f"{whose} takes a dict as `{argument}`, got {type(properties).__name__}")
    for key, value in properties.items():
        if not isinstance(key, str) or not isinstance(value, str):
            raise ConfigError(f"properties are strings; `{key}` in `{argument}` is set to a {type(value).__name__}")
    return with_brokers(properties, f"{whose} needs brokers: give `bootstrap.servers` in `{argument}`")


def _set_property(properties: dict[str, str], old: str, new: str, value: str) -> None:
    if properties.get(new, value) != value:
        raise ConfigError(f"`{old}` and `{new}` are both set, and say different things; set one of them")
    properties[new] = value


def _metrics_switch(properties: dict[str, str], new: str) -> None:
    """The old property for metrics under its new name, which says the opposite."""
    if (disabled := properties.pop(_DISABLE_METRICS, None)) is not None:
        _set_property(properties, _DISABLE_METRICS, new, "false" if disabled.strip().lower() == "true" else "true")


class _Settled:
    """An object whose setters come before it is added to a program."""

    _is_added = False

    def _check_open(self) -> None:
        # On Flink it would still count. Here the plan has its source or sink by then.
        if self._is_added:
            kind = type(self).__name__
            raise ConfigError(f"this {kind} is part of the program already; set what it needs before it is added")


# Reading


@dataclass(frozen=True, repr=False)
class LegacyKafkaSource(KafkaSource):
    """A `KafkaSource` that does as a `FlinkKafkaConsumer`, where the two differ.

    Restored partitions of other topics are dropped (`keeps_unsubscribed`); a schema's `is_end_of_stream` is asked;
    Kafka commits by itself (`enable.auto.commit`) where no checkpoint does, and only there.
    """

    @property
    def end_of_stream(self) -> Callable[[Any], bool] | None:
        return _end_of_stream(self.schema)

    def create_reader(self, context: SourceContext) -> SourceReader:
        own = dict(self.properties)
        if context.commits_offsets:
            own["enable.auto.commit"] = "false"
        elif self.group_id is not None:
            own.setdefault("enable.auto.commit", "true")
        return super(LegacyKafkaSource, replace(self, properties=tuple(own.items()))).create_reader(context)


def _end_of_stream(schema: object) -> Callable[[Any], bool] | None:
    """The schema's `is_end_of_stream`, if it has one of its own."""
    if not isinstance(schema, DeserializationSchema):
        return None
    if type(schema).is_end_of_stream is DeserializationSchema.is_end_of_stream:
        return None
    return schema.is_end_of_stream


class FlinkKafkaConsumer(_Settled, SourceFunction):
    """Flink's old source of Kafka records, for `add_source`. Starts where the group is, unless a setter says otherwise.

    `topics` is one name or a list of them, `properties` are those of the Kafka consumer and, of Flink's own,
    `flink.partition-discovery.interval-millis` (without it partitions are looked for once). Creating and adding one
    warns, with the same in the new API (`KafkaSource`):

    >>> from headrace.common.serialization import SimpleStringSchema
    >>> with warnings.catch_warnings(record=True, action="always") as told:
    ...     consumer = FlinkKafkaConsumer("news", SimpleStringSchema(), {"bootstrap.servers": "localhost:9092"})
    >>> print(str(told[0].message).split("What that")[0].strip())
    FlinkKafkaConsumer is of Flink's old API, which Flink 2.0 removed. In the new one:
    <BLANKLINE>
    source = (
        KafkaSource.builder()
        .set_bootstrap_servers('localhost:9092')
        .set_topics('news')
        .set_starting_offsets(KafkaOffsetsInitializer.latest())
        .set_value_only_deserializer(SimpleStringSchema())
        .set_property('partition.discovery.interval.ms', '-1')
        .build()
    )
    stream = env.from_source(source, WatermarkStrategy.no_watermarks(), 'Custom Source')

    *Differences from PyFlink*: setters are called before `add_source`. `is_end_of_stream` of a schema ends the
    partition whose record it is, not all that the subtask reads. `latest` is settled when the job starts, and where a
    log does not hold a position any more, `KafkaSource` says what happens. *Extension*: schemas may be written in
    Python, or be any callable that takes bytes.
    """

    def __init__(
        self,
        topics: str | Sequence[str],
        deserialization_schema: DeserializationSchema | Callable[[bytes | None], Any],
        properties: Mapping[str, str],
    ) -> None:
        names = [topics] if isinstance(topics, str) else list(topics) if isinstance(topics, list | tuple) else []
        if not names or not all(isinstance(name, str) and name for name in names):
            raise ConfigError(
                f"FlinkKafkaConsumer takes a topic's name or a list of names as `topics`, got {topics!r}; for a "
                "pattern use `KafkaSource.builder().set_topic_pattern(…)`"
            )
        deserializer_of(deserialization_schema)
        self._topics = names
        self._schema = deserialization_schema
        self._properties = _checked(properties, "FlinkKafkaConsumer", "properties")
        self._starting: KafkaOffsetsInitializer | None = None
        self._commits_on_checkpoints = True
        self._keeps_unsubscribed = False
        warnings.warn(self.new_spelling("Custom Source"), DeprecationWarning, stacklevel=2)

    def set_start_from_earliest(self) -> Self:
        """Start at the first record that is still there."""
        return self._start(KafkaOffsetsInitializer.earliest())

    def set_start_from_latest(self) -> Self:
        """Start behind the last record there is."""
        return self._start(KafkaOffsetsInitializer.latest())

    def set_start_from_timestamp(self, startup_offsets_timestamp: int) -> Self:
        """Start at the first record that is not older than this, in ms. Raises `ConfigError` for a time to come."""
        if not isinstance(startup_offsets_timestamp, int):
            raise ConfigError(f"`set_start_from_timestamp` takes milliseconds, got {startup_offsets_timestamp!r}")
        now_ms = time.time_ns() // 1_000_000
        if startup_offsets_timestamp > now_ms:
            raise ConfigError(
                f"the timestamp {startup_offsets_timestamp} is still to come (it is {now_ms}); give milliseconds since "
                "1970, or call `set_start_from_latest`"
            )
        return self._start(KafkaOffsetsInitializer.timestamp(startup_offsets_timestamp))

    def set_start_from_group_offsets(self) -> Self:
        """Start at what is committed to `group.id`, and where nothing is, as `auto.offset.reset` says (`latest`)."""
        return self._start(None)

    def _start(self, starting: KafkaOffsetsInitializer | None) -> Self:
        self._check_open()
        self._starting = starting
        return self

    def set_commit_offsets_on_checkpoints(self, commit_on_checkpoints: bool) -> Self:
        """Whether offsets are committed to `group.id` after each checkpoint; they are, without this call.

        Without checkpoints Kafka's `enable.auto.commit` decides, which is on by default.
        """
        self._check_open()
        self._commits_on_checkpoints = bool(commit_on_checkpoints)
        return self

    def disable_filter_restored_partitions_with_subscribed_topics(self) -> Self:
        """Go on reading partitions of a checkpoint whose topics are not among `topics` any more; else dropped."""
        self._check_open()
        self._keeps_unsubscribed = True
        return self

    def get_produced_type(self) -> TypeInformation:
        """The type of the elements: the schema's where it is known, else that of any Python value."""
        match self._schema:
            case SimpleStringSchema():
                return Types.STRING()
            case ByteArraySchema():
                return Types.PRIMITIVE_ARRAY(Types.BYTE())
            case _:
                return Types.PICKLED_BYTE_ARRAY()

    def to_source(self) -> LegacyKafkaSource:
        built: KafkaSource = self._chain().build()
        self._is_added = True
        return LegacyKafkaSource(**{**vars(built), "keeps_unsubscribed": self._keeps_unsubscribed})

    def _chain(self) -> _Chain:
        properties = dict(self._properties)
        calls: list[tuple[str, tuple[Any, ...]]] = [("set_bootstrap_servers", (properties.pop("bootstrap.servers"),))]
        calls.append(("set_topics", tuple(self._topics)))
        group_id = properties.pop("group.id", None)
        if group_id is not None:
            calls.append(("set_group_id", (group_id,)))
        starting = self._starting or _group_offsets(properties.get("auto.offset.reset", "latest"), group_id)
        calls.append(("set_starting_offsets", (starting,)))
        calls.append(("set_value_only_deserializer", (self._schema,)))
        interval = properties.pop(_DISCOVERY, None)
        if interval is None:
            properties.setdefault("partition.discovery.interval.ms", "-1")
        else:
            _set_property(properties, _DISCOVERY, "partition.discovery.interval.ms", interval)
        _metrics_switch(properties, "register.consumer.metrics")
        properties.pop(_POLL_TIMEOUT, None)  # nothing waits in a call here
        if not self._commits_on_checkpoints:
            _set_property(properties, "set_commit_offsets_on_checkpoints", "commit.offsets.on.checkpoint", "false")
        return _Chain(KafkaSource, (*calls, *(("set_property", pair) for pair in properties.items())))

    def new_spelling(self, source_name: str) -> str:
        differences = []
        if not self._keeps_unsubscribed:
            differences.append("It goes on with restored partitions of topics that the program no longer names.")
        if _end_of_stream(self._schema) is not None:
            differences.append("It does not ask `is_end_of_stream`: say with `set_bounded` where it stops.")
        if "group.id" in self._properties and "enable.auto.commit" not in self._properties:
            differences.append("Without checkpoints it commits no offsets: set `enable.auto.commit` to true for that.")
        last = f"stream = env.from_source(source, WatermarkStrategy.no_watermarks(), {source_name!r})"
        return _warning("FlinkKafkaConsumer", "source", self._chain(), last, differences)


def _group_offsets(strategy: str, group_id: str | None) -> KafkaOffsetsInitializer:
    """Where a consumer of the group starts, given its `auto.offset.reset`; without a group nothing is committed.

    >>> _group_offsets("earliest", "readers")
    KafkaOffsetsInitializer.committed_offsets(EARLIEST)
    """
    # One that is none of the three is refused by the builder.
    chosen = KafkaOffsetResetStrategy.__members__.get(strategy.upper(), KafkaOffsetResetStrategy.LATEST)
    if group_id is None and chosen is KafkaOffsetResetStrategy.EARLIEST:
        return KafkaOffsetsInitializer.earliest()
    if group_id is None and chosen is KafkaOffsetResetStrategy.LATEST:
        return KafkaOffsetsInitializer.latest()
    return KafkaOffsetsInitializer.committed_offsets(chosen)


# Writing


class Semantic(Enum):
    """What a `FlinkKafkaProducer` promises after a failure; see `DeliveryGuarantee`. Compare members, never values."""

    EXACTLY_ONCE = 0
    AT_LEAST_ONCE = 1
    NONE = 2


def guarantee_of(semantic: Semantic, flushes: bool | None) -> DeliveryGuarantee:
    """The guarantee for a semantic, and what `set_flush_on_checkpoint` was called with, if at all.

    >>> guarantee_of(Semantic.AT_LEAST_ONCE, False)
    <DeliveryGuarantee.NONE: 2>
    """
    match semantic, flushes:
        case Semantic.EXACTLY_ONCE, False:
            raise ConfigError(
                "`set_flush_on_checkpoint(False)` contradicts Semantic.EXACTLY_ONCE; take one of them away"
            )
        case Semantic.NONE, True:
            raise ConfigError(
                "`set_flush_on_checkpoint(True)` contradicts Semantic.NONE; take it away, or use Semantic.AT_LEAST_ONCE"
            )
        case Semantic.AT_LEAST_ONCE, False:
            return DeliveryGuarantee.NONE
        case _:
            return DeliveryGuarantee[semantic.name]


@dataclass(frozen=True, repr=False)
class LegacyKafkaSink(KafkaSink):
    """A `KafkaSink` that does as a `FlinkKafkaProducer`, where the two differ.

    Each subtask writes to one partition; timestamps of the elements are written only if asked for; failed deliveries
    may be logged and passed over.
    """

    writes_timestamps: bool = False
    passes_over_failures: bool = False

    def create_writer(self, context: WriterContext, transaction: Transaction | None) -> SinkWriter:
        writer = super().create_writer(context, transaction)
        assert isinstance(writer, KafkaWriter | KafkaTransactionalWriter)
        columns = writer.outgoing
        assert isinstance(columns, Columns)
        columns.writes_timestamps = self.writes_timestamps
        try:
            columns.partition = self._partition_of(context)
        except BaseException:
            writer.close()
            raise
        if isinstance(writer, KafkaWriter):
            writer.passes_over_failures = self.passes_over_failures
        return writer

    def _partition_of(self, context: WriterContext) -> int:
        topic = self.topic
        assert topic is not None
        what = f"the partitions of topic {topic!r} could not be looked up"
        admin = self.create_admin()
        try:
            found = admin.describe_topics([topic])[topic]
        except ClientError as error:
            raise error_of(what, error.failure, self.bootstrap_servers) from None
        finally:
            admin.close()
        if isinstance(found, Failure):
            raise error_of(what, found, self.bootstrap_servers)
        partitioner = FlinkFixedPartitioner()
        partitioner.open(context.subtask, context.parallelism)
        return partitioner.partition(None, None, None, topic, sorted(found.partitions))


class FlinkKafkaProducer(_Settled, SinkFunction):
    """Flink's old sink of Kafka records, for `add_sink`: at least once, unless `semantic` says otherwise.

    Records have no key, and each subtask writes to one partition: its number modulo the partitions that there are when
    it starts. `kafka_producer_pool_size` has no effect, as no transaction waits for its commit beside the next one.
    Creating and adding one warns, with the same in the new API (`KafkaSink`):

    >>> from headrace.common.serialization import SimpleStringSchema
    >>> with warnings.catch_warnings(record=True, action="always") as told:
    ...     producer = FlinkKafkaProducer("counts", SimpleStringSchema(), {"bootstrap.servers": "localhost:9092"})
    >>> print(str(told[0].message).split("What that")[0].strip())
    FlinkKafkaProducer is of Flink's old API, which Flink 2.0 removed. In the new one:
    <BLANKLINE>
    sink = (
        KafkaSink.builder()
        .set_bootstrap_servers('localhost:9092')
        .set_record_serializer(
            KafkaRecordSerializationSchema.builder()
            .set_topic('counts')
            .set_value_serialization_schema(SimpleStringSchema())
            .build()
        )
        .set_delivery_guarantee(DeliveryGuarantee.AT_LEAST_ONCE)
        .build()
    )
    stream.sink_to(sink)

    *Differences from PyFlink*: setters are called before `add_sink`. Each subtask writes to one partition, as PyFlink
    documents it, though its code leaves the partition to Kafka. With EXACTLY_ONCE, transactional ids begin with the
    topic's name, and job and region follow (Flink: the task's name and the operator's id); without checkpoints a job
    that never ends is refused (Flink gives up the guarantee). `transaction.timeout.ms` is `KafkaSink`'s, as a
    transaction that times out loses nothing here. *Extension*: schemas may be written in Python, or be any callable.
    """

    def __init__(
        self,
        topic: str,
        serialization_schema: SerializationSchema | Callable[[Any], bytes | None],
        producer_config: Mapping[str, str],
        kafka_producer_pool_size: int = 5,
        semantic: Semantic = Semantic.AT_LEAST_ONCE,
    ) -> None:
        if not isinstance(topic, str) or not topic:
            raise ConfigError(f"FlinkKafkaProducer takes the name of a topic as `topic`, got {topic!r}")
        if not isinstance(semantic, Semantic):
            raise ConfigError(f"FlinkKafkaProducer takes a Semantic as `semantic`, got {semantic!r}")
        if not isinstance(kafka_producer_pool_size, int) or kafka_producer_pool_size < 1:
            raise ConfigError(f"`kafka_producer_pool_size` is {kafka_producer_pool_size!r}; it has to be 1 or more")
        serializer_of(serialization_schema)
        self._topic = topic
        self._schema = serialization_schema
        self._properties = _checked(producer_config, "FlinkKafkaProducer", "producer_config")
        self._semantic = semantic
        self._flushes: bool | None = None
        self._writes_timestamps = False
        self._passes_over_failures = False
        warnings.warn(self.new_spelling(), DeprecationWarning, stacklevel=2)

    def set_log_failures_only(self, log_failures_only: bool) -> Self:
        """Whether a record that cannot be delivered is logged and lost, instead of ending the attempt; it is not,
        without this call. EXACTLY_ONCE cannot be had with it."""
        self._check_open()
        self._passes_over_failures = bool(log_failures_only)
        return self

    def set_flush_on_checkpoint(self, flush_on_checkpoint: bool) -> Self:
        """Whether a checkpoint waits until everything is acknowledged; False makes NONE of AT_LEAST_ONCE."""
        self._check_open()
        self._flushes = bool(flush_on_checkpoint)
        return self

    def set_write_timestamp_to_kafka(self, write_timestamp_to_kafka: bool) -> Self:
        """Whether records have the timestamps of the elements, or those of the moment, as without this call."""
        self._check_open()
        self._writes_timestamps = bool(write_timestamp_to_kafka)
        return self

    def ignore_failures_after_transaction_timeout(self) -> Self:
        """No effect: a transaction that timed out was never committed, and its records are produced again."""
        self._check_open()
        return self

    def to_sink(self) -> LegacyKafkaSink:
        built: KafkaSink = self._chain().build()
        if self._passes_over_failures and built.delivery_guarantee is DeliveryGuarantee.EXACTLY_ONCE:
            raise ConfigError(
                "`set_log_failures_only(True)` contradicts Semantic.EXACTLY_ONCE: a transaction without some of its "
                "records cannot be committed; take one of them away"
            )
        self._is_added = True
        return LegacyKafkaSink(
            **vars(built),
            writes_timestamps=self._writes_timestamps,
            passes_over_failures=self._passes_over_failures,
        )

    def _chain(self) -> _Chain:
        properties = dict(self._properties)
        calls: list[tuple[str, tuple[Any, ...]]] = [("set_bootstrap_servers", (properties.pop("bootstrap.servers"),))]
        schema = (("set_topic", (self._topic,)), ("set_value_serialization_schema", (self._schema,)))
        calls.append(("set_record_serializer", (_Chain(KafkaRecordSerializationSchema, schema),)))
        guarantee = guarantee_of(self._semantic, self._flushes)
        calls.append(("set_delivery_guarantee", (guarantee,)))
        if guarantee is DeliveryGuarantee.EXACTLY_ONCE:
            calls.append(("set_transactional_id_prefix", (self._topic,)))
        _metrics_switch(properties, "register.producer.metrics")
        return _Chain(KafkaSink, (*calls, *(("set_property", pair) for pair in properties.items())))

    def new_spelling(self) -> str:
        differences = ["It spreads records over all partitions of the topic; here each subtask writes to one."]
        if not self._writes_timestamps:
            differences.append("Its records have the timestamps of the elements, not of the moment.")
        if self._passes_over_failures:
            differences.append("It ends the attempt when a record cannot be delivered, instead of losing it.")
        chain, last = self._chain(), "stream.sink_to(sink)"
        return _warning("FlinkKafkaProducer", "sink", chain, last, differences)
