"""A team of workers: one process for each lane, as the coordinator sees them.

Theory of operation. A worker's process is started with one end of a socket pair and told everything else through it.
Its death is seen as the end of that socket, or of the process where a child of its own holds the socket; one that gives
no sign of life for `heartbeat.timeout` is killed. Either way it has failed as if it had said so itself.

Invariants. A worker fails once: behind that nothing of it is heard until it is asked something, or another one has
taken its place. A lane's former process is dead before a new one is started. No process outlives `close`; one whose
coordinator is gone ends itself (see `headrace.runtime.lane`).
"""

from __future__ import annotations

import logging
import math
import os
import pickle
import signal
import socket
import struct
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from functools import _lru_cache_wrapper, lru_cache
from io import BytesIO
from multiprocessing import connection
from multiprocessing.connection import Connection
from pathlib import Path
from types import FunctionType
from typing import Any, Final, NewType

import cloudpickle

from headrace.crash_points import VARIABLE, armed_in
from headrace.errors import ConfigError, ExternalError
from headrace.metrics.registry import Sample
from headrace.plan.graph import Plan
from headrace.plan.parallelism import lanes
from headrace.runtime.collecting import Collecting, with_collected
from headrace.runtime.lane import Alive, Collected, Logged, PackedError, Said, Setup, unpack
from headrace.runtime.link import LaneMetrics, LaneProgress
from headrace.runtime.messages import (
    Close,
    Failed,
    ToCoordinator,
    ToStart,
    ToWorker,
)
from headrace.runtime.settings import Settings

log = logging.getLogger("headrace")

_START_S: Final = 60.0
"""How long a worker's process may take to come up: an interpreter and the program's modules."""

_CLOSE_S: Final = 10.0
"""How long a worker may take to close everything, before that is told of; or, if it has failed, before it is killed."""

_LOOK_S: Final = 0.05
"""How often a worker that says nothing is looked after."""

_HEARD_AT_ONCE: Final = 100
"""Messages of each worker before the coordinator has its turn again."""

_BOOTSTRAP: Final = """\
import sys
sys.path[:] = sys.argv[2:]
from headrace.runtime.lane import main
main(int(sys.argv[1]))
"""


