"""`KafkaSource` and its builder: what a program says about its input, checked before anything runs."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Mapping, Set
from dataclasses import dataclass, replace
from typing import Any, cast

from headrace.common.serialization import DeserializationSchema, Deserializer, decode_utf8, deserializer_of, skips
from headrace.connector import Boundedness, JsonValue, Source, SourceContext, SourceReader, Split, SplitEnumerator
from headrace.errors import ConfigError, UserCodeError
from headrace.kafka.client import default_client
from headrace.kafka.client.protocol import Admin, ClientError, Consumer, KafkaTopicPartition, OnStatistics, Settings
from headrace.kafka.deserialization import KafkaRecordDeserializationSchema, ValueOnly
from headrace.kafka.enumerator import (
    Asked,
    EnumeratorSettings,
    KafkaSplitEnumerator,
    KafkaSubscriber,
    Partitions,
    Subscription,
    TopicPattern,
    Topics,
)
from headrace.kafka.failures import error_of
from headrace.kafka.lineage import LineageVertex, kafka_datasets
from headrace.kafka.metrics import Statistics, forwards, with_statistics
from headrace.kafka.offsets import (
    Earliest,
    KafkaOffsetResetStrategy,
    KafkaOffsetsInitializer,
    OffsetsInitializer,
    check_stops,
)
from headrace.kafka.properties import (
    CONSUMER_DEFAULTS,
    checked,
    masked,
    resolve_secrets,
    token_source,
    translate,
    with_brokers,
)
from headrace.kafka.property_table import Role, read_bool, read_int
from headrace.kafka.rate_limit import RateLimit
from headrace.kafka.reader import KafkaReader, ReaderSettings
from headrace.kafka.serialization import check_schema
from headrace.kafka.split import KafkaSplit

_LOG = logging.getLogger("headrace.kafka")

_ASSIGNMENT = "headrace.partition.assignment"
_DISCOVERY_INTERVAL_MS = 300_000
_TIMEOUT_MS = 30_000
_NO_GROUP = "headrace-without-a-group"
"""The client wants a group's name, also from a consumer that never asks for it or commits."""


