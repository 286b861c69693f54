"""Avro: rows as PyFlink has them, and plain values (dicts for records). Without a file's header: one datum a record.

`parse_schema`, `reader` and `writer` are what everything here is made of, and what a schema registry needs too.

fastavro reads. What it does not survive: the process dies of a schema that contains itself when the datum does so some
thousand times, or has to; and an array of what takes no bytes may be as long as its count says, without end. Data of
the first goes to fastavro's reader in Python when it is long enough; the others are refused (`UnboundedSchema`).
"""

from __future__ import annotations

import datetime
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from io import BytesIO
from typing import Any, TypeAlias

from headrace.common.refusal import not_supported
from headrace.common.serialization import Deserializer, Serializer
from headrace.common.typeinfo import RowTypeInfo, TypeInformation, Types
from headrace.errors import ConfigError
from headrace.formats.library import library
from headrace.formats.rows import Converter, checked, each, each_entry, optional, row_converter, row_reader, row_writer
from headrace.formats.schema import ReadingSchema, WritingSchema, total_reader, unreadable, unwritable

Schema: TypeAlias = "str | dict[str, Any] | list[Any]"

_SAFE_BYTES = 128
"""Data of a schema that contains itself are read in C up to this size: no level of them takes less than a byte."""

_ROOT = "$root"

_SIMPLE = {
    "string": Types.STRING(),
    "boolean": Types.BOOLEAN(),
    "int": Types.INT(),
    "long": Types.LONG(),
    "float": Types.FLOAT(),
    "double": Types.DOUBLE(),
    "bytes": Types.PRIMITIVE_ARRAY(Types.BYTE()),
    "null": Types.PICKLED_BYTE_ARRAY(),
}
_LOGICAL = {
    ("bytes", "decimal"): Types.BIG_DEC(),
    ("fixed", "decimal"): Types.BIG_DEC(),
    ("int", "date"): Types.SQL_DATE(),
    ("int", "time-millis"): Types.SQL_TIME(),
    ("long", "time-micros"): Types.SQL_TIME(),
    ("long", "timestamp-millis"): Types.SQL_TIMESTAMP(),
    ("long", "timestamp-micros"): Types.SQL_TIMESTAMP(),
}
"""The logical types that Flink knows in rows; values of others are what they are without."""


class UnboundedSchema(ConfigError):
    """A schema by which a few bytes may be data without end."""


def schema_text(schema: Schema) -> str:
    """The schema's JSON. A name alone, `string`, is a schema too."""
    is_json = isinstance(schema, str) and not schema.strip().isidentifier()
    return schema if is_json else json.dumps(schema)  # type: ignore[return-value]


def parse_schema(schema: Schema, imported: Mapping[str, str] | None = None) -> Any:
    """A schema for `reader` and `writer`. `imported` is the JSON of the schemas that it may name, by name.

    ConfigError for what is none, and `UnboundedSchema`, which is one too.
    """
    fastavro = library("fastavro", "avro")
    try:
        if imported:
            parsed = library("fastavro.schema", "avro").load_schema(
                _ROOT, repo=_Once({**imported, _ROOT: schema_text(schema)})
            )
        else:
            parsed = fastavro.parse_schema(_loaded(schema_text(schema)))
    except Exception as error:
        raise ConfigError(f"the Avro schema cannot be used: {type(error).__name__}: {error}") from error
    for part, named in _parts(parsed, {}):
        match _type_of(part):
            case "record" | "error" if _has_to_contain_itself(part, named, ()):
                raise UnboundedSchema(
                    f"the Avro schema's record {part['name']} has to contain itself, without end; let its field be null"
                )
            case "array" if not _takes_bytes(part["items"], named):
                raise UnboundedSchema(
                    "the Avro schema has an array of what takes no bytes, so that its length has no bounds; use a long"
                )
    return parsed


class _Once:
    """A repository of fastavro's in which each name is asked for once, as it would follow a circle without end."""

    def __init__(self, texts: dict[str, str]) -> None:
        self._texts = texts

    def load(self, name: str) -> Any:
        return _loaded(self._texts.pop(name))


def _loaded(text: str) -> Any:
    # A schema that says it was parsed would be taken as it is.
    marks = ("__fastavro_parsed", "__named_schemas")
    return json.loads(text, object_hook=lambda part: {key: value for key, value in part.items() if key not in marks})


def reader(schema: Any, reader_schema: Any = None) -> Callable[[bytes], Any]:
    """What reads a datum of the parsed schema, as one of `reader_schema` if that is given. May raise any Exception."""
    read_in_c = library("fastavro", "avro").schemaless_reader

    def read(data: bytes) -> Any:
        return read_in_c(BytesIO(data), schema, reader_schema)

    if not _contains_itself(schema, ()):
        return read
    read_in_python = library("fastavro._read_py", "avro").schemaless_reader

    def read_safely(data: bytes) -> Any:
        return (read_in_c if len(data) <= _SAFE_BYTES else read_in_python)(BytesIO(data), schema, reader_schema)

    return read_safely


