"""What a checkpoint folder holds, as values: names, contents, and what may be removed.

| file | is |
|---|---|
| `epoch-000003.json` | the baseline of epoch 3. Its name has neither number nor attempt: creating it takes the epoch |
| `epoch-000003-checkpoint-0000000018.json` | a checkpoint |
| `….committed`, `….finished` | a flag: that checkpoint is committed in every region; it was the job's last |
| `epoch-000003-ATTEMPT-0000000018-LABEL.state` | a state file, made by that attempt for that number |
| `.….tmp` | a file that is being written |
| `starting-NAME` | somebody is about to shut all others out |
| `lock` | who works here |

Invariants. Files are created exclusively and never changed. A manifest names state files of its own epoch only (a
baseline takes over older ones by linking them under new names), so that removing an older epoch's files cannot take
anything from a newer snapshot.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum
from typing import Final

from headrace.checkpoint.manifest import Kind, Manifest
from headrace.checkpoint.marker import SnapshotId
from headrace.errors import InternalError

_MANIFEST: Final = re.compile(r"epoch-(\d{6,})(?:-checkpoint-(\d{10,}))?\.json")
_FLAG: Final = re.compile(r"epoch-(\d{6,})-checkpoint-(\d{10,})\.(committed|finished)")
_FILE: Final = re.compile(
    r"epoch-(\d{6,})-([0-9a-z]+)-(\d{10,})-([\w.-]+)\.state|\.epoch-(\d{6,})-([0-9a-z]+)-(\d{10,})-[\w.-]+\.tmp"
)
_UNSAFE: Final = re.compile(r"[^A-Za-z0-9._-]")


class Status(Enum):
    """How far a snapshot is known to have come."""

    BASELINE = "BASELINE"
    PREPARED = "PREPARED"
    COMMITTED = "COMMITTED"
    FINISHED = "FINISHED"


@dataclass(frozen=True, slots=True)
class Damaged:
    """A manifest that cannot be read; `problem` says why, and the cure. `number` is 0 for a baseline."""

    name: str
    epoch: int
    number: int
    problem: str


@dataclass(frozen=True, slots=True)
class FolderContents:
    """What one reading of a folder found. `manifests` are sorted, oldest first; flags are by (epoch, number)."""

    manifests: tuple[Manifest, ...] = ()
    committed: frozenset[tuple[int, int]] = frozenset()
    finished: frozenset[tuple[int, int]] = frozenset()
    damaged: tuple[Damaged, ...] = ()

    @property
    def newest(self) -> Manifest | None:
        """The last readable manifest in the order of recovery."""
        return self.manifests[-1] if self.manifests else None

    def find(self, at: SnapshotId | None) -> Manifest | None:
        """The manifest with this id, if it is there."""
        return next((manifest for manifest in self.manifests if manifest.id == at), None)

    def status(self, manifest: Manifest) -> Status:
        """How far this manifest of the folder has come."""
        if manifest.kind is Kind.BASELINE:
            return Status.BASELINE
        key = (manifest.id.epoch, manifest.id.number)
        if key in self.finished:
            return Status.FINISHED
        return Status.COMMITTED if key in self.committed else Status.PREPARED


def folder_name(job: str) -> str:
    """A folder name for a job: readable, safe in every file system, and different for different jobs.

    >>> folder_name("rss-counts"), folder_name("news: per source")
    ('rss-counts', 'news__per_source-00213f5f')
    """
    safe = _UNSAFE.sub("_", job)[:80].lstrip(".")
    return safe if job and safe == job else f"{safe}-{hashlib.sha256(job.encode()).hexdigest()[:8]}"


def manifest_name(manifest: Manifest) -> str:
    """The file name of a baseline or a checkpoint. Two attempts at one epoch give their baselines the same name."""
    match manifest.kind:
        case Kind.BASELINE:
            return f"epoch-{manifest.id.epoch:06}.json"
        case Kind.PREPARED:
            return f"{_checkpoint(manifest.id)}.json"
        case Kind.SAVEPOINT:
            raise InternalError("a savepoint has a folder of its own")


def flag_name(at: SnapshotId, status: Status) -> str:
    """The file name that flags a checkpoint as COMMITTED or FINISHED."""
    return f"{_checkpoint(at)}.{status.value.lower()}"


def state_name(at: SnapshotId, label: str) -> str:
    """The file name for state that attempt `at.attempt` makes for `at.number`; `label` tells its files apart."""
    return f"epoch-{at.epoch:06}-{at.attempt}-{at.number:010}-{folder_name(label)}.state"


def temporary_name(at: SnapshotId, final: str) -> str:
    """A name for `final` while it is being written by attempt `at.attempt`."""
    return f".epoch-{at.epoch:06}-{at.attempt}-{at.number:010}-{final}.tmp"


def manifest_key(name: str) -> tuple[int, int] | None:
    """(epoch, number) of a manifest's file name, number 0 for a baseline; None for any other file."""
    match = _MANIFEST.fullmatch(name)
    return None if match is None else (int(match[1]), int(match[2] or 0))


def flag_key(name: str, status: Status) -> tuple[int, int] | None:
    """(epoch, number) of a file name that flags this status; None for any other file."""
    match = _FLAG.fullmatch(name)
    return (int(match[1]), int(match[2])) if match is not None and match[3] == status.value.lower() else None


def removable(names: Iterable[str], contents: FolderContents, own: SnapshotId, num_retained: int) -> list[str]:
    """The files that no recovery could still name, in the order to remove them: manifests before what they need.

    `own` is the caller's snapshot, committed (or a claimed baseline): recovery begins at it or later. Kept are it and
    everything newer, the `num_retained` newest committed checkpoints up to it, what a kept PREPARED checkpoint falls
    back to, every file that a kept manifest names, and all files that a newer attempt may be working on.

    The baseline of the caller's epoch stays too, though no recovery needs it and its state files go: while its name is
    there, no copy that was about to take this epoch, and slept, can take it again.
    """
    kept = [manifest for manifest in contents.manifests if manifest.id >= own]
    older = [manifest for manifest in contents.manifests if manifest.id <= own]
    completed = [m for m in older if contents.status(m) in (Status.COMMITTED, Status.FINISHED)]
    kept += completed[-num_retained:]
    kept += [
        before
        for manifest in kept
        if contents.status(manifest) is Status.PREPARED
        if (before := contents.find(manifest.predecessor)) is not None
    ]
    keep = {manifest_name(manifest) for manifest in kept}
    keep_flags = {(manifest.id.epoch, manifest.id.number) for manifest in kept}
    keep_files = {file.name for manifest in kept for file in manifest.files}
    here = (own.epoch, own.number)

    manifests, flags, files = [], [], []
    for name in sorted(names):
        if (key := manifest_key(name)) is not None:
            if name not in keep and key < here and key != (own.epoch, 0):
                manifests.append(name)
        elif (match := _FLAG.fullmatch(name)) is not None:
            key = (int(match[1]), int(match[2]))
            if key not in keep_flags and key < here:
                flags.append(name)
        elif (match := _FILE.fullmatch(name)) is not None and name not in keep_files:
            epoch, attempt, number = (match[i] or match[i + 4] for i in (1, 2, 3))
            # Another attempt at our epoch has lost it, or is about to.
            if int(epoch) < own.epoch or (
                int(epoch) == own.epoch and (attempt != own.attempt or int(number) <= own.number)
            ):
                files.append(name)
    return manifests + flags + files


def _checkpoint(at: SnapshotId) -> str:
    return f"epoch-{at.epoch:06}-checkpoint-{at.number:010}"
