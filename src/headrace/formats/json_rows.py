"""JSON as rows, as PyFlink has them.

They are read and written by msgspec as a structure of the row's fields, whatever else an object has. What is not as
declared is read again leaf by leaf (`msgspec.Raw`), by the rules of Flink's `JsonRowDeserializationSchema`.
"""

from __future__ import annotations

import base64
import datetime
import decimal
import math
import re
from collections.abc import Callable, Sequence
from functools import partial
from typing import Annotated, Any

from headrace.common.typeinfo import (
    BasicType,
    BasicTypeInfo,
    DateTypeInfo,
    MapTypeInfo,
    PrimitiveArrayTypeInfo,
    RowTypeInfo,
    SequenceTypeInfo,
    TimestampTypeInfo,
    TimeTypeInfo,
    TypeInformation,
    Types,
)
from headrace.common.types import Row
from headrace.errors import ConfigError
from headrace.formats.json_schema import type_of_json_schema
from headrace.formats.library import library
from headrace.formats.rows import (
    Converter,
    checked,
    each,
    each_entry,
    is_bytes,
    optional,
    row_converter,
    row_reader,
    row_type,
    row_writer,
)
from headrace.formats.schema import (
    ReadingSchema,
    WritingSchema,
    reason,
    unreadable,
    unwritable,
)
from headrace.formats.text import (
    INT_RANGES,
    double_text,
    float_text,
    parse_iso_time,
    parse_iso_timestamp,
    parse_whole,
    parser_of,
)


class JsonRowDeserializationSchema(ReadingSchema):
    """Rows of JSON objects. Made by `JsonRowDeserializationSchema.builder()`.

    >>> schema = (
    ...     JsonRowDeserializationSchema.builder()
    ...     .type_info(Types.ROW_NAMED(["id", "tags"], [Types.LONG(), Types.OBJECT_ARRAY(Types.STRING())]))
    ...     .build()
    ... )
    >>> schema.deserialize(b'{"tags": ["a", 2], "id": "7", "more": true}')
    Row(id=7, tags=['a', '2'])
    >>> schema.deserialize(b'{"id": "seven"}')  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    headrace.errors.DataError: JsonRowDeserializationSchema cannot read these bytes: ... 'seven' is not a whole number

    As on Flink: a field that an object has not got is None, what is no number is taken for the text of one, and the
    document `null` is passed over. Dates are `YYYY-MM-DD`, times `HH:MM:SS`, timestamps `YYYY-MM-DDTHH:MM:SS[.fff]`,
    bytes base64. `ignore_parse_errors()` makes None of a field that cannot be read, and passes over a record that is
    no JSON object.

    *Differences from PyFlink*: a record without a value stays None. Text behind the object is an error, and so is half
    a surrogate pair; a decimal keeps all its digits. Lists and maps hold what they are declared to. `CHAR` is one
    character; tuples, instants and pickled values are refused when the schema is built.
    """

    skips = True

    def __init__(
        self, type_info: TypeInformation, *, fail_on_missing_field: bool = False, ignore_parse_errors: bool = False
    ) -> None:
        declared = row_type(type_info, "JsonRowDeserializationSchema")
        if fail_on_missing_field and ignore_parse_errors:
            raise ConfigError("`fail_on_missing_field` and `ignore_parse_errors` exclude each other; leave one out")
        self._declared, self._fails, self._ignores = declared, fail_on_missing_field, ignore_parse_errors
        self._read = _reader(declared, fail_on_missing_field, ignore_parse_errors)

    @staticmethod
    def builder() -> JsonRowDeserializationSchema.Builder:
        """A builder."""
        return JsonRowDeserializationSchema.Builder()

    def __reduce__(self) -> tuple[Any, ...]:
        return _remade, (self._declared, self._fails, self._ignores)

    def __repr__(self) -> str:
        return f"JsonRowDeserializationSchema({self._declared!r})"

    class Builder:
        """Builds a `JsonRowDeserializationSchema`."""

        def __init__(self) -> None:
            self._type_info: TypeInformation | None = None
            self._fail_on_missing_field = False
            self._ignore_parse_errors = False

        def type_info(self, type_info: TypeInformation) -> JsonRowDeserializationSchema.Builder:
            """The row type; its names are looked for in the objects."""
            self._type_info = type_info
            return self

        def json_schema(self, json_schema: str) -> JsonRowDeserializationSchema.Builder:
            """The row type as a JSON schema: numbers become `Decimal`, arrays lists, objects rows."""
            if json_schema is None:
                raise TypeError("The json_schema must not be None.")
            self._type_info = type_of_json_schema(json_schema)
            return self

        def fail_on_missing_field(self) -> JsonRowDeserializationSchema.Builder:
            """A field that an object has not got is an error, not None."""
            self._fail_on_missing_field = True
            return self

        def ignore_parse_errors(self) -> JsonRowDeserializationSchema.Builder:
            """A field that cannot be read is None, and a record that cannot be read is passed over."""
            self._ignore_parse_errors = True
            return self

        def build(self) -> JsonRowDeserializationSchema:
            """The schema. ConfigError for a type that JSON cannot have."""
            return JsonRowDeserializationSchema(
                row_type(self._type_info, "JsonRowDeserializationSchema"),
                fail_on_missing_field=self._fail_on_missing_field,
                ignore_parse_errors=self._ignore_parse_errors,
            )


