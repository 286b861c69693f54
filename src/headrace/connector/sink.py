"""What a sink is: a frozen value that makes writers, and, for exactly once, its region's transaction."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from headrace.connector.source import Source
from headrace.connector.transaction import Transaction, TransactionContext
from headrace.errors import NotSupportedError
from headrace.metrics.metricbase import MetricGroup
from headrace.metrics.registry import Row, unreported


class DeliveryGuarantee(Enum):
    """What a sink promises after a failure. PyFlink's names; compare members, never values."""

    EXACTLY_ONCE = 0
    AT_LEAST_ONCE = 1
    NONE = 2


@dataclass(frozen=True, slots=True)
class WriterContext:
    """What a writer may know of the job it serves.

    With `checks_each` the job goes on without elements that cannot be written: `serialize` raises for each of them, as
    far as that can be known before it is sent, so that `write` does not.
    """

    job_name: str
    operator_name: str
    subtask: int
    parallelism: int
    checks_each: bool = False
    metrics: MetricGroup = field(default_factory=unreported, compare=False, repr=False)
    is_reported: bool = False
    """As in `SourceContext`."""


class SinkWriter(ABC):
    """Writes records, on a worker. Used from one thread."""

    serialize: Callable[..., Any] | None = None
    """Turns one element into what `write` takes; the engine fuses it into the chain. None: elements as they are."""

    serializes_timestamp: bool = False
    """Whether `serialize` takes an element's timestamp in ms too (the smallest long: it has none)."""

    @property
    def dropped(self) -> int:
        """How many elements the program's serializer chose not to write."""
        return 0

    @abstractmethod
    def write(self, values: Sequence[Any], timestamps: Sequence[int] | None) -> None:
        """Hand over serialized values, with their timestamps in ms where there are any.

        Blocks while the client's queue is full (back-pressure), never drops. Raises `ExternalError` for a failed
        delivery of an earlier record. Must not keep the lists: the engine empties them afterwards.
        """

    @abstractmethod
    def flush(self) -> None:
        """At a barrier: return when everything written is acknowledged as far as the guarantee asks; raise if not.

        For NONE this does nothing.
        """

    def finish(self) -> None:
        """At the last barrier, after the last `write`: like `flush`, whatever the guarantee."""
        self.flush()

    def poll(self) -> None:
        """Serve the client between batches, so that errors surface and time passes for it. Never blocks."""

    def metrics(self) -> Iterable[Row]:
        """What the writer counts besides, for a reporter; called between two steps, once a second. Asks nobody."""
        return ()

    def notify_checkpoint_complete(self) -> None:
        """The checkpoint of the last `flush` is complete."""

    def close(self) -> None:
        """Release clients without waiting for what was not flushed. May be called twice."""


class Sink(ABC):
    """A sink, as a value in the plan: frozen, picklable, without any client inside."""

    delivery_guarantee: DeliveryGuarantee = DeliveryGuarantee.AT_LEAST_ONCE

    @abstractmethod
    def create_writer(self, context: WriterContext, transaction: Transaction | None) -> SinkWriter:
        """A writer; under EXACTLY_ONCE all writers of one region share its `transaction`."""

    def create_transaction(
        self, sinks: Sequence[Sink], sources: Sequence[Source], context: TransactionContext
    ) -> Transaction:
        """The transaction that serves all of a region's EXACTLY_ONCE `sinks` (this one among them).

        Raises `ConfigError` when one transaction cannot serve them all (two clusters, say), and `ExternalError` when
        the outside does not answer.
        """
        raise NotSupportedError(
            f"{type(self).__name__} cannot deliver exactly once; use DeliveryGuarantee.AT_LEAST_ONCE"
        )
