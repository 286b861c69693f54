"""Real files; failures come from a disk that fails, or a process that ends, at the n-th operation, for every n."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tests.unit.checkpoint.values import JOB, at, baseline, checkpoint, region

from headrace.checkpoint import storage
from headrace.checkpoint.folder import FolderContents, Status, flag_name, manifest_key, manifest_name
from headrace.checkpoint.manifest import FileRef, Kind, Manifest
from headrace.checkpoint.marker import SnapshotId, draw_id
from headrace.checkpoint.storage import CheckpointFolder, EpochTaken, SnapshotFiles, open_snapshot
from headrace.errors import ExternalError, StateError


@pytest.fixture
def folder(tmp_path: Path) -> CheckpointFolder:
    folder = CheckpointFolder(tmp_path / "state", JOB)
    folder.lock()
    return folder


def stored(folder: CheckpointFolder, manifest: Manifest, content: bytes = b"counts") -> Manifest:
    """The manifest with a state file of its own, both written."""
    ref = folder.write_state(manifest.id, "count-0", [content])
    manifest = replace(manifest, regions={"r": region("r", manifest.id.number, ref)})
    folder.write_manifest(manifest)
    return manifest


def committed(folder: CheckpointFolder, before: Manifest) -> Manifest:
    manifest = stored(folder, checkpoint(before))
    folder.mark_committed(manifest.id)
    return manifest


# --- what is written is read ------------------------------------------------------------------------------------------


def test_absent_folder_is_empty(tmp_path: Path) -> None:
    assert CheckpointFolder(tmp_path / "nowhere", JOB).read() == FolderContents()


def test_who_only_looks_keeps_no_job_from_starting(tmp_path: Path) -> None:
    folder, looker = CheckpointFolder(tmp_path, JOB), CheckpointFolder(tmp_path, JOB)
    folder.lock()
    folder.release()
    ended = threading.Event()

    def look() -> None:
        while not ended.is_set():
            looker.running()

    thread = threading.Thread(target=look)
    thread.start()
    try:
        for _ in range(200):
            folder.lock()
            folder.release()
    finally:
        ended.set()
        thread.join()


def test_contents_are_read_with_their_flags(folder: CheckpointFolder) -> None:
    begin = stored(folder, baseline(1))
    first = committed(folder, begin)
    second = committed(folder, first)
    folder.mark_finished(second.id)
    third = stored(folder, checkpoint(second))

    contents = folder.read()

    assert contents.manifests == (begin, first, second, third)
    assert [contents.status(m) for m in contents.manifests] == [
        Status.BASELINE,
        Status.COMMITTED,
        Status.FINISHED,
        Status.PREPARED,
    ]
    assert contents.damaged == ()


def test_state_is_read_as_it_was_written(folder: CheckpointFolder) -> None:
    chunks = [b"a" * 3_000_000, b"", b"b"]

    ref = folder.write_state(at(1), "count 0", chunks)

    assert folder.files.read_state(ref) == b"".join(chunks)
    assert ref.size_bytes == 3_000_001


def test_flag_may_be_set_twice(folder: CheckpointFolder) -> None:
    first = stored(folder, checkpoint(baseline(1)))

    folder.mark_committed(first.id)
    folder.mark_committed(first.id)

    assert folder.read().status(first) is Status.COMMITTED


@pytest.mark.parametrize("what", ["a state file", "a manifest", "a flag"])
def test_content_is_on_disk_before_its_name_and_its_name_before_anything_else(
    folder: CheckpointFolder, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    first = checkpoint(baseline(1))
    steps: list[str] = []
    opened: dict[int, str] = {}

    def open_file(path: Path, *args: int) -> int:
        file = os.open(path, *args)
        opened[file] = "folder" if path == folder.path else "file"
        return file

    def note(step: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def noted(*args: Any) -> Any:
            steps.append(f"{step} {opened[args[0]]}" if step == "sync" else step)
            return call(*args)

        return noted

    noted = Instead(open=open_file, fsync=note("sync", os.fsync), link=note("link", os.link))
    with monkeypatch.context() as patch:
        patch.setattr(storage, "os", noted)
        match what:
            case "a state file":
                folder.write_state(first.id, "count", [b"counts"])
            case "a manifest":
                folder.write_manifest(first)
            case _:
                folder.mark_committed(first.id)

    assert steps == ["sync file", "link", "sync folder"]


@pytest.mark.parametrize("damage", [lambda data: data[:-1], lambda data: data + b"x", lambda data: b"X" + data[1:]])
def test_state_file_that_was_altered_is_named(folder: CheckpointFolder, damage: Callable[[bytes], bytes]) -> None:
    ref = folder.write_state(at(1), "count", [b"counts"])
    file = folder.path / ref.name
    file.write_bytes(damage(file.read_bytes()))

    with pytest.raises(StateError, match=rf"{ref.name} is half-written or altered.*`--from`"):
        folder.files.read_state(ref)


def test_state_file_that_is_missing_is_named(folder: CheckpointFolder) -> None:
    with pytest.raises(StateError, match=r"gone\.state is missing"):
        folder.files.read_state(FileRef("gone.state", 1, ""))


def test_manifest_that_cannot_be_read_is_reported_with_its_place(folder: CheckpointFolder) -> None:
    begin = stored(folder, baseline(1))
    first = stored(folder, checkpoint(begin))
    for manifest in (begin, first):
        file = folder.path / manifest_name(manifest)
        file.write_bytes(file.read_bytes()[:-20])

    contents = folder.read()

    assert contents.manifests == ()
    assert [(d.name, d.epoch, d.number) for d in contents.damaged] == [
        (manifest_name(first), 1, 2),
        (manifest_name(begin), 1, 0),
    ]
    assert all(
        "half-written" in damaged.problem and str(folder.path) in damaged.problem for damaged in contents.damaged
    )


def test_manifest_of_another_job_is_reported(folder: CheckpointFolder) -> None:
    folder.write_manifest(replace(baseline(1), job="other"))

    assert "belongs to job 'other'" in folder.read().damaged[0].problem


def test_reading_repeats_while_the_folder_changes(folder: CheckpointFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    # Between listing and reading, the newest checkpoint is replaced by a newer one and pruned.
    first = committed(folder, stored(folder, baseline(1)))
    later: list[Manifest] = []
    contents_of = CheckpointFolder._contents

    def overtaken(self: CheckpointFolder, names: list[str]) -> FolderContents:
        if not later:
            later.append(first)
            later.append(committed(folder, first))
            folder.prune(later[1].id)
        return contents_of(self, names)

    monkeypatch.setattr(CheckpointFolder, "_contents", overtaken)

    assert folder.read().newest == later[1]


def test_reading_a_folder_that_never_rests_ends(folder: CheckpointFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    numbers = iter(range(10_000))
    monkeypatch.setattr(
        CheckpointFolder, "_names", lambda self: [f"epoch-000001-checkpoint-{next(numbers):010}.committed"]
    )

    with pytest.raises(ExternalError, match="changes faster than it can be read"):
        folder.read()


# --- the race for the epoch -------------------------------------------------------------------------------------------


def test_second_baseline_of_an_epoch_loses(folder: CheckpointFolder) -> None:
    winner = baseline(1, attempt="winner")
    folder.write_manifest(winner)

    with pytest.raises(EpochTaken, match="took the epoch"):
        folder.write_manifest(baseline(1, attempt="loser"))

    assert folder.read().manifests == (winner,)


def test_zombie_cannot_take_an_epoch_again_after_its_baseline_was_pruned(folder: CheckpointFolder) -> None:
    newer = stored(folder, baseline(20, epoch=2))
    folder.prune(newer.id)

    with pytest.raises(EpochTaken, match="another copy has begun epoch 2"):
        folder.write_manifest(baseline(1, attempt="zombie"))

    assert folder.read().newest == newer


def test_zombie_checkpoint_is_told_that_its_epoch_is_over(folder: CheckpointFolder) -> None:
    begin = stored(folder, baseline(1))
    newer = stored(folder, baseline(20, epoch=2))

    with pytest.raises(EpochTaken):
        folder.write_manifest(checkpoint(begin, 900))

    assert folder.read().newest == newer


def test_creation_that_was_answered_twice_is_the_own(folder: CheckpointFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    def twice(source: Path, target: Path) -> None:
        os.link(source, target)
        os.link(source, target)

    monkeypatch.setattr(storage, "os", Instead(link=twice))

    folder.write_manifest(baseline(1))

    assert folder.read().newest == baseline(1)


# --- pruning ----------------------------------------------------------------------------------------------------------


def test_pruning_removes_files_of_older_checkpoints(folder: CheckpointFolder) -> None:
    begin = stored(folder, baseline(1))
    first = committed(folder, begin)
    second = committed(folder, first)

    removed = folder.prune(second.id)

    assert removed == 4  # a manifest, its flag, and the state files of it and of the baseline
    assert sorted(os.listdir(folder.path)) == sorted(
        ["lock", manifest_name(begin), manifest_name(second), flag_name(second.id, Status.COMMITTED)]
        + [file.name for file in second.files]
    )
    assert folder.prune(second.id) == 0


def test_pruning_goes_on_where_another_copy_was_quicker(
    folder: CheckpointFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = committed(folder, stored(folder, baseline(1)))
    second = committed(folder, first)

    def late(path: Path) -> None:
        os.unlink(path)
        os.unlink(path)

    monkeypatch.setattr(storage, "os", Instead(unlink=late))

    folder.prune(second.id)

    assert first not in folder.read().manifests


# --- taking over files ------------------------------------------------------------------------------------------------


def test_adopted_files_outlive_the_snapshot_they_came_from(folder: CheckpointFolder) -> None:
    first = committed(folder, stored(folder, baseline(1)))
    begin = baseline(20, epoch=2)

    begin = replace(begin, regions=folder.adopt(begin.id, first.regions, folder.files))
    folder.write_manifest(begin)
    (folder.path / first.files[0].name).unlink()  # as a paused copy prunes it
    folder.prune(begin.id)

    assert begin.files[0].name != first.files[0].name
    assert folder.files.read_state(begin.files[0]) == b"counts"


def test_adopted_files_are_copied_from_another_folder(folder: CheckpointFolder, tmp_path: Path) -> None:
    other = CheckpointFolder(tmp_path / "other", JOB)
    other.lock()
    first = committed(other, stored(other, baseline(1)))

    regions = folder.adopt(at(20, 2), {"a": first.regions["r"], "b": first.regions["r"]}, other.files)

    names = {keyed.file.name for r in regions.values() for keyed in r.operators["count"].keyed}
    assert len(names) == 1
    (ref,) = {keyed.file for r in regions.values() for keyed in r.operators["count"].keyed}
    assert folder.files.read_state(ref) == b"counts"


def test_adopting_a_file_that_is_gone_fails_before_a_manifest_names_it(folder: CheckpointFolder) -> None:
    first = committed(folder, stored(folder, baseline(1)))
    (folder.path / first.files[0].name).unlink()

    with pytest.raises(StateError, match="is missing"):
        folder.adopt(at(20, 2), first.regions, folder.files)


# --- the lock ---------------------------------------------------------------------------------------------------------


def test_second_copy_is_told_process_and_host_of_the_first(folder: CheckpointFolder, tmp_path: Path) -> None:
    second = CheckpointFolder(tmp_path / "state", JOB)

    with pytest.raises(StateError, match=rf"already running: process {os.getpid()} on host \S+ holds the lock"):
        second.lock()

    folder.release()
    folder.release()
    second.lock()


@pytest.mark.parametrize("content", ["", "{", "[]", "{}"])
def test_lock_whose_holder_has_not_signed_yet_is_refused_too(
    folder: CheckpointFolder, tmp_path: Path, content: str
) -> None:
    (folder.path / "lock").write_text(content)

    with pytest.raises(StateError, match="a process that is just starting holds the lock"):
        CheckpointFolder(tmp_path / "state", JOB).lock()


def test_who_runs_is_told_without_a_lock_and_nothing_is_made(folder: CheckpointFolder, tmp_path: Path) -> None:
    look = CheckpointFolder(folder.path.parent, JOB)
    assert look.running() == f"process {os.getpid()} on host {socket.gethostname()}"
    folder.release()
    assert look.running() is None
    folder.lock()
    folder.release()
    elsewhere = CheckpointFolder(tmp_path / "nowhere", JOB)
    assert elsewhere.running() is None
    assert elsewhere.is_writable()
    assert not (tmp_path / "nowhere").exists()


def test_a_folder_cannot_be_made_where_a_file_is_or_the_user_may_not_write(
    folder: CheckpointFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert folder.is_writable()
    (tmp_path / "file").write_text("in the way")
    assert not CheckpointFolder(tmp_path / "file", JOB).is_writable()
    assert not CheckpointFolder(tmp_path / "file" / "below", JOB).is_writable()
    # Root may write everywhere.
    monkeypatch.setattr(os, "access", lambda path, mode: mode & os.W_OK == 0)
    assert not folder.is_writable()


def test_other_jobs_have_locks_of_their_own(folder: CheckpointFolder, tmp_path: Path) -> None:
    CheckpointFolder(tmp_path / "state", "other").lock()


def test_lock_ends_with_the_process(tmp_path: Path) -> None:
    program = (
        "import os, signal, sys; from headrace.checkpoint.storage import CheckpointFolder; "
        "CheckpointFolder(sys.argv[1], 'job').lock(); os.kill(os.getpid(), signal.SIGKILL)"
    )

    ended = subprocess.run([sys.executable, "-c", program, str(tmp_path)], env=environment(), check=False)

    assert ended.returncode == -signal.SIGKILL
    CheckpointFolder(tmp_path, JOB).lock()


# --- savepoints and snapshots by path ---------------------------------------------------------------------------------


def test_savepoint_is_complete_without_the_folder_it_came_from(folder: CheckpointFolder, tmp_path: Path) -> None:
    first = committed(folder, stored(folder, baseline(1)))

    written = folder.write_savepoint(tmp_path / "saved", first)
    for file in folder.path.iterdir():
        file.unlink()

    for path in (written, tmp_path / "saved"):
        snapshot = open_snapshot(path)
        assert snapshot.manifest == replace(first, kind=Kind.SAVEPOINT)
        assert snapshot.files.read_state(first.files[0]) == b"counts"


def test_savepoint_never_replaces_another(folder: CheckpointFolder, tmp_path: Path) -> None:
    first = committed(folder, stored(folder, baseline(1)))
    folder.write_savepoint(tmp_path / "saved", first)

    with pytest.raises(StateError, match="holds a savepoint already"):
        folder.write_savepoint(tmp_path / "saved", committed(folder, first))

    assert open_snapshot(tmp_path / "saved").manifest.id == first.id


def test_savepoint_that_loses_a_race_is_told(
    folder: CheckpointFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = committed(folder, stored(folder, baseline(1)))
    target = tmp_path / "saved"

    def quicker(name: str) -> None:
        if name == "savepoint.files_copied":
            (target / "savepoint.json").write_text("another's")

    monkeypatch.setattr(storage, "crash_point", quicker)

    with pytest.raises(StateError, match="holds a savepoint already"):
        folder.write_savepoint(target, first)
    assert (target / "savepoint.json").read_text() == "another's"


def test_savepoint_that_was_cut_short_is_completed(
    folder: CheckpointFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = committed(folder, stored(folder, baseline(1)))
    with monkeypatch.context() as patch:
        patch.setattr(storage, "os", Failing(9))
        with pytest.raises(ExternalError):
            folder.write_savepoint(tmp_path / "saved", first)
    with pytest.raises(StateError, match="there is no snapshot"):
        open_snapshot(tmp_path / "saved")

    folder.write_savepoint(tmp_path / "saved", first)

    assert open_snapshot(tmp_path / "saved").files.read_state(first.files[0]) == b"counts"


def test_snapshot_is_opened_by_its_manifest(folder: CheckpointFolder) -> None:
    begin = stored(folder, baseline(1))
    first = committed(folder, begin)

    for manifest in (begin, first):
        snapshot = open_snapshot(folder.path / manifest_name(manifest))
        assert snapshot.manifest == manifest
        assert snapshot.files == SnapshotFiles(folder.path)


def test_finished_snapshot_may_be_opened(folder: CheckpointFolder) -> None:
    last = stored(folder, checkpoint(stored(folder, baseline(1))))
    folder.mark_finished(last.id)

    assert open_snapshot(folder.path / manifest_name(last)).manifest == last


def test_prepared_snapshot_that_did_not_commit_is_refused(folder: CheckpointFolder) -> None:
    first = stored(folder, checkpoint(stored(folder, baseline(1))))

    with pytest.raises(StateError, match=r"not known to be committed.* could lose the records .*without `--from`"):
        open_snapshot(folder.path / manifest_name(first))


def test_path_without_snapshot_is_named(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "nothing.json"):
        with pytest.raises(StateError, match=f"there is no snapshot at {path}"):
            open_snapshot(path)


def test_damaged_snapshot_is_named(tmp_path: Path) -> None:
    (tmp_path / "savepoint.json").write_text("{")

    with pytest.raises(StateError, match=r"savepoint\.json is half-written"):
        open_snapshot(tmp_path)


# --- a disk that fails ------------------------------------------------------------------------------------------------


class Instead:
    """The module `os` with some functions replaced."""

    def __init__(self, **functions: Callable[..., Any]) -> None:
        self.__dict__.update(functions)

    def __getattr__(self, name: str) -> Any:
        return getattr(os, name)


OPERATIONS = ("makedirs", "open", "write", "fsync", "link", "unlink", "listdir", "ftruncate", "pwrite")


class Ended(BaseException):
    """The process is gone."""


class Failing:
    """The module `os`, whose `nth` operation on files fails; with `ends`, so do all behind it, as after `kill -9`.

    With `late` the operation is carried out and only its answer is lost.
    """

    def __init__(self, nth: int, *, ends: bool = False, late: bool = False) -> None:
        self.nth, self.ends, self.late = nth, ends, late
        self.count = 0

    def __getattr__(self, name: str) -> Any:
        real = getattr(os, name)
        if name not in OPERATIONS:
            return real

        def operation(*args: Any, **kwargs: Any) -> Any:
            self.count += 1
            is_over = self.ends and self.count > self.nth
            if self.count == self.nth and self.late and name != "open":
                with contextlib.suppress(OSError):
                    real(*args, **kwargs)
            if self.count == self.nth or is_over:
                raise Ended if self.ends else OSError(errno.EIO, "the disk has failed")
            return real(*args, **kwargs)

        return operation


def live(folder: CheckpointFolder, done: list[str]) -> None:
    """One attempt's life: it restores what is there, and completes two checkpoints."""
    folder.lock()
    done.append("locked")
    before = folder.read().newest
    at_epoch, number = (1, 1) if before is None else (before.id.epoch + 1, before.id.number + 1)
    begin = baseline(number, at_epoch, attempt=draw_id())
    if before is not None:
        begin = replace(begin, regions=folder.adopt(begin.id, before.regions, folder.files))
    folder.write_manifest(begin)
    done.append(manifest_name(begin))
    last = begin
    for _ in range(2):
        last = stored(folder, checkpoint(last))
        done.append(manifest_name(last))
        folder.mark_committed(last.id)
        done.append(flag_name(last.id, Status.COMMITTED))
        folder.prune(last.id)
        done.append(f"pruned {last.id.epoch, last.id.number}")
    folder.mark_finished(last.id)
    done.append(flag_name(last.id, Status.FINISHED))


