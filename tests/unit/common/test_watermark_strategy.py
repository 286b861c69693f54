from __future__ import annotations

import itertools
from typing import Any

import pytest

from headrace.common import Duration, WatermarkStrategy
from headrace.common.watermark_strategy import Alignment, TimestampAssigner, WatermarkGenerator, WatermarkOutput


class First(TimestampAssigner):
    def extract_timestamp(self, value: Any, record_timestamp: int) -> int:
        return int(value[0])


class Silent(WatermarkGenerator):
    def on_event(self, event: Any, event_timestamp: int, output: WatermarkOutput) -> None: ...

    def on_periodic_emit(self, output: WatermarkOutput) -> None: ...


def test_three_kinds_of_strategy_differ_in_out_of_orderness() -> None:
    assert WatermarkStrategy.no_watermarks().out_of_orderness_ms is None
    assert WatermarkStrategy.for_monotonous_timestamps().out_of_orderness_ms == 0
    assert WatermarkStrategy.for_bounded_out_of_orderness(Duration.of_seconds(3)).out_of_orderness_ms == 3000


def test_what_was_set_before_is_kept_in_any_order() -> None:
    changes = [
        lambda strategy: strategy.with_timestamp_assigner(First()),
        lambda strategy: strategy.with_idleness(Duration.of_millis(7)),
    ]
    for order in itertools.permutations(changes):
        strategy = WatermarkStrategy.for_monotonous_timestamps()
        for change in order:
            strategy = change(strategy)
        assert strategy.timestamp_assigner is not None
        assert strategy.timestamp_assigner.extract_timestamp((5,), -1) == 5
        assert strategy.idle_timeout_ms == 7


def test_a_strategy_is_not_changed_by_what_is_made_of_it() -> None:
    strategy = WatermarkStrategy.no_watermarks()
    strategy.with_timestamp_assigner(First())
    assert strategy.timestamp_assigner is None


def test_a_callable_is_as_good_as_an_assigner() -> None:
    strategy = WatermarkStrategy.no_watermarks().with_timestamp_assigner(lambda value, before: value + before)
    assert strategy.timestamp_assigner is not None
    assert strategy.timestamp_assigner.extract_timestamp(1, 2) == 3
    with pytest.raises(TypeError, match="is int"):
        strategy.with_timestamp_assigner(1)  # type: ignore[arg-type]


def test_lengths_of_time_that_make_no_sense_are_refused() -> None:
    with pytest.raises(ValueError, match="-1 ms"):
        WatermarkStrategy.for_bounded_out_of_orderness(Duration.of_millis(-1))
    with pytest.raises(ValueError, match="positive"):
        WatermarkStrategy.no_watermarks().with_idleness(Duration.of_millis(0))


def test_an_alignment_names_its_group_and_is_updated_every_second_if_nothing_else_is_said() -> None:
    strategy = WatermarkStrategy.for_monotonous_timestamps()
    assert strategy.alignment is None
    aligned = strategy.with_watermark_alignment("group", Duration.of_seconds(5))
    assert aligned.alignment == Alignment("group", max_drift_ms=5000, update_interval_ms=1000)
    often = strategy.with_watermark_alignment("group", Duration.of_seconds(5), Duration.of_millis(7))
    assert often.alignment == Alignment("group", max_drift_ms=5000, update_interval_ms=7)
    with pytest.raises(ValueError, match="a name, is ''"):
        strategy.with_watermark_alignment("", Duration.of_seconds(5))
    with pytest.raises(ValueError, match="-1 ms"):
        strategy.with_watermark_alignment("group", Duration.of_millis(-1))
    with pytest.raises(ValueError, match="update_interval must be positive"):
        strategy.with_watermark_alignment("group", Duration.of_millis(1), Duration.of_millis(0))


def test_a_generator_of_ones_own_is_asked_for_by_what_makes_it() -> None:
    strategy = WatermarkStrategy.for_generator(Silent)
    assert strategy.generator_supplier is Silent
    assert strategy.makes_watermarks
    assert not WatermarkStrategy.no_watermarks().makes_watermarks
    with pytest.raises(TypeError, match="is Silent"):
        WatermarkStrategy.for_generator(Silent())  # type: ignore[arg-type]
