"""The way between the coordinator and its workers, one for each lane."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol, TypeVar

from headrace.errors import InternalError
from headrace.metrics.registry import Sample
from headrace.runtime.collecting import Collecting
from headrace.runtime.messages import Close, Failed, ToCoordinator, ToWorker
from headrace.runtime.worker import Worker

Reply = TypeVar("Reply", bound=ToCoordinator)


@dataclass(frozen=True, slots=True)
class LaneProgress:
    """What one worker has done since it started; `lag` is None if none of its sources knows."""

    records_in: int = 0
    records_out: int = 0
    lag: int | None = None


@dataclass(frozen=True, slots=True)
class LaneMetrics:
    """The metrics of one worker's operators."""

    samples: tuple[Sample, ...] = ()


class LaneFailed(Exception):
    """A worker cannot go on; `error` says why."""

    def __init__(self, lane: int, error: BaseException) -> None:
        super().__init__(f"lane {lane}: {error}")
        self.lane = lane
        self.error = error


class Link(Protocol):
    """What the coordinator sees of its workers. Used from one thread."""

    lanes: int

    def start(self) -> None:
        """Begin: nothing is said before."""
        ...

    def send(self, message: ToWorker, lane: int) -> None:
        """To one of them. What it fails with comes as `Failed`; behind that nothing is heard of it until it is asked
        something, or replaced."""
        ...

    def receive(self, lane: int | None = None) -> tuple[int, ToCoordinator] | None:
        """The next thing that one of them (or the one of this lane) says, with its lane; None: nothing yet."""
        ...

    def work(self, timeout_s: float) -> None:
        """Let workers work until one of them says something, for about `timeout_s` at most."""
        ...

    def let_go(self, lane: int) -> None:
        """Let a worker that failed close everything, and end."""
        ...

    def is_gone(self, lane: int) -> bool:
        """Whether a worker that was let go has ended, or has had time enough to."""
        ...

    def restart(self, lane: int) -> None:
        """A new worker in the place of one that failed."""
        ...

    def progress(self) -> LaneProgress:
        """What all of them have done."""
        ...

    def samples(self) -> tuple[Sample, ...]:
        """The metrics of all operators, as they were a second ago at most."""
        ...

    def close(self) -> list[BaseException]:
        """Let them close everything, and end them; what that failed with. May be called twice."""
        ...


def tell(link: Link, message: ToWorker) -> None:
    """Say something to all workers."""
    for lane in range(link.lanes):
        link.send(message, lane)


def ask(
    link: Link, messages: Mapping[int, ToWorker], reply: type[Reply], *, skips_others: bool = False
) -> dict[int, Reply]:
    """Say something to some workers, and wait for the answer of each; by lane.

    Raises `LaneFailed` for one that fails. What other lanes say meanwhile stays where it is; what these have said
    before is a mistake, unless the attempt is over and it is passed over (`skips_others`).
    """
    for lane, message in messages.items():
        link.send(message, lane)
    return {lane: _answer(link, message, reply, lane, skips_others) for lane, message in messages.items()}


def _answer(link: Link, message: ToWorker, reply: type[Reply], lane: int, skips_others: bool) -> Reply:
    while True:
        match link.receive(lane):
            case None:
                link.work(1.0)
            case (_, Failed(error)):
                raise LaneFailed(lane, error)
            case (_, said) if isinstance(said, reply):
                return said
            case (_, said) if not skips_others:
                raise InternalError(f"{type(said).__name__} in answer to {type(message).__name__}")
            case _:
                pass


class LocalLink:
    """Coordinator and one worker in one thread: what is sent is done at once."""

    lanes = 1

    def __init__(self, worker: Worker, collecting: Collecting) -> None:
        self._worker = worker
        self._collecting = collecting
        self._inbox: deque[ToCoordinator] = deque()

    def start(self) -> None:
        """Nothing to do."""

    def send(self, message: ToWorker, lane: int) -> None:
        """Let the worker do it."""
        self._collecting.on_sent(message, lane)
        self._worker.handle(message)

    def receive(self, lane: int | None = None) -> tuple[int, ToCoordinator] | None:
        """The next thing the worker said."""
        self._inbox.extend(self._worker.outbox)
        self._worker.outbox.clear()
        if not self._inbox:
            return None
        said = self._inbox.popleft()
        self._collecting.on_said(said, 0)
        return 0, said

    def work(self, timeout_s: float) -> None:
        """One step, if there is something to read."""
        if self._worker.is_running:
            self._worker.step(timeout_s)

    def let_go(self, lane: int) -> None:
        """Never, as `restart`."""
        raise InternalError("the only worker cannot be let go alone")

    def is_gone(self, lane: int) -> bool:
        """Never, as `restart`."""
        raise InternalError("the only worker is not gone")

    def restart(self, lane: int) -> None:
        """Never: the only worker's failure is the job's."""
        raise InternalError("the only worker cannot be restarted alone")

    def progress(self) -> LaneProgress:
        """What the worker has done."""
        return LaneProgress(self._worker.records_in, self._worker.records_out, self._worker.lag)

    def samples(self) -> tuple[Sample, ...]:
        """The worker's metrics now."""
        return self._worker.samples()

    def close(self) -> list[BaseException]:
        """Close everything without committing."""
        self.send(Close(), 0)
        errors: list[BaseException] = []
        while (said := self.receive()) is not None:
            if isinstance(said[1], Failed):
                errors.append(said[1].error)
        return errors
