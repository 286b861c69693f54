"""Whole jobs that read Kafka: how they end, and what they find while they run."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest
from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient, NewPartitions
from tests.kafka.jobs import TIMEOUT_S, collecting, committed, environment, sink

from headrace.broker import DevBroker
from headrace.common import WatermarkStrategy
from headrace.kafka import (
    KafkaOffsetResetStrategy,
    KafkaOffsetsInitializer,
    KafkaSourceBuilder,
    KafkaTopicPartition,
)

UNTIMED = WatermarkStrategy.no_watermarks()
LATEST = KafkaOffsetsInitializer.latest()

Make = Callable[..., str]
Write = Callable[..., None]
Read = Callable[..., KafkaSourceBuilder]


@pytest.fixture
def write(kafka: DevBroker) -> Write:
    def write(topic: str, *values: str, partition: int = 0) -> None:
        # A new one each time: it knows of new partitions.
        producer = Producer({"bootstrap.servers": kafka.bootstrap_servers, "log_level": 2})
        for value in values:
            producer.produce(topic, value, partition=partition)
        assert producer.flush(TIMEOUT_S) == 0

    return write


def numbers(first: int, behind: int) -> list[str]:
    return [str(number) for number in range(first, behind)]


def test_a_bounded_job_ends_also_when_it_goes_on_from_a_checkpoint(
    kafka: DevBroker, read: Read, write: Write, make_topic: Make, tmp_path: Path
) -> None:
    topic, results, servers = make_topic(partitions=2), make_topic(), kafka.bootstrap_servers
    for partition in range(2):
        write(topic, *numbers(partition * 1000, partition * 1000 + 300), partition=partition)
    has_failed = tmp_path / "has failed"

    def fail_behind_a_checkpoint(value: str) -> str:
        # What is committed is only visible behind a checkpoint.
        if value.endswith("50") and not has_failed.exists() and committed(servers, results):
            has_failed.touch()
            raise OSError("once")
        time.sleep(0.002)
        return value

    options = {
        "execution_checkpointing_interval": "100 ms",
        "restart__strategy_type": "fixed-delay",
        "restart__strategy_fixed__delay_attempts": "1",
        "restart__strategy_fixed__delay_delay": "0 s",
    }
    env = environment(tmp_path / "state", **options)
    stream = env.from_source(read(topic).set_bounded(LATEST).build(), UNTIMED, "in")
    stream.map(fail_behind_a_checkpoint).sink_to(sink(servers, results))
    env.execute("bounded")
    assert has_failed.exists()
    assert sorted(value for value in committed(servers, results) if value) == sorted(
        number.encode() for number in numbers(0, 300) + numbers(1000, 1300)
    )


def test_an_unbounded_source_with_stop_offsets_ends_its_job(read: Read, write: Write, make_topic: Make) -> None:
    topic = make_topic()
    write(topic, *numbers(0, 10))
    stop = KafkaOffsetsInitializer.offsets({KafkaTopicPartition(topic, 0): 7})
    stream = environment().from_source(read(topic).set_unbounded(stop).build(), UNTIMED, "in")
    with collecting(stream, "stop offsets") as elements:
        assert list(elements) == numbers(0, 7)


def test_a_bounded_job_whose_pattern_matches_nothing_ends(read: Read, topic_name: Make) -> None:
    source = read().set_topic_pattern(topic_name("nothing-like-this")).set_bounded(LATEST).build()
    with collecting(environment().from_source(source, UNTIMED, "in"), "nothing") as elements:
        assert list(elements) == []


@pytest.mark.parametrize("lanes", [1, 3])
def test_a_running_job_finds_new_partitions_and_topics_and_reads_them_from_their_first_record(
    kafka: DevBroker, read: Read, write: Write, make_topic: Make, topic_name: Make, lanes: int
) -> None:
    hint = topic_name("p")
    topic = make_topic(hint=f"{hint}-a")
    write(topic, "before", "running")
    # By these, a partition that is not named starts at its end.
    starting = KafkaOffsetsInitializer.offsets({KafkaTopicPartition(topic, 0): 1}, KafkaOffsetResetStrategy.LATEST)
    made = read().set_topic_pattern(f"{hint}-.*").set_starting_offsets(starting)
    source = made.set_property("partition.discovery.interval.ms", "100").build()
    env = environment()
    env.set_parallelism(lanes)
    with collecting(env.from_source(source, UNTIMED, "in"), "discovery") as elements:
        found = [next(elements)]
        admin = AdminClient({"bootstrap.servers": kafka.bootstrap_servers, "log_level": 2})
        admin.create_partitions([NewPartitions(topic, 2)])[topic].result(TIMEOUT_S)
        other = make_topic(hint=f"{hint}-b")
        write(topic, "new partition", partition=1)
        write(other, "new topic")
        while not {"new partition", "new topic"} <= set(found):
            found.append(next(elements))
    assert set(found) == {"running", "new partition", "new topic"}
