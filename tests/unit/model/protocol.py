"""The protocol of exactly once as a small world in which the project's own decision code runs.

The world. Splits hold a few records each; every record is written once to a region's output. Copies of a job are
started at any time, also side by side, over one folder; each may be paused before any of its steps, for ever (which is
a crash) or until it wakes up. The broker keeps, for each transactional id, the producer's epoch and the marker; the
folder keeps manifests and flags under their real names. What a copy does between two durable effects is one step, and a
world's successors are all the steps that any copy, the broker or fate may take next.

Real here: `decide`, `needs_reread`, `transactions_to_fence`, `next_id`, `superseded`, `on_fenced`, `on_lane_lost`,
`redistribute`, the order of manifests, the names of files and the race for them, and what is pruned. Modelled: the
broker, the disk, and the order of steps, which the coordinator repeats.

Judged, after every step: no record becomes visible twice (`repeated`) or is passed over (`lost`), no copy refuses to
start in a world where nothing was lost (`undecidable`), none finishes early (`unfinished`); and from every world in
which a start remains the job can still finish (`stuck`).

`Rules` sets the size and what may happen: transactions that time out, markers that expire, a lost folder, other
parallelism, splits that are added, lanes whose worker is lost, `--fresh`, `--from`. `without` leaves one rule of the
protocol out, to show that the judge sees what it costs.

    python -m tests.unit.model.protocol --help
"""

from __future__ import annotations

import argparse
import random
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, fields, replace
from functools import cache
from itertools import product
from typing import Any, NamedTuple, TypeAlias

from headrace.checkpoint.decision import (
    AlreadyFinished,
    Assume,
    OtherCopy,
    Refuse,
    Restore,
    StartFresh,
    TimedOut,
    decide,
    needs_reread,
    next_id,
    on_fenced,
    on_lane_lost,
    superseded,
    transactions_to_fence,
)
from headrace.checkpoint.folder import FolderContents, Status, flag_name, manifest_name, removable
from headrace.checkpoint.manifest import Kind, Location, Manifest, OperatorSnapshot, RegionSnapshot
from headrace.checkpoint.marker import Marker, SnapshotId
from headrace.checkpoint.redistribution import RegionLayout, deal, redistribute
from headrace.plan.identity import Holds

WITHOUT = {
    "fence": "older producers are not shut out",
    "fence_recorded": "only the run's own ids are fenced, not those that the newest manifest records",
    "reread": "the folder is not read again behind the markers",
    "attempt": "markers and manifests are told apart by number alone, the later file wins",
    "exclusive": "a baseline replaces another attempt's",
    "later_epoch": "a copy that takes an epoch does not look for a later one",
    "keep_epoch": "a baseline is removed as soon as a checkpoint replaces it",
    "baseline": "what a start resolved is not made durable, nothing is claimed",
    "claim": "the baseline's marker is not committed",
    "manifest_first": "regions commit before the manifest is durable",
    "commit_first": "the flag is set before the regions have committed",
    "announce": "a copy does not say that it starts before it shuts others out",
    "rejoin": "a lane that comes back does not look at its marker",
    "prune_last": "what a prepared checkpoint falls back to is removed before it is committed",
}


@dataclass(frozen=True, slots=True)
class Rules:
    """How large the world is and what may happen in it. `layouts` are the numbers of lanes a copy may start with."""

    splits: int = 2
    records: int = 1
    starts: int = 2
    layouts: tuple[int, ...] = (2,)
    timeouts: int = 0
    expiries: int = 0
    losses: int = 0
    additions: int = 0
    """Of the splits, this many appear later."""
    rejoins: int = 0
    """How often a copy may lose a lane's worker, and bring the lane back."""
    rewinds: int = 0
    """How many starts may be `--fresh` or `--from` a committed snapshot."""
    without: str = ""


