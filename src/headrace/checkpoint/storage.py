"""Reading and writing a checkpoint folder.

Theory of operation. Everything durable is made the same way: written under a temporary name, synced, linked to its
final name (which fails if that exists), and the folder synced. So a name is there with its whole content or not at all,
and of two copies that create one name, exactly one does. A baseline's name holds nothing but its epoch: creating it is
how an attempt takes the epoch.

Invariants. A file is never overwritten. A state file is durable before a manifest names it, a manifest before any
marker or flag names it. What `removable` does not list is never removed.

A failed write leaves nothing behind but, at worst, a file that nobody names, or a manifest whose number must not be
used again: take the next one.

Who calls this: the coordinator, from one thread; `headrace checkpoints` reads without the lock.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import json
import os
import socket
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from headrace.checkpoint.folder import (
    Damaged,
    FolderContents,
    Status,
    flag_key,
    flag_name,
    folder_name,
    manifest_key,
    manifest_name,
    removable,
    state_name,
    temporary_name,
)
from headrace.checkpoint.manifest import (
    FileRef,
    KeyedFile,
    Kind,
    Manifest,
    RegionSnapshot,
    decode_manifest,
    encode_manifest,
)
from headrace.checkpoint.marker import SnapshotId
from headrace.crash_points import crash_point
from headrace.errors import ExternalError, StateError

SAVEPOINT_NAME: Final = "savepoint.json"
_STARTING: Final = "starting-"
_READ_ATTEMPTS: Final = 100
_BLOCK_BYTES: Final = 1 << 20
_LOOKS_WITHIN_S: Final = 0.3
"""How long somebody who only looks whether a job runs may have its lock, at most."""


class EpochTaken(ExternalError):
    """Another copy of the job took this epoch, or a later one: back off for a random while and start over."""


@dataclass(frozen=True, slots=True)
class SnapshotFiles:
    """The state files next to a manifest."""

    path: Path

    def read_state(self, ref: FileRef) -> bytes:
        """The content of a state file; raises `StateError` unless it is exactly what was written."""
        file = self.path / ref.name
        try:
            with _reporting("read", file, FileNotFoundError):
                data = file.read_bytes()
        except FileNotFoundError:
            raise StateError(_missing(file)) from None
        if len(data) != ref.size_bytes or hashlib.sha256(data).hexdigest() != ref.sha256:
            raise StateError(
                f"state file {file} is half-written or altered: {len(data)} bytes, of {ref.size_bytes} expected, or "
                "another SHA-256; restore it from a copy, or start from another snapshot with `--from`"
            )
        return data


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A snapshot picked by path: its manifest and its files."""

    manifest: Manifest
    files: SnapshotFiles


