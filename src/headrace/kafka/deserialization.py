"""What a program makes of whole Kafka records: with key, headers, place and time.

*Extension*: PyFlink reaches values only; the names and shapes here are those of Flink's Java connector.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import Any

from headrace.common.serialization import DeserializationSchema, Deserializer, deserializer_of, skips
from headrace.connector import SourceContext
from headrace.kafka.client.protocol import KafkaConsumerRecord


class KafkaRecordDeserializationSchema(ABC):
    """Turns whole records into elements, any number for each.

    >>> from headrace.kafka import TimestampType
    >>> class Bids(KafkaRecordDeserializationSchema):
    ...     def deserialize(self, record):
    ...         if record.value is not None:  # no tombstones
    ...             yield record.key.decode(), float(record.value)
    >>> record = KafkaConsumerRecord("bids", 0, 7, 1700000000000, TimestampType.CREATE_TIME, b"btc", b"0.5", [])
    >>> list(Bids().deserialize(record))
    [('btc', 0.5)]

    *Extension* of PyFlink, after Java's interface of this name; elements are returned, not collected.
    """

    def open(self, context: SourceContext) -> None:
        """Called once for each subtask, before the first record."""

    @abstractmethod
    def deserialize(self, record: KafkaConsumerRecord) -> Iterable[Any] | None:
        """The elements in this record; None or nothing for none. Raises `DataError` for what it cannot read.

        All elements of a record belong to one checkpoint.
        """

    @staticmethod
    def value_only(value_deserialization_schema: DeserializationSchema | Deserializer) -> ValueOnly:
        """A schema that reads values only, at no more cost than `set_value_only_deserializer`."""
        return ValueOnly(value_deserialization_schema)


class ValueOnly(KafkaRecordDeserializationSchema):
    """What `KafkaRecordDeserializationSchema.value_only` gives."""

    def __init__(self, schema: DeserializationSchema | Deserializer) -> None:
        self.schema = schema
        self._deserialize = deserializer_of(schema)

    def deserialize(self, record: KafkaConsumerRecord) -> list[Any]:
        element = record.value if self._deserialize is None else self._deserialize(record.value)
        is_skipped = element is None and record.value is not None and skips(self.schema)
        return [] if is_skipped else [element]
