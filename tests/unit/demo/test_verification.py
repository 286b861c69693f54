"""The demonstration's count: it has to find what it is there to find."""

from __future__ import annotations

import json
import random
from collections import Counter

from headrace.demo import items
from headrace.demo.verification import verify

EXPECTED = {"a": 3, "b": 2}
RIGHT = [("a", 1), ("a", 2), ("a", 3), ("b", 1), ("b", 2)]


def results(*found: tuple[str, int]) -> list[bytes]:
    return [json.dumps({"source": source, "count": count}).encode() for source, count in found]


def test_the_right_results_in_any_order_are_right() -> None:
    shuffled = RIGHT[:]
    random.Random(1).shuffle(shuffled)
    verdict = verify(iter(results(*shuffled)), EXPECTED)
    assert verdict.holds
    assert verdict.results == 5


def test_a_result_that_is_missing_is_lost() -> None:
    verdict = verify(iter(results(*RIGHT[1:])), EXPECTED)
    assert (verdict.lost, verdict.repeated, verdict.broken) == (1, 0, ("a",))
    assert not verdict.holds


def test_a_result_that_is_there_twice_is_repeated() -> None:
    verdict = verify(iter(results(*RIGHT, ("b", 2))), EXPECTED)
    assert (verdict.lost, verdict.repeated, verdict.broken) == (0, 1, ())
    assert not verdict.holds


def test_a_count_beyond_the_input_is_a_state_that_counted_twice() -> None:
    for strange in (("a", 4), ("a", 0), ("c", 1)):
        verdict = verify(iter(results(*RIGHT, strange)), EXPECTED)
        assert (verdict.lost, verdict.repeated, verdict.broken) == (0, 0, (strange[0],))
        assert not verdict.holds


def test_no_result_at_all_is_everything_lost() -> None:
    assert verify(iter(()), EXPECTED).lost == 5


def test_the_news_are_as_many_as_asked_for_and_counted_by_source() -> None:
    written, expected = [], Counter[str]()
    for values, sources in items.news(25_000, now_ms=1_700_000_000_000):
        written += values
        expected += sources
    found = [json.loads(value) for value in written]
    assert Counter(item["source"] for item in found) == expected
    assert [item["id"] for item in found] == list(range(25_000))
    assert all(1_700_000_000_000 - 86_400_000 <= item["ts"] <= 1_700_000_000_000 for item in found)
    assert 150 < sum(map(len, written)) / len(written) < 190


def test_the_prices_are_as_many_as_asked_for() -> None:
    values, expected = items.prices(500, now_ms=1_700_000_000_000)
    assert expected == {"polymarket.com": 500} == Counter(json.loads(value)["source"] for value in values)
