"""JSON rows by Flink's rules, typed JSON, and what becomes of any bytes at all."""

from __future__ import annotations

import dataclasses
import datetime
import json
import pickle
from decimal import Decimal
from typing import Any

import msgspec
import pydantic
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tests.unit.formats.values import BYTES, SIMPLE, read, row_types, spoiled, with_rows

from headrace.common import Row, TypeInformation, Types
from headrace.common.serialization import deserializer_of, serializer_of
from headrace.datastream.formats.json import (
    JsonDeserializationSchema,
    JsonRowDeserializationSchema,
    JsonRowSerializationSchema,
    JsonSerializationSchema,
)
from headrace.errors import ConfigError, DataError

EVERYTHING = Types.ROW_NAMED(
    ["text", "long", "double", "day", "at", "bytes", "row", "list", "map"],
    [
        Types.STRING(),
        Types.LONG(),
        Types.DOUBLE(),
        Types.SQL_DATE(),
        Types.SQL_TIMESTAMP(),
        BYTES,
        Types.ROW_NAMED(["id"], [Types.INT()]),
        Types.OBJECT_ARRAY(Types.BIG_DEC()),
        Types.MAP(Types.STRING(), Types.INT()),
    ],
)


def reads(declared: TypeInformation, **options: bool) -> JsonRowDeserializationSchema:
    return JsonRowDeserializationSchema(Types.ROW_NAMED(["id"], [declared]), **options)


def writes(declared: TypeInformation) -> JsonRowSerializationSchema:
    return JsonRowSerializationSchema.builder().with_type_info(Types.ROW_NAMED(["id"], [declared])).build()


@pytest.mark.parametrize(
    ("declared", "given_", "becomes"),
    [
        (Types.BOOLEAN(), '"trueA"', False),
        (Types.BOOLEAN(), '" TRUE "', True),
        (Types.BOOLEAN(), "1", False),
        (Types.LONG(), "112.013", 112),
        (Types.LONG(), '" 7 "', 7),
        (Types.INT(), "-1.9e3", -1900),
        (Types.BYTE(), '"-128"', -128),
        (Types.STRING(), "true", "true"),
        (Types.STRING(), "123.2340", "123.234"),
        (Types.STRING(), "1e10", "1.0E10"),
        (Types.STRING(), "1234567", "1234567"),
        (Types.STRING(), '["a", 1, 2.50]', '["a",1,2.50]'),
        (Types.STRING(), '{"k" : {"l": null}}', '{"k":{"l":null}}'),
        (Types.DOUBLE(), "1", 1.0),
        (Types.DOUBLE(), "1e999", float("inf")),
        (Types.DOUBLE(), '"-Infinity"', float("-inf")),
        (Types.DOUBLE(), '"2.5"', 2.5),
        (Types.FLOAT(), "0.1", 0.10000000149011612),
        (Types.BIG_INT(), "123456789012345678901234567890", 123456789012345678901234567890),
        (Types.BIG_INT(), '"-5"', -5),
        (Types.BIG_DEC(), "0.1000000000000000000000000001", Decimal("0.1000000000000000000000000001")),
        (Types.BIG_DEC(), '" 1.50 "', Decimal("1.50")),
        (Types.SQL_DATE(), '"1990-10-14"', datetime.date(1990, 10, 14)),
        (Types.SQL_TIME(), '"12:12:43"', datetime.time(12, 12, 43)),
        (Types.SQL_TIMESTAMP(), '"1990-10-14T12:12:43"', datetime.datetime(1990, 10, 14, 12, 12, 43)),
        (Types.SQL_TIMESTAMP(), '"1990-10-14t12:12"', datetime.datetime(1990, 10, 14, 12, 12)),
        (Types.SQL_TIMESTAMP(), '"1990-10-14T12:12:43.123456789"', datetime.datetime(1990, 10, 14, 12, 12, 43, 123456)),
        (BYTES, '"awML"', b"k\x03\x0b"),
        (Types.CHAR(), '"x"', "x"),
        (Types.ROW_NAMED(["a", "b"], [Types.INT(), Types.INT()]), '{"b": "2"}', Row(a=None, b=2)),
        (Types.OBJECT_ARRAY(Types.STRING()), '["a", 1, null]', ["a", "1", None]),
        (Types.LIST(Types.LONG()), "[1, 2]", [1, 2]),
        (Types.MAP(Types.INT(), Types.LONG()), '{"7": "8"}', {7: 8}),
        (Types.MAP(Types.STRING(), Types.MAP(Types.STRING(), Types.INT())), '{"a": {"b": 1}}', {"a": {"b": 1}}),
        (Types.LONG(), "null", None),
    ],
)
def test_a_field_becomes_what_flink_makes_of_it(declared: TypeInformation, given_: str, becomes: Any) -> None:
    row = reads(declared).deserialize(f'{{"id": {given_}}}'.encode())
    assert repr(row) == repr(Row(id=becomes))


