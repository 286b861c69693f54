"""The process of one lane: a worker at the other end of a socket.

Theory of operation. The main thread alternates between what the coordinator says and the worker's steps. Two more
threads do what has to go on while a function of the user's takes its time: one takes in what the coordinator says, and
ends the process at once when the coordinator is gone; one gives a sign of life. What the program logs is sent over, and
what it collects.

The program's own file is not run again. Its functions and classes come along with the plan, by value, and are put into
this process's `__main__`, so that values of its classes can be pickled here and unpickled there.

Started by `headrace.runtime.team`, with the number of an inherited socket.
"""

from __future__ import annotations

import contextlib
import ctypes
import logging
import logging.handlers
import os
import pickle
import queue
import signal
import sys
import threading
import time
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Final

import cloudpickle

from headrace.checkpoint.storage import CheckpointFolder
from headrace.errors import ConfigError, ExternalError, HeadraceError, RemoteTraceback, UserCodeError
from headrace.plan.graph import Plan
from headrace.runtime.collecting import with_collected
from headrace.runtime.link import LaneMetrics, LaneProgress
from headrace.runtime.messages import Close, Failed, InputEnded, ToCoordinator
from headrace.runtime.settings import Settings
from headrace.runtime.worker import Worker

STEP_WAIT_S: Final = 0.01
"""How long a step may wait for a record: so long what the coordinator says waits, and with it all lanes."""

_PROGRESS_S: Final = 0.5
_METRICS_S: Final = 1.0
_COORDINATOR_GONE: Final = 70
_PR_SET_PDEATHSIG: Final = 1


@dataclass(frozen=True, slots=True)
class Setup:
    """What a worker's process is told first. `levels` are those of the loggers that have one of their own."""

    lane: int
    attempt_number: int
    argv: Sequence[str]
    levels: Mapping[str, int]
    heartbeat_s: float
    root: Path
    program: bytes
    settings: Settings


@dataclass(frozen=True, slots=True)
class Collected:
    """Elements for the program that called `execute_and_collect`."""

    elements: Sequence[Any]


@dataclass(frozen=True, slots=True)
class Logged:
    """A record of the log."""

    record: logging.LogRecord


@dataclass(frozen=True, slots=True)
class Alive:
    """A sign of life."""


@dataclass(frozen=True, slots=True)
class PackedError:
    """What a worker failed with, in parts: an exception loses its cause when it is pickled."""

    error: BaseException
    cause: BaseException | None = None
    traceback: str = ""


Said = ToCoordinator | LaneProgress | LaneMetrics | Collected | Logged | Alive | PackedError
"""What comes out of a worker's process."""


def main(descriptor: int) -> None:
    """Work until the coordinator says `Close`, or is gone."""
    os.set_inheritable(descriptor, False)
    for number in (signal.SIGINT, signal.SIGTERM):
        # The coordinator decides what a signal means, and tells. Not ignored: programs that functions start would be
        # deaf too.
        signal.signal(number, lambda number, frame: None)
    _end_with_parent()
    channel = _Channel(Connection(descriptor))
    os.register_at_fork(after_in_child=channel.leave)
    setup: Setup = channel.receive()
    sys.argv = list(setup.argv)
    _log_to(channel, setup.levels)
    threading.Thread(target=channel.listen, name="headrace-coordinator", daemon=True).start()
    threading.Thread(target=channel.beat, args=[setup.heartbeat_s], name="headrace-heartbeat", daemon=True).start()
    try:
        worker = _worker(setup, channel)
    except Exception as error:  # noqa: BLE001 - it travels as a message
        channel.say(pack(error, setup.lane))
        return
    _serve(worker, channel, setup.lane, is_reported=setup.settings.reporter is not None)


def _worker(setup: Setup, channel: _Channel) -> Worker:
    names: Mapping[str, Any]
    plan: Plan
    try:
        names, plan = cloudpickle.loads(setup.program)
    except Exception as error:
        raise ConfigError(
            f"the job cannot be brought to its workers: {type(error).__name__}: {error}. What its functions use has to "
            "be importable there, or part of the program's own file"
        ) from error
    vars(sys.modules["__main__"]).update(names)
    plan = with_collected(plan, _Collecting(channel))
    folder = CheckpointFolder(setup.root, plan.job_name)
    return Worker(plan, setup.settings, folder, lane=setup.lane, attempt_number=setup.attempt_number)


def _serve(worker: Worker, channel: _Channel, lane: int, *, is_reported: bool) -> None:
    said: Any = None
    next_progress = next_metrics = 0.0
    while not isinstance(said, Close):
        said = channel.next(wait=not worker.is_running)
        if said is not None:
            worker.handle(said)
        else:
            _step(worker, channel)
        now = time.monotonic()
        if (worker.outbox or now >= next_progress) and not isinstance(said, Close):
            next_progress = now + _PROGRESS_S
            channel.say(LaneProgress(worker.records_in, worker.records_out, worker.lag))
        # Behind its last word a worker may wait for long, and so it says what it has done by then.
        is_last_word = any(isinstance(message, Failed | InputEnded) for message in worker.outbox)
        if is_reported and (now >= next_metrics or is_last_word) and not isinstance(said, Close):
            next_metrics = now + _METRICS_S
            channel.say(LaneMetrics(worker.samples()))
        for message in worker.outbox:
            channel.say(pack(message.error, lane) if isinstance(message, Failed) else message)
        worker.outbox.clear()
    with contextlib.suppress(OSError):
        sys.stdout.flush()