class CheckpointFolder:
    """The snapshots of one job, in a folder of its own under `root`."""

    def __init__(self, root: Path | str, job: str) -> None:
        self.job = job
        self.path = Path(root) / folder_name(job)
        self.files = SnapshotFiles(self.path)
        self._lock: int | None = None

    def lock(self) -> None:
        """Make the folder and keep other copies on this host out, until `release` or the end of the process.

        Raises `StateError`, naming process and host of the copy that holds the lock.
        """
        with _reporting("create", self.path):
            os.makedirs(self.path, exist_ok=True)
        file = self.path / "lock"
        with _reporting("lock", file):
            lock = os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
            try:
                deadline = time.monotonic() + _LOOKS_WITHIN_S
                while True:
                    try:
                        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                        break
                    except BlockingIOError:
                        if time.monotonic() > deadline:
                            holder = os.pread(lock, 4096, 0).decode(errors="replace")
                            raise StateError(self._held(holder)) from None
                    time.sleep(0.01)
                os.ftruncate(lock, 0)
                os.pwrite(lock, json.dumps({"pid": os.getpid(), "host": socket.gethostname()}).encode(), 0)
                self._lock = lock
            finally:
                if self._lock != lock:
                    os.close(lock)

    def release(self) -> None:
        """Let others in. May be called twice."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def running(self) -> str | None:
        """Who holds the lock, for people; None: nobody. Makes nothing, and has a share in the lock for an instant."""
        try:
            lock = os.open(self.path / "lock", os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            return None
        try:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
            return None
        except BlockingIOError:
            return _holder(os.pread(lock, 4096, 0).decode(errors="replace"))
        finally:
            os.close(lock)

    def is_writable(self) -> bool:
        """Whether the folder can be written, or made; as far as can be said without doing so."""
        path = self.path.absolute()
        while not os.path.lexists(path) and path != path.parent:
            path = path.parent
        return path.is_dir() and os.access(path, os.W_OK | os.X_OK)

    def read(self) -> FolderContents:
        """Every manifest and flag, as they stood together at one moment. Needs no lock; an absent folder is empty.

        A manifest that cannot be read is reported in `damaged`, not raised: whether it matters is decided later.
        """
        for _ in range(_READ_ATTEMPTS):
            names = self._names()
            with contextlib.suppress(FileNotFoundError):  # removed meanwhile: then the names have changed
                contents = self._contents(names)
                if self._names() == names:
                    return contents
        raise ExternalError(f"{self.path} changes faster than it can be read; is another copy of the job running?")

    def announce(self, name: str) -> None:
        """Say that all others are about to be shut out, each time under a new name.

        A copy that brings a lane back shuts out the lane's lost worker, and with it anybody who had shut out that
        worker before. So it has to know of such.
        """
        with _reporting("write", self.path):
            os.close(os.open(self.path / f"{_STARTING}{name}", os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC))

    def announced(self) -> frozenset[str]:
        """The names under which copies have said so."""
        with _reporting("read", self.path):
            names = os.listdir(self.path)
        return frozenset(name.removeprefix(_STARTING) for name in names if name.startswith(_STARTING))

    def withdraw(self, names: Iterable[str]) -> None:
        """Take back what was announced, by this copy or by one that has to announce itself anew."""
        for name in names:
            with _reporting("clean", self.path), contextlib.suppress(FileNotFoundError):
                os.unlink(self.path / f"{_STARTING}{name}")

    def write_state(self, at: SnapshotId, label: str, chunks: Iterable[bytes]) -> FileRef:
        """Make a state file durable. `label` tells the files of one snapshot apart: operator and lane, say."""
        name = state_name(at, label)
        size_bytes, digest = 0, hashlib.sha256()

        def counted() -> Iterator[bytes]:
            nonlocal size_bytes
            for chunk in chunks:
                size_bytes += len(chunk)
                digest.update(chunk)
                yield chunk

        _create(self.path, at, name, counted())
        # Crash here: the file is an orphan, removed with its epoch. tests/unit/checkpoint/test_storage.py
        crash_point("checkpoint.state_written")
        return FileRef(name, size_bytes, digest.hexdigest())

    def adopt(
        self, at: SnapshotId, regions: Mapping[str, RegionSnapshot], source: SnapshotFiles
    ) -> dict[str, RegionSnapshot]:
        """Take over the state files that `regions` name in `source`, this folder or another, under names of `at`'s own.

        Gives the regions with the new names. So a manifest depends on nothing that a paused copy may still remove: if a
        file is gone already, this fails with `StateError`, before the manifest exists.
        """
        adopted: dict[str, FileRef] = {}

        def own(keyed: KeyedFile) -> KeyedFile:
            ref = keyed.file
            if ref.name not in adopted:
                adopted[ref.name] = self._adopt(at, f"adopted-{len(adopted)}", ref, source)
            return replace(keyed, file=adopted[ref.name])

        result = {
            name: replace(
                region,
                operators={
                    uid: replace(operator, keyed=tuple(map(own, operator.keyed)))
                    for uid, operator in region.operators.items()
                },
            )
            for name, region in regions.items()
        }
        if adopted:
            with _reporting("write", self.path):
                _sync_folder(self.path)
        return result

    def write_manifest(self, manifest: Manifest) -> None:
        """Make a baseline or a checkpoint durable.

        Raises `EpochTaken` if another attempt has this epoch already, or a later one. After an `ExternalError` the
        manifest may or may not be there: the number is used up.
        """
        name = manifest_name(manifest)
        try:
            _create(self.path, manifest.id, name, [encode_manifest(manifest)], "checkpoint.manifest_synced")
        except FileExistsError:
            raise EpochTaken(f"{self.path / name} exists: another copy of job {self.job!r} took the epoch") from None
        # Only behind the creation: the name of an epoch that is over may have been free again, as its baseline is
        # removed, but not before a manifest of a later epoch is there, and one always is from then on.
        with _reporting("read", self.path):
            newest_epoch = max((key[0] for key in map(manifest_key, os.listdir(self.path)) if key), default=0)
        if newest_epoch > manifest.id.epoch:
            raise EpochTaken(
                f"epoch {manifest.id.epoch} of job {self.job!r} is over, another copy has begun epoch {newest_epoch}"
            )
        # Crash here: the next start begins from this baseline, or asks the markers about this checkpoint.
        crash_point("baseline.written" if manifest.kind is Kind.BASELINE else "checkpoint.prepared")

    def mark_committed(self, at: SnapshotId) -> None:
        """Flag a checkpoint as committed in every region, so that no marker is needed to use it."""
        self._flag(at, Status.COMMITTED)
        crash_point("checkpoint.committed_flag")

    def mark_finished(self, at: SnapshotId) -> None:
        """Flag a committed checkpoint as the job's last."""
        self._flag(at, Status.FINISHED)
        crash_point("checkpoint.finished_flag")

    def prune(self, own: SnapshotId, num_retained: int = 1) -> int:
        """Remove what no recovery could still name (see `removable`); says how many files went.

        `own` is the caller's newest committed checkpoint, or its claimed baseline.
        """
        contents = self.read()
        with _reporting("clean", self.path):
            removed = removable(os.listdir(self.path), contents, own, num_retained)
            manifests = [name for name in removed if manifest_key(name) is not None]
            self._remove(manifests)
            # Crash here: files that nobody names, removed next time.
            crash_point("checkpoint.pruning")
            self._remove(removed[len(manifests) :])
        crash_point("checkpoint.pruned")
        return len(removed)

    def write_savepoint(self, path: Path | str, manifest: Manifest) -> Path:
        """Copy a committed checkpoint with all its files into a folder of its own; gives its manifest's path.

        Raises `StateError` if `path` holds a savepoint already.
        """
        target = Path(path)
        with _reporting("create", target):
            os.makedirs(target, exist_ok=True)
        if (target / SAVEPOINT_NAME).exists():
            raise StateError(f"{target} holds a savepoint already; choose another folder")
        for ref in manifest.files:
            if not (target / ref.name).exists():
                _create(target, manifest.id, ref.name, [self.files.read_state(ref)])
        crash_point("savepoint.files_copied")
        content = encode_manifest(replace(manifest, kind=Kind.SAVEPOINT))
        try:
            _create(target, manifest.id, SAVEPOINT_NAME, [content])
        except FileExistsError:
            raise StateError(f"{target} holds a savepoint already; choose another folder") from None
        crash_point("savepoint.written")
        return target / SAVEPOINT_NAME

    def _adopt(self, at: SnapshotId, label: str, ref: FileRef, source: SnapshotFiles) -> FileRef:
        name = state_name(at, label)
        if source.path != self.path:
            _create(self.path, at, name, [source.read_state(ref)])
            return replace(ref, name=name)
        try:
            with _reporting("link", self.path / ref.name, FileNotFoundError):
                os.link(self.path / ref.name, self.path / name)
        except FileNotFoundError:
            raise StateError(_missing(self.path / ref.name)) from None
        return replace(ref, name=name)

    def _held(self, holder: str) -> str:
        return (
            f"job {self.job!r} is already running: {_holder(holder)} holds the lock on {self.path}; stop it first, or "
            "give this copy a name or an `execution.checkpointing.dir` of its own"
        )

    def _names(self) -> list[str]:
        """The names that matter to a reader, sorted."""
        with _reporting("read", self.path):
            try:
                names = os.listdir(self.path)
            except FileNotFoundError:
                return []
        return sorted(
            name
            for name in names
            if manifest_key(name) or flag_key(name, Status.COMMITTED) or flag_key(name, Status.FINISHED)
        )

    def _contents(self, names: list[str]) -> FolderContents:
        manifests: list[Manifest] = []
        damaged: list[Damaged] = []
        for name in names:
            if (key := manifest_key(name)) is not None:
                with _reporting("read", self.path / name, FileNotFoundError):
                    data = (self.path / name).read_bytes()
                try:
                    manifests.append(decode_manifest(data, str(self.path / name), self.job))
                except StateError as error:
                    damaged.append(Damaged(name, *key, problem=str(error)))
        return FolderContents(
            manifests=tuple(sorted(manifests, key=lambda manifest: manifest.id)),
            committed=frozenset(key for name in names if (key := flag_key(name, Status.COMMITTED))),
            finished=frozenset(key for name in names if (key := flag_key(name, Status.FINISHED))),
            damaged=tuple(damaged),
        )

    def _flag(self, at: SnapshotId, status: Status) -> None:
        with contextlib.suppress(FileExistsError):  # asked twice: a commit of unknown outcome
            _create(self.path, at, flag_name(at, status), [])

    def _remove(self, names: Iterable[str]) -> None:
        for name in names:
            with contextlib.suppress(FileNotFoundError):  # another copy was quicker
                os.unlink(self.path / name)
        _sync_folder(self.path)


