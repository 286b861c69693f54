"""Protobuf: messages as they are, and rows of them. *Extension*: PyFlink has Protobuf in its Table API only.

Rows are what Flink's SQL format makes of messages: a message is a row of its fields in the order of their declaration,
an enum its name, a repeated field a list. `row_type_of`, `row_reader_of` and `row_writer_of` are plain functions of a
message class.
"""

from __future__ import annotations

from collections.abc import Sequence
from keyword import iskeyword
from typing import Any

from headrace.common.serialization import Serializer
from headrace.common.typeinfo import RowTypeInfo, TypeInformation, Types
from headrace.common.types import Row
from headrace.errors import ConfigError
from headrace.formats.library import library
from headrace.formats.rows import Converter, checked, each, each_entry, optional, row_converter, row_reader, row_writer
from headrace.formats.schema import ReadingSchema, WritingSchema, total_reader, unreadable, unwritable

# By the descriptor's `cpp_type`.
_INT32, _INT64, _UINT32, _UINT64, _DOUBLE, _FLOAT, _BOOL, _ENUM, _STRING, _MESSAGE = range(1, 11)
_TYPES = {
    _INT32: Types.INT(),
    _INT64: Types.LONG(),
    # Java has no unsigned numbers; on Flink they are these, and wrap.
    _UINT32: Types.LONG(),
    _UINT64: Types.BIG_INT(),
    _DOUBLE: Types.DOUBLE(),
    _FLOAT: Types.FLOAT(),
    _BOOL: Types.BOOLEAN(),
    _ENUM: Types.STRING(),
    _STRING: Types.STRING(),
}
_BYTES_TYPE = 12


class ProtobufDeserializationSchema(ReadingSchema):
    """Messages of one class.

    >>> from google.protobuf.timestamp_pb2 import Timestamp
    >>> ProtobufDeserializationSchema(Timestamp).deserialize(b"\\x08\\x07").seconds
    7

    A record without a value is None. Bytes that are another message's may well be read as one of these: Protobuf says
    nothing of whose they are.

    *Extension*.
    """

    def __init__(self, message_class: type[Any]) -> None:
        self._class = checked_class(message_class)
        self._read = total_reader(repr(self), message_class.FromString)

    def __reduce__(self) -> tuple[Any, ...]:
        return ProtobufDeserializationSchema, (self._class,)

    def __repr__(self) -> str:
        return f"ProtobufDeserializationSchema({self._class.__name__})"


class ProtobufSerializationSchema(WritingSchema):
    """Bytes of messages of one class. None is written as a record without a value. *Extension*."""

    def __init__(self, message_class: type[Any]) -> None:
        self._class = checked_class(message_class)
        self._write = _message_writer(message_class)

    def __reduce__(self) -> tuple[Any, ...]:
        return ProtobufSerializationSchema, (self._class,)

    def __repr__(self) -> str:
        return f"ProtobufSerializationSchema({self._class.__name__})"


class ProtobufRowDeserializationSchema(ReadingSchema):
    """Rows of messages of one class.

    >>> from google.protobuf.timestamp_pb2 import Timestamp
    >>> ProtobufRowDeserializationSchema(Timestamp).deserialize(b"\\x08\\x07")
    Row(seconds=7, nanos=0)

    As with Flink's SQL format: a field that can tell that it is not there is None then, and its default with
    `read_default_values` if it is no message; one that cannot (proto3) has its default. `ignore_parse_errors` passes
    over a record that cannot be read. An enum's number without a name is its digits. A record without a value is None.

    *Extension*.
    """

    skips = True

    def __init__(
        self, message_class: type[Any], *, read_default_values: bool = False, ignore_parse_errors: bool = False
    ) -> None:
        self._class = checked_class(message_class)
        self._defaults, self._ignores = read_default_values, ignore_parse_errors
        self._read = row_reader_of(message_class, read_default_values, ignore_parse_errors)

    def __reduce__(self) -> tuple[Any, ...]:
        return _remade, (self._class, self._defaults, self._ignores)

    def __repr__(self) -> str:
        return f"ProtobufRowDeserializationSchema({self._class.__name__})"


