from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.checkpoint.values import at, baseline, checkpoint, folder, region

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
from headrace.checkpoint.manifest import FileRef, Kind
from headrace.errors import InternalError

BEGIN = baseline(10)
FIRST = checkpoint(BEGIN)
SECOND = checkpoint(FIRST)
THIRD = checkpoint(SECOND)


def names(contents: FolderContents) -> list[str]:
    """The files that such a folder consists of, with two state files for each manifest."""
    found = [manifest_name(manifest) for manifest in contents.manifests]
    found += [flag_name(at(number, epoch), Status.COMMITTED) for epoch, number in contents.committed]
    found += [flag_name(at(number, epoch), Status.FINISHED) for epoch, number in contents.finished]
    found += [state_name(m.id, label) for m in contents.manifests for label in ("count-0", "count-1")]
    return [*found, "lock"]


def left(contents: FolderContents, own: object, num_retained: int = 1, *others: str) -> set[str]:
    everything = [*names(contents), *others]
    removed = removable(everything, contents, own.id, num_retained)  # type: ignore[attr-defined]
    assert len(removed) == len(set(removed))
    assert set(removed) <= set(everything)
    return set(everything) - set(removed) - {"lock"}


def everything_of(*manifests: object, files: bool = True) -> set[str]:
    found = {manifest_name(m) for m in manifests}  # type: ignore[arg-type]
    flags = {flag_name(m.id, Status.COMMITTED) for m in manifests if m.kind is Kind.PREPARED}  # type: ignore[attr-defined]
    states = {state_name(m.id, label) for m in manifests for label in ("count-0", "count-1")}  # type: ignore[attr-defined]
    return found | flags | (states if files else set())


@given(st.text())
def test_folder_name_is_safe(job: str) -> None:
    name = folder_name(job)

    assert name not in ("", ".", "..")
    assert name.isascii()
    assert not set(name) & set('/\\:*?"<>| ')
    assert not name.startswith(".")
    assert len(name) < 100


@pytest.mark.parametrize(("one", "other"), [("a/b", "a_b"), ("a b", "a:b"), ("", "."), ("x" * 81, "x" * 82)])
def test_different_jobs_have_different_folders(one: str, other: str) -> None:
    assert folder_name(one) != folder_name(other)


def test_names_sort_as_recovery_does() -> None:
    snapshots = [BEGIN, FIRST, SECOND, checkpoint(SECOND, 999), baseline(1000, epoch=2)]

    assert sorted(map(manifest_name, snapshots), key=lambda name: manifest_key(name) or (0, 0)) == list(
        map(manifest_name, snapshots)
    )
    assert manifest_name(BEGIN) == "epoch-000001.json"
    assert manifest_name(FIRST) == "epoch-000001-checkpoint-0000000011.json"


def test_baselines_of_one_epoch_have_one_name() -> None:
    assert manifest_name(baseline(10, attempt="a")) == manifest_name(baseline(70, attempt="b"))


def test_names_are_read_back() -> None:
    assert manifest_key(manifest_name(baseline(5, epoch=12345678))) == (12345678, 0)
    assert manifest_key(manifest_name(FIRST)) == (1, 11)
    assert flag_key(flag_name(FIRST.id, Status.COMMITTED), Status.COMMITTED) == (1, 11)
    assert flag_key(flag_name(FIRST.id, Status.COMMITTED), Status.FINISHED) is None
    for other in ("lock", "notes.txt", "epoch-1.json", state_name(FIRST.id, "x"), temporary_name(FIRST.id, "y.json")):
        assert manifest_key(other) is None
        assert flag_key(other, Status.COMMITTED) is None


def test_savepoint_has_no_name_in_the_job_folder() -> None:
    with pytest.raises(InternalError):
        manifest_name(replace(FIRST, kind=Kind.SAVEPOINT))


def test_status_comes_from_the_flags() -> None:
    contents = folder(BEGIN, FIRST, SECOND, THIRD, committed=(FIRST, SECOND), finished=SECOND)

    assert [contents.status(m) for m in contents.manifests] == [
        Status.BASELINE,
        Status.COMMITTED,
        Status.FINISHED,
        Status.PREPARED,
    ]