def operations_of_a_life(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> int:
    with monkeypatch.context() as patch:
        counting = Failing(0)
        patch.setattr(storage, "os", counting)
        folder = CheckpointFolder(tmp_path / "counted", JOB)
        live(folder, [])
        folder.release()
    return counting.count


def key(name: str) -> tuple[int, int]:
    found = manifest_key(name)
    assert found is not None
    return found


def check_after_failure(folder: CheckpointFolder, done: list[str]) -> None:
    """What was said to be durable is there, all that is there is whole, and a new attempt gets through."""
    contents = folder.read()
    assert contents.damaged == ()
    names = set(os.listdir(folder.path)) if folder.path.exists() else set()
    manifests = [name for name in done if name.endswith(".json")]
    if manifests:
        newest = contents.newest
        assert newest is not None
        # The last one that was written, or the one behind it whose answer was lost.
        assert key(manifest_name(newest)) >= key(manifests[-1])
        for file in newest.files:
            folder.files.read_state(file)
        assert set(done[-1:]) <= names or done[-1].startswith("pruned")
        if newest.predecessor is not None and contents.status(newest) is Status.PREPARED:
            before = contents.find(newest.predecessor)
            assert before is not None
            assert all(folder.files.read_state(file) for file in before.files)
    again = CheckpointFolder(folder.path.parent, JOB)
    live(again, [])
    left = again.read()
    # A baseline that holds the epoch and the last checkpoint: nothing of the failed life stays.
    assert [m.kind for m in left.manifests] == [Kind.BASELINE, Kind.PREPARED]
    assert left.status(left.manifests[-1]) is Status.FINISHED
    assert len(os.listdir(folder.path)) == 6
    again.release()


@pytest.mark.parametrize("late", [False, True], ids=["the operation fails", "its answer is lost"])
@pytest.mark.parametrize("ends", [False, True], ids=["disk", "kill"])
def test_failure_of_any_operation_leaves_a_usable_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ends: bool, late: bool
) -> None:
    total = operations_of_a_life(tmp_path, monkeypatch)
    assert total > 60

    for nth in range(1, total + 1):
        folder = CheckpointFolder(tmp_path / f"{nth}", JOB)
        done: list[str] = []
        with monkeypatch.context() as patch:
            patch.setattr(storage, "os", Failing(nth, ends=ends, late=late))
            with pytest.raises(Ended if ends else ExternalError):
                live(folder, done)
        folder.release()
        check_after_failure(folder, done)