WRONG = [
    (Types.INT(), '"abc"'),
    (Types.INT(), "2147483648"),
    (Types.INT(), '"1.5"'),
    (Types.SHORT(), "1.0"),
    (Types.LONG(), "true"),
    (Types.LONG(), "[1]"),
    (Types.DOUBLE(), '"112.013.123"'),
    (Types.DOUBLE(), '"nan"'),
    (Types.BIG_DEC(), '"NaN"'),
    (Types.BIG_INT(), "1e9"),
    (Types.SQL_TIME(), '"18:00:243"'),
    (Types.SQL_TIME(), '"18:00:24.5"'),
    (Types.SQL_TIME(), '"18:00"'),
    (Types.SQL_DATE(), '"20191112"'),
    (Types.SQL_DATE(), '"2019-13-01"'),
    (Types.SQL_TIMESTAMP(), '"2019-11-12 18:00:12"'),
    (Types.SQL_TIMESTAMP(), '"2019-11-12T18:00:12Z"'),
    (BYTES, '"a"'),
    (Types.CHAR(), '"xy"'),
    (Types.ROW_NAMED(["a"], [Types.INT()]), "[1]"),
    (Types.OBJECT_ARRAY(Types.INT()), "{}"),
    (Types.MAP(Types.STRING(), Types.INT()), "[]"),
]


@pytest.mark.parametrize(("declared", "given_"), WRONG)
def test_a_field_that_flink_cannot_read_is_an_error_or_none(declared: TypeInformation, given_: str) -> None:
    message = f'{{"id": {given_}}}'.encode()
    with pytest.raises(DataError, match=r"JsonRowDeserializationSchema cannot read these bytes: .*field `id`"):
        reads(declared).deserialize(message)
    assert reads(declared, ignore_parse_errors=True).deserialize(message) == Row(id=None)


def test_only_what_cannot_be_read_inside_arrays_maps_and_rows_is_none() -> None:
    kinds = [
        Types.OBJECT_ARRAY(Types.INT()),
        Types.MAP(Types.STRING(), Types.INT()),
        Types.ROW_NAMED(["a"], [Types.INT()]),
    ]
    schema = JsonRowDeserializationSchema.builder().type_info(Types.ROW_NAMED(["x", "y", "z"], kinds))
    row = (
        schema.ignore_parse_errors().build().deserialize(b'{"x": [1, "a"], "y": {"k": "1", "l": "a"}, "z": {"a": "b"}}')
    )
    assert row == Row(x=[1, None], y={"k": 1, "l": None}, z=Row(a=None))


@pytest.mark.parametrize("message", [b"", b"{", b"[]", b"7", b'{"id": 1} x', b"\xff", b"[" * 100_000, b'{"id": NaN}'])
def test_what_is_no_object_is_an_error_or_passed_over(message: bytes) -> None:
    with pytest.raises(DataError):
        reads(Types.LONG()).deserialize(message)
    assert reads(Types.LONG(), ignore_parse_errors=True).deserialize(message) is None
    assert JsonRowDeserializationSchema.skips


def test_a_record_without_a_value_and_the_document_null_are_none() -> None:
    for schema in (reads(Types.LONG()), reads(Types.LONG(), ignore_parse_errors=True)):
        assert schema.deserialize(None) is None
        assert schema.deserialize(b" null ") is None
    assert writes(Types.LONG()).serialize(None) is None


def test_a_missing_field_is_none_or_an_error() -> None:
    assert reads(Types.LONG()).deserialize(b"{}") == Row(id=None)
    with pytest.raises(DataError, match="there is no field `id`"):
        reads(Types.LONG(), fail_on_missing_field=True).deserialize(b'{"name": 1}')
    assert reads(Types.LONG(), fail_on_missing_field=True).deserialize(b'{"id": null}') == Row(id=None)
    builder = JsonRowDeserializationSchema.builder().type_info(Types.ROW([Types.LONG()]))
    with pytest.raises(ConfigError, match="`fail_on_missing_field` and `ignore_parse_errors` exclude each other"):
        builder.fail_on_missing_field().ignore_parse_errors().build()