def with_files(manifest: object) -> object:
    refs = [FileRef(state_name(manifest.id, label), 1, "") for label in ("count-0", "count-1")]  # type: ignore[attr-defined]
    return replace(manifest, regions={"r": region("r", 1, *refs)})  # type: ignore[type-var]


begin, first, second, third = map(with_files, (BEGIN, FIRST, SECOND, THIRD))


def test_pruning_keeps_the_own_checkpoint_and_the_name_of_its_epoch() -> None:
    contents = folder(begin, first, second, committed=(first, second))

    assert left(contents, second) == everything_of(second) | {manifest_name(begin)}


@pytest.mark.parametrize("num_retained", [1, 2, 3, 9])
def test_pruning_keeps_as_many_committed_checkpoints_as_asked(num_retained: int) -> None:
    contents = folder(begin, first, second, third, committed=(first, second, third))
    kept = (first, second, third)[-num_retained:]

    assert left(contents, third, num_retained) == everything_of(*kept) | {manifest_name(begin)}


def test_pruning_keeps_everything_newer_and_what_it_falls_back_to() -> None:
    contents = folder(begin, first, second, third, committed=(first, second))

    # As a paused copy that has committed `first` sees it: `third` is prepared, and falls back to `second`.
    assert left(contents, first) == everything_of(first, second, third) - {
        flag_name(third.id, Status.COMMITTED)  # type: ignore[attr-defined]
    } | {manifest_name(begin)}


def test_pruning_by_a_prepared_checkpoint_keeps_what_it_falls_back_to() -> None:
    contents = folder(begin, first, second, committed=(first,))

    assert manifest_name(first) in left(contents, second)
    assert state_name(first.id, "count-0") in left(contents, second)  # type: ignore[attr-defined]


def test_pruning_never_touches_a_newer_epoch() -> None:
    newer = with_files(baseline(20, epoch=2))
    contents = folder(begin, first, newer, committed=(first,))
    working = [state_name(at(21, epoch=2), "count-0"), temporary_name(at(21, epoch=2), "x.state")]

    assert left(contents, first, 1, *working) >= everything_of(newer) | set(working)


def test_pruning_removes_what_dead_attempts_left() -> None:
    newer = with_files(baseline(20, epoch=2))
    contents = folder(begin, first, newer, committed=(first,))
    orphans = [
        state_name(at(12, epoch=1), "count-0"),
        temporary_name(at(12, epoch=1), "x.state"),
        state_name(at(20, epoch=2, attempt="loser"), "count-0"),
        temporary_name(at(20, epoch=2, attempt="loser"), "epoch-000002.json"),
        temporary_name(at(20, epoch=2), "count-9"),
    ]

    # A claimed baseline of a new epoch retains the newest committed checkpoint, and nothing else of older epochs.
    assert left(contents, newer, 1, *orphans) == everything_of(newer, first)


def test_pruning_leaves_the_next_checkpoint_of_the_own_attempt_alone() -> None:
    contents = folder(begin, first, committed=(first,))
    coming = state_name(at(12), "count-0")

    assert coming in left(contents, first, 1, coming)


def test_pruning_leaves_strange_files_alone() -> None:
    contents = folder(begin, first, committed=(first,))

    assert left(contents, first, 1, "notes.txt", ".hidden") >= {"notes.txt", ".hidden"}


def test_pruning_removes_manifests_before_flags_before_files() -> None:
    contents = folder(begin, first, second, third, committed=(first, second, third))

    removed = removable(names(contents), contents, third.id, 1)  # type: ignore[attr-defined]

    kinds = [name.rpartition(".")[2] for name in removed]
    assert kinds == sorted(kinds, key=["json", "committed", "state"].index)
    assert set(kinds) == {"json", "committed", "state"}


def test_pruning_removes_older_manifests_that_cannot_be_read() -> None:
    damaged = flagged = "epoch-000001-checkpoint-0000000009.json"
    contents = replace(folder(begin, first, committed=(first,)), damaged=(Damaged(damaged, 1, 9, ""),))

    assert flagged not in left(contents, first, 1, damaged)
