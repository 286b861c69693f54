"""What a client's reports mean for it, and calls of a client that may never come back."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator

import pytest

from headrace.kafka.client.protocol import ClientError, Failure
from headrace.kafka.client.reports import Reports, call_unless_stuck, is_hopeless

BROKEN_OFF = Failure("_TRANSPORT", "SSL handshake failed: Disconnected: connecting to a PLAINTEXT broker listener?")


@pytest.mark.parametrize(
    "failure",
    [
        Failure("_AUTHENTICATION", "Invalid username or password"),
        Failure("_SSL", "certificate verify failed"),
        Failure("_RESOLVE", "Failed to resolve"),
        Failure("_TRANSPORT", "connecting to a PLAINTEXT broker listener?"),
        Failure("_TRANSPORT", "alert bad certificate: SSL alert number 42"),
        Failure("_TIMED_OUT", "timed out", cause=Failure("_SSL", "certificate verify failed")),
    ],
)
def test_a_connection_that_fails_is_hopeless_until_one_has_served(failure: Failure) -> None:
    assert is_hopeless(failure)
    assert not is_hopeless(failure, has_succeeded=True)


def test_missing_rights_are_hopeless_at_any_time_and_brokers_that_are_away_at_none() -> None:
    assert is_hopeless(Failure("TOPIC_AUTHORIZATION_FAILED", "no"), has_succeeded=True)
    assert not is_hopeless(Failure("_ALL_BROKERS_DOWN", "1/1 brokers are down"))


def producer_reports(handed_over: int, failed: int) -> Reports:
    """Of a producer that was given records of which some have failed."""
    reports = Reports()
    reports.handed_over = handed_over
    reports.failures += [Failure("_MSG_TIMED_OUT", "timed out", topic="t")] * failed
    return reports


@pytest.mark.parametrize(("failed", "waiting", "is_taken"), [(0, 3, False), (2, 1, False), (2, 1, True)])
def test_a_producer_that_has_delivered_nothing_fails_with_its_connection(
    failed: int, waiting: int, is_taken: bool
) -> None:
    reports = producer_reports(3, failed)
    if is_taken:
        assert len(reports.take_failures()) == failed
    reports.hear(BROKEN_OFF)

    with pytest.raises(ClientError) as raised:
        reports.raise_hopeless(lambda: waiting)

    assert raised.value.failure == BROKEN_OFF


def test_a_producer_that_has_delivered_goes_on_and_says_once_what_it_hears(caplog: pytest.LogCaptureFixture) -> None:
    reports = producer_reports(3, failed=1)

    with caplog.at_level(logging.WARNING, "headrace"):
        for waiting in (1, 2, 2):
            reports.hear(BROKEN_OFF)
            reports.raise_hopeless(lambda waiting=waiting: waiting)

    assert [message.startswith("trouble with the brokers") for message in caplog.messages] == [True]
    assert [failure.topic for failure in reports.take_failures()] == ["t"]


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
