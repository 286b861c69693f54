"""`headrace checkpoints`: what a state folder holds, for people."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from headrace.checkpoint.manifest import (
    FileRef,
    KeyedFile,
    Kind,
    Location,
    Manifest,
    OperatorSnapshot,
    RegionSnapshot,
)
from headrace.checkpoint.marker import SnapshotId
from headrace.checkpoint.storage import CheckpointFolder
from headrace.cli.main import main

LOCATION: Location = {"transactional_id": "p-news-r-0", "group": "p-news-r-0", "topic": "rss.events", "partition": 0}


def manifest(number: int, kind: Kind, *, job: str = "news", location: Location | None = LOCATION) -> Manifest:
    splits = {f"rss.events-{n}": {"topic": "rss.events", "partition": n, "position": 10 * number} for n in range(2)}
    keyed = KeyedFile(FileRef(f"{number}.state", 1_400_000, "00"), 0, 127)
    operators = {"news": OperatorSnapshot(splits, name="Source: news"), "count": OperatorSnapshot(keyed=(keyed,))}
    return Manifest(
        job=job,
        incarnation="5e1f",
        id=SnapshotId(3, number, "a7"),
        kind=kind,
        created_at_ms=1_700_000_000_000 + number,
        parallelism=1,
        regions={"r-0": RegionSnapshot(operators, location)},
        predecessor=None if kind is Kind.BASELINE else SnapshotId(3, number - 1, "a7"),
        headrace_version="0.1",
    )


def fill(root: Path, job: str = "news", location: Location | None = LOCATION) -> CheckpointFolder:
    """A baseline, a committed checkpoint, and one whose commit is not known of."""
    folder = CheckpointFolder(root, job)
    folder.path.mkdir(parents=True)
    folder.write_manifest(manifest(17, Kind.BASELINE, job=job, location=location))
    folder.write_manifest(manifest(18, Kind.PREPARED, job=job, location=location))
    folder.mark_committed(SnapshotId(3, 18, "a7"))
    folder.write_manifest(manifest(19, Kind.PREPARED, job=job, location=location))
    return folder


def checkpoints(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["checkpoints", *map(str, arguments)])


def rows(result: Result) -> list[list[str]]:
    return [line.split() for line in result.stdout.splitlines() if line.split()[:1] == ["3"]]


def test_each_checkpoint_is_a_row_with_how_far_it_has_come(tmp_path: Path) -> None:
    fill(tmp_path)
    result = checkpoints("list", tmp_path)
    assert result.exit_code == 0
    assert result.stdout.startswith(f"job 'news' in {tmp_path / 'news'}\n")
    assert [(row[1], row[2], row[5], " ".join(row[6:8])) for row in rows(result)] == [
        ("17", "baseline", "2", "1.4 MB"),
        ("18", "committed", "2", "1.4 MB"),
        ("19", "prepared", "2", "1.4 MB"),
    ]
    assert rows(result)[2][-1] == "epoch-000003-checkpoint-0000000019.json"
    assert "known to its markers, which the next start asks" in result.stdout


def test_a_finished_job_says_so(tmp_path: Path) -> None:
    folder = fill(tmp_path)
    folder.mark_committed(SnapshotId(3, 19, "a7"))
    folder.mark_finished(SnapshotId(3, 19, "a7"))
    result = checkpoints("list", tmp_path)
    assert rows(result)[2][2] == "finished"
    assert "next start" not in result.stdout


def test_a_prepared_checkpoint_without_markers_is_what_the_next_start_takes(tmp_path: Path) -> None:
    fill(tmp_path, location=None)
    assert "the newest one is what the next start takes" in checkpoints("list", tmp_path).stdout


def test_every_job_of_a_state_folder_is_listed_and_one_by_its_own_folder(tmp_path: Path) -> None:
    for job in ("news", "prices"):
        fill(tmp_path, job)
    (tmp_path / "empty").mkdir()
    assert [line for line in checkpoints("list", tmp_path).stdout.splitlines() if line.startswith("job")] == [
        f"job 'news' in {tmp_path / 'news'}",
        f"job 'prices' in {tmp_path / 'prices'}",
    ]
    assert checkpoints("list", tmp_path / "prices").stdout.count("job '") == 1


def test_a_running_job_is_read_without_its_lock(tmp_path: Path) -> None:
    folder = fill(tmp_path)
    folder.lock()
    try:
        assert len(rows(checkpoints("list", tmp_path))) == 3
    finally:
        folder.release()


def test_a_copy_of_a_jobs_folder_may_have_any_name(tmp_path: Path) -> None:
    shutil.copytree(fill(tmp_path / "state").path, tmp_path / "backup of tuesday")
    result = checkpoints("list", tmp_path / "backup of tuesday")
    assert result.stdout.startswith("job 'news' in ")
    assert len(rows(result)) == 3


def test_a_damaged_checkpoint_is_named_beside_the_others(tmp_path: Path) -> None:
    folder = fill(tmp_path)
    newest = folder.path / "epoch-000003-checkpoint-0000000019.json"
    newest.write_bytes(newest.read_bytes()[:-40])
    result = checkpoints("list", tmp_path)
    assert len(rows(result)) == 2
    assert "damaged: manifest " in result.stderr
    baseline = folder.path / "epoch-000003.json"
    baseline.write_text("{}")
    assert [row[1] for row in rows(checkpoints("list", tmp_path))] == ["18"]


def test_a_folder_without_checkpoints_is_an_error(tmp_path: Path) -> None:
    for command in ("list", "show"):
        result = checkpoints(command, tmp_path)
        assert result.exit_code == 1, command
        assert str(tmp_path) in result.stderr


def test_the_newest_checkpoint_of_a_job_is_shown_with_positions_state_and_marker(tmp_path: Path) -> None:
    folder = fill(tmp_path)
    for path in (tmp_path, folder.path, folder.path / "epoch-000003-checkpoint-0000000019.json"):
        lines = checkpoints("show", path).stdout.splitlines()
        assert lines[0].startswith("job 'news', prepared 19 of epoch 3 (attempt a7), 20")
        assert lines[1] == "incarnation 5e1f, 128 key groups, written by Headrace 0.1"
        assert lines[2] == "falls back to 18 of epoch 3 (attempt a7)"
        assert lines[4:] == [
            "region r-0",
            "  marker: transactional_id p-news-r-0, group p-news-r-0, topic rss.events, partition 0",
            "  operator count",
            "    state, key groups 0 to 127: 1.4 MB in 19.state",
            "  operator news, Source: news",
            "    split rss.events-0: topic rss.events, partition 0, position 190",
            "    split rss.events-1: topic rss.events, partition 1, position 190",
        ]


def test_an_older_checkpoint_is_shown_by_its_file(tmp_path: Path) -> None:
    folder = fill(tmp_path)
    assert (
        "committed 18 of epoch 3" in checkpoints("show", folder.path / "epoch-000003-checkpoint-0000000018.json").stdout
    )
    assert "baseline 17 of epoch 3" in checkpoints("show", folder.path / "epoch-000003.json").stdout


def test_a_savepoint_is_shown_by_its_folder_or_its_file(tmp_path: Path) -> None:
    folder = fill(tmp_path)
    bare = Manifest(
        **{name: getattr(manifest(18, Kind.PREPARED), name) for name in Manifest.__slots__} | {"regions": {}}
    )
    path = folder.write_savepoint(tmp_path / "saved", bare)
    for name in (path, path.parent):
        assert "savepoint 18 of epoch 3" in checkpoints("show", name).stdout


def test_a_folder_of_several_jobs_asks_for_one(tmp_path: Path) -> None:
    for job in ("news", "prices"):
        fill(tmp_path, job)
    result = checkpoints("show", tmp_path)
    assert result.exit_code == 1
    assert "holds the checkpoints of 2 jobs (news, prices)" in result.stderr


def test_a_job_whose_every_manifest_is_damaged_says_why(tmp_path: Path) -> None:
    folder = fill(tmp_path)
    for file in folder.path.glob("*.json"):
        file.write_text("{")
    result = checkpoints("show", tmp_path)
    assert result.exit_code == 1
    assert "is half-written or damaged" in result.stderr


@pytest.mark.parametrize(("size", "shown"), [(0, "0 B"), (999, "999 B"), (1000, "1.0 kB"), (2_500_000_000, "2.5 GB")])
def test_sizes_are_shown_for_people(size: int, shown: str) -> None:
    from headrace.cli.checkpoints import _size

    assert _size(size) == shown