def writer(schema: Any) -> Callable[[Any], bytes]:
    """What writes a datum of the parsed schema. May raise any Exception."""
    schemaless_writer = library("fastavro", "avro").schemaless_writer

    def write(value: Any) -> bytes:
        out = BytesIO()
        schemaless_writer(out, schema, value)
        return out.getvalue()

    return write


class AvroDeserializationSchema(ReadingSchema):
    """Values of a schema, of Avro: dicts for records, lists for arrays, and logical types as fastavro reads them.

    >>> schema = AvroDeserializationSchema('{"type": "map", "values": "long"}')
    >>> schema.deserialize(b"\\x02\\x06btc\\x0e\\x00")
    {'btc': 7}

    A record without a value is None. What stands behind the datum is passed over, as on Flink.

    *Extension*, after the schema of this name in Flink's Java API (`forGeneric`).
    """

    def __init__(self, schema: Schema, reader_schema: Schema | None = None) -> None:
        self._schema, self._reader_schema = schema, reader_schema
        as_read = None if reader_schema is None else parse_schema(reader_schema)
        self._read = _total_reader(parse_schema(schema), as_read)

    def __reduce__(self) -> tuple[Any, ...]:
        return AvroDeserializationSchema, (self._schema, self._reader_schema)


class AvroSerializationSchema(WritingSchema):
    """Avro of values of a schema: dicts for records. *Extension*, as `AvroDeserializationSchema` is.

    >>> AvroSerializationSchema('{"type": "map", "values": "long"}').serialize({"btc": 7})
    b'\\x02\\x06btc\\x0e\\x00'

    None is written as a record without a value.
    """

    def __init__(self, schema: Schema) -> None:
        self._schema = schema
        self._write = _total_writer(parse_schema(schema))

    def __reduce__(self) -> tuple[Any, ...]:
        return AvroSerializationSchema, (self._schema,)


def _total_reader(schema: Any, reader_schema: Any) -> Deserializer:
    """`reader` for None as well, and with errors of ours; in one frame where that can be."""
    what = "AvroDeserializationSchema"
    if _contains_itself(schema, ()):
        return total_reader(what, reader(schema, reader_schema))
    schemaless_reader = library("fastavro", "avro").schemaless_reader

    def read(message: bytes | None) -> Any:
        if message is None:
            return None
        try:
            return schemaless_reader(BytesIO(message), schema, reader_schema)
        except Exception as error:
            raise unreadable(what, error, message) from error

    return read


def _total_writer(schema: Any) -> Serializer:
    schemaless_writer = library("fastavro", "avro").schemaless_writer

    def write(element: Any) -> bytes | None:
        if element is None:
            return None
        try:
            out = BytesIO()
            schemaless_writer(out, schema, element)
        except Exception as error:
            raise unwritable("AvroSerializationSchema", error) from error
        return out.getvalue()

    return write


class AvroRowDeserializationSchema(ReadingSchema):
    """Rows of Avro records.

    >>> schema = AvroRowDeserializationSchema(avro_schema_string='''
    ...     {"type": "record", "name": "Trade", "fields": [
    ...         {"name": "market", "type": "string"}, {"name": "price", "type": ["null", "double"]}]}''')
    >>> schema.deserialize(b"\\x06btc\\x00")
    Row(market='btc', price=None)

    As on Flink: enums are text, arrays lists, dates, times, timestamps and decimals what their logical types say, and
    values of other logical types what they are without. Timestamps are UTC, without a zone. What stands behind the
    record is passed over.

    *Differences from PyFlink*: a record without a value stays None. A `record_class` would be Java's, and is refused.
    """

    def __init__(self, record_class: str | None = None, avro_schema_string: str | None = None) -> None:
        self._schema = _given(record_class, avro_schema_string)
        self._read = _row_reader(self._schema)

    def __reduce__(self) -> tuple[Any, ...]:
        return AvroRowDeserializationSchema, (None, self._schema)