class Spec(NamedTuple):
    """A manifest as hashable data. `positions` are, for each region, how many records of each split are done."""

    id: SnapshotId
    kind: Kind
    incarnation: str
    positions: tuple[tuple[str, tuple[tuple[str, int], ...]], ...]
    before: SnapshotId | None = None
    superseded: tuple[str, ...] = ()
    is_rewind: bool = False
    """Of a baseline: asked for by `--fresh` or `--from`, so that the output begins again at its positions."""

    @property
    def splits(self) -> dict[str, int]:
        return {split: done for _, own in self.positions for split, done in own}


class Folder(NamedTuple):
    specs: frozenset[Spec] = frozenset()
    committed: frozenset[tuple[int, int]] = frozenset()
    finished: frozenset[tuple[int, int]] = frozenset()
    starting: frozenset[str] = frozenset()
    """Who has announced to shut others out, and each time anew: attempt and turn."""


class Producer(NamedTuple):
    """What the broker knows of one transactional id. `truth` is the snapshot it committed last, marker or no marker."""

    name: str
    epoch: int = 0
    marker: Marker | None = None
    truth: SnapshotId | None = None


class Copy(NamedTuple):
    """One coordinator, between two steps."""

    attempt: str
    pc: str
    lanes: int
    seen: Folder
    at: int = 0
    fences: tuple[tuple[str, int], ...] = ()
    markers: tuple[tuple[str, Marker | None], ...] = ()
    fresh: bool = False
    chosen: Spec | None = None
    assume: Assume | None = None
    last: Spec | None = None
    """The last snapshot that is committed everywhere, or the baseline."""
    coming: Spec | None = None
    turns: int = 0
    known: frozenset[str] = frozenset()
    """Who had announced itself before this copy's baseline, and so will find that."""
    lost: int | None = None
    """The lane whose new worker has shut out the lost one's."""


class World(NamedTuple):
    producers: tuple[Producer, ...]
    visible: tuple[int, ...]
    """For each split, how many of its records readers can see."""
    known: int
    """How many splits there are by now."""
    done: bool = False
    """Whether a copy has said that the job is finished."""
    folder: Folder = Folder()
    copies: tuple[Copy, ...] = ()
    starts: int = 0
    timeouts: int = 0
    expiries: int = 0
    losses: int = 0
    rewinds: int = 0
    rejoins: int = 0


Become: TypeAlias = Callable[..., World]
"""The world in which the copy that takes a step has become another (None: gone), and other fields have changed."""


class Wrong(Exception):
    """The protocol failed; `kind` says how."""

    def __init__(self, kind: str, what: str) -> None:
        super().__init__(f"{kind}: {what}")
        self.kind = kind
        self.history: list[str] = []


def _location(region: str) -> Location:
    return {"transactional_id": region}


def _regions(lanes: int) -> list[str]:
    # One lane has its id for itself, as a shuffled job's single region has.
    return ["all"] if lanes == 1 else [f"lane-{lane}" for lane in range(lanes)]


@cache
def manifest(spec: Spec) -> Manifest:
    """The real manifest."""
    return Manifest(
        job="job",
        incarnation=spec.incarnation,
        id=spec.id,
        kind=spec.kind,
        created_at_ms=0,
        parallelism=len(spec.positions),
        regions={
            region: RegionSnapshot(
                {"source": OperatorSnapshot({split: {"done": done} for split, done in own})},
                _location(region),
            )
            for region, own in spec.positions
        },
        predecessor=spec.before,
        transactions=tuple(_location(region) for region, _ in spec.positions),
        superseded=spec.superseded,
    )


@cache
def contents(folder: Folder) -> FolderContents:
    """What reading this folder gives."""
    manifests = sorted(map(manifest, folder.specs), key=lambda m: m.id)
    return FolderContents(tuple(manifests), folder.committed, folder.finished)


@cache
def _to_fence(folder: Folder, lanes: int, fresh: bool, without: str) -> tuple[str, ...]:
    """Every transactional id to fence, the own ones first."""
    own = _regions(lanes)
    recorded = transactions_to_fence(contents(folder), map(_location, own), fresh=fresh)
    if without == "fence_recorded":
        recorded = ()
    return (*own, *(str(location["transactional_id"]) for location in recorded))