@pytest.mark.parametrize("second_fails", [False, True])
def test_failure_in_the_second_life_leaves_a_usable_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, second_fails: bool
) -> None:
    for nth in range(1, 200, 3):
        folder = CheckpointFolder(tmp_path / f"{nth}", JOB)
        live(folder, [])
        folder.release()
        done: list[str] = []
        with monkeypatch.context() as patch:
            patch.setattr(storage, "os", Failing(nth, ends=second_fails))
            try:
                live(folder, done)
            except (Ended, ExternalError):
                pass
            else:
                break
        folder.release()
        check_after_failure(folder, done)
    else:
        pytest.fail("a life has more operations than this test expects")


def test_failed_disk_is_named_with_a_cure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = CheckpointFolder(tmp_path, JOB)
    folder.lock()

    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, "no space left on device")

    monkeypatch.setattr(storage, "os", Instead(write=full))

    with pytest.raises(ExternalError, match=r"cannot write .*epoch-000001\.json: No space left .*; free some space"):
        folder.write_manifest(baseline(1))


def test_folder_that_was_removed_while_the_job_ran_is_named(folder: CheckpointFolder) -> None:
    for file in folder.path.iterdir():
        file.unlink()
    folder.path.rmdir()

    with pytest.raises(ExternalError, match="removed while the job ran"):
        folder.write_state(at(2), "count", [b""])


