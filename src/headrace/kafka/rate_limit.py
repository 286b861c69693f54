"""How many records a reader may hand out now: permits that come at a steady rate, at most a second's worth at once.

As Guava's `RateLimiter`, which Flink's `RateLimiterStrategy.perSecond` uses.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True)
class RateLimit:
    """A rate, and what of it is left.

    >>> limit = RateLimit(per_second=10.0)
    >>> limit.allowed(now_s=5.0), limit.allowed(now_s=5.5)
    (0, 5)
    >>> limit.take(5)
    >>> limit.allowed(now_s=5.5), round(limit.wait_s(), 3), limit.allowed(now_s=60.0)
    (0, 0.1, 10)
    """

    per_second: float
    _permits: float = 0.0
    _at_s: float | None = None

    def allowed(self, now_s: float) -> int:
        """How many records may be handed out at this time."""
        if self._at_s is not None:
            most = max(1.0, self.per_second)
            self._permits = min(most, self._permits + (now_s - self._at_s) * self.per_second)
        self._at_s = now_s
        return int(self._permits)

    def wait_s(self) -> float:
        """How long until there is one more, from the time that was asked about last."""
        return max(0.0, (int(self._permits) + 1 - self._permits) / self.per_second)

    def take(self, count: int) -> None:
        """So many were handed out."""
        self._permits -= count