@cache
def _after_prune(folder: Folder, own: SnapshotId) -> Folder:
    flags = [(at, status) for status, at in _flags(folder)]
    manifests = {manifest_name(manifest(spec)): spec for spec in folder.specs}
    by_flag = {flag_name(SnapshotId(*at, ""), status): at for at, status in flags}
    gone = set(removable([*manifests, *by_flag], contents(folder), own, 1))
    return Folder(
        frozenset(spec for name, spec in manifests.items() if name not in gone),
        frozenset(at for at in folder.committed if flag_name(SnapshotId(*at, ""), Status.COMMITTED) not in gone),
        frozenset(at for at in folder.finished if flag_name(SnapshotId(*at, ""), Status.FINISHED) not in gone),
        folder.starting,
    )


def _flags(folder: Folder) -> Iterator[tuple[Status, tuple[int, int]]]:
    yield from ((Status.COMMITTED, at) for at in folder.committed)
    yield from ((Status.FINISHED, at) for at in folder.finished)


class Model:
    """The steps of one world's rules."""

    def __init__(self, rules: Rules) -> None:
        self.rules = rules
        self.full = rules.records
        names = sorted({name for lanes in rules.layouts for name in _regions(lanes)})
        self.start = World(tuple(map(Producer, names)), (0,) * rules.splits, known=rules.splits - rules.additions)

    def successors(self, world: World) -> Iterator[tuple[str, World]]:
        """Everything that can happen next, each with what it leads to. Raises `Wrong`."""
        rules = self.rules
        if world.starts < rules.starts:
            for lanes in rules.layouts:
                yield f"copy {world.starts + 1} starts with {lanes} lanes", self._begin(world, lanes)
                if world.rewinds < rules.rewinds:
                    again = world._replace(rewinds=world.rewinds + 1)
                    yield f"copy {world.starts + 1} starts --fresh", self._begin(again, lanes, fresh=True)
                    for spec in sorted(world.folder.specs):
                        status = contents(world.folder).status(manifest(spec))
                        if status in (Status.BASELINE, Status.COMMITTED):
                            label = f"copy {world.starts + 1} starts --from {spec.id}"
                            yield label, self._begin(again, lanes, chosen=spec)
        for index, copy in enumerate(world.copies):
            for label, after in self._step(world, index, copy):
                yield f"{copy.attempt} {label}", after
        yield from self._fate(world)

    def is_finished(self, world: World) -> bool:
        """Whether a copy has ended and said that all is done."""
        return world.done

    def _begin(self, world: World, lanes: int, fresh: bool = False, chosen: Spec | None = None) -> World:
        attempt = f"a{world.starts + 1}"
        pc = {"fence": "markers", "announce": "fence"}.get(self.rules.without, "announce")
        copy = Copy(attempt, pc, lanes, world.folder, fresh=fresh, chosen=chosen)
        return world._replace(starts=world.starts + 1, copies=(*world.copies, copy))

    def _fate(self, world: World) -> Iterator[tuple[str, World]]:
        rules = self.rules
        for index, producer in enumerate(world.producers):
            if world.timeouts < rules.timeouts and producer.epoch:
                after = self._set(world, index, producer._replace(epoch=producer.epoch + 1))
                yield f"the transaction of {producer.name} times out", after._replace(timeouts=world.timeouts + 1)
            if world.expiries < rules.expiries and producer.marker is not None:
                after = self._set(world, index, producer._replace(marker=None))
                yield f"the marker of {producer.name} expires", after._replace(expiries=world.expiries + 1)
        if world.losses < rules.losses and world.folder.specs:
            yield "the folder is lost", world._replace(folder=Folder(), losses=world.losses + 1)
        if world.known < rules.splits:
            yield f"split {world.known} is added", world._replace(known=world.known + 1)

    @staticmethod
    def _set(world: World, index: int, producer: Producer) -> World:
        return world._replace(producers=(*world.producers[:index], producer, *world.producers[index + 1 :]))

    @staticmethod
    def _find(world: World, name: str) -> tuple[int, Producer]:
        return next((i, producer) for i, producer in enumerate(world.producers) if producer.name == name)

    def _step(self, world: World, index: int, copy: Copy) -> Iterator[tuple[str, World]]:
        def become(changed: Copy | None, **others: Any) -> World:
            copies = (*world.copies[:index], *((changed,) if changed else ()), *world.copies[index + 1 :])
            return world._replace(copies=copies, **others)

        without = self.rules.without
        if copy.lost is not None:
            yield self._rejoin(world, copy, copy.lost, become)
            return
        if copy.pc in ("run", "commit") and world.rejoins < self.rules.rejoins:
            for lane, region in enumerate(_regions(copy.lanes)):
                where, producer = self._find(world, region)
                producer = producer._replace(epoch=producer.epoch + 1)
                fences = (*(f for f in copy.fences if f[0] != region), (region, producer.epoch))
                lost = become(copy._replace(lost=lane, fences=fences), rejoins=world.rejoins + 1)
                yield f"loses {region} and starts a new worker", self._set(lost, where, producer)
        match copy.pc:
            case "announce":
                mine = f"{copy.attempt}.{copy.turns}"
                folder = world.folder._replace(starting=world.folder.starting | {mine})
                yield "announces itself", become(copy._replace(pc="fence", turns=copy.turns + 1), folder=folder)
            case "fence":
                names = _to_fence(copy.seen, copy.lanes, copy.fresh, without)
                where, producer = self._find(world, names[copy.at])
                producer = producer._replace(epoch=producer.epoch + 1)
                fences = (*(f for f in copy.fences if f[0] != producer.name), (producer.name, producer.epoch))
                after = copy._replace(fences=fences, at=copy.at + 1)
                if after.at == len(names):
                    after = after._replace(pc="markers", at=0)
                yield f"fences {producer.name}", self._set(become(after), where, producer)
            case "markers":
                names = _to_fence(copy.seen, copy.lanes, copy.fresh, without)
                _, producer = self._find(world, names[copy.at])
                after = copy._replace(markers=(*copy.markers, (producer.name, producer.marker)), at=copy.at + 1)
                if after.at == len(names):
                    after = after._replace(pc="decide" if without == "reread" else "reread", at=0)
                yield f"reads the marker of {producer.name}", become(after)
            case "reread":
                if needs_reread(contents(copy.seen), contents(world.folder)):
                    pc = "fence" if without in ("fence", "announce") else "announce"
                    after = copy._replace(pc=pc, seen=world.folder, markers=(), fences=())
                else:
                    after = copy._replace(pc="decide", seen=world.folder)
                yield "reads the folder again", become(after)
            case "decide":
                yield self._decide(world, copy, become)
            case "claim":
                region = _regions(copy.lanes)[copy.at]
                where, producer = self._find(world, region)
                if not self._is_alive(copy, producer):
                    yield "is fenced before its claim", become(None)
                    return
                assert copy.last is not None
                after = copy._replace(at=copy.at + 1)
                folder = world.folder
                if after.at == copy.lanes:
                    after = after._replace(pc="prune", at=0)
                    folder = folder._replace(starting=folder.starting - copy.known)
                producer = producer._replace(marker=manifest(copy.last).marker, truth=copy.last.id)
                visible = list(world.visible)
                if copy.last.is_rewind:
                    for split, done in dict(copy.last.positions)[region]:
                        visible[int(split[1:])] = done
                changed = self._set(become(after, folder=folder), where, producer)
                yield f"claims {region}", changed._replace(visible=tuple(visible))
            case "prune":
                assert copy.last is not None
                pc = "finish" if self._is_final(copy.last) and copy.last.kind is Kind.PREPARED else "run"
                after = copy._replace(pc=pc, coming=None)
                folder = _after_prune(world.folder, copy.last.id)
                if without == "keep_epoch":
                    folder = folder._replace(specs=frozenset(s for s in folder.specs if s.id >= copy.last.id))
                yield "prunes", become(after, folder=folder)
            case "run":
                for spec in self._checkpoints(world, copy):
                    pc = {"commit_first": "flag", "manifest_first": "commit"}.get(without, "commit")
                    after = copy._replace(pc=pc, coming=spec)
                    folder = world.folder
                    if without != "manifest_first":
                        folder = self._written(folder, spec)
                    if without == "prune_last":
                        folder = folder._replace(specs=frozenset(s for s in folder.specs if s.id >= spec.id))
                    yield f"prepares {spec.id.number} at {spec.splits}", become(after, folder=folder)
            case "commit":
                yield self._commit(world, copy, become)
            case "flag":
                assert copy.coming is not None
                at = copy.coming.id
                folder = world.folder
                if without == "manifest_first":
                    folder = self._written(folder, copy.coming)
                folder = folder._replace(committed=folder.committed | {(at.epoch, at.number)})
                after = copy._replace(pc="prune", last=copy.coming)
                if without == "commit_first":
                    after = copy._replace(pc="commit")
                yield f"flags {at.number} as committed", become(after, folder=folder)
            case "finish":
                assert copy.last is not None
                at = copy.last.id
                folder = world.folder._replace(finished=world.folder.finished | {(at.epoch, at.number)})
                yield "finishes", self._finished(become(None, folder=folder), at.epoch)
            case "fenced":
                yield self._fenced(world, copy, become)
            case unknown:
                raise AssertionError(unknown)

    def _decide(self, world: World, copy: Copy, become: Become) -> tuple[str, World]:
        found = contents(copy.seen)
        newest = found.newest
        markers = dict(copy.markers)
        if self.rules.without == "attempt" and newest is not None:
            markers = {name: _by_number(marker, newest) for name, marker in markers.items()}
        decision = decide(
            found,
            {} if newest is None else {region: markers.get(region) for region in newest.regions},
            {region: markers[region] for region in _regions(copy.lanes)},
            fresh=copy.fresh,
            assume=copy.assume,
            chosen=None if copy.chosen is None else manifest(copy.chosen),
        )
        match decision:
            case Refuse(reason):
                return self._refused(world, copy, reason, become)
            case AlreadyFinished():
                return "finds the job finished", self._finished(become(None), decision.manifest.id.epoch)
            case StartFresh():
                lanes = _regions(copy.lanes)
                split_ids = [_split(n) for n in range(world.known)]
                dealt = deal(split_ids, range(copy.lanes))
                regions = {region: dict.fromkeys(dealt[lane], 0) for lane, region in enumerate(lanes)}
                incarnation = f"i{copy.attempt}"
            case Restore():
                layout = {
                    region: RegionLayout({"source": (lane,)}, _location(region), holds={"source": Holds.SPLITS})
                    for lane, region in enumerate(_regions(copy.lanes))
                }
                restored = redistribute(decision, layout, max_parallelism=128)
                if isinstance(restored, Refuse):
                    raise Wrong("undecidable", restored.reason)
                regions = {
                    region: {split: int(str(data["done"])) for split, data in _splits_of(snapshot).items()}
                    for region, snapshot in restored.items()
                }
                regions = _with_new(regions, world.known)
                incarnation = f"i{copy.attempt}" if newest is None else newest.incarnation
        at = next_id(found, markers.values(), copy.attempt)
        if self.rules.without == "attempt":
            at = replace(at, epoch=1)
        spec = Spec(
            at,
            Kind.BASELINE,
            incarnation,
            tuple((region, tuple(sorted(own.items()))) for region, own in sorted(regions.items())),
            superseded=superseded(found, markers.values(), incarnation),
            is_rewind=copy.fresh or copy.chosen is not None or self._continues_rewind(copy.seen, newest),
        )
        own = tuple(fence for fence in copy.fences if fence[0] in _regions(copy.lanes))
        known = world.folder.starting
        after = Copy(copy.attempt, "claim", copy.lanes, Folder(), fences=own, last=spec, known=known)
        if self.rules.without == "claim":
            after = after._replace(pc="prune")
        if self.rules.without == "baseline":
            # As if the checkpoint that was restored were this attempt's own.
            spec = spec._replace(id=replace(at, epoch=max(at.epoch - 1, 1), number=at.number - 1))
            return "restores", become(after._replace(pc="run", last=spec))
        if self.rules.without not in ("exclusive", "attempt") and self._exists(world.folder, spec):
            return "loses the race for the epoch", become(None)
        # Whoever else is starting will find this baseline, and announce itself anew.
        others = frozenset(one for one in known if not one.startswith(f"{copy.attempt}."))
        folder = self._written(world.folder, spec)._replace(starting=others)
        is_over = any(other.id.epoch > at.epoch for other in folder.specs)
        if self.rules.without not in ("later_epoch", "attempt") and is_over:
            # The real check comes behind the creation, as a step of its own; a copy that stops earlier is one that is
            # paused for ever.
            return f"takes epoch {at.epoch} and finds a later one", become(None, folder=folder)
        return f"makes baseline {at.number} of epoch {at.epoch}", become(after, folder=folder)

    @staticmethod
    def _continues_rewind(folder: Folder, newest: Manifest | None) -> bool:
        return any(spec.is_rewind for spec in folder.specs if newest is not None and spec.id == newest.id)

    def _refused(self, world: World, copy: Copy, reason: str, become: Become) -> tuple[str, World]:
        if not world.expiries and not world.losses:
            raise Wrong("undecidable", reason)
        newest = contents(copy.seen).newest
        if world.expiries and not world.losses and copy.assume is None and newest is not None:
            # The user looks at the output, knows the truth, and says so, if one word is true of all regions.
            markers = dict(copy.markers)
            doubtful = [region for region in newest.regions if markers[region] is None]
            truths = {self._find(world, region)[1].truth == newest.id for region in doubtful}
            if len(truths) == 1:
                assume = Assume.COMMITTED if truths.pop() else Assume.ABORTED
                return f"is told --assume-{assume.value}", become(copy._replace(assume=assume))
        return "refuses", become(None)

    def _checkpoints(self, world: World, copy: Copy) -> Iterator[Spec]:
        assert copy.last is not None
        base = {region: dict(own) for region, own in copy.last.positions}
        base = _with_new(base, world.known)
        places = [(region, split) for region in sorted(base) for split in sorted(base[region])]
        for reached in product(*(range(base[region][split], self.full + 1) for region, split in places)):
            positions: dict[str, dict[str, int]] = {region: {} for region in base}
            for (region, split), done in zip(places, reached, strict=True):
                positions[region][split] = done
            at = SnapshotId(copy.last.id.epoch, copy.last.id.number + 1, copy.attempt)
            spec = Spec(
                at,
                Kind.PREPARED,
                copy.last.incarnation,
                tuple((region, tuple(sorted(own.items()))) for region, own in sorted(positions.items())),
                before=copy.last.id,
            )
            if positions != base or self._is_final(spec):
                yield spec

    def _commit(self, world: World, copy: Copy, become: Become) -> tuple[str, World]:
        assert copy.coming is not None
        assert copy.last is not None
        region, own = copy.coming.positions[copy.at]
        where, producer = self._find(world, region)
        if not self._is_alive(copy, producer):
            return f"is fenced when it commits {region}", become(copy._replace(pc="fenced", at=0))
        visible = list(world.visible)
        base = copy.last.splits
        for split, done in own:
            n, begin = int(split[1:]), base.get(split, 0)
            if done > begin:
                if begin != visible[n]:
                    kind = "repeated" if begin < visible[n] else "lost"
                    raise Wrong(kind, f"{split} shows {visible[n]} records, {copy.attempt} adds {begin + 1} to {done}")
                visible[n] = done
        after = copy._replace(at=copy.at + 1)
        if after.at == len(copy.coming.positions):
            after = after._replace(pc="flag", at=0)
            if self.rules.without == "commit_first":
                after = after._replace(pc="prune", last=copy.coming)
        producer = producer._replace(marker=manifest(copy.coming).marker, truth=copy.coming.id)
        changed = self._set(become(after), where, producer)
        return f"commits {copy.coming.id.number} in {region}", changed._replace(visible=tuple(visible))

    def _rejoin(self, world: World, copy: Copy, lane: int, become: Become) -> tuple[str, World]:
        assert copy.last is not None
        region = _regions(copy.lanes)[lane]
        marker = self._find(world, region)[1].marker
        prepared = None if copy.coming is None else manifest(copy.coming)
        if self.rules.without == "rejoin":
            marker = (prepared or manifest(copy.last)).marker
        is_overtaken = any(spec.id.epoch > copy.last.id.epoch for spec in world.folder.specs)
        is_overtaken |= not world.folder.starting <= copy.known
        if is_overtaken or on_lane_lost(manifest(copy.last), prepared, {region: marker}) is None:
            if world.starts == self.rules.starts:
                return "cannot go on, and may not start again", become(None)
            return f"cannot go on without {region}, and starts again", self._begin(become(None), copy.lanes)
        after = copy._replace(lost=None)
        if copy.coming is not None and lane >= copy.at:
            # What its worker was to commit is committed, as far as it knows. Regions are in the lanes' order.
            after = after._replace(at=max(copy.at, lane + 1)) if lane == copy.at else after
            if after.at == copy.lanes:
                after = after._replace(pc="flag", at=0)
        return f"has {region} back", become(after)

    def _fenced(self, world: World, copy: Copy, become: Become) -> tuple[str, World]:
        assert copy.last is not None
        markers = [self._find(world, region)[1].marker for region in _regions(copy.lanes)]
        verdict = on_fenced(Marker(copy.last.incarnation, copy.last.id), markers, claimed=True, waited_ms=1, grace_ms=1)
        if isinstance(verdict, OtherCopy):
            return f"stops, as {verdict.snapshot.attempt} took over", become(None)
        assert isinstance(verdict, TimedOut)
        if world.starts == self.rules.starts:
            return "may not start again", become(None)
        return "takes it for a timeout and starts again", self._begin(become(None), copy.lanes)

    def _finished(self, world: World, epoch: int) -> World:
        newest = contents(world.folder).newest
        if (newest is not None and newest.id.epoch > epoch) or (world.losses and world.rewinds):
            return world  # somebody has begun again since, by --fresh or --from
        if any(seen != self.full for seen in world.visible[: world.known]):
            raise Wrong("unfinished", f"finished, and the output shows {world.visible}")
        return world._replace(done=True)

    def _is_final(self, spec: Spec) -> bool:
        done = spec.splits
        return len(done) == self.rules.splits and all(n == self.full for n in done.values())

    def _is_alive(self, copy: Copy, producer: Producer) -> bool:
        return self.rules.without == "fence" or dict(copy.fences).get(producer.name) == producer.epoch

    @staticmethod
    def _exists(folder: Folder, spec: Spec) -> bool:
        return manifest_name(manifest(spec)) in {manifest_name(manifest(other)) for other in folder.specs}

    def _written(self, folder: Folder, spec: Spec) -> Folder:
        name = manifest_name(manifest(spec))
        others = frozenset(other for other in folder.specs if manifest_name(manifest(other)) != name)
        return folder._replace(specs=others | {spec})