class Team:
    """The workers of one attempt."""

    def __init__(self, plan: Plan, settings: Settings, root: Path, collecting: Collecting, attempt_number: int) -> None:
        self.lanes = lanes(plan)
        self._settings = settings
        self._root = root
        self._attempt_number = attempt_number
        self._restarts = 0
        self._inbox: deque[tuple[int, ToCoordinator]] = deque()
        self._collecting = collecting
        self._program = _pickled(with_collected(plan, None))
        self._members: dict[int, _Member] = {}

    def start(self) -> None:
        """Start the workers."""
        for lane in range(self.lanes):
            self._start(lane)

    def send(self, message: ToWorker, lane: int) -> None:
        """To the worker of one lane."""
        self._collecting.on_sent(message, lane)
        member = self._members[lane]
        if isinstance(message, ToStart):
            member.is_lost = False
            if not member.is_alive:
                self._fail(member, ExternalError(f"lane {lane}: its worker {member.last_words()}"))
        self._send(member, pickle.dumps(message, pickle.HIGHEST_PROTOCOL))

    def receive(self, lane: int | None = None) -> tuple[int, ToCoordinator] | None:
        """The next thing that a worker says."""
        for index, said in enumerate(self._inbox):
            if lane in (None, said[0]):
                del self._inbox[index]
                return said
        return None

    def work(self, timeout_s: float) -> None:
        """Wait for a worker to say something, for `timeout_s` at most."""
        wait_s = timeout_s
        for _ in range(_HEARD_AT_ONCE):
            listened = {member.connection: member for member in self._members.values() if member.is_alive}
            ready = connection.wait(list(listened), wait_s)
            wait_s = 0
            for each in ready:
                assert isinstance(each, Connection)
                self._hear(listened[each])
            # Only those who have nothing to say: it may be this process that slept.
            self._look_after(member for at, member in listened.items() if at not in ready)
            if not ready:
                break

    def _look_after(self, silent: Iterable[_Member]) -> None:
        """Who of these is dead, or as good as."""
        now, patience_s = time.monotonic(), self._settings.heartbeat_timeout_ms / 1000
        for member in silent:
            if now < member.looked_at + _LOOK_S or not member.is_alive:
                continue
            member.looked_at = now
            if member.has_ended:
                self._hear_out(member)
            elif now - member.heard_at > (patience_s if member.has_begun else _START_S):
                self._lose(member, self._no_sign if member.has_begun else f"did not come up within {_START_S:g} s")

    def let_go(self, lane: int) -> None:
        """Let a worker that failed, and lives, close everything."""
        member = self._members[lane]
        member.let_go_at = time.monotonic()
        self._send(member, pickle.dumps(Close()))

    def is_gone(self, lane: int) -> bool:
        """Whether it has ended, or has had time enough to."""
        member = self._members[lane]
        return not member.is_alive or time.monotonic() > member.let_go_at + _CLOSE_S

    def restart(self, lane: int) -> None:
        """A new worker in the place of one that failed."""
        member = self._members[lane]
        if member.is_alive:
            log.warning("lane %d: its worker did not close within %g s, and is killed", lane, _CLOSE_S)
        member.end(0)
        self._inbox = deque(said for said in self._inbox if said[0] != lane)
        self._restarts += 1
        self._start(lane)

    def progress(self) -> LaneProgress:
        """What all workers have done."""
        each = [member.progress for member in self._members.values()]
        known = [progress.lag for progress in each if progress.lag is not None]
        return LaneProgress(
            sum(progress.records_in for progress in each),
            sum(progress.records_out for progress in each),
            sum(known) if known else None,
        )

    def samples(self) -> tuple[Sample, ...]:
        """What all workers have said last."""
        return tuple(sample for member in self._members.values() for sample in member.samples)

    def close(self) -> list[BaseException]:
        """Let all close everything, and end them. A worker that dies now is told of, and changes nothing."""
        self._inbox.clear()
        for member in self._members.values():
            member.is_lost = False
            self._send(member, pickle.dumps(Close()))
        tells_at = time.monotonic() + _CLOSE_S
        # As long as it takes, as with one lane, if there are signs of life.
        while open_ones := [member for member in self._members.values() if member.is_alive]:
            self.work(0.1)
            if time.monotonic() > tells_at:
                tells_at = math.inf
                lanes = ", ".join(str(member.lane) for member in open_ones)
                log.warning("lane %s: still closing after %g s; signal again to end at once", lanes, _CLOSE_S)
        said = [message.error for _, message in self._inbox if isinstance(message, Failed)]
        self._inbox.clear()
        for error in said:
            if isinstance(error, WorkerLost) and error.is_worth_telling:
                log.warning("while everything was closed: %s", error)
        return [error for error in said if not isinstance(error, WorkerLost)]

    @property
    def _no_sign(self) -> str:
        return (
            f"gave no sign of life for {self._settings.heartbeat_timeout_ms / 1000:g} s (`heartbeat.timeout`): it was "
            "halted, or a function held the interpreter all the time, as a long regular expression does"
        )

    def _start(self, lane: int) -> None:
        attempt = self._attempt_number + self._restarts
        interval_s = min(self._settings.heartbeat_interval_ms, self._settings.heartbeat_timeout_ms / 3) / 1000
        setup = Setup(
            lane=lane,
            attempt_number=attempt,
            argv=sys.argv,
            levels=_levels(),
            heartbeat_s=interval_s,
            root=self._root,
            program=self._program,
            settings=self._settings,
        )
        member = _Member(lane, self._settings.heartbeat_timeout_ms / 1000, is_armed=attempt == 0)
        self._members[lane] = member
        self._send(member, pickle.dumps(setup))

    def _send(self, member: _Member, data: bytes) -> None:
        if not member.is_alive:
            return
        try:
            member.connection.send_bytes(data)
        except BlockingIOError:
            self._lose(member, self._no_sign)
        except OSError:
            self._hear_out(member)

    def _hear(self, member: _Member) -> None:
        try:
            data = member.connection.recv_bytes()
        except BlockingIOError:
            self._lose(member, self._no_sign)
            return
        except (EOFError, OSError):
            self._lose(member, None)
            return
        member.heard_at, member.has_begun = time.monotonic(), True
        try:
            said: Said = pickle.loads(data)
        except Exception as error:  # noqa: BLE001 - a class of the user's may do anything
            text = f"lane {member.lane}: what it hands over cannot be read here: {type(error).__name__}: {error}"
            self._fail(member, ConfigError(text))
            return
        match said:
            case Alive():
                pass
            case LaneProgress():
                member.progress = said
            case LaneMetrics(samples):
                member.samples = samples
            case Logged(record):
                _log(record, member.lane)
            case PackedError():
                self._fail(member, unpack(said))
            case _ if member.is_lost:
                pass
            case Collected(elements):
                self._collecting.take(member.lane, elements)
            case _:
                self._collecting.on_said(said, member.lane)
                self._inbox.append((member.lane, said))

    def _hear_out(self, member: _Member) -> None:
        """Its process has ended, and may have said what it failed with."""
        while member.is_alive and member.connection.poll():
            self._hear(member)
        if member.is_alive:
            self._lose(member, None)

    def _lose(self, member: _Member, why: str | None) -> None:
        is_orderly = member.end(0 if why else 1.0)
        text = f"lane {member.lane}: its worker {why or member.last_words()}"
        self._fail(member, WorkerLost(text, is_worth_telling=not is_orderly))

    def _fail(self, member: _Member, error: BaseException) -> None:
        if not member.is_lost:
            member.is_lost = True
            self._inbox.append((member.lane, Failed(error)))


