"""The functions of one value or two: map, flat_map, filter, reduce, key selection.

Wherever one is taken, any callable of the same arguments is taken as well.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

from headrace.functions.context import RuntimeContext


class Function(ABC):  # noqa: B024 - both hooks may be left as they are
    """What all functions have: a beginning and an end, once per subtask and attempt."""

    def open(self, runtime_context: RuntimeContext) -> None:
        """Before the first element: connect, load, get state."""

    def close(self) -> None:
        """After the last element, or a failure: release what `open` took."""


class MapFunction(Function):
    """One element out for each in."""

    @abstractmethod
    def map(self, value: Any) -> Any: ...


class FlatMapFunction(Function):
    """Any number of elements out for each in."""

    @abstractmethod
    def flat_map(self, value: Any) -> Any:
        """Yield the elements, or return an iterable of them, or None for none."""


class FilterFunction(Function):
    """Decides which elements stay."""

    @abstractmethod
    def filter(self, value: Any) -> bool: ...


class ReduceFunction(Function):
    """Makes one value of two, of the same type; must be associative."""

    @abstractmethod
    def reduce(self, value1: Any, value2: Any) -> Any:
        """`value1` is what came so far, `value2` the new element."""


class KeySelector(Function):
    """Takes an element's key out of it: hashable, and the same for the same element."""

    @abstractmethod
    def get_key(self, value: Any) -> Any: ...