def _remade(declared: RowTypeInfo, fails: bool, ignores: bool) -> JsonRowDeserializationSchema:
    return JsonRowDeserializationSchema(declared, fail_on_missing_field=fails, ignore_parse_errors=ignores)


class JsonRowSerializationSchema(WritingSchema):
    """JSON objects of rows. Made by `JsonRowSerializationSchema.builder()`.

    >>> schema = (
    ...     JsonRowSerializationSchema.builder()
    ...     .with_type_info(Types.ROW_NAMED(["id", "price"], [Types.LONG(), Types.BIG_DEC()]))
    ...     .build()
    ... )
    >>> schema.serialize(Row(7, decimal.Decimal("1.10")))
    b'{"id":7,"price":1.10}'

    Values go by position, or by name where a row has names; a value that is not of its declared type becomes it as it
    would on its way through Flink, or is an error. Numbers that JSON has not got are written `"NaN"`, `"Infinity"` and
    `"-Infinity"`, times without fractions of a second.

    *Extension*: tuples, lists, dicts and objects with these attributes are written too. None is written as a record
    without a value.
    """

    def __init__(self, type_info: TypeInformation) -> None:
        self._declared = row_type(type_info, "JsonRowSerializationSchema")
        self._write = _writer(self._declared)

    @staticmethod
    def builder() -> JsonRowSerializationSchema.Builder:
        """A builder."""
        return JsonRowSerializationSchema.Builder()

    def __reduce__(self) -> tuple[Any, ...]:
        return JsonRowSerializationSchema, (self._declared,)

    def __repr__(self) -> str:
        return f"JsonRowSerializationSchema({self._declared!r})"

    class Builder:
        """Builds a `JsonRowSerializationSchema`."""

        def __init__(self) -> None:
            self._type_info: TypeInformation | None = None

        def with_type_info(self, type_info: TypeInformation) -> JsonRowSerializationSchema.Builder:
            """The row type; its names are the objects'."""
            self._type_info = type_info
            return self

        def build(self) -> JsonRowSerializationSchema:
            """The schema. TypeError without a type, ConfigError for one that JSON cannot have."""
            if self._type_info is None:
                raise TypeError("Typeinfo should be set.")
            return JsonRowSerializationSchema(self._type_info)


# Rows, read.


def _reader(declared: RowTypeInfo, fails: bool, ignores: bool) -> Converter:
    msgspec = library("msgspec", "json")
    by_the_book = _Lenient(msgspec, fails, ignores)
    convert = by_the_book.converter(declared)
    whole = msgspec.json.Decoder(msgspec.Raw).decode

    def slow(message: bytes | None) -> Any:
        if message is None:
            return None
        try:
            return convert(bytes(whole(message)).strip())
        except Exception as error:
            if ignores:
                return None
            raise unreadable("JsonRowDeserializationSchema", error, message) from error

    try:
        structure, fields = _Wire(msgspec, fails).structure(declared)
    except _StrangeName:
        return slow
    decode = msgspec.json.Decoder(structure | None).decode
    return row_reader(declared.field_names, "decode(message)", fields, slow, {"decode": decode})


