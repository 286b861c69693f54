"""Avro rows and values; fastavro reads and writes, so this is about what it is given and what it must not be given."""

from __future__ import annotations

import datetime
import io
import json
import pickle
from decimal import Decimal
from typing import Any

import fastavro
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tests.unit.formats.values import read, spoiled

from headrace.common import Row
from headrace.datastream.formats.avro import (
    AvroDeserializationSchema,
    AvroRowDeserializationSchema,
    AvroRowSerializationSchema,
    AvroSerializationSchema,
)
from headrace.errors import ConfigError, DataError, NotSupportedError

FIELDS: list[tuple[str, Any, st.SearchStrategy[Any]]] = [
    ("text", "string", st.text()),
    ("flag", "boolean", st.booleans()),
    ("small", "int", st.integers(-(2**31), 2**31 - 1)),
    ("large", ["null", "long"], st.none() | st.integers(-(2**63), 2**63 - 1)),
    ("single", "float", st.floats(width=32)),
    ("double", "double", st.floats()),
    ("raw", "bytes", st.binary()),
    ("fixed", {"type": "fixed", "name": "Four", "size": 4}, st.binary(min_size=4, max_size=4)),
    ("side", {"type": "enum", "name": "Side", "symbols": ["BUY", "SELL"]}, st.sampled_from(["BUY", "SELL"])),
    ("day", {"type": "int", "logicalType": "date"}, st.dates()),
    (
        "time",
        {"type": "long", "logicalType": "time-micros"},
        st.times().map(lambda at: at.replace(fold=0)),
    ),
    (
        "at",
        [{"type": "long", "logicalType": "timestamp-micros"}, "null"],
        st.none() | st.datetimes().map(lambda at: at.replace(fold=0)),
    ),
    (
        "money",
        {"type": "bytes", "logicalType": "decimal", "precision": 12, "scale": 2},
        st.decimals(-(10**9), 10**9, places=2),
    ),
    ("list", {"type": "array", "items": ["null", "string"]}, st.lists(st.none() | st.text(), max_size=3)),
    (
        "inner",
        ["null", {"type": "record", "name": "Inner", "fields": [{"name": "n", "type": "int"}]}],
        st.none() | st.integers(0, 9).map(lambda n: Row(n=n)),
    ),
    ("inners", {"type": "map", "values": "Inner"}, st.dictionaries(st.text(), st.just(Row(n=1)), max_size=2)),
    (
        "times",
        {"type": "array", "items": {"type": "long", "logicalType": "timestamp-millis"}},
        st.lists(st.datetimes().map(lambda at: at.replace(fold=0, microsecond=1000)), max_size=2),
    ),
    ("either", ["string", "int"], st.text() | st.integers(-5, 5)),
    ("id", {"type": "string", "logicalType": "uuid"}, st.text()),
    ("local", {"type": "long", "logicalType": "local-timestamp-millis"}, st.integers(-5, 5)),
]
SCHEMA = {"type": "record", "name": "ns.All", "fields": [{"name": name, "type": kind} for name, kind, _ in FIELDS]}
ROWS = st.tuples(*(values for _, _, values in FIELDS)).map(
    lambda values: Row(**dict(zip([name for name, _, _ in FIELDS], values, strict=True)))
)
READS = AvroRowDeserializationSchema(avro_schema_string=json.dumps(SCHEMA))
WRITES = AvroRowSerializationSchema(avro_schema_string=json.dumps(SCHEMA))
PAIR = '{"type": "record", "name": "P", "fields": [{"name": "a", "type": "int"}, {"name": "b", "type": "string"}]}'


@settings(max_examples=60)
@given(ROWS)
def test_any_row_comes_back_as_it_was(row: Row) -> None:
    written = WRITES.serialize(row)
    assert written is not None
    assert repr(READS.deserialize(written)) == repr(row)


