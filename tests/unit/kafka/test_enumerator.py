"""What an enumerator makes of what a cluster says, on one that says what it is told to."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import replace

import pytest

from headrace.connector import SourceChanged
from headrace.errors import ExternalError
from headrace.kafka.client.protocol import Failure, KafkaTopicPartition, Position, TopicDescription
from headrace.kafka.enumerator import (
    EnumeratorSettings,
    KafkaSplitEnumerator,
    Subscription,
    TopicPattern,
    Topics,
    lane_of,
)
from headrace.kafka.offsets import KafkaOffsetResetStrategy, KafkaOffsetsInitializer
from headrace.kafka.split import KafkaSplit

UNKNOWN = Failure("UNKNOWN_TOPIC_OR_PART", "unknown topic or partition")


class Cluster:
    """Topics by name, each with its id and one partition that holds offsets 0 to 399; `gone` are those that the cluster
    still lists, and no more, and of `young` ones no broker leads the partition yet."""

    def __init__(self, **topics: str) -> None:
        self.topics = topics
        self.gone: set[str] = set()
        self.young: set[str] = set()

    def topic_names(self) -> list[str]:
        return [*self.topics, *self.gone]

    def describe_topics(self, names: Iterable[str]) -> dict[str, TopicDescription | Failure]:
        return {n: TopicDescription(n, self.topics[n], (0,)) if n in self.topics else UNKNOWN for n in names}

    def list_offsets(
        self, partitions: Iterable[KafkaTopicPartition], at: Position
    ) -> dict[KafkaTopicPartition, int | Failure]:
        offset = 400 if at is Position.LATEST else 0
        return {partition: UNKNOWN if partition.topic in self.young else offset for partition in partitions}


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


def topics_of(splits: Iterable[object]) -> list[str]:
    return [split.partition.topic for split in splits if isinstance(split, KafkaSplit)]


@pytest.mark.parametrize("subscription", [TopicPattern(".*"), Topics(("a", "b"))])
def test_a_topic_that_is_unknown_ends_the_start(subscription: Subscription) -> None:
    cluster = Cluster(a="id")
    cluster.gone.add("b")
    with pytest.raises(ExternalError, match="'b' cannot be read") as raised:
        enumerator_of(cluster, subscription).start(None)
    assert not raised.value.retriable


def test_a_topic_of_a_pattern_that_is_unknown_for_a_moment_is_passed_over(caplog: pytest.LogCaptureFixture) -> None:
    cluster = Cluster(a="id")
    enumerator = enumerator_of(cluster, TopicPattern(".*"))
    assert topics_of(enumerator.start(None)) == ["a"]

    cluster.topics["c"] = "id"
    cluster.gone.add("b")
    assert topics_of(enumerator.discover()) == ["c"]
    cluster.gone.clear()
    cluster.topics["b"] = "id"
    assert topics_of(enumerator.discover()) == ["b"]
    assert caplog.messages == []


def test_a_given_topic_that_is_gone_is_told_of_once_and_again_when_it_is_gone_again(
    caplog: pytest.LogCaptureFixture,
) -> None:
    cluster = Cluster(a="id", b="id")
    enumerator = enumerator_of(cluster, Topics(("a", "b")))
    assert topics_of(enumerator.start(None)) == ["a", "b"]

    with caplog.at_level(logging.WARNING, "headrace"):
        del cluster.topics["b"]
        assert enumerator.discover() == enumerator.discover() == []
        assert ["'b' is not there any more" in message for message in caplog.messages] == [True]
        cluster.topics["b"] = "id"
        assert enumerator.discover() == []
        del cluster.topics["b"]
        assert enumerator.discover() == []
    assert len(caplog.messages) == 2


def test_a_partition_that_nobody_leads_yet_is_looked_for_again_and_found() -> None:
    cluster = Cluster(a="id")
    enumerator = enumerator_of(cluster, TopicPattern(".*"))
    enumerator.start(None)

    cluster.topics["b"] = "id"
    cluster.young.add("b")
    with pytest.raises(ExternalError, match="offsets of b-0 cannot be read at the moment") as raised:
        enumerator.discover()
    assert raised.value.retriable
    cluster.young.clear()
    assert topics_of(enumerator.discover()) == ["b"]


def test_restored_partitions_that_are_not_subscribed_to_are_dropped_only_where_they_are_not_to_be_kept(
    caplog: pytest.LogCaptureFixture,
) -> None:
    cluster = Cluster(a="id", b="id")
    a, b = (KafkaSplit(KafkaTopicPartition(topic, 0), 7, topic_id="id") for topic in "ab")
    settings = EnumeratorSettings(
        Topics(("a",)), KafkaOffsetsInitializer.latest(), None, KafkaOffsetResetStrategy.NONE, None, "host:1"
    )
    assert KafkaSplitEnumerator(cluster, settings, None).start([a, b]) == [a, b]
    assert "no longer subscribes to b-0, but they come from the checkpoint and are still read" in caplog.text
    caplog.clear()
    dropping = KafkaSplitEnumerator(cluster, replace(settings, keeps_unsubscribed=False), None)
    del cluster.topics["b"]
    assert dropping.start([a, b]) == [a]
    assert "no longer subscribes to b-0: they come from the checkpoint, are dropped" in caplog.text


def test_a_pattern_has_to_match_the_whole_name_and_never_finds_kafkas_own_topics() -> None:
    cluster = Cluster(**{"rss": "id", "rss.events": "id", "old.rss": "id", "__rss": "id"})
    assert topics_of(enumerator_of(cluster, TopicPattern("rss")).start(None)) == ["rss"]
    assert topics_of(enumerator_of(cluster, TopicPattern(".*rss")).start(None)) == ["rss", "old.rss"]


@pytest.mark.parametrize(
    ("topic", "owners"),
    [
        ("test-topic", [0, 0, 0, 0, 1, 4, 0]),
        ("topic-a", [0, 1, 1, 1, 1, 5, 1]),
        ("topic-b", [0, 0, 2, 0, 2, 4, 8]),
        ("input-topic", [0, 0, 1, 0, 0, 4, 4]),
        ("orders", [0, 1, 0, 3, 4, 3, 3]),
        ("a", [0, 1, 1, 3, 2, 7, 7]),
    ],
)
def test_partitions_are_dealt_out_by_flinks_formula(topic: str, owners: list[int]) -> None:
    counts = (1, 2, 3, 4, 5, 8, 12)
    assert [lane_of(KafkaTopicPartition(topic, 0), lanes) for lanes in counts] == owners
    for lanes, owner in zip(counts, owners, strict=True):
        assert lane_of(KafkaTopicPartition(topic, 5), lanes) == (owner + 5) % lanes


def test_partitions_go_where_the_fewest_are_if_that_is_asked_for() -> None:
    cluster = Cluster(a="id")
    settings = EnumeratorSettings(
        Topics(("a",)), KafkaOffsetsInitializer.latest(), None, KafkaOffsetResetStrategy.NONE, None, "host:1"
    )
    split = KafkaSplit(KafkaTopicPartition("a", 0), 7, topic_id="id")
    by_formula = KafkaSplitEnumerator(cluster, settings, None)
    assert [by_formula.lane_of(split, loads) for loads in ([5, 0, 5], [0, 5, 5])] == [1, 1]
    balanced = KafkaSplitEnumerator(cluster, replace(settings, is_balanced=True), None)
    assert [balanced.lane_of(split, loads) for loads in ([5, 4, 5], [0, 5, 5], [1, 1, 1])] == [1, 0, 0]


def test_a_topic_that_is_created_again_while_it_is_read_has_the_job_start_again() -> None:
    cluster = Cluster(a="id", b="id")
    enumerator = enumerator_of(cluster, Topics(("a", "b")))
    enumerator.start(None)
    assert enumerator.discover() == []
    cluster.topics["a"] = "another"
    with pytest.raises(SourceChanged, match="topic 'a' was created again while it was read"):
        enumerator.discover()


def test_a_split_that_was_read_to_its_end_does_not_hold_its_topic_to_an_id() -> None:
    finished = KafkaSplit(KafkaTopicPartition("a", 0), 7, stop=7, topic_id="old")
    stop = KafkaOffsetsInitializer.latest()
    enumerator = KafkaSplitEnumerator(Cluster(a="new"), replace(SETTINGS, stopping=stop), None)
    assert enumerator.start([finished]) == [finished]
    assert enumerator.discover() == []


SETTINGS = EnumeratorSettings(
    Topics(("a",)), KafkaOffsetsInitializer.latest(), None, KafkaOffsetResetStrategy.NONE, None, "host:1"
)


def test_restored_splits_stop_where_the_program_says_by_now() -> None:
    cluster = Cluster(a="id")
    endless = KafkaSplit(KafkaTopicPartition("a", 0), 7, topic_id="id")
    stops = replace(endless, stop=9)
    (found,) = KafkaSplitEnumerator(cluster, replace(SETTINGS, stopping=offsets_of(8)), None).start([endless])
    assert found == replace(endless, stop=8)
    # What `latest` was at the first start, it stays.
    assert KafkaSplitEnumerator(cluster, replace(SETTINGS, stopping=offsets_of(8)), None).start([stops]) == [stops]
    assert KafkaSplitEnumerator(cluster, SETTINGS, None).start([stops]) == [endless]
    assert KafkaSplitEnumerator(cluster, replace(SETTINGS, keeps_stops=True), None).start([stops]) == [stops]


def offsets_of(offset: int) -> KafkaOffsetsInitializer:
    return KafkaOffsetsInitializer.offsets({KafkaTopicPartition("a", 0): offset})
