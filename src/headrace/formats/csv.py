"""CSV: rows as PyFlink has them, one line each.

Python's `csv` reads the line. Lines are written as Jackson's CSV library does it for Flink, byte for byte, as what is
put into quotes is a matter of its own rules.
"""

from __future__ import annotations

import base64
import csv
import io
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from headrace.common.serialization import Deserializer, Serializer
from headrace.common.typeinfo import (
    BasicArrayTypeInfo,
    BasicType,
    BasicTypeInfo,
    DateTypeInfo,
    ObjectArrayTypeInfo,
    RowTypeInfo,
    TimestampTypeInfo,
    TimeTypeInfo,
    TypeInformation,
)
from headrace.common.types import Row
from headrace.errors import ConfigError
from headrace.formats.rows import Converter, is_bytes, row_type
from headrace.formats.schema import ReadingSchema, WritingSchema, unreadable, unwritable
from headrace.formats.text import (
    INT_RANGES,
    double_text,
    float_text,
    parse_sql_date,
    parse_sql_time,
    parse_sql_timestamp,
    parser_of,
)

_ALWAYS_QUOTED_CHARS = 24
"""A text longer than this is put into quotes whatever it holds."""

_ESCAPED = {"0": "\0", "n": "\n", "r": "\r", "t": "\t"}

# Python's csv reads no longer fields than this, and has one limit for the whole process: 131,072 before.
_MAX_FIELD_CHARS = 1 << 30


@dataclass(frozen=True, slots=True)
class Dialect:
    """How a line is written. Flink's defaults; `quote`, `escape` and `null_literal` None: there is none."""

    separator: str = ","
    line_end: str = "\n"
    array_separator: str = ";"
    quote: str | None = '"'
    escape: str | None = None
    null_literal: str | None = None
    allow_comments: bool = False


class CsvRowDeserializationSchema(ReadingSchema):
    """Rows of lines of CSV. Made by `CsvRowDeserializationSchema.Builder(type_info)`.

    >>> from headrace.common import Types
    >>> types = [Types.LONG(), Types.STRING(), Types.BASIC_ARRAY(Types.INT())]
    >>> builder = CsvRowDeserializationSchema.Builder(Types.ROW_NAMED(["id", "name", "tags"], types))
    >>> schema = builder.set_null_literal("-").build()
    >>> schema.deserialize(b'7,"Lovelace, Ada",1;2\\n')
    Row(id=7, name='Lovelace, Ada', tags=[1, 2])
    >>> schema.deserialize(b"7,-,3")
    Row(id=7, name=None, tags=[3])

    As on Flink: a record is one line, and of several the first counts; an empty one, or a comment where those are
    allowed, is passed over. Arrays and rows inside a row are one cell with a delimiter of its own (`;`). Dates are
    `YYYY-MM-DD`, times `HH:MM:SS`, timestamps `YYYY-MM-DD HH:MM:SS[.fff]`, bytes base64. There are no maps.
    `set_ignore_parse_errors(True)` makes None of a cell that cannot be read and of cells that are missing, and passes
    over a record that cannot be read.

    *Differences from PyFlink*: a record without a value stays None.
    """

    skips = True

    def __init__(
        self, type_info: TypeInformation, dialect: Dialect | None = None, ignore_parse_errors: bool = False
    ) -> None:
        self._declared = row_type(type_info, "CsvRowDeserializationSchema")
        self._dialect, self._ignores = dialect or Dialect(), ignore_parse_errors
        self._read = _reader(self._declared, self._dialect, ignore_parse_errors)

    def __reduce__(self) -> tuple[Any, ...]:
        return CsvRowDeserializationSchema, (self._declared, self._dialect, self._ignores)

    def __repr__(self) -> str:
        return f"CsvRowDeserializationSchema({self._declared!r})"

    class Builder:
        """Builds a `CsvRowDeserializationSchema`."""

        def __init__(self, type_info: TypeInformation) -> None:
            self._type_info = _checked_type(type_info)
            self._dialect = Dialect()
            self._ignores = False

        def set_field_delimiter(self, delimiter: str) -> CsvRowDeserializationSchema.Builder:
            """The character between cells; by default a comma."""
            self._dialect = replace(self._dialect, separator=_one(delimiter, "set_field_delimiter"))
            return self

        def set_allow_comments(self, allow_comments: bool) -> CsvRowDeserializationSchema.Builder:
            """Whether a line that begins with `#` is passed over."""
            self._dialect = replace(self._dialect, allow_comments=bool(allow_comments))
            return self

        def set_array_element_delimiter(self, delimiter: str) -> CsvRowDeserializationSchema.Builder:
            """The text between an array's elements; by default a semicolon."""
            self._dialect = replace(self._dialect, array_separator=_text(delimiter, "set_array_element_delimiter"))
            return self

        def set_quote_character(self, c: str) -> CsvRowDeserializationSchema.Builder:
            """The character around cells that hold special ones; by default `"`."""
            self._dialect = replace(self._dialect, quote=_one(c, "set_quote_character"))
            return self

        def set_escape_character(self, c: str) -> CsvRowDeserializationSchema.Builder:
            """The character before one that is meant as it is; by default there is none."""
            self._dialect = replace(self._dialect, escape=_one(c, "set_escape_character"))
            return self

        def set_null_literal(self, null_literal: str) -> CsvRowDeserializationSchema.Builder:
            """The text that stands for None; by default there is none."""
            self._dialect = replace(self._dialect, null_literal=_text(null_literal, "set_null_literal", empty=True))
            return self

        def set_ignore_parse_errors(self, ignore_parse_errors: bool) -> CsvRowDeserializationSchema.Builder:
            """Whether what cannot be read becomes None, or is passed over, instead of an error."""
            self._ignores = bool(ignore_parse_errors)
            return self

        def build(self) -> CsvRowDeserializationSchema:
            """The schema. ConfigError for a type that CSV cannot have."""
            return CsvRowDeserializationSchema(self._type_info, self._dialect, self._ignores)