def _remade(message_class: type[Any], defaults: bool, ignores: bool) -> ProtobufRowDeserializationSchema:
    return ProtobufRowDeserializationSchema(message_class, read_default_values=defaults, ignore_parse_errors=ignores)


class ProtobufRowSerializationSchema(WritingSchema):
    """Messages of one class, of rows.

    >>> from google.protobuf.timestamp_pb2 import Timestamp
    >>> ProtobufRowSerializationSchema(Timestamp).serialize(Row(seconds=7, nanos=None))
    b'\\x08\\x07'

    A field that is None is left out; inside lists and maps, where Protobuf has no null, it is an error. Tuples, lists,
    dicts and objects with these attributes are written too, and None as a record without a value.

    *Extension*.
    """

    def __init__(self, message_class: type[Any]) -> None:
        self._class = checked_class(message_class)
        self._write = row_writer_of(message_class)

    def __reduce__(self) -> tuple[Any, ...]:
        return ProtobufRowSerializationSchema, (self._class,)

    def __repr__(self) -> str:
        return f"ProtobufRowSerializationSchema({self._class.__name__})"


def checked_class(message_class: Any) -> type[Any]:
    """The class, which has to be one of messages."""
    message = library("google.protobuf.message", "protobuf").Message
    if not isinstance(message_class, type) or not issubclass(message_class, message):
        raise ConfigError(f"a class of Protobuf messages is needed, one of a `…_pb2` module, not {message_class!r:.80}")
    return message_class


def row_type_of(descriptor: Any) -> RowTypeInfo:
    """The type of the rows of a message, by its descriptor. ConfigError for one that contains itself."""
    found = _message_type(descriptor, ())
    assert isinstance(found, RowTypeInfo)
    return found


def _message_type(descriptor: Any, around: tuple[str, ...]) -> TypeInformation:
    if descriptor.full_name in around:
        raise ConfigError(
            f"the message {descriptor.full_name} contains itself, which a row cannot; use ProtobufDeserializationSchema"
        )
    around = (*around, descriptor.full_name)
    return Types.ROW_NAMED(
        [field.name for field in descriptor.fields], [_field_type(field, around) for field in descriptor.fields]
    )


def _field_type(field: Any, around: tuple[str, ...]) -> TypeInformation:
    if (entry := _map_entry(field)) is not None:
        key, value = entry
        return Types.MAP(_single_type(key, around), _single_type(value, around))
    single = _single_type(field, around)
    return Types.OBJECT_ARRAY(single) if _is_repeated(field) else single


def _single_type(field: Any, around: tuple[str, ...]) -> TypeInformation:
    if field.cpp_type == _MESSAGE:
        return _message_type(field.message_type, around)
    return Types.PRIMITIVE_ARRAY(Types.BYTE()) if field.type == _BYTES_TYPE else _TYPES[field.cpp_type]


def _is_repeated(field: Any) -> bool:
    # Protobuf 7 has no `label`, 5 no `is_repeated`.
    return bool(field.is_repeated if hasattr(field, "is_repeated") else field.label == field.LABEL_REPEATED)


def _map_entry(field: Any) -> tuple[Any, Any] | None:
    """A map's fields `key` and `value`; None for other fields."""
    message = field.message_type
    if message is None or not message.GetOptions().map_entry:
        return None
    return message.fields_by_name["key"], message.fields_by_name["value"]


def row_reader_of(
    message_class: type[Any], read_default_values: bool = False, ignore_parse_errors: bool = False
) -> Converter:
    """What makes a row of a message's bytes."""
    descriptor = message_class.DESCRIPTOR
    row_type = row_type_of(descriptor)
    parse = message_class.FromString
    fields = _readers(descriptor, read_default_values)
    names = row_type.get_field_names()
    convert = row_converter(names, fields)

    def slow(message: bytes | None) -> Any:
        if message is None:
            return None
        try:
            return convert(parse(message))
        except Exception as error:
            if ignore_parse_errors:
                return None
            raise unreadable(f"ProtobufRowDeserializationSchema({message_class.__name__})", error, message) from error

    return row_reader(names, "parse(message)", fields, slow, {"parse": parse})