class WorkerLost(ExternalError):
    """A worker's process is gone; `is_worth_telling` unless it ended as it was told to."""

    def __init__(self, message: str, *, is_worth_telling: bool) -> None:
        super().__init__(message)
        self.is_worth_telling = is_worth_telling


class _Member:
    """One worker's process."""

    def __init__(self, lane: int, patience_s: float, *, is_armed: bool) -> None:
        self.lane = lane
        self.is_alive = True
        self.is_lost = False
        self.has_begun = False
        self.heard_at = self.looked_at = self.let_go_at = time.monotonic()
        self.progress = LaneProgress()
        self.samples: tuple[Sample, ...] = ()
        ours, theirs = socket.socketpair()
        with ours, theirs:
            for option in (socket.SO_SNDTIMEO, socket.SO_RCVTIMEO):
                # A worker that is halted in the middle of a message must not halt the coordinator.
                ours.setsockopt(socket.SOL_SOCKET, option, struct.pack("ll", int(patience_s) + 1, 0))
            environment = dict(os.environ)
            text = environment.pop(VARIABLE, "")
            if is_armed and (point := armed_in(lane, text)) is not None:
                environment[VARIABLE] = point
            try:
                self._process = subprocess.Popen(
                    [sys.executable, "-c", _BOOTSTRAP, str(theirs.fileno()), *sys.path],
                    stdin=subprocess.DEVNULL,
                    pass_fds=[theirs.fileno()],
                    env=environment,
                    process_group=0,
                )
            except OSError as error:
                raise ExternalError(f"the worker of lane {lane} cannot be started: {error}") from error
            self.connection = Connection(ours.detach())
        log.debug("lane %d works in process %d", lane, self._process.pid)

    @property
    def has_ended(self) -> bool:
        return self._process.poll() is not None

    def end(self, patience_s: float) -> bool:
        """Make sure that the process is gone, after `patience_s` by force; whether it ended well. May be called
        twice."""
        self.is_alive = False
        self.connection.close()
        try:
            self._process.wait(patience_s)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        return self._process.returncode == 0

    def last_words(self) -> str:
        """How it ended, once it has."""
        code = self._process.returncode
        if code >= 0:
            return f"ended by itself with status {code}"
        name = signal.Signals(-code).name
        hint = ", as the kernel does when memory runs out" if -code == signal.SIGKILL else ""
        return f"was ended by {name}{hint}"


