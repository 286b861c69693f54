"""Event time as values: what a watermark is made of, and how several become one.

A watermark `w` says that no element with a timestamp of `w` or less is to come. `None` stands for "none yet". An idle
input takes no part in the minimum; when all are idle, so is the result, which then keeps the highest of what was
reached.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from operator import index
from typing import Any, NamedTuple

from headrace.common.watermark_strategy import WatermarkGenerator, WatermarkOutput, WatermarkStrategy
from headrace.errors import ConfigError, UserCodeError

MAX_WATERMARK = 2**63 - 1
"""Sent at the end of a bounded input: everything has come."""

NO_TIMESTAMP = -(2**63)
"""The timestamp of an element that has none, as in Flink."""


class Progress(NamedTuple):
    """How far an input has come in event time."""

    watermark: int | None = None
    idle: bool = False


def combine(inputs: Iterable[Progress]) -> Progress:
    """The progress of what is fed by all of these: the minimum over those that are not idle."""
    known = list(inputs)
    active = [progress.watermark for progress in known if not progress.idle]
    if not active:
        reached = [progress.watermark for progress in known if progress.watermark is not None]
        return Progress(max(reached, default=None), idle=True)
    if None in active:
        return Progress(None)
    return Progress(min(w for w in active if w is not None))


def advance(before: Progress, now: Progress) -> Progress:
    """`now`, but never behind `before`: an input that was idle and comes back late does not turn time back."""
    if before.watermark is None or (now.watermark is not None and now.watermark >= before.watermark):
        return now
    return Progress(before.watermark, now.idle)


@dataclass(slots=True)
class Watermarks:
    """Bounded out-of-orderness over one split, or one operator: highest timestamp − bound − 1.

    `max_timestamp` is written by the generated loop. Flink: `BoundedOutOfOrdernessWatermarks`.
    """

    out_of_orderness_ms: int | None
    idle_timeout_ms: int | None = None
    max_timestamp: int = NO_TIMESTAMP
    last_seen: int = NO_TIMESTAMP
    active_at_ms: float = 0.0

    def progress(self, now_ms: float, *, records_came: bool, is_caught_up: bool) -> Progress:
        """Where the split stands.

        It is idle only when nothing came for the timeout *and* nothing is left in it: a split whose turn has not come
        is not idle.
        """
        if records_came or not is_caught_up or not self.active_at_ms:
            self.active_at_ms = now_ms
        idle = self.idle_timeout_ms is not None and now_ms - self.active_at_ms >= self.idle_timeout_ms
        if self.out_of_orderness_ms is None or self.max_timestamp == NO_TIMESTAMP:
            return Progress(None, idle)
        return Progress(self.max_timestamp - self.out_of_orderness_ms - 1, idle)


class _Emitted(WatermarkOutput):
    """What a generator of the program's own has said."""

    def __init__(self) -> None:
        self.progress = Progress()

    def emit_watermark(self, watermark: int) -> None:
        before, watermark = self.progress.watermark, index(watermark)
        self.progress = Progress(watermark if before is None else max(before, watermark))

    def mark_idle(self) -> None:
        self.progress = Progress(self.progress.watermark, idle=True)

    def mark_active(self) -> None:
        self.progress = Progress(self.progress.watermark)


class OwnWatermarks(Watermarks):
    """Those of a generator of the program's own, over one split, or one operator. The loop shows it each element."""

    __slots__ = ("_emitted", "_generator", "_name", "on_event")

    def __init__(self, generator: WatermarkGenerator, name: str, idle_timeout_ms: int | None) -> None:
        super().__init__(None, idle_timeout_ms)
        self._generator = generator
        self._name = name
        self._emitted = emitted = _Emitted()
        seen = generator.on_event

        def on_event(event: Any, timestamp: int) -> None:
            # It is also how an operator sees that something came.
            self.max_timestamp = max(self.max_timestamp + 1, timestamp)
            seen(event, timestamp, emitted)

        self.on_event = on_event

    def progress(self, now_ms: float, *, records_came: bool, is_caught_up: bool) -> Progress:
        """Where the split stands, as the generator says; idle also when nothing came for the timeout."""
        try:
            self._generator.on_periodic_emit(self._emitted)
        except Exception as error:
            what = f"`{self._name}` failed with {type(error).__name__} in on_periodic_emit(): {error}"
            raise UserCodeError(what, operator=self._name) from error
        timed = Watermarks.progress(self, now_ms, records_came=records_came, is_caught_up=is_caught_up)
        watermark, idle = self._emitted.progress
        return Progress(watermark, idle or timed.idle)


def watermarks_of(strategy: WatermarkStrategy, supplier: Callable[[], Any] | None, name: str) -> Watermarks:
    """What makes the watermarks of one split, or one operator. `supplier` is the strategy's own, copied."""
    if supplier is None:
        return Watermarks(strategy.out_of_orderness_ms, strategy.idle_timeout_ms)
    try:
        generator = supplier()
    except Exception as error:
        what = f"the watermark generator of `{name}` could not be made: {type(error).__name__}: {error}"
        raise UserCodeError(what, operator=name) from error
    if not isinstance(generator, WatermarkGenerator):
        raise ConfigError(
            f"the supplier of `for_generator` at `{name}` has to make a WatermarkGenerator, and made a "
            f"{type(generator).__name__}"
        )
    return OwnWatermarks(generator, name, strategy.idle_timeout_ms)