def test_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")

    with pytest.raises(ExternalError, match=r"cannot create .*`execution.checkpointing.dir`"):
        CheckpointFolder(tmp_path / "file", JOB).lock()


def test_number_whose_manifest_may_be_there_is_used_up(
    folder: CheckpointFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    begin = stored(folder, baseline(1))
    first = checkpoint(begin)
    with monkeypatch.context() as patch:
        patch.setattr(storage, "os", Failing(6))  # behind the link: the folder is not synced
        with pytest.raises(ExternalError):
            folder.write_manifest(first)

    assert folder.read().newest == first
    with pytest.raises(EpochTaken):
        folder.write_manifest(first)
    folder.write_manifest(checkpoint(begin, first.id.number + 1))


# --- crash points -----------------------------------------------------------------------------------------------------


PROGRAM = """
import sys
from pathlib import Path
from tests.unit.checkpoint.test_storage import live, stored
from tests.unit.checkpoint.values import JOB
from headrace.checkpoint.storage import CheckpointFolder
folder = CheckpointFolder(sys.argv[1], JOB)
live(folder, [])
folder.write_savepoint(Path(sys.argv[1]) / "saved", folder.read().newest)
print("alive")
"""


def environment(**variables: str) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": os.pathsep.join(["src", "."]), **variables}


def run(path: Path, point: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", PROGRAM, str(path)],
        env=environment(HEADRACE_CRASH_POINT=point),
        capture_output=True,
        text=True,
        check=False,
        cwd=Path(__file__).parents[3],
    )


OWN_POINTS = {
    "checkpoint.state_written": 2,
    "checkpoint.manifest_synced": 3,
    "baseline.written": 1,
    "checkpoint.prepared": 2,
    "checkpoint.committed_flag": 2,
    "checkpoint.finished_flag": 1,
    "checkpoint.pruning": 2,
    "checkpoint.pruned": 2,
    "savepoint.files_copied": 1,
    "savepoint.written": 1,
}


@pytest.mark.parametrize("name", OWN_POINTS)
def test_kill_at_a_crash_point_leaves_a_usable_folder(tmp_path: Path, name: str) -> None:
    ended = run(tmp_path, f"{name}@{OWN_POINTS[name]}")

    assert ended.returncode == -signal.SIGKILL, ended.stderr
    check_after_failure(CheckpointFolder(tmp_path, JOB), [])


def test_crash_point_that_is_hit_less_often_lets_the_process_live(tmp_path: Path) -> None:
    ended = run(tmp_path, "baseline.written@2")

    assert (ended.returncode, ended.stdout) == (0, "alive\n"), ended.stderr


def test_manifest_file_is_readable_json(folder: CheckpointFolder) -> None:
    begin = stored(folder, baseline(1))

    content = json.loads((folder.path / manifest_name(begin)).read_text())

    assert content["job"] == JOB
    assert content["id"] == {"epoch": 1, "number": 1, "attempt": "a1"}
    assert SnapshotId(**content["id"]) == begin.id


def test_copies_that_are_about_to_shut_others_out_are_known_by_name(tmp_path: Path) -> None:
    one, other = CheckpointFolder(tmp_path, "job"), CheckpointFolder(tmp_path, "job")
    one.lock()
    one.announce("a")
    other.announce("b")
    assert one.announced() == other.announced() == {"a", "b"}
    other.withdraw({"b", "never there"})
    assert one.announced() == {"a"}
    assert one.read().manifests == ()
