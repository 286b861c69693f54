"""The coordinator, step by step, with a real worker and a clock that stands still unless told."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from tests.unit.runtime.endless import Ledger, LedgerSink, NumberEnumerator, Numbers, NumberSplit
from tests.unit.runtime.test_job import Count, fill_disk, job_of, with_folder

from headrace.checkpoint.manifest import Manifest
from headrace.checkpoint.storage import CheckpointFolder
from headrace.connector import Split, SplitEnumerator
from headrace.errors import ExternalError, InternalError
from headrace.plan.graph import Plan, Process
from headrace.runtime.collecting import Collecting
from headrace.runtime.coordinator import CheckpointFailed, Coordinator
from headrace.runtime.link import LaneFailed, LocalLink
from headrace.runtime.messages import (
    AlignWatermarks,
    Committed,
    Deployed,
    Failed,
    ToCoordinator,
    ToWorker,
    TriggerCheckpoint,
    WatermarksReached,
)
from headrace.runtime.settings import read_settings
from headrace.runtime.worker import Worker

COUNT = (Process(Count()), lambda x: 0)


class Clock:
    def __init__(self) -> None:
        self.now = 1_000.0

    def __call__(self) -> float:
        return self.now


class Harness:
    """One attempt that is driven by hand. An operator is given with the key of its input, as a pair."""

    def __init__(self, folder: Path, *operators: Any, source: Any = None, **options: Any) -> None:
        self.ledger = Ledger()
        self.clock = Clock()
        self.plan: Plan = job_of(source or Numbers(), *operators, sink=LedgerSink(self.ledger))
        settings = read_settings(with_folder(folder, **{"execution_checkpointing_interval": "10 s"} | options))
        self.folder = CheckpointFolder(folder, "job")
        self.folder.lock()
        self.worker = Worker(self.plan, settings, self.folder)
        self.link = LocalLink(self.worker, Collecting(self.plan))
        self.sent: list[ToWorker] = []
        self.coordinator = Coordinator(self.plan, settings, self.folder, self.link, clock=self.clock)

    def start(self) -> None:
        self.coordinator.start()

    def turn(self) -> None:
        while (said := self.link.receive()) is not None:
            self.coordinator.handle(*said)
        self.coordinator.tick()
        while (said := self.link.receive()) is not None:
            self.coordinator.handle(*said)

    def after(self, seconds: float) -> None:
        self.clock.now += seconds
        self.turn()


@pytest.fixture
def harness(tmp_path: Path) -> Harness:
    return Harness(tmp_path)


def test_a_checkpoint_starts_when_its_interval_is_over_and_not_before(harness: Harness) -> None:
    harness.start()
    harness.worker.step(0)
    harness.after(9.9)
    assert harness.coordinator.completed is None
    harness.after(0.2)
    assert harness.coordinator.completed is not None
    assert harness.ledger.values == list(range(len(harness.ledger.values)))
    assert harness.ledger.values


def test_the_next_checkpoint_waits_for_the_minimal_pause(tmp_path: Path) -> None:
    harness = Harness(tmp_path, execution_checkpointing_min__pause="60 s")
    harness.start()
    harness.after(10)
    first = harness.coordinator.completed
    harness.after(59)
    assert harness.coordinator.completed is first
    harness.after(1.1)
    assert harness.coordinator.completed is not first


def test_a_checkpoint_that_cannot_be_written_is_committed_with_the_next_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    harness = Harness(tmp_path, execution_checkpointing_tolerable__failed__checkpoints=1)
    harness.start()
    harness.worker.step(0)
    write = harness.folder.write_manifest
    failures = iter([True])

    def fail_once(manifest: Manifest) -> None:
        if next(failures, False):
            raise ExternalError("disk full")
        write(manifest)

    monkeypatch.setattr(harness.folder, "write_manifest", fail_once)
    harness.after(10)
    assert harness.coordinator.completed is None
    assert harness.ledger.values == []
    counts = harness.coordinator.counts
    assert (counts.begun, counts.completed, counts.failed, counts.under_way) == (1, 0, 1, 0)
    harness.worker.step(0)
    harness.after(10)
    assert harness.coordinator.completed is not None
    assert harness.coordinator.completed.id.number == 3
    assert (counts.begun, counts.completed, counts.failed, counts.last_number) == (2, 1, 1, 3)
    assert harness.ledger.values == list(range(len(harness.ledger.values)))


def test_state_that_cannot_be_written_is_committed_with_the_next_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    harness = Harness(tmp_path, COUNT, execution_checkpointing_tolerable__failed__checkpoints=1)
    harness.start()
    harness.worker.step(0)
    with monkeypatch.context() as patch:
        fill_disk(patch)
        harness.after(10)
    assert harness.coordinator.completed is None
    assert harness.ledger.values == []
    harness.worker.step(0)
    harness.after(10)
    assert harness.coordinator.completed is not None
    assert harness.coordinator.completed.id.number == 3
    assert harness.ledger.values == [(0, count + 1) for count in range(harness.worker.records_in)]


def test_failed_checkpoints_are_counted_anew_behind_one_that_is_complete(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    harness = Harness(tmp_path, COUNT, execution_checkpointing_tolerable__failed__checkpoints=2)
    harness.start()
    harness.worker.step(0)
    for _ in range(2):
        with monkeypatch.context() as patch:
            fill_disk(patch)
            harness.after(10)
            harness.after(10)
        harness.after(10)
    assert harness.coordinator.completed is not None
    assert harness.coordinator.completed.id.number == 7


def test_a_savepoint_that_failed_waits_like_any_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    harness = Harness(
        tmp_path / "c",
        COUNT,
        execution_checkpointing_interval="0 s",
        execution_checkpointing_tolerable__failed__checkpoints=1,
    )
    harness.start()
    harness.worker.step(0)
    harness.coordinator.request_savepoint(tmp_path)
    with monkeypatch.context() as patch:
        fill_disk(patch)
        harness.turn()
        harness.turn()
    harness.turn()
    assert harness.coordinator.completed is None
    harness.after(1)
    assert harness.coordinator.completed is not None
    taken = harness.coordinator.completed.id.number
    # Without an interval there is no other one.
    harness.worker.step(0)
    harness.after(10)
    assert harness.coordinator.completed.id.number == taken


def test_one_failed_checkpoint_too_many_fails_the_attempt(harness: Harness, monkeypatch: pytest.MonkeyPatch) -> None:
    harness.start()

    def fail(manifest: Manifest) -> None:
        raise ExternalError("disk full")

    monkeypatch.setattr(harness.folder, "write_manifest", fail)
    with pytest.raises(CheckpointFailed, match="disk full"):
        harness.after(10)


def test_a_checkpoint_that_nobody_acknowledges_in_time_is_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    harness = Harness(tmp_path, execution_checkpointing_timeout="30 s")
    harness.start()
    send = harness.link.send
    monkeypatch.setattr(harness.link, "send", lambda m, i: None if isinstance(m, TriggerCheckpoint) else send(m, i))
    harness.after(10)
    harness.after(29.9)
    with pytest.raises(CheckpointFailed, match="not acknowledged within 30000 ms"):
        harness.after(0.2)


def test_a_late_acknowledgement_of_a_given_up_checkpoint_is_ignored(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    harness = Harness(
        tmp_path,
        execution_checkpointing_timeout="30 s",
        execution_checkpointing_tolerable__failed__checkpoints=1,
    )
    harness.start()
    send, held = harness.link.send, list[ToWorker]()
    hold = held.append
    monkeypatch.setattr(harness.link, "send", lambda m, i: hold(m) if isinstance(m, TriggerCheckpoint) else send(m, i))
    harness.after(10)
    harness.after(31)
    send(held[0], 0)
    harness.turn()
    assert harness.coordinator.completed is None
    assert harness.ledger.values == []


def test_an_error_of_the_worker_is_raised_where_the_coordinator_runs(harness: Harness) -> None:
    harness.start()
    with pytest.raises(LaneFailed, match="gone"):
        harness.coordinator.handle(0, Failed(OSError("gone")))


@pytest.mark.parametrize("message", [Deployed()])
def test_an_answer_that_was_not_asked_for_is_a_defect(harness: Harness, message: ToCoordinator) -> None:
    harness.start()
    with pytest.raises(InternalError, match="not asked for"):
        harness.coordinator.handle(0, message)


def test_a_commit_of_another_checkpoint_changes_nothing(harness: Harness) -> None:
    harness.start()
    harness.coordinator.handle(0, Committed("somewhere", 77))
    assert harness.coordinator.completed is None


@dataclass
class Growing(NumberEnumerator):
    """Finds one more split at each look; the second look fails."""

    discovery_interval_ms: int | None = 60_000
    found: list[str] = field(default_factory=list)

    def start(self, restored: Sequence[Split] | None) -> list[Split]:
        return [NumberSplit("a")]

    def discover(self) -> list[Split]:
        self.found.append("look")
        if len(self.found) == 1:
            raise ExternalError("no broker")
        return [NumberSplit(f"new-{len(self.found)}")]


class GrowingNumbers(Numbers):
    def create_enumerator(self, context: Any) -> SplitEnumerator:
        return Growing()


def test_new_splits_are_read_and_a_failed_look_is_tried_again(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    harness = Harness(tmp_path, source=GrowingNumbers(), execution_checkpointing_interval="1 h")
    harness.start()

    def look() -> None:
        harness.after(60)
        (future,) = harness.coordinator._discoveries.values()
        future.exception()
        harness.turn()

    look()
    assert "looking for new splits of `numbers` failed: no broker" in caplog.text
    look()
    harness.worker.step(0)
    assert sorted(split.split_id for split in harness.worker._pipelines[0].reader.snapshot()) == ["a", "new-2"]
    harness.coordinator.close()


def test_nothing_new_is_looked_for_behind_the_last_checkpoint(tmp_path: Path) -> None:
    harness = Harness(tmp_path, source=GrowingNumbers(), execution_checkpointing_interval="1 h")
    harness.start()
    harness.coordinator.stop()
    harness.turn()
    harness.after(60)
    assert not harness.coordinator._discoveries
    harness.coordinator.close()


def test_every_lane_is_told_which_of_them_is_furthest_behind(harness: Harness, monkeypatch: pytest.MonkeyPatch) -> None:
    harness.start()
    sent: list[tuple[ToWorker, int]] = []
    monkeypatch.setattr(harness.link, "lanes", 2)
    monkeypatch.setattr(harness.link, "send", lambda message, lane: sent.append((message, lane)))
    monkeypatch.setattr(harness.link, "let_go", lambda lane: None)

    def told_after(lane: int, **groups: int | None) -> dict[str, int | None]:
        sent.clear()
        harness.coordinator.handle(lane, WatermarksReached(groups))
        (first, _), (second, _) = sent
        assert [lane for _, lane in sent] == [0, 1]
        assert isinstance(first, AlignWatermarks)
        assert first == second
        return dict(first.behind)

    assert told_after(0, a=50) == {"a": 50}
    assert told_after(1, a=20, b=7) == {"a": 20, "b": 7}
    assert told_after(0, a=60) == {"a": 20}
    # Idle, or at its end, it holds nobody back.
    assert told_after(1, a=None, b=None) == {"a": 60, "b": None}
    # A lane that is lost does until it is back.
    told_after(1, a=70, b=7)
    harness.coordinator.lose(1, delay_s=10)
    assert told_after(0, a=80) == {"a": 70}
