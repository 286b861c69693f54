from __future__ import annotations

import ctypes
import datetime
import decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.common import Instant, Row, RowKind, TypeInformation, Types
from headrace.errors import DataError


@given(st.integers())
def test_whole_numbers_wrap_at_javas_width(value: int) -> None:
    for declared, reference in (
        (Types.BYTE(), ctypes.c_int8),
        (Types.SHORT(), ctypes.c_int16),
        (Types.INT(), ctypes.c_int32),
        (Types.LONG(), ctypes.c_int64),
    ):
        assert declared.to_internal_type(value) == reference(value).value
    assert Types.BIG_INT().to_internal_type(value) == value


@given(st.floats(allow_nan=False))
def test_floats_have_single_precision_and_doubles_double(value: float) -> None:
    assert Types.FLOAT().to_internal_type(value) == ctypes.c_float(value).value
    assert Types.DOUBLE().to_internal_type(value) == value


@pytest.mark.parametrize(
    ("declared", "value", "becomes"),
    [
        (Types.DOUBLE(), 1, 1.0),
        (Types.STRING(), 1, "1"),
        (Types.STRING(), True, "true"),
        (Types.STRING(), None, None),
        (Types.BOOLEAN(), False, False),
        (Types.CHAR(), "x", "x"),
        (Types.BIG_DEC(), decimal.Decimal("1.10"), decimal.Decimal("1.10")),
        (Types.INSTANT(), Instant(1, 2), Instant(1, 2)),
        (Types.SQL_DATE(), datetime.date(2020, 1, 2), datetime.date(2020, 1, 2)),
        (Types.SQL_TIME(), datetime.time(1, 2), datetime.time(1, 2)),
        (Types.SQL_TIMESTAMP(), datetime.datetime(2020, 1, 2), datetime.datetime(2020, 1, 2)),
        (Types.TUPLE([Types.SHORT(), Types.STRING()]), [32768, "a"], (-32768, "a")),
        (Types.LIST(Types.INT()), (1, None), [1, None]),
        (Types.MAP(Types.STRING(), Types.BYTE()), {"a": 128}, {"a": -128}),
        (Types.PRIMITIVE_ARRAY(Types.BYTE()), b"\x00\xff", b"\x00\xff"),
        (Types.PRIMITIVE_ARRAY(Types.INT()), [1], [1]),
        (Types.BASIC_ARRAY(Types.STRING()), ["a"], ["a"]),
        (Types.OBJECT_ARRAY(Types.ROW([Types.INT()])), [(1,)], [Row(1)]),
        (Types.ROW([Types.INT(), Types.STRING()]), (1, "a"), Row(1, "a")),
        (Types.ROW_NAMED(["a", "b"], [Types.INT(), Types.INT()]), {"b": 2, "a": 1}, Row(a=1, b=2)),
        (Types.ROW_NAMED(["a", "b"], [Types.INT(), Types.INT()]), Row(b=2, a=1), Row(a=1, b=2)),
        (Types.ROW([Types.INT()]), Row.of_kind(RowKind.DELETE, 1), Row.of_kind(RowKind.DELETE, 1)),
        (Types.PICKLED_BYTE_ARRAY(), "anything", "anything"),
    ],
)
def test_a_value_becomes_what_its_declared_type_makes_of_it(
    declared: TypeInformation, value: Any, becomes: Any
) -> None:
    made = declared.to_internal_type(value)
    assert made == becomes
    assert type(made) is type(becomes)


class Point:
    def __init__(self) -> None:
        self.x, self.y = 1, 2


def test_an_objects_attributes_become_a_row() -> None:
    declared = Types.ROW_NAMED(["x", "y"], [Types.INT(), Types.INT()])
    assert declared.to_internal_type(Point()) == Row(x=1, y=2)


@pytest.mark.parametrize(
    ("declared", "value"),
    [
        (Types.INT(), "1"),
        (Types.INT(), True),
        (Types.INT(), 1.5),
        (Types.BOOLEAN(), 1),
        (Types.CHAR(), "xy"),
        (Types.STRING(), b"bytes"),
        (Types.SQL_DATE(), datetime.datetime(2020, 1, 2)),
        (Types.LIST(Types.STRING()), "abc"),
        (Types.MAP(Types.STRING(), Types.STRING()), [("a", "b")]),
        (Types.TUPLE([Types.INT()]), (1, 2)),
        (Types.ROW([Types.INT()]), (1, 2)),
        (Types.ROW([Types.INT()]), 1),
    ],
)
def test_a_value_of_another_type_is_refused_and_not_made_null(declared: TypeInformation, value: Any) -> None:
    with pytest.raises(DataError, match="not of the declared type"):
        declared.to_internal_type(value)


def test_types_are_equal_by_what_they_declare() -> None:
    assert Types.ROW_NAMED(["a"], [Types.INT()]) == Types.ROW_NAMED(["a"], [Types.INT()])
    assert Types.LIST(Types.INT()) != Types.LIST(Types.LONG())
    assert Types.BASIC_ARRAY(Types.INT()) != Types.OBJECT_ARRAY(Types.INT())
    assert Types.SQL_DATE() != Types.SQL_TIME()
