"""How elements become bytes and bytes become elements: `SerializationSchema`, `DeserializationSchema`, and simple ones.

Connectors take a schema, or (*Extension*) any callable, and ask `serializer_of` and `deserializer_of` for the one
function that their hot loop then calls.
"""

from __future__ import annotations

import codecs
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, TypeAlias

from headrace.common.refusal import refuse_names
from headrace.errors import ConfigError, DataError

MOVED_SCHEMAS = {
    f"{name}Row{direction}Schema": f"headrace.datastream.formats.{name.lower()}"
    for name in ("Json", "Csv", "Avro")
    for direction in ("Deserialization", "Serialization")
}
"""Schemas that were here in PyFlink up to 1.15, and are still found here."""

Serializer: TypeAlias = Callable[[Any], "bytes | None"]
Deserializer: TypeAlias = Callable[["bytes | None"], Any]


class SerializationSchema(ABC):
    """Turns elements into bytes.

    *Extension*: subclasses may be written in Python; `serialize` is all they need.
    """

    @abstractmethod
    def serialize(self, element: Any) -> bytes | None:
        """The element as bytes; None for a record without a value. Raises `DataError` for what it cannot write."""

    def for_topic(self, topic: str, is_key: bool) -> SerializationSchema:
        """This schema for the keys or the values of one topic's records: what a sink asks for before it serializes.

        It is itself, unless a subclass needs to know (a schema registry's subjects are named after topics).
        """
        return self

    def serializer(self) -> Serializer | None:
        """The quickest function that does what `serialize` does, for hot loops; None: elements are bytes already."""
        return self.serialize


class DeserializationSchema(ABC):
    """Turns bytes into elements.

    *Extension*: subclasses may be written in Python; `deserialize` is all they need.
    """

    skips: bool = False
    """Whether a record with a value of which `deserialize` makes None is passed over, as any is on Flink.

    *Extension*: where this is False, None is an element like any other.
    """

    @abstractmethod
    def deserialize(self, message: bytes | None) -> Any:
        """The element in these bytes (None: a record without a value). Raises `DataError` for what it cannot read."""

    def is_end_of_stream(self, element: Any) -> bool:
        """Whether this element ends its partition, and is not handed on; never, unless a subclass says so.

        Only a `FlinkKafkaConsumer` asks, as on Flink; a `KafkaSource` does not.
        """
        return False

    def deserializer(self) -> Deserializer | None:
        """The quickest function that does what `deserialize` does, for hot loops; None: hand over the bytes."""
        return self.deserialize


def serializer_of(schema: SerializationSchema | Serializer) -> Serializer | None:
    """The function to call for each element; None: elements are bytes already. `ConfigError` for anything else."""
    _check_instance(schema)
    if isinstance(schema, SerializationSchema):
        return schema.serialize if _is_overridden(schema, "serialize", "serializer") else schema.serializer()
    if callable(schema) and not isinstance(schema, DeserializationSchema):
        return schema
    raise ConfigError(f"a SerializationSchema or a callable function is needed, got {type(schema).__name__}")


def deserializer_of(schema: DeserializationSchema | Deserializer) -> Deserializer | None:
    """The function to call for each record's bytes; None: hand over the bytes. `ConfigError` for anything else."""
    _check_instance(schema)
    if isinstance(schema, DeserializationSchema):
        return schema.deserialize if _is_overridden(schema, "deserialize", "deserializer") else schema.deserializer()
    if callable(schema) and not isinstance(schema, SerializationSchema):
        return schema
    raise ConfigError(f"a DeserializationSchema or a callable function is needed, got {type(schema).__name__}")


def _is_overridden(schema: object, method: str, quickest: str) -> bool:
    """Whether a subclass has its own `method`, so that the `quickest` one, of a class above it, is not the same."""
    own = next(kind for kind in type(schema).__mro__ if {method, quickest} & vars(kind).keys())
    return quickest not in vars(own)


