"""Exactly once with topics, headers and partitions of the job's own choice, and partitions added while it runs."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest
from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient, NewPartitions
from tests.crash.harness import Job
from tests.crash.test_random_kills import kill_at_random
from tests.processes import DEADLINE_S

from headrace.kafka.client.provision import create_topics

LOOKS_OFTEN = ("--sink-property", "metadata.max.age.ms=100")


@pytest.fixture
def make_whole_job(make_job: Callable[..., Job]) -> Callable[..., Job]:
    """Makes jobs that write whole records, to two topics."""

    def make(*arguments: str, per_partition: int = 0) -> Job:
        job = make_job("--whole", "--delay-ms", "0.3", *arguments, per_partition=per_partition)
        job.output.others = (f"{job.output.topic}-odd",)
        create_topics(job.bootstrap, {job.output.others[0]: job.output.partitions})
        return job

    return make


def test_whole_records_are_written_exactly_once_while_the_job_is_killed(
    make_whole_job: Callable[..., Job], seed: int
) -> None:
    job = make_whole_job()

    kill_at_random(job, random.Random(seed), kills=6)

    job.check()


@pytest.mark.full
@pytest.mark.parametrize("name", ["checkpoint.flushed", "transaction.offsets_sent", "transaction.committed"])
def test_whole_records_are_written_exactly_once_through_crash_points(
    make_whole_job: Callable[..., Job], name: str
) -> None:
    job = make_whole_job("--bounded", per_partition=200)

    job.crash_at(f"{name}@1")
    job.crash_at(f"{name}@3")
    job.start().wait(0)

    job.check()


def test_partitions_added_to_what_is_written_are_used_and_nothing_is_lost_or_repeated(
    make_whole_job: Callable[..., Job],
) -> None:
    job = make_whole_job(*LOOKS_OFTEN, per_partition=100)
    run = job.start()
    run.wait_for(lambda: list(job.state.glob("*.committed")), "a first checkpoint")
    admin = AdminClient({"bootstrap.servers": job.bootstrap})
    topics = (job.output.topic, *job.output.others)
    for future in admin.create_partitions([NewPartitions(topic, 5) for topic in topics]).values():
        future.result(DEADLINE_S)
    job.output.partitions = 5

    def is_used() -> bool:
        job.input.produce(5)
        try:
            ends = job.output.ends()
        except KafkaException:
            # A partition that nobody leads yet.
            return False
        return all(end for (_, partition), end in ends.items() if partition == 4)

    run.wait_for(is_used, "the new partitions are written")
    run.kill()
    job.finish()

    job.check()
