"""Declared types: `Types` and the `TypeInformation` it makes.

Nothing in Headrace needs a declared type. Where a program declares one, an element becomes what it would have become on
its way through Flink: a number wraps at Java's width, a list becomes a row, and so on.
"""

from __future__ import annotations

import datetime
import decimal
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any

from headrace.common.time import Instant
from headrace.common.types import Row
from headrace.errors import DataError


class TypeInformation:
    """A type that a program declares.

    *Differences from PyFlink*: `to_internal_type` gives the Python value that would come out of Flink, not what goes
    into its JVM, and raises `DataError` where Flink turns a value of another type into null without a word.
    """

    def __init__(self) -> None:
        pass

    def need_conversion(self) -> bool:
        """Whether `to_internal_type` may give anything but its argument."""
        return False

    def to_internal_type(self, obj: Any) -> Any:
        """What the type makes of a value; None stays None."""
        return obj

    def from_internal_type(self, obj: Any) -> Any:
        """The inverse of `to_internal_type`, which leaves Python values: its argument."""
        return obj

    def _mismatch(self, obj: Any) -> DataError:
        return DataError(
            f"{obj!r} is {type(obj).__name__}, not of the declared type {self!r}; declare its type or map it"
        )


class BasicType(Enum):
    """Flink's basic types, by their Java names."""

    STRING = "String"
    BYTE = "Byte"
    BOOLEAN = "Boolean"
    SHORT = "Short"
    INT = "Integer"
    LONG = "Long"
    FLOAT = "Float"
    DOUBLE = "Double"
    CHAR = "Char"
    BIG_INT = "BigInteger"
    BIG_DEC = "BigDecimal"
    INSTANT = "Instant"


_BITS = {BasicType.BYTE: 8, BasicType.SHORT: 16, BasicType.INT: 32, BasicType.LONG: 64}


@dataclass(frozen=True, slots=True)
class BasicTypeInfo(TypeInformation):
    """One of Flink's basic types."""

    basic_type: BasicType

    def need_conversion(self) -> bool:
        return True

    def to_internal_type(self, obj: Any) -> Any:
        """The value at Java's width.

        >>> Types.SHORT().to_internal_type(40_000)
        -25536
        """
        if obj is None:
            return None
        match self.basic_type, obj:
            case BasicType.BOOLEAN, bool():
                return obj
            case BasicType.STRING, str():
                return obj
            case BasicType.STRING, bool():
                return str(obj).lower()
            case BasicType.STRING, int() | float():
                return str(obj)
            case BasicType.CHAR, str() if len(obj) == 1:
                return obj
            case ((BasicType.BYTE | BasicType.SHORT | BasicType.INT | BasicType.LONG), int()) if not isinstance(
                obj, bool
            ):
                half = 1 << (_BITS[self.basic_type] - 1)
                return (obj + half) % (2 * half) - half
            case BasicType.DOUBLE, float() | int() if not isinstance(obj, bool):
                return float(obj)
            case BasicType.FLOAT, float() | int() if not isinstance(obj, bool):
                return _as_float32(float(obj))
            case BasicType.BIG_INT, int() if not isinstance(obj, bool):
                return obj
            case BasicType.BIG_DEC, decimal.Decimal():
                return obj
            case BasicType.INSTANT, Instant():
                return obj
            case _:
                raise self._mismatch(obj)

    def __repr__(self) -> str:
        return self.basic_type.value


def _as_float32(value: float) -> float:
    try:
        return float(struct.unpack("f", struct.pack("f", value))[0])
    except OverflowError:
        return float("inf") if value > 0 else float("-inf")


@dataclass(frozen=True, slots=True)
class PickledBytesTypeInfo(TypeInformation):
    """Any Python value: what elements are when nothing is declared."""

    def __repr__(self) -> str:
        return "PickledByteArrayTypeInfo"


@dataclass(frozen=True, slots=True)
class _PythonTypeInfo(TypeInformation):
    """Values of one Python class, as they are."""

    def need_conversion(self) -> bool:
        return True

    def to_internal_type(self, obj: Any) -> Any:
        if obj is None or self._accepts(obj):
            return obj
        raise self._mismatch(obj)

    def _accepts(self, obj: Any) -> bool:
        raise NotImplementedError

    def __repr__(self) -> str:
        return type(self).__name__


@dataclass(frozen=True, slots=True, repr=False)
class DateTypeInfo(_PythonTypeInfo):
    """`datetime.date`."""

    def _accepts(self, obj: Any) -> bool:
        return isinstance(obj, datetime.date) and not isinstance(obj, datetime.datetime)


