"""Where a job starts from: one path for the first start, a restart, another program, `--from` and `--fresh`.

Theory of operation, with the steps that `headrace.checkpoint.decision` explains:

1. the folder is locked (by the caller);
2. every older producer is shut out, which completes or aborts what it left;
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
from headrace.connector import SourceContext, SplitEnumerator
from headrace.crash_points import crash_point
from headrace.errors import StateError
from headrace.plan.graph import Plan, ReadSource
from headrace.plan.identity import holds, operator_ids, regions
from headrace.runtime.link import Link, ask
from headrace.runtime.messages import (
    Commit,
    Committed,
    Deploy,
    Deployed,
    Failed,
    Fence,
    Fenced,
    Location,
    MarkersRead,
    ReadMarkers,
)
from headrace.runtime.settings import Settings

log = logging.getLogger("headrace")

Markers = Mapping[str, Marker | None]
"""By transactional id."""


class Start:
    """One start. `chosen` is the snapshot that `--from` names, `fresh` starts over, `assume` is the user's word.

    `baseline` is set once it is durable, `is_claimed` once every region holds its marker; `enumerators` by operator id.
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
        self._plan = plan
        self._settings = settings
        self._folder = folder
        self._link = link
        self._chosen = chosen
        self._fresh = fresh
        self._assume = assume
        self._ids = operator_ids(plan)
        self._regions = regions(plan)

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
        self._folder.write_manifest(baseline)
        self.baseline = baseline
        self._say_where(decision, baseline)
        operators = {i: op for region in baseline.regions.values() for i, op in region.operators.items()}
        ask(self._link, Deploy(operators), Deployed)
        self._claim(baseline)
        return baseline

    def close(self) -> None:
        """Release the enumerators' clients. May be called twice."""
        for enumerator in self.enumerators.values():
            enumerator.close()

    def _settle(self) -> tuple[FolderContents, Mapping[str, Location | None], Markers]:
        """Steps 2 to 4: the folder, this run's locations by region, and the markers; nobody changes them any more."""
        contents = self._folder.read()
        while True:
            # Another parallelism, another prefix, a region that is gone: every id that is still recorded.
            recorded = transactions_to_fence(contents, [], fresh=self._fresh)
            own = ask(self._link, Fence(recorded, self._fresh), Fenced).locations
            crash_point("start.fenced")
            said = ask(self._link, ReadMarkers(recorded, self._fresh), MarkersRead).markers
            crash_point("start.markers_read")
            before, contents = contents, self._folder.read()
            if not needs_reread(before, contents):
                return contents, own, decode_markers(said)

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
            parallelism=1,
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
                {self._ids[n]: (0,) for n in region.nodes},
                own.get(region.id),
                {self._ids[n]: self._plan.node(n).name for n in region.nodes},
                holds={self._ids[n]: holds(self._plan.node(n)) for n in region.nodes},
            )
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
            for n in region.sources:
                before = None if is_fresh else operators.get(self._ids[n])
                operators[self._ids[n]] = self._resolve_source(n, before)
            result[region.id] = replace(restored[region.id], operators=operators)
        return result

    def _resolve_source(self, n: int, before: OperatorSnapshot | None) -> OperatorSnapshot:
        node = self._plan.node(n)
        assert isinstance(node.operator, ReadSource)
        source = node.operator.source
        commits = self._settings.checkpoint_interval_ms is not None
        enumerator = source.create_enumerator(SourceContext(self._plan.job_name, node.name, 0, 1, commits))
        self.enumerators[self._ids[n]] = enumerator
        splits = None if before is None else [source.decode_split(split) for split in before.splits.values()]
        found = enumerator.start(splits)
        return OperatorSnapshot({split.split_id: source.encode_split(split) for split in found}, name=node.name)

    def _claim(self, baseline: Manifest) -> None:
        """Step 7."""
        self._link.send(Commit(baseline.id.number, baseline.marker.encode()))
        waiting = set(baseline.regions)
        while waiting:
            match self._link.receive():
                case Committed(region, number) if number == baseline.id.number:
                    waiting.discard(region)
                case Failed(error):
                    raise error
                case _:
                    pass
        self.is_claimed = True
        crash_point("claim.committed")

    def _say_where(self, decision: StartFresh | Restore, baseline: Manifest) -> None:
        name = self._plan.job_name
        match decision:
            case StartFresh():
                splits = sum(len(op.splits) for region in baseline.regions.values() for op in region.operators.values())
                log.info("job `%s` starts from the beginning, with %d splits", name, splits)
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
    return {key: None if text is None else Marker.decode(text, f"group {key}") for key, text in said.items()}


def _recorded_locations(contents: FolderContents) -> dict[str, Any]:
    newest = contents.newest
    return {} if newest is None else {region: snapshot.location for region, snapshot in newest.regions.items()}


def _by_region(locations: Mapping[str, Any], markers: Markers) -> dict[str, Marker | None]:
    return {
        region: markers.get(str(location["transactional_id"]))
        for region, location in locations.items()
        if location is not None
    }
