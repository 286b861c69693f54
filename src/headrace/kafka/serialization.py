"""How elements become Kafka records: topic, key, value, headers, partition and time.

Theory of operation. A schema of one topic, a value and at most a key is a function for the fused chain that makes
columns (`columns`). Any other makes one `KafkaProducerRecord` for each element, in the chain too, and the writer sorts
those by topic.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from operator import index
from typing import Any, NamedTuple, TypeAlias

from headrace.common.serialization import SerializationSchema, Serializer, serializer_of
from headrace.errors import ConfigError, DataError
from headrace.kafka.client.protocol import Headers, ProducerRecord
from headrace.metrics.metricbase import MetricGroup
from headrace.metrics.registry import unreported


class KafkaProducerRecord(NamedTuple):
    """A record as it is to be written; Kafka's `ProducerRecord`.

    `partition` None: the key decides, as in Java's producer. `timestamp` in ms since the epoch, None: now.
    """

    topic: str
    value: bytes | None
    key: bytes | None = None
    partition: int | None = None
    timestamp: int | None = None
    headers: Headers = ()


@dataclass(frozen=True, slots=True)
class KafkaSinkContext:
    """What a record serializer may know of the sink it serves. *Extension*, after Java's interface of this name."""

    subtask: int
    parallelism: int
    look_up: Callable[[str], Sequence[int]] = field(repr=False)
    metrics: MetricGroup = field(default_factory=unreported, compare=False, repr=False)

    def get_metric_group(self) -> MetricGroup:
        """Where a schema may have metrics of its own."""
        return self.metrics

    def get_parallel_instance_id(self) -> int:
        """The subtask, from 0 on."""
        return self.subtask

    def get_number_of_parallel_instances(self) -> int:
        """The number of subtasks."""
        return self.parallelism

    def get_partitions_for_topic(self, topic: str) -> Sequence[int]:
        """The topic's partitions; asked for again each `metadata.max.age.ms`, as there may be more by then."""
        return self.look_up(topic)


class KafkaTopicSelector(ABC):
    """Says which topic an element goes to."""

    @abstractmethod
    def apply(self, data: Any) -> str:
        """The topic for this element."""


class HeaderProvider(ABC):
    """Says which headers an element's record gets. *Extension*, after Java's interface of this name."""

    @abstractmethod
    def get_headers(self, element: Any) -> Headers:
        """Names and values, in their order."""


class KafkaPartitioner(ABC):
    """Chooses the partition of each record. *Extension*, after Java's interface of this name."""

    def open(self, parallel_instance_id: int, parallel_instances: int) -> None:
        """Called once for each subtask, before the first record."""

    @abstractmethod
    def partition(
        self, record: Any, key: bytes | None, value: bytes | None, target_topic: str, partitions: Sequence[int]
    ) -> int:
        """One of `partitions`, for an element, and what its key and value were serialized to."""


class FlinkFixedPartitioner(KafkaPartitioner):
    """Each subtask writes to one partition: the first to the first, and so on, round about.

    >>> partitioner = FlinkFixedPartitioner()
    >>> partitioner.open(4, 5)
    >>> partitioner.partition("element", None, b"value", "topic", [0, 1, 2])
    1
    """

    _instance = 0

    def open(self, parallel_instance_id: int, parallel_instances: int) -> None:
        self._instance = parallel_instance_id

    def partition(
        self, record: Any, key: bytes | None, value: bytes | None, target_topic: str, partitions: Sequence[int]
    ) -> int:
        return partitions[self._instance % len(partitions)]


TopicSelector: TypeAlias = "KafkaTopicSelector | Callable[[Any], str]"
HeadersOf: TypeAlias = "HeaderProvider | Callable[[Any], Headers | Mapping[str, bytes | None]]"


class KafkaRecordSerializationSchema(ABC):
    """How an element becomes a record. Made by `KafkaRecordSerializationSchema.builder()`.

    *Extension*, as in Flink's Java API: subclasses may be written, and choose everything of each record.

    >>> class Alerts(KafkaRecordSerializationSchema):
    ...     def serialize(self, element, context, timestamp):
    ...         if element["level"] > 3:
    ...             return KafkaProducerRecord("alerts", element["text"].encode(), headers=[("level", b"high")])
    >>> Alerts().serialize({"level": 1, "text": "all is well"}, None, None)
    """

    topic: str | None = None
    """The topic of all records, which is looked for at the start; None if each record chooses."""

    @staticmethod
    def builder() -> KafkaRecordSerializationSchemaBuilder:
        """A builder for a record serializer."""
        return KafkaRecordSerializationSchemaBuilder()

    def open(self, context: KafkaSinkContext) -> None:
        """Called once for each subtask, before the first element."""

    @abstractmethod
    def serialize(self, element: Any, context: KafkaSinkContext, timestamp: int | None) -> KafkaProducerRecord | None:
        """The element's record; None drops the element, and counts it. `timestamp` in ms: the element's, if it has one.

        Raises `DataError` for what it cannot write.
        """