class CsvRowSerializationSchema(WritingSchema):
    """Lines of CSV of rows. Made by `CsvRowSerializationSchema.Builder(type_info)`.

    >>> from headrace.common import Types
    >>> schema = CsvRowSerializationSchema.Builder(Types.ROW([Types.STRING(), Types.DOUBLE()])).build()
    >>> schema.serialize(Row("Lovelace, Ada", 1e7))
    b'"Lovelace, Ada",1.0E7\\n'

    Without a null literal None is an empty cell. A value that is not of its declared type becomes it as it would on its
    way through Flink, or is an error. Without a quote character nothing is kept apart from the delimiters.

    *Extension*: tuples, lists, dicts and objects with these attributes are written too. None is written as a record
    without a value.
    """

    def __init__(self, type_info: TypeInformation, dialect: Dialect | None = None) -> None:
        self._declared = row_type(type_info, "CsvRowSerializationSchema")
        self._dialect = dialect or Dialect()
        self._write = _writer(self._declared, self._dialect)

    def __reduce__(self) -> tuple[Any, ...]:
        return CsvRowSerializationSchema, (self._declared, self._dialect)

    def __repr__(self) -> str:
        return f"CsvRowSerializationSchema({self._declared!r})"

    class Builder:
        """Builds a `CsvRowSerializationSchema`."""

        def __init__(self, type_info: TypeInformation) -> None:
            self._type_info = _checked_type(type_info)
            self._dialect = Dialect()

        def set_field_delimiter(self, c: str) -> CsvRowSerializationSchema.Builder:
            """The character between cells; by default a comma."""
            self._dialect = replace(self._dialect, separator=_one(c, "set_field_delimiter"))
            return self

        def set_line_delimiter(self, delimiter: str) -> CsvRowSerializationSchema.Builder:
            """What ends the line: `\\n` (the default), `\\r`, `\\r\\n`, or nothing."""
            if delimiter not in ("\n", "\r", "\r\n", ""):
                raise ConfigError(f"`set_line_delimiter` takes \\n, \\r, \\r\\n or nothing, got {delimiter!r}")
            self._dialect = replace(self._dialect, line_end=delimiter)
            return self

        def set_array_element_delimiter(self, delimiter: str) -> CsvRowSerializationSchema.Builder:
            """The text between an array's elements; by default a semicolon."""
            self._dialect = replace(self._dialect, array_separator=_text(delimiter, "set_array_element_delimiter"))
            return self

        def disable_quote_character(self) -> CsvRowSerializationSchema.Builder:
            """Put nothing into quotes."""
            self._dialect = replace(self._dialect, quote=None)
            return self

        def set_quote_character(self, c: str) -> CsvRowSerializationSchema.Builder:
            """The character around cells that hold special ones; by default `"`."""
            self._dialect = replace(self._dialect, quote=_one(c, "set_quote_character"))
            return self

        def set_escape_character(self, c: str) -> CsvRowSerializationSchema.Builder:
            """The character before one that is meant as it is; by default there is none."""
            self._dialect = replace(self._dialect, escape=_one(c, "set_escape_character"))
            return self

        def set_null_literal(self, s: str) -> CsvRowSerializationSchema.Builder:
            """The text that stands for None; by default an empty cell."""
            self._dialect = replace(self._dialect, null_literal=_text(s, "set_null_literal", empty=True))
            return self

        def build(self) -> CsvRowSerializationSchema:
            """The schema. ConfigError for a type that CSV cannot have."""
            return CsvRowSerializationSchema(self._type_info, self._dialect)


