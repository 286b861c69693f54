"""A batch: parallel lists of values and timestamps, all from one split; and one of its records, as it was read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol


@dataclass(frozen=True, slots=True)
class OriginalRecord:
    """A record as a source read it.

    `value` is bytes, or None, from Kafka; from another source it is the element itself, and `is_element` is true.
    `timestamp` in ms since the epoch, None: it has none. `topic`, `partition` and `offset` are None outside of Kafka.
    """

    value: Any
    key: bytes | None = None
    headers: Sequence[tuple[str, bytes | None]] = ()
    timestamp: int | None = None
    topic: str | None = None
    partition: int | None = None
    offset: int | None = None
    is_element: bool = False


class Origin(Protocol):
    """Where the records of one batch came from.

    Kept by the reader and consulted only when something has to be named: an error, a dead letter, a position.
    """

    @property
    def split_id(self) -> str:
        """The split that all records of the batch come from."""
        ...

    def describe(self, index: int) -> str:
        """Name record `index` of the batch for an error: topic, partition, offset, and its first bytes."""
        ...

    def record(self, index: int) -> OriginalRecord:
        """Record `index` of the batch as it was read, for a dead letter."""
        ...

    def advance(self, count: int) -> None:
        """Tell the reader that the first `count` records are processed: its position is behind them.

        Positions in a snapshot come from here alone, so that a batch that was cut short is resumed where it was cut.
        """
        ...


@dataclass(slots=True)
class Batch:
    """Some records of one split.

    `values` are what the reader's `deserialize` takes (raw), or plain elements where it has none; their iterator has a
    `__length_hint__`, which names the record at hand. `timestamps` are
    milliseconds since the epoch, one for each value, or None when the source gives none.
    """

    values: Sequence[Any]
    timestamps: Sequence[int] | None
    origin: Origin
