"""Process functions: like flat_map, with a context that knows time, key and state."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

from headrace.functions.function import Function
from headrace.functions.timers import TimeDomain, TimerService


class ProcessFunction(Function):
    """Any number of elements out for each in, knowing timestamps and watermarks."""

    class Context(ABC):
        """The element's circumstances; valid during the call only."""

        @abstractmethod
        def timer_service(self) -> TimerService: ...

        @abstractmethod
        def timestamp(self) -> int | None:
            """The element's timestamp in ms since the epoch; None if it has none."""

    @abstractmethod
    def process_element(self, value: Any, ctx: ProcessFunction.Context) -> Any:
        """Yield the elements, or return an iterable of them, or None for none."""


class KeyedProcessFunction(Function):
    """A process function on a keyed stream, with state for each key.

    `on_timer` is never called as long as there are no timers.
    """

    class Context(ABC):
        """The element's circumstances; valid during the call only."""

        @abstractmethod
        def get_current_key(self) -> Any: ...

        @abstractmethod
        def timer_service(self) -> TimerService: ...

        @abstractmethod
        def timestamp(self) -> int | None:
            """The element's timestamp in ms since the epoch; None if it has none."""

    class OnTimerContext(Context):
        """The timer's circumstances; valid during the call only."""

        @abstractmethod
        def time_domain(self) -> TimeDomain: ...

    @abstractmethod
    def process_element(self, value: Any, ctx: KeyedProcessFunction.Context) -> Any:
        """Yield the elements, or return an iterable of them, or None for none."""

    def on_timer(self, timestamp: int, ctx: KeyedProcessFunction.OnTimerContext) -> Any:
        """Yield the elements, or return an iterable of them, or None for none."""
