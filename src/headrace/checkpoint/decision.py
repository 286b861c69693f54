"""The decision what to restore: plain functions over what the folder holds and what the markers say.

*Theory of operation.* Nothing that a dead copy left open is ever resumed. A region's transaction makes records visible
together with a marker, or not at all; the snapshot that the marker names was durable before. So once every producer of
an earlier copy is shut out and everything it left is settled, markers and folder do not change any more, and say
exactly what happened. Every start, of whatever kind, is one path:

1. lock the folder and `read` it;
2. announce that, fence every id of this run's and every other one that `transactions_to_fence` names, then read the
   markers of the recorded and of the own regions;
3. read the folder again; if `needs_reread`, go back to 2: another copy moved on before it was fenced, and pruned;
4. `decide`; `next_id`; resolve, redistribute, and write the result as the BASELINE of a new epoch;
5. commit that baseline's marker in each region, its claim, and begin to read.

*What `decide` restores*, for each region that the newest manifest records:

| newest manifest | the region's marker | restored |
|---|---|---|
| none | none | nothing: a fresh start |
| none | any | refused: the folder was lost. `--fresh` |
| FINISHED | not asked | nothing to do |
| BASELINE | none, its own, or older | the baseline |
| COMMITTED | none, its own, or older | the checkpoint: the flag is the proof |
| PREPARED | its own | the checkpoint |
| PREPARED | its predecessor's | the predecessor: the transaction was aborted, its records are produced again |
| PREPARED | none | refused: nobody knows. `--assume-committed`, `--assume-aborted` |
| PREPARED | older than the predecessor | refused: the cluster has gone back in time. The same options |
| any | newer than the newest manifest | refused: the folder has gone back in time. The same options |
| any | of another incarnation | refused: a copy with another folder ran since. The same options |
| any | the region has no transactional writer | the newest manifest |

An unflagged PREPARED checkpoint of one region may be decided differently from its neighbour's: nothing flows between
regions.

*Why an unexpected marker is refused.* Behind the second reading of the folder, a PREPARED checkpoint's region can only
hold its own marker or its predecessor's: its copy had claimed the region, no older producer can write any more, and a
newer one writes only after its own baseline, which would then be the newest manifest. Anything else means that folder
and cluster do not belong together, and any choice may lose or repeat records.

*Other incarnations.* An incarnation is drawn when a folder's history begins (a first start, or `--fresh`). Its markers
are expected in the regions of the baseline that superseded it, until they are claimed; that baseline lists them, and
their epochs are lower, as `next_id` goes above every marker seen. Any other foreign marker was written by a copy that
works with another folder, or by a `--fresh` start whose folder was lost.

*Failures while running*

| what | before the checkpoint is PREPARED | behind it |
|---|---|---|
| a worker of several is lost | `on_lane_lost`: it comes back alone | the same, if it has done its part |
| a task fails otherwise | start again | finish the commit, then start again |
| a file cannot be written, no producer error | keep the transaction, the next checkpoint commits both | start again |
| producer error, or a transaction lost | start again: the markers decide | start again: the markers decide |
| outcome of a commit unknown | – | ask again until it settles |
| fenced or the epoch taken, before the own claim | back off for a random while, start over | – |
| fenced or the epoch taken, later | `on_fenced` | `on_fenced` |
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import TypeAlias, assert_never

from headrace.checkpoint.folder import FolderContents, Status
from headrace.checkpoint.manifest import Location, Manifest, RegionSnapshot
from headrace.checkpoint.marker import Marker, SnapshotId

Markers: TypeAlias = Mapping[str, Marker | None]
"""Each region's marker, None where there is none."""


class Assume(Enum):
    """What the user says about a commit that nobody can prove: `--assume-committed`, `--assume-aborted`."""

    COMMITTED = "committed"
    ABORTED = "aborted"


@dataclass(frozen=True, slots=True)
class StartFresh:
    """Begin a new history, with a new incarnation."""