def _step(worker: Worker, channel: _Channel) -> None:
    try:
        worker.step(STEP_WAIT_S, channel.has_next)
    except SystemExit as error:
        # It would end this process without a word.
        worker.fail(UserCodeError(f"a function called sys.exit({error.code!r}): let it raise an error instead"))


def pack(error: BaseException, lane: int) -> PackedError:
    """The error as another process can take it in; its text names the lane."""
    if isinstance(error, HeadraceError):
        cause, packed = error.__cause__, _pickled(error)
        packed.args = (f"lane {lane}: {error}", *packed.args[1:])
    else:
        cause, packed = error, ExternalError(f"lane {lane}: {type(error).__name__}: {error}")
    if cause is None:
        return PackedError(packed)
    return PackedError(packed, _pickled(cause), "".join(traceback.format_exception(cause)))


def unpack(packed: PackedError) -> BaseException:
    """The error, with its cause, and the cause's traceback as text."""
    if packed.cause is not None:
        packed.cause.__cause__ = RemoteTraceback(f"in the worker's process:\n{packed.traceback}")
        packed.error.__cause__ = packed.cause
    return packed.error


def _pickled(error: BaseException) -> BaseException:
    """The error after a journey by pickle, or one that says the same."""
    try:
        return pickle.loads(pickle.dumps(error))  # type: ignore[no-any-return]
    except Exception:  # noqa: BLE001 - an exception of the user's may be anything
        return RuntimeError(f"{type(error).__name__}: {error}")


class _Collecting:
    """Takes the place of the program's `Collected`."""

    def __init__(self, channel: _Channel) -> None:
        self._channel = channel

    def put(self, elements: Sequence[Any]) -> None:
        try:
            self._channel.say(Collected(list(elements)))
        except Exception as error:
            raise ConfigError(
                f"elements cannot be brought from their lane to `execute_and_collect`: {type(error).__name__}: "
                f"{error}. Collect what can be pickled, or leave the parallelism at 1"
            ) from error


class _Channel:
    """The socket, shared by three threads."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._inbox: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._outbox: queue.SimpleQueue[bytes] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._sender = 0

    def receive(self) -> Any:
        return pickle.loads(self._connection.recv_bytes())

    def listen(self) -> None:
        """Take in everything; never returns."""
        try:
            while True:
                self._inbox.put(self.receive())
        except (EOFError, OSError):
            # Whatever this process is in the middle of: nobody will ever commit it.
            os._exit(_COORDINATOR_GONE)

    def beat(self, interval_s: float) -> None:
        """Say that this process lives; never returns."""
        while True:
            self.say(Alive())
            time.sleep(interval_s)

    def has_next(self) -> bool:
        """Whether the coordinator has said something that was not taken in yet."""
        return not self._inbox.empty()

    def next(self, *, wait: bool) -> Any:
        """What the coordinator has said, or None if that is nothing and it is not to be waited for."""
        try:
            return self._inbox.get(block=wait)
        except queue.Empty:
            return None

    def say(self, message: Said) -> None:
        """Send one message; ends the process if nobody hears it."""
        self._outbox.put(pickle.dumps(message, pickle.HIGHEST_PROTOCOL))
        if self._sender == threading.get_ident():
            # A finalizer that logs, in the middle of sending: it goes out behind that.
            return
        with self._lock:
            self._sender = threading.get_ident()
            try:
                while True:
                    self._connection.send_bytes(self._outbox.get_nowait())
            except queue.Empty:
                self._sender = 0
            except OSError:
                os._exit(_COORDINATOR_GONE)

    def leave(self) -> None:
        """In a child that a function forks: let go of the socket, log to nobody, and end by a signal as others do."""
        self._connection.close()
        logging.getLogger().handlers.clear()
        signal.signal(signal.SIGINT, signal.default_int_handler)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)

    def put_nowait(self, record: logging.LogRecord) -> None:
        """What `logging.handlers.QueueHandler` wants of a queue."""
        self.say(Logged(_as_it_can_travel(record)))


_OF_EVERY_RECORD: Final = frozenset(vars(logging.makeLogRecord({})))


def _as_it_can_travel(record: logging.LogRecord) -> logging.LogRecord:
    """The record, with those of the program's own attributes (`extra`) as text that pickle cannot bring over."""
    for name in vars(record).keys() - _OF_EVERY_RECORD:
        value = getattr(record, name)
        try:
            pickle.loads(pickle.dumps(value))
        except Exception:  # noqa: BLE001 - a value of the user's may be anything
            setattr(record, name, repr(value))
    return record


def _log_to(channel: _Channel, levels: Mapping[str, int]) -> None:
    """Send what is logged here to where the program logs."""
    logging.getLogger().addHandler(logging.handlers.QueueHandler(channel))  # type: ignore[arg-type]
    for name, level in levels.items():
        logging.getLogger(name).setLevel(level)


def _end_with_parent() -> None:
    """Linux: have the kernel end this process with its parent, even while it cannot notice by itself."""
    if sys.platform == "linux":
        with contextlib.suppress(OSError, AttributeError):
            ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
