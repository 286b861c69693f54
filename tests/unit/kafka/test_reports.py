"""Calls of a client that may never come back."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from headrace.kafka.client.protocol import ClientError, Failure
from headrace.kafka.client.reports import call_unless_stuck


@pytest.fixture
def never() -> Iterator[threading.Event]:
    """What a call that does not come back waits for; it is let go after the test."""
    event = threading.Event()
    yield event
    event.set()


def test_call_that_comes_back_has_been_made() -> None:
    made: list[str] = []

    call_unless_stuck(lambda: made.append("call"), lambda: False)

    assert made == ["call"]


def test_call_that_fails_raises_its_own_error() -> None:
    failed = ClientError(Failure("_TIMED_OUT", "timed out"))

    def call() -> None:
        raise failed

    with pytest.raises(ClientError) as raised:
        call_unless_stuck(call, lambda: False)

    assert raised.value is failed


def test_slow_call_is_waited_for_while_it_is_not_stuck() -> None:
    slow, asked = threading.Event(), list[str]()

    def is_stuck() -> bool:
        asked.append("stuck?")
        if len(asked) == 2:
            slow.set()
        return False

    call_unless_stuck(slow.wait, is_stuck)

    assert len(asked) >= 2


def test_call_that_does_not_come_back_is_given_up_once_it_is_stuck(never: threading.Event) -> None:
    answers = iter([False, True])

    with pytest.raises(ClientError, match="does not come back") as raised:
        call_unless_stuck(never.wait, lambda: next(answers))

    assert raised.value.failure.name == "_STUCK"
    assert list(answers) == []