class AvroRowSerializationSchema(WritingSchema):
    """Avro records of rows.

    >>> from headrace.common import Row
    >>> schema = AvroRowSerializationSchema(avro_schema_string='''
    ...     {"type": "record", "name": "Trade", "fields": [
    ...         {"name": "market", "type": "string"}, {"name": "price", "type": ["null", "double"]}]}''')
    >>> schema.serialize(Row("btc", None))
    b'\\x06btc\\x00'

    A timestamp without a zone is UTC. A value that is not of its field's type becomes it as it would on its way through
    Flink, or is an error.

    *Extension*: tuples, lists, dicts and objects with these attributes are written too. None is written as a record
    without a value. *Differences from PyFlink*: a `record_class` would be Java's, and is refused.
    """

    def __init__(self, record_class: str | None = None, avro_schema_string: str | None = None) -> None:
        self._schema = _given(record_class, avro_schema_string)
        self._write = _row_writer(self._schema)

    def __reduce__(self) -> tuple[Any, ...]:
        return AvroRowSerializationSchema, (None, self._schema)


def _given(record_class: str | None, avro_schema_string: str | None) -> str:
    if record_class is not None:
        raise not_supported("record_class", "it names a Java class; give `avro_schema_string` instead")
    if avro_schema_string is None:
        raise TypeError("record_class or avro_schema_string should be specified.")
    return avro_schema_string


# What a schema holds.


def _named(schema: Any, named: Mapping[str, Any]) -> Any:
    """What a name in a schema stands for, if it is not a type's own."""
    return named.get(schema, schema) if isinstance(schema, str) else schema


def _type_of(schema: Any) -> str:
    if isinstance(schema, list):
        return "union"
    kind: str = schema["type"] if isinstance(schema, dict) else schema
    return kind


def _inner(schema: Any) -> list[Any]:
    """The schemas in a schema."""
    match _type_of(schema):
        case "record" | "error":
            return [field["type"] for field in schema["fields"]]
        case "array":
            return [schema["items"]]
        case "map":
            return [schema["values"]]
        case "union":
            return list(schema)
        case _:
            return []


def _parts(schema: Any, named: dict[str, Any]) -> Iterator[tuple[Any, dict[str, Any]]]:
    """A schema's parts, inner ones first and itself last, and what the names known by then stand for."""
    if isinstance(schema, dict) and "name" in schema:
        named[schema["name"]] = schema
    for inner in _inner(schema):
        yield from _parts(inner, named)
    yield schema, named


def _has_to_contain_itself(schema: Any, named: Mapping[str, Any], around: tuple[str, ...]) -> bool:
    schema = _named(schema, named)
    if _type_of(schema) not in ("record", "error"):
        # A union, an array and a map may hold something else, or nothing.
        return False
    if schema["name"] in around:
        return True
    return any(_has_to_contain_itself(inner, named, (*around, schema["name"])) for inner in _inner(schema))


def _takes_bytes(schema: Any, named: Mapping[str, Any]) -> bool:
    schema = _named(schema, named)
    match _type_of(schema):
        case "null":
            return False
        case "record" | "error":
            return any(_takes_bytes(inner, named) for inner in _inner(schema))
        case "fixed":
            return bool(schema["size"] > 0)
        case _:
            return True


def _contains_itself(schema: Any, around: tuple[str, ...]) -> bool:
    if isinstance(schema, str):
        return schema in around
    if isinstance(schema, dict) and "name" in schema:
        around = (*around, schema["name"])
    # A name that is not around may stand for what contains itself; that is found where it is defined.
    return any(_contains_itself(inner, around) for inner in _inner(schema))


# Rows.


def _row_schema(text: str) -> tuple[Any, RowTypeInfo, dict[str, Any]]:
    """The schema as rows are read by it, their type, and its named types."""
    parsed = parse_schema(text)
    if _type_of(parsed) != "record":
        raise ConfigError(f"the Avro schema is that of a {_type_of(parsed)}, and has to be a record's")
    if _contains_itself(parsed, ()):
        raise ConfigError("the Avro schema contains itself, which a row cannot; use AvroDeserializationSchema")
    schema = parse_schema(_without_unknown(json.loads(text)))
    named: dict[str, Any] = {}
    for _ in _parts(schema, named):
        pass
    row_type = _row_type(schema, named)
    assert isinstance(row_type, RowTypeInfo)
    return schema, row_type, named


def _without_unknown(schema: Any) -> Any:
    if isinstance(schema, list):
        return [_without_unknown(inner) for inner in schema]
    if not isinstance(schema, dict):
        return schema
    return {
        key: _without_unknown(value) if key in ("type", "items", "values", "fields") else value
        for key, value in schema.items()
        if key != "logicalType" or (schema.get("type"), value) in _LOGICAL
    }


def _actual(schema: Any, named: Mapping[str, Any]) -> Any:
    """What a schema is besides null; a union of several is itself."""
    schema = _named(schema, named)
    if isinstance(schema, list):
        others = [inner for inner in schema if inner != "null"]
        return _named(others[0], named) if len(others) == 1 else schema
    return schema


def _logical(schema: Any) -> str | None:
    return schema.get("logicalType") if isinstance(schema, dict) else None


