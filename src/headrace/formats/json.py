"""JSON as values of Python types: of JSON's own by orjson, of pydantic's models by pydantic, of others by msgspec."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from headrace.errors import ConfigError
from headrace.formats.library import library
from headrace.formats.schema import ReadingSchema, WritingSchema, total_reader, total_writer


class JsonDeserializationSchema(ReadingSchema):
    """Values of a Python type, of JSON: dataclasses, msgspec Structs, pydantic models, `TypedDict`, `list[int]` …

    >>> import dataclasses
    >>> @dataclasses.dataclass
    ... class Trade:
    ...     market: str
    ...     price: float
    >>> JsonDeserializationSchema(Trade).deserialize(b'{"market": "btc", "price": 1, "more": true}')
    Trade(market='btc', price=1.0)
    >>> JsonDeserializationSchema().deserialize(b'{"market": "btc"}')
    {'market': 'btc'}

    Without a type, JSON's own: dicts, lists, text and numbers, by orjson. Pydantic reads its models (and what has them
    in it, wrapped in `TypeAdapter`), msgspec everything else, and both check what they read. A record without a value
    is None.

    *Extension*, after the schema of this name in Flink's Java API.
    """

    def __init__(self, type: Any = None) -> None:
        self._type = type
        self._read = total_reader(repr(self), _decoder(type))

    def __reduce__(self) -> tuple[Any, ...]:
        return JsonDeserializationSchema, (self._type,)

    def __repr__(self) -> str:
        return f"JsonDeserializationSchema({_name(self._type)})"


class JsonSerializationSchema(WritingSchema):
    """JSON of Python values.

    >>> JsonSerializationSchema().serialize({"market": "btc", "price": 1.5})
    b'{"market":"btc","price":1.5}'

    Without a type, by orjson: dicts, lists, text, numbers, dataclasses, dates. With one, by the library that reads it
    (see `JsonDeserializationSchema`). A value of another type is written too if that library knows how. None is written
    as a record without a value.

    *Extension*, after the schema of this name in Flink's Java API.
    """

    def __init__(self, type: Any = None) -> None:
        self._type = type
        self._write = total_writer(repr(self), _encoder(type))

    def __reduce__(self) -> tuple[Any, ...]:
        return JsonSerializationSchema, (self._type,)

    def __repr__(self) -> str:
        return f"JsonSerializationSchema({_name(self._type)})"


def _name(type_: Any) -> str:
    return "" if type_ is None else getattr(type_, "__name__", repr(type_))


def _decoder(type_: Any) -> Callable[[bytes], Any]:
    """The library's function for a type."""
    decode: Callable[[bytes], Any]
    if type_ is None:
        decode = library("orjson", "json").loads
    elif (adapter := _pydantic(type_)) is not None:
        decode = adapter.validator.validate_json
    else:
        try:
            decode = library("msgspec", "json").json.Decoder(type_).decode
        except (TypeError, NameError) as error:
            raise ConfigError(f"JsonDeserializationSchema cannot make {type_!r}: {error}") from error
    return decode


def _encoder(type_: Any) -> Callable[[Any], bytes]:
    encode: Callable[[Any], bytes]
    if type_ is None:
        encode = library("orjson", "json").dumps
    elif (adapter := _pydantic(type_)) is not None:
        encode = partial(adapter.serializer.to_json, warnings="error")
    else:
        encode = library("msgspec", "json").json.Encoder().encode
    return encode


def _pydantic(type_: Any) -> Any:
    """Pydantic's adapter for its models, and for adapters themselves; None for other types."""
    if hasattr(type_, "validator") and hasattr(type_, "serializer"):
        return type_
    if hasattr(type_, "__pydantic_validator__"):
        return library("pydantic", "json").TypeAdapter(type_)
    return None
