"""Two copies of one job: which of them may go on, and what the other one says."""

from __future__ import annotations

import socket
from collections import Counter
from collections.abc import Callable

import pytest
from tests.crash.harness import Job, Run, wait_until

LONG = pytest.mark.full
BEFORE_IT_IS_DURABLE = (
    "checkpoint.acknowledged@5",
    "checkpoint.manifest_synced@6",
    pytest.param("checkpoint.flushed@5", marks=LONG),
)
WHILE_ANOTHER_STARTS = [
    pytest.param(old, new, marks=() if old == "checkpoint.acknowledged@5" and new != "start.fenced@1" else LONG)
    for old in ("checkpoint.acknowledged@5", "checkpoint.manifest_synced@6", "checkpoint.flushed@5")
    for new in ("start.fenced@1", "start.markers_read@1", "baseline.written@1", "claim.committed@1")
]


def start_on_another_host(job: Job, *arguments: str, crash: str = "") -> Run:
    """Start a copy that the lock does not keep out, as if it worked on the same folder from another machine."""
    (job.state / "lock").unlink()
    return job.start(*arguments, crash=crash)


def newest_attempt(job: Job) -> str:
    return str(job.manifests()[-1]["id"]["attempt"])


def wait_for_the_survivor(*runs: Run) -> tuple[Run, Run]:
    """Wait until one of two copies has given up; gives who goes on, and who does not."""
    ended = wait_until(lambda: [run for run in runs if not run.is_running], "one of two copies gives up")
    assert len(ended) == 1, "both copies ended:\n" + "\n".join(run.log() for run in runs)
    (survivor,) = (run for run in runs if run not in ended)
    assert ended[0].wait() == 1
    return survivor, ended[0]


def test_second_copy_in_the_same_folder_is_refused_with_process_and_host_of_the_first(
    make_job: Callable[..., Job],
) -> None:
    job = make_job("--delay-ms", "0.5", per_partition=300)
    first = job.start()
    job.output.wait_for(1, first)

    second = job.start()
    second.wait(1)

    assert f"process {first.pid} on host {socket.gethostname()}" in second.log()
    job.catch_up(first)
    first.stop()
    job.check()


@pytest.mark.parametrize("halted_at", BEFORE_IT_IS_DURABLE)
def test_copy_halted_before_its_snapshot_is_durable_stops_when_it_wakes_up_behind_a_newer_one(
    make_job: Callable[..., Job], halted_at: str
) -> None:
    job = make_job("--delay-ms", "0.5", per_partition=400)
    old = job.halt_at(halted_at)
    new = start_on_another_host(job)
    job.output.wait_for(job.output.visible() + 200, new)

    old.wake()
    old.wait(1)

    assert "another copy of job 'counting' took over" in old.log()
    assert newest_attempt(job) in old.log()
    job.catch_up(new)
    new.stop()
    job.check()


@pytest.mark.parametrize(("halted_at", "newer_at"), WHILE_ANOTHER_STARTS)
def test_copy_halted_before_its_snapshot_is_durable_wakes_up_while_a_newer_one_starts(
    make_job: Callable[..., Job], halted_at: str, newer_at: str
) -> None:
    job = make_job("--delay-ms", "0.5", per_partition=400)
    old = job.halt_at(halted_at)
    before = job.manifest_files()
    new = start_on_another_host(job, crash=f"{newer_at}:stop")
    new.wait_until_halted()

    old.wake()
    if newer_at.startswith("start."):
        wait_until(lambda: set(job.manifest_files()) - set(before), "the old copy's snapshot becomes durable")
    else:
        wait_until(lambda: "another copy" in old.log() or not old.is_running, "the old copy notices the newer one")
    new.wake()

    survivor, _ = wait_for_the_survivor(old, new)
    job.catch_up(survivor)
    survivor.stop()
    job.check()


@pytest.mark.parametrize("halted_at", ["commit.before@5", "transaction.offsets_sent@6"])
def test_commit_of_a_zombie_fails_and_it_stops_with_the_name_of_the_newer_copy(
    make_job: Callable[..., Job], halted_at: str
) -> None:
    job = make_job("--delay-ms", "0.5", per_partition=400)
    zombie = job.halt_at(halted_at)
    new = start_on_another_host(job)
    job.output.wait_for(job.output.visible() + 200, new)

    zombie.wake()
    zombie.wait(1)

    assert "another copy of job 'counting' took over" in zombie.log()
    assert newest_attempt(job) in zombie.log()
    job.catch_up(new)
    new.stop()
    job.check()


def test_older_copy_stops_when_another_one_starts_over_in_another_folder(make_job: Callable[..., Job]) -> None:
    job = make_job("--delay-ms", "1", per_partition=300)
    old = job.start()
    job.output.wait_for(100, old)

    new = job.start("-D", "headrace.fresh=true", state_dir=job.folder / "elsewhere")
    old.wait(1)
    before = dict(job.input.ids)

    assert "another copy of job 'counting' took over" in old.log()
    written_twice = wait_until(
        lambda: (job.output.visible() > job.input.count) and job.output.read(), "the newer copy goes on"
    )
    assert set(Counter(result["id"] for result in written_twice).values()) <= {1, 2}
    assert set(before) >= {result["id"] for result in written_twice}
    new.stop()


def test_copy_with_an_empty_folder_is_refused_and_the_one_that_runs_goes_on(make_job: Callable[..., Job]) -> None:
    job = make_job("--delay-ms", "1", per_partition=500)
    old = job.start("-D", "restart-strategy.type=fixed-delay", "-D", "restart-strategy.fixed-delay.delay=50 ms")
    job.output.wait_for(100, old)

    lost = job.start(state_dir=job.folder / "elsewhere")
    lost.wait(1)

    assert "the folder was lost" in lost.log()
    assert "headrace.fresh" in lost.log()
    job.catch_up(old)
    old.stop()
    job.check()


def test_of_two_copies_that_start_together_one_goes_on(make_job: Callable[..., Job]) -> None:
    job = make_job("--delay-ms", "0.5", per_partition=400)
    job.crash_at("checkpoint.prepared@3")
    first = job.halt_at("start.markers_read@1")
    second = start_on_another_host(job, crash="start.markers_read@1:stop")
    second.wait_until_halted()

    first.wake()
    second.wake()

    survivor, _ = wait_for_the_survivor(first, second)
    job.catch_up(survivor)
    survivor.stop()
    job.check()