def _checked_type(type_info: TypeInformation | None) -> RowTypeInfo:
    if type_info is None:
        raise TypeError("Type information must not be None")
    return row_type(type_info, "CSV")


def _one(given: Any, setter: str) -> str:
    if not isinstance(given, str):
        raise TypeError(f"`{setter}` takes a str, got {type(given).__name__}")
    if len(given) != 1 or given in "\r\n":
        raise ConfigError(f"`{setter}` takes one character that ends no line, got {given!r}")
    return given


def _text(given: Any, setter: str, *, empty: bool = False) -> str:
    if not isinstance(given, str):
        raise TypeError(f"`{setter}` takes a str, got {type(given).__name__}")
    if not given and not empty:
        raise ConfigError(f"`{setter}` takes a text that is not empty")
    return given


def _refused(name: str, declared: TypeInformation) -> ConfigError:
    return ConfigError(
        f"CSV rows cannot have {declared!r} in field `{name}`; they have numbers, text, booleans, dates, times, bytes, "
        "and arrays and rows of these"
    )


# Reading.


def _reader(declared: RowTypeInfo, dialect: Dialect, ignores: bool) -> Deserializer:
    csv.field_size_limit(max(csv.field_size_limit(), _MAX_FIELD_CHARS))
    settings: dict[str, Any] = {"delimiter": dialect.separator, "strict": True, "doublequote": True}
    if dialect.quote is None:
        settings["quoting"] = csv.QUOTE_NONE
    else:
        settings["quotechar"] = dialect.quote
    settings["escapechar"] = dialect.escape
    escaped = None if dialect.escape is None else re.compile(re.escape(dialect.escape) + "(.)", re.DOTALL)
    names = declared.get_field_names()
    convert = _row_parser(declared, dialect, ignores, is_nested=False)

    def cells_of(text: str) -> list[str] | None:
        while dialect.allow_comments and text.startswith("#"):
            text = re.sub(r"\A[^\r\n]*(\r\n|\r|\n)?", "", text, count=1)
        if not text:
            return None
        if escaped is not None:
            text = escaped.sub(lambda match: match[0][0] + _ESCAPED.get(match[1], match[1]), text)
        return next(csv.reader(io.StringIO(text, newline=""), **settings)) or [""]

    def read(message: bytes | None) -> Row | None:
        if message is None:
            return None
        try:
            cells = cells_of(message.decode())
            if cells is None:
                return None
            if len(cells) > len(names):
                raise ValueError(f"there are {len(cells)} cells, and the row has {len(names)} fields")
            row: Row = convert(cells)
        except Exception as error:
            if ignores:
                return None
            raise unreadable("CsvRowDeserializationSchema", error, message) from error
        return row

    return read


def _row_parser(declared: RowTypeInfo, dialect: Dialect, ignores: bool, *, is_nested: bool) -> Converter:
    names = declared.get_field_names()
    parsers = [
        _cell_parser(name, kind, dialect, ignores, is_nested)
        for name, kind in zip(names, declared.field_types, strict=True)
    ]

    def parse(cells: list[str]) -> Row:
        if len(cells) != len(parsers) and not ignores:
            raise ValueError(f"there are {len(cells)} cells, and the row has {len(parsers)} fields")
        values = [parse_cell(cell) for parse_cell, cell in zip(parsers, cells, strict=False)]
        row = Row(*values, *[None] * (len(parsers) - len(values)))
        if declared.field_names is not None:
            row.set_field_names(names)
        return row

    return parse


def _cell_parser(
    name: str, declared: TypeInformation, dialect: Dialect, ignores: bool, is_nested: bool
) -> Callable[[str], Any]:
    parse, null = _parser(name, declared, dialect, ignores, is_nested), dialect.null_literal

    def parse_cell(cell: str) -> Any:
        if cell == null:
            return None
        try:
            return parse(cell)
        except Exception as error:
            if ignores:
                return None
            raise ValueError(f"field `{name}`: {error}") from error

    return parse_cell


def _parser(name: str, declared: TypeInformation, dialect: Dialect, ignores: bool, is_nested: bool) -> Converter:
    match declared:
        case BasicTypeInfo(BasicType.STRING):
            return str
        case BasicTypeInfo() if (parse := parser_of(declared)) is not None:
            return parse
        case DateTypeInfo():
            return parse_sql_date
        case TimeTypeInfo():
            return parse_sql_time
        case TimestampTypeInfo():
            return parse_sql_timestamp
        case _ if is_bytes(declared) and not is_nested:
            return lambda cell: base64.b64decode(cell, validate=True)
        case BasicArrayTypeInfo() | ObjectArrayTypeInfo() if not is_nested:
            parse_item = _cell_parser(name, declared.element_type, dialect, ignores, True)
            return lambda cell: [parse_item(item) for item in _items(cell, dialect)]
        case RowTypeInfo() if not is_nested:
            parse_row = _row_parser(declared, dialect, ignores, is_nested=True)
            # As on Flink, which has no row of no cells.
            return lambda cell: parse_row(items) if (items := _items(cell, dialect)) else None
        case _:
            raise _refused(name, declared)


