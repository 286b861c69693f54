"""Restart strategies as functions of the failures so far."""

from __future__ import annotations

import pytest

from headrace.runtime.restart import ExponentialDelay, FailureRate, FixedDelay, NoRestart, delay_before_restart


def delays(strategy: object, failures: list[float]) -> list[float | None]:
    return [delay_before_restart(strategy, failures[:i], 0.5) for i in range(1, len(failures) + 1)]  # type: ignore[arg-type]


def test_none_never_restarts() -> None:
    assert delays(NoRestart(), [0.0]) == [None]


def test_fixed_delay_restarts_as_often_as_it_says() -> None:
    assert delays(FixedDelay(2, 100), [0, 5_000, 900_000]) == [100, 100, None]


def test_failure_rate_counts_only_what_falls_into_the_interval() -> None:
    strategy = FailureRate(max_failures=2, interval_ms=1_000, delay_ms=50)
    assert delays(strategy, [0, 400, 1_100, 1_200]) == [50, 50, 50, None]


def test_exponential_delay_grows_to_its_maximum() -> None:
    strategy = ExponentialDelay(100, 350, 2.0, reset_threshold_ms=10_000, jitter=0.0)
    assert delays(strategy, [0, 100, 300, 700]) == [100, 200, 350, 350]


def test_exponential_delay_is_short_again_after_a_quiet_time() -> None:
    strategy = ExponentialDelay(100, 10_000, 2.0, reset_threshold_ms=1_000, jitter=0.0)
    assert delays(strategy, [0, 100, 5_000]) == [100, 200, 100]


def test_exponential_delay_gives_up_after_its_attempts_and_counts_anew_after_a_reset() -> None:
    strategy = ExponentialDelay(100, 10_000, 2.0, reset_threshold_ms=1_000, jitter=0.0, attempts=2)
    assert delays(strategy, [0, 100, 200]) == [100, 200, None]
    assert delays(strategy, [0, 100, 50_000]) == [100, 200, 100]


@pytest.mark.parametrize(("random", "expected"), [(0.0, 90), (0.5, 100), (0.75, 105)])
def test_jitter_spreads_the_delay_to_both_sides(random: float, expected: float) -> None:
    strategy = ExponentialDelay(100, 1_000, 2.0, reset_threshold_ms=1_000, jitter=0.1)
    assert delay_before_restart(strategy, [0.0], random) == pytest.approx(expected)
