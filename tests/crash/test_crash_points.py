"""`kill -9` at every named crash point, at its first and at a later hit, and nothing is lost or repeated."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest
from tests.crash.harness import Job

from headrace.crash_points import CRASH_POINTS

STARTING = ("start.fencing", "start.fenced", "start.markers_read", "baseline.written", "claim.committed")
"""Passed once a start: a process gets there again when it has failed and starts again by itself."""

SAVEPOINTS = ("savepoint.files_copied", "savepoint.written")
ONCE = ("checkpoint.finished_flag",)
"""Passed once in the life of a job."""

OF_A_TEAM = ("claim.between", "commit.between", "lane.fenced")
"""Passed by the coordinator of several lanes only: see `test_lanes`."""

RUNNING = tuple(name for name, _ in CRASH_POINTS if name not in (*STARTING, *SAVEPOINTS, *ONCE, *OF_A_TEAM))
RESTARTS_QUICKLY = ("-D", "restart-strategy.type=fixed-delay", "-D", "restart-strategy.fixed-delay.delay=50 ms")


@pytest.mark.parametrize("name", RUNNING)
def test_job_killed_at_a_crash_point_of_its_checkpoints_loses_and_repeats_nothing(
    make_job: Callable[..., Job], name: str
) -> None:
    job = make_job("--bounded", "--delay-ms", "0.5", per_partition=300)

    job.crash_at(f"{name}@1")
    job.crash_at(f"{name}@4")
    job.start().wait(0)

    job.check()


@pytest.mark.parametrize("name", STARTING)
def test_job_killed_at_a_crash_point_of_its_start_loses_and_repeats_nothing(
    make_job: Callable[..., Job], name: str
) -> None:
    job = make_job("--bounded", "--delay-ms", "0.5", *RESTARTS_QUICKLY, per_partition=300)
    trouble = job.folder / "trouble"

    job.crash_at(f"{name}@1")
    job.crash_at("checkpoint.prepared@3")
    trouble.touch()
    job.crash_at(f"{name}@2", "--fail-once", str(trouble))
    job.start().wait(0)

    assert not trouble.exists()
    job.check()


@pytest.mark.parametrize("name", SAVEPOINTS)
def test_job_killed_at_a_crash_point_of_a_savepoint_goes_on_and_takes_another(
    make_job: Callable[..., Job], name: str
) -> None:
    job = make_job("--bounded", "--delay-ms", "0.5", per_partition=300)
    savepoints = job.folder / "savepoints"

    job.crash_at(f"{name}@1", "--savepoints", "2", "--savepoint-dir", str(savepoints))
    job.crash_at(f"{name}@2", "--savepoints", "2", "--savepoint-dir", str(savepoints))
    job.start("--savepoints", "2", "--savepoint-dir", str(savepoints)).wait(0)

    complete = [json.loads(file.read_text()) for file in savepoints.glob("*/savepoint.json")]
    assert len(complete) >= 3
    job.check()


@pytest.mark.parametrize("name", ONCE)
def test_job_killed_once_it_is_finished_has_nothing_left_to_do(make_job: Callable[..., Job], name: str) -> None:
    job = make_job("--bounded", per_partition=100)

    job.crash_at(f"{name}@1")
    again = job.start()
    again.wait(0)

    assert "has finished before" in again.log()
    job.check()


def test_every_crash_point_is_hit_by_one_of_these_tests() -> None:
    assert sorted(RUNNING + STARTING + SAVEPOINTS + ONCE + OF_A_TEAM) == sorted(name for name, _ in CRASH_POINTS)
