"""The metrics of a worker's functions, and what metrics were at one moment, as values that travel.

Who calls this. Functions hold metrics and change them; a worker asks for `samples` between two steps, in the same
thread, so nothing here is locked.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import NamedTuple, TypeAlias, TypeVar

from headrace.metrics.metricbase import Counter, Distribution, Meter, MetricGroup

_LOG = logging.getLogger("headrace")

Groups: TypeAlias = "tuple[tuple[str, str | None], ...]"
"""Groups below an operator or a job, the outermost first: a name and, for a pair of key and value, the value."""


@dataclass(frozen=True, slots=True)
class Scope:
    """Whose metric it is. `of` is Flink's scope with underscores, `labels` are names and values."""

    of: str
    labels: tuple[tuple[str, str], ...] = ()
    groups: Groups = ()

    def below(self, groups: Groups) -> Scope:
        """The scope of groups below this one."""
        return replace(self, groups=self.groups + groups) if groups else self


class Row(NamedTuple):
    """A metric of a reader or a writer, below its operator."""

    name: str
    value: float
    groups: Groups = ()


class Sample(NamedTuple):
    """A metric and what it was."""

    scope: Scope
    name: str
    value: float


class Rate:
    """Events per second, by a count that is looked at now and then.

    >>> rate = Rate(span_s=60)
    >>> [rate.at(now, count) for now, count in [(0.0, 0), (1.0, 50), (60.0, 50), (62.0, 50)]]
    [0.0, 50.0, 0.8333333333333334, 0.0]

    Over the span, or what there has been of it: a job that has just begun has a rate too.
    """

    def __init__(self, span_s: float = 60.0) -> None:
        self._span_s = span_s
        self._seen: deque[tuple[float, float]] = deque()

    def at(self, now: float, count: float) -> float:
        """The rate at `now`, in seconds; `count` is where the events are."""
        seen = self._seen
        # The last before the span stays, as it began with that.
        while len(seen) > 1 and seen[1][0] <= now - self._span_s:
            seen.popleft()
        seen.append((now, count))
        begun, before = seen[0]
        return (count - before) / (now - begun) if now > begun else 0.0


class _Counter(Counter):
    def __init__(self) -> None:
        self._count = 0

    def inc(self, n: int = 1) -> None:
        self._count += n

    def dec(self, n: int = 1) -> None:
        self._count -= n

    def get_count(self) -> int:
        return self._count


class _Meter(Meter):
    def __init__(self, time_span_in_seconds: int = 60) -> None:
        self._count = 0
        self.rate = Rate(time_span_in_seconds)

    def mark_event(self, value: int = 1) -> None:
        self._count += value

    def get_count(self) -> int:
        return self._count


class _Distribution(Distribution):
    def __init__(self) -> None:
        self.count = 0
        self.sum: float = 0
        self.least: float = 0
        self.most: float = 0

    def update(self, value: float) -> None:
        self.least = min(value, self.least) if self.count else value
        self.most = max(value, self.most) if self.count else value
        self.sum += value
        self.count += 1


Made = TypeVar("Made", _Counter, _Meter, _Distribution)


class Registry:
    """All metrics that functions of a worker have asked for."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._metrics: dict[tuple[Scope, str], _Counter | _Meter | _Distribution | Callable[[], object]] = {}
        self._told_of: set[tuple[Scope, str]] = set()

    def group(self, scope: Scope) -> MetricGroup:
        """Where metrics of `scope` are asked for."""
        return _Group(self, scope)

    def samples(self) -> Iterator[Sample]:
        """What all of them are now. A gauge that fails, or gives no number, is left out and told of once."""
        now = self._clock()
        for at, metric in list(self._metrics.items()):
            scope, name = at
            match metric:
                case _Counter():
                    yield Sample(scope, name, metric.get_count())
                case _Meter():
                    yield Sample(scope, name, metric.rate.at(now, metric.get_count()))
                case _Distribution():
                    mean = metric.sum / metric.count if metric.count else 0.0
                    values = {"count": metric.count, "sum": metric.sum, "min": metric.least, "max": metric.most}
                    for what, value in {**values, "mean": mean}.items():
                        yield Sample(scope, f"{name}_{what}", float(value))
                case _:
                    if (asked := self._ask(at, metric)) is not None:
                        yield Sample(scope, name, asked)

    def _ask(self, at: tuple[Scope, str], gauge: Callable[[], object]) -> float | None:
        try:
            value = gauge()
            if not isinstance(value, str | bytes):
                return float(value)  # type: ignore[arg-type]
            reason = f"it gave {value!r:.100}, which is no number"
        except Exception as error:  # noqa: BLE001 - a metric is no reason for a job to fail
            reason = f"{type(error).__name__}: {error}"
        if at not in self._told_of:
            self._told_of.add(at)
            _LOG.warning("gauge `%s` is not shown: %s", at[1], reason)
        return None

    def metric(self, scope: Scope, name: str, made: Made) -> Made:
        """The metric of this name if it is of the same kind, else `made`, which is shown if it is the first.

        As in Flink, one that comes too late for its name can be used, and is not shown.
        """
        found = self._metrics.setdefault((scope, name), made)
        if isinstance(found, type(made)):
            return found
        self._tell_of_another(name)
        return made

    def gauge(self, scope: Scope, name: str, ask: Callable[[], object]) -> None:
        """Ask for this metric, whoever was asked for it before."""
        if isinstance(self._metrics.get((scope, name)), _Counter | _Meter | _Distribution):
            self._tell_of_another(name)
        else:
            self._metrics[scope, name] = ask

    def _tell_of_another(self, name: str) -> None:
        _LOG.warning("there is a metric `%s` of another kind in its group already; the later one is not shown", name)


class _Group(MetricGroup):
    def __init__(self, registry: Registry, scope: Scope) -> None:
        self._registry = registry
        self._scope = scope

    def add_group(self, name: str, extra: str | None = None) -> MetricGroup:
        return _Group(self._registry, self._scope.below(((str(name), None if extra is None else str(extra)),)))

    def counter(self, name: str) -> Counter:
        return self._registry.metric(self._scope, str(name), _Counter())

    def gauge(self, name: str, obj: Callable[[], int]) -> None:
        self._registry.gauge(self._scope, str(name), obj)

    def meter(self, name: str, time_span_in_seconds: int = 60) -> Meter:
        return self._registry.metric(self._scope, str(name), _Meter(time_span_in_seconds))

    def distribution(self, name: str) -> Distribution:
        return self._registry.metric(self._scope, str(name), _Distribution())


def unreported() -> MetricGroup:
    """A group whose metrics work, and are shown nowhere."""
    return Registry().group(Scope(""))