def test_rows_without_names_are_read_by_flinks_names_for_them() -> None:
    schema = JsonRowDeserializationSchema.Builder().type_info(Types.ROW([Types.LONG(), Types.STRING()])).build()
    assert schema.deserialize(b'{"f1": "a", "f0": 1}') == Row(1, "a")


def test_a_json_schema_says_the_type() -> None:
    schema = JsonRowDeserializationSchema.builder().json_schema("""
        { /* with all that Jackson lets pass */
            type: 'object',
            properties: {
                id: { type: 'integer' }, idOrNull: { type: ["integer", "null"] }, name: { type: 'string' },
                date: { type: 'string', format: 'date' }, time: { type: 'string', format: 'time' },
                at: { type: 'string', format: 'date-time' }, bytes: { type: 'string', contentEncoding: 'base64' },
                numbers: { type: 'array', items: { type: 'number' } }, // a comment
                nested: { type: 'object', properties: { ok: { type: 'boolean' } } },
                same: { $ref: '#/definitions/name' }, one: { oneOf: [{ type: 'null' }, { type: 'string' }] }
            },
            definitions: { name: { type: 'string', maxLength: 1e3 } }
        }
    """)
    row = schema.build().deserialize(
        b'{"id": 1, "name": "n", "date": "1990-10-14", "time": "12:12:43", "at": "1990-10-14T12:12:43",'
        b'"bytes": "awML", "numbers": [1.10, 2], "nested": {"ok": true}, "same": "s", "one": "o"}'
    )
    assert repr(row) == repr(
        Row(
            id=Decimal(1),
            idOrNull=None,
            name="n",
            date=datetime.date(1990, 10, 14),
            time=datetime.time(12, 12, 43),
            at=datetime.datetime(1990, 10, 14, 12, 12, 43),
            bytes=b"k\x03\x0b",
            numbers=[Decimal("1.10"), Decimal(2)],
            nested=Row(ok=True),
            same="s",
            one="o",
        )
    )


@pytest.mark.parametrize(
    ("schema", "says"),
    [
        ("{", "is not JSON"),
        ('{"type": "string"}', "has to be an object's"),
        ('{"type": "object", "properties": {"a": {"anyOf": []}}}', "has `anyOf` at <root>/a"),
        ('{"type": "object", "properties": {"a": {"type": ["string", "number"]}}}', "String and BigDecimal"),
        ('{"type": "object", "properties": {"a": {"type": "array"}}}', "what the array at <root>/a holds"),
        ('{"type": "object", "properties": {"a": {"$ref": "#"}}}', "refers to itself"),
        ('{"type": "object", "properties": {"a": {"$ref": "#/b"}}}', "has nothing at '#/b'"),
        ('{"type": "object", "additionalProperties": true}', "additionalProperties"),
    ],
)
def test_a_json_schema_that_is_no_rows_is_refused(schema: str, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        JsonRowDeserializationSchema.builder().json_schema(schema)


def test_builders_refuse_what_pyflinks_refuse() -> None:
    with pytest.raises(TypeError, match="Typeinfo should be set"):
        JsonRowSerializationSchema.builder().build()
    with pytest.raises(TypeError, match="needs type information"):
        JsonRowDeserializationSchema.builder().build()
    with pytest.raises(TypeError, match="The json_schema must not be None"):
        JsonRowDeserializationSchema.builder().json_schema(None)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="is for rows, and was given String"):
        JsonRowDeserializationSchema.builder().type_info(Types.STRING()).build()
    for refused in (Types.INSTANT(), Types.TUPLE([Types.INT()]), Types.PICKLED_BYTE_ARRAY()):
        with pytest.raises(ConfigError, match="JSON rows cannot have"):
            reads(refused)
        with pytest.raises(ConfigError, match="JSON rows cannot have"):
            writes(refused)


