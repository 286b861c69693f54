"""`CompletableFuture`: a result that may not be there yet."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from typing import Generic, TypeVar

T = TypeVar("T")


class CompletableFuture(Generic[T]):
    """A result that may not be there yet; a view of a `concurrent.futures.Future`."""

    def __init__(self, future: Future[T]) -> None:
        self._future = future

    @staticmethod
    def completed(value: T) -> CompletableFuture[T]:
        """One whose result is there (*Extension*)."""
        future: Future[T] = Future()
        future.set_result(value)
        return CompletableFuture(future)

    def cancel(self) -> bool:
        """Try to cancel; whether that worked."""
        return self._future.cancel()

    def cancelled(self) -> bool:
        return self._future.cancelled()

    def done(self) -> bool:
        """Whether there is a result, an error, or a cancellation."""
        return self._future.done()

    def result(self) -> T:
        """The result; waits for it, and raises what went wrong."""
        return self._future.result()

    def exception(self) -> BaseException | None:
        """What went wrong so far; None if nothing did, or if it is not done yet."""
        if self._future.done() and not self._future.cancelled():
            return self._future.exception()
        return None

    def when_done(self, callback: Callable[[], object]) -> None:
        """Call back once it is done, at once if it is, from whichever thread that happens in (*Extension*)."""
        self._future.add_done_callback(lambda _: callback())

    def __str__(self) -> str:
        return f"CompletableFuture({self._future})"
