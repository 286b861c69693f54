"""The broker is killed and started again while the job runs, and nothing is lost or repeated."""

from __future__ import annotations

import random
import time
from collections.abc import Callable

import pytest
from tests.crash.harness import Job, Line

from headrace.broker import DevBroker

RESTARTS = ("-D", "restart-strategy.type=fixed-delay", "-D", "restart-strategy.fixed-delay.attempts=1000")


def kill_the_broker(job: Job, broker: DevBroker, draw: random.Random, kills: int, ledger: Line) -> None:
    """Kill the broker and bring it back so many times, under a job that works all the time."""
    run = job.start()
    for _ in range(kills):
        job.input.produce(500)
        job.output.wait_for(job.output.visible() + draw.randrange(1, 1000), run)
        time.sleep(draw.uniform(0, 0.1))
        broker.kill()
        ledger.kills += 1
        broker.restart()
    job.catch_up(run)
    run.stop()


def test_a_broker_that_is_killed_once_costs_nothing(
    make_job: Callable[..., Job], mortal_kafka: DevBroker, seed: int, ledger: Line
) -> None:
    job = make_job("--delay-ms", "0.2", *RESTARTS, broker=mortal_kafka)

    kill_the_broker(job, mortal_kafka, random.Random(seed), 1, ledger)

    job.check()


@pytest.mark.full
def test_a_broker_that_is_killed_six_times_costs_nothing(
    make_job: Callable[..., Job], mortal_kafka: DevBroker, seed: int, ledger: Line
) -> None:
    job = make_job("--delay-ms", "0.2", *RESTARTS, broker=mortal_kafka)

    kill_the_broker(job, mortal_kafka, random.Random(seed), 6, ledger)

    job.check()