def _readers(descriptor: Any, defaults: bool) -> list[tuple[str, Converter | None]]:
    """Where each of a row's values is in a message `d`, and what converts it."""
    places = []
    for field in descriptor.fields:
        convert = _single_reader(field, defaults)
        place = f"getattr(d, {field.name!r})" if iskeyword(field.name) else f"d.{field.name}"
        if (entry := _map_entry(field)) is not None:
            convert = each_entry(None, _single_reader(entry[1], defaults))
        elif _is_repeated(field):
            convert = each(convert) if convert is not None else list
        elif field.has_presence and not (defaults and field.cpp_type != _MESSAGE):
            place += f" if d.HasField({field.name!r}) else None"
            convert = None if convert is None else optional(convert)
        places.append((place, convert))
    return places


def _single_reader(field: Any, defaults: bool) -> Converter | None:
    if field.cpp_type == _MESSAGE:
        names = [inner.name for inner in field.message_type.fields]
        return row_converter(names, _readers(field.message_type, defaults))
    if field.cpp_type == _ENUM:
        values = field.enum_type.values_by_number
        return lambda number: values[number].name if number in values else str(number)
    return None


def _message_writer(message_class: type[Any]) -> Serializer:
    serialize, what = message_class.SerializeToString, f"ProtobufSerializationSchema({message_class.__name__})"

    def write(element: Any) -> bytes | None:
        if element is None:
            return None
        try:
            if type(element) is not message_class:
                raise TypeError(f"it is a {type(element).__name__}")
            written: bytes = serialize(element)
        except Exception as error:
            raise unwritable(what, error) from error
        return written

    return write


def row_writer_of(message_class: type[Any]) -> Converter:
    """What makes a message's bytes of a row."""
    descriptor = message_class.DESCRIPTOR
    row_type = row_type_of(descriptor)
    names = row_type.get_field_names()
    to_message = [_writer(field) for field in descriptor.fields]
    converters = [checked(kind, convert) for kind, convert in zip(row_type.field_types, to_message, strict=True)]
    serialize = message_class.SerializeToString

    def slow(element: Any) -> bytes | None:
        if element is None:
            return None
        try:
            row = row_type.to_internal_type(element)
            written: bytes = serialize(message_class(**_arguments(names, to_message, row)))
        except Exception as error:
            raise unwritable(f"ProtobufRowSerializationSchema({message_class.__name__})", error) from error
        return written

    def finish(values: Sequence[str]) -> str:
        fields = ", ".join(f"{name!r}: {value}" for name, value in zip(names, values, strict=True))
        return f"serialize(M(**{{{fields}}}))"

    return row_writer(row_type, finish, converters, slow, {"serialize": serialize, "M": message_class})


def _arguments(names: Sequence[str], converters: Sequence[Converter | None], row: Row) -> dict[str, Any]:
    return {
        n: value if convert is None else convert(value)
        for n, convert, value in zip(names, converters, row, strict=True)
    }


def _writer(field: Any) -> Converter | None:
    """What makes a message's field of a row's value; None: it is one."""
    if (entry := _map_entry(field)) is not None:
        convert = _single_writer(entry[1])
        return None if convert is None else each_entry(None, convert)
    convert = _single_writer(field)
    if convert is None:
        return None
    return each(convert) if _is_repeated(field) else optional(convert)


def _single_writer(field: Any) -> Converter | None:
    if field.cpp_type == _MESSAGE:
        message_class = library("google.protobuf.message_factory", "protobuf").GetMessageClass(field.message_type)
        names = [inner.name for inner in field.message_type.fields]
        converters = [_writer(inner) for inner in field.message_type.fields]
        return lambda row: message_class(**_arguments(names, converters, row))
    if field.cpp_type == _ENUM:
        values = field.enum_type.values_by_name
        return lambda name: values[name].number if name in values else int(name)
    return None
