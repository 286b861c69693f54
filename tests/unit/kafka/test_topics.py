"""What a partitioner is told of a topic's partitions, and when they are asked for again."""

from __future__ import annotations

import logging

import pytest

from headrace.errors import ExternalError
from headrace.kafka.client.protocol import ClientError, Failure
from headrace.kafka.topics import TopicPartitions


class Cluster:
    """One topic that grows, at a time that passes by hand."""

    def __init__(self) -> None:
        self.partitions: tuple[int, ...] | Failure = (0,)
        self.asked = 0
        self.now = 100.0

    def ask(self, topic: str) -> tuple[int, ...]:
        self.asked += 1
        if isinstance(self.partitions, Failure):
            raise ClientError(self.partitions)
        return self.partitions


@pytest.fixture
def cluster() -> Cluster:
    return Cluster()


@pytest.fixture
def known(cluster: Cluster) -> TopicPartitions:
    return TopicPartitions(cluster.ask, 5.0, "broker:9092", lambda: cluster.now)


def test_partitions_are_asked_for_once_and_again_when_they_are_old(cluster: Cluster, known: TopicPartitions) -> None:
    assert [known.of("t"), known.of("t"), cluster.asked] == [(0,), (0,), 1]
    cluster.partitions = (0, 1)
    cluster.now += 4.9
    assert known.of("t") == (0,)
    cluster.now += 0.1
    assert known.of("t") == (0, 1)
    assert cluster.asked == 2


def test_what_is_known_serves_while_the_brokers_do_not_answer(
    cluster: Cluster, known: TopicPartitions, caplog: pytest.LogCaptureFixture
) -> None:
    assert known.of("t") == (0,)
    cluster.partitions = Failure("_TIMED_OUT", "no answer", is_retriable=True)
    cluster.now += 6
    with caplog.at_level(logging.WARNING, "headrace.kafka"):
        assert [known.of("t"), known.of("t")] == [(0,), (0,)]
    assert len(caplog.records) == 1
    with pytest.raises(ExternalError, match="the partitions of topic 'u' could not be looked up"):
        known.of("u")
