"""The coordinator: where a job starts from, and its checkpoints.

Theory of operation. Every start is one path, `start`: fence, read the markers, read the folder again, decide, write a
baseline, claim (see `headrace.checkpoint.decision` for why). From then on the coordinator only answers: `handle` takes
what workers say, `tick` does what is due. A checkpoint goes

    TriggerCheckpoint → Acknowledged by all → manifest PREPARED → Commit → Committed in all regions → flag COMMITTED
    → CheckpointComplete (offsets to the group) → prune

with at most one in flight. Up to PREPARED it can be given up at no cost, as writers keep what they hold and the next
checkpoint commits both; behind it, it is finished or the job starts again.

Invariants. A manifest is durable before any region commits it. A number is used once. Nothing here touches a client:
the workers do, and the enumerators, which are asked for new splits in a thread of their own as their calls block.

Who calls this: `headrace.runtime.job`, in one thread.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol, TypeVar, assert_never

from headrace import __version__
from headrace.checkpoint.decision import (
    AlreadyFinished,
    BackOff,
    LookAgain,
    OtherCopy,
    Refuse,
    Restore,
    StartFresh,
    TimedOut,
    decide,
    needs_reread,
    next_id,
    on_fenced,
    superseded,
    transactions_to_fence,
)
from headrace.checkpoint.manifest import Kind, Manifest, OperatorSnapshot, RegionSnapshot
from headrace.checkpoint.marker import Marker, SnapshotId, draw_id
from headrace.checkpoint.redistribution import RegionLayout, redistribute
from headrace.checkpoint.storage import CheckpointFolder, EpochTaken, Snapshot
from headrace.connector import SourceContext, SplitEnumerator
from headrace.crash_points import crash_point
from headrace.errors import ExternalError, HeadraceError, InternalError, StateError
from headrace.plan.graph import Plan, ReadSource
from headrace.plan.identity import operator_ids, regions
from headrace.runtime.messages import (
    Acknowledged,
    AddSplits,
    CheckpointComplete,
    Commit,
    Committed,
    Deploy,
    Deployed,
    Failed,
    Fence,
    Fenced,
    InputEnded,
    MarkersRead,
    ReadMarkers,
    Run,
    ToCoordinator,
    ToWorker,
    TriggerCheckpoint,
)
from headrace.runtime.settings import Settings

log = logging.getLogger("headrace")

FENCING_GRACE_MS = 5_000
"""How long a fenced copy waits for the claim of a newer one, before it takes its transaction for timed out."""

Reply = TypeVar("Reply", bound=ToCoordinator)


class Link(Protocol):
    """The way to the workers."""

    def send(self, message: ToWorker) -> None:
        """To all of them."""
        ...

    def receive(self) -> ToCoordinator | None:
        """The next thing that any of them says; None: nothing yet."""
        ...


class CheckpointFailed(HeadraceError):
    """More checkpoints failed in a row than `execution.checkpointing.tolerable-failed-checkpoints` allows."""


@dataclass(slots=True)
class _InFlight:
    """The checkpoint under way. `regions` is None until the workers have acknowledged it."""

    id: SnapshotId
    started_at: float
    is_final: bool
    savepoint: Path | None
    manifest: Manifest | None = None
    uncommitted: set[str] = field(default_factory=set)


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
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.plan = plan
        self.is_done = False
        self.finished_before: AlreadyFinished | None = None
        self.completed: Manifest | None = None
        self.last_savepoint: Path | None = None
        self.has_baseline = False
        self._settings = settings
        self._folder = folder
        self._link = link
        self._chosen = chosen
        self._fresh = fresh
        self._clock = clock
        self._attempt = draw_id()
        self._ids = operator_ids(plan)
        self._regions = regions(plan)
        self._sources = {
            self._ids[node.id]: (node, node.operator.source) for node in plan if isinstance(node.operator, ReadSource)
        }
        self._enumerators: dict[str, SplitEnumerator] = {}
        self._next_discovery: dict[str, float] = {}
        self._discoveries: dict[str, Future[list[Any]]] = {}
        self._threads = ThreadPoolExecutor(max_workers=1, thread_name_prefix="headrace-discovery")
        self._baseline: Manifest | None = None
        self._claimed = False
        self._last: Manifest | None = None
        self._number = 0
        self._in_flight: _InFlight | None = None
        self._next_checkpoint: float | None = None
        self._failures = 0
        self._input_ended = False
        self._stopping = False
        self._savepoint_request: Path | None = None

    # --- start -------------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Steps 2 to 7 of a start; step 1, the lock, is the caller's. Afterwards the workers read, or `is_done` is set.

        Raises `StateError` when nothing can be begun without losing or repeating records, `EpochTaken` when another
        copy is starting too.
        """
        contents = self._folder.read()
        while True:
            # Another parallelism, another prefix, a region that is gone: every id that is still recorded.
            recorded = transactions_to_fence(contents, [], fresh=self._fresh)
            own = self._ask(Fence(recorded, self._fresh), Fenced).locations
            crash_point("start.fenced")
            said = self._ask(ReadMarkers(recorded, self._fresh), MarkersRead).markers
            crash_point("start.markers_read")
            before, contents = contents, self._folder.read()
            if not needs_reread(before, contents):
                break
        markers = {key: None if text is None else Marker.decode(text, f"group {key}") for key, text in said.items()}
        newest = contents.newest
        decision = decide(
            contents,
            _by_region({} if newest is None else {r: s.location for r, s in newest.regions.items()}, markers),
            _by_region(own, markers),
            fresh=self._fresh,
            assume=self._settings.assume,
            chosen=None if self._chosen is None else self._chosen.manifest,
        )
        files = self._folder.files if self._chosen is None else self._chosen.files
        match decision:
            case AlreadyFinished():
                self.finished_before = decision
                self.is_done = True
                return
            case Refuse(reason):
                raise StateError(reason)
            case StartFresh():
                incarnation = draw_id()
            case Restore():
                incarnation = newest.incarnation if newest is not None else draw_id()
            case _:
                assert_never(decision)
        at = next_id(contents, markers.values(), self._attempt)
        resolved = self._resolve(self._restored(decision, own), is_fresh=isinstance(decision, StartFresh))
        baseline = Manifest(
            job=self._folder.job,
            incarnation=incarnation,
            id=at,
            kind=Kind.BASELINE,
            created_at_ms=int(time.time() * 1000),
            parallelism=1,
            max_parallelism=self._settings.max_parallelism,
            regions=self._folder.adopt(at, resolved, files),
            transactions=tuple(location for location in own.values() if location is not None),
            superseded=superseded(contents, markers.values(), incarnation),
            headrace_version=__version__,
        )
        self._folder.write_manifest(baseline)
        self.has_baseline = True
        self._baseline = self._last = baseline
        self._number = at.number
        self._say_where(decision, baseline)
        operators = {i: op for region in baseline.regions.values() for i, op in region.operators.items()}
        self._ask(Deploy(operators), Deployed)
        self._link.send(Commit(at.number, baseline.marker.encode()))
        self._await_commits(baseline)
        self._claimed = True
        crash_point("claim.committed")
        self._prune(baseline)
        now = self._clock()
        interval = self._settings.checkpoint_interval_ms
        self._next_checkpoint = None if interval is None else now + interval / 1000
        for operator_id, enumerator in self._enumerators.items():
            if enumerator.discovery_interval_ms is not None:
                self._next_discovery[operator_id] = now + enumerator.discovery_interval_ms / 1000
        self._link.send(Run())

    def _restored(self, decision: StartFresh | Restore, own: Mapping[str, Any]) -> dict[str, RegionSnapshot]:
        """The state to begin with, in today's regions."""
        layout = {
            region.id: RegionLayout({self._ids[n]: (0,) for n in region.nodes}, own.get(region.id))
            for region in self._regions
        }
        if isinstance(decision, StartFresh):
            return {region: RegionSnapshot({}, layout[region].location) for region in layout}
        found = redistribute(
            decision,
            layout,
            max_parallelism=self._settings.max_parallelism,
            ignore_unclaimed=self._settings.ignore_unclaimed_state,
        )
        if isinstance(found, Refuse):
            raise StateError(found.reason)
        return found

    def _resolve(self, restored: Mapping[str, RegionSnapshot], *, is_fresh: bool) -> dict[str, RegionSnapshot]:
        """The restored state with every source's splits brought up to date and resolved."""
        result = {}
        for region in self._regions:
            operators = dict(restored[region.id].operators)
            for operator_id in (self._ids[n] for n in region.sources):
                node, source = self._sources[operator_id]
                commits = self._settings.checkpoint_interval_ms is not None
                enumerator = source.create_enumerator(SourceContext(self.plan.job_name, node.name, 0, 1, commits))
                self._enumerators[operator_id] = enumerator
                before = None if is_fresh else operators.get(operator_id)
                splits = None if before is None else [source.decode_split(split) for split in before.splits.values()]
                found = enumerator.start(splits, None if before is None else before.enumerator)
                operators[operator_id] = OperatorSnapshot(
                    splits={split.split_id: source.encode_split(split) for split in found},
                    enumerator=enumerator.snapshot(),
                )
            result[region.id] = replace(restored[region.id], operators=operators)
        return result

    def _say_where(self, decision: StartFresh | Restore, baseline: Manifest) -> None:
        splits = sum(len(op.splits) for region in baseline.regions.values() for op in region.operators.values())
        match decision:
            case StartFresh():
                log.info("job `%s` starts from the beginning, with %d splits", self.plan.job_name, splits)
            case Restore(newest, _, _):
                again = ""
                if decision.fallen_back:
                    again = "; its last transaction was aborted, those records are produced again"
                log.info(
                    "job `%s` resumes from %s %s%s",
                    self.plan.job_name,
                    newest.kind.value.lower() if newest.kind is not Kind.PREPARED else "checkpoint",
                    newest.id if not decision.fallen_back else newest.predecessor,
                    again,
                )

    def _ask(self, message: ToWorker, reply: type[Reply]) -> Reply:
        """Send, and wait for the answer."""
        self._link.send(message)
        while True:
            said = self._link.receive()
            if isinstance(said, reply):
                return said
            if isinstance(said, Failed):
                raise said.error
            if said is not None:
                raise InternalError(f"{type(said).__name__} in answer to {type(message).__name__}")

    def _await_commits(self, manifest: Manifest) -> None:
        waiting = set(manifest.regions)
        while waiting:
            match self._link.receive():
                case Committed(region, number) if number == manifest.id.number:
                    waiting.discard(region)
                case Failed(error):
                    raise error
                case _:
                    pass

    # --- run ---------------------------------------------------------------------------------------------------------

    def stop(self) -> None:
        """End with a last checkpoint, without MAX_WATERMARK; what SIGTERM asks for."""
        self._stopping = True

    def request_savepoint(self, path: Path) -> None:
        """Write a savepoint with the next checkpoint, and let that be soon."""
        self._savepoint_request = path

    def handle(self, message: ToCoordinator) -> None:
        """Take in what a worker says. Raises what the worker failed with."""
        match message:
            case Acknowledged(number, snapshots):
                if self._in_flight is not None and self._in_flight.id.number == number:
                    self._prepare(self._in_flight, snapshots)
            case Committed(region, number):
                if self._in_flight is not None and self._in_flight.id.number == number:
                    self._in_flight.uncommitted.discard(region)
                    if not self._in_flight.uncommitted:
                        self._complete(self._in_flight)
            case InputEnded():
                self._input_ended = True
            case Failed(error):
                raise error
            case Fenced() | MarkersRead() | Deployed():
                raise InternalError(f"{type(message).__name__} was not asked for")
            case _:
                assert_never(message)

    def tick(self) -> None:
        """Do what is due: discovery, a checkpoint's start or timeout."""
        now = self._clock()
        self._discover(now)
        flight = self._in_flight
        if flight is not None:
            waited_ms = (now - flight.started_at) * 1000
            if flight.manifest is None and waited_ms > self._settings.checkpoint_timeout_ms:
                self._give_up(f"not acknowledged within {self._settings.checkpoint_timeout_ms} ms")
            return
        is_final = self._input_ended or self._stopping
        is_due = self._next_checkpoint is not None and now >= self._next_checkpoint
        if is_final or is_due or self._savepoint_request is not None:
            self._trigger(now, is_final=is_final)

    def seconds_until_due(self) -> float:
        """How long `tick` has nothing to do, at most."""
        now = self._clock()
        due = [*self._next_discovery.values()]
        if self._in_flight is None and self._next_checkpoint is not None:
            due.append(self._next_checkpoint)
        return max(0.0, min(due, default=now + 1) - now)

    def explain_fencing(self, wait: Callable[[float], None]) -> OtherCopy | TimedOut | BackOff:
        """What it means that a region was fenced: reads the claims, without initialising anything."""
        if self._baseline is None:
            return BackOff()
        started_at = self._clock()
        while True:
            said = self._ask(ReadMarkers(()), MarkersRead).markers
            markers = [None if text is None else Marker.decode(text, f"group {key}") for key, text in said.items()]
            waited_ms = int((self._clock() - started_at) * 1000)
            verdict = on_fenced(
                self._baseline.id, markers, claimed=self._claimed, waited_ms=waited_ms, grace_ms=FENCING_GRACE_MS
            )
            if not isinstance(verdict, LookAgain):
                return verdict
            wait(min(verdict.wait_ms / 1000, 0.25))

    def close(self) -> None:
        """Release the enumerators' clients. May be called twice."""
        self._threads.shutdown(wait=True, cancel_futures=True)
        for enumerator in self._enumerators.values():
            enumerator.close()

    def _discover(self, now: float) -> None:
        for operator_id, future in list(self._discoveries.items()):
            if not future.done():
                continue
            del self._discoveries[operator_id]
            source = self._sources[operator_id][1]
            try:
                splits = future.result()
            except ExternalError as error:
                log.warning("looking for new splits of `%s` failed: %s", self._sources[operator_id][0].name, error)
                continue
            if splits:
                log.info("`%s` reads %d new splits", self._sources[operator_id][0].name, len(splits))
                self._link.send(AddSplits(operator_id, tuple(source.encode_split(split) for split in splits)))
        for operator_id, due in self._next_discovery.items():
            interval_ms = self._enumerators[operator_id].discovery_interval_ms
            if now >= due and operator_id not in self._discoveries and interval_ms is not None:
                self._next_discovery[operator_id] = now + interval_ms / 1000
                self._discoveries[operator_id] = self._threads.submit(self._enumerators[operator_id].discover)

    def _trigger(self, now: float, *, is_final: bool) -> None:
        assert self._last is not None
        self._number += 1
        at = SnapshotId(self._last.id.epoch, self._number, self._attempt)
        self._in_flight = _InFlight(at, now, is_final, self._savepoint_request)
        self._savepoint_request = None
        crash_point("checkpoint.triggered")
        self._link.send(TriggerCheckpoint(at, is_final))

    def _prepare(self, flight: _InFlight, snapshots: Mapping[str, RegionSnapshot]) -> None:
        assert self._baseline is not None
        assert self._last is not None
        crash_point("checkpoint.acknowledged")
        with_enumerators = {}
        for region_id, region in snapshots.items():
            operators = {
                operator_id: replace(snapshot, enumerator=self._enumerators[operator_id].snapshot())
                if operator_id in self._enumerators
                else snapshot
                for operator_id, snapshot in region.operators.items()
            }
            with_enumerators[region_id] = replace(region, operators=operators)
        manifest = replace(
            self._baseline,
            id=flight.id,
            kind=Kind.PREPARED,
            created_at_ms=int(time.time() * 1000),
            regions=with_enumerators,
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
        self._link.send(Commit(flight.id.number, manifest.marker.encode()))

    def _complete(self, flight: _InFlight) -> None:
        manifest = flight.manifest
        assert manifest is not None
        crash_point("commit.after")
        self._folder.mark_committed(manifest.id)
        self._last = self.completed = manifest
        self._failures = 0
        self._in_flight = None
        self._link.send(CheckpointComplete(manifest.id.number))
        crash_point("offsets.committed")
        self._prune(manifest)
        now = self._clock()
        interval = self._settings.checkpoint_interval_ms
        if interval is not None:
            due = max(flight.started_at + interval / 1000, now + self._settings.min_pause_ms / 1000)
            self._next_checkpoint = max(due, now)
        log.debug("checkpoint %s complete in %.0f ms", manifest.id, (now - flight.started_at) * 1000)
        if flight.savepoint is not None:
            path = flight.savepoint / f"savepoint-{manifest.id.epoch}-{manifest.id.number}"
            self.last_savepoint = self._folder.write_savepoint(path, manifest).parent
        if flight.is_final:
            if self._input_ended:
                self._folder.mark_finished(manifest.id)
            self.is_done = True

    def _give_up(self, reason: str) -> None:
        """Give a checkpoint up before it is PREPARED: writers keep what they hold, and the next one commits both."""
        flight = self._in_flight
        assert flight is not None
        self._in_flight = None
        self._failures += 1
        log.warning("checkpoint %s failed: %s", flight.id, reason)
        if flight.is_final or self._failures > self._settings.tolerable_failures:
            raise CheckpointFailed(f"checkpoint {flight.id} failed: {reason}")
        self._savepoint_request = flight.savepoint
        interval = self._settings.checkpoint_interval_ms or 1000
        self._next_checkpoint = self._clock() + interval / 1000

    def _prune(self, manifest: Manifest) -> None:
        try:
            self._folder.prune(manifest.id, self._settings.num_retained)
        except ExternalError as error:
            log.warning("old snapshots could not be removed, and are tried again: %s", error)


def _by_region(locations: Mapping[str, Any], markers: Mapping[str, Marker | None]) -> dict[str, Marker | None]:
    return {
        region: markers.get(str(location["transactional_id"]))
        for region, location in locations.items()
        if location is not None
    }
