"""`Row`: values in a fixed order, with names or without, and the kind of change it stands for."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from enum import Enum
from typing import Any

from headrace.common.row_base import RowBase, row_maker


class RowKind(Enum):
    """What a row says about the table it belongs to."""

    INSERT = 0
    UPDATE_BEFORE = 1
    UPDATE_AFTER = 2
    DELETE = 3

    def __str__(self) -> str:
        return ("+I", "-U", "+U", "-D")[self.value]


class Row(RowBase):
    """Values in a fixed order, with or without names.

    >>> row = Row(name="Ada", born=1815)
    >>> row.name, row["born"], row[0]
    ('Ada', 1815, 'Ada')
    >>> row
    Row(name='Ada', born=1815)
    >>> Row("Ada", 1815)
    <Row('Ada', 1815)>
    >>> Person = Row("name", "born")
    >>> Person("Ada", 1815) == row
    True

    Rows with names are equal when each name has the same value, in whatever order.

    *Differences from PyFlink*: equal rows have equal hashes also when their names are in another order; an unknown name
    is a KeyError everywhere.
    """

    __slots__ = ()

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        if args and kwargs:
            raise ValueError("a row has either positional values or named ones, not both")
        self._fields = list(kwargs) if kwargs else None
        self._values = list(kwargs.values()) if kwargs else list(args)
        self._row_kind = RowKind.INSERT

    @staticmethod
    def of_kind(row_kind: RowKind, *args: Any, **kwargs: Any) -> Row:
        """A row of this kind."""
        row = Row(*args, **kwargs)
        row._row_kind = row_kind
        return row

    def as_dict(self, recursive: bool = False) -> dict[str, Any]:
        """Names and values; `recursive` turns rows inside into dicts as well. TypeError for a row without names."""
        if self._fields is None:
            raise TypeError(f"{self!r} has no field names; give it some with set_field_names()")
        return dict(zip(self._fields, map(_unrow, self._values) if recursive else self._values, strict=True))

    def get_row_kind(self) -> RowKind:
        kind: RowKind = self._row_kind
        return kind

    def set_row_kind(self, row_kind: RowKind) -> None:
        self._row_kind = row_kind

    def set_field_names(self, field_names: list[str]) -> None:
        """Name the values, in their order."""
        self._fields = list(field_names)

    def get_fields_by_names(self, names: list[str]) -> list[Any]:
        """The values of these names; all of them where the row has no names. KeyError for an unknown one."""
        if self._fields is None:
            return list(self._values)
        return [self[name] for name in names]

    def __call__(self, *args: Any) -> Row:
        """A row with these values, named by this one's values."""
        if len(args) > len(self._values):
            raise ValueError(f"{self!r} names {len(self._values)} values, got {len(args)}: {args!r}")
        return _make_row([str(name) for name in self._values], args, self._row_kind)

    def __contains__(self, item: Any) -> bool:
        return item in (self._values if self._fields is None else self._fields)

    def __iter__(self) -> Iterator[Any]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Row) or self._row_kind is not other._row_kind:
            return False
        if self._fields == other._fields:
            return self._values == other._values
        if self._fields is None or other._fields is None:
            return False
        return self.as_dict() == other.as_dict()

    def __hash__(self) -> int:
        return hash(tuple(self._values) if self._fields is None else frozenset(self.as_dict().items()))

    def __reduce__(self) -> tuple[Any, ...]:
        return _make_row, (self._fields, tuple(self._values), self._row_kind)

    def __repr__(self) -> str:
        if self._fields is None:
            return f"<Row({', '.join(map(repr, self._values))})>"
        return f"Row({', '.join(f'{k}={v!r}' for k, v in zip(self._fields, self._values, strict=False))})"


row_of = row_maker(Row, RowKind.INSERT)
"""A row of these names (None: without) and values: the very lists, not copied."""


def _make_row(fields: Sequence[str] | None, values: Sequence[Any], row_kind: RowKind) -> Row:
    row: Row = row_of(None if fields is None else list(fields), list(values))
    row._row_kind = row_kind
    return row


def _unrow(value: Any) -> Any:
    match value:
        case Row():
            return value.as_dict(True)
        case list():
            return [_unrow(item) for item in value]
        case dict():
            return {key: _unrow(item) for key, item in value.items()}
        case _:
            return value
