"""What SIGTERM and SIGINT do while jobs run."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator

import pytest
from tests.unit.checkpoint.test_storage import Instead

from headrace.runtime import signals
from headrace.runtime.signals import stopped_by_signals

NUMBERS = [signal.SIGTERM, signal.SIGINT]


class Job:
    """Counts how often it is asked to stop."""

    def __init__(self, *, has_begun: bool = True) -> None:
        self.has_begun = has_begun
        self.stopped = 0

    def stop(self) -> None:
        self.stopped += 1


class Ended(Exception):
    """In place of the process's end."""


@pytest.fixture(autouse=True)
def said(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """What is written to standard error; that the process ends is an exception."""
    lines: list[str] = []

    def end(status: int) -> None:
        raise Ended(status)

    monkeypatch.setattr(signals, "os", Instead(write=lambda _, text: lines.append(text.decode()), _exit=end))
    before = [signal.getsignal(number) for number in NUMBERS]
    yield lines
    assert [signal.getsignal(number) for number in NUMBERS] == before


@pytest.mark.parametrize("number", NUMBERS)
def test_the_first_signal_stops_every_job_and_the_second_ends_the_process(
    number: signal.Signals, said: list[str]
) -> None:
    jobs = [Job(), Job()]
    with stopped_by_signals(lambda: jobs):
        signal.raise_signal(number)
        assert [job.stopped for job in jobs] == [1, 1]
        with pytest.raises(Ended, match=str(128 + number)):
            signal.raise_signal(number)
    assert [job.stopped for job in jobs] == [1, 1]
    assert [line.split(";")[0].split(",")[0] for line in said] == [
        "headrace: stopping with a last checkpoint",
        "headrace: ended at once by a second signal",
    ]


def test_a_second_signal_counts_also_while_the_first_is_told_of(monkeypatch: pytest.MonkeyPatch) -> None:
    jobs = [Job()]

    def write(_: int, text: bytes) -> None:
        if b"signal again" in text:
            signal.raise_signal(signal.SIGINT)

    def end(status: int) -> None:
        raise Ended(status)

    monkeypatch.setattr(signals, "os", Instead(write=write, _exit=end))
    with stopped_by_signals(lambda: jobs), pytest.raises(Ended):
        signal.raise_signal(signal.SIGTERM)


def test_a_job_that_began_after_the_first_signal_is_stopped_too() -> None:
    jobs = [Job()]
    with stopped_by_signals(lambda: jobs):
        signal.raise_signal(signal.SIGTERM)
        jobs[:] = [Job()]
        signal.raise_signal(signal.SIGTERM)
    assert jobs[0].stopped == 1


def test_within_another_the_jobs_of_both_are_stopped_and_each_is_asked_once() -> None:
    outer, inner = Job(), Job()
    with stopped_by_signals(lambda: [outer]):
        with stopped_by_signals(lambda: [inner]):
            signal.raise_signal(signal.SIGTERM)
        assert (outer.stopped, inner.stopped) == (1, 1)
        with pytest.raises(Ended):
            signal.raise_signal(signal.SIGINT)
    assert (outer.stopped, inner.stopped) == (1, 1)


def test_without_a_job_signals_do_what_they_did_before(said: list[str]) -> None:
    with stopped_by_signals(list):
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
        seen: list[int] = []
        before = signal.signal(signal.SIGTERM, lambda number, _: seen.append(number))
        with stopped_by_signals(list):
            signal.raise_signal(signal.SIGTERM)
        signal.signal(signal.SIGTERM, before)
    assert (seen, said) == ([signal.SIGTERM], [])


def test_another_thread_leaves_signals_alone() -> None:
    def look() -> None:
        with stopped_by_signals(list):
            found.append(signal.getsignal(signal.SIGTERM))

    found: list[object] = []
    thread = threading.Thread(target=look)
    thread.start()
    thread.join()
    assert found == [signal.getsignal(signal.SIGTERM)]


def test_a_job_that_has_not_begun_has_no_last_checkpoint_to_promise(said: list[str]) -> None:
    job = Job(has_begun=False)
    with stopped_by_signals(lambda: [job]):
        signal.raise_signal(signal.SIGINT)
    assert job.stopped == 1
    assert "has not begun yet" in said[0]
    assert "signal again to end at once" in said[0]