@dataclass(frozen=True, repr=False)
class KafkaSource(Source):
    """Reads partitions of Kafka topics, exactly once with the checkpoints of the job. Made by `KafkaSource.builder()`.

    >>> from headrace.common.serialization import SimpleStringSchema
    >>> source = (
    ...     KafkaSource.builder()
    ...     .set_bootstrap_servers("localhost:9092")
    ...     .set_topics("rss.events")
    ...     .set_group_id("news")
    ...     .set_starting_offsets(KafkaOffsetsInitializer.earliest())
    ...     .set_value_only_deserializer(SimpleStringSchema())
    ...     .build()
    ... )

    *Differences from PyFlink*: stop offsets given by `set_unbounded` end the job when all are reached. Records that
    come with no position to go on from are reported, never skipped in silence (`auto.offset.reset`).
    """

    subscription: Subscription | Asked
    properties: tuple[tuple[str, str], ...]
    starting: KafkaOffsetsInitializer
    stopping: KafkaOffsetsInitializer | None
    is_bounded: bool
    schema: DeserializationSchema | Deserializer | KafkaRecordDeserializationSchema
    keeps_unsubscribed: bool = True
    rack_id_supplier: Callable[[], str | None] | None = None
    records_per_second: float | None = None

    @staticmethod
    def builder() -> KafkaSourceBuilder:
        """A builder for a source."""
        return KafkaSourceBuilder()

    @property
    def boundedness(self) -> Boundedness:
        return Boundedness.BOUNDED if self.is_bounded else Boundedness.CONTINUOUS_UNBOUNDED

    @property
    def ends(self) -> bool:
        return self.stopping is not None or self.end_of_stream is not None

    @property
    def end_of_stream(self) -> Callable[[Any], bool] | None:
        """Whether an element ends its partition; None: none does."""
        return None

    @property
    def bootstrap_servers(self) -> str:
        """The brokers to begin with."""
        return dict(self.properties)["bootstrap.servers"]

    @property
    def group_id(self) -> str | None:
        """The group that progress is reported to."""
        return dict(self.properties).get("group.id")

    @property
    def fixed_topic(self) -> str | None:
        """One topic that this source always reads; None if it reads what matches a pattern."""
        match self.subscription:
            case Topics(names):
                return min(names)
            case Partitions(partitions):
                return min(partitions).topic
            case TopicPattern() | Asked():
                return None

    def get_lineage_vertex(self) -> LineageVertex:
        """*Extension*: which topics it reads, or which pattern (none if a subscriber of the program's decides)."""
        properties = dict(self.properties)
        match self.subscription:
            case Topics(names):
                datasets = kafka_datasets(names, None, properties)
            case Partitions(partitions):
                datasets = kafka_datasets(dict.fromkeys(p.topic for p in partitions), None, properties)
            case TopicPattern(pattern):
                datasets = kafka_datasets((), pattern, properties)
            case Asked():
                datasets = ()
        return LineageVertex(datasets, self.boundedness)

    @property
    def reset_strategy(self) -> KafkaOffsetResetStrategy:
        """What to do when a log does not hold a position: `auto.offset.reset`, else as the starting offsets say."""
        named = dict(self.properties).get("auto.offset.reset")
        return self.starting.reset_strategy if named is None else KafkaOffsetResetStrategy[named.upper()]

    def client_settings(self, name: str) -> Settings:
        """Settings for a client of this source, under librdkafka's names; `name` becomes part of its `client.id`."""
        properties = dict(self.properties)
        settings = {**CONSUMER_DEFAULTS, **translate(resolve_secrets(properties), Role.CONSUMER).settings}
        settings.setdefault("group.id", _NO_GROUP)
        if self.is_bounded and "fetch.wait.max.ms" not in settings:
            # A broker answers a question at the end of its log after this time, and only then is the end known.
            settings["fetch.wait.max.ms"] = "50"
        settings.setdefault("enable.auto.commit", "false")
        settings["auto.offset.reset"] = "error"
        prefix = properties.get("client.id.prefix") or properties.get("group.id") or "KafkaSource"
        settings["client.id"] = f"{prefix}-{name}"
        return settings

    @property
    def timeout_s(self) -> float:
        """How long a call may wait for the brokers."""
        return read_int(dict(self.properties), "default.api.timeout.ms", _TIMEOUT_MS) / 1000

    def create_admin(self, name: str, timeout_s: float | None = None) -> Admin:
        """Asks this source's cluster; each call waits for `timeout_s` at most, or as its properties say."""
        try:
            return default_client().admin(
                self.client_settings(name),
                self.timeout_s if timeout_s is None else timeout_s,
                token=token_source(dict(self.properties)),
            )
        except ClientError as error:
            raise error_of("the Kafka source could not be set up", error.failure, self.bootstrap_servers) from None

    def create_enumerator(self, context: SourceContext) -> SplitEnumerator:
        settings = EnumeratorSettings(
            self.subscription,
            self.starting,
            self.stopping,
            self.reset_strategy,
            self.group_id,
            self.bootstrap_servers,
            keeps_unsubscribed=self.keeps_unsubscribed,
            commits=self.commits(context.commits_offsets),
            keeps_stops=self.end_of_stream is not None,
            is_balanced=dict(self.properties).get(_ASSIGNMENT) == "fewest",
        )
        interval_ms = read_int(dict(self.properties), "partition.discovery.interval.ms", _DISCOVERY_INTERVAL_MS)
        has_all = self.is_bounded or isinstance(self.subscription, Partitions)
        return KafkaSplitEnumerator(
            self.create_admin("enumerator-admin-client"), settings, None if has_all or interval_ms <= 0 else interval_ms
        )

    def commits(self, has_checkpoints: bool) -> bool:
        """Whether offsets are committed to the group when a checkpoint completes."""
        wanted = read_bool(dict(self.properties), "commit.offsets.on.checkpoint", True)
        return self.group_id is not None and has_checkpoints and wanted

    def create_reader(self, context: SourceContext) -> SourceReader:
        properties = dict(self.properties)
        commits = self.commits(context.commits_offsets)
        settings = self.client_settings(str(context.subtask))
        if self.rack_id_supplier is not None and (rack := self._rack_id()):
            settings = {**settings, "client.rack": rack}
        deserialize: Callable[[Any], Any] | None
        is_whole = isinstance(self.schema, KafkaRecordDeserializationSchema)
        if isinstance(self.schema, KafkaRecordDeserializationSchema):
            self.schema.open(replace(context, metrics=context.metrics.add_group("deserializer")))
            deserialize = self.schema.deserialize
        else:
            deserialize = deserializer_of(self.schema)
        is_text = deserialize is decode_utf8
        statistics = Statistics() if context.is_reported else None
        consumer = self._create_consumer(
            with_statistics(settings, is_reported=context.is_reported),
            with_text=is_text,
            whole_records=is_whole,
            on_statistics=None if statistics is None else statistics.hear,
        )
        return KafkaReader(
            consumer,
            lambda: self.create_admin(f"{context.subtask}-admin-client"),
            None if is_text else deserialize,
            ReaderSettings(
                self.reset_strategy,
                self.group_id if commits else None,
                settings["isolation.level"] == "read_uncommitted",
                self.bootstrap_servers,
                whole_records=is_whole,
                skips=skips(self.schema),
                forwards_metrics=forwards(properties, "register.consumer.metrics"),
            ),
            self.end_of_stream,
            None if self.records_per_second is None else RateLimit(self.records_per_second / context.parallelism),
            statistics,
        )

    def check_client(self) -> None:
        """Raises `ConfigError` for properties that a consumer cannot have."""
        self._create_consumer(self.client_settings("check")).close()

    def _create_consumer(
        self,
        settings: Settings,
        *,
        with_text: bool = False,
        whole_records: bool = False,
        on_statistics: OnStatistics | None = None,
    ) -> Consumer:
        try:
            return default_client().consumer(
                settings,
                with_text=with_text,
                whole_records=whole_records,
                token=token_source(dict(self.properties)),
                on_statistics=on_statistics,
            )
        except ClientError as error:
            raise error_of("the Kafka source could not be set up", error.failure, self.bootstrap_servers) from None

    def _rack_id(self) -> str | None:
        assert self.rack_id_supplier is not None
        try:
            return self.rack_id_supplier()
        except Exception as error:
            text = f"the function of `set_rack_id_supplier` failed with {type(error).__name__}: {error}"
            raise UserCodeError(text) from error

    def encode_split(self, split: Any) -> Mapping[str, JsonValue]:
        return cast(KafkaSplit, split).encode()

    def decode_split(self, data: Mapping[str, JsonValue]) -> Split:
        return KafkaSplit.decode(data)

    def __repr__(self) -> str:
        return (
            f"KafkaSource({self.subscription}, starting={self.starting}, stopping={self.stopping}, "
            f"properties={masked(dict(self.properties))})"
        )


