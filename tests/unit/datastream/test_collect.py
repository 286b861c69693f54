"""`execute_and_collect`, on the real engine."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from headrace.common import Configuration, Row
from headrace.datastream import StreamExecutionEnvironment
from headrace.datastream.data_stream import CloseableIterator
from headrace.errors import UserCodeError


@pytest.fixture
def env() -> StreamExecutionEnvironment:
    return StreamExecutionEnvironment.get_execution_environment()


def iterate(collected: CloseableIterator | list[Any]) -> CloseableIterator:
    assert isinstance(collected, CloseableIterator)
    return collected


@pytest.mark.parametrize("interval_ms", [None, 10])
def test_all_elements_are_collected_with_and_without_checkpoints(
    env: StreamExecutionEnvironment, interval_ms: int | None
) -> None:
    if interval_ms is not None:
        env.enable_checkpointing(interval_ms)
    with iterate(env.from_collection(range(1000)).map(str).execute_and_collect("collect")) as elements:
        assert list(elements) == [str(i) for i in range(1000)]


def test_an_element_is_shown_once_though_the_job_restarts(env: StreamExecutionEnvironment, tmp_path: Path) -> None:
    failed = tmp_path / "failed"  # A file, as each attempt has a copy of the function.

    def fail_once(value: int) -> int:
        if value == 1500 and not failed.exists():
            failed.touch()
            raise RuntimeError("once")
        return value

    env.configure(Configuration().set_string("restart-strategy.type", "fixed-delay"))
    env.configure(Configuration().set_string("restart-strategy.fixed-delay.delay", "0 s"))
    env.enable_checkpointing(10_000)
    with iterate(env.from_collection(range(2000)).map(fail_once).execute_and_collect("once")) as elements:
        assert list(elements) == list(range(2000))
    assert failed.exists()


def test_a_limit_gives_a_list_of_the_first_elements(env: StreamExecutionEnvironment) -> None:
    assert env.from_collection(range(1000)).execute_and_collect("limited", limit=3) == [0, 1, 2]
    with pytest.raises(ValueError, match="at least 1"):
        env.from_collection([1]).execute_and_collect(limit=0)


def test_a_keyed_stream_gives_rows_of_key_and_element(env: StreamExecutionEnvironment) -> None:
    keyed = env.from_collection(["a", "bb"]).key_by(len)
    assert keyed.execute_and_collect("keyed", limit=2) == [Row(1, "a"), Row(2, "bb")]


def test_a_failure_is_raised_behind_the_elements_before_it(env: StreamExecutionEnvironment) -> None:
    elements = iterate(env.from_collection([1, 0]).map(lambda value: 1 / value).execute_and_collect("failing"))
    with pytest.raises(UserCodeError) as failure:
        list(elements)
    assert isinstance(failure.value.__cause__, ZeroDivisionError)
    with pytest.raises(StopIteration):
        elements.next()


def test_closing_ends_a_job_that_still_has_elements(env: StreamExecutionEnvironment) -> None:
    elements = iterate(env.from_collection(range(300_000)).execute_and_collect("closed"))
    assert next(elements) == 0
    elements.close()
    elements.close()
    assert list(elements) == []