class _StrangeName(Exception):
    """A name that msgspec's structures cannot have: with quotes, backslashes or control characters in it."""


class _Wire:
    """Types that msgspec reads, and what makes the declared value of what it has read."""

    def __init__(self, msgspec: Any, fails: bool) -> None:
        self._msgspec = msgspec
        self._fails = fails
        self._basic: dict[BasicType, tuple[Any, Converter | None]] = {
            BasicType.STRING: (str, None),
            BasicType.BOOLEAN: (bool, None),
            BasicType.DOUBLE: (float, None),
            BasicType.FLOAT: (float, Types.FLOAT().to_internal_type),
            BasicType.CHAR: (Annotated[str, msgspec.Meta(min_length=1, max_length=1)], None),
            BasicType.BIG_INT: (int, None),
            BasicType.BIG_DEC: (decimal.Decimal, _finite),
        }
        for kind, (low, high) in INT_RANGES.items():
            self._basic[kind] = (Annotated[int, msgspec.Meta(ge=low, le=high)], None)

    def structure(self, declared: RowTypeInfo) -> tuple[Any, list[tuple[str, Converter | None]]]:
        """A structure for a row, and where each of the row's values is in it."""
        names = declared.get_field_names()
        fields: list[Any] = []
        places: list[tuple[str, Converter | None]] = []
        for i, field_type in enumerate(declared.field_types):
            wire, convert = self.of(field_type)
            fields.append((f"f{i}", wire | None) if self._fails else (f"f{i}", wire | None, None))
            places.append((f"d.f{i}", convert))
        structure = _structure(self._msgspec, fields, names)
        if structure is None:
            raise _StrangeName
        return structure, places

    def of(self, declared: TypeInformation) -> tuple[Any, Converter | None]:
        match declared:
            case BasicTypeInfo(kind) if kind in self._basic:
                return self._basic[kind]
            case DateTypeInfo():
                return datetime.date, None
            case TimeTypeInfo():
                return str, optional(_parse_time)
            case TimestampTypeInfo():
                return str, optional(parse_iso_timestamp)
            case RowTypeInfo():
                structure, places = self.structure(declared)
                return structure, row_converter(declared.field_names, places)
            case PrimitiveArrayTypeInfo() if is_bytes(declared):
                return bytes, None
            case SequenceTypeInfo():
                wire, convert = self.of(declared.element_type)
                return list[wire | None], None if convert is None else each(convert)  # type: ignore[valid-type]
            case MapTypeInfo():
                wire, convert = self.of(declared.value_type_info)
                to_key = _key_parser(declared.key_type_info)
                entries = None if convert is None and to_key is None else each_entry(to_key, convert)
                return dict[str, wire | None], entries  # type: ignore[valid-type]
            case _:
                raise ConfigError(f"JSON rows cannot have {declared!r}; declare another type for the field")