def overridden(properties: Mapping[str, str], *, is_bounded: bool) -> list[str]:
    """What the program sets, and a source decides in spite of it, as Flink's does.

    >>> overridden({"client.id": "mine"}, is_bounded=False)
    ['`client.id` has no effect: clients have names of their own, which begin with `client.id.prefix`']
    """
    said = []
    if "client.id" in properties:
        said.append("`client.id` has no effect: clients have names of their own, which begin with `client.id.prefix`")
    if is_bounded and read_int(properties, "partition.discovery.interval.ms", 0) > 0:
        said.append("`partition.discovery.interval.ms` has no effect: a bounded source looks for partitions once")
    return said


class KafkaSourceBuilder:
    """Says what a `KafkaSource` reads. Every method but `build` returns the builder."""

    def __init__(self) -> None:
        self._subscription: Subscription | Asked | None = None
        self._subscribed_by = ""
        self._properties: dict[str, str] = {}
        self._starting = KafkaOffsetsInitializer.earliest()
        self._stopping: KafkaOffsetsInitializer | None = None
        self._is_bounded = False
        self._schema: DeserializationSchema | Deserializer | KafkaRecordDeserializationSchema | None = None
        self._rack_id_supplier: Callable[[], str | None] | None = None
        self._records_per_second: float | None = None

    def set_bootstrap_servers(self, bootstrap_servers: str) -> KafkaSourceBuilder:
        """The brokers to begin with, `host:port`, separated by commas."""
        return self._set("set_bootstrap_servers", {"bootstrap.servers": bootstrap_servers})

    def set_group_id(self, group_id: str) -> KafkaSourceBuilder:
        """The group that offsets are committed to after each checkpoint, as a report of progress."""
        return self._set("set_group_id", {"group.id": group_id})

    def set_topics(self, *topics: str) -> KafkaSourceBuilder:
        """Read all partitions of these topics, which have to exist."""
        if not topics or not all(isinstance(topic, str) and topic for topic in topics):
            raise ConfigError(f"`set_topics` takes one or more names of topics, got {topics!r}")
        return self._subscribe("set_topics", Topics(tuple(dict.fromkeys(topics))))

    def set_topic_pattern(self, topic_pattern: str) -> KafkaSourceBuilder:
        """Read all partitions of topics whose whole name matches this regular expression, also of those to come.

        *Differences from PyFlink*: the expression is Python's, not Java's.
        """
        if not isinstance(topic_pattern, str) or not topic_pattern:
            raise ConfigError(f"`set_topic_pattern` takes a regular expression as a text, got {topic_pattern!r}")
        try:
            re.compile(topic_pattern)
        except re.error as error:
            raise ConfigError(f"the topic pattern {topic_pattern!r} is no regular expression: {error}") from None
        return self._subscribe("set_topic_pattern", TopicPattern(topic_pattern))

    def set_partitions(self, partitions: Set[KafkaTopicPartition]) -> KafkaSourceBuilder:
        """Read these partitions, which have to exist."""
        is_set = isinstance(partitions, Set | list | tuple)
        if not is_set or not partitions or not all(isinstance(one, KafkaTopicPartition) for one in partitions):
            raise ConfigError(
                f"`set_partitions` takes a set of one or more KafkaTopicPartition, got {partitions!r:.200}"
            )
        return self._subscribe("set_partitions", Partitions(tuple(sorted(set(partitions)))))

    def _subscribe(self, name: str, subscription: Subscription | Asked) -> KafkaSourceBuilder:
        if self._subscription is not None:
            raise ConfigError(f"`{name}` cannot be used: `{self._subscribed_by}` already says what to read; call one")
        self._subscription, self._subscribed_by = subscription, name
        return self

    def set_kafka_subscriber(self, kafka_subscriber: KafkaSubscriber) -> KafkaSourceBuilder:
        """*Extension*: read what this subscriber names, at the start and at each discovery."""
        if not isinstance(kafka_subscriber, KafkaSubscriber):
            raise ConfigError(f"`set_kafka_subscriber` takes a KafkaSubscriber, got {type(kafka_subscriber).__name__}")
        return self._subscribe("set_kafka_subscriber", Asked(kafka_subscriber))

    def set_starting_offsets(
        self, starting_offsets_initializer: KafkaOffsetsInitializer | OffsetsInitializer
    ) -> KafkaSourceBuilder:
        """Where partitions start that the first look finds; by default the earliest record. Later ones start there.

        *Extension*: also an `OffsetsInitializer` of your own, here and for stop offsets.
        """
        self._starting = KafkaOffsetsInitializer.of(starting_offsets_initializer, "set_starting_offsets")
        return self

    def set_unbounded(
        self, stopping_offsets_initializer: KafkaOffsetsInitializer | OffsetsInitializer
    ) -> KafkaSourceBuilder:
        """Stop each partition before this offset; the source still counts as unbounded, and finds new partitions."""
        self._stopping = KafkaOffsetsInitializer.of(stopping_offsets_initializer, "set_unbounded")
        self._is_bounded = False
        return self

    def set_bounded(
        self, stopping_offsets_initializer: KafkaOffsetsInitializer | OffsetsInitializer
    ) -> KafkaSourceBuilder:
        """Stop each partition before this offset; the source is bounded, and looks for partitions once."""
        self._stopping = KafkaOffsetsInitializer.of(stopping_offsets_initializer, "set_bounded")
        self._is_bounded = True
        return self

    def set_value_only_deserializer(
        self, deserialization_schema: DeserializationSchema | Callable[[bytes | None], Any]
    ) -> KafkaSourceBuilder:
        """How a record's value becomes an element. *Extension*: any callable that takes bytes will do."""
        if isinstance(deserialization_schema, KafkaRecordDeserializationSchema):
            raise ConfigError(
                "`set_value_only_deserializer` takes a schema for values, got the "
                f"KafkaRecordDeserializationSchema {type(deserialization_schema).__name__}, which goes to "
                "`set_deserializer`"
            )
        check_schema(deserializer_of, deserialization_schema, "set_value_only_deserializer")
        self._schema = deserialization_schema
        return self

    def set_deserializer(self, record_deserializer: KafkaRecordDeserializationSchema) -> KafkaSourceBuilder:
        """How a whole record (key, headers, place and all) becomes elements. *Extension*, as in Flink's Java API."""
        if not isinstance(record_deserializer, KafkaRecordDeserializationSchema):
            raise ConfigError(
                "`set_deserializer` takes a KafkaRecordDeserializationSchema, got "
                f"{type(record_deserializer).__name__}; a schema for values goes to `set_value_only_deserializer`"
            )
        self._schema = record_deserializer.schema if isinstance(record_deserializer, ValueOnly) else record_deserializer
        return self

    def set_client_id_prefix(self, prefix: str) -> KafkaSourceBuilder:
        """What the `client.id` of each client begins with; by default the group, else `KafkaSource`.

        A reader's is `<prefix>-<subtask>`, whatever `client.id` says.
        """
        return self._set("set_client_id_prefix", {"client.id.prefix": prefix})

    def set_rack_id_supplier(self, rack_id_supplier: Callable[[], str | None]) -> KafkaSourceBuilder:
        """*Extension*: where a reader is, as `client.rack`; asked where it runs, once for each reader.

        None or "" leave `client.rack` as it is. Brokers need a rack-aware `replica.selector.class` to make use of it.
        """
        if not callable(rack_id_supplier):
            raise ConfigError(f"`set_rack_id_supplier` takes a function, got {type(rack_id_supplier).__name__}")
        self._rack_id_supplier = rack_id_supplier
        return self

    def set_rate_limit(self, records_per_second: float) -> KafkaSourceBuilder:
        """*Extension*: read at most this many records a second, over all subtasks; each has an equal share."""
        is_number = isinstance(records_per_second, int | float) and not isinstance(records_per_second, bool)
        if not is_number or not 0 < records_per_second < float("inf"):
            raise ConfigError(f"`set_rate_limit` takes a number of records above 0, got {records_per_second!r}")
        self._records_per_second = float(records_per_second)
        return self

    def set_property(self, key: str, value: str) -> KafkaSourceBuilder:
        """A property of the Kafka consumer, under the Java client's or librdkafka's name, or of the connector.

        *Extension*: the value of one that is a secret may be `env:NAME` or `file:PATH`, and is looked up there when a
        client is made; until then only the reference is known.
        """
        if not isinstance(key, str):
            raise ConfigError(f"`set_property` takes the name of a property, got {type(key).__name__}")
        return self._set("set_property", {key: value})

    def set_properties(self, props: Mapping[str, str]) -> KafkaSourceBuilder:
        """Several properties; later calls win."""
        return self._set("set_properties", props)

    def set_kafka_consumer_config(self, props: Mapping[str, str]) -> KafkaSourceBuilder:
        """The same as `set_properties`. *Extension*: in the spelling of Flink's producers and of many notes."""
        return self._set("set_kafka_consumer_config", props)

    def _set(self, setter: str, properties: Mapping[str, str]) -> KafkaSourceBuilder:
        self._properties.update(checked(properties, setter))
        return self

    def build(self) -> KafkaSource:
        """The source. Raises `ConfigError` for what is missing or contradicts itself; nothing is contacted."""
        properties = with_brokers(self._properties, "a KafkaSource needs brokers: call `set_bootstrap_servers`")
        if self._subscription is None:
            raise ConfigError(
                "a KafkaSource needs topics: call one of `set_topics`, `set_topic_pattern`, `set_partitions` and "
                "`set_kafka_subscriber`"
            )
        if self._schema is None:
            raise ConfigError(
                "a KafkaSource needs a deserializer: call `set_value_only_deserializer` or `set_deserializer`"
            )
        translation = translate(properties, Role.CONSUMER)
        self._check_group(properties)
        strategy = properties.get("auto.offset.reset", "none")
        if strategy.upper() not in KafkaOffsetResetStrategy.__members__:
            raise ConfigError(f"`auto.offset.reset` is {strategy!r}; it has to be earliest, latest or none")
        if self._stopping is not None and isinstance(self._stopping.place, Earliest):
            raise ConfigError("a source cannot stop at the earliest offset: it would read nothing")
        if self._stopping is not None:
            check_stops(self._stopping.given)
        token_source(properties)
        if (assignment := properties.get(_ASSIGNMENT, "flink")) not in ("flink", "fewest"):
            raise ConfigError(f"`{_ASSIGNMENT}` is {assignment!r}; it has to be flink or fewest")
        forwards(properties, "register.consumer.metrics")
        read_int(properties, "partition.discovery.interval.ms", 0)
        read_int(properties, "default.api.timeout.ms", 0)
        for warning in (*translation.warnings, *overridden(properties, is_bounded=self._is_bounded)):
            _LOG.warning("KafkaSource: %s", warning)
        if "auto.offset.reset" in properties:
            _LOG.info(
                "KafkaSource: `auto.offset.reset` is %s; the starting offsets alone would say %s",
                strategy,
                self._starting.reset_strategy.name.lower(),
            )
        return KafkaSource(
            self._subscription,
            tuple(properties.items()),
            self._starting,
            self._stopping,
            self._is_bounded,
            self._schema,
            rack_id_supplier=self._rack_id_supplier,
            records_per_second=self._records_per_second,
        )

    def _check_group(self, properties: Mapping[str, str]) -> None:
        if properties.get("group.id"):
            return
        if "group.id" in properties:
            raise ConfigError("`group.id` is empty; give the group a name, or leave it out")
        for name in ("enable.auto.commit", "commit.offsets.on.checkpoint"):
            if read_bool(properties, name, False):
                raise ConfigError(
                    f"`{name}` is true, so offsets are committed, and there is no group: call `set_group_id`"
                )
        for initializer, what in ((self._starting, "start"), (self._stopping, "stop")):
            if initializer is not None and initializer.needs_group:
                raise ConfigError(f"committed offsets to {what} at need a group: call `set_group_id`")
