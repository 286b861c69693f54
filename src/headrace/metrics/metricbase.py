"""Metrics as a program sees them. PyFlink's module of this name."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable


class MetricGroup(ABC):
    """A place for metrics and for groups below it; `RuntimeContext.get_metrics_group()` gives an operator's.

    >>> from headrace.metrics.registry import unreported
    >>> group = unreported()
    >>> prices = group.add_group("shop", "books").counter("prices")
    >>> prices.inc()
    >>> prices.inc(4)
    >>> prices.get_count()
    5

    Asked again for a metric of a name, a group gives the one that it has. Metrics are an operator's in one lane, and
    begin anew when that starts again. Without a reporter (`metrics.reporters`) nobody ever sees them.

    *Differences from PyFlink*: what a metric holds is shown within a second, not at the end of a bundle.
    """

    @abstractmethod
    def add_group(self, name: str, extra: str | None = None) -> MetricGroup:
        """A group below this one. With `extra` it is the group of key `name` and value `extra`: the key becomes part of
        a metric's name, and the value a label."""

    @abstractmethod
    def counter(self, name: str) -> Counter:
        """A number that goes up and down."""

    @abstractmethod
    def gauge(self, name: str, obj: Callable[[], int]) -> None:
        """What `obj` returns, a number; it is called once a second, between two records, if there is a reporter.

        Given another one for the same name, a group asks that one.
        """

    @abstractmethod
    def meter(self, name: str, time_span_in_seconds: int = 60) -> Meter:
        """Events per second, over the last `time_span_in_seconds`."""

    @abstractmethod
    def distribution(self, name: str) -> Distribution:
        """Number, sum, least, most and mean of what it is given."""


class Metric(ABC):  # noqa: B024 - PyFlink's, and as empty
    """What all metrics are that a program holds."""


class Counter(Metric, ABC):
    """A number that goes up and down."""

    @abstractmethod
    def inc(self, n: int = 1) -> None:
        """Add `n`."""

    @abstractmethod
    def dec(self, n: int = 1) -> None:
        """Take `n` away."""

    @abstractmethod
    def get_count(self) -> int:
        """What it is at."""


class Meter(Metric, ABC):
    """Events per second."""

    @abstractmethod
    def mark_event(self, value: int = 1) -> None:
        """So many events happened."""

    @abstractmethod
    def get_count(self) -> int:
        """How many have happened in all."""


class Distribution(Metric, ABC):
    """What some numbers have in common."""

    @abstractmethod
    def update(self, value: int) -> None:
        """One number more."""
