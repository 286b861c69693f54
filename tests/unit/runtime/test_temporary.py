"""Folders of runs that are given none: gone with the run, swept where it was killed, left alone while it lives."""

from __future__ import annotations

from pathlib import Path

import pytest

from headrace.checkpoint.storage import CheckpointFolder
from headrace.runtime.temporary import temporary_root


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where temporary files are made."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    return tmp_path


def left_behind(place: Path, name: str) -> Path:
    """The folder of a run that was killed: its lock is there, and nobody holds it."""
    folder = CheckpointFolder(place / f"headrace-job-{name}", "counts")
    folder.lock()
    said = (folder.path / "lock").read_text()
    folder.release()
    (folder.path / "lock").write_text(said)
    return folder.path.parent


def test_it_is_gone_with_the_run(place: Path) -> None:
    with temporary_root() as root:
        assert root.parent == place
        (root / "file").write_text("x")
    assert list(place.iterdir()) == []


def test_what_a_killed_run_left_is_removed(place: Path) -> None:
    dead = left_behind(place, "dead")
    with temporary_root():
        assert not dead.exists()


def test_a_run_that_lives_keeps_its_folder(place: Path) -> None:
    alive = CheckpointFolder(place / "headrace-job-alive", "counts")
    alive.lock()
    try:
        with temporary_root():
            assert alive.path.exists()
    finally:
        alive.release()


def test_nothing_else_is_touched(place: Path) -> None:
    (place / "headrace-job-empty").mkdir()
    other = left_behind(place, "dead").rename(place / "somebody-elses")
    with temporary_root():
        assert other.exists()
        assert (place / "headrace-job-empty").exists()
