"""What the schemas of formats have in common: each is one function, for None too, and with errors of ours."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from headrace.common.serialization import DeserializationSchema, Deserializer, SerializationSchema, Serializer
from headrace.errors import DataError


class ReadingSchema(DeserializationSchema):
    """Reads by `_read`, which a subclass makes when it is made."""

    _read: Deserializer

    def deserialize(self, message: bytes | None) -> Any:
        return self._read(message)

    def deserializer(self) -> Deserializer:
        return self._read


class WritingSchema(SerializationSchema):
    """Writes by `_write`, which a subclass makes when it is made."""

    _write: Serializer

    def serialize(self, element: Any) -> bytes | None:
        return self._write(element)

    def serializer(self) -> Serializer:
        return self._write


def total_reader(what: str, decode: Callable[[bytes], Any]) -> Deserializer:
    """`decode` for None as well, and with errors of ours."""

    def read(message: bytes | None) -> Any:
        try:
            return decode(message)  # type: ignore[arg-type]
        except Exception as error:
            if message is None:
                return None
            raise unreadable(what, error, message) from error

    return read


def total_writer(what: str, encode: Callable[[Any], bytes]) -> Serializer:
    """`encode` for None as well, and with errors of ours."""

    def write(element: Any) -> bytes | None:
        if element is None:
            return None
        try:
            return encode(element)
        except Exception as error:
            raise unwritable(what, error) from error

    return write


def unwritable(what: str, error: Exception) -> DataError:
    """What a serializer raises."""
    return DataError(f"{what} cannot write this element: {reason(error)}")


def unreadable(what: str, error: Exception, message: bytes = b"") -> DataError:
    """What a deserializer raises; `message` is what it was given, if a schema registry's wire format is none of its.

    >>> unreadable("JsonDeserializationSchema", ValueError("no JSON"), b"\\0\\0\\0\\0\\7{}")  # doctest: +ELLIPSIS
    DataError('JsonDeserializationSchema cannot read these bytes: ValueError: no JSON; if they come from...')
    """
    text = f"{what} cannot read these bytes: {reason(error)}"
    if message[:1] == b"\0" and len(message) > 5:
        text += "; if they come from a schema registry (they begin with 00), a `ConfluentRegistry…` schema reads them"
    return DataError(text)


def reason(error: Exception) -> str:
    """What an error says."""
    text = f"no field {error}" if isinstance(error, KeyError) else str(error)
    return text if isinstance(error, DataError) else f"{type(error).__name__}: {text}" if text else type(error).__name__
