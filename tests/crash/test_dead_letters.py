"""Dead letters and results of one job, each exactly once, while it is killed."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest
from tests.crash.counting import BAD_KEYS
from tests.crash.harness import Job
from tests.crash.test_random_kills import kill_at_random

from headrace.kafka.client.provision import create_topics


@pytest.fixture
def make_failing_job(make_job: Callable[..., Job]) -> Callable[..., Job]:
    """Makes jobs that fail on records of three keys, each in another part."""

    def make(*arguments: str, per_partition: int = 0) -> Job:
        job = make_job("--delay-ms", "0.3", *arguments, per_partition=per_partition)
        dead = f"{job.output.topic}-dead"
        job.arguments = (*job.arguments, "--dead-letters", dead)
        job.output.others = (dead,)
        create_topics(job.bootstrap, {dead: job.output.partitions})
        return job

    return make


def check(job: Job) -> None:
    """Each record is a result or a dead letter, exactly once."""
    job.check()
    dead = [result for result in job.output.read() if "count" not in result]
    assert {result["key"] for result in dead} == set(BAD_KEYS)
    assert len(dead) == sum(key in BAD_KEYS for key in job.input.ids.values())


def test_dead_letters_and_results_are_written_exactly_once_while_the_job_is_killed(
    make_failing_job: Callable[..., Job], seed: int
) -> None:
    job = make_failing_job()

    kill_at_random(job, random.Random(seed), kills=6)

    check(job)


@pytest.mark.full
@pytest.mark.parametrize("name", ["checkpoint.flushed", "transaction.offsets_sent", "transaction.committed"])
def test_dead_letters_are_written_exactly_once_through_crash_points(
    make_failing_job: Callable[..., Job], name: str
) -> None:
    job = make_failing_job("--bounded", per_partition=200)

    job.crash_at(f"{name}@1")
    job.crash_at(f"{name}@3")
    job.start().wait(0)

    check(job)