def open_snapshot(path: Path | str) -> Snapshot:
    """The snapshot at `path`: a manifest file, or a savepoint's folder.

    Raises `StateError` if there is none, if it is damaged, or if it is a checkpoint that is not known to be committed.
    """
    file = Path(path)
    if file.is_dir():
        file /= SAVEPOINT_NAME
    try:
        with _reporting("read", file, FileNotFoundError):
            data = file.read_bytes()
    except FileNotFoundError:
        raise StateError(
            f"there is no snapshot at {path}: name a manifest (`headrace checkpoints list` shows them) or a "
            "savepoint's folder"
        ) from None
    manifest = decode_manifest(data, str(file))
    flags = (flag_name(manifest.id, status) for status in (Status.COMMITTED, Status.FINISHED))
    if manifest.kind is Kind.PREPARED and not any((file.parent / flag).exists() for flag in flags):
        raise StateError(
            f"{file} is a checkpoint that is not known to be committed: starting from it could lose the records of an "
            "aborted transaction. Start without `--from`, which asks the markers, or name an older snapshot"
        )
    return Snapshot(manifest, SnapshotFiles(file.parent))


def _holder(text: str) -> str:
    try:
        found = json.loads(text)
        return f"process {found['pid']} on host {found['host']}"
    except (ValueError, TypeError, KeyError):  # it has the lock, and is about to write its name
        return "a process that is just starting"