@dataclass(frozen=True, slots=True)
class Restore:
    """Begin from these snapshots, one for each region that `newest` records.

    `sources` says which manifest each region's snapshot is from. `fallen_back` are the regions whose last transaction
    was aborted: its records are produced again.
    """

    newest: Manifest
    regions: Mapping[str, RegionSnapshot]
    sources: Mapping[str, SnapshotId]

    @property
    def fallen_back(self) -> tuple[str, ...]:
        return tuple(region for region, source in self.sources.items() if source != self.newest.id)


@dataclass(frozen=True, slots=True)
class AlreadyFinished:
    """The job has reached its end before."""

    manifest: Manifest


@dataclass(frozen=True, slots=True)
class Refuse:
    """Nothing can be begun without losing or repeating records, or without the user's word; `reason` says which."""

    reason: str


Decision = StartFresh | Restore | AlreadyFinished | Refuse


def transactions_to_fence(
    contents: FolderContents, own: Iterable[Location], *, fresh: bool = False
) -> tuple[Location, ...]:
    """The recorded transactions to shut out behind the run's `own`.

    They are those of the newest manifest: older ones were shut out when it began. A fresh start takes those of every
    manifest, as it may have to begin over a folder whose newest one cannot be read.
    """
    own = [dict(location) for location in own]
    found: list[Location] = []
    for manifest in contents.manifests if fresh else contents.manifests[-1:]:
        recorded = [region.location for region in manifest.regions.values() if region.location is not None]
        for location in (*manifest.transactions, *recorded):
            if dict(location) not in own and location not in found:
                found.append(location)
    return tuple(found)


def is_same_transaction(one: Location, other: Location) -> bool:
    """Whether two locations name one transactional id of one cluster, wherever their markers are kept."""
    return all(one.get(part) == other.get(part) for part in ("cluster_id", "transactional_id"))


def needs_reread(before: FolderContents, after: FolderContents) -> bool:
    """Whether another copy added a manifest while markers were read, so that everything has to be asked again."""
    return _newest_key(before) < _newest_key(after) or _id(before.newest) != _id(after.newest)


def decide(
    contents: FolderContents,
    recorded: Markers,
    own: Markers,
    *,
    fresh: bool = False,
    assume: Assume | None = None,
    chosen: Manifest | None = None,
) -> Decision:
    """What to restore; see the table above.

    `recorded` holds the marker of each region that the newest manifest records with a location, read there; `own` that
    of each region that this run will write. `chosen` is the snapshot that `--from` names: the user's word that what
    came after it may be produced again.
    """
    newest = contents.newest
    if chosen is not None:
        return Restore(chosen, chosen.regions, dict.fromkeys(chosen.regions, chosen.id))
    if fresh:
        return StartFresh()
    for damaged in contents.damaged:
        if newest is None or (damaged.epoch, damaged.number) > _key(newest.id):
            return Refuse(
                f"the newest snapshot cannot be used: {damaged.problem}. Older ones are never taken silently, as that "
                "repeats records"
            )
    if newest is None:
        left = next(((region, marker) for region, marker in own.items() if marker is not None), None)
        return StartFresh() if left is None else Refuse(_lost_folder(*left))
    if contents.status(newest) is Status.FINISHED:
        return AlreadyFinished(newest)
    for region, marker in own.items():
        if region not in recorded and assume is None and marker is not None and _is_ahead(newest, marker):
            return Refuse(_folder_behind(region, newest, marker))

    regions: dict[str, RegionSnapshot] = {}
    sources: dict[str, SnapshotId] = {}
    for region, snapshot in newest.regions.items():
        verdict = _decide_region(contents, newest, region, snapshot, recorded.get(region), assume)
        match verdict:
            case Refuse():
                return verdict
            case Manifest():
                regions[region] = verdict.regions[region]
                sources[region] = verdict.id
            case _:
                assert_never(verdict)
    return Restore(newest, regions, sources)


