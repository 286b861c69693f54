"""What a program makes of whole Kafka records: with key, headers, place and time.

*Extension*: PyFlink reaches values only; the names and shapes here are those of Flink's Java connector.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from enum import IntEnum
from functools import partial
from itertools import repeat
from typing import Any, NamedTuple

from headrace.common.serialization import DeserializationSchema, Deserializer, deserializer_of, skips
from headrace.connector import SourceContext
from headrace.kafka.client.protocol import Headers, Records


class TimestampType(IntEnum):
    """What a record's timestamp means, by the topic's `message.timestamp.type`. Kafka's names."""

    NO_TIMESTAMP_TYPE = 0
    CREATE_TIME = 1
    LOG_APPEND_TIME = 2


class KafkaConsumerRecord(NamedTuple):
    """A record as it was read; Kafka's `ConsumerRecord`.

    `timestamp` in ms since the epoch, -1 if there is none; `key` and `value` are None where the record has none: a
    record with a key and without a value is a tombstone.
    """

    topic: str
    partition: int
    offset: int
    timestamp: int
    timestamp_type: TimestampType
    key: bytes | None
    value: bytes | None
    headers: Headers


_make_record = partial(tuple.__new__, KafkaConsumerRecord)
_TIMESTAMP_TYPES = tuple(TimestampType)


def whole_records(records: Records) -> list[KafkaConsumerRecord]:
    """The records of a batch that has all columns."""
    assert records.offsets is not None
    assert records.timestamp_types is not None
    assert records.keys is not None
    assert records.headers is not None
    place = records.partition
    types = map(_TIMESTAMP_TYPES.__getitem__, records.timestamp_types)
    columns = (repeat(place.topic), repeat(place.partition), records.offsets, records.timestamps, types)
    return list(map(_make_record, zip(*columns, records.keys, records.values, records.headers, strict=False)))


class KafkaRecordDeserializationSchema(ABC):
    """Turns whole records into elements, any number for each.

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
