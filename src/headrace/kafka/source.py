"""`KafkaSource` and its builder: what a program says about its input, checked before anything runs."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Mapping, Set
from dataclasses import dataclass
from typing import Any, cast

from headrace.common.serialization import DeserializationSchema, Deserializer, decode_utf8, deserializer_of
from headrace.connector import Boundedness, JsonValue, Source, SourceContext, SourceReader, Split, SplitEnumerator
from headrace.errors import ConfigError
from headrace.kafka.client import default_client
from headrace.kafka.client.protocol import Admin, ClientError, KafkaTopicPartition, Settings
from headrace.kafka.enumerator import (
    EnumeratorSettings,
    KafkaSplitEnumerator,
    Partitions,
    Subscription,
    TopicPattern,
    Topics,
)
from headrace.kafka.failures import error_of
from headrace.kafka.offsets import Committed, Earliest, KafkaOffsetResetStrategy, KafkaOffsetsInitializer
from headrace.kafka.properties import (
    CONSUMER_DEFAULTS,
    Role,
    masked,
    read_bool,
    read_int,
    resolve_secrets,
    token_source,
    translate,
)
from headrace.kafka.reader import KafkaReader, ReaderSettings
from headrace.kafka.split import KafkaSplit

_LOG = logging.getLogger("headrace.kafka")

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

    subscription: Subscription
    properties: tuple[tuple[str, str], ...]
    starting: KafkaOffsetsInitializer
    stopping: KafkaOffsetsInitializer | None
    is_bounded: bool
    schema: DeserializationSchema | Deserializer

    @staticmethod
    def builder() -> KafkaSourceBuilder:
        """A builder for a source."""
        return KafkaSourceBuilder()

    @property
    def boundedness(self) -> Boundedness:
        return Boundedness.BOUNDED if self.is_bounded else Boundedness.CONTINUOUS_UNBOUNDED

    @property
    def ends(self) -> bool:
        return self.stopping is not None

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
            case TopicPattern():
                return None

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
        settings["client.id"] = f"{properties.get('client.id.prefix', settings['group.id'])}-{name}"
        return settings

    def create_admin(self, name: str) -> Admin:
        """Asks this source's cluster."""
        timeout_ms = read_int(dict(self.properties), "default.api.timeout.ms", _TIMEOUT_MS)
        try:
            return default_client().admin(
                self.client_settings(name), timeout_ms / 1000, token=token_source(dict(self.properties))
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
            self._commits(context),
        )
        interval_ms = read_int(dict(self.properties), "partition.discovery.interval.ms", _DISCOVERY_INTERVAL_MS)
        has_all = self.is_bounded or isinstance(self.subscription, Partitions)
        return KafkaSplitEnumerator(
            self.create_admin("enumerator-admin-client"), settings, None if has_all or interval_ms <= 0 else interval_ms
        )

    def _commits(self, context: SourceContext) -> bool:
        """Whether offsets are committed to the group when a checkpoint completes."""
        wanted = read_bool(dict(self.properties), "commit.offsets.on.checkpoint", True)
        return self.group_id is not None and context.commits_offsets and wanted

    def create_reader(self, context: SourceContext) -> SourceReader:
        properties = dict(self.properties)
        commits = self._commits(context)
        settings = self.client_settings(str(context.subtask))
        deserialize = deserializer_of(self.schema)
        is_text = deserialize is decode_utf8
        try:
            consumer = default_client().consumer(settings, with_text=is_text, token=token_source(properties))
        except ClientError as error:
            raise error_of("the Kafka source could not be set up", error.failure, self.bootstrap_servers) from None
        return KafkaReader(
            consumer,
            lambda: self.create_admin(f"{context.subtask}-admin-client"),
            None if is_text else deserialize,
            ReaderSettings(
                self.reset_strategy,
                self.group_id if commits else None,
                settings["isolation.level"] == "read_uncommitted",
                self.bootstrap_servers,
            ),
        )

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
        self._subscription: Subscription | None = None
        self._subscribed_by = ""
        self._properties: dict[str, str] = {}
        self._starting = KafkaOffsetsInitializer.earliest()
        self._stopping: KafkaOffsetsInitializer | None = None
        self._is_bounded = False
        self._schema: DeserializationSchema | Deserializer | None = None

    def set_bootstrap_servers(self, bootstrap_servers: str) -> KafkaSourceBuilder:
        """The brokers to begin with, `host:port`, separated by commas."""
        return self.set_property("bootstrap.servers", bootstrap_servers)

    def set_group_id(self, group_id: str) -> KafkaSourceBuilder:
        """The group that offsets are committed to after each checkpoint, as a report of progress."""
        return self.set_property("group.id", group_id)

    def set_topics(self, *topics: str) -> KafkaSourceBuilder:
        """Read all partitions of these topics, which have to exist."""
        if not topics or not all(isinstance(topic, str) and topic for topic in topics):
            raise ConfigError(f"`set_topics` takes one or more names of topics, got {topics!r}")
        return self._subscribe("set_topics", Topics(tuple(dict.fromkeys(topics))))

    def set_topic_pattern(self, topic_pattern: str) -> KafkaSourceBuilder:
        """Read all partitions of topics whose whole name matches this regular expression, also of those to come.

        *Differences from PyFlink*: the expression is Python's, not Java's.
        """
        try:
            re.compile(topic_pattern)
        except re.error as error:
            raise ConfigError(f"the topic pattern {topic_pattern!r} is no regular expression: {error}") from None
        return self._subscribe("set_topic_pattern", TopicPattern(topic_pattern))

    def set_partitions(self, partitions: Set[KafkaTopicPartition]) -> KafkaSourceBuilder:
        """Read these partitions, which have to exist."""
        if not partitions:
            raise ConfigError("`set_partitions` takes one or more partitions, got none")
        return self._subscribe("set_partitions", Partitions(tuple(sorted(partitions))))

    def _subscribe(self, name: str, subscription: Subscription) -> KafkaSourceBuilder:
        if self._subscription is not None:
            raise ConfigError(f"`{name}` cannot be used: `{self._subscribed_by}` already says what to read; call one")
        self._subscription, self._subscribed_by = subscription, name
        return self

    def set_starting_offsets(self, starting_offsets_initializer: KafkaOffsetsInitializer) -> KafkaSourceBuilder:
        """Where partitions start that the first look finds; by default the earliest record. Later ones start there."""
        self._starting = starting_offsets_initializer
        return self

    def set_unbounded(self, stopping_offsets_initializer: KafkaOffsetsInitializer) -> KafkaSourceBuilder:
        """Stop each partition before this offset; the source still counts as unbounded, and finds new partitions."""
        self._stopping, self._is_bounded = stopping_offsets_initializer, False
        return self

    def set_bounded(self, stopping_offsets_initializer: KafkaOffsetsInitializer) -> KafkaSourceBuilder:
        """Stop each partition before this offset; the source is bounded, and looks for partitions once."""
        self._stopping, self._is_bounded = stopping_offsets_initializer, True
        return self

    def set_value_only_deserializer(
        self, deserialization_schema: DeserializationSchema | Callable[[bytes | None], Any]
    ) -> KafkaSourceBuilder:
        """How a record's value becomes an element. *Extension*: any callable that takes bytes will do."""
        self._schema = deserialization_schema
        return self

    def set_client_id_prefix(self, prefix: str) -> KafkaSourceBuilder:
        """What the `client.id` of each client begins with."""
        return self.set_property("client.id.prefix", prefix)

    def set_property(self, key: str, value: str) -> KafkaSourceBuilder:
        """A property of the Kafka consumer, under the Java client's or librdkafka's name, or of the connector.

        *Extension*: the value of one that is a secret may be `env:NAME` or `file:PATH`, and is looked up there when a
        client is made; until then only the reference is known.
        """
        if not isinstance(key, str) or not isinstance(value, str):
            raise ConfigError(f"properties are strings; `{key}` is set to a {type(value).__name__}")
        self._properties[key] = value
        return self

    def set_properties(self, props: Mapping[str, str]) -> KafkaSourceBuilder:
        """Several properties; later calls win."""
        for key, value in props.items():
            self.set_property(key, value)
        return self

    def set_kafka_consumer_config(self, props: Mapping[str, str]) -> KafkaSourceBuilder:
        """The same as `set_properties`. *Extension*: in the spelling of Flink's producers and of many notes."""
        return self.set_properties(props)

    def build(self) -> KafkaSource:
        """The source. Raises `ConfigError` for what is missing or contradicts itself; nothing is contacted."""
        properties = self._properties
        if not properties.get("bootstrap.servers"):
            raise ConfigError("a KafkaSource needs brokers: call `set_bootstrap_servers`")
        if self._subscription is None:
            raise ConfigError(
                "a KafkaSource needs topics: call one of `set_topics`, `set_topic_pattern` and `set_partitions`"
            )
        if self._schema is None:
            raise ConfigError("a KafkaSource needs a deserializer: call `set_value_only_deserializer`")
        deserializer_of(self._schema)
        translation = translate(properties, Role.CONSUMER)
        self._check_group(properties)
        strategy = properties.get("auto.offset.reset", "none")
        if strategy.upper() not in KafkaOffsetResetStrategy.__members__:
            raise ConfigError(f"`auto.offset.reset` is {strategy!r}; it has to be earliest, latest or none")
        if self._stopping is not None and isinstance(self._stopping.place, Earliest):
            raise ConfigError("a source cannot stop at the earliest offset: it would read nothing")
        token_source(properties)
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
            if initializer is not None and isinstance(initializer.place, Committed):
                raise ConfigError(f"committed offsets to {what} at need a group: call `set_group_id`")
