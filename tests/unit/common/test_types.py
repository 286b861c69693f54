from __future__ import annotations

import copy
import pickle

import pytest

from headrace.common import Row, RowKind


def test_named_rows_are_equal_and_hash_alike_in_any_order_of_names() -> None:
    row, other = Row(a=1, b=2), Row(b=2, a=1)
    assert row == other
    assert hash(row) == hash(other)


@pytest.mark.parametrize(
    "other", [Row(a=1, b=3), Row(a=1), Row(1, 2), Row.of_kind(RowKind.DELETE, a=1, b=2), (1, 2), Row(a=1, c=2)]
)
def test_rows_that_differ_in_values_names_or_kind_are_not_equal(other: object) -> None:
    assert Row(a=1, b=2) != other


def test_values_are_found_by_name_by_attribute_and_by_position() -> None:
    row = Row(a=1, b=2)
    row["a"], row[1] = 10, 20
    assert (row.a, row["b"], row[0], row[0:2], list(row), len(row)) == (10, 20, 10, [10, 20], [10, 20], 2)
    assert "a" in row
    assert 10 not in row


def test_a_name_that_a_row_has_not_is_a_key_error_or_an_attribute_error() -> None:
    with pytest.raises(KeyError):
        Row(a=1)["b"]
    with pytest.raises(KeyError):
        Row(1)["b"]
    with pytest.raises(AttributeError):
        _ = Row(a=1).b
    with pytest.raises(AttributeError):
        Row(a=1).a = 2


def test_a_row_of_names_makes_rows_with_these_names() -> None:
    person = Row("name", "age")
    assert person("Ada", 36).as_dict() == {"name": "Ada", "age": 36}
    with pytest.raises(ValueError, match="names 2 values"):
        person("Ada", 36, "London")


def test_as_dict_goes_into_rows_inside_only_when_asked() -> None:
    row = Row(key=1, rows=[Row(a=1)], by={"x": Row(b=2)})
    assert row.as_dict(True) == {"key": 1, "rows": [{"a": 1}], "by": {"x": {"b": 2}}}
    assert row.as_dict()["rows"] == [Row(a=1)]
    with pytest.raises(TypeError, match="set_field_names"):
        Row(1).as_dict()


def test_fields_by_names_come_in_the_order_asked_for() -> None:
    assert Row(a=1, b=2).get_fields_by_names(["b", "a"]) == [2, 1]
    assert Row(1, 2).get_fields_by_names(["b", "a"]) == [1, 2]


@pytest.mark.parametrize("row", [Row(a=1, b=[2]), Row(1, None), Row.of_kind(RowKind.UPDATE_AFTER, a=1)])
def test_a_row_survives_pickling_and_copying(row: Row) -> None:
    for twin in (pickle.loads(pickle.dumps(row)), copy.deepcopy(row), copy.copy(row)):
        assert twin == row
        assert repr(twin) == repr(row)
        assert twin.get_row_kind() is row.get_row_kind()


def test_a_row_has_positional_values_or_named_ones_but_not_both() -> None:
    with pytest.raises(ValueError, match="not both"):
        Row(1, a=2)


def test_row_kinds_have_flinks_short_forms() -> None:
    assert [str(kind) for kind in RowKind] == ["+I", "-U", "+U", "-D"]
