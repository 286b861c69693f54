"""Where a job starts from: one path for the first start, a restart, another program, `--from` and `--fresh`.

Theory of operation, with the steps that `headrace.checkpoint.decision` explains:

1. the folder is locked (by the caller);
2. this copy announces itself, and every older producer is shut out, which completes or aborts what it left;
3. the markers are read;
4. the folder is read again, and all is done once more if another copy moved on in between;
5. `decide`: which snapshot each region is restored from;
6. what is open is resolved (`latest`, stop offsets, new partitions), and written as the BASELINE of a new epoch;
7. every region commits that baseline's marker, its *claim*. Then reading may begin.

Invariants. Nothing is read before every region is claimed. Whatever the start was asked to begin with is durable with
the baseline: a crash behind it begins there, and resolves nothing twice.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, assert_never

from headrace import __version__
from headrace.checkpoint.decision import (
    AlreadyFinished,
    Assume,
    Refuse,
    Restore,
    StartFresh,
    decide,
    is_same_transaction,
    needs_reread,
    next_id,
    superseded,
    transactions_to_fence,
)
from headrace.checkpoint.folder import FolderContents
from headrace.checkpoint.manifest import Kind, Manifest, OperatorSnapshot, RegionSnapshot
from headrace.checkpoint.marker import Marker, draw_id
from headrace.checkpoint.redistribution import RegionLayout, redistribute
from headrace.checkpoint.storage import CheckpointFolder, Snapshot
from headrace.connector import JsonValue, Source, SourceContext, SplitEnumerator
from headrace.crash_points import crash_point
from headrace.errors import StateError
from headrace.plan.graph import Node, Plan, ReadSource
from headrace.plan.identity import holds, operator_ids, regions
from headrace.plan.parallelism import lanes
from headrace.runtime.link import LaneFailed, Link, ask, tell
from headrace.runtime.messages import (
    Commit,
    Committed,
    Deploy,
    Deployed,
    Failed,
    Fence,
    Fenced,
    FenceRecorded,
    Location,
    MarkersRead,
    ReadMarkers,
)
from headrace.runtime.settings import Settings

log = logging.getLogger("headrace")

Markers = Mapping[str, Marker | None]
"""By transactional id."""


class Start:
    """One start, of all lanes. `chosen` is the snapshot that `--from` names, `fresh` starts over, `assume` is the
    user's word.

    `baseline` is set once it is durable, `is_claimed` once every region holds its marker; `enumerators` by operator id,
    and in `loads` how many splits of it each lane has.
    `known` are the copies that had announced themselves before: each will find the baseline, and announce itself anew.
    """

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
    ) -> None:
        self.baseline: Manifest | None = None
        self.is_claimed = False
        self.enumerators: dict[str, SplitEnumerator] = {}
        self.loads: dict[str, list[int]] = {}
        self._plan = plan
        self._settings = settings
        self._folder = folder
        self._link = link
        self._chosen = chosen
        self._fresh = fresh
        self._assume = assume
        self._announced: set[str] = set()
        self.known: frozenset[str] = frozenset()
        self._ids = operator_ids(plan)
        self._lanes = lanes(plan)
        self._regions = {region.id: region for lane in range(self._lanes) for region in regions(plan, lane)}
        self._lane_of = {region.id: lane for lane in range(self._lanes) for region in regions(plan, lane)}

    def run(self) -> Manifest | AlreadyFinished:
        """Steps 2 to 7: the claimed baseline, unless the job has finished before.

        Raises `StateError` when nothing can be begun without losing or repeating records, and `EpochTaken` when another
        copy is starting too.
        """
        contents, own, markers = self._settle()
        decision = decide(
            contents,
            _by_region(_recorded_locations(contents), markers),
            _by_region(own, markers),
            fresh=self._fresh,
            assume=self._assume,
            chosen=None if self._chosen is None else self._chosen.manifest,
        )
        match decision:
            case AlreadyFinished():
                return decision
            case Refuse(reason):
                raise StateError(reason)
            case StartFresh() | Restore():
                pass
            case _:
                assert_never(decision)
        baseline = self._baseline(decision, contents, own, markers)
        self.known = self._folder.announced()
        self._folder.write_manifest(baseline)
        self.baseline = baseline
        self._say_where(decision, baseline)
        sources = {} if isinstance(decision, StartFresh) else {r: at.number for r, at in decision.sources.items()}
        ask(self._link, {lane: self.deployment(baseline, lane, sources) for lane in range(self._lanes)}, Deployed)
        self._claim(baseline)
        self._folder.withdraw(self.known)
        return baseline

    def deployment(self, manifest: Manifest, lane: int, sources: Mapping[str, int] | None = None) -> Deploy:
        """What opens a lane's operators as they are in the manifest. `sources` says from which snapshot each region is,
        by number; None: from that one."""
        numbers = sources if sources is not None else dict.fromkeys(manifest.regions, manifest.id.number)
        own = {region: numbers.get(region, 0) for region in self.regions_of(lane)}
        return Deploy(own, self.operators_of(manifest, lane))

    def operators_of(self, manifest: Manifest, lane: int) -> dict[str, OperatorSnapshot]:
        """What the manifest holds of one lane, by operator id."""
        own = [manifest.regions[region] for region in self.regions_of(lane)]
        return {operator_id: operator for snapshot in own for operator_id, operator in snapshot.operators.items()}

    def regions_of(self, lane: int) -> list[str]:
        """The regions of one lane."""
        return [region for region, own in self._lane_of.items() if own == lane]

    def close(self) -> None:
        """Release the enumerators' clients, and take back what was announced. May be called twice."""
        self._folder.withdraw(self._announced)
        for enumerator in self.enumerators.values():
            enumerator.close()

    def _settle(self) -> tuple[FolderContents, Mapping[str, Location | None], Markers]:
        """Steps 2 to 4: the folder, this run's locations by region, and the markers; nobody changes them any more."""
        contents = self._folder.read()
        while True:
            name = draw_id()
            self._folder.announce(name)
            self._announced.add(name)
            everyone = range(self._lanes)
            fenced = ask(self._link, dict.fromkeys(everyone, Fence()), Fenced)
            own = {region: at for said in fenced.values() for region, at in said.locations.items()}
            # Another parallelism, another prefix, a region that is gone: every id that is still recorded.
            ours = [location for location in own.values() if location is not None]
            recorded = transactions_to_fence(contents, ours, fresh=self._fresh)
            # Not the own ones under another address, or with their markers elsewhere: those are shut out.
            others = tuple(at for at in recorded if not any(is_same_transaction(at, mine) for mine in ours))
            ask(self._link, {0: FenceRecorded(others, self._fresh)}, Fenced)
            crash_point("start.fenced")
            asked = {lane: ReadMarkers(() if lane else recorded, self._fresh) for lane in everyone}
            read = ask(self._link, asked, MarkersRead).values()
            markers = {transactional_id: marker for said in read for transactional_id, marker in said.markers.items()}
            crash_point("start.markers_read")
            before, contents = contents, self._folder.read()
            if not needs_reread(before, contents):
                return contents, own, decode_markers(markers)

    def _baseline(
        self,
        decision: StartFresh | Restore,
        contents: FolderContents,
        own: Mapping[str, Location | None],
        markers: Markers,
    ) -> Manifest:
        """Step 6, up to writing it."""
        files = self._folder.files if self._chosen is None else self._chosen.files
        if self._chosen is not None and self._chosen.manifest.job != self._folder.job:
            log.warning(
                "job `%s` starts from a snapshot of another job, `%s`, with its splits and state",
                self._folder.job,
                self._chosen.manifest.job,
            )
        match decision:
            case StartFresh():
                incarnation = draw_id()
            case Restore():
                incarnation = draw_id() if contents.newest is None else contents.newest.incarnation
            case _:
                assert_never(decision)
        at = next_id(contents, markers.values(), draw_id())
        resolved = self._resolve(self._restored(decision, own), is_fresh=isinstance(decision, StartFresh))
        return Manifest(
            job=self._folder.job,
            incarnation=incarnation,
            id=at,
            kind=Kind.BASELINE,
            created_at_ms=int(time.time() * 1000),
            parallelism=self._lanes,
            max_parallelism=self._settings.max_parallelism,
            regions=self._folder.adopt(at, resolved, files),
            transactions=tuple(location for location in own.values() if location is not None),
            superseded=superseded(contents, markers.values(), incarnation),
            headrace_version=__version__,
        )

    def _restored(
        self, decision: StartFresh | Restore, own: Mapping[str, Location | None]
    ) -> Mapping[str, RegionSnapshot]:
        """The state to begin with, in today's regions."""
        layout = {
            region.id: RegionLayout(
                {self._ids[n]: (self._lane_of[region.id],) for n in region.nodes},
                own.get(region.id),
                {self._ids[n]: self._plan.node(n).name for n in region.nodes},
                holds={self._ids[n]: holds(self._plan.node(n)) for n in region.nodes},
            )
            for region in self._regions.values()
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
        operators = {region: dict(snapshot.operators) for region, snapshot in restored.items()}
        for node in self._plan:
            if isinstance(node.operator, ReadSource):
                uid = self._ids[node.id]
                before = {region: own[uid] for region, own in operators.items() if uid in own and not is_fresh}
                for region, snapshot in self._resolve_source(node, node.operator.source, before).items():
                    operators[region][uid] = snapshot
        return {region: replace(snapshot, operators=operators[region]) for region, snapshot in restored.items()}

    def _resolve_source(
        self, node: Node, source: Source, before: Mapping[str, OperatorSnapshot]
    ) -> dict[str, OperatorSnapshot]:
        """One source's splits, by region: restored ones stay where they are, new ones go where the enumerator says."""
        lanes, commits = node.parallelism or 1, self._settings.checkpoint_interval_ms is not None
        enumerator = source.create_enumerator(SourceContext(self._plan.job_name, node.name, 0, lanes, commits))
        self.enumerators[self._ids[node.id]] = enumerator
        region_at = {self._lane_of[r.id]: r.id for r in self._regions.values() if node.id in r.sources}
        owner = {split_id: region for region, snapshot in before.items() for split_id in snapshot.splits}
        restored = [source.decode_split(split) for snapshot in before.values() for split in snapshot.splits.values()]
        found: dict[str, dict[str, Mapping[str, JsonValue]]] = {region: {} for region in region_at.values()}
        loads = self.loads[self._ids[node.id]] = [0] * lanes
        for split in enumerator.start(restored if before else None):
            region = owner.get(split.split_id) or region_at[enumerator.lane_of(split, loads)]
            loads[self._lane_of[region]] += 1
            found[region][split.split_id] = source.encode_split(split)
        if lanes > 1 and (idle := [str(lane) for lane, load in enumerate(loads) if not load]):
            log.warning(
                "`%s` has %d splits for %d subtasks; idle until there are more: lane %s",
                node.name,
                sum(loads),
                lanes,
                ", ".join(idle),
            )
        return {region: OperatorSnapshot(splits, name=node.name) for region, splits in found.items()}

    def _claim(self, baseline: Manifest) -> None:
        """Step 7."""
        tell(self._link, Commit(baseline.id.number, baseline.marker.encode()))
        waiting = set(baseline.regions)
        while waiting:
            match self._link.receive():
                case (_, Committed(region, number)) if number == baseline.id.number:
                    waiting.discard(region)
                    if waiting:
                        crash_point("claim.between")
                case (lane, Failed(error)):
                    raise LaneFailed(lane, error)
                case None:
                    self._link.work(1.0)
                case _:
                    pass
        self.is_claimed = True
        crash_point("claim.committed")

    def _say_where(self, decision: StartFresh | Restore, baseline: Manifest) -> None:
        name = self._plan.job_name
        match decision:
            case StartFresh():
                splits = sum(len(op.splits) for region in baseline.regions.values() for op in region.operators.values())
                log.info("job `%s` starts from the beginning, with %d split(s)", name, splits)
            case Restore(newest) if 0 < len(decision.fallen_back) < len(decision.sources):
                log.info(
                    "job `%s` resumes from checkpoint %s, but from %s in region(s) %s: the last transaction there was "
                    "aborted, those records are produced again",
                    name,
                    newest.id,
                    newest.predecessor,
                    ", ".join(decision.fallen_back),
                )
            case Restore(newest) if decision.fallen_back:
                log.info(
                    "job `%s` resumes from checkpoint %s; its last transaction was aborted, those records are produced "
                    "again",
                    name,
                    newest.predecessor,
                )
            case Restore(newest):
                kind = "checkpoint" if newest.kind is Kind.PREPARED else newest.kind.value.lower()
                log.info("job `%s` resumes from %s %s", name, kind, newest.id)
            case _:
                assert_never(decision)


def decode_markers(said: Mapping[str, str | None]) -> dict[str, Marker | None]:
    """What workers read, as markers. Raises `StateError` for a text that is none."""
    return {
        key: None if text is None else Marker.decode(text, f"transactional id {key!r}") for key, text in said.items()
    }


def _recorded_locations(contents: FolderContents) -> dict[str, Any]:
    newest = contents.newest
    return {} if newest is None else {region: snapshot.location for region, snapshot in newest.regions.items()}


def _by_region(locations: Mapping[str, Any], markers: Markers) -> dict[str, Marker | None]:
    return {
        region: markers.get(str(location["transactional_id"]))
        for region, location in locations.items()
        if location is not None
    }