def skips(schema: object) -> bool:
    """Whether None, made of bytes, is no element: see `DeserializationSchema.skips`."""
    return isinstance(schema, DeserializationSchema) and schema.skips


def _check_instance(schema: object) -> None:
    if isinstance(schema, type) and issubclass(schema, SerializationSchema | DeserializationSchema):
        raise ConfigError(f"the class {schema.__name__} is given; give one of its instances: `{schema.__name__}()`")


class SimpleStringSchema(SerializationSchema, DeserializationSchema):
    """Strings as bytes in a charset, by default UTF-8.

    Bytes that are malformed in the charset become U+FFFD and characters it does not have become `?`, as in Flink.

    >>> SimpleStringSchema().deserialize(b"caf\\xc3\\xa9 \\xff")
    'café \ufffd'
    >>> SimpleStringSchema().serialize(1)  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    headrace.errors.DataError: SimpleStringSchema writes str, got int; put `.map(str)` ...

    *Differences from PyFlink*: None (a Kafka record without a value) stays None; Flink fails on it. `UTF-16` needs its
    byte order (`UTF-16BE`, `UTF-16LE`).
    """

    def __init__(self, charset: str = "UTF-8") -> None:
        try:
            name = codecs.lookup(charset).name
            "".encode(name)
        except LookupError:
            raise ConfigError(
                f"SimpleStringSchema does not know the charset {charset!r}; use one such as 'UTF-8'"
            ) from None
        if name in ("utf-16", "utf-32"):
            raise ConfigError(
                f"SimpleStringSchema needs the byte order with {charset}; use '{charset}BE' or '{charset}LE'"
            )
        self._charset = name

    def serialize(self, element: Any) -> bytes | None:
        if isinstance(element, str):
            return element.encode(self._charset, "replace")
        if element is None:
            return None
        raise DataError(
            f"SimpleStringSchema writes str, got {type(element).__name__}; "
            "put `.map(str)` before the sink, or use another serialization schema"
        )

    def deserialize(self, message: bytes | None) -> str | None:
        return None if message is None else message.decode(self._charset, "replace")

    def deserializer(self) -> Deserializer:
        if self._charset != "utf-8":
            return self.deserialize
        return decode_utf8

    def __repr__(self) -> str:
        return f"SimpleStringSchema({self._charset!r})"


def decode_utf8(message: bytes | None) -> str | None:
    """The deserializer of `SimpleStringSchema()`; a source whose client decodes by itself knows it by its identity."""
    # A constant charset lets CPython skip the codec lookup.
    return None if message is None else message.decode("utf-8", "replace")


class ByteArraySchema(SerializationSchema, DeserializationSchema):
    """Bytes as they are."""

    def __init__(self) -> None:
        pass

    def serialize(self, element: Any) -> bytes | None:
        if element is None or isinstance(element, bytes):
            return element
        if isinstance(element, (bytearray, memoryview)):
            return bytes(element)
        raise DataError(
            f"ByteArraySchema writes bytes, got {type(element).__name__}; "
            "put a map to bytes before the sink, or use another serialization schema"
        )

    def serializer(self) -> None:
        # Sinks look at the types of a whole batch, which costs a third of a call for each element.
        return None

    def deserialize(self, message: bytes | None) -> bytes | None:
        return message

    def deserializer(self) -> None:
        return None

    def __repr__(self) -> str:
        return "ByteArraySchema()"


__getattr__ = refuse_names(
    __name__,
    {
        "Encoder": "it belongs to file sinks; write to Kafka with a `SerializationSchema`",
        "BulkWriterFactory": "it belongs to file sinks; write to Kafka with a `SerializationSchema`",
        "RowDataBulkWriterFactory": "it belongs to file sinks; write to Kafka with a `SerializationSchema`",
    },
    moved=MOVED_SCHEMAS,
)
