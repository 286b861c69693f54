"""Sources and sinks that need no client: a collection, the standard output, and the program that started the job."""

from __future__ import annotations

import copy
import sys
import threading
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from headrace.connector.batch import Batch, OriginalRecord
from headrace.connector.sink import Sink, SinkWriter, WriterContext
from headrace.connector.source import (
    Boundedness,
    JsonValue,
    Source,
    SourceContext,
    SourceReader,
    Split,
    SplitEnumerator,
)
from headrace.connector.transaction import Transaction
from headrace.errors import ExternalError, StateError

_SPLIT_ID = "collection"


@dataclass(frozen=True, slots=True)
class CollectionSplit:
    """The whole collection, read up to `position`."""

    position: int

    @property
    def split_id(self) -> str:
        return _SPLIT_ID


@dataclass(frozen=True, slots=True)
class CollectionSource(Source):
    """Values that are part of the plan. Read in order, by one reader, and again from any position after a failure."""

    values: tuple[Any, ...] = field(repr=False)

    @property
    def boundedness(self) -> Boundedness:
        return Boundedness.BOUNDED

    @property
    def is_parallel(self) -> bool:
        return False

    def create_enumerator(self, context: SourceContext) -> SplitEnumerator:
        return _CollectionEnumerator()

    def create_reader(self, context: SourceContext) -> SourceReader:
        return _CollectionReader(self.values)

    def encode_split(self, split: CollectionSplit) -> Mapping[str, JsonValue]:
        return {"position": split.position}

    def decode_split(self, data: Mapping[str, JsonValue]) -> CollectionSplit:
        position = data.get("position")
        if not isinstance(position, int) or position < 0:
            raise StateError(
                f"the position in a collection cannot be read from {dict(data)!r}; start from another checkpoint"
            )
        return CollectionSplit(position)


class _CollectionEnumerator(SplitEnumerator):
    def start(self, restored: Sequence[Split] | None) -> list[Split]:
        return list(restored) if restored else [CollectionSplit(0)]


@dataclass(frozen=True, slots=True)
class _CollectionOrigin:
    """Where a batch starts in the collection."""

    reader: _CollectionReader
    start: int

    @property
    def split_id(self) -> str:
        return _SPLIT_ID

    def describe(self, index: int) -> str:
        position = self.start + index
        return f"element {position} of the collection: {self.reader.values[position]!r:.200}"

    def record(self, index: int) -> OriginalRecord:
        # From the collection itself: the function that failed may have changed the copy.
        return OriginalRecord(copy.deepcopy(self.reader.values[self.start + index]), is_element=True)

    def advance(self, count: int) -> None:
        self.reader.position = self.start + count


class _CollectionReader(SourceReader):
    def __init__(self, values: Sequence[Any]) -> None:
        self.values = values
        self.position = 0
        self._next: int | None = None

    def add_splits(self, splits: Sequence[Split]) -> None:
        for split in splits:
            assert isinstance(split, CollectionSplit)
            self.position = self._next = split.position

    def poll(self, max_records: int, timeout_s: float) -> Sequence[Batch]:
        if self._next is None or self._next >= len(self.values):
            return []
        start, self._next = self._next, min(self._next + max_records, len(self.values))
        # Copies: a function that changes its argument must not change what is read again after a failure.
        values = copy.deepcopy(list(self.values[start : self._next]))
        return [Batch(values, None, _CollectionOrigin(self, start))]

    def snapshot(self) -> list[Split]:
        return [] if self._next is None else [CollectionSplit(self.position)]

    def is_finished(self, split_id: str) -> bool:
        return self._next is not None and self._next >= len(self.values)


@dataclass(frozen=True, slots=True)
class PrintSink(Sink):
    """One line on the standard output for each element.

    Lines begin with `identifier>`, and, with more than one subtask, the subtask's number from 1, as in Flink.
    """

    identifier: str = ""

    def create_writer(self, context: WriterContext, transaction: Transaction | None) -> SinkWriter:
        parts = [self.identifier] if self.identifier else []
        if context.parallelism > 1:
            parts.append(str(context.subtask + 1))
        return _PrintWriter(":".join(parts) + "> " if parts else "")


class _PrintWriter(SinkWriter):
    def __init__(self, prefix: str) -> None:
        self._prefix = prefix

    def write(self, values: Sequence[Any], timestamps: Sequence[int] | None) -> None:
        prefix = self._prefix
        try:
            sys.stdout.write("".join([f"{prefix}{value!s}\n" for value in values]))
            sys.stdout.flush()
        except OSError as error:
            raise ExternalError(f"the standard output cannot be written: {error}", retriable=False) from error

    def flush(self) -> None:
        """Nothing to do: each `write` is flushed."""


class Collected:
    """Elements on their way from a running job to the program that started it: a bounded queue with an end.

    The job waits while `capacity` elements have not been taken yet. Once the program has called `abandon`, what the job
    still puts is dropped.
    """

    def __init__(self, capacity: int = 100_000) -> None:
        self._capacity = capacity
        self._elements: deque[Any] = deque()
        self._changed = threading.Condition()
        self._ended = False
        self._abandoned = False

    def put(self, elements: Sequence[Any]) -> None:
        """Job: hand over, when there is room."""
        with self._changed:
            self._changed.wait_for(lambda: self._abandoned or len(self._elements) < self._capacity)
            if not self._abandoned:
                self._elements.extend(elements)
                self._changed.notify_all()

    def end(self) -> None:
        """Job: nothing more will come."""
        with self._changed:
            self._ended = True
            self._changed.notify_all()

    def take(self) -> list[Any] | None:
        """Program: everything there is, at least one; None at the end. Waits."""
        with self._changed:
            self._changed.wait_for(lambda: self._elements or self._ended)
            taken = list(self._elements)
            self._elements.clear()
            self._changed.notify_all()
            return taken or None

    def abandon(self) -> None:
        """Program: take nothing more."""
        with self._changed:
            self._abandoned = True
            self._elements.clear()
            self._changed.notify_all()

    def wait_for_end(self) -> None:
        """Program: until nothing more will come."""
        with self._changed:
            self._changed.wait_for(lambda: self._ended)


@dataclass(frozen=True, slots=True)
class CollectSink(Sink):
    """Hands elements to the program, in the process that runs it.

    With checkpoints on (`on_checkpoint`), the engine hands them over when the checkpoint behind them is complete, so
    that a restart within the run does not show them twice; otherwise at once.
    """

    collected: Collected = field(repr=False, compare=False)
    on_checkpoint: bool

    def create_writer(self, context: WriterContext, transaction: Transaction | None) -> SinkWriter:
        return _CollectWriter(self.collected)


class _CollectWriter(SinkWriter):
    def __init__(self, collected: Collected) -> None:
        self._collected = collected

    def write(self, values: Sequence[Any], timestamps: Sequence[int] | None) -> None:
        self._collected.put(values)

    def flush(self) -> None:
        """Nothing to do: what has been written is on its way."""