@dataclass(frozen=True)
class BuiltSchema(KafkaRecordSerializationSchema):
    """What `KafkaRecordSerializationSchema.builder()` builds."""

    value_schema: SerializationSchema | Serializer
    key_schema: SerializationSchema | Serializer | None = None
    topic: str | None = None
    topic_selector: Callable[[Any], str] | None = None
    headers_of: Callable[[Any], Headers | Mapping[str, bytes | None]] | None = None
    partitioner: KafkaPartitioner | None = None

    @property
    def has_columns(self) -> bool:
        """Whether `columns` makes all there is."""
        return self.topic_selector is None and self.headers_of is None and self.partitioner is None

    def columns(self) -> Callable[[Any], Any] | None:
        """One function for hot loops: element to value, or to (key, value); None: elements are values already."""
        assert self.topic is not None
        to_value = _serializer_for(self.topic, self.value_schema, is_key=False)
        if self.key_schema is None:
            return to_value
        to_key = _serializer_for(self.topic, self.key_schema, is_key=True)
        if to_key is not None and to_value is not None:
            return lambda element: (to_key(element), to_value(element))
        if to_key is not None:
            return lambda element: (to_key(element), element)
        if to_value is not None:
            return lambda element: (element, to_value(element))
        return lambda element: (element, element)

    def open(self, context: KafkaSinkContext) -> None:
        if self.partitioner is not None:
            self.partitioner.open(context.subtask, context.parallelism)

    def serialize(self, element: Any, context: KafkaSinkContext, timestamp: int | None) -> KafkaProducerRecord:
        return KafkaProducerRecord._make(self.maker(context)(element, -1 if timestamp is None else timestamp))

    def maker(self, context: KafkaSinkContext) -> Callable[[Any, int], ProducerRecord]:
        """`serialize` for hot loops, with everything looked up before; a timestamp below 0 is none.

        It makes plain tuples: an object of the class costs 0.4 µs more.
        """
        fixed, select, headers_of, partitioner = self.topic, self.topic_selector, self.headers_of, self.partitioner
        serializers: dict[str, tuple[Serializer, Serializer]] = {}

        def make(element: Any, timestamp: int) -> ProducerRecord:
            topic: Any = fixed if select is None else select(element)
            try:
                to_key, to_value = serializers[topic]
            except (KeyError, TypeError):
                if not isinstance(topic, str) or not topic:
                    raise DataError(f"the topic selector has to give the name of a topic, and gave {topic!r}") from None
                to_key, to_value = serializers[topic] = self._serializers(topic)
            key, value = to_key(element), to_value(element)
            headers: Any = ()
            if headers_of is not None:
                headers = headers_of(element)
                if type(headers) is not list and isinstance(headers, Mapping):
                    headers = [*headers.items()]
                check_headers(headers)
            partition = None
            if partitioner is not None:
                partitions = context.look_up(topic)
                chosen = partitioner.partition(element, key, value, topic, partitions)
                if chosen not in partitions or not hasattr(chosen, "__index__"):
                    raise DataError(f"the partitioner gave {chosen!r}, and topic {topic!r} has {partitions}")
                partition = index(chosen)
            return topic, value, key, partition, timestamp if timestamp >= 0 else None, headers

        return make

    def _serializers(self, topic: str) -> tuple[Serializer, Serializer]:
        """What makes the key and the value of a record for this topic."""
        to_value = _serializer_for(topic, self.value_schema, is_key=False) or _same
        if self.key_schema is None:
            return _no_key, to_value
        return _serializer_for(topic, self.key_schema, is_key=True) or _same, to_value


def _serializer_for(topic: str, schema: SerializationSchema | Serializer, is_key: bool) -> Serializer | None:
    if isinstance(schema, SerializationSchema):
        schema = schema.for_topic(topic, is_key)
    return serializer_of(schema)


def check_headers(headers: Any) -> None:
    """Raises `DataError` for what are no headers; an iterator is none, as it would be empty behind this look."""
    if type(headers) is list or isinstance(headers, tuple | list):
        try:
            # Of each record: a generator in `all` takes three times as long.
            for name, value in headers:
                if type(name) is not str or (type(value) is not bytes and value is not None):
                    break
            else:
                return
        except (TypeError, ValueError):
            pass
    raise DataError(f"headers have to be pairs of a str and bytes (or None), in a list, not {headers!r:.200}")


def check_record(record: Any) -> None:
    """Raises `DataError` for what is no record that can be written."""
    if type(record) is not KafkaProducerRecord:
        kind = type(record).__name__
        raise DataError(f"a record serializer has to give a KafkaProducerRecord or None, and gave a {kind}")
    if type(record.topic) is not str or not record.topic:
        raise DataError(f"a record's topic has to be a name, not {record.topic!r}")
    for what, number, bits in (("partition", record.partition, 31), ("timestamp", record.timestamp, 63)):
        if number is not None and (type(number) is not int or number >> bits):
            raise DataError(
                f"a record's {what} has to be a whole number from 0 on, of {bits} bits, or None, not {number!r:.200}"
            )
    check_headers(record.headers)


