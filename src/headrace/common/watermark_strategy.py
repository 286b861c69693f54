"""How timestamps and watermarks come about: `WatermarkStrategy` and `TimestampAssigner`."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from headrace.common.refusal import refuse_names
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


class WatermarkOutput(ABC):
    """Where a `WatermarkGenerator` says what it has found. *Extension*: Java's interface."""

    @abstractmethod
    def emit_watermark(self, watermark: int) -> None:
        """No element with this timestamp in ms, or an earlier one, is to come; one below an earlier watermark says
        nothing."""

    @abstractmethod
    def mark_idle(self) -> None:
        """Hold no watermarks back, until the next one is emitted."""

    @abstractmethod
    def mark_active(self) -> None:
        """Hold watermarks back again."""


class WatermarkGenerator(ABC):
    """Finds watermarks from elements. *Extension*: Java's interface.

    There is one for each split of a source. It is made anew after a restart, and nothing of it is in a checkpoint.

    >>> class Marked(WatermarkGenerator):
    ...     def on_event(self, event: Any, event_timestamp: int, output: WatermarkOutput) -> None:
    ...         if event.startswith("end of "):
    ...             output.emit_watermark(event_timestamp)
    ...
    ...     def on_periodic_emit(self, output: WatermarkOutput) -> None:
    ...         pass
    >>> strategy = WatermarkStrategy.for_generator(Marked)
    """

    @abstractmethod
    def on_event(self, event: Any, event_timestamp: int, output: WatermarkOutput) -> None:
        """An element comes by. What is emitted here reaches the operators below with the next periodic emission.

        *Differences from Flink*: there it reaches them before the next element.
        """

    @abstractmethod
    def on_periodic_emit(self, output: WatermarkOutput) -> None:
        """Called every `pipeline.auto-watermark-interval`."""


@dataclass(frozen=True, slots=True)
class Alignment:
    """Splits of one group are to stay within `max_drift_ms` of the one that is furthest behind."""

    group: str
    max_drift_ms: int
    update_interval_ms: int


@dataclass(frozen=True, slots=True)
class WatermarkStrategy:
    """How a source's or a stream's timestamps and watermarks come about.

    A frozen value: each `with_…` gives a changed copy, in any order.

    Attributes (*Extension*, for the engine):
        out_of_orderness_ms: how far a record may lag behind the highest timestamp seen; None: no watermarks.
        timestamp_assigner: takes timestamps out of elements; None: they keep what they have.
        idle_timeout_ms: after how long without records a split no longer holds watermarks back; None: never.
        generator_supplier: makes a generator of the program's own.
        alignment: how far its splits may run ahead of others; None: as far as they like.

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
    generator_supplier: Callable[[], WatermarkGenerator] | None = None
    alignment: Alignment | None = None

    @property
    def makes_watermarks(self) -> bool:
        """*Extension*: whether there are any."""
        return self.out_of_orderness_ms is not None or self.generator_supplier is not None

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

    @staticmethod
    def for_generator(generator_supplier: Callable[[], WatermarkGenerator]) -> WatermarkStrategy:
        """*Extension*: watermarks of your own generators; the supplier (a class, say) makes one for each split."""
        if not callable(generator_supplier):
            raise TypeError(
                "the supplier must be a function or class that makes a WatermarkGenerator, "
                f"is {type(generator_supplier).__name__}"
            )
        return WatermarkStrategy(None, generator_supplier=generator_supplier)

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
    ) -> WatermarkStrategy:
        """Pause a split while its watermark is more than this ahead of the one furthest behind in the group.

        A group is all splits, in all lanes, of the job's sources that name it. They are compared every
        `update_interval`, by default a second.
        """
        if not isinstance(watermark_group, str) or not watermark_group:
            raise ValueError(f"watermark_group must be a name, is {watermark_group!r}")
        drift_ms = _millis(max_allowed_watermark_drift, "max_allowed_watermark_drift")
        interval_ms = 1000 if update_interval is None else _millis(update_interval, "update_interval")
        if drift_ms < 0:
            raise ValueError(f"max_allowed_watermark_drift must not be negative, is {drift_ms} ms")
        if interval_ms <= 0:
            raise ValueError(f"update_interval must be positive, is {interval_ms} ms")
        return replace(self, alignment=Alignment(watermark_group, drift_ms, interval_ms))


def _millis(duration: Duration, name: str) -> int:
    if not isinstance(duration, Duration):
        raise TypeError(f"{name} must be a Duration, such as Duration.of_seconds(5), is {duration!r}")
    return duration.to_millis()


__getattr__ = refuse_names(
    __name__,
    ["AssignerWithPeriodicWatermarksWrapper"],
    "it wraps a Java object; use `WatermarkStrategy.for_bounded_out_of_orderness` and a `TimestampAssigner`",
)
