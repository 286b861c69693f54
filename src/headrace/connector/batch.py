"""A batch: parallel lists of values and timestamps, all from one split."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol


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
