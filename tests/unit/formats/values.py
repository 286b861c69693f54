"""Types, values of them, and bytes that mean no good."""

from __future__ import annotations

import datetime
from collections.abc import Callable
from typing import Any

from hypothesis import strategies as st

from headrace.common import DeserializationSchema, Row, TypeInformation, Types
from headrace.common.typeinfo import MapTypeInfo, RowTypeInfo, SequenceTypeInfo
from headrace.errors import DataError

WHOLE = {Types.BYTE(): 7, Types.SHORT(): 15, Types.INT(): 31, Types.LONG(): 63}
BYTES = Types.PRIMITIVE_ARRAY(Types.BYTE())

SIMPLE: dict[TypeInformation, st.SearchStrategy[Any]] = {
    Types.STRING(): st.text(),
    Types.BOOLEAN(): st.booleans(),
    Types.DOUBLE(): st.floats(),
    Types.FLOAT(): st.floats(width=32),
    Types.BIG_INT(): st.integers(-(10**40), 10**40),
    Types.BIG_DEC(): st.decimals(allow_nan=False, allow_infinity=False),
    Types.SQL_DATE(): st.dates(),
    Types.SQL_TIME(): st.times().map(lambda at: at.replace(microsecond=0, fold=0)),
    Types.SQL_TIMESTAMP(): st.datetimes().map(lambda at: at.replace(fold=0)),
    BYTES: st.binary(),
    **{kind: st.integers(-(1 << bits), (1 << bits) - 1) for kind, bits in WHOLE.items()},
}


def values_of(declared: TypeInformation) -> st.SearchStrategy[Any]:
    """Values of a type, None among them."""
    if declared in SIMPLE:
        return st.none() | SIMPLE[declared]
    match declared:
        case RowTypeInfo():
            return st.none() | rows_of(declared)
        case SequenceTypeInfo(element_type):
            return st.none() | st.lists(values_of(element_type), max_size=4)
        case MapTypeInfo(key_type, value_type):
            return st.none() | st.dictionaries(SIMPLE[key_type], values_of(value_type), max_size=4)
        case _:
            raise AssertionError(declared)


def rows_of(declared: RowTypeInfo) -> st.SearchStrategy[Row]:
    def named(values: tuple[Any, ...]) -> Row:
        row = Row(*values)
        if declared.field_names is not None:
            row.set_field_names(list(declared.field_names))
        return row

    return st.tuples(*map(values_of, declared.field_types)).map(named)


def row_types(*leaves: TypeInformation, depth: int = 2) -> st.SearchStrategy[RowTypeInfo]:
    """Row types of these and of arrays, maps and rows of them."""
    fields: st.SearchStrategy[TypeInformation] = st.sampled_from(leaves)
    if depth:
        fields = st.one_of(
            fields,
            fields,
            fields.map(Types.OBJECT_ARRAY),
            fields.map(lambda kind: Types.MAP(Types.STRING(), kind)),
            row_types(*leaves, depth=depth - 1),
        )
    names = st.lists(st.text(min_size=1), min_size=1, max_size=5, unique=True)

    def of(names: list[str]) -> st.SearchStrategy[RowTypeInfo]:
        types = st.lists(fields, min_size=len(names), max_size=len(names))
        named = types.map(lambda kinds: Types.ROW_NAMED(names, kinds))
        return named | types.map(Types.ROW)

    return names.flatmap(of)


def with_rows(types: st.SearchStrategy[RowTypeInfo]) -> st.SearchStrategy[tuple[RowTypeInfo, Row]]:
    return types.flatmap(lambda kind: st.tuples(st.just(kind), rows_of(kind)))


@st.composite
def spoiled(draw: st.DrawFn, good: Callable[[], st.SearchStrategy[bytes]]) -> bytes:
    """Bytes that were good, with some cut out, put in or turned over; or any."""
    data = draw(st.binary(max_size=60) | good())
    for _ in range(draw(st.integers(0, 3))):
        at = draw(st.integers(0, len(data)))
        data = data[:at] + draw(st.binary(max_size=6)) + data[at + draw(st.integers(0, 6)) :]
    return data


def read(schema: DeserializationSchema, data: bytes) -> Any:
    """What a schema makes of bytes: a value, or a DataError, which is None here; nothing else may come."""
    try:
        return schema.deserialize(data)
    except DataError:
        return None


UTC = datetime.UTC