def _split(n: int) -> str:
    return f"s{n}"


def _splits_of(snapshot: RegionSnapshot) -> dict[str, dict[str, object]]:
    found = snapshot.operators.get("source")
    return {} if found is None else {split: dict(data) for split, data in found.splits.items()}


def _with_new(regions: dict[str, dict[str, int]], known: int) -> dict[str, dict[str, int]]:
    """With the splits that no region reads yet, each from its beginning: what discovery gives."""
    read = {split for own in regions.values() for split in own}
    for n in range(known):
        if _split(n) not in read:
            region = sorted(regions)[n % len(regions)]
            regions[region] = {**regions[region], _split(n): 0}
    return regions


def _by_number(marker: Marker | None, newest: Manifest) -> Marker | None:
    """The marker as it looks to one who compares numbers alone."""
    if marker is None:
        return None
    if marker.snapshot.number == newest.id.number:
        return newest.marker
    return Marker(newest.incarnation, newest.predecessor or marker.snapshot)


class Explored(NamedTuple):
    worlds: int
    finished: int


def explore(rules: Rules) -> Explored:
    """Every reachable world, breadth first, then whether each could still finish. Raises `Wrong` with the history."""
    model = Model(rules)
    # Without a start that could end in a refusal, every world with a start left must be able to finish.
    must_finish = not (rules.expiries or rules.losses or rules.rewinds)
    origin: dict[World, tuple[World, str] | None] = {model.start: None}
    back: dict[World, list[World]] = {}
    todo = deque([model.start])
    ended: list[World] = []

    def history(world: World) -> list[str]:
        labels: list[str] = []
        while (up := origin[world]) is not None:
            world, label = up
            labels.append(label)
        return labels[::-1]

    while todo:
        world = todo.popleft()
        try:
            for label, after in model.successors(world):
                if must_finish:
                    back.setdefault(after, []).append(world)
                if after not in origin:
                    origin[after] = (world, label)
                    if model.is_finished(after):
                        ended.append(after)
                    todo.append(after)
        except Wrong as wrong:
            wrong.history = history(world)
            raise
    if must_finish:
        can = set(ended)
        work = deque(ended)
        while work:
            for before in back.get(work.popleft(), ()):
                if before not in can:
                    can.add(before)
                    work.append(before)
        for world in origin:
            if world.starts < rules.starts and world not in can:
                stuck = Wrong("stuck", "a start is left, and no way to the end")
                stuck.history = history(world)
                raise stuck
    return Explored(len(origin), len(ended))