def _log(record: logging.LogRecord, lane: int) -> None:
    """A record of a worker's log, as if it had been logged here."""
    logger = logging.getLogger(record.name)
    if logger.isEnabledFor(record.levelno):
        record.msg = f"lane {lane}: {record.msg}"
        logger.handle(record)


def _levels() -> dict[str, int]:
    """The loggers that have a level of their own."""
    known = logging.root.manager.loggerDict.items()
    levels = {name: logger.level for name, logger in known if isinstance(logger, logging.Logger) and logger.level}
    return {"": logging.root.level, **levels}


def _own_names() -> dict[str, Any]:
    """The classes and functions of the program's own file, which exist in no module that a worker could import."""
    return {
        name: value
        for name, value in list(vars(sys.modules["__main__"]).items())
        if isinstance(value, type | FunctionType | _lru_cache_wrapper | NewType) and value.__module__ == "__main__"
    }


class _Traveller(cloudpickle.CloudPickler):  # type: ignore[misc]
    """Takes what is the program's own file's along by value, as far as that can be done."""

    def reducer_override(self, value: Any) -> Any:
        own = getattr(value, "__dict__", {})
        if own.get("__module__") == "__main__" and not isinstance(value, type | FunctionType):
            # It stands for a function or a class, and would go by its name alone.
            if isinstance(value, _lru_cache_wrapper):
                return _cached, (value.__wrapped__, value.cache_parameters())
            if isinstance(value, NewType):
                return NewType, (value.__name__, value.__supertype__), {"__module__": "__main__"}
            if isinstance(name := value.__reduce_ex__(pickle.HIGHEST_PROTOCOL), str):
                raise ConfigError(
                    f"`{name}` of the program's own file, of {type(value).__qualname__}, cannot be brought to workers; "
                    "put it into a module beside the program, and import it"
                )
        if isinstance(value, type) and value.__module__ == "__main__":
            if hasattr(value, "__struct_fields__"):
                # By value it would be a class without fields.
                raise ConfigError(
                    f"the class `{value.__qualname__}` of the program's own file is a msgspec Struct, which cannot be "
                    "brought to workers; put it into a module beside the program, and import it"
                )
            if "__msgspec_cache__" in vars(value):
                # What msgspec knows of a dataclass cannot be pickled, and is made again.
                delattr(value, "__msgspec_cache__")
        return super().reducer_override(value)


def _cached(function: Callable[..., Any], parameters: Mapping[str, Any]) -> Any:
    return lru_cache(**parameters)(function)


def _dumps(value: Any) -> bytes:
    out = BytesIO()
    _Traveller(out).dump(value)
    return bytes(out.getvalue())


def _can_travel(name: str, value: Any) -> bool:
    try:
        _dumps(value)
    except Exception as error:  # noqa: BLE001 - one that the plan needs is reported with the plan
        log.debug("`%s` of the program's file is not brought to the workers: %s", name, error)
        return False
    return True


def _pickled(plan: Plan) -> bytes:
    """The plan with the names of the program's own file: in one piece, as what they share is there once."""
    names = _own_names()
    try:
        return _dumps((names, plan))
    except Exception as error:  # noqa: BLE001 - if it is the plan's, it is reported below
        log.debug("not all of the program's file can be brought to the workers: %s", error)
    names = {name: value for name, value in names.items() if _can_travel(name, value)}
    try:
        return _dumps((names, plan))
    except ConfigError:
        raise
    except Exception as error:
        raise ConfigError(
            f"the job cannot be brought to its workers: {type(error).__name__}: {error}. A function holds something "
            "that cannot be pickled (a connection, a lock, a generator): create that in `open()`"
        ) from error