@dataclass(frozen=True, slots=True, repr=False)
class TimeTypeInfo(_PythonTypeInfo):
    """`datetime.time`."""

    def _accepts(self, obj: Any) -> bool:
        return isinstance(obj, datetime.time)


@dataclass(frozen=True, slots=True, repr=False)
class TimestampTypeInfo(_PythonTypeInfo):
    """`datetime.datetime`."""

    def _accepts(self, obj: Any) -> bool:
        return isinstance(obj, datetime.datetime)


@dataclass(frozen=True, slots=True)
class SequenceTypeInfo(TypeInformation):
    """Lists of one type of element: what arrays and lists have in common."""

    element_type: TypeInformation

    def need_conversion(self) -> bool:
        return True

    def to_internal_type(self, obj: Any) -> Any:
        if obj is None:
            return None
        if isinstance(obj, (str, dict)) or not isinstance(obj, Sequence):
            raise self._mismatch(obj)
        return [self.element_type.to_internal_type(item) for item in obj]

    def __repr__(self) -> str:
        return f"{type(self).__name__}<{self.element_type!r}>"


@dataclass(frozen=True, slots=True, repr=False)
class PrimitiveArrayTypeInfo(SequenceTypeInfo):
    """An array of Java primitives; one of bytes is `bytes`."""

    def to_internal_type(self, obj: Any) -> Any:
        if self.element_type == Types.BYTE() and isinstance(obj, (bytes, bytearray)):
            return bytes(obj)
        return SequenceTypeInfo.to_internal_type(self, obj)


@dataclass(frozen=True, slots=True, repr=False)
class BasicArrayTypeInfo(SequenceTypeInfo):
    """An array of Java's boxed types or strings."""


@dataclass(frozen=True, slots=True, repr=False)
class ObjectArrayTypeInfo(SequenceTypeInfo):
    """An array of anything."""


@dataclass(frozen=True, slots=True, repr=False)
class ListTypeInfo(SequenceTypeInfo):
    """A list."""


@dataclass(frozen=True, slots=True)
class MapTypeInfo(TypeInformation):
    """A dict."""

    key_type_info: TypeInformation
    value_type_info: TypeInformation

    def need_conversion(self) -> bool:
        return True

    def to_internal_type(self, obj: Any) -> Any:
        if obj is None:
            return None
        if not isinstance(obj, dict):
            raise self._mismatch(obj)
        key, value = self.key_type_info.to_internal_type, self.value_type_info.to_internal_type
        return {key(k): value(v) for k, v in obj.items()}

    def __repr__(self) -> str:
        return f"MapTypeInfo<{self.key_type_info!r}, {self.value_type_info!r}>"


@dataclass(frozen=True, slots=True)
class TupleTypeInfo(TypeInformation):
    """A tuple of a fixed length."""

    field_types: tuple[TypeInformation, ...]

    def get_field_types(self) -> list[TypeInformation]:
        return list(self.field_types)

    def need_conversion(self) -> bool:
        return True

    def to_internal_type(self, obj: Any) -> Any:
        """A tuple, of a tuple, a list or a row."""
        if obj is None:
            return None
        if not isinstance(obj, (tuple, list, Row)) or len(obj) != len(self.field_types):
            raise self._mismatch(obj)
        return tuple(field.to_internal_type(item) for field, item in zip(self.field_types, obj, strict=True))

    def __repr__(self) -> str:
        return f"TupleTypeInfo({', '.join(map(repr, self.field_types))})"


@dataclass(frozen=True, slots=True)
class RowTypeInfo(TypeInformation):
    """A `Row`, with names or without."""

    field_types: tuple[TypeInformation, ...]
    field_names: tuple[str, ...] | None = None

    def get_field_types(self) -> list[TypeInformation]:
        return list(self.field_types)

    def get_field_names(self) -> list[str]:
        """The names; `f0`, `f1`, … where none are given."""
        return list(self.field_names or (f"f{i}" for i in range(len(self.field_types))))

    def get_field_index(self, field_name: str) -> int:
        """The name's position; -1 where no names are given."""
        return -1 if self.field_names is None else self.field_names.index(field_name)

    def need_conversion(self) -> bool:
        return True

    def to_internal_type(self, obj: Any) -> Any:
        """A row, of a row, a tuple, a list, a dict, or an object with these attributes.

        >>> Types.ROW_NAMED(["word", "count"], [Types.STRING(), Types.INT()]).to_internal_type(("stream", 1))
        Row(word='stream', count=1)
        """
        if obj is None:
            return None
        names = self.get_field_names()
        match obj:
            case dict():
                values = [obj.get(name) for name in names]
            case Row():
                values = obj.get_fields_by_names(names)
            case tuple() | list():
                values = list(obj)
            case object(__dict__=attributes):
                values = [attributes.get(name) for name in names]
            case _:
                raise self._mismatch(obj)
        if len(values) != len(self.field_types):
            raise self._mismatch(obj)
        row = Row(*(field.to_internal_type(value) for field, value in zip(self.field_types, values, strict=True)))
        if self.field_names is not None:
            row.set_field_names(names)
        if isinstance(obj, Row):
            row.set_row_kind(obj.get_row_kind())
        return row

    def __repr__(self) -> str:
        if self.field_names is None:
            return f"RowTypeInfo({', '.join(map(repr, self.field_types))})"
        fields = zip(self.field_names, self.field_types, strict=True)
        return f"RowTypeInfo({', '.join(f'{name}: {field!r}' for name, field in fields)})"