def next_id(contents: FolderContents, markers: Iterable[Marker | None], attempt: str) -> SnapshotId:
    """The id of the baseline to write: above every manifest, readable or not, and every marker seen."""
    seen = [marker.snapshot for marker in markers if marker is not None]
    seen += [manifest.id for manifest in contents.manifests]
    epoch = max([at.epoch for at in seen] + [damaged.epoch for damaged in contents.damaged], default=0)
    number = max([at.number for at in seen] + [damaged.number for damaged in contents.damaged], default=0)
    return SnapshotId(epoch + 1, number + 1, attempt)


def superseded(contents: FolderContents, markers: Iterable[Marker | None], incarnation: str) -> tuple[str, ...]:
    """The other incarnations whose markers may stand in a baseline's regions until it has claimed them."""
    found = {marker.incarnation for marker in markers if marker is not None}
    if contents.newest is not None:
        found |= {contents.newest.incarnation, *contents.newest.superseded}
    return tuple(sorted(found - {incarnation}))


@dataclass(frozen=True, slots=True)
class OtherCopy:
    """A newer copy of the job has taken over: stop, and do not come back.

    `continues` says whether it went on from this copy's snapshots, or works with another folder.
    """

    snapshot: SnapshotId
    continues: bool = True


@dataclass(frozen=True, slots=True)
class TimedOut:
    """Nobody took over: the transaction's time ran out. Recover; nothing is lost."""


@dataclass(frozen=True, slots=True)
class LookAgain:
    """Nobody has claimed yet, but may be about to: read the markers again within `wait_ms`."""

    wait_ms: int


@dataclass(frozen=True, slots=True)
class BackOff:
    """Fenced before the own claim: another copy is starting too. Wait for a random while and start over."""


def on_lane_lost(last: Manifest, prepared: Manifest | None, markers: Markers) -> Manifest | None:
    """From which snapshot a lane goes on whose worker was lost, while the others go on; None: all start again.

    `last` is the last snapshot that every region committed, `prepared` a checkpoint that some may have; `markers` are
    those of the lane's own regions, read when the lost worker was shut out.

    A lane that lost the transaction of a prepared checkpoint cannot go on alone: its neighbours stand behind it, and no
    later checkpoint could say from where each region comes. A start can.
    """
    newest = prepared or last
    return newest if all(marker == newest.marker for marker in markers.values()) else None


def on_fenced(
    own: Marker, markers: Iterable[Marker | None], *, claimed: bool, waited_ms: int, grace_ms: int = 5_000
) -> OtherCopy | TimedOut | LookAgain | BackOff:
    """What it means to be fenced: a newer copy and a transaction that timed out look the same to the producer.

    `markers` are those of the own regions, read without initialising anything; `claimed` says whether the own claims
    are all made. The newer copy may be between its initialising and its claim, hence the grace.
    """
    if not claimed:
        return BackOff()
    for marker in markers:
        if marker is not None and marker.snapshot.attempt != own.snapshot.attempt:
            return OtherCopy(marker.snapshot, marker.incarnation == own.incarnation)
    if waited_ms < grace_ms:
        return LookAgain(grace_ms - waited_ms)
    return TimedOut()


def _decide_region(
    contents: FolderContents,
    newest: Manifest,
    region: str,
    snapshot: RegionSnapshot,
    marker: Marker | None,
    assume: Assume | None,
) -> Manifest | Refuse:
    """The manifest from which one region is restored."""
    if snapshot.location is None or marker == newest.marker:
        return newest
    proven = contents.status(newest) is not Status.PREPARED
    before = contents.find(newest.predecessor)
    if marker is None:
        if proven:
            return newest
        doubt = _no_marker(region, newest)
    elif marker.incarnation != newest.incarnation:
        if proven and marker.incarnation in newest.superseded and marker.snapshot.epoch < newest.id.epoch:
            return newest
        doubt = _foreign(region, newest, marker)
    elif _is_ahead(newest, marker):
        doubt = _folder_behind(region, newest, marker)
    elif proven:
        return newest
    elif marker.snapshot == newest.predecessor:
        return _predecessor(contents, newest, before)
    else:
        doubt = _cluster_behind(region, newest, marker)
    match assume:
        case None:
            return Refuse(doubt)
        case Assume.COMMITTED:
            return newest
        case Assume.ABORTED:
            return newest if proven else _predecessor(contents, newest, before)
        case _:
            assert_never(assume)