def _missing(file: Path) -> str:
    return f"state file {file} is missing; restore it from a copy, or start from another snapshot with `--from`"


def _create(folder: Path, at: SnapshotId, name: str, chunks: Iterable[bytes], synced: str | None = None) -> None:
    """Make `folder/name` durable with this content; raises `FileExistsError` if it exists."""
    final, temporary = folder / name, folder / temporary_name(at, name)
    with _reporting("write", final, FileExistsError):
        # A temporary name that an earlier failure left may be linked already: never write into it.
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)
        try:
            file = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
            try:
                for chunk in chunks:
                    rest = memoryview(chunk)
                    while rest:
                        rest = rest[os.write(file, rest[:_BLOCK_BYTES]) :]
                os.fsync(file)
            finally:
                os.close(file)
            if synced is not None:
                crash_point(synced)
            try:
                os.link(temporary, final)
            except FileExistsError:
                # Over NFS an answer may get lost and the call be repeated: then the existing file is this very one.
                if not os.path.samefile(temporary, final):
                    raise
        finally:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(temporary)
        _sync_folder(folder)


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextlib.contextmanager
def _reporting(action: str, path: Path, *expected: type[OSError]) -> Iterator[None]:
    """Turn a failure of the file system into an `ExternalError`, but for those that the caller expects."""
    try:
        yield
    except expected:
        raise
    except OSError as error:
        cure = {
            errno.ENOENT: "it was removed while the job ran",
            errno.ENOSPC: "free some space",
            errno.EDQUOT: "free some space",
            errno.EACCES: "give the job's user the right to write there",
            errno.EPERM: "use a folder on a file system with hard links",
            errno.EROFS: "choose a folder that can be written",
        }.get(error.errno or 0, "check the disk")
        raise ExternalError(
            f"cannot {action} {path}: {os.strerror(error.errno or 0)}; {cure}, or set another "
            "`execution.checkpointing.dir`"
        ) from error
