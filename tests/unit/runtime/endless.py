"""A source of whole numbers, unbounded if wanted, and a sink with a transaction in memory."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from headrace.connector import (
    Batch,
    Boundedness,
    DeliveryGuarantee,
    JsonValue,
    Sink,
    SinkWriter,
    Source,
    SourceContext,
    SourceReader,
    Split,
    SplitEnumerator,
    Transaction,
    TransactionContext,
    WriterContext,
)
from headrace.errors import FencedError


@dataclass(frozen=True, slots=True)
class NumberSplit:
    split_id: str
    position: int = 0


@dataclass(frozen=True, slots=True)
class Numbers(Source):
    """0, 1, 2, … in each split; up to `limit` if there is one. `timestamps`: each number is its own."""

    splits: tuple[str, ...] = ("a",)
    limit: int | None = None
    timestamps: bool = False

    @property
    def boundedness(self) -> Boundedness:
        return Boundedness.CONTINUOUS_UNBOUNDED if self.limit is None else Boundedness.BOUNDED

    def create_enumerator(self, context: SourceContext) -> SplitEnumerator:
        return NumberEnumerator(self.splits)

    def create_reader(self, context: SourceContext) -> SourceReader:
        return NumberReader(self)

    def encode_split(self, split: NumberSplit) -> Mapping[str, JsonValue]:
        return {"id": split.split_id, "position": split.position}

    def decode_split(self, data: Mapping[str, Any]) -> NumberSplit:
        return NumberSplit(data["id"], data["position"])


class NumberEnumerator(SplitEnumerator):
    def __init__(self, names: Sequence[str]) -> None:
        self._names = names

    def start(self, restored: Sequence[Split] | None) -> list[Split]:
        known = {split.split_id: split for split in restored or ()}
        return [*known.values(), *(NumberSplit(name) for name in self._names if name not in known)]


@dataclass(slots=True)
class NumberOrigin:
    reader: NumberReader
    split_id: str
    first: int

    def describe(self, index: int) -> str:
        return f"number {self.first + index} of split {self.split_id}"

    def advance(self, count: int) -> None:
        self.reader.done[self.split_id] = self.first + count


class NumberReader(SourceReader):
    def __init__(self, source: Numbers) -> None:
        self._source = source
        self._next: dict[str, int] = {}
        self.done: dict[str, int] = {}

    def add_splits(self, splits: Sequence[Split]) -> None:
        for split in splits:
            assert isinstance(split, NumberSplit)
            self._next[split.split_id] = self.done[split.split_id] = split.position

    def poll(self, max_records: int, timeout_s: float) -> Sequence[Batch]:
        batches = []
        for name, first in self._next.items():
            end = first + max_records
            if self._source.limit is not None:
                end = min(end, self._source.limit)
            if end > first:
                values = list(range(first, end))
                times = list(values) if self._source.timestamps else None
                batches.append(Batch(values, times, NumberOrigin(self, name, first)))
                self._next[name] = end
        return batches

    def snapshot(self) -> list[Split]:
        return [NumberSplit(name, position) for name, position in self.done.items()]

    def is_finished(self, split_id: str) -> bool:
        return self._source.limit is not None and self._next[split_id] >= self._source.limit


@dataclass(slots=True)
class Ledger:
    """What a transactional system keeps: committed values and markers, who may write, and what was fenced."""

    values: list[Any] = field(default_factory=list)
    markers: dict[str, str] = field(default_factory=dict)
    owner: dict[str, int] = field(default_factory=dict)
    fenced: list[str] = field(default_factory=list)
    before_commit: Callable[[], None] | None = None


@dataclass(frozen=True, slots=True)
class LedgerSink(Sink):
    """Writes into a `Ledger`, exactly once."""

    ledger: Ledger
    delivery_guarantee = DeliveryGuarantee.EXACTLY_ONCE

    def create_writer(self, context: WriterContext, transaction: Transaction | None) -> SinkWriter:
        assert isinstance(transaction, LedgerTransaction)
        return LedgerWriter(transaction)

    def create_transaction(
        self, sinks: Sequence[Sink], sources: Sequence[Source], context: TransactionContext
    ) -> Transaction:
        return LedgerTransaction(self.ledger, f"{context.job_name}-{context.region}")


class LedgerWriter(SinkWriter):
    def __init__(self, transaction: LedgerTransaction) -> None:
        self._transaction = transaction

    def write(self, values: Sequence[Any], timestamps: Sequence[int] | None) -> None:
        self._transaction.open_values.extend(values)

    def flush(self) -> None:
        pass


class LedgerTransaction(Transaction):
    def __init__(self, ledger: Ledger, transactional_id: str) -> None:
        self._ledger = ledger
        self._id = transactional_id
        self.open_values: list[Any] = []
        self._epoch = 0

    @property
    def location(self) -> Mapping[str, str | int]:
        return {"transactional_id": self._id}

    def fence(self, recorded: Mapping[str, str | int] | None = None) -> None:
        name = self._id if recorded is None else str(recorded["transactional_id"])
        self._ledger.owner[name] = self._ledger.owner.get(name, 0) + 1
        self._ledger.fenced.append(name)
        if name == self._id:
            self._epoch = self._ledger.owner[name]

    def read_marker(self, recorded: Mapping[str, str | int] | None = None) -> str | None:
        return self._ledger.markers.get(self._id if recorded is None else str(recorded["transactional_id"]))

    def commit(self, marker: str) -> None:
        if self._ledger.before_commit is not None:
            self._ledger.before_commit()
        if self._ledger.owner[self._id] != self._epoch:
            raise FencedError(f"{self._id} belongs to another producer")
        self._ledger.values += self.open_values
        self._ledger.markers[self._id] = marker
        self.open_values.clear()

    def close(self) -> None:
        self.open_values.clear()
