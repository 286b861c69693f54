"""How large a record, and a batch of them, may be, so that what is too large is found before it is sent.

A record that brokers refuse fails its delivery, and under EXACTLY_ONCE the whole transaction with it. So where one
record may fail, its size is compared with what the client and the topic take before it is handed over. With compression
a topic's limit is for what is compressed, which nobody knows before: then only the client's holds, and a record that a
broker refuses fails the job.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from headrace.connector import RecordTooLarge
from headrace.kafka.client.protocol import Admin, Failure, Headers

_MAX_MESSAGE = "max.message.bytes"
_DEFAULT_BATCH = 1_000_000
_BATCH_BYTES = 61
_RECORD_BYTES = 36
_HEADER_BYTES = 10
"""At most, of the lengths around a record's parts; Kafka's record batch, version 2."""


def wire_size(value: bytes | None, key: bytes | None = None, headers: Headers = ()) -> int:
    """At most so many bytes does a record have that goes alone.

    >>> wire_size(b"12345"), wire_size(b"12345", b"btc", [("trace", b"1")])
    (102, 121)
    """
    size = _BATCH_BYTES + _RECORD_BYTES + len(value or b"") + len(key or b"")
    for name, data in headers:
        size += _HEADER_BYTES + len(name.encode()) + len(data or b"")
    return size


def topic_limits(admin: Admin, topics: Iterable[str]) -> dict[str, int]:
    """How many bytes each topic takes in one batch; without those that may not be asked."""
    found = admin.describe_configs(topics)
    return {
        topic: int(settings[_MAX_MESSAGE])
        for topic, settings in found.items()
        if not isinstance(settings, Failure) and _MAX_MESSAGE in settings
    }


def with_batch_size(settings: Mapping[str, str], limits: Iterable[int]) -> dict[str, str]:
    """A producer's settings with batches that its topics take; a record that is larger goes alone.

    librdkafka does not divide a batch that is refused, as Java's producer does.

    >>> with_batch_size({"linger.ms": "5"}, [1048588])
    {'linger.ms': '5'}
    >>> with_batch_size({"linger.ms": "5"}, [1048588, 1000])
    {'linger.ms': '5', 'batch.size': '1000'}
    """
    given = int(settings.get("batch.size", _DEFAULT_BATCH))
    limit = min(limits, default=given)
    return {**settings} if limit >= given else {**settings, "batch.size": str(limit)}


def largest_record(settings: Mapping[str, str], limit: int | None) -> int:
    """How many bytes a record may have, by the client's `settings` and the `limit` of its topic, if that is known."""
    largest = int(settings["message.max.bytes"])
    is_compressed = settings.get("compression.type", "none") != "none"
    return largest if limit is None or is_compressed else min(largest, limit)


def check_size(size: int, largest: int) -> None:
    """Raises `RecordTooLarge`."""
    if size > largest:
        raise RecordTooLarge(
            f"the record has up to {size} bytes, and the client (`max.request.size`) or the topic "
            f"(`max.message.bytes`) takes {largest}"
        )
