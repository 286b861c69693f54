"""SIGTERM and SIGINT while jobs run: the first stops them with a last checkpoint, the next ends the process.

Theory of operation. Python hands signals to the main thread only, so what is installed there speaks for jobs in other
threads too. `run_job` has signals stop its own job, and the command line those of the whole program; where one is
within the other, the inner handler stops the jobs of both. Each job is asked once: a signal that finds all of them
asked already ends the process.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from types import FrameType
from typing import Any, Protocol

_SIGNALS = (signal.SIGTERM, signal.SIGINT)


class Stoppable(Protocol):
    """A job, as far as a signal is concerned."""

    has_begun: bool

    def stop(self) -> None: ...


@contextlib.contextmanager
def stopped_by_signals(running: Callable[[], Iterable[Stoppable]]) -> Iterator[None]:
    """Meanwhile, SIGTERM and SIGINT stop the jobs that `running` gives, and those of a call around this one.

    When there are none, they do what they did before. In a thread that is not the main one this has no effect.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    handler = _Handler(running, {number: signal.getsignal(number) for number in _SIGNALS})
    for number in _SIGNALS:
        signal.signal(number, handler)
    try:
        yield
    finally:
        for number, before in handler.before.items():
            signal.signal(number, before)


@dataclass(slots=True, eq=False)
class _Handler:
    """What a signal calls. `before` is what each called until then, `asked` the jobs that were stopped by one.

    A process that was forked off has these handlers too, and none of the jobs.
    """

    running: Callable[[], Iterable[Stoppable]]
    before: dict[signal.Signals, Any]
    asked: list[Stoppable] = field(default_factory=list)
    process: int = field(default_factory=os.getpid)

    def __call__(self, number: int, frame: FrameType | None) -> None:
        handlers = list(self._and_those_around())
        jobs = [job for handler in handlers for job in handler.running() if handler.process == os.getpid()]
        if not jobs:
            handlers[-1]._as_before(signal.Signals(number), frame)
            return
        asked = [job for handler in handlers for job in handler.asked]
        new = [job for job in dict.fromkeys(jobs) if job not in asked]
        if not new:
            os.write(2, b"headrace: ended at once by a second signal, without a last checkpoint\n")
            os._exit(128 + number)
        # First of all: the next signal may come while this one is told of.
        handlers[-1].asked += new
        what = "stopping with a last checkpoint"
        if not any(job.has_begun for job in new):
            what = "the job has not begun yet, and stops once the brokers have answered"
        os.write(2, f"headrace: {what}; signal again to end at once\n".encode())
        for job in new:
            job.stop()

    def _and_those_around(self) -> Iterator[_Handler]:
        yield self
        around = self.before[signal.SIGTERM]
        if isinstance(around, _Handler):
            yield from around._and_those_around()

    def _as_before(self, number: signal.Signals, frame: FrameType | None) -> None:
        before = self.before[number]
        if callable(before):
            before(number, frame)
        elif before == signal.SIG_DFL:
            signal.signal(number, before)
            signal.raise_signal(number)
