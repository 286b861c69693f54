"""A program's metrics, and what they are at one moment."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from headrace.metrics import MetricGroup
from headrace.metrics.registry import Registry, Scope

SCOPE = Scope("operator", (("operator_name", "parse"),))


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def shown(registry: Registry) -> dict[str, float]:
    return {sample.name: sample.value for sample in registry.samples()}


def test_each_metric_is_shown_as_what_it_is_now() -> None:
    clock = Clock()
    registry = Registry(clock)
    group = registry.group(SCOPE)
    counter, meter, distribution = group.counter("count"), group.meter("rate", 10), group.distribution("size")
    group.gauge("gauge", lambda: int(clock.now))
    assert shown(registry) == {
        "count": 0,
        "rate": 0,
        "gauge": 0,
        "size_count": 0,
        "size_sum": 0,
        "size_min": 0,
        "size_max": 0,
        "size_mean": 0,
    }
    counter.inc()
    counter.inc(5)
    counter.dec(2)
    meter.mark_event()
    meter.mark_event(19)
    for size in (-3, 5, 7):
        distribution.update(size)
    clock.now = 5.0
    assert shown(registry) == {
        "count": 4,
        "rate": 4.0,
        "gauge": 5,
        "size_count": 3,
        "size_sum": 9,
        "size_min": -3,
        "size_max": 7,
        "size_mean": 3,
    }
    assert (counter.get_count(), meter.get_count()) == (4, 20)
    clock.now = 15.0
    assert shown(registry)["rate"] == 0.0


def test_a_group_gives_the_metric_that_it_has() -> None:
    registry = Registry()
    group = registry.group(SCOPE)
    first, second = group.add_group("shop", "books"), group.add_group("shop", "books")
    first.counter("sold").inc()
    second.counter("sold").inc()
    group.add_group("shop").add_group("books").counter("sold").inc(7)
    group.gauge("size", lambda: 1)
    group.gauge("size", lambda: 2)
    assert [(sample.scope.groups, sample.value) for sample in registry.samples()] == [
        ((("shop", "books"),), 2),
        ((("shop", None), ("books", None)), 7),
        ((), 2),
    ]


@pytest.mark.parametrize("kind", ["counter", "meter", "distribution"])
def test_one_that_comes_too_late_for_its_name_can_be_used_and_is_not_shown(
    kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    registry = Registry()
    group = registry.group(SCOPE)
    group.gauge("taken", lambda: 7)
    late: Any = getattr(group, kind)("taken")
    late.update(1) if kind == "distribution" else late.get_count()
    assert shown(registry) == {"taken": 7}
    other = Registry().group(SCOPE)
    getattr(other, kind)("taken")
    other.gauge("taken", lambda: 7)
    assert len(caplog.messages) == 2
    assert all("`taken` of another kind" in message for message in caplog.messages)


@pytest.mark.parametrize(
    ("gauge", "reason"),
    [(lambda: 1 // 0, "ZeroDivisionError"), (lambda: None, "TypeError"), (lambda: "12", "'12', which is no number")],
)
def test_a_gauge_that_gives_no_number_is_told_of_once_and_harms_nobody(
    gauge: Callable[[], Any], reason: str, caplog: pytest.LogCaptureFixture
) -> None:
    registry = Registry()
    group: MetricGroup = registry.group(SCOPE)
    group.gauge("bad", gauge)
    group.gauge("good", lambda: True)
    assert shown(registry) == shown(registry) == {"good": 1}
    (message,) = caplog.messages
    assert message.startswith("gauge `bad` is not shown: ")
    assert reason in message
