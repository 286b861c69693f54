"""SIGTERM and SIGINT: a last checkpoint, exit status 0, and nothing left open."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable

import pytest
from tests.crash.harness import Job
from tests.crash.test_starts import positions


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signal_stops_the_job_with_a_last_checkpoint_and_the_next_run_reads_nothing_twice(
    make_job: Callable[..., Job], number: signal.Signals
) -> None:
    # The interval is so long that only the last checkpoint can have made anything visible.
    job = make_job("--delay-ms", "4", "--interval", "600000", per_partition=500)
    run = job.start()
    run.wait_for_log("starts from the beginning")
    run.wait_for(job.output.open_partitions, "results are written")

    run.stop(number)

    job.output.wait_until_closed()
    stopped_at = positions(json.loads(job.manifest_files()[-1].read_text()))
    results = job.output.read()
    assert 0 < sum(stopped_at.values()) < job.input.count
    assert len(results) == sum(stopped_at.values())
    job.finish("--interval", "50", "--delay-ms", "0")
    job.check()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_second_signal_ends_the_job_at_once_and_nothing_is_lost(
    make_job: Callable[..., Job], number: signal.Signals
) -> None:
    job = make_job("--delay-ms", "0.5", per_partition=300)
    stuck = job.folder / "stuck"
    run = job.start("--stuck", str(stuck))
    job.output.wait_for(100, run)
    stuck.touch()
    run.wait_for(stuck.with_suffix(".reached").exists, "a function that does not come back")

    run.send(number)
    run.wait_for_log("signal again")
    run.send(number)
    run.wait(128 + number, deadline_s=5)

    stuck.unlink()
    job.finish()
    job.check()


def test_stopping_and_starting_again_and_again_loses_and_repeats_nothing(make_job: Callable[..., Job]) -> None:
    job = make_job("--delay-ms", "0.5", per_partition=200)

    for _ in range(3):
        run = job.start()
        job.output.wait_for(min(job.output.visible() + 50, job.input.count), run)
        run.stop()
        assert not job.output.open_partitions() or job.output.wait_until_closed() is None
        job.input.produce(50)
    job.finish()

    job.check()
