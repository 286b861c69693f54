"""How timestamps and watermarks come about: `WatermarkStrategy` and `TimestampAssigner`."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, NoReturn

from headrace.common.refusal import not_supported, refuse_names
from headrace.common.time import Duration


class TimestampAssigner(ABC):
    """Takes an element's timestamp out of the element."""

    @abstractmethod
    def extract_timestamp(self, value: Any, record_timestamp: int) -> int:
        """The timestamp of `value`, in ms since the epoch.

        `record_timestamp` is the one it has so far (Kafka's record timestamp, say), or the smallest long if none.
        """


@dataclass(frozen=True, slots=True)
class _CallableAssigner(TimestampAssigner):
    """A plain function as an assigner."""

    function: Callable[[Any, int], int]

    def extract_timestamp(self, value: Any, record_timestamp: int) -> int:
        return self.function(value, record_timestamp)


@dataclass(frozen=True, slots=True)
class WatermarkStrategy:
    """How a source's or a stream's timestamps and watermarks come about.

    A frozen value: each `with_…` gives a changed copy, in any order.

    Attributes (*Extension*, for the engine):
        out_of_orderness_ms: how far a record may lag behind the highest timestamp seen; None: no watermarks.
        timestamp_assigner: takes timestamps out of elements; None: they keep what they have.
        idle_timeout_ms: after how long without records a split no longer holds watermarks back; None: never.

    >>> strategy = WatermarkStrategy.for_bounded_out_of_orderness(Duration.of_seconds(5))
    >>> strategy = strategy.with_timestamp_assigner(lambda event, _: event["ts"]).with_idleness(Duration.of_minutes(1))
    >>> strategy.out_of_orderness_ms, strategy.idle_timeout_ms
    (5000, 60000)

    *Differences from PyFlink*: `with_timestamp_assigner` also takes a callable of the value and the record's timestamp
    (*Extension*); it does not change the strategy it is called on; `with_idleness` keeps an assigner set before, and
    sources use it (PyFlink drops it, FLINK-39725).
    """

    out_of_orderness_ms: int | None
    timestamp_assigner: TimestampAssigner | None = None
    idle_timeout_ms: int | None = None

    @staticmethod
    def no_watermarks() -> WatermarkStrategy:
        """No watermarks: for jobs on processing time."""
        return WatermarkStrategy(None)

    @staticmethod
    def for_monotonous_timestamps() -> WatermarkStrategy:
        """For timestamps that only rise within a split; later records that do not are late."""
        return WatermarkStrategy(0)

    @staticmethod
    def for_bounded_out_of_orderness(max_out_of_orderness: Duration) -> WatermarkStrategy:
        """For records at most this much behind the newest; anything later is late."""
        millis = _millis(max_out_of_orderness, "max_out_of_orderness")
        if millis < 0:
            raise ValueError(f"max_out_of_orderness must not be negative, is {millis} ms")
        return WatermarkStrategy(millis)

    def with_timestamp_assigner(
        self, timestamp_assigner: TimestampAssigner | Callable[[Any, int], int]
    ) -> WatermarkStrategy:
        """Take timestamps from elements, by an assigner or any callable `(value, record_timestamp) -> ms`."""
        if not isinstance(timestamp_assigner, TimestampAssigner):
            if not callable(timestamp_assigner):
                raise TypeError(
                    "the timestamp assigner must be a TimestampAssigner or a callable function, "
                    f"is {type(timestamp_assigner).__name__}"
                )
            timestamp_assigner = _CallableAssigner(timestamp_assigner)
        return replace(self, timestamp_assigner=timestamp_assigner)

    def with_idleness(self, idle_timeout: Duration) -> WatermarkStrategy:
        """Let a split that gives nothing for this long stop holding watermarks back."""
        millis = _millis(idle_timeout, "idle_timeout")
        if millis <= 0:
            raise ValueError(f"idle_timeout must be positive, is {millis} ms")
        return replace(self, idle_timeout_ms=millis)

    def with_watermark_alignment(
        self, watermark_group: str, max_allowed_watermark_drift: Duration, update_interval: Duration | None = None
    ) -> NoReturn:
        """Refused by name."""
        raise not_supported(
            "WatermarkStrategy.with_watermark_alignment", "leave it out: sources are read without alignment"
        )


def _millis(duration: Duration, name: str) -> int:
    if not isinstance(duration, Duration):
        raise TypeError(f"{name} must be a Duration, such as Duration.of_seconds(5), is {duration!r}")
    return duration.to_millis()


__getattr__ = refuse_names(
    __name__,
    ["AssignerWithPeriodicWatermarksWrapper"],
    "it wraps a Java object; use `WatermarkStrategy.for_bounded_out_of_orderness` and a `TimestampAssigner`",
)