@pytest.mark.parametrize(
    ("declared", "value", "written"),
    [
        (Types.LONG(), 7, b"7"),
        (Types.SHORT(), 40_000, b"-25536"),
        (Types.STRING(), True, b'"true"'),
        (Types.DOUBLE(), 1, b"1.0"),
        (Types.DOUBLE(), float("nan"), b'"NaN"'),
        (Types.OBJECT_ARRAY(Types.DOUBLE()), [float("-inf")], b'["-Infinity"]'),
        (Types.FLOAT(), 0.10000000149011612, b"0.1"),
        (Types.BIG_DEC(), Decimal("1.10"), b"1.10"),
        (Types.SQL_TIME(), datetime.time(1, 2, 3, 4), b'"01:02:03"'),
        (Types.SQL_TIMESTAMP(), datetime.datetime(2020, 1, 2, 3, 4, 5), b'"2020-01-02T03:04:05"'),
        (BYTES, b"k\x03\x0b", b'"awML"'),
        (Types.MAP(Types.INT(), Types.BOOLEAN()), {7: None}, b'{"7":null}'),
        (Types.ROW_NAMED(["a"], [Types.INT()]), (1,), b'{"a":1}'),
        (Types.LONG(), None, b"null"),
    ],
)
def test_a_value_is_written_as_its_declared_type(declared: TypeInformation, value: Any, written: bytes) -> None:
    assert writes(declared).serialize(Row(value)) == b'{"id":' + written + b"}"


def test_names_find_their_values_and_other_shapes_than_rows_are_taken() -> None:
    schema = JsonRowSerializationSchema(Types.ROW_NAMED(["a", "b"], [Types.INT(), Types.INT()]))
    for element in (Row(1, 2), Row(b=2, a=1), (1, 2), [1, 2], {"b": 2, "a": 1}):
        assert schema.serialize(element) == b'{"a":1,"b":2}'


@pytest.mark.parametrize(
    ("declared", "value"),
    [
        (Types.LONG(), "7"),
        (Types.STRING(), "\ud800"),
        (Types.BIG_DEC(), Decimal("NaN")),
        (Types.SQL_TIMESTAMP(), datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC)),
        (Types.SQL_DATE(), datetime.datetime(2020, 1, 1)),
    ],
)
def test_what_cannot_be_written_is_an_error(declared: TypeInformation, value: Any) -> None:
    with pytest.raises(DataError, match="JsonRowSerializationSchema cannot write this element"):
        writes(declared).serialize(Row(value))


@pytest.mark.parametrize("element", [Row(1, 2), Row(nope=1), 7, "x", object()])
def test_an_element_of_another_shape_is_an_error(element: Any) -> None:
    with pytest.raises(DataError):
        writes(Types.LONG()).serialize(element)


@settings(max_examples=50)
@given(with_rows(row_types(*SIMPLE)))
def test_any_row_comes_back_as_it_was(made: tuple[Any, Row]) -> None:
    declared, row = made
    written = JsonRowSerializationSchema(declared).serialize(row)
    assert written is not None
    assert json.loads(written) is not None
    assert repr(JsonRowDeserializationSchema(declared).deserialize(written)) == repr(row)


@settings(max_examples=50)
@given(with_rows(row_types(*SIMPLE)))
def test_what_goes_the_slow_way_becomes_the_same(made: tuple[Any, Row]) -> None:
    declared, row = made
    # msgspec has no structure with such a name, so everything is read and written by the book.
    names, kinds = [*declared.get_field_names(), 'a "name"'], [*declared.field_types, Types.STRING()]
    slow = Types.ROW_NAMED(names, kinds)
    written = JsonRowSerializationSchema(slow).serialize([*row, "x"])
    assert written is not None
    quick = JsonRowSerializationSchema(declared).serialize(row)
    assert json.loads(written) == {**json.loads(quick or b""), 'a "name"': "x"}
    back = JsonRowDeserializationSchema(slow).deserialize(written)
    assert back is not None
    assert repr(list(back)) == repr([*row, "x"])


ROW_SCHEMAS = [
    JsonRowDeserializationSchema(EVERYTHING, **options)
    for options in ({}, {"fail_on_missing_field": True}, {"ignore_parse_errors": True})
]
NASTY = [b'{"long": 1e400}', b'{"list": [1e999999999]}', b'{"text": "\\ud800"}', b'{"text": "\xff"}', b'{"\xff": 1}']
DEEP = [b'{"text": ' + b"[" * 50_000 + b"]" * 50_000 + b"}", b'{"row":' * 50_000 + b"1" + b"}" * 50_000]


def json_texts() -> st.SearchStrategy[bytes]:
    scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text()
    names = st.sampled_from(EVERYTHING.get_field_names()) | st.text()
    values = st.recursive(
        scalars, lambda v: st.lists(v, max_size=3) | st.dictionaries(names, v, max_size=3), max_leaves=8
    )
    return st.dictionaries(names, values, max_size=6).map(lambda value: json.dumps(value, ensure_ascii=False).encode())