def test_bytes_are_fastavros() -> None:
    out = io.BytesIO()
    at = datetime.datetime(2020, 1, 2, 3, 4, 5, 6000, tzinfo=datetime.UTC)
    schema = {
        "type": "record",
        "name": "R",
        "fields": [{"name": "at", "type": {"type": "long", "logicalType": "timestamp-millis"}}],
    }
    fastavro.schemaless_writer(out, fastavro.parse_schema(schema), {"at": at})
    reads = AvroRowDeserializationSchema(avro_schema_string=json.dumps(schema))
    writes = AvroRowSerializationSchema(avro_schema_string=json.dumps(schema))
    assert reads.deserialize(out.getvalue()) == Row(at=at.replace(tzinfo=None))
    assert writes.serialize(Row(at.replace(tzinfo=None))) == writes.serialize(Row(at)) == out.getvalue()


def test_a_record_without_a_value_is_none_and_bytes_behind_a_record_are_passed_over() -> None:
    nothing = AvroRowDeserializationSchema(avro_schema_string='{"type": "record", "name": "R", "fields": []}')
    plain = [AvroDeserializationSchema("string"), AvroDeserializationSchema({**json.loads(PAIR), "fields": []})]
    for reads in (READS, nothing, *plain):
        assert reads.deserialize(None) is None
    assert WRITES.serialize(None) is None
    assert repr(nothing.deserialize(b"")) == "Row()"
    assert AvroRowDeserializationSchema(None, PAIR).deserialize(b"\x02\x02xmore") == Row(a=1, b="x")


@pytest.mark.parametrize(
    "element", [Row(2**31, "x"), Row(1, None), Row(1), Row(1, "\ud800"), Row(a=1, c="x"), Row(1.5, "x"), 7]
)
def test_what_cannot_be_written_is_an_error_or_wraps_as_on_flink(element: Any) -> None:
    schema = AvroRowSerializationSchema(avro_schema_string=PAIR)
    if element == Row(2**31, "x"):
        assert schema.serialize(element) == schema.serialize(Row(-(2**31), "x"))
        return
    with pytest.raises(DataError, match="AvroRowSerializationSchema cannot write this element"):
        schema.serialize(element)


def test_a_decimal_of_another_scale_is_an_error_and_one_of_a_smaller_is_filled_up() -> None:
    money = {"type": "bytes", "logicalType": "decimal", "precision": 4, "scale": 2}
    text = json.dumps({"type": "record", "name": "R", "fields": [{"name": "money", "type": money}]})
    reads, writes = AvroRowDeserializationSchema(None, text), AvroRowSerializationSchema(None, text)
    assert reads.deserialize(writes.serialize(Row(Decimal("1.5")))) == Row(money=Decimal("1.50"))
    with pytest.raises(DataError):
        writes.serialize(Row(Decimal("1.555")))


@pytest.mark.parametrize(
    ("schema", "says"),
    [
        ("{", "cannot be used: JSONDecodeError"),
        ('"nope"', "cannot be used: UnknownType"),
        ('"string"', "is that of a string"),
        ('{"type": "record", "name": "L", "fields": [{"name": "n", "type": ["null", "L"]}]}', "contains itself"),
        (
            '{"type": "record", "name": "L", "fields": [{"name": "n", "type": {"type": "array", "items": "null"}}]}',
            "no bounds",
        ),
    ],
)
def test_schemas_that_cannot_be_rows_are_refused(schema: str, says: str) -> None:
    for kind in (AvroRowDeserializationSchema, AvroRowSerializationSchema):
        with pytest.raises(ConfigError, match=says):
            kind(avro_schema_string=schema)


def test_a_schema_has_to_be_given_and_a_java_class_is_refused() -> None:
    for kind in (AvroRowDeserializationSchema, AvroRowSerializationSchema):
        with pytest.raises(TypeError, match="record_class or avro_schema_string should be specified"):
            kind()
        with pytest.raises(NotSupportedError, match="`record_class` is not supported"):
            kind("org.example.Trade")