class _Lenient:
    """What makes values of JSON text by the rules of Flink's converters."""

    def __init__(self, msgspec: Any, fails: bool, ignores: bool) -> None:
        self._fails, self._ignores = fails, ignores
        self._text = msgspec.json.Decoder(str).decode
        self._list = msgspec.json.Decoder(list[msgspec.Raw]).decode
        self._dict = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
        self._compact = partial(msgspec.json.format, indent=-1)

    def converter(self, declared: TypeInformation) -> Callable[[bytes], Any]:
        convert, ignores = self._strict(declared), self._ignores

        def nullable(raw: bytes) -> Any:
            if raw == b"null":
                return None
            try:
                return convert(raw)
            except Exception:
                if ignores:
                    return None
                raise

        return nullable

    def _strict(self, declared: TypeInformation) -> Callable[[bytes], Any]:
        match declared:
            case RowTypeInfo():
                return self._row(declared)
            case PrimitiveArrayTypeInfo() if is_bytes(declared):
                return lambda raw: base64.b64decode(self._text(raw), validate=True)
            case SequenceTypeInfo():
                convert_item = self.converter(declared.element_type)
                return lambda raw: [convert_item(bytes(item).strip()) for item in self._list(raw)]
            case MapTypeInfo():
                to_key = _key_parser(declared.key_type_info) or str
                convert_value = self.converter(declared.value_type_info)
                return lambda raw: {to_key(k): convert_value(bytes(v).strip()) for k, v in self._dict(raw).items()}
            case BasicTypeInfo(BasicType.STRING):
                return self._string
            case BasicTypeInfo(BasicType.INT | BasicType.LONG as kind):
                return lambda raw: self._truncated(raw, kind)
            case _:
                parse = _text_parser(declared)
                return lambda raw: parse(self._as_text(raw))

    def _row(self, declared: RowTypeInfo) -> Callable[[bytes], Row]:
        names = declared.get_field_names()
        fields = [(name, self.converter(kind)) for name, kind in zip(names, declared.field_types, strict=True)]

        def convert(raw: bytes) -> Row:
            values = []
            found = self._dict(raw)
            for name, convert_field in fields:
                if name in found:
                    try:
                        values.append(convert_field(bytes(found[name]).strip()))
                    except Exception as error:
                        raise ValueError(f"field `{name}`: {reason(error)}") from error
                elif self._fails:
                    raise ValueError(f"there is no field `{name}`")
                else:
                    values.append(None)
            row = Row(*values)
            if declared.field_names is not None:
                row.set_field_names(names)
            return row

        return convert

    def _as_text(self, raw: bytes) -> str:
        """Jackson's `asText`; a container has none."""
        if raw[:1] == b'"':
            text: str = self._text(raw)
            return text
        return "" if raw[:1] in b"[{" else raw.decode()

    def _string(self, raw: bytes) -> str:
        if raw[:1] in b"[{":
            return str(self._compact(raw).decode())
        text = self._as_text(raw)
        is_fractional = raw[:1] not in b'"tf' and not text.lstrip("-").isdigit()
        return double_text(float(text)) if is_fractional else text

    def _truncated(self, raw: bytes, kind: BasicType) -> int:
        """A number, whose fraction is cut off if it is one in JSON too."""
        text = self._as_text(raw)
        if raw[:1] not in b'"tf[{' and not text.lstrip("-").isdigit():
            low, high = INT_RANGES[kind]
            if low <= float(text) <= high:
                return max(low, min(high, int(float(text))))
        return parse_whole(text, kind)


def _finite(value: decimal.Decimal | None) -> decimal.Decimal | None:
    if value is not None and not value.is_finite():
        raise ValueError(f"{value} is not a decimal number")
    return value


def _parse_time(text: str) -> datetime.time:
    at = parse_iso_time(text)
    if at.microsecond or text.count(":") < 2:
        raise ValueError(f"{text!r:.80} is not a time: HH:MM:SS, without fractions")
    return at


def _key_parser(declared: TypeInformation) -> Converter | None:
    """What makes a map's key of text; None: it is text."""
    return None if declared == Types.STRING() else _text_parser(declared)


def _text_parser(declared: TypeInformation) -> Converter:
    match declared:
        case BasicTypeInfo() if (parse := parser_of(declared)) is not None:
            return parse
        case BasicTypeInfo(BasicType.STRING | BasicType.CHAR):
            return declared.to_internal_type
        case DateTypeInfo():
            return _parse_date
        case TimeTypeInfo():
            return _parse_time
        case TimestampTypeInfo():
            return parse_iso_timestamp
        case _:
            raise ConfigError(f"JSON rows cannot have {declared!r}; declare another type for the field")


def _parse_date(text: str) -> datetime.date:
    if len(text) != 10 or text[4] != "-":
        raise ValueError(f"{text!r:.80} is not a date: YYYY-MM-DD")
    return datetime.date.fromisoformat(text)


# Rows, written.