class Types:
    """Makes declared types.

    >>> Types.ROW_NAMED(["id", "tags"], [Types.LONG(), Types.LIST(Types.STRING())])
    RowTypeInfo(id: Long, tags: ListTypeInfo<String>)
    """

    @staticmethod
    def STRING() -> TypeInformation:
        return BasicTypeInfo(BasicType.STRING)

    @staticmethod
    def BYTE() -> TypeInformation:
        return BasicTypeInfo(BasicType.BYTE)

    @staticmethod
    def BOOLEAN() -> TypeInformation:
        return BasicTypeInfo(BasicType.BOOLEAN)

    @staticmethod
    def SHORT() -> TypeInformation:
        return BasicTypeInfo(BasicType.SHORT)

    @staticmethod
    def INT() -> TypeInformation:
        return BasicTypeInfo(BasicType.INT)

    @staticmethod
    def LONG() -> TypeInformation:
        return BasicTypeInfo(BasicType.LONG)

    @staticmethod
    def FLOAT() -> TypeInformation:
        return BasicTypeInfo(BasicType.FLOAT)

    @staticmethod
    def DOUBLE() -> TypeInformation:
        return BasicTypeInfo(BasicType.DOUBLE)

    @staticmethod
    def CHAR() -> TypeInformation:
        return BasicTypeInfo(BasicType.CHAR)

    @staticmethod
    def BIG_INT() -> TypeInformation:
        return BasicTypeInfo(BasicType.BIG_INT)

    @staticmethod
    def BIG_DEC() -> TypeInformation:
        return BasicTypeInfo(BasicType.BIG_DEC)

    @staticmethod
    def INSTANT() -> TypeInformation:
        return BasicTypeInfo(BasicType.INSTANT)

    @staticmethod
    def SQL_DATE() -> TypeInformation:
        return DateTypeInfo()

    @staticmethod
    def SQL_TIME() -> TypeInformation:
        return TimeTypeInfo()

    @staticmethod
    def SQL_TIMESTAMP() -> TypeInformation:
        return TimestampTypeInfo()

    @staticmethod
    def PICKLED_BYTE_ARRAY() -> TypeInformation:
        return PickledBytesTypeInfo()

    @staticmethod
    def ROW(field_types: list[TypeInformation]) -> RowTypeInfo:
        return RowTypeInfo(tuple(field_types))

    @staticmethod
    def ROW_NAMED(field_names: list[str], field_types: list[TypeInformation]) -> RowTypeInfo:
        if len(field_names) != len(field_types):
            raise ValueError(f"{len(field_names)} field names for {len(field_types)} field types")
        return RowTypeInfo(tuple(field_types), tuple(field_names))

    @staticmethod
    def TUPLE(field_types: list[TypeInformation]) -> TupleTypeInfo:
        return TupleTypeInfo(tuple(field_types))

    @staticmethod
    def PRIMITIVE_ARRAY(element_type: TypeInformation) -> TypeInformation:
        return PrimitiveArrayTypeInfo(element_type)

    @staticmethod
    def BASIC_ARRAY(element_type: TypeInformation) -> TypeInformation:
        return BasicArrayTypeInfo(element_type)

    @staticmethod
    def OBJECT_ARRAY(element_type: TypeInformation) -> TypeInformation:
        return ObjectArrayTypeInfo(element_type)

    @staticmethod
    def MAP(key_type_info: TypeInformation, value_type_info: TypeInformation) -> TypeInformation:
        return MapTypeInfo(key_type_info, value_type_info)

    @staticmethod
    def LIST(element_type_info: TypeInformation) -> TypeInformation:
        return ListTypeInfo(element_type_info)
