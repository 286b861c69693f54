"""`kill -9` at random moments while input keeps coming, and nothing is lost or repeated."""

from __future__ import annotations

import random
import time
from collections.abc import Callable

import pytest
from tests.crash.harness import Job


def kill_at_random(job: Job, draw: random.Random, kills: int) -> None:
    """Start the job and kill it so many times: half of them at any moment of its start, half while it works."""
    for number in range(kills):
        job.input.produce(150)
        run = job.start()
        if number % 2:
            visible = job.output.visible()
            # What was left over by the last one, and some of what is new.
            job.output.wait_for(min(visible + draw.randrange(1, 400), job.input.count), run)
            moment = draw.uniform(0, 0.2)
        else:
            moment = draw.uniform(0, 1.2)
        deadline = time.monotonic() + moment
        while (left := deadline - time.monotonic()) > 0:
            time.sleep(left)
        run.kill()
    job.finish()


def test_a_few_kills_at_random_moments_lose_and_repeat_nothing(make_job: Callable[..., Job], seed: int) -> None:
    job = make_job("--delay-ms", "0.3")

    kill_at_random(job, random.Random(seed), kills=8)

    job.check()


@pytest.mark.full
@pytest.mark.parametrize("part", range(4))
def test_a_hundred_kills_at_random_moments_lose_and_repeat_nothing(
    make_job: Callable[..., Job], seed: int, part: int
) -> None:
    job = make_job("--delay-ms", "0.3")

    kill_at_random(job, random.Random(f"{seed}-{part}"), kills=28)

    job.check()