def _same(element: Any) -> Any:
    return element


def _no_key(element: Any) -> bytes | None:
    return None


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
    >>> schema.columns()({"source": "reuters", "count": 3})
    (b'reuters', b'3')
    """

    def __init__(self) -> None:
        self._topic: str | None = None
        self._topic_selector: Callable[[Any], str] | None = None
        self._headers_of: Callable[[Any], Headers | Mapping[str, bytes | None]] | None = None
        self._partitioner: KafkaPartitioner | None = None
        self._key_schema: SerializationSchema | Serializer | None = None
        self._value_schema: SerializationSchema | Serializer | None = None

    def set_topic(self, topic: str) -> KafkaRecordSerializationSchemaBuilder:
        """The topic of all records."""
        if not isinstance(topic, str) or not topic:
            raise ConfigError(f"`set_topic` takes the name of a topic, got {topic!r}")
        if self._topic_selector is not None:
            raise ConfigError("`set_topic` cannot be used: `set_topic_selector` already says where to write; call one")
        self._topic = topic
        return self

    def set_topic_selector(self, topic_selector: TopicSelector) -> KafkaRecordSerializationSchemaBuilder:
        """Which topic each element goes to. Topics that it names have to exist, or be created by the brokers.

        *Extension*: any callable that takes an element will do.
        """
        if self._topic is not None:
            raise ConfigError("`set_topic_selector` cannot be used: `set_topic` already says where to write; call one")
        select = topic_selector.apply if isinstance(topic_selector, KafkaTopicSelector) else topic_selector
        self._topic_selector = _called("set_topic_selector", KafkaTopicSelector, select)
        return self

    def set_header_provider(self, header_provider: HeadersOf) -> KafkaRecordSerializationSchemaBuilder:
        """Which headers each element's record gets. *Extension*: a `HeaderProvider`, or any callable that takes an
        element and gives pairs of name and value, or a mapping."""
        provide = header_provider.get_headers if isinstance(header_provider, HeaderProvider) else header_provider
        self._headers_of = _called("set_header_provider", HeaderProvider, provide)
        return self

    def set_partitioner(self, partitioner: KafkaPartitioner) -> KafkaRecordSerializationSchemaBuilder:
        """What chooses each record's partition, in place of its key. *Extension*, as in Flink's Java API."""
        if not isinstance(partitioner, KafkaPartitioner):
            raise ConfigError(f"`set_partitioner` takes a KafkaPartitioner, got {type(partitioner).__name__}")
        self._partitioner = partitioner
        return self

    def set_key_serialization_schema(
        self, key_serialization_schema: SerializationSchema | Serializer
    ) -> KafkaRecordSerializationSchemaBuilder:
        """How an element becomes its record's key, which chooses the partition; without it records have no key.

        *Extension*: any callable that gives bytes will do.
        """
        check_schema(serializer_of, key_serialization_schema, "set_key_serialization_schema")
        self._key_schema = key_serialization_schema
        return self

    def set_value_serialization_schema(
        self, value_serialization_schema: SerializationSchema | Serializer
    ) -> KafkaRecordSerializationSchemaBuilder:
        """How an element becomes its record's value. *Extension*: any callable that gives bytes will do."""
        check_schema(serializer_of, value_serialization_schema, "set_value_serialization_schema")
        self._value_schema = value_serialization_schema
        return self

    def build(self) -> KafkaRecordSerializationSchema:
        """The record serializer. Raises `ConfigError` without a topic or a value schema."""
        if self._topic is None and self._topic_selector is None:
            raise ConfigError(
                "a KafkaRecordSerializationSchema needs a topic: call `set_topic` or `set_topic_selector`"
            )
        if self._value_schema is None:
            raise ConfigError(
                "a KafkaRecordSerializationSchema needs a value schema: call `set_value_serialization_schema`"
            )
        return BuiltSchema(
            self._value_schema,
            self._key_schema,
            self._topic,
            self._topic_selector,
            self._headers_of,
            self._partitioner,
        )


def check_schema(function_of: Callable[[Any], Any], schema: Any, setter: str) -> None:
    """Raises `ConfigError` for what `setter` was given and is no schema."""
    try:
        function_of(schema)
    except ConfigError as error:
        raise ConfigError(f"`{setter}`: {error}") from None


def _called(setter: str, kind: type, function: Any) -> Any:
    if isinstance(function, type) and issubclass(function, kind):
        raise ConfigError(
            f"`{setter}` takes an instance, got the class {function.__name__}; give it `{function.__name__}()`"
        )
    if not callable(function):
        raise ConfigError(f"`{setter}` takes a {kind.__name__} or a callable function, got {type(function).__name__}")
    return function