def _items(cell: str, dialect: Dialect) -> list[str]:
    return cell.split(dialect.array_separator) if cell.strip() else []


# Writing.


def _writer(declared: RowTypeInfo, dialect: Dialect) -> Serializer:
    writers = [
        _cell_writer(name, kind, dialect, is_nested=False)
        for name, kind in zip(declared.get_field_names(), declared.field_types, strict=True)
    ]
    null = dialect.null_literal or ""

    def write(element: Any) -> bytes | None:
        if element is None:
            return None
        try:
            row = declared.to_internal_type(element)
            cells = [null if v is None else write_cell(v) for write_cell, v in zip(writers, row, strict=True)]
            written: bytes = (dialect.separator.join(cells) + dialect.line_end).encode()
        except Exception as error:
            raise unwritable("CsvRowSerializationSchema", error) from error
        return written

    return write


def _cell_writer(name: str, declared: TypeInformation, dialect: Dialect, *, is_nested: bool) -> Callable[[Any], str]:
    """What makes a cell of a value that is not None; inside another one, nothing is put into quotes."""
    to_text, is_plain = _to_text(name, declared, dialect, is_nested)
    if is_plain or is_nested or dialect.quote is None:
        return to_text
    quoted = _quoter(dialect)
    return lambda value: quoted(to_text(value))


def _quoter(dialect: Dialect) -> Callable[[str], str]:
    quote, escape = dialect.quote or "", dialect.escape
    # Jackson calls for quotes by a single comparison: whatever is not above all special characters may be one.
    highest = max(map(ord, dialect.separator + quote + dialect.line_end))
    suspicious = re.compile(f"[\\x00-\\U{highest:08x}{'' if escape is None else re.escape(escape)}]")

    def quoted(text: str) -> str:
        if len(text) <= _ALWAYS_QUOTED_CHARS and not suspicious.search(text):
            return text
        if escape is not None and escape != quote:
            text = text.replace(escape, escape * 2)
        return quote + text.replace(quote, quote * 2) + quote

    return quoted


def _to_text(
    name: str, declared: TypeInformation, dialect: Dialect, is_nested: bool
) -> tuple[Callable[[Any], str], bool]:
    """What makes text of a value, and whether it never needs quotes."""
    match declared:
        case BasicTypeInfo(BasicType.STRING):
            return str, False
        case BasicTypeInfo(BasicType.BOOLEAN):
            return lambda value: "true" if value else "false", True
        case BasicTypeInfo(BasicType.DOUBLE):
            return double_text, True
        case BasicTypeInfo(BasicType.FLOAT):
            return float_text, True
        case BasicTypeInfo(kind) if kind in INT_RANGES:
            return str, True
        case BasicTypeInfo(BasicType.BIG_INT | BasicType.BIG_DEC) | DateTypeInfo():
            return str, False
        case TimeTypeInfo():
            return lambda at: at.replace(microsecond=0, tzinfo=None).isoformat(), False
        case TimestampTypeInfo():
            return _timestamp_text, False
        case _ if is_bytes(declared) and not is_nested:
            return lambda value: base64.b64encode(value).decode(), False
        case BasicArrayTypeInfo() | ObjectArrayTypeInfo() if not is_nested:
            write_item = _cell_writer(name, declared.element_type, dialect, is_nested=True)
            return lambda items: _joined([write_item] * len(items), items, dialect), False
        case RowTypeInfo() if not is_nested:
            writers = [_cell_writer(name, kind, dialect, is_nested=True) for kind in declared.field_types]
            return lambda row: _joined(writers, row, dialect), False
        case _:
            raise _refused(name, declared)


def _joined(writers: list[Callable[[Any], str]], values: Any, dialect: Dialect) -> str:
    null = dialect.null_literal or ""
    cells = [null if value is None else write(value) for write, value in zip(writers, values, strict=True)]
    return dialect.array_separator.join(cells)


def _timestamp_text(at: Any) -> str:
    """`java.sql.Timestamp.toString`."""
    if at.tzinfo is not None:
        raise ValueError(f"{at!r} has a time zone, which a timestamp of this type has not; take it off in a map")
    fraction = f"{at.microsecond:06}".rstrip("0") or "0"
    return f"{at.replace(microsecond=0).isoformat(' ')}.{fraction}"
