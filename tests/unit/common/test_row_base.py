"""The two ways to a row's values, the compiled one and Python's, are one."""

from __future__ import annotations

import copy
import math
import pickle
from collections.abc import Callable
from operator import getitem, setitem
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.common import Row
from headrace.common.row_base import PythonRowBase, python_fitting, python_row_maker
from headrace.common.types import RowKind

try:
    from headrace.common import _row as compiled
except ImportError:
    compiled = None  # type: ignore[assignment]

compiled_too = pytest.mark.skipif(compiled is None, reason="no C compiler built it here")


class _Text(str):
    """A text that is not of the type `str` itself."""


class _Python(PythonRowBase):
    __slots__ = ()


MAKERS: list[Any] = [python_row_maker(_Python, "kind")]
FITTING: list[Any] = [python_fitting]
if compiled is not None:

    class _Compiled(compiled.RowBase):  # type: ignore[misc,name-defined]
        __slots__ = ()

    MAKERS.append(compiled.row_maker(_Compiled, "kind"))
    FITTING.append(compiled.fitting)

NAMES = st.sampled_from(["a", "b", "title", "_private", "", "ä"])
KEYS = st.one_of(
    NAMES,
    NAMES.map(_Text),
    st.integers(-4, 4),
    st.booleans(),
    st.slices(4),
    st.none(),
    st.floats(),
    st.binary(max_size=2),
    st.tuples(st.integers()),
)


def outcome(act: Callable[..., Any], *arguments: Any) -> Any:
    try:
        return act(*arguments)
    except Exception as error:  # noqa: BLE001 - whatever it is, both have to raise the same
        return type(error), str(error).replace("_Compiled", "_Python")


@compiled_too
@given(
    st.none() | st.lists(NAMES, max_size=4),
    st.lists(st.integers(), max_size=4),
    st.lists(st.tuples(st.sampled_from([getitem, setitem, getattr]), KEYS, st.lists(st.integers(), max_size=3))),
)
def test_both_give_and_take_the_same(
    names: list[str] | None, values: list[int], calls: list[tuple[str, Any, Any]]
) -> None:
    python, native = (make(None if names is None else list(names), list(values)) for make in MAKERS)
    for call, key, value in calls:
        arguments = (key, value) if call is setitem else (key,)
        assert outcome(call, python, *arguments) == outcome(call, native, *arguments)
        assert python._values == native._values
    assert (python._fields, python._row_kind) == (native._fields, native._row_kind) == (names, "kind")


@pytest.mark.parametrize("make", MAKERS)
def test_a_row_is_made_of_the_very_lists(make: Callable[..., Any]) -> None:
    names, values = ["a"], [7]
    row = make(names, values)
    assert row._fields is names
    assert row._values is values


KINDS = st.sampled_from([None, str, bool, float, 8, 16, 32, 64])
STRANGE = st.one_of(st.none(), st.booleans(), st.text(max_size=2), st.floats(), st.integers(-(2**66), 2**66))


def near(kind: Any) -> st.SearchStrategy[Any]:
    """Values that are of the kind, or nearly."""
    match kind:
        case int(bits):
            edge = 1 << (bits - 1)
            return st.integers(-edge - 2, edge + 1) | st.sampled_from([-edge - 1, -edge, edge - 1, edge, True, 1.0])
        case type() if kind is str:
            return st.text(max_size=2) | st.text(max_size=2).map(_Text)
        case type() if kind is float:
            return st.floats()
        case _:
            return STRANGE


FIELDS = st.lists(KINDS.flatmap(lambda kind: st.tuples(st.just(kind), st.none() | near(kind))), max_size=3)


@compiled_too
@given(FIELDS, st.sampled_from(["none", "same", "equal", "other", "fewer"]))
def test_both_say_the_same_of_what_fits(fields: list[tuple[Any, Any]], names_are: str) -> None:
    kinds, values = tuple(kind for kind, _ in fields), [value for _, value in fields]
    names = list("abc"[: len(fields)])
    have = {"none": None, "same": names, "equal": list(names), "other": [*names, "x"], "fewer": names[1:]}[names_are]
    python, native = (
        fitting(names, kinds)(make(have, values))
        for make, fitting in zip(MAKERS, (python_fitting, compiled.fitting), strict=True)
    )
    assert python is native
    assert python is None or python is values


@pytest.mark.parametrize("number", range(len(MAKERS)))
def test_what_fits(number: int) -> None:
    make, fitting = MAKERS[number], FITTING[number]
    fit = fitting(["a", "b"], (8, float))
    for values in ([127, 0.5], [-128, None], [None, -0.0]):
        assert fit(make(["a", "b"], values)) is fit(make(None, values)) is values
    for values in ([128, 0.5], [-129, 0.5], [True, 0.5], ["1", 0.5], [1, 1], [1, math.inf], [1, math.nan], [1], []):
        assert fit(make(["a", "b"], values)) is None
    assert fit(make(["b", "a"], [1, 0.5])) is None
    assert fitting(["a"], (64,))(make(None, [2**63])) is fitting(["a"], (64,))(make(None, [-(2**63) - 1])) is None
    assert fitting(["a"], (64,))(make(None, [-(2**63)])) == [-(2**63)]
    assert fitting(["a"], (None,))(make(None, [object])) == [object]


def test_a_name_that_is_equal_but_another_object_is_found() -> None:
    for make in MAKERS:
        row = make(["title"], [1])
        assert row["".join(["ti", "tle"])] == 1


@compiled_too
def test_rows_are_compiled_here_and_travel() -> None:
    row = Row(name="Ada", born=1815)
    assert isinstance(row, compiled.RowBase)
    row.set_row_kind(RowKind.DELETE)
    for other in (pickle.loads(pickle.dumps(row)), copy.copy(row), copy.deepcopy(row)):
        assert other == row
        assert other.get_row_kind() is RowKind.DELETE
        other["name"] = "Grace"
    assert row.name == "Ada"


def test_a_row_has_no_other_attributes() -> None:
    with pytest.raises(AttributeError):
        Row(name="Ada").born = 1815  # type: ignore[attr-defined]
