"""Small manifests and folders to decide about."""

from __future__ import annotations

from dataclasses import replace

from headrace.checkpoint.folder import FolderContents
from headrace.checkpoint.manifest import FileRef, KeyedFile, Kind, Manifest, OperatorSnapshot, RegionSnapshot
from headrace.checkpoint.marker import Marker, SnapshotId

JOB = "job"
INCARNATION = "1ncarnat10n"


def at(number: int, epoch: int = 1, attempt: str | None = None) -> SnapshotId:
    return SnapshotId(epoch, number, attempt or f"a{epoch}")


def location(name: str) -> dict[str, str | int]:
    return {"transactional_id": name, "topic": "events", "partition": 0}


def region(name: str | None, done: int = 0, *files: FileRef) -> RegionSnapshot:
    """A region with one source `source`, whose split is named like the region, and one keyed operator `count`."""
    operators = {"source": OperatorSnapshot({f"split-{name}": {"offset": done}})}
    if files:
        operators["count"] = OperatorSnapshot(keyed=tuple(KeyedFile(file, 0, 127) for file in files))
    return RegionSnapshot(operators, None if name is None else location(name))


def baseline(number: int = 1, epoch: int = 1, attempt: str | None = None, **regions: RegionSnapshot) -> Manifest:
    regions = regions or {"r": region("r", number)}
    return Manifest(
        job=JOB,
        incarnation=INCARNATION,
        id=at(number, epoch, attempt),
        kind=Kind.BASELINE,
        created_at_ms=1_700_000_000_000,
        parallelism=1,
        regions=regions,
        transactions=tuple(r.location for r in regions.values() if r.location is not None),
        headrace_version="0.1.0",
    )


def checkpoint(before: Manifest, number: int | None = None, **regions: RegionSnapshot) -> Manifest:
    """What the same attempt prepares next."""
    number = before.id.number + 1 if number is None else number
    return replace(
        before,
        id=replace(before.id, number=number),
        kind=Kind.PREPARED,
        predecessor=before.id,
        regions=regions or {name: region(name, number) for name in before.regions},
    )


def folder(
    *manifests: Manifest, committed: tuple[Manifest, ...] = (), finished: Manifest | None = None
) -> FolderContents:
    return FolderContents(
        tuple(sorted(manifests, key=lambda manifest: manifest.id)),
        frozenset((m.id.epoch, m.id.number) for m in committed),
        frozenset([(finished.id.epoch, finished.id.number)] if finished else []),
    )


def marker(snapshot: Manifest | SnapshotId, incarnation: str = INCARNATION) -> Marker:
    return Marker(incarnation, snapshot.id if isinstance(snapshot, Manifest) else snapshot)
