"""The manifest: one durable snapshot of a job, as a value and as a file.

A manifest says where every split stands, which files hold the keyed state, and where the proof of its commit (its
marker) is to be looked for. It is written once and never changed: whether it was committed is told by a flag file next
to it, and by the markers.

The file is JSON that a person can read, with a SHA-256 over its content, so that a half-written or edited one is told
apart from a whole one.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Final, TypeAlias, cast

from headrace.checkpoint.marker import Marker, SnapshotId
from headrace.connector import JsonValue
from headrace.errors import StateError

FORMAT: Final = 2
"""Format 1 also said of each region whether it had ended, and held a state of enumerators: nothing ever read them."""

MAX_PARALLELISM: Final = 128

Location: TypeAlias = Mapping[str, str | int]
"""Where a region's marker is kept, and its transactional id: `Transaction.location`."""


class Kind(Enum):
    """What a manifest is before anything is known about its commit."""

    BASELINE = "BASELINE"
    """What a start resolved: state, layout and transactional ids. Usable as soon as it is durable."""
    PREPARED = "PREPARED"
    """A checkpoint: usable in the regions that committed it."""
    SAVEPOINT = "SAVEPOINT"
    """A copy of a committed checkpoint, complete in a folder of its own."""


@dataclass(frozen=True, slots=True)
class FileRef:
    """A state file, by its name in the snapshot's folder. Files never change."""

    name: str
    size_bytes: int
    sha256: str


@dataclass(frozen=True, slots=True)
class KeyedFile:
    """Keyed state of the key groups `first_group` to `last_group`, both included."""

    file: FileRef
    first_group: int
    last_group: int


@dataclass(frozen=True, slots=True)
class OperatorSnapshot:
    """One operator's state in one region.

    `splits` are a source's, encoded, by split id; `keyed` are the files of a keyed operator. `name` is what the program
    called the operator, for people; empty in manifests of format 1.
    """

    splits: Mapping[str, Mapping[str, JsonValue]] = field(default_factory=dict)
    keyed: tuple[KeyedFile, ...] = ()
    name: str = ""

    @property
    def is_empty(self) -> bool:
        """Whether nothing would be lost without it."""
        return not self.splits and not self.keyed


@dataclass(frozen=True, slots=True)
class RegionSnapshot:
    """One region: its operators by uid, and where its marker is kept (None: no transactional writer in it)."""

    operators: Mapping[str, OperatorSnapshot]
    location: Location | None = None


@dataclass(frozen=True, slots=True)
class Manifest:
    """One snapshot of a job.

    `predecessor` is the snapshot that a region falls back to which did not commit this one: always of the same attempt,
    hence with the same regions. A baseline has none. `transactions` are the locations of every transaction this attempt
    uses. `superseded` (of a baseline) are other incarnations whose markers may still stand in its regions, until they
    are claimed. `created_at_ms` is for people; nothing is decided by it.
    """

    job: str
    incarnation: str
    id: SnapshotId
    kind: Kind
    created_at_ms: int
    parallelism: int
    regions: Mapping[str, RegionSnapshot]
    predecessor: SnapshotId | None = None
    transactions: tuple[Location, ...] = ()
    superseded: tuple[str, ...] = ()
    max_parallelism: int = MAX_PARALLELISM
    headrace_version: str = ""

    @property
    def marker(self) -> Marker:
        """What a region stores with the commit of this snapshot (a baseline's: its claim)."""
        return Marker(self.incarnation, self.id)

    @property
    def files(self) -> tuple[FileRef, ...]:
        """Every state file that the manifest names."""
        return tuple(
            keyed.file
            for region in self.regions.values()
            for operator in region.operators.values()
            for keyed in operator.keyed
        )


