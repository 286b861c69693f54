"""What a job's loop does with rows: `RowBase` with its three ways to a value, `row_maker`, and `fitting`.

There are two of each: compiled ones (`_row.pyx`), where their extension was built, and these in Python, which give and
take the same; a test holds them against each other. A field that is read and written costs a third of what it does in
Python.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

_Make = Callable[["list[str] | None", "list[Any]"], Any]
_Fit = Callable[[Any], "list[Any] | None"]


class PythonRowBase:
    """A row's parts, and its values by name, by number and as attributes."""

    __slots__ = ("_fields", "_row_kind", "_values")

    _fields: list[str] | None
    _values: list[Any]
    _row_kind: Any

    def _at(self, item: Any) -> int:
        try:
            return (self._fields or []).index(item)
        except ValueError:
            raise KeyError(item) from None

    # Names are looked for without a call.

    def __getitem__(self, item: int | slice | str) -> Any:
        if type(item) is str:
            try:
                return self._values[self._fields.index(item)]  # type: ignore[union-attr]
            except (AttributeError, ValueError):
                raise KeyError(item) from None
        return self._values[item if isinstance(item, (int, slice)) else self._at(item)]

    def __setitem__(self, key: int | slice | str, value: Any) -> None:
        if type(key) is str:
            try:
                self._values[self._fields.index(key)] = value  # type: ignore[union-attr]
            except (AttributeError, ValueError):
                raise KeyError(key) from None
        elif isinstance(key, slice):
            self._values[key] = value
        else:
            self._values[key if isinstance(key, int) else self._at(key)] = value

    def __getattr__(self, item: str) -> Any:
        if item[:1] != "_" and self._fields is not None:
            try:
                return self._values[self._fields.index(item)]
            except ValueError:
                pass
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {item!r}")


def python_row_maker(row_class: type[PythonRowBase], row_kind: Any) -> _Make:
    """A function of names and values that makes a row of these very lists, of this kind.

    A constructor would cost more than reading the record that the row is made of.
    """
    new = object.__new__

    def make(fields: list[str] | None, values: list[Any]) -> Any:
        row = new(row_class)
        row._fields = fields
        row._values = values
        row._row_kind = row_kind
        return row

    return make


def python_fitting(names: list[str], kinds: tuple[Any, ...]) -> _Fit:
    """A function of a row that gives its values, the very list, if they are what is asked for, else None.

    A row fits that has these names in this order, or none, and a value for each kind: None, or what is exactly of the
    kind: `str`, `bool`, `float` (a finite one), or the number of bits of a whole number. A kind that is None is any.
    """

    def fit(row: PythonRowBase) -> list[Any] | None:
        fields, values = row._fields, row._values
        if not (fields is names or fields is None or fields == names) or len(values) != len(kinds):
            return None
        for value, kind in zip(values, kinds, strict=True):
            if value is None or kind is None:
                continue
            if type(kind) is int:
                if type(value) is not int or value >> (kind - 1) not in (0, -1):
                    return None
            elif type(value) is not kind or (kind is float and value - value != 0.0):
                return None
        return values

    return fit


if TYPE_CHECKING:
    RowBase = PythonRowBase
    row_maker = python_row_maker
    fitting = python_fitting
else:
    try:
        from headrace.common._row import RowBase, fitting, row_maker
    except ImportError:  # there was no compiler
        RowBase, row_maker, fitting = PythonRowBase, python_row_maker, python_fitting
