"""Topics that change under a job: a new partition, a log that was trimmed, a topic that was created again."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from confluent_kafka import TopicPartition
from confluent_kafka.admin import AdminClient, NewPartitions
from tests.crash.harness import Input, Job, Run, tally
from tests.processes import DEADLINE_S, wait_until

from headrace.kafka.client.provision import create_topics

FINDS_PARTITIONS = ("--source-property", "partition.discovery.interval.ms=100")


def admin_of(job: Job) -> AdminClient:
    return AdminClient({"bootstrap.servers": job.bootstrap, "log_level": 2})


def add_a_partition(job: Job) -> None:
    topic, admin = job.input.topic, admin_of(job)
    job.input.partitions += 1
    for added in admin.create_partitions([NewPartitions(topic, job.input.partitions)]).values():
        added.result(DEADLINE_S)

    def has_leaders() -> bool:
        partitions = admin.list_topics(topic).topics[topic].partitions.values()
        return len(partitions) == job.input.partitions and all(partition.leader >= 0 for partition in partitions)

    wait_until(has_leaders, "the new partition has a leader")


def run_until_a_partition_is_found(job: Job) -> Run:
    run = job.start()
    job.output.wait_for(50, run)
    add_a_partition(job)
    job.input.produce(150)
    run.wait_for_log("reads 1 new split(s)")
    return run


@pytest.mark.parametrize("crash", ["checkpoint.flushed@4", "commit.before@4", "commit.after@4"])
def test_partition_added_between_two_checkpoints_is_read_from_its_first_record(
    make_job: Callable[..., Job], crash: str
) -> None:
    # Committed or not by the run that found it, it is in the baseline of the next one, which is killed in a checkpoint.
    job = make_job("--delay-ms", "0.5", *FINDS_PARTITIONS, per_partition=150)
    run_until_a_partition_is_found(job).kill()
    job.crash_at(crash)
    job.finish()

    job.check()


def test_partition_added_while_the_job_was_down_is_read_from_its_first_record(make_job: Callable[..., Job]) -> None:
    job = make_job("--start", "latest", *FINDS_PARTITIONS)
    run = job.start()
    run.wait_for_log("starts from the beginning")
    run.wait_for(lambda: list(job.state.glob("*.committed")), "a first checkpoint")
    run.stop()

    add_a_partition(job)
    job.input.produce(50)
    job.finish()

    job.check()


def test_trimmed_topic_is_named_with_the_gap_and_read_from_where_it_begins_now(make_job: Callable[..., Job]) -> None:
    job = make_job(per_partition=50)
    job.finish()
    job.input.produce(40)

    admin = admin_of(job)
    for trimmed in admin.delete_records([TopicPartition(job.input.topic, 2, 60)]).values():
        trimmed.result(DEADLINE_S)
    run = job.start()
    job.output.wait_for(job.input.count - 10, run)
    run.stop()

    assert f"offsets 50 to 59 of {job.input.topic}-2 are gone" in run.log()
    assert "10 records were not read" in run.log()
    found = job.tally()
    assert set(found.lost) == {record for record, _ in job.input.records[2][50:60]}
    assert not found.repeated


def test_topic_that_was_created_again_is_named_and_read_from_its_beginning(make_job: Callable[..., Job]) -> None:
    job = make_job(per_partition=50)
    job.finish()
    admin = admin_of(job)
    for deleted in admin.delete_topics([job.input.topic]).values():
        deleted.result(DEADLINE_S)
    wait_until(lambda: job.input.topic not in admin.list_topics().topics, "the topic is gone")

    create_topics(job.bootstrap, {job.input.topic: 4})
    # As many records as before, so that the offset alone would tell nothing.
    new = Input(job.bootstrap, job.input.topic)
    for partition in range(4):
        new.records[partition] = [(f"old-{i}", "none") for i in range(50)]
    new.produce(80)
    run = job.start()
    job.output.wait_for(200 + 320, run)
    run.stop()

    assert f"topic {job.input.topic} was deleted and created again" in run.log()
    for partition in range(4):
        del new.records[partition][:50]
    assert tally(job.input.ids | new.ids, job.output.read()).is_exact


def test_bounded_read_of_a_transactional_topic_ends_behind_its_last_control_record(
    make_job: Callable[..., Job],
) -> None:
    job = make_job("--bounded")
    job.input.produce(100, transactional=True)
    job.input.produce(30, partitions=[1], transactional=True)

    job.start().wait(0)

    job.check()
