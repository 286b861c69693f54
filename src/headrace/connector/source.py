"""What a source is: a frozen value that makes an enumerator for the coordinator and readers for the workers.

After FLIP-27, with two simplifications: splits are resolved by the enumerator, so that what a reader gets can be stored
(a `latest` that is resolved twice loses records, FLINK-28303); and "assigned" is never stored, but read off the
readers' splits, so that no split is forgotten between the two.
"""

from __future__ import annotations

import zlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Protocol, TypeAlias

from headrace.common.refusal import not_supported
from headrace.connector.batch import Batch
from headrace.errors import ExternalError
from headrace.metrics.metricbase import MetricGroup
from headrace.metrics.registry import Row, unreported

JsonValue: TypeAlias = "str | int | float | bool | list[JsonValue] | dict[str, JsonValue] | None"


class Boundedness(Enum):
    """Whether a source ends by itself."""

    BOUNDED = "BOUNDED"
    CONTINUOUS_UNBOUNDED = "CONTINUOUS_UNBOUNDED"


class Split(Protocol):
    """A part of a source with a position. Frozen; a new position is a new value."""

    @property
    def split_id(self) -> str: ...


@dataclass(frozen=True, slots=True)
class SourceContext:
    """What a reader or an enumerator may know of the job it serves."""

    job_name: str
    operator_name: str
    subtask: int
    parallelism: int
    commits_offsets: bool
    """Whether checkpoints are on, so that offsets are committed when one completes."""
    metrics: MetricGroup = field(default_factory=unreported, compare=False, repr=False)
    is_reported: bool = False
    """Whether somebody reads metrics, so that it is worth asking a client for its own."""

    def get_metric_group(self) -> MetricGroup:
        """Where a schema may have metrics of its own."""
        return self.metrics


class SourceChanged(ExternalError):
    """What is read is not what it was: the job has to start again from its last checkpoint, and see what is left."""


class SplitEnumerator(ABC):
    """Finds splits, on the coordinator. Calls may block for as long as the client's own timeouts; they raise
    `ExternalError` when the outside does not answer."""

    discovery_interval_ms: int | None = None
    """How often `discover` is to be called; None: never."""

    @abstractmethod
    def start(self, restored: Sequence[Split] | None) -> list[Split]:
        """All splits to read, each resolved to a position that can be stored.

        `restored` is None at a fresh start. Otherwise it holds the readers' splits of the snapshot (also those that
        this program no longer subscribes to), which are returned as they are, together with what is new since. They
        are all there is to know: an enumerator has no state of its own.
        """

    def discover(self) -> list[Split]:
        """Splits that are new since the last call, resolved."""
        return []

    def lane_of(self, split: Split, loads: Sequence[int]) -> int:
        """Which reader gets a split that no reader has had before; `loads` says how many each of them has."""
        return zlib.crc32(split.split_id.encode()) % len(loads)

    def close(self) -> None:
        """Release clients. May be called twice."""


class SourceReader(ABC):
    """Reads splits, on a worker. Used from one thread."""

    deserialize: Callable[[Any], Any] | None = None
    """Turns one of a batch's values into an element; the engine fuses it into the chain. None: values are elements."""

    gives_many: bool = False
    """Whether `deserialize` gives an iterable of elements instead, or None for none."""

    skips: bool = False
    """Whether None that `deserialize` makes of a value is no element. One that `gives_many` never does."""

    @abstractmethod
    def add_splits(self, splits: Sequence[Split]) -> None:
        """Read these too, each from its position."""

    @abstractmethod
    def poll(self, max_records: int, timeout_s: float) -> Sequence[Batch]:
        """Batches of at most `max_records` records in all, each of one split; waits at most `timeout_s` for the first.

        The engine processes all of them before it polls again. Without any unfinished split it waits for the whole of
        `timeout_s` and gives nothing.
        """

    @abstractmethod
    def snapshot(self) -> list[Split]:
        """Every split added so far, also finished ones, at its position (see `Origin.advance`)."""

    @abstractmethod
    def is_finished(self, split_id: str) -> bool:
        """Whether the split has reached its end and will give nothing more."""

    def is_caught_up(self, split_id: str) -> bool:
        """Whether everything that the split holds at this moment has been handed out, so that it may count as idle.

        A split whose turn has not come is not idle.
        """
        return True

    def pause_or_resume_splits(self, splits_to_pause: Iterable[str], splits_to_resume: Iterable[str]) -> None:
        """Give nothing more of these splits, until they are resumed; those that are finished are passed over.

        Only a source whose readers can is read with watermark alignment.
        """
        raise not_supported(
            "with_watermark_alignment on this source", "leave it out: its splits cannot be paused one by one"
        )

    def lag(self) -> int | None:
        """How many records are known to be there that were not handed out yet; None: nobody knows. Asks nobody."""
        return None

    def metrics(self) -> Iterable[Row]:
        """What the reader counts besides, for a reporter; called between two steps, once a second. Asks nobody."""
        return ()

    def notify_checkpoint_complete(self, splits: Sequence[Split]) -> None:
        """These positions are part of a completed checkpoint: report progress outside, if the source does so.

        Must neither block nor raise for a failed report: it is logged.
        """

    def close(self) -> None:
        """Release clients. May be called twice."""


class Source(ABC):
    """A source, as a value in the plan: frozen, picklable, without any client inside."""

    @property
    @abstractmethod
    def boundedness(self) -> Boundedness:
        """Whether the source ends by itself once its splits are read."""

    @property
    def ends(self) -> bool:
        """Whether reading is over once every split is at its end; also true of an unbounded one with stop offsets."""
        return self.boundedness is Boundedness.BOUNDED

    @property
    def is_parallel(self) -> bool:
        """Whether more than one subtask can read it."""
        return True

    @abstractmethod
    def create_enumerator(self, context: SourceContext) -> SplitEnumerator: ...

    @abstractmethod
    def create_reader(self, context: SourceContext) -> SourceReader: ...

    @abstractmethod
    def encode_split(self, split: Any) -> Mapping[str, JsonValue]:
        """The split as JSON values, for a manifest."""

    @abstractmethod
    def decode_split(self, data: Mapping[str, JsonValue]) -> Split:
        """The inverse of `encode_split`; raises `StateError` for what it cannot read."""
