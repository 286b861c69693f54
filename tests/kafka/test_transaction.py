"""A region's transaction and its marker, on real Kafka."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import replace
from typing import Any

import pytest
from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient
from tests.kafka.jobs import committed

from headrace.broker import DevBroker
from headrace.connector import Source, TransactionContext, TransactionLost, WriterContext
from headrace.errors import ConfigError, ExternalError, FencedError, StateError
from headrace.kafka import (
    DeliveryGuarantee,
    KafkaRecordSerializationSchema,
    KafkaSink,
    KafkaSource,
    KafkaTopicPartition,
)
from headrace.kafka.client.protocol import CommittedOffset
from headrace.kafka.client.provision import create_topics
from headrace.kafka.sink import KafkaTransactionalWriter
from headrace.kafka.transaction import KafkaTransaction, TransactionTimeout

TIMEOUT_S = 30.0
WRITER = WriterContext("job", "sink", 0, 1)


class Region:
    """A transaction and its writers, as a worker has them."""

    def __init__(self, sinks: Sequence[KafkaSink], name: str, sources: Sequence[Source] = (), **timing: int) -> None:
        interval = timing.get("interval_ms", 1_000)
        context = TransactionContext(name, "region", interval, 10_000)
        made = sinks[0].create_transaction(sinks, sources, context)
        assert isinstance(made, KafkaTransaction)
        self.transaction = made
        self.writers = [sink.create_writer(WRITER, made) for sink in sinks]

    def write(self, *values: bytes) -> None:
        for writer in self.writers:
            writer.write(list(values), None)

    def flush(self) -> None:
        for writer in self.writers:
            writer.flush()


@pytest.fixture
def sink(kafka: DevBroker) -> Callable[..., KafkaSink]:
    def make(topic: str, servers: str = kafka.bootstrap_servers, prefix: str = "p", **properties: str) -> KafkaSink:
        schema = KafkaRecordSerializationSchema.builder().set_topic(topic)
        schema.set_value_serialization_schema(lambda element: element)
        builder = KafkaSink.builder().set_bootstrap_servers(servers).set_record_serializer(schema.build())
        builder.set_delivery_guarantee(DeliveryGuarantee.EXACTLY_ONCE).set_transactional_id_prefix(prefix)
        for name, value in properties.items():
            builder.set_property(name, value)
        return builder.build()

    return make


@pytest.fixture
def region() -> Iterator[Callable[..., Region]]:
    """Makes regions and closes them after the test; not fenced yet."""
    with ExitStack() as stack:

        def make(sinks: KafkaSink | Sequence[KafkaSink], name: str, *args: Any, **timing: int) -> Region:
            made = Region([sinks] if isinstance(sinks, KafkaSink) else sinks, name, *args, **timing)
            stack.callback(made.transaction.close)
            return made

        yield make


@pytest.fixture
def stalling(other_kafka: DevBroker) -> Iterator[DevBroker]:
    """A broker to pause; goes on after the test."""
    yield other_kafka
    other_kafka.resume()


Make = Callable[..., str]
Sinks = Callable[..., KafkaSink]
Regions = Callable[..., Region]


def test_records_and_marker_become_visible_together(
    kafka: DevBroker, region: Regions, sink: Sinks, make_topic: Make
) -> None:
    topic = make_topic()
    at_work = region(sink(topic), topic)
    at_work.transaction.fence()
    assert at_work.transaction.read_marker() is None
    at_work.transaction.commit("claim")
    at_work.write(b"a", b"b")
    at_work.flush()
    assert at_work.transaction.read_marker() == "claim"
    assert committed(kafka.bootstrap_servers, topic) == []
    at_work.transaction.commit("one")
    assert at_work.transaction.read_marker() == "one"
    assert committed(kafka.bootstrap_servers, topic) == [b"a", b"b"]
    at_work.transaction.commit("nothing was written")
    assert at_work.transaction.read_marker() == "nothing was written"
    place, partition = at_work.transaction.location, KafkaTopicPartition(topic, 0)
    admin = sink(topic).create_admin()
    kept = admin.committed(str(place["group"]), [partition], stable=True)
    admin.close()
    assert kept == {partition: CommittedOffset(0, "nothing was written")}


def test_a_marker_may_have_three_thousand_bytes(region: Regions, sink: Sinks, make_topic: Make) -> None:
    topic = make_topic()
    at_work = region(sink(topic), topic)
    at_work.transaction.fence()
    at_work.transaction.commit("x" * 3000)
    assert at_work.transaction.read_marker() == "x" * 3000


def test_a_newer_copy_shuts_out_the_older_and_aborts_what_it_left(
    kafka: DevBroker, region: Regions, sink: Sinks, make_topic: Make
) -> None:
    topic = make_topic()
    older, newer = region(sink(topic), topic), region(sink(topic), topic)
    older.transaction.fence()
    older.transaction.commit("claim of the older")
    older.write(b"lost")
    older.flush()
    newer.transaction.fence()
    assert newer.transaction.read_marker() == "claim of the older"
    with pytest.raises(FencedError, match="another producer took the transactional id over"):
        older.transaction.commit("too late")
    newer.transaction.commit("claim of the newer")
    newer.write(b"kept")
    newer.transaction.commit("one")
    assert newer.transaction.read_marker() == "one"
    assert committed(kafka.bootstrap_servers, topic) == [b"kept"]


def test_a_recorded_transaction_is_shut_out_and_its_marker_read(region: Regions, sink: Sinks, make_topic: Make) -> None:
    topic = make_topic()
    older, newer = region(sink(topic, prefix="old"), topic), region(sink(topic, prefix="new"), topic)
    older.transaction.fence()
    older.transaction.commit("marker of the older")
    recorded = dict(older.transaction.location)
    assert recorded["transactional_id"] != newer.transaction.location["transactional_id"]
    older.write(b"lost")
    newer.transaction.fence(recorded)
    assert newer.transaction.read_marker(recorded) == "marker of the older"
    with pytest.raises(FencedError):
        older.transaction.commit("too late")


def test_a_location_on_another_cluster_is_refused(region: Regions, sink: Sinks, make_topic: Make) -> None:
    topic = make_topic()
    at_work = region(sink(topic), topic)
    recorded = {**at_work.transaction.location, "cluster_id": "elsewhere", "transactional_id": "other"}
    with pytest.raises(StateError, match="on cluster elsewhere"):
        at_work.transaction.fence(recorded)
    with pytest.raises(StateError, match="on cluster elsewhere"):
        at_work.transaction.read_marker(recorded)


def test_closing_aborts_what_is_open(kafka: DevBroker, region: Regions, sink: Sinks, make_topic: Make) -> None:
    topic = make_topic()
    at_work = region(sink(topic), topic)
    at_work.transaction.fence()
    at_work.write(b"aborted")
    at_work.flush()
    at_work.transaction.close()
    at_work.transaction.close()
    producer = Producer({"bootstrap.servers": kafka.bootstrap_servers, "log_level": 2})
    producer.produce(topic, b"behind")
    assert producer.flush(TIMEOUT_S) == 0
    # An open transaction would hold this one back.
    assert committed(kafka.bootstrap_servers, topic) == [b"behind"]


def test_reading_a_marker_waits_for_one_that_is_being_committed(region: Regions, sink: Sinks, make_topic: Make) -> None:
    topic = make_topic()
    older, reader = region(sink(topic), topic), region(sink(topic), topic)
    older.transaction.fence()
    older.transaction.commit("settled")
    place = older.transaction.location
    with older.transaction.producing("test") as producer:
        producer.send_offsets(str(place["group"]), KafkaTopicPartition(topic, 0), 2, "pending")
    read: list[str | None] = []
    thread = threading.Thread(target=lambda: read.append(reader.transaction.read_marker()))
    thread.start()
    thread.join(0.5)
    assert read == []
    producer.commit_transaction(TIMEOUT_S)
    thread.join(TIMEOUT_S)
    assert read == ["pending"]


def test_a_transaction_that_timed_out_is_fenced_and_was_never_visible(
    other_kafka: DevBroker, region: Regions, sink: Sinks, topic_name: Callable[[str], str]
) -> None:
    servers, topic = other_kafka.bootstrap_servers, topic_name("out")
    soon = {"transaction.timeout.ms": "1000"}
    at_work = region(sink(topic, servers=servers, **soon), topic, interval_ms=100)
    at_work.transaction.fence()
    at_work.transaction.commit("claim")
    at_work.write(b"timed out")
    at_work.flush()
    # Until the broker has noticed, a reader is held back.
    producer = Producer({"bootstrap.servers": servers, "log_level": 2})
    producer.produce(topic, b"behind")
    assert producer.flush(TIMEOUT_S) == 0
    deadline = time.monotonic() + TIMEOUT_S
    while committed(servers, topic) != [b"behind"]:
        assert time.monotonic() < deadline
    with pytest.raises(FencedError):
        at_work.transaction.commit("one")
    at_work.transaction.fence()
    assert at_work.transaction.read_marker() == "claim"


def test_a_failed_delivery_loses_the_transaction(region: Regions, sink: Sinks, make_topic: Make) -> None:
    topic, small = make_topic(), make_topic(**{"max.message.bytes": "1000"})
    at_work = region([sink(topic), sink(small)], topic)
    at_work.transaction.fence()
    at_work.transaction.commit("claim")
    at_work.write(b"x" * 2_000)
    with pytest.raises(ExternalError, match=f"2000 bytes for topic {small} is too large"):
        at_work.flush()
    with pytest.raises(ExternalError, match=f"2000 bytes for topic {small} is too large"):
        at_work.transaction.commit("one")
    at_work.transaction.fence()
    assert at_work.transaction.read_marker() == "claim"


def test_records_that_a_stalled_broker_did_not_take_lose_the_transaction_and_no_restart(
    stalling: DevBroker, region: Regions, sink: Sinks, topic_name: Callable[[str], str]
) -> None:
    servers, topic = stalling.bootstrap_servers, topic_name("out")
    at_work = region(sink(topic, servers=servers, **{"delivery.timeout.ms": "1000"}), topic)
    at_work.transaction.fence()
    at_work.transaction.commit("claim")
    stalling.pause()
    at_work.write(b"x")
    with pytest.raises(TransactionLost, match="the last checkpoint produces it again"):
        at_work.flush()
    with pytest.raises(TransactionLost):
        at_work.transaction.commit("one")
    stalling.resume()
    at_work.transaction.fence()
    assert at_work.transaction.read_marker() == "claim"
    at_work.write(b"x")
    at_work.transaction.commit("one")
    assert committed(servers, topic) == [b"x"]


def test_two_sinks_share_one_transaction(kafka: DevBroker, region: Regions, sink: Sinks, make_topic: Make) -> None:
    topics = [make_topic(), make_topic()]
    at_work = region([sink(topic) for topic in topics], topics[0])
    at_work.transaction.fence()
    at_work.write(b"both")
    at_work.flush()
    assert [committed(kafka.bootstrap_servers, topic) for topic in topics] == [[], []]
    at_work.transaction.commit("one")
    assert [committed(kafka.bootstrap_servers, topic) for topic in topics] == [[b"both"], [b"both"]]


def test_sinks_on_two_clusters_are_refused(
    other_kafka: DevBroker, region: Regions, sink: Sinks, make_topic: Make
) -> None:
    topic = make_topic()
    elsewhere = sink("elsewhere", servers=other_kafka.bootstrap_servers)
    with pytest.raises(ConfigError, match=f"'{topic}' .*'elsewhere' .*two clusters"):
        region([sink(topic), elsewhere], topic)
    made = region(elsewhere, topic, [source_of(topic, sink(topic).bootstrap_servers)])
    assert made.transaction.location["topic"] == "elsewhere"


def source_of(topic: str, servers: str) -> KafkaSource:
    builder = KafkaSource.builder().set_bootstrap_servers(servers).set_topics(topic)
    return builder.set_value_only_deserializer(bytes).build()


def test_the_marker_lives_on_a_source_topic_of_the_same_cluster_or_as_properties_say(
    kafka: DevBroker, region: Regions, sink: Sinks, make_topic: Make
) -> None:
    topic, source_topic, own = make_topic(), make_topic(), make_topic()
    source = source_of(source_topic, kafka.bootstrap_servers.replace("127.0.0.1", "localhost"))
    location = region(sink(topic), topic, [source]).transaction.location
    assert (location["topic"], location["partition"]) == (source_topic, 0)
    assert location["group"] == location["transactional_id"] == f"p-{topic}-region"
    chosen = {"headrace.marker.topic": own, "headrace.marker.group": f"{own}-group"}
    location = region(sink(topic, **chosen), topic, [source]).transaction.location
    assert (location["topic"], location["group"]) == (own, f"{own}-group-region")
    assert region(sink(topic), topic).transaction.location["topic"] == topic


def test_a_marker_topic_that_does_not_exist_is_named_at_once(region: Regions, sink: Sinks, make_topic: Make) -> None:
    topic = make_topic()
    begun = time.monotonic()
    with pytest.raises(ExternalError, match=r"'not-there', which is to hold the marker.*create the topic"):
        region(sink(topic, **{"headrace.marker.topic": "not-there"}), topic)
    assert time.monotonic() - begun < 5


def test_an_output_topic_that_does_not_exist_is_named_at_once(
    region: Regions, sink: Sinks, make_topic: Make, topic_name: Callable[[str], str]
) -> None:
    topic, missing = make_topic(), topic_name("missing")
    begun = time.monotonic()
    with pytest.raises(ExternalError, match=rf"'{missing}' does not exist on .*create it") as raised:
        region([sink(topic), sink(missing)], topic)
    assert time.monotonic() - begun < 2
    assert not raised.value.retriable


def test_a_timeout_over_the_brokers_limit_is_refused_with_both_numbers(
    region: Regions, sink: Sinks, make_topic: Make
) -> None:
    topic = make_topic()
    with pytest.raises(ConfigError, match=r"7200000, .* at most 900000"):
        region(sink(topic, **{"transaction.timeout.ms": "7200000"}), topic)


@pytest.mark.parametrize("is_given", [True, False])
def test_a_limit_that_may_not_be_read_is_found_by_being_refused(
    region: Regions, sink: Sinks, make_topic: Make, caplog: pytest.LogCaptureFixture, is_given: bool
) -> None:
    topic = make_topic()
    at_work = region(sink(topic), topic)
    at_work.transaction._timeout = TransactionTimeout(3_600_000, is_given)
    if is_given:
        with pytest.raises(ConfigError, match=r"refuse `transaction.timeout.ms` 3600000"):
            at_work.transaction.fence()
    else:
        at_work.transaction.fence()
        at_work.transaction.commit("claim")
        assert "trying their own default limit, 900000" in caplog.text


def test_a_stalled_broker_leaves_a_commit_open_until_it_settles(
    stalling: DevBroker,
    region: Regions,
    sink: Sinks,
    topic_name: Callable[[str], str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    servers, topic = stalling.bootstrap_servers, topic_name("out")
    at_work = region(sink(topic, servers=servers), topic)
    at_work.transaction.fence()
    at_work.write(b"x")
    at_work.flush()
    monkeypatch.setattr("headrace.kafka.transaction._CALL_S", 0.5)
    calls: list[float] = []
    kind: Any = type(at_work.transaction._producer)
    commit = kind.commit_transaction

    def counted(self: Any, timeout_s: float) -> None:
        calls.append(timeout_s)
        if len(calls) == 1:
            stalling.pause()
        elif len(calls) == 4:
            stalling.resume()
        commit(self, timeout_s)

    monkeypatch.setattr(kind, "commit_transaction", counted)
    at_work.transaction.commit("one")
    assert len(calls) >= 4
    assert at_work.transaction.read_marker() == "one"
    assert committed(servers, topic) == [b"x"]


def test_a_commit_that_stays_unknown_is_given_up_and_its_outcome_read_by_the_next_start(
    stalling: DevBroker,
    region: Regions,
    sink: Sinks,
    topic_name: Callable[[str], str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    servers, topic = stalling.bootstrap_servers, topic_name("out")
    at_work = region(sink(topic, servers=servers), topic)
    transaction = at_work.transaction
    transaction.fence()
    at_work.write(b"x")
    at_work.flush()
    monkeypatch.setattr("headrace.kafka.transaction._CALL_S", 0.2)
    monkeypatch.setattr(transaction, "_timeout_s", 0.1)
    transaction._context = replace(transaction._context, commit_retries=4)
    kind: Any = type(transaction._producer)
    commit = kind.commit_transaction

    def stalled(self: Any, timeout_s: float) -> None:
        stalling.pause()
        commit(self, timeout_s)

    monkeypatch.setattr(kind, "commit_transaction", stalled)
    try:
        with pytest.raises(ExternalError, match=r"nobody knows, after 0.5 s \(`sink.committer.retries` is 4") as raised:
            transaction.commit("one")
        assert raised.value.retriable
    finally:
        stalling.resume()
    monkeypatch.undo()
    transaction.fence()
    marker = transaction.read_marker()
    assert committed(servers, topic) == ([b"x"] if marker == "one" else [])


def test_a_writer_of_a_transaction_has_no_client_of_its_own(region: Regions, sink: Sinks, make_topic: Make) -> None:
    topic = make_topic()
    at_work = region(sink(topic), topic)
    (writer,) = at_work.writers
    assert isinstance(writer, KafkaTransactionalWriter)
    at_work.transaction.fence()
    writer.write([], None)
    writer.poll()
    writer.close()
    at_work.transaction.commit("claim")
    assert at_work.transaction.read_marker() == "claim"


def test_a_topic_that_is_created_again_takes_the_marker_with_it(
    kafka: DevBroker, region: Regions, sink: Sinks, topic_name: Callable[[str], str], make_topic: Make
) -> None:
    topic, marker_topic = make_topic(), topic_name("marker")
    create_topics(kafka.bootstrap_servers, {marker_topic: 1})
    at_work = region(sink(topic, **{"headrace.marker.topic": marker_topic}), topic)
    at_work.transaction.fence()
    at_work.transaction.commit("claim")
    admin = AdminClient({"bootstrap.servers": kafka.bootstrap_servers, "log_level": 2})
    admin.delete_topics([marker_topic])[marker_topic].result(TIMEOUT_S)
    deadline = time.monotonic() + TIMEOUT_S
    while at_work.transaction.read_marker() is not None:
        assert time.monotonic() < deadline
