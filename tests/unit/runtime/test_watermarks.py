"""Watermarks as values: combining, advancing, idleness."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from headrace.runtime.watermarks import Progress, Watermarks, advance, combine

progresses = st.builds(Progress, st.none() | st.integers(-5, 5), st.booleans())


@given(st.lists(progresses))
def test_the_combined_watermark_is_the_least_of_all_that_are_not_idle(inputs: list[Progress]) -> None:
    active = [p.watermark for p in inputs if not p.idle]
    result = combine(inputs)
    assert result.idle == (not active)
    if active:
        assert result.watermark == (None if None in active else min(w for w in active if w is not None))


@given(progresses, progresses)
def test_time_never_goes_back(before: Progress, now: Progress) -> None:
    after = advance(before, now)
    assert after.idle == now.idle
    if before.watermark is not None:
        assert after.watermark is not None
        assert after.watermark >= before.watermark


def test_an_input_without_watermark_holds_all_back() -> None:
    assert combine([Progress(7), Progress(None)]) == Progress(None)


def test_a_watermark_is_one_below_the_highest_timestamp_less_the_bound() -> None:
    generator = Watermarks(out_of_orderness_ms=100, max_timestamp=1_000)
    assert generator.progress(0, records_came=True, is_caught_up=False) == Progress(899)


def test_no_strategy_gives_no_watermark() -> None:
    generator = Watermarks(None, max_timestamp=1_000)
    assert generator.progress(0, records_came=True, is_caught_up=False) == Progress(None)


def test_a_split_is_idle_only_when_nothing_came_and_nothing_is_left_in_it() -> None:
    generator = Watermarks(0, idle_timeout_ms=50)
    assert not generator.progress(10, records_came=True, is_caught_up=True).idle
    assert not generator.progress(59, records_came=False, is_caught_up=True).idle
    assert generator.progress(60, records_came=False, is_caught_up=True).idle
    # Its turn has not come: it holds records that nobody has read.
    assert not generator.progress(70, records_came=False, is_caught_up=False).idle
    assert not generator.progress(119, records_came=False, is_caught_up=True).idle
    assert generator.progress(120, records_came=False, is_caught_up=True).idle
