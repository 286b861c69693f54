"""What a function's failure on one record is: an error that names operator and record, a count, a dead letter."""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Callable, Iterable

from headrace.connector import DeadLetter, Origin, RecordTooLarge, Stage
from headrace.errors import (
    ConfigError,
    DataError,
    ExternalError,
    HeadraceError,
    InternalError,
    NotSupportedError,
    UserCodeError,
)
from headrace.plan.graph import Node, WriteSink
from headrace.state.key_groups import UnusableKey

_LOG = logging.getLogger("headrace")

_SAY_EACH_S = 10.0


def is_of_the_record(error: Exception) -> bool:
    """Whether another record might fare better, so that an error policy applies.

    What the outside does not answer, and what is set wrong, is no fault of a record. That a key cannot be one is.

    >>> is_of_the_record(ValueError("no price")), is_of_the_record(ExternalError("no answer"))
    (True, False)
    """
    if isinstance(error, UnusableKey):
        return True
    return not isinstance(error, ExternalError | ConfigError | InternalError | MemoryError)


def reason(error: Exception) -> str:
    """An exception as text.

    >>> reason(KeyError("price")), reason(TimeoutError())
    ("KeyError: 'price'", 'TimeoutError')
    """
    said = text_of(error)
    return f"{type(error).__name__}: {said}" if said else type(error).__name__


def text_of(error: Exception) -> str:
    """What an exception says; nothing if its own `__str__` fails."""
    try:
        return str(error)
    except Exception:  # noqa: BLE001 - the program's own code may raise anything
        return ""


def stage(node: Node, error: Exception, *, deserializes: bool) -> Stage:
    """Where a record failed: at this node, in its deserializer if it `deserializes`."""
    if deserializes:
        return Stage.DESERIALIZATION
    if isinstance(error, RecordTooLarge):
        return Stage.SIZE
    return Stage.SERIALIZATION if isinstance(node.operator, WriteSink) else Stage.FUNCTION


def blamed(node: Node, error: Exception, record: str, at: Stage) -> Exception:
    """The error that the job fails with: it names operator and record, and has `error` as its cause."""
    if isinstance(error, TypeError) and "unhashable type" in str(error) and node.key_selector is not None:
        failed: HeadraceError = NotSupportedError(
            f"the key that `key_by` gives for `{node.name}` cannot be one ({error}), on the record at {record}; "
            "give a str, a number, or a tuple of such"
        )
    elif isinstance(error, ExternalError):
        # What the outside did not answer is no fault of the record.
        return error
    elif isinstance(error, ConfigError):
        # What is refused now is refused after a restart too, so it keeps its kind.
        kind = NotSupportedError if isinstance(error, NotSupportedError) else ConfigError
        failed = kind(f"`{node.name}` failed on the record at {record}: {error}")
    elif at is Stage.DESERIALIZATION:
        message = f"`{node.name}` cannot deserialize the record at {record}: {reason(error)}"
        failed = DataError(message, record=record)
    elif at is Stage.FUNCTION:
        message = f"`{node.name}` failed with {reason(error)} on the record at {record}"
        failed = UserCodeError(message, operator=node.name, record=record)
    else:
        message = f"`{node.name}` cannot serialize what came of the record at {record}: {reason(error)}"
        failed = DataError(message, record=record)
    failed.__cause__ = error
    return failed


class Failures:
    """The records that a worker's operators have failed on and that the job goes on without."""

    def __init__(self, job: str, attempt: int, clock: Callable[[], float]) -> None:
        self.counts: Counter[tuple[int, Stage]] = Counter()
        """Records by node id and stage."""
        self.checkpoint: int | None = None
        """The number of the snapshot that was restored, or of the last checkpoint that has begun since."""
        self._job = job
        self._attempt = attempt
        self._clock = clock
        self._told_at: dict[int, float] = {}
        self._has_said_all = False

    def total(self, node_id: int) -> int:
        """How many records an operator has failed on."""
        return sum(count for (n, _), count in self.counts.items() if n == node_id)

    def count(self, node: Node, error: Exception, origin: Origin, index: int, at: Stage) -> None:
        """One more. The first of an operator is logged whole, of later ones one in ten seconds."""
        self.counts[node.id, at] += 1
        now = self._clock()
        if now - self._told_at.get(node.id, -_SAY_EACH_S) >= _SAY_EACH_S:
            self._told_at[node.id] = now
            fate = "dropped" if node.dead_letters is None else "a dead letter"
            what = blamed(node, error, origin.describe(index), at)
            _LOG.warning(
                "%s. The job goes on, the record is %s: number %d of this operator", what, fate, self.total(node.id)
            )

    def say_all(self, nodes: Iterable[Node]) -> None:
        """Log how many there were, at the end; once."""
        if self._has_said_all:
            return
        self._has_said_all = True
        for node in nodes:
            if total := self.total(node.id):
                fate = "were dropped" if node.dead_letters is None else "became dead letters"
                _LOG.warning("`%s` failed on %d records, which %s", node.name, total, fate)

    def dead_letter(self, node: Node, error: Exception, origin: Origin, index: int, at: Stage) -> DeadLetter:
        """The record, with what happened to it."""
        kind = type(error)
        name = kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
        return DeadLetter(
            origin.record(index),
            at,
            node.name,
            name,
            text_of(error),
            self._job,
            self.checkpoint,
            self._attempt,
            int(time.time() * 1000),
        )