def wander(rules: Rules, walks: int, seed: int) -> Explored:
    """Random histories, for worlds that are too large to exhaust. Raises `Wrong` with the history."""
    rng = random.Random(seed)
    model = Model(rules)
    steps = finished = 0
    for _ in range(walks):
        world, story, awake = model.start, [], ""
        try:
            while nexts := list(model.successors(world)):
                if rng.random() < 0.15:
                    awake = f"a{rng.randint(1, rules.starts)} "  # bursts of one copy, as pauses of the others make them
                # A start or a stroke of fate is rarer than a step.
                own = [n for n in nexts if n[0].startswith(awake)] if awake else []
                steps_only = [n for n in nexts if n[0].startswith("a")]
                label, world = rng.choice(own or (steps_only if steps_only and rng.random() < 0.8 else nexts))
                story.append(label)
                steps += 1
        except Wrong as wrong:
            wrong.history = story
            raise
        finished += model.is_finished(world)
    return Explored(steps, finished)


def main() -> None:
    """Explore or wander with the rules that the command line sets."""
    parser = argparse.ArgumentParser(description=explore.__doc__)
    for field in fields(Rules):
        if field.name == "layouts":
            parser.add_argument("--layouts", type=int, nargs="+", default=[2], metavar="LANES")
        elif field.name == "without":
            parser.add_argument("--without", default="", choices=["", *WITHOUT])
        else:
            parser.add_argument(f"--{field.name}", type=int, default=field.default)
    parser.add_argument("--walks", type=int, default=0, help="wander at random instead of exploring everything")
    parser.add_argument("--seed", type=int, default=1)
    arguments = vars(parser.parse_args())
    walks, seed = arguments.pop("walks"), arguments.pop("seed")
    rules = Rules(**{**arguments, "layouts": tuple(arguments["layouts"])})
    try:
        found = wander(rules, walks, seed) if walks else explore(rules)
    except Wrong as wrong:
        raise SystemExit("\n  ".join([str(wrong), *wrong.history])) from None
    what = f"{walks} histories of {found.worlds} steps, seed {seed}" if walks else f"{found.worlds} worlds"
    print(f"{what}, {found.finished} finished, none wrong: {asdict(rules)}")


if __name__ == "__main__":
    main()