def _row_type(schema: Any, named: Mapping[str, Any]) -> TypeInformation:
    schema = _actual(schema, named)
    if (logical := _logical(schema)) is not None:
        return _LOGICAL[schema["type"], logical]
    match _type_of(schema):
        case "record" | "error":
            fields = schema["fields"]
            return Types.ROW_NAMED([f["name"] for f in fields], [_row_type(f["type"], named) for f in fields])
        case "enum":
            return Types.STRING()
        case "fixed":
            return _SIMPLE["bytes"]
        case "array":
            return Types.OBJECT_ARRAY(_row_type(schema["items"], named))
        case "map":
            return Types.MAP(Types.STRING(), _row_type(schema["values"], named))
        case "union":
            return Types.PICKLED_BYTE_ARRAY()
        case simple:
            return _SIMPLE[simple]


def _row_reader(text: str) -> Converter:
    schema, _, named = _row_schema(text)
    names, fields = _fields(schema, named)
    schemaless_reader = library("fastavro", "avro").schemaless_reader
    decode = "reader(BytesIO(message), schema, None) if message is not None else None"

    def slow(message: bytes | None) -> Any:
        try:
            return convert(schemaless_reader(BytesIO(message or b""), schema, None))
        except Exception as error:
            raise unreadable("AvroRowDeserializationSchema", error, message or b"") from error

    convert = row_converter(names, fields)
    return row_reader(names, decode, fields, slow, {"reader": schemaless_reader, "BytesIO": BytesIO, "schema": schema})


def _fields(schema: Any, named: Mapping[str, Any]) -> tuple[list[str], list[tuple[str, Converter | None]]]:
    names = [field["name"] for field in schema["fields"]]
    converters = [_from_avro(field["type"], named) for field in schema["fields"]]
    return names, [(f"d[{name!r}]", convert) for name, convert in zip(names, converters, strict=True)]


def _from_avro(schema: Any, named: Mapping[str, Any]) -> Converter | None:
    """What makes the row's value of fastavro's; None: it is one."""
    schema = _actual(schema, named)
    if (_logical(schema) or "").startswith("timestamp-"):
        return optional(lambda at: at.replace(tzinfo=None))
    match _type_of(schema):
        case "record" | "error":
            return row_converter(*_fields(schema, named))
        case "array":
            convert = _from_avro(schema["items"], named)
            return None if convert is None else each(convert)
        case "map":
            convert = _from_avro(schema["values"], named)
            return None if convert is None else each_entry(None, convert)
        case _:
            return None


def _row_writer(text: str) -> Converter:
    schema, row_type, named = _row_schema(text)
    names = row_type.get_field_names()
    to_avro = [_to_avro(field["type"], named) for field in schema["fields"]]
    converters = [checked(kind, convert) for kind, convert in zip(row_type.field_types, to_avro, strict=True)]
    write = writer(schema)

    def slow(element: Any) -> bytes | None:
        if element is None:
            return None
        try:
            row = row_type.to_internal_type(element)
            values = [value if convert is None else convert(value) for convert, value in zip(to_avro, row, strict=True)]
            return write(dict(zip(names, values, strict=True)))
        except Exception as error:
            raise unwritable("AvroRowSerializationSchema", error) from error

    def finish(values: Sequence[str]) -> str:
        fields = ", ".join(f"{name!r}: {value}" for name, value in zip(names, values, strict=True))
        return f"writer(o := BytesIO(), schema, {{{fields}}}) or o.getvalue()"

    schemaless_writer = library("fastavro", "avro").schemaless_writer
    bindings = {"writer": schemaless_writer, "BytesIO": BytesIO, "schema": schema}
    return row_writer(row_type, finish, converters, slow, bindings)


def _to_avro(schema: Any, named: Mapping[str, Any]) -> Converter | None:
    """The inverse of `_from_avro`."""
    schema = _actual(schema, named)
    if (_logical(schema) or "").startswith("timestamp-"):
        return optional(_in_utc)
    match _type_of(schema):
        case "record" | "error":
            names = [field["name"] for field in schema["fields"]]
            converters = [_to_avro(field["type"], named) for field in schema["fields"]]
            return optional(
                lambda row: {
                    n: value if convert is None else convert(value)
                    for n, convert, value in zip(names, converters, row, strict=True)
                }
            )
        case "array":
            convert = _to_avro(schema["items"], named)
            return None if convert is None else each(convert)
        case "map":
            convert = _to_avro(schema["values"], named)
            return None if convert is None else each_entry(None, convert)
        case _:
            return None


def _in_utc(at: datetime.datetime) -> datetime.datetime:
    return at.replace(tzinfo=datetime.UTC) if at.tzinfo is None else at