@given(spoiled(json_texts))
@example(NASTY[0])
@example(NASTY[1])
@example(NASTY[2])
@example(NASTY[3])
@example(NASTY[4])
@example(DEEP[0])
@example(DEEP[1])
@example(b'{"long": ' + b"9" * 5000 + b"}")
def test_any_bytes_give_a_value_or_a_data_error(data: bytes) -> None:
    for schema in ROW_SCHEMAS:
        row = read(schema, data)
        assert row is None or isinstance(row, Row)
    for typed in TYPED_SCHEMAS:
        read(typed, data)


@dataclasses.dataclass
class Trade:
    market: str
    price: float
    tags: list[str] = dataclasses.field(default_factory=list)


class TradeStruct(msgspec.Struct):
    market: str
    price: float
    tags: list[str] = []


class TradeModel(pydantic.BaseModel):
    market: str
    price: float
    tags: list[str] = []


TYPED_SCHEMAS = [
    JsonDeserializationSchema(kind) for kind in (None, Trade, TradeStruct, TradeModel, list[Trade], dict[str, int])
]


@pytest.mark.parametrize("kind", [Trade, TradeStruct, TradeModel])
def test_json_becomes_values_of_a_class_and_comes_of_them(kind: Any) -> None:
    reads, writes = JsonDeserializationSchema(kind), JsonSerializationSchema(kind)
    trade = reads.deserialize(b'{"market": "btc", "price": 1, "more": 1}')
    assert trade == kind(market="btc", price=1.0)
    assert writes.serialize(trade) == b'{"market":"btc","price":1.0,"tags":[]}'
    with pytest.raises(DataError, match=rf"JsonDeserializationSchema\({kind.__name__}\) cannot read these bytes"):
        reads.deserialize(b'{"market": "btc"}')
    with pytest.raises(DataError, match=rf"JsonSerializationSchema\({kind.__name__}\) cannot write this element"):
        writes.serialize(object())
    assert reads.deserialize(None) is None
    assert writes.serialize(None) is None


def test_a_model_that_is_not_as_it_says_is_refused() -> None:
    with pytest.raises(DataError, match="cannot write"):
        JsonSerializationSchema(TradeModel).serialize(TradeModel.model_construct(market=7, price="x"))


def test_adapters_of_pydantic_and_what_msgspec_cannot_make() -> None:
    adapter = pydantic.TypeAdapter(list[TradeModel])
    assert JsonDeserializationSchema(adapter).deserialize(b'[{"market": "m", "price": 1}]') == [
        TradeModel(market="m", price=1)
    ]
    with pytest.raises(ConfigError, match="JsonDeserializationSchema cannot make"):
        JsonDeserializationSchema(TradeStruct | dict[str, int])


@given(
    st.recursive(
        st.none()
        | st.booleans()
        | st.integers(-(2**63), 2**64 - 1)
        | st.floats(allow_nan=False, allow_infinity=False)
        | st.text(),
        lambda v: st.lists(v, max_size=4) | st.dictionaries(st.text(), v, max_size=4),
    ).filter(lambda v: v is not None)
)
def test_json_of_no_type_comes_back_as_it_was(value: Any) -> None:
    assert JsonDeserializationSchema().deserialize(JsonSerializationSchema().serialize(value)) == value


def test_schemas_go_to_other_processes_and_give_their_quickest_function() -> None:
    declared = Types.ROW_NAMED(["id"], [Types.LONG()])
    for schema in (JsonRowDeserializationSchema(declared, ignore_parse_errors=True), JsonDeserializationSchema(Trade)):
        copy = pickle.loads(pickle.dumps(schema))
        assert repr(copy) == repr(schema)
        data = b'{"id": "x", "market": "m", "price": 2}'
        function = deserializer_of(copy)
        assert function is not None
        assert function(data) == schema.deserialize(data)
    for writer in (JsonRowSerializationSchema(declared), JsonSerializationSchema(dict)):
        function = serializer_of(pickle.loads(pickle.dumps(writer)))
        assert function is not None
        assert function({"id": 7}) == b'{"id":7}'


def test_pyflinks_old_places_are_found() -> None:
    import headrace.common
    import headrace.common.serialization

    for module in (headrace.common, headrace.common.serialization):
        assert module.JsonRowDeserializationSchema is JsonRowDeserializationSchema
        assert module.AvroRowSerializationSchema.__name__ == "AvroRowSerializationSchema"
        assert module.CsvRowSerializationSchema.__name__ == "CsvRowSerializationSchema"
