"""Any bytes give a value or a `DataError`."""

from __future__ import annotations

import contextlib
import datetime
import decimal
import json
import uuid
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from tests.registry.messages import message_classes

from headrace.common.serialization import DeserializationSchema, SerializationSchema
from headrace.datastream.formats.registry import (
    ConfluentRegistryAvroDeserializationSchema,
    ConfluentRegistryAvroSerializationSchema,
    ConfluentRegistryJsonDeserializationSchema,
    ConfluentRegistryJsonSerializationSchema,
    ConfluentRegistryProtobufDeserializationSchema,
    ConfluentRegistryProtobufSerializationSchema,
)
from headrace.errors import DataError

AVRO: dict[str, Any] = {
    "type": "record",
    "name": "Everything",
    "fields": [
        {"name": "text", "type": "string"},
        {"name": "maybe", "type": ["null", "long", {"type": "enum", "name": "Color", "symbols": ["RED", "BLUE"]}]},
        {"name": "many", "type": {"type": "array", "items": {"type": "map", "values": "double"}}},
        {"name": "at", "type": {"type": "long", "logicalType": "timestamp-millis"}},
        {"name": "day", "type": {"type": "int", "logicalType": "date"}},
        {"name": "price", "type": {"type": "bytes", "logicalType": "decimal", "precision": 9, "scale": 2}},
        {"name": "id", "type": {"type": "string", "logicalType": "uuid"}},
        {"name": "next", "type": ["null", "Everything"]},
    ],
}
JSON = {"title": "Item", "type": "object", "properties": {"url": {"type": "string", "pattern": "^http"}}}
LIST = {"type": "record", "name": "List", "fields": [{"name": "next", "type": ["null", "List"]}]}


class Kind:
    def __init__(self, writes: SerializationSchema, reads: DeserializationSchema, element: Any) -> None:
        written = writes.serialize(element)
        assert written is not None
        self.written, self.reads = written, reads


@pytest.fixture(scope="module")
def kinds(registry: str) -> dict[str, Kind]:
    everything = {
        "text": "a",
        "maybe": "RED",
        "many": [{"a": 1.5}],
        "at": datetime.datetime(2024, 1, 1, tzinfo=datetime.UTC),
        "day": datetime.date(2024, 1, 1),
        "price": decimal.Decimal("1.25"),
        "id": uuid.UUID(int=1),
        "next": None,
    }
    item = message_classes("hostile")["Item"]
    avro = ConfluentRegistryAvroSerializationSchema.for_generic("hostile-avro", AVRO, registry)
    narrow = {**AVRO, "fields": AVRO["fields"][:-1]}
    return {
        "avro": Kind(avro, ConfluentRegistryAvroDeserializationSchema.for_generic(None, registry), everything),
        "avro, resolved": Kind(
            avro, ConfluentRegistryAvroDeserializationSchema.for_generic(narrow, registry), everything
        ),
        "json": Kind(
            ConfluentRegistryJsonSerializationSchema.for_generic("hostile-json", JSON, registry),
            ConfluentRegistryJsonDeserializationSchema.for_generic(registry, validate=True),
            {"url": "http://a"},
        ),
        "protobuf": Kind(
            ConfluentRegistryProtobufSerializationSchema.for_specific("hostile-proto", item, registry),
            ConfluentRegistryProtobufDeserializationSchema.for_specific(item, registry),
            item(url="http://a", counts={"a": 1}),
        ),
    }


hostile = settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.mark.parametrize("kind", ["avro", "avro, resolved", "json", "protobuf"])
@hostile
@given(payload=st.binary(max_size=200), header_bytes=st.integers(0, 8))
@example(payload=b"", header_bytes=5)
@example(payload=b"\x02" * 100_000, header_bytes=5)
@example(payload=b"[" * 100_000, header_bytes=5)
@example(payload=b"\x80" * 100_000, header_bytes=5)
def test_any_bytes_behind_a_header_give_a_value_or_a_data_error(
    kinds: dict[str, Kind], kind: str, payload: bytes, header_bytes: int
) -> None:
    with contextlib.suppress(DataError):
        kinds[kind].reads.deserialize(kinds[kind].written[:header_bytes] + payload)


@pytest.mark.parametrize("kind", ["avro", "avro, resolved", "json", "protobuf"])
@hostile
@given(data=st.data())
def test_a_damaged_record_gives_a_value_or_a_data_error(kinds: dict[str, Kind], kind: str, data: st.DataObject) -> None:
    damaged = bytearray(kinds[kind].written)
    for _ in range(data.draw(st.integers(1, 4))):
        damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    with contextlib.suppress(DataError):
        kinds[kind].reads.deserialize(bytes(damaged[: data.draw(st.integers(0, len(damaged)))]))


@settings(max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(message=st.binary(max_size=50))
def test_any_bytes_at_all_give_a_value_or_a_data_error(kinds: dict[str, Kind], message: bytes) -> None:
    for kind in kinds.values():
        with contextlib.suppress(DataError):
            kind.reads.deserialize(message)


@pytest.mark.parametrize("depth", [100, 5_000, 1_000_000])
def test_avro_within_avro_without_end_does_not_end_the_process(registry: str, depth: int) -> None:
    writes = ConfluentRegistryAvroSerializationSchema.for_generic("hostile-list", LIST, registry)
    header = (writes.serialize({"next": None}) or b"")[:5]
    read = ConfluentRegistryAvroDeserializationSchema.for_generic(json.dumps(LIST), registry).deserialize

    if depth == 100:
        deep = read(header + b"\x02" * depth + b"\0")
        for _ in range(depth):
            deep = deep["next"]
        assert deep == {"next": None}
    else:
        with pytest.raises(DataError, match="RecursionError"):
            read(header + b"\x02" * depth + b"\0")


_JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@hostile
@given(value=_JSON.filter(lambda value: value is not None))
def test_json_comes_back_as_it_was_written(registry: str, value: Any) -> None:
    anything = {"$schema": "http://json-schema.org/draft-07/schema#", "title": "Anything"}
    written = ConfluentRegistryJsonSerializationSchema.for_generic("hostile-any", anything, registry).serialize(value)

    assert ConfluentRegistryJsonDeserializationSchema.for_generic(registry).deserialize(written) == value


@hostile
@given(element=_JSON)
def test_any_element_is_written_or_a_data_error(registry: str, element: Any) -> None:
    for writes in (
        ConfluentRegistryAvroSerializationSchema.for_generic("hostile-avro", AVRO, registry),
        ConfluentRegistryJsonSerializationSchema.for_generic("hostile-json", JSON, registry, validate=True),
    ):
        with contextlib.suppress(DataError):
            writes.serialize(element)
