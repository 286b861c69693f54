"""`TimerService`: what time it is, for a process function. `TimeDomain`: which kind of time."""

from __future__ import annotations

from abc import ABC, abstractmethod
from enum import Enum

from headrace.common.refusal import refuses

_TIMERS = "leave it out: there are no timers yet; compare `current_watermark` when an element comes"


class TimeDomain(Enum):
    """Whether a timer is one of event time or of processing time."""

    EVENT_TIME = 0
    PROCESSING_TIME = 1


@refuses(
    {
        "register_processing_time_timer": _TIMERS,
        "register_event_time_timer": _TIMERS,
        "delete_processing_time_timer": _TIMERS,
        "delete_event_time_timer": _TIMERS,
    }
)
class TimerService(ABC):
    """Time as the operator sees it, in ms since the epoch."""

    @abstractmethod
    def current_processing_time(self) -> int:
        """The machine's clock."""

    @abstractmethod
    def current_watermark(self) -> int:
        """Event time so far; the smallest long before the first watermark."""
