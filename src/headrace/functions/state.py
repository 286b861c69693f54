"""Keyed state as functions see it: descriptors that name it, and handles that read and write it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Generic, TypeVar

from headrace.common.refusal import refuses
from headrace.common.typeinfo import TypeInformation

T = TypeVar("T")


class State(ABC):
    """Any state of the current key."""

    @abstractmethod
    def clear(self) -> None:
        """Forget the current key's state."""


class ValueState(State, Generic[T]):
    """One value for each key."""

    @abstractmethod
    def value(self) -> T | None:
        """The current key's value; None if it has none.

        To change a mutable value is not enough: `update` has to be called with it.
        """

    @abstractmethod
    def update(self, value: T) -> None:
        """Set the current key's value; None clears it."""


@refuses({"enable_time_to_live": "leave it out, or clear state in the function itself"})
class StateDescriptor:
    """Names a state within its operator."""

    def __init__(self, name: str, type_info: TypeInformation) -> None:
        if not name:
            raise ValueError("a state needs a name; it is how the state is found again after a restart")
        self.name = name
        self.type_info = type_info

    def get_name(self) -> str:
        return self.name

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.name!r}, {self.type_info!r})"


class ValueStateDescriptor(StateDescriptor):
    """Names a `ValueState`.

    *Differences from PyFlink*: values are kept as they are, whatever the declared type.
    """

    def __init__(self, name: str, value_type_info: TypeInformation) -> None:
        super().__init__(name, value_type_info)