def encode_manifest(manifest: Manifest) -> bytes:
    """The manifest as the content of a file."""
    content = {
        "format": FORMAT,
        "job": manifest.job,
        "incarnation": manifest.incarnation,
        "id": _encode_id(manifest.id),
        "kind": manifest.kind.value,
        "created_at_ms": manifest.created_at_ms,
        "parallelism": manifest.parallelism,
        "max_parallelism": manifest.max_parallelism,
        "predecessor": manifest.predecessor and _encode_id(manifest.predecessor),
        "transactions": [dict(location) for location in manifest.transactions],
        "superseded": list(manifest.superseded),
        "regions": {name: _encode_region(region) for name, region in manifest.regions.items()},
        "headrace_version": manifest.headrace_version,
    }
    content["sha256"] = _digest(content)
    return (json.dumps(content, indent=1, allow_nan=False) + "\n").encode()


def decode_manifest(data: bytes, name: str, job: str | None = None) -> Manifest:
    """The inverse of `encode_manifest`; `name` is the file's, for errors.

    Raises `StateError` for content that is half-written or altered, from a newer format, or of another job than `job`.
    """
    try:
        content = json.loads(data)
    except ValueError:
        content = None
    if not isinstance(content, dict) or not isinstance(content.get("format"), int):
        raise StateError(f"manifest {name} is half-written or damaged: it is no JSON of a manifest. {_CURE}")
    if content["format"] > FORMAT:
        raise StateError(
            f"manifest {name} has format {content['format']}, written by Headrace {content.get('headrace_version')}; "
            f"this one reads up to {FORMAT}: use that version, or a newer one"
        )
    expected = content.pop("sha256", None)
    if expected != _digest(content):
        raise StateError(f"manifest {name} is half-written or altered: its content does not match its SHA-256. {_CURE}")
    manifest = _decode(content)
    if job is not None and manifest.job != job:
        raise StateError(
            f"manifest {name} belongs to job {manifest.job!r}, not to {job!r}; set another "
            "`execution.checkpointing.dir`, or give the job another name"
        )
    return manifest


_CURE: Final = (
    "Restore the file from a copy, start from another snapshot with `--from` (what came after it is produced again), "
    "or start over with `--fresh`"
)


def _digest(content: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def _encode_id(at: SnapshotId) -> dict[str, JsonValue]:
    return {"epoch": at.epoch, "number": at.number, "attempt": at.attempt}


def _encode_region(region: RegionSnapshot) -> dict[str, Any]:
    return {
        "location": None if region.location is None else dict(region.location),
        "operators": {
            uid: {
                "name": operator.name,
                "splits": {split_id: dict(split) for split_id, split in operator.splits.items()},
                "keyed": [
                    {
                        "name": keyed.file.name,
                        "size_bytes": keyed.file.size_bytes,
                        "sha256": keyed.file.sha256,
                        "first_group": keyed.first_group,
                        "last_group": keyed.last_group,
                    }
                    for keyed in operator.keyed
                ],
            }
            for uid, operator in region.operators.items()
        },
    }


def _decode(content: dict[str, Any]) -> Manifest:
    # The digest holds, so this is what an `encode_manifest` wrote: a key that is missing is our own defect.
    predecessor = content["predecessor"]
    return Manifest(
        job=content["job"],
        incarnation=content["incarnation"],
        id=SnapshotId(**content["id"]),
        kind=Kind(content["kind"]),
        created_at_ms=content["created_at_ms"],
        parallelism=content["parallelism"],
        max_parallelism=content["max_parallelism"],
        predecessor=None if predecessor is None else SnapshotId(**predecessor),
        transactions=tuple(content["transactions"]),
        superseded=tuple(content["superseded"]),
        regions={name: _decode_region(region) for name, region in content["regions"].items()},
        headrace_version=content["headrace_version"],
    )


def _decode_region(content: dict[str, Any]) -> RegionSnapshot:
    return RegionSnapshot(
        location=cast("Location | None", content["location"]),
        operators={
            uid: OperatorSnapshot(
                splits=operator["splits"],
                keyed=tuple(
                    KeyedFile(
                        FileRef(keyed["name"], keyed["size_bytes"], keyed["sha256"]),
                        keyed["first_group"],
                        keyed["last_group"],
                    )
                    for keyed in operator["keyed"]
                ),
                name=operator.get("name", ""),
            )
            for uid, operator in content["operators"].items()
        },
    )
