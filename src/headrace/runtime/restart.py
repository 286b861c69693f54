"""Restart strategies: whether to start again after a failure, and after how long.

Flink's four, as values: a strategy is asked with the times of all failures so far, and answers with a delay in ms or
None. It has no clock and no memory of its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import assert_never


@dataclass(frozen=True, slots=True)
class NoRestart:
    """`restart-strategy.type: none`."""


@dataclass(frozen=True, slots=True)
class FixedDelay:
    """`fixed-delay`: at most `attempts` restarts, `delay_ms` apart."""

    attempts: int
    delay_ms: int


@dataclass(frozen=True, slots=True)
class FailureRate:
    """`failure-rate`: restart unless there were more than `max_failures` within `interval_ms`."""

    max_failures: int
    interval_ms: int
    delay_ms: int


@dataclass(frozen=True, slots=True)
class ExponentialDelay:
    """`exponential-delay`: each failure multiplies the delay, a quiet `reset_threshold_ms` resets it (FLIP-364).

    `attempts` (None: without end) counts restarts since the last reset.
    """

    initial_ms: int
    max_ms: int
    multiplier: float
    reset_threshold_ms: int
    jitter: float
    attempts: int | None = None


RestartStrategy = NoRestart | FixedDelay | FailureRate | ExponentialDelay


def delay_before_restart(strategy: RestartStrategy, failures_ms: Sequence[float], random: float) -> float | None:
    """Milliseconds to wait before the next start, or None to give up.

    `failures_ms` are the times of all failures of the run, the newest last; `random` in [0, 1) decides the jitter.
    """
    match strategy:
        case NoRestart():
            return None
        case FixedDelay(attempts, delay):
            return delay if len(failures_ms) <= attempts else None
        case FailureRate(max_failures, interval, delay):
            recent = [at for at in failures_ms if failures_ms[-1] - at < interval]
            return delay if len(recent) <= max_failures else None
        case ExponentialDelay(initial, maximum, multiplier, threshold, jitter, attempts):
            delay_ms, restarts = float(initial), 1
            for before, at in pairwise(failures_ms):
                if at - before - delay_ms >= threshold:
                    delay_ms, restarts = float(initial), 1
                else:
                    delay_ms, restarts = min(delay_ms * multiplier, maximum), restarts + 1
            if attempts is not None and restarts > attempts:
                return None
            return min(delay_ms * (1 + jitter * (2 * random - 1)), maximum)
        case _:
            assert_never(strategy)