def _predecessor(contents: FolderContents, newest: Manifest, before: Manifest | None) -> Manifest | Refuse:
    if before is not None:
        return before
    problem = "; ".join(damaged.problem for damaged in contents.damaged) or "its file is missing"
    return Refuse(
        f"checkpoint {newest.id} was not committed everywhere, and what it falls back to, {newest.predecessor}, "
        f"cannot be read: {problem}. Restore the file from a copy, start from another snapshot with `--from`, or "
        "start over with `--fresh`; both repeat records"
    )


def _is_ahead(newest: Manifest, marker: Marker) -> bool:
    return marker.incarnation == newest.incarnation and marker.snapshot > newest.id


def _key(at: SnapshotId) -> tuple[int, int]:
    return (at.epoch, at.number)


def _id(manifest: Manifest | None) -> SnapshotId | None:
    return None if manifest is None else manifest.id


def _newest_key(contents: FolderContents) -> tuple[int, int]:
    keys = [(damaged.epoch, damaged.number) for damaged in contents.damaged]
    return max(keys + ([] if contents.newest is None else [_key(contents.newest.id)]), default=(0, 0))


def _choices(newest: Manifest) -> str:
    return (
        f"Choose: `--assume-committed` (`headrace.assume: committed`) continues behind snapshot {newest.id.number}, "
        "and loses its records if it was not committed; `--assume-aborted` (`headrace.assume: aborted`) produces "
        "its records again, and repeats them if it was; `--fresh` (`headrace.fresh`) starts over, and repeats "
        "everything"
    )


def _lost_folder(region: str, marker: Marker) -> str:
    return (
        f"the checkpoint folder is empty, but region {region!r} holds a marker of this job, of snapshot "
        f"{marker.snapshot}: the folder was lost, or this is another folder. Starting over repeats the records "
        "written before. Restore the folder, point `execution.checkpointing.dir` to it, name a snapshot with "
        "`--from`, or accept the repetition with `--fresh` (`headrace.fresh`)"
    )


def _no_marker(region: str, newest: Manifest) -> str:
    return (
        f"nobody knows whether checkpoint {newest.id} was committed in region {region!r}: its marker is gone (the "
        f"group's offsets expired, or group or topic were deleted). {_choices(newest)}"
    )


def _foreign(region: str, newest: Manifest, marker: Marker) -> str:
    return (
        f"region {region!r} was last written by a copy of this job with another checkpoint folder (incarnation "
        f"{marker.incarnation}, snapshot {marker.snapshot}), after snapshot {newest.id} of this one. Continuing from "
        f"here repeats what that copy wrote; use its folder instead, if it is still there. {_choices(newest)}"
    )


def _folder_behind(region: str, newest: Manifest, marker: Marker) -> str:
    return (
        f"region {region!r} has committed snapshot {marker.snapshot}, but the newest in the checkpoint folder is "
        f"{newest.id}: files were removed from the folder, or it is an old copy. Continuing from here repeats what was "
        f"written since; restore the missing files, if they exist. {_choices(newest)}"
    )


def _cluster_behind(region: str, newest: Manifest, marker: Marker) -> str:
    return (
        f"region {region!r} holds the marker of snapshot {marker.snapshot}, older than {newest.predecessor}, which "
        f"it had committed before checkpoint {newest.id}: the cluster has lost offsets, or is a copy that was behind. "
        f"{_choices(newest)}"
    )