LIST = {"type": "record", "name": "L", "fields": [{"name": "next", "type": ["null", "L"]}]}
TREE = {"type": "record", "name": "T", "fields": [{"name": "t", "type": {"type": "array", "items": "T"}}]}


def test_a_schema_that_contains_itself_is_read_and_deep_data_do_not_end_the_process() -> None:
    schema = AvroDeserializationSchema(LIST)
    assert schema.deserialize(b"\x02\x02\x00") == {"next": {"next": {"next": None}}}
    assert AvroDeserializationSchema(TREE).deserialize(b"\xd8\x04" + b"\x00" * 301) == {"t": [{"t": []}] * 300}
    for deep in (schema, AvroDeserializationSchema(TREE)):
        with pytest.raises(DataError, match=r"RecursionError|EOFError"):
            deep.deserialize(b"\x02" * 1_000_000)


@pytest.mark.parametrize(
    ("field", "says"),
    [
        ("A", "record A has to contain itself"),
        ({"type": "record", "name": "B", "fields": [{"name": "a", "type": "A"}]}, "record B has to contain itself"),
        ({"type": "array", "items": {"type": "fixed", "name": "F", "size": 0}}, "no bounds"),
        ({"type": "array", "items": {"type": "record", "name": "E", "fields": []}}, "no bounds"),
    ],
)
def test_a_schema_by_which_no_bytes_are_data_without_end_is_refused(field: Any, says: str) -> None:
    schema = {"type": "record", "name": "A", "fields": [{"name": "a", "type": field}]}
    for kind in (AvroDeserializationSchema, AvroSerializationSchema):
        with pytest.raises(ConfigError, match=says):
            kind({"type": "array", "items": schema})


@pytest.mark.parametrize("schema", [{}, {"type": "array", "items": "E"}])
def test_a_schema_that_says_it_was_parsed_is_looked_at_nevertheless(schema: dict[str, Any]) -> None:
    hidden = {"E": {"type": "record", "name": "E", "fields": []}}
    with pytest.raises(ConfigError, match="cannot be used"):
        AvroDeserializationSchema({**schema, "__fastavro_parsed": True, "__named_schemas": hidden})


def test_another_schema_to_read_by_fills_in_and_renames() -> None:
    newer = json.loads(PAIR)
    newer["fields"] = [{"name": "c", "type": "long", "default": 7}, {"name": "a", "type": "long"}]
    assert AvroDeserializationSchema(PAIR, newer).deserialize(b"\x02\x02x") == {"c": 7, "a": 1}


SCHEMAS = [
    READS,
    AvroDeserializationSchema(SCHEMA),
    AvroDeserializationSchema(TREE),
    AvroDeserializationSchema({"type": "map", "values": ["null", "double", "bytes"]}),
]


@given(spoiled(lambda: ROWS.map(lambda row: WRITES.serialize(row) or b"")))
@example(b"\xff" * 30)
@example(b"\x02\xfe\xff\xff\xff\xff\xff\xff\xff\xff\x01")
def test_any_bytes_give_a_value_or_a_data_error(data: bytes) -> None:
    for schema in SCHEMAS:
        read(schema, data)


def test_plain_values_go_both_ways_also_in_other_processes() -> None:
    reads, writes = (
        pickle.loads(pickle.dumps(s)) for s in (AvroDeserializationSchema(PAIR), AvroSerializationSchema(PAIR))
    )
    assert reads.deserialize(writes.serialize({"a": 1, "b": "x"})) == {"a": 1, "b": "x"}
    with pytest.raises(DataError, match="AvroSerializationSchema cannot write this element"):
        writes.serialize({"a": "x"})
    copy = pickle.loads(pickle.dumps(AvroRowDeserializationSchema(avro_schema_string=PAIR)))
    assert copy.deserialize(b"\x02\x02x") == Row(a=1, b="x")
    assert pickle.loads(pickle.dumps(AvroRowSerializationSchema(None, PAIR))).serialize(Row(1, "x")) == b"\x02\x02x"
