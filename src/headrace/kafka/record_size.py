"""How large a record is on its way, so that one that is too large is found before it is sent.

A record that brokers refuse fails its delivery, and under EXACTLY_ONCE the whole transaction with it. So where one
record may fail, its size is compared with what the client and the topic take before it is handed over. With compression
a topic's limit is for what is compressed, which nobody knows before: then only the client's holds, and a record that a
broker refuses fails the job.
"""

from __future__ import annotations

from collections.abc import Mapping

from headrace.connector import RecordTooLarge
from headrace.kafka.client.protocol import Admin, Failure, Headers

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


def largest_record(settings: Mapping[str, str], admin: Admin, topic: str | None) -> int:
    """How many bytes a record may have, by the client's `settings` and, if that can be known, the topic's."""
    largest = int(settings["message.max.bytes"])
    if topic is not None and settings.get("compression.type", "none") == "none":
        found = admin.describe_configs([topic])[topic]
        if not isinstance(found, Failure) and "max.message.bytes" in found:
            largest = min(largest, int(found["max.message.bytes"]))
    return largest


def check_size(size: int, largest: int) -> None:
    """Raises `RecordTooLarge`."""
    if size > largest:
        raise RecordTooLarge(
            f"the record has up to {size} bytes, and the client (`max.request.size`) or the topic "
            f"(`max.message.bytes`) takes {largest}"
        )
