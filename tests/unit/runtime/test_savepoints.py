"""Savepoints of a running job: what their results say, and what becomes of one when the job fails or ends."""

from __future__ import annotations

import json
import threading
from pathlib import Path

import pytest
from tests.unit.runtime.endless import Ledger, LedgerSink, Numbers
from tests.unit.runtime.test_job import RESTART_ONCE, failing_once, job_of, with_folder

from headrace.common.job_status import JobStatus
from headrace.errors import HeadraceError
from headrace.plan.graph import Map
from headrace.runtime.job import Job, JobCancelled, start_job


def position(savepoint: str) -> int:
    """Where the source stands in a savepoint."""
    manifest = json.loads((Path(savepoint) / "savepoint.json").read_text())
    (region,) = manifest["regions"].values()
    return int(next(op["splits"]["a"]["position"] for op in region["operators"].values() if op["splits"]))


def test_each_savepoint_is_one_of_its_own(tmp_path: Path) -> None:
    ledger = Ledger()
    client = start_job(job_of(Numbers(), sink=LedgerSink(ledger)), with_folder(tmp_path / "c"))

    first, second, third = (client.trigger_savepoint(str(tmp_path)).result() for _ in range(3))
    client.cancel()

    assert position(first) < position(second) < position(third)
    with pytest.raises(JobCancelled):
        client.get_job_execution_result().result()


def test_nothing_is_committed_behind_the_savepoint_that_a_job_stops_with(tmp_path: Path) -> None:
    for number in range(20):
        ledger = Ledger()
        client = start_job(job_of(Numbers(), sink=LedgerSink(ledger)), with_folder(tmp_path / f"c{number}"))
        while not ledger.values:
            pass

        path = client.stop_with_savepoint(False, str(tmp_path / f"s{number}")).result()
        client.get_job_execution_result().result()

        assert len(ledger.values) == position(path)


def test_savepoint_under_way_fails_with_the_attempt_that_was_to_take_it(tmp_path: Path) -> None:
    ledger, asked, failed = Ledger(), threading.Event(), threading.Event()

    def fail_once() -> None:
        # Whichever checkpoint it is, the savepoint has been asked for and cannot have been written.
        asked.wait()
        if not failed.is_set():
            failed.set()
            raise ValueError("not today")

    plan = job_of(Numbers(), sink=LedgerSink(ledger))
    client = start_job(plan, with_folder(tmp_path / "c", **RESTART_ONCE))
    while not ledger.values:
        pass
    ledger.before_commit = fail_once

    future = client.trigger_savepoint(str(tmp_path))
    asked.set()
    with pytest.raises(HeadraceError, match="savepoint failed"):
        future.result()

    assert client.trigger_savepoint(str(tmp_path)).result()
    client.cancel()
    with pytest.raises(JobCancelled):
        client.get_job_execution_result().result()


def test_savepoint_that_comes_too_late_says_so(tmp_path: Path) -> None:
    client = start_job(job_of(Numbers(limit=10), sink=LedgerSink(Ledger())), with_folder(tmp_path / "c"))
    client.get_job_execution_result().result()

    with pytest.raises(HeadraceError, match="has ended"):
        client.trigger_savepoint(str(tmp_path)).result()


def test_savepoint_that_nobody_waits_for_any_more_keeps_no_result_back(tmp_path: Path) -> None:
    plan = job_of(Numbers(), Map(failing_once(tmp_path, 5)), sink=LedgerSink(Ledger()))
    slow = {"restart__strategy_type": "fixed-delay", "restart__strategy_fixed__delay_delay": "1 h"}
    client = start_job(plan, with_folder(tmp_path / "c", **slow))
    while client.get_job_status().result() is not JobStatus.RESTARTING:
        pass

    assert client.trigger_savepoint(str(tmp_path)).cancel()
    client.cancel()

    with pytest.raises(JobCancelled):
        client.get_job_execution_result().result()


def test_result_of_a_job_is_nobodys_to_cancel(tmp_path: Path) -> None:
    client = start_job(job_of(Numbers(limit=10)), with_folder(tmp_path / "c"))

    assert not client.get_job_execution_result().cancel()
    client.get_job_execution_result().result()


def test_savepoint_that_cannot_be_written_costs_a_job_that_ends_anyway_nothing(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    job = Job(job_of(Numbers(), sink=LedgerSink(Ledger())), with_folder(tmp_path / "c"))
    asked = job.trigger_savepoint(str(tmp_path / "file"))
    job.stop()

    job.run()

    with pytest.raises(HeadraceError, match="file"):
        asked.result()


def test_job_that_ends_for_a_savepoint_has_failed_without_it(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    job = Job(job_of(Numbers(), sink=LedgerSink(Ledger())), with_folder(tmp_path / "c"))
    asked = job.stop_with_savepoint(False, str(tmp_path / "file"))

    with pytest.raises(HeadraceError, match="file"):
        job.run()

    with pytest.raises(HeadraceError, match="file"):
        asked.result()
