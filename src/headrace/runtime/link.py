"""The way between the coordinator and its workers."""

from __future__ import annotations

from collections import deque
from typing import Protocol, TypeVar

from headrace.errors import InternalError
from headrace.runtime.messages import Failed, ToCoordinator, ToWorker
from headrace.runtime.worker import Worker

Reply = TypeVar("Reply", bound=ToCoordinator)


class Link(Protocol):
    """What the coordinator sees of its workers."""

    def send(self, message: ToWorker) -> None:
        """To all of them."""
        ...

    def receive(self) -> ToCoordinator | None:
        """The next thing that any of them says; None: nothing yet."""
        ...


def ask(link: Link, message: ToWorker, reply: type[Reply]) -> Reply:
    """Send, and wait for the answer. Raises what the worker failed with."""
    link.send(message)
    while True:
        said = link.receive()
        if isinstance(said, reply):
            return said
        if isinstance(said, Failed):
            raise said.error
        if said is not None:
            raise InternalError(f"{type(said).__name__} in answer to {type(message).__name__}")


class LocalLink:
    """Coordinator and worker in one thread: what is sent is done at once."""

    def __init__(self, worker: Worker) -> None:
        self._worker = worker
        self._inbox: deque[ToCoordinator] = deque()

    def send(self, message: ToWorker) -> None:
        """Let the worker do it."""
        self._worker.handle(message)

    def receive(self) -> ToCoordinator | None:
        """The next thing the worker said."""
        self._inbox.extend(self._worker.outbox)
        self._worker.outbox.clear()
        return self._inbox.popleft() if self._inbox else None
