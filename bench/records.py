"""The input: JSON records of 170 bytes, each with a key out of 5,000. Record `i` is always the same bytes.

The same items in Avro and Protobuf are as much smaller as those make them.
"""

from __future__ import annotations

from functools import cache
from io import BytesIO
from typing import Any, Literal

import fastavro
import orjson
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

Encoding = Literal["json", "avro", "protobuf"]

SIZE_BYTES = 170
KEYS = 5_000

_TITLES = (
    "markets wait for the central bank to speak",
    "rain in the north delays the wheat harvest",
    "copper rises as the strike enters day nine",
    "two ports reopen after a week of high wind",
)


def record(number: int) -> bytes:
    """Record `number`: a news item, padded to `SIZE_BYTES`.

    >>> len(record(0)) == len(record(9_999_999)) == SIZE_BYTES
    True
    """
    text = (
        f'{{"id":{number},"source":"{key(number)}","title":"{_TITLES[number % 4]}",'
        f'"published_at":{1_700_000_000_000 + number},"price":{0.1 + number % 89 / 100:.2f},"note":"'
    )
    return f'{text:x<{SIZE_BYTES - 2}}"}}'.encode()


def key(number: int) -> str:
    """The key of record `number`: 5,000 keys in an order without runs."""
    return f"source-{number * 2_654_435_761 % (1 << 32) % KEYS:04}"


def altered(item: dict[str, object], number: int) -> bool:
    """Whether a parsed output is record `number` with its one field changed, and nothing else of it touched."""
    return (
        item.get("id") == number
        and item.get("source") == key(number)
        and item.get("title") == _TITLES[number % 4].upper()
        and item.get("published_at") == 1_700_000_000_000 + number
        and item.get("price") == float(f"{0.1 + number % 89 / 100:.2f}")
        and isinstance(note := item.get("note"), str)
        and not note.strip("x")
        and len(item) == 6
    )


FIELDS = {
    "id": "long",
    "source": "string",
    "title": "string",
    "published_at": "long",
    "price": "double",
    "note": "string",
}
"""An item's fields, by their types in Avro."""

AVRO_SCHEMA = {"type": "record", "name": "Item", "fields": [{"name": n, "type": kind} for n, kind in FIELDS.items()]}


@cache
def item_class() -> type[Any]:
    """The item as a Protobuf message, made as a `_pb2` module makes it."""
    field = descriptor_pb2.FieldDescriptorProto
    kinds = {"long": field.TYPE_INT64, "string": field.TYPE_STRING, "double": field.TYPE_DOUBLE}
    file = descriptor_pb2.FileDescriptorProto(name="item.proto", package="bench", syntax="proto3")
    message = file.message_type.add(name="Item")
    for number, (name, kind) in enumerate(FIELDS.items(), 1):
        message.field.add(name=name, number=number, type=kinds[kind], label=field.LABEL_OPTIONAL)
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("bench.Item"))


def encoded(number: int, encoding: Encoding) -> bytes:
    """Record `number` in this encoding."""
    data = record(number)
    if encoding == "json":
        return data
    item = orjson.loads(data)
    if encoding == "protobuf":
        message: bytes = item_class()(**item).SerializeToString()
        return message
    out = BytesIO()
    fastavro.schemaless_writer(out, _avro(), item)
    return out.getvalue()


def decoded(data: bytes, encoding: Encoding) -> dict[str, Any]:
    """The item that `encoded` wrote."""
    item: Any
    if encoding == "json":
        item = orjson.loads(data)
    elif encoding == "avro":
        item = fastavro.schemaless_reader(BytesIO(data), _avro(), None)
    else:
        message = item_class().FromString(data)
        item = {name: getattr(message, name) for name in FIELDS}
    found: dict[str, Any] = item
    return found


@cache
def _avro() -> Any:
    return fastavro.parse_schema(AVRO_SCHEMA)
