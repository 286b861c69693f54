"""The coordinator: one attempt at running a job, and its checkpoints.

Theory of operation. After the `headrace.runtime.start` the coordinator only answers: `handle` takes what workers say,
`tick` does what is due. A checkpoint goes

    TriggerCheckpoint → Acknowledged by all → manifest PREPARED → Commit → Committed in all regions → flag COMMITTED
    → CheckpointComplete (offsets to the group) → prune

with at most one in flight. Up to PREPARED it can be given up at no cost, as writers keep what they hold and the next
checkpoint commits both; behind it, it is finished, or the job starts again.

Each lane has a worker, and its regions are its own. So a lane whose worker is lost (`lose`) comes back alone, from the
last checkpoint, while the others go on reading; no checkpoint begins meanwhile. What it takes to come back,

    a new process → Fence → Fenced → ReadMarkers → MarkersRead → `on_lane_lost` → Deploy → Deployed → Run

is a matter of messages too, so nothing waits for it. A lane that is lost during a commit and finds its part done takes
up the checkpoint under way; if its part did not come about, the whole job starts again (`LaneCannotRejoin`).

Invariants. A manifest is durable before any region commits it. A number is used once. Nothing here touches a client:
the workers do, and the enumerators, which are asked for new splits in a thread of their own as their calls block.

Who calls this: `headrace.runtime.job`, in one thread.
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, assert_never

from headrace.checkpoint.decision import (
    AlreadyFinished,
    Assume,
    BackOff,
    LookAgain,
    OtherCopy,
    TimedOut,
    on_fenced,
    on_lane_lost,
)
from headrace.checkpoint.manifest import Kind, Manifest, RegionSnapshot
from headrace.checkpoint.marker import Marker, SnapshotId
from headrace.checkpoint.storage import CheckpointFolder, EpochTaken, Snapshot
from headrace.connector import JsonValue, Source, SourceChanged, Split
from headrace.crash_points import crash_point
from headrace.errors import ExternalError, HeadraceError, InternalError, StateError
from headrace.plan.graph import Plan, ReadSource
from headrace.plan.identity import operator_ids
from headrace.runtime.job_meters import CheckpointCounts
from headrace.runtime.link import LaneFailed, Link, ask, tell
from headrace.runtime.messages import (
    Acknowledged,
    AddSplits,
    AlignWatermarks,
    CheckpointAborted,
    CheckpointComplete,
    Commit,
    Committed,
    Declined,
    Deployed,
    Failed,
    Fence,
    Fenced,
    InputEnded,
    MarkersRead,
    ReadMarkers,
    Run,
    ToCoordinator,
    TriggerCheckpoint,
    WatermarksReached,
)
from headrace.runtime.settings import Settings
from headrace.runtime.start import Start, decode_markers

log = logging.getLogger("headrace")

FENCING_GRACE_MS = 5_000
"""How long a fenced copy waits for the claim of a newer one, before it takes its transaction for timed out."""


class CheckpointFailed(HeadraceError):
    """More checkpoints failed in a row than `execution.checkpointing.tolerable-failed-checkpoints` allows."""


class LaneCannotRejoin(ExternalError):
    """A lane was lost with its part of a commit, or while another copy starts; the whole job has to start again."""


@dataclass(slots=True)
class _InFlight:
    """The checkpoint under way. `acknowledged` holds what each lane has sent; `manifest` is None until all have.

    Behind one that `is_final` the job ends, with the input if `is_end` and not by a stop.
    """

    id: SnapshotId
    started_at: float
    is_final: bool
    is_end: bool
    savepoint: Path | None
    acknowledged: dict[int, Mapping[str, RegionSnapshot]] = field(default_factory=dict)
    manifest: Manifest | None = None
    uncommitted: set[str] = field(default_factory=set)


@dataclass(slots=True)
class _Away:
    """A lane that is lost; `manifest` is what it comes back from, once that is decided."""

    due: float
    is_coming: bool = False
    manifest: Manifest | None = None


class Coordinator:
    """One attempt at running a job."""

    def __init__(
        self,
        plan: Plan,
        settings: Settings,
        folder: CheckpointFolder,
        link: Link,
        *,
        chosen: Snapshot | None = None,
        fresh: bool = False,
        assume: Assume | None = None,
        counts: CheckpointCounts | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.plan = plan
        self.is_done = False
        self.finished_before: AlreadyFinished | None = None
        self.completed: Manifest | None = None
        self.counts = CheckpointCounts() if counts is None else counts
        self._last_savepoint: Path | HeadraceError | None = None
        self._settings = settings
        self._folder = folder
        self._link = link
        self._start = Start(plan, settings, folder, link, chosen=chosen, fresh=fresh, assume=assume)
        self._clock = clock
        ids = operator_ids(plan)
        self._sources = {
            ids[node.id]: (node, node.operator.source) for node in plan if isinstance(node.operator, ReadSource)
        }
        self._next_discovery: dict[str, float] = {}
        self._discoveries: dict[str, Future[list[Any]]] = {}
        self._threads = ThreadPoolExecutor(max_workers=1, thread_name_prefix="headrace-discovery")
        self._baseline: Manifest | None = None
        self._last: Manifest | None = None
        self._number = 0
        self._in_flight: _InFlight | None = None
        self._next_checkpoint: float | None = None
        self._failures = 0
        self._ended: set[int] = set()
        self._added: Counter[int] = Counter()
        self._away: dict[int, _Away] = {}
        self._discovered: list[tuple[int, AddSplits]] = []
        self._reached: dict[int, Mapping[str, int | None]] = {}
        self._stopping = False
        self._savepoint_request: Path | None = None
        self._ends_with_savepoint = False

    def start(self) -> None:
        """Begin; afterwards the workers read, or `is_done` is set as the job has finished before."""
        begun = self._start.run()
        if isinstance(begun, AlreadyFinished):
            self.finished_before = begun
            self.is_done = True
            return
        self._baseline = self._last = begun
        self._number = begun.id.number
        self._prune(begun)
        now = self._clock()
        interval = self._settings.checkpoint_interval_ms
        self._next_checkpoint = None if interval is None else now + interval / 1000
        for operator_id, enumerator in self._start.enumerators.items():
            if enumerator.discovery_interval_ms is not None:
                self._next_discovery[operator_id] = now + enumerator.discovery_interval_ms / 1000
        tell(self._link, Run())

    @property
    def has_baseline(self) -> bool:
        """Whether what the start was asked to begin with is durable, so that a restart goes on from there."""
        return self._start.baseline is not None

    def stop(self) -> None:
        """End with a last checkpoint, without MAX_WATERMARK; what SIGTERM asks for."""
        self._stopping = True

    def request_savepoint(self, path: Path, *, is_last: bool = False) -> None:
        """Write a savepoint with the next checkpoint, and let that be soon. `is_last`: the job ends for its sake, and
        has failed without it."""
        self._savepoint_request = path
        self._ends_with_savepoint = is_last

    def take_savepoint(self) -> Path | HeadraceError | None:
        """The savepoint written since the last call, or why it was not; None: there is none yet."""
        taken, self._last_savepoint = self._last_savepoint, None
        return taken

    def handle(self, lane: int, message: ToCoordinator) -> None:
        """Take in what a lane's worker says. Raises `LaneFailed` for one that cannot go on."""
        match message:
            case Declined(number, reason):
                if self._in_flight is not None and self._in_flight.id.number == number:
                    self._give_up(reason)
            case Acknowledged(number, snapshots):
                if self._in_flight is not None and self._in_flight.id.number == number:
                    self._in_flight.acknowledged[lane] = snapshots
                    if len(self._in_flight.acknowledged) == self._link.lanes:
                        self._prepare(self._in_flight)
            case Committed(region, number):
                if self._in_flight is not None and self._in_flight.id.number == number:
                    self._committed(self._in_flight, [region])
            case InputEnded(additions):
                if additions == self._added[lane]:
                    self._ended.add(lane)
            case WatermarksReached(groups):
                self._reached[lane] = groups
                tell(self._link, AlignWatermarks({group: self._behind(group) for group in groups}))
            case Failed(error):
                raise LaneFailed(lane, error)
            case Fenced() | MarkersRead() | Deployed():
                if lane not in self._away:
                    raise InternalError(f"{type(message).__name__} was not asked for")
                self._bring_back(lane, self._away[lane], message)
            case _:
                assert_never(message)

    def lose(self, lane: int, delay_s: float) -> None:
        """Go on without a lane, and have it back in a while; at once if the job is to stop."""
        self._away[lane] = _Away(self._clock() + (0 if self._stopping else delay_s))
        self._link.let_go(lane)
        self._ended.discard(lane)
        self._added[lane] = 0
        if self._in_flight is not None and self._in_flight.manifest is None:
            # The others keep what they have written, and the next checkpoint commits it.
            self._savepoint_request = self._in_flight.savepoint or self._savepoint_request
            tell(self._link, CheckpointAborted(self._in_flight.id.number))
            self._in_flight = None
            self.counts.give_up()

    def tick(self) -> None:
        """Do what is due: discovery, a checkpoint's start or timeout."""
        now = self._clock()
        self._discover(now)
        for lane, away in self._away.items():
            if not away.is_coming and (now >= away.due or self._stopping) and self._link.is_gone(lane):
                away.is_coming = True
                self._link.restart(lane)
                self._link.send(Fence(), lane)
        flight = self._in_flight
        if flight is not None:
            waited_ms = (now - flight.started_at) * 1000
            if flight.manifest is None and waited_ms > self._settings.checkpoint_timeout_ms:
                self._give_up(f"not acknowledged within {self._settings.checkpoint_timeout_ms} ms")
            return
        if self._away:
            return
        is_final = self._has_ended or self._stopping
        is_due = self._next_checkpoint is not None and now >= self._next_checkpoint
        # A savepoint is taken at once; one that failed waits like any checkpoint, or would use up all that may fail.
        is_asked_for = self._savepoint_request is not None and not self._failures
        if is_final or is_due or is_asked_for:
            self._trigger(now, is_final=is_final)

    def seconds_until_due(self) -> float:
        """How long `tick` has nothing to do, at most."""
        now = self._clock()
        due = [*self._next_discovery.values()]
        # One that is due and has not gone yet is looked at often enough.
        due += [max(away.due, now + 0.01) for away in self._away.values() if not away.is_coming]
        if self._in_flight is None and self._next_checkpoint is not None and not self._away:
            due.append(self._next_checkpoint)
        return max(0.0, min(due, default=now + 1) - now)

    def is_overtaken(self) -> bool:
        """Whether the folder holds a later epoch than this attempt's. Whatever failed may be that copy's doing: it
        removes what an earlier epoch was writing."""
        baseline = self._start.baseline
        try:
            newest = self._folder.read().newest
        except ExternalError as error:
            log.debug("the folder cannot be asked for a later epoch: %s", error)
            return False
        return baseline is not None and newest is not None and newest.id.epoch > baseline.id.epoch

    def explain_fencing(self, wait: Callable[[float], None]) -> OtherCopy | TimedOut | BackOff:
        """What it means that a region was fenced, or the epoch is over: reads the claims, initialises nothing."""
        baseline = self._start.baseline
        if baseline is None or not self._start.is_claimed:
            return BackOff()
        started_at = self._clock()
        while True:
            markers: list[Marker | None] = []
            for lane in range(self._link.lanes):
                # A worker that is gone knows nothing of its regions; the others do of theirs. What they say besides
                # concerns nobody any more: the attempt is over.
                with contextlib.suppress(LaneFailed):
                    said = ask(self._link, {lane: ReadMarkers()}, MarkersRead, skips_others=True)[lane]
                    markers += decode_markers(said.markers).values()
            if not markers:
                # Nothing to claim, so the folder alone says who works in it.
                newest = self._folder.read().newest
                if newest is None or newest.id.attempt == baseline.id.attempt:
                    return TimedOut()
                return OtherCopy(newest.id, continues=newest.incarnation == baseline.incarnation)
            waited_ms = int((self._clock() - started_at) * 1000)
            verdict = on_fenced(
                baseline.marker, markers, claimed=self._start.is_claimed, waited_ms=waited_ms, grace_ms=FENCING_GRACE_MS
            )
            if not isinstance(verdict, LookAgain):
                return verdict
            wait(min(verdict.wait_ms / 1000, 0.25))

    def close(self) -> None:
        """Release the enumerators' clients. May be called twice."""
        self.counts.give_up()
        self._threads.shutdown(wait=True, cancel_futures=True)
        self._start.close()

    def _discover(self, now: float) -> None:
        for operator_id, future in list(self._discoveries.items()):
            if not future.done():
                continue
            del self._discoveries[operator_id]
            source = self._sources[operator_id][1]
            try:
                splits = future.result()
            except ExternalError as error:
                if not error.retriable or isinstance(error, SourceChanged):
                    raise
                log.warning("looking for new splits of `%s` failed: %s", self._sources[operator_id][0].name, error)
                continue
            if splits:
                log.info("`%s` reads %d new split(s)", self._sources[operator_id][0].name, len(splits))
                self._add_splits(operator_id, source, splits)
        for operator_id, due in self._next_discovery.items():
            interval_ms = self._start.enumerators[operator_id].discovery_interval_ms
            if now >= due and operator_id not in self._discoveries and interval_ms is not None:
                self._next_discovery[operator_id] = now + interval_ms / 1000
                self._discoveries[operator_id] = self._threads.submit(self._start.enumerators[operator_id].discover)

    def _add_splits(self, operator_id: str, source: Source, splits: Sequence[Split]) -> None:
        loads = self._start.loads[operator_id]
        shares: dict[int, dict[str, Mapping[str, JsonValue]]] = {}
        for split in splits:
            lane = self._start.enumerators[operator_id].lane_of(split, loads)
            loads[lane] += 1
            shares.setdefault(lane, {})[split.split_id] = source.encode_split(split)
        for lane, share in shares.items():
            message = AddSplits(operator_id, share)
            # Until a checkpoint holds them, a lane that comes back has to be told again.
            self._discovered.append((lane, message))
            if lane not in self._away:
                self._tell_of_splits(message, lane)

    def _tell_of_splits(self, message: AddSplits, lane: int) -> None:
        self._added[lane] += 1
        self._ended.discard(lane)
        self._link.send(message, lane)

    def _bring_back(self, lane: int, away: _Away, said: Fenced | MarkersRead | Deployed) -> None:
        """A lost lane's new worker has come this far. Raises `LaneCannotRejoin` if it must not go on alone."""
        match said:
            case Fenced():
                crash_point("lane.fenced")
                self._link.send(ReadMarkers(), lane)
            case MarkersRead(markers):
                away.manifest = self._manifest_for(lane, decode_markers(markers))
                self._link.send(self._start.deployment(away.manifest, lane), lane)
            case Deployed():
                assert away.manifest is not None
                for message in self._unheld(away.manifest, lane):
                    self._tell_of_splits(message, lane)
                self._link.send(Run(), lane)
                del self._away[lane]
                log.info("lane %d resumes from checkpoint %s", lane, away.manifest.id)
                if self._in_flight is not None:
                    self._committed(self._in_flight, self._start.regions_of(lane))
            case _:
                assert_never(said)

    def _manifest_for(self, lane: int, markers: Mapping[str, Marker | None]) -> Manifest:
        """What a lost lane comes back from."""
        assert self._last is not None
        # Whoever was about to shut this copy out may just have been shut out by it.
        others = self._folder.announced() - self._start.known
        newest = self._folder.read().newest
        if others or newest is None or newest.id.epoch > self._last.id.epoch:
            raise LaneCannotRejoin(f"lane {lane} was lost, and another copy of the job is starting")
        prepared = None if self._in_flight is None else self._in_flight.manifest
        manifest = on_lane_lost(self._last, prepared, markers)
        if manifest is None:
            raise LaneCannotRejoin(f"lane {lane} was lost while a checkpoint was committed, and did not commit it")
        return manifest

    def _unheld(self, manifest: Manifest, lane: int) -> list[AddSplits]:
        """What a lane was told of splits that the manifest does not hold."""
        operators = self._start.operators_of(manifest, lane)
        return [
            message
            for told, message in self._discovered
            if told == lane and not message.splits.keys() <= operators[message.operator].splits.keys()
        ]

    def _behind(self, group: str) -> int | None:
        """How far the part of an alignment group that is furthest behind has come. A lane that is lost holds the others
        where it was: it comes back behind that."""
        reached = [groups[group] for groups in self._reached.values() if group in groups]
        return min((watermark for watermark in reached if watermark is not None), default=None)

    @property
    def _has_ended(self) -> bool:
        return len(self._ended) == self._link.lanes

    def _trigger(self, now: float, *, is_final: bool) -> None:
        assert self._last is not None
        self._number += 1
        at = replace(self._last.id, number=self._number)
        self._in_flight = _InFlight(at, now, is_final, self._has_ended, self._savepoint_request)
        if is_final:
            # Nobody reads on behind it, also if a lane is lost and it is taken once more.
            self._next_discovery.clear()
            self._discoveries.clear()
        self._savepoint_request = None
        self.counts.begun += 1
        self.counts.under_way = 1
        crash_point("checkpoint.triggered")
        tell(self._link, TriggerCheckpoint(at, is_final))

    def _prepare(self, flight: _InFlight) -> None:
        assert self._baseline is not None
        assert self._last is not None
        crash_point("checkpoint.acknowledged")
        snapshots = {region: snapshot for own in flight.acknowledged.values() for region, snapshot in own.items()}
        manifest = replace(
            self._baseline,
            id=flight.id,
            kind=Kind.PREPARED,
            created_at_ms=int(time.time() * 1000),
            regions=snapshots,
            predecessor=self._last.id,
            superseded=(),
        )
        try:
            self._folder.write_manifest(manifest)
        except EpochTaken:
            raise
        except ExternalError as error:
            self._give_up(str(error))
            return
        flight.manifest = manifest
        flight.uncommitted = set(snapshots)
        crash_point("commit.before")
        tell(self._link, Commit(flight.id.number, manifest.marker.encode()))

    def _committed(self, flight: _InFlight, committed: Iterable[str]) -> None:
        flight.uncommitted.difference_update(committed)
        if flight.uncommitted:
            crash_point("commit.between")
        else:
            self._complete(flight)

    def _complete(self, flight: _InFlight) -> None:
        manifest = flight.manifest
        assert manifest is not None
        crash_point("commit.after")
        self._folder.mark_committed(manifest.id)
        self._last = self.completed = manifest
        self._failures = 0
        self._in_flight = None
        self._count(manifest, (self._clock() - flight.started_at) * 1000)
        self._discovered = [(lane, told) for lane, told in self._discovered if told in self._unheld(manifest, lane)]
        tell(self._link, CheckpointComplete(manifest.id.number))
        crash_point("offsets.committed")
        self._prune(manifest)
        now = self._clock()
        interval = self._settings.checkpoint_interval_ms
        if interval is not None:
            due = max(flight.started_at + interval / 1000, now + self._settings.min_pause_ms / 1000)
            self._next_checkpoint = max(due, now)
        else:
            self._next_checkpoint = None
        log.debug("checkpoint %s complete in %.0f ms", manifest.id, (now - flight.started_at) * 1000)
        if flight.savepoint is not None:
            self._last_savepoint = self._write_savepoint(flight.savepoint, manifest)
            if self._ends_with_savepoint and isinstance(self._last_savepoint, HeadraceError):
                raise self._last_savepoint
        if flight.is_final:
            if flight.is_end:
                self._folder.mark_finished(manifest.id)
            self.is_done = True

    def _count(self, manifest: Manifest, took_ms: float) -> None:
        counts, regions = self.counts, manifest.regions.values()
        counts.completed += 1
        counts.under_way = 0
        counts.last_number, counts.last_ms = manifest.id.number, took_ms
        operators = [operator for region in regions for operator in region.operators.values()]
        counts.size_bytes = sum(keyed.file.size_bytes for operator in operators for keyed in operator.keyed)

    def _write_savepoint(self, directory: Path, manifest: Manifest) -> Path | HeadraceError:
        """A savepoint that cannot be written costs a job that goes on nothing."""
        at = manifest.id
        path = directory / f"savepoint-{self._folder.path.name}-{at.epoch}-{at.number}-{at.attempt}"
        try:
            return self._folder.write_savepoint(path, manifest).parent
        except (ExternalError, StateError) as error:
            return error

    def _give_up(self, reason: str) -> None:
        """Give a checkpoint up before it is PREPARED: writers keep what they hold, and the next one commits both."""
        flight = self._in_flight
        assert flight is not None
        self._in_flight = None
        self.counts.give_up()
        self._failures += 1
        log.warning("checkpoint %s failed: %s", flight.id, reason)
        if flight.is_final or self._failures > self._settings.tolerable_failures:
            raise CheckpointFailed(f"checkpoint {flight.id} failed: {reason}")
        tell(self._link, CheckpointAborted(flight.id.number))
        self._savepoint_request = flight.savepoint
        interval = self._settings.checkpoint_interval_ms or 1000
        self._next_checkpoint = self._clock() + interval / 1000

    def _prune(self, manifest: Manifest) -> None:
        try:
            self._folder.prune(manifest.id, self._settings.num_retained)
        except ExternalError as error:
            log.warning("old snapshots could not be removed, and are tried again: %s", error)