def _writer(declared: RowTypeInfo) -> Converter:
    msgspec = library("msgspec", "json")
    names = declared.get_field_names()
    structure = _structure(msgspec, [f"f{i}" for i in range(len(names))], names) or _dict_of(names)
    encode = msgspec.json.Encoder(decimal_format="number").encode
    to_json = [_to_json(field_type) for field_type in declared.field_types]
    converters = [checked(kind, convert) for kind, convert in zip(declared.field_types, to_json, strict=True)]

    def slow(element: Any) -> bytes | None:
        if element is None:
            return None
        try:
            row = declared.to_internal_type(element)
            values = [value if convert is None else convert(value) for convert, value in zip(to_json, row, strict=True)]
            written: bytes = encode(structure(*map(_json_number, values)))
        except Exception as error:
            raise unwritable("JsonRowSerializationSchema", error) from error
        return written

    def finish(values: Sequence[str]) -> str:
        return f"encode(S({', '.join(values)}))"

    return row_writer(declared, finish, converters, slow, {"encode": encode, "S": structure})


def _structure(msgspec: Any, fields: Sequence[Any], names: Sequence[str]) -> Any:
    """A structure of fields f0, f1 …, with these names in JSON; None where msgspec cannot have such names."""
    rename = {f"f{i}": name for i, name in enumerate(names)}
    if any(re.search(r'[\x00-\x1f"\\]', name) for name in names):
        return None
    return msgspec.defstruct("Fields", fields, rename=rename, gc=False)


def _dict_of(names: Sequence[str]) -> Converter:
    return lambda *values: dict(zip(names, values, strict=True))


def _json_number(value: Any) -> Any:
    """A number as Jackson writes it: one that JSON has not got, as text."""
    return double_text(value) if type(value) is float and not math.isfinite(value) else value


def _to_json(declared: TypeInformation) -> Converter | None:
    """What makes JSON's value of one of the declared type; None: it is one."""
    match declared:
        case BasicTypeInfo(BasicType.INSTANT):
            raise ConfigError(f"JSON rows cannot have {declared!r}; declare another type for the field")
        case BasicTypeInfo(BasicType.FLOAT):
            return lambda v: None if v is None else float(float_text(v)) if math.isfinite(v) else double_text(v)
        case BasicTypeInfo(BasicType.BIG_DEC):
            return _finite
        case BasicTypeInfo() | DateTypeInfo():
            return None
        case TimeTypeInfo():
            return optional(lambda at: at.replace(microsecond=0, tzinfo=None).isoformat())
        case TimestampTypeInfo():
            return optional(naive)
        case RowTypeInfo():
            names = declared.get_field_names()
            converters = [_to_json(kind) or _json_number for kind in declared.field_types]
            return lambda row: (
                None
                if row is None
                else {n: convert(value) for n, convert, value in zip(names, converters, row, strict=True)}
            )
        case PrimitiveArrayTypeInfo() if is_bytes(declared):
            return None
        case SequenceTypeInfo():
            return each(_to_json(declared.element_type) or _json_number)
        case MapTypeInfo():
            return each_entry(_key_text(declared.key_type_info), _to_json(declared.value_type_info) or _json_number)
        case _:
            raise ConfigError(f"JSON rows cannot have {declared!r}; declare another type for the field")


def _key_text(declared: TypeInformation) -> Converter | None:
    """The inverse of `_key_parser`."""
    match declared:
        case BasicTypeInfo(BasicType.STRING | BasicType.CHAR):
            return None
        case BasicTypeInfo(BasicType.BOOLEAN):
            return lambda key: "true" if key else "false"
        case BasicTypeInfo(BasicType.DOUBLE):
            return double_text
        case BasicTypeInfo(BasicType.FLOAT):
            return float_text
        case BasicTypeInfo():
            return str
        case DateTypeInfo() | TimeTypeInfo() | TimestampTypeInfo():
            convert = _to_json(declared) or _same
            return lambda key: convert(key).isoformat() if hasattr(key, "year") else convert(key)
        case _:
            raise ConfigError(f"JSON rows cannot have {declared!r} for keys; declare another type")


def _same(value: Any) -> Any:
    return value


def naive(at: datetime.datetime) -> datetime.datetime:
    """The same, which must not have a time zone."""
    if at.tzinfo is not None:
        raise ValueError(f"{at!r} has a time zone, which a timestamp of this type has not; take it off in a map")
    return at
