"""What an enumerator makes of what a cluster says, on one that says what it is told to."""

from __future__ import annotations

from collections.abc import Iterable

import pytest

from headrace.kafka.client.protocol import Failure, KafkaTopicPartition, Position, TopicDescription
from headrace.kafka.enumerator import EnumeratorSettings, KafkaSplitEnumerator, Subscription, Topics
from headrace.kafka.offsets import KafkaOffsetResetStrategy, KafkaOffsetsInitializer
from headrace.kafka.split import KafkaSplit

UNKNOWN = Failure("UNKNOWN_TOPIC_OR_PART", "unknown topic or partition")


class Cluster:
    """Topics by name, each with its id and one partition that holds offsets 0 to 399."""

    def __init__(self, **topics: str) -> None:
        self.topics = topics

    def describe_topics(self, names: Iterable[str]) -> dict[str, TopicDescription | Failure]:
        return {n: TopicDescription(n, self.topics[n], (0,)) if n in self.topics else UNKNOWN for n in names}

    def list_offsets(self, partitions: Iterable[KafkaTopicPartition], at: Position) -> dict[KafkaTopicPartition, int]:
        return dict.fromkeys(partitions, 400 if at is Position.LATEST else 0)


def enumerator_of(
    cluster: Cluster,
    subscription: Subscription,
    strategy: KafkaOffsetResetStrategy = KafkaOffsetResetStrategy.EARLIEST,
) -> KafkaSplitEnumerator:
    settings = EnumeratorSettings(subscription, KafkaOffsetsInitializer.earliest(), None, strategy, None, "host:1")
    return KafkaSplitEnumerator(cluster, settings, 1000)


@pytest.mark.parametrize(
    ("strategy", "position", "is_start"),
    [(KafkaOffsetResetStrategy.EARLIEST, 0, True), (KafkaOffsetResetStrategy.LATEST, 400, False)],
)
def test_an_unread_start_that_is_reset_before_the_job_resumes_is_one_only_at_the_start_of_the_log(
    strategy: KafkaOffsetResetStrategy, position: int, is_start: bool
) -> None:
    at = KafkaTopicPartition("t", 0)
    enumerator = enumerator_of(Cluster(t="new"), Topics(("t",)), strategy)

    resumed = enumerator.start([KafkaSplit(at, 0, topic_id="old", is_start=True)])

    assert resumed == [KafkaSplit(at, position, topic_id="new", is_start=is_start)]
