"""What coordinator and workers say to each other. They share nothing else.

All messages are frozen values that can be pickled. The coordinator asks in pairs while it starts (`Fence` → `Fenced`,
…); from `Run` on each side speaks when it has something to say. There is one worker for each lane; what is said to all
of them is answered by each.

| coordinator → worker | worker → coordinator |
|---|---|
| `Fence` | `Fenced(locations)` |
| `FenceRecorded(recorded)` | `Fenced(locations)` |
| `ReadMarkers(recorded)` | `MarkersRead(markers)` |
| `Deploy(sources, operators)` | `Deployed` |
| `Commit(number, marker)`: a baseline's claim, or a checkpoint | `Committed(region, number)` for each region |
| `Run` | `InputEnded` when every bounded source has been read to its end |
| `AddSplits(operator, splits)`, to the lane that is to read them | – |
| `AlignWatermarks(behind)` | `WatermarksReached(groups)`, every update interval of the lane's alignment groups |
| `TriggerCheckpoint(id)` | `Acknowledged(number, regions)`, or `Declined(number, reason)` |
| `CheckpointAborted(number)` | – |
| `CheckpointComplete(number)` | – |
| `Close` | `Failed(error)`, at any time |
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from headrace.checkpoint.manifest import OperatorSnapshot, RegionSnapshot
from headrace.checkpoint.marker import SnapshotId
from headrace.connector import JsonValue

Location = Mapping[str, str | int]
"""`Transaction.location`: where a marker is kept and under which transactional id."""


@dataclass(frozen=True, slots=True)
class Fence:
    """Shut out every older producer of this worker's own regions."""


@dataclass(frozen=True, slots=True)
class FenceRecorded:
    """Shut out every producer of these transactions, which no lane has as its own any more.

    With `is_fresh` those that cannot be reached any more are passed over with a warning.
    """

    recorded: tuple[Location, ...]
    is_fresh: bool = False


@dataclass(frozen=True, slots=True)
class Fenced:
    """Done; `locations` are those of the worker's own regions (None: the region has no transaction)."""

    locations: Mapping[str, Location | None]


@dataclass(frozen=True, slots=True)
class ReadMarkers:
    """Read the markers of the worker's own regions and at these locations; `is_fresh` as in `FenceRecorded`."""

    recorded: tuple[Location, ...] = ()
    is_fresh: bool = False


@dataclass(frozen=True, slots=True)
class MarkersRead:
    """Transactional id → what its marker says, or None where there is none."""

    markers: Mapping[str, str | None]


@dataclass(frozen=True, slots=True)
class Deploy:
    """Open all operators, with this state and these splits. Keys are operator ids.

    `sources` says for each of the lane's regions which snapshot, by number, that is from.
    """

    sources: Mapping[str, int]
    operators: Mapping[str, OperatorSnapshot]


@dataclass(frozen=True, slots=True)
class Deployed:
    """Everything is open; nothing has been read."""


@dataclass(frozen=True, slots=True)
class Commit:
    """Commit, in every region, what belongs to snapshot `number`, together with `marker`."""

    number: int
    marker: str


@dataclass(frozen=True, slots=True)
class Committed:
    """One region has committed snapshot `number`."""

    region: str
    number: int


@dataclass(frozen=True, slots=True)
class Run:
    """Begin to read."""


@dataclass(frozen=True, slots=True)
class InputEnded:
    """Everything has been read and processed, and written as far as the client goes.

    `additions` is how many `AddSplits` the worker had heard of: one that is still under way is not part of it.
    """

    additions: int = 0


@dataclass(frozen=True, slots=True)
class AddSplits:
    """Read these new splits as well."""

    operator: str
    splits: Mapping[str, Mapping[str, JsonValue]]
    """Encoded, by split id."""


@dataclass(frozen=True, slots=True)
class WatermarksReached:
    """Where the split furthest behind is, for each of the lane's alignment groups; None: all are idle, or over."""

    groups: Mapping[str, int | None]


@dataclass(frozen=True, slots=True)
class AlignWatermarks:
    """For each alignment group where it is furthest behind, in all lanes (None: nowhere): splits too far ahead of that
    are to be paused."""

    behind: Mapping[str, int | None]


@dataclass(frozen=True, slots=True)
class TriggerCheckpoint:
    """Take this snapshot of everything, and flush the writers; behind one that `is_final` nothing will be written."""

    id: SnapshotId
    is_final: bool = False


@dataclass(frozen=True, slots=True)
class Acknowledged:
    """The worker's part of snapshot `number`: its files are durable, its writers flushed.

    With a transaction the worker reads nothing more until it hears `Commit` or `CheckpointAborted`: what it wrote
    meanwhile would be committed with this snapshot, and is behind it.
    """

    number: int
    regions: Mapping[str, RegionSnapshot]


@dataclass(frozen=True, slots=True)
class Declined:
    """Snapshot `number` could not be written; what writers hold stays, and goes with the next one."""

    number: int
    reason: str


@dataclass(frozen=True, slots=True)
class CheckpointComplete:
    """Snapshot `number` is committed in every region."""

    number: int


@dataclass(frozen=True, slots=True)
class CheckpointAborted:
    """Snapshot `number` was given up before anybody was to commit it; what writers hold goes with the next one."""

    number: int


@dataclass(frozen=True, slots=True)
class Close:
    """Close everything without committing."""


@dataclass(frozen=True, slots=True)
class Failed:
    """The worker cannot go on."""

    error: BaseException


ToStart = Fence | FenceRecorded | ReadMarkers | Deploy
ToWorker = (
    ToStart
    | Commit
    | Run
    | AddSplits
    | AlignWatermarks
    | TriggerCheckpoint
    | CheckpointAborted
    | CheckpointComplete
    | Close
)
ToCoordinator = (
    Fenced | MarkersRead | Deployed | Committed | InputEnded | WatermarksReached | Acknowledged | Declined | Failed
)
