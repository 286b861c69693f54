"""The native client's own: memory that is C's, hostile input, threads, forks, the end of the interpreter, fairness."""

from __future__ import annotations

import contextlib
import gc
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from tests.kafka.jobs import environment, source
from tests.processes import wait_until

from headrace.broker import DevBroker
from headrace.common import WatermarkStrategy
from headrace.kafka.client import CHOICE
from headrace.kafka.client.protocol import (
    Client,
    ClientError,
    Consumer,
    EndOfPartition,
    Failure,
    KafkaConsumerRecord,
    KafkaTopicPartition,
    OffsetsCommitted,
    Producer,
    Records,
)
from headrace.kafka.client.provision import create_topics
from headrace.kafka.properties import CONSUMER_DEFAULTS, PRODUCER_DEFAULTS

TIMEOUT_S = 30.0
NOBODY = "127.0.0.1:1"


@pytest.fixture(scope="module")
def client(native: Client) -> Client:
    return native


def reading(servers: str) -> dict[str, str]:
    more = {"group.id": "test-native", "enable.auto.commit": "false", "auto.offset.reset": "error"}
    return {**CONSUMER_DEFAULTS, "bootstrap.servers": servers, **more}


def writing(servers: str, **more: str) -> dict[str, str]:
    return {**PRODUCER_DEFAULTS, "bootstrap.servers": servers, **{k.replace("_", "."): v for k, v in more.items()}}


@pytest.fixture
def producer(client: Client, kafka: DevBroker) -> Iterator[Producer]:
    made = client.producer(writing(kafka.bootstrap_servers))
    yield made
    made.close()


@pytest.fixture
def consumer(client: Client, kafka: DevBroker) -> Iterator[Consumer]:
    made = client.consumer(reading(kafka.bootstrap_servers))
    yield made
    made.close()


def read(consumer: Consumer, topic: str, partitions: int = 1, max_records: int = 500) -> list[Records]:
    """Everything in a topic, batch by batch."""
    places = [KafkaTopicPartition(topic, number) for number in range(partitions)]
    consumer.assign(dict.fromkeys(places, 0))
    open_ones, batches, deadline = set(places), list[Records](), time.monotonic() + TIMEOUT_S
    while open_ones:
        assert time.monotonic() < deadline
        for event in consumer.consume(max_records, 1.0):
            if isinstance(event, Records):
                batches.append(event)
            elif isinstance(event, EndOfPartition):
                open_ones.discard(event.partition)
    consumer.unassign(places)
    return batches


def write(producer: Producer, topic: str, values: list[Any], **columns: Any) -> None:
    producer.produce(topic, values, **columns)
    assert producer.flush(TIMEOUT_S) == 0
    assert producer.take_failures() == []


def write_records(producer: Producer, records: list[Any]) -> None:
    producer.produce_records(records)
    assert producer.flush(TIMEOUT_S) == 0
    assert producer.take_failures() == []


# --- hostile input ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("columns", "error"),
    [
        ({"values": ["text"]}, TypeError),
        ({"values": [bytearray(b"x")]}, TypeError),
        ({"values": 7}, TypeError),
        ({"values": [b"x"], "keys": [1]}, TypeError),
        ({"values": [b"x"], "keys": []}, ValueError),
        ({"values": [b"x"], "timestamps": ["now"]}, TypeError),
        ({"values": [b"x"], "timestamps": [1 << 70]}, OverflowError),
        ({"values": [b"x"], "partitions": [1 << 70]}, OverflowError),
        ({"values": [b"x"], "partitions": [None]}, TypeError),
    ],
)
def test_wrong_types_are_exceptions_and_leave_the_producer_usable(
    columns: dict[str, Any], error: type[Exception], client: Client
) -> None:
    producer = client.producer(writing(NOBODY))
    with pytest.raises(error):
        producer.produce("topic", **columns)
    producer.produce("topic", [b"x"])
    producer.close()


def record_of(
    topic: Any = "t",
    value: Any = None,
    key: Any = None,
    partition: Any = None,
    timestamp: Any = None,
    headers: Any = (),
) -> Any:
    """A record with these fields, right or wrong."""
    return topic, value, key, partition, timestamp, headers


@pytest.mark.parametrize(
    ("fields", "error"),
    [
        ({"topic": b"bytes"}, TypeError),
        ({"topic": "a\0b"}, ValueError),
        ({"value": "text"}, TypeError),
        ({"value": bytearray(b"x")}, TypeError),
        ({"key": 1}, TypeError),
        ({"partition": "0"}, TypeError),
        ({"partition": 1 << 70}, OverflowError),
        ({"timestamp": 1.5}, TypeError),
        ({"headers": None}, TypeError),
        ({"headers": iter([("name", b"x")])}, TypeError),
        ({"headers": {"name": b"x"}}, TypeError),
        ({"headers": [7]}, TypeError),
        ({"headers": [("name",)]}, ValueError),
        ({"headers": [("name", "text")]}, TypeError),
        ({"headers": [(b"name", b"x")]}, TypeError),
        ({"headers": [("name", b"x"), ("a\0b", b"x")]}, ValueError),
        ({"headers": [("name", b"x"), ("\udc80", b"x")]}, ValueError),
    ],
)
def test_a_record_of_wrong_types_keeps_all_from_being_handed_over(
    fields: dict[str, Any], error: type[Exception], client: Client
) -> None:
    producer = client.producer(writing(NOBODY))
    with pytest.raises(error):
        producer.produce_records([record_of(), record_of(**fields)])
    assert producer.flush(0.0) == 0
    producer.close()


def test_a_record_of_wrong_types_is_named(client: Client) -> None:
    producer = client.producer(writing(NOBODY))
    wrong = [7, ("t", b"x"), [*record_of()], record_of(topic=b"t"), record_of(value="x")]
    wrong += [record_of(headers=7), record_of(timestamp=1.5), record_of(headers=[("name", "text")])]
    for record in wrong:
        with pytest.raises(TypeError, match="record 1"):
            producer.produce_records([record_of(), record])
    producer.close()


@pytest.mark.parametrize("topic", ["", "a" * 600, "a\0b", None, b"bytes", 5])
def test_a_name_that_no_topic_has_is_an_exception(topic: Any, client: Client) -> None:
    producer = client.producer(writing(NOBODY))
    with pytest.raises((TypeError, ValueError, ClientError)):
        producer.produce(topic, [b"x"])
    producer.close()


@pytest.mark.parametrize("settings", [{"no.such.setting": "1"}, {"a\0b": "1"}, {"linger.ms": "soon"}, {"linger.ms": 5}])
def test_settings_that_there_are_not_are_exceptions(settings: dict[str, Any], client: Client) -> None:
    for make in (client.producer, client.consumer):
        with pytest.raises((ClientError, ValueError, TypeError)):
            make({"bootstrap.servers": NOBODY, "group.id": "g", **settings})


def test_a_consumer_without_a_group_is_refused(client: Client) -> None:
    with pytest.raises(ClientError):
        client.consumer({"bootstrap.servers": NOBODY})


def test_a_consumer_refuses_what_is_no_number_partition_or_time(client: Client) -> None:
    consumer = client.consumer(reading(NOBODY))
    hostile: list[Callable[[], Any]] = [
        lambda: consumer.consume(0, 0),
        lambda: consumer.consume(-1, 0),
        lambda: consumer.consume(1, -1.0),
        lambda: consumer.consume(1, float("nan")),
        lambda: consumer.assign({"topic": 0}),  # type: ignore[dict-item]
        lambda: consumer.assign({KafkaTopicPartition("t", 1 << 40): 0}),
        lambda: consumer.assign({KafkaTopicPartition("t" * 600, 0): 0}),
        lambda: consumer.assign({KafkaTopicPartition("t", 0): "x"}),  # type: ignore[dict-item]
        lambda: consumer.assign(7),  # type: ignore[arg-type]
        lambda: consumer.consume(1 << 70, 0),
        lambda: consumer.end_seen(7),  # type: ignore[arg-type]
        lambda: consumer.seek({KafkaTopicPartition("not assigned", 0): 0}, 1.0),
    ]
    for call in hostile:
        with pytest.raises((TypeError, ValueError, OverflowError, AttributeError, MemoryError, ClientError)):
            call()
    for count in (1, 1 << 62):
        assert not any(isinstance(event, Records) for event in consumer.consume(count, 0))
    consumer.close()


def test_closed_clients_say_so(client: Client) -> None:
    producer, consumer = client.producer(writing(NOBODY)), client.consumer(reading(NOBODY))
    for closed in (producer, consumer):
        closed.close()
        closed.close()
    partition = KafkaTopicPartition("t", 0)
    calls: list[Callable[[], Any]] = [
        lambda: producer.produce("t", [b"x"]),
        producer.poll,
        lambda: producer.flush(1.0),
        lambda: producer.init_transactions(1.0),
        producer.begin_transaction,
        lambda: producer.send_offsets("g", partition, 1, "m"),
        lambda: producer.commit_transaction(1.0),
        lambda: producer.abort_transaction(1.0),
        lambda: consumer.consume(1, 1.0),
        lambda: consumer.assign({partition: 0}),
        lambda: consumer.unassign([partition]),
        lambda: consumer.pause([partition]),
        lambda: consumer.seek({partition: 0}, 1.0),
        lambda: consumer.commit({partition: 0}),
        lambda: consumer.end_seen(partition),
    ]
    for call in calls:
        with pytest.raises(ValueError, match="closed"):
            call()


def test_empty_missing_and_malformed_values_come_as_they_are(
    client: Client, kafka: DevBroker, producer: Producer, consumer: Consumer, make_topic: Callable[..., str]
) -> None:
    topic = make_topic()
    values = [b"", None, b"\xff\xfe", "é".encode(), b"a\0b"]
    keys = [None, b"", b"\xff", b"k", b"a\0"]
    write(producer, topic, values, keys=keys)
    assert [v for batch in read(consumer, topic) for v in batch.values] == values
    whole = client.consumer(reading(kafka.bootstrap_servers), whole_records=True)
    found = [(r.offset, r.key, r.value) for batch in read(whole, topic) for r in batch.values]
    assert found == list(zip(range(5), keys, values, strict=True))
    whole.close()
    texts = client.consumer(reading(kafka.bootstrap_servers), with_text=True)
    batches = read(texts, topic)
    assert [v for batch in batches for v in batch.values] == ["", None, "\ufffd\ufffd", "é", "a\0b"]
    assert batches[0].source.value(0) == b""
    with pytest.raises(IndexError):
        batches[0].source.value(len(batches[0].values))
    with pytest.raises(IndexError):
        batches[0].source.offset(-1)
    texts.close()


def test_thousands_of_headers_come_back_in_order(
    client: Client, kafka: DevBroker, producer: Producer, make_topic: Callable[..., str]
) -> None:
    topic = make_topic()
    headers = [(f"name-{n % 7}", None if n % 5 == 0 else b"%d" % n) for n in range(5_000)]
    write_records(producer, [record_of(topic=topic, headers=each) for each in (headers, [], headers[1:9])])
    reader = client.consumer(reading(kafka.bootstrap_servers), whole_records=True)
    assert [r.headers for batch in read(reader, topic) for r in batch.values] == [headers, [], headers[1:9]]
    reader.close()


class RawName(str):
    """A header's name that is written as bytes that are no text."""

    raw: bytes

    def encode(self, *_: Any) -> bytes:
        return self.raw


def raw_name(raw: bytes) -> RawName:
    made = RawName(raw.decode("utf-8", "replace"))
    made.raw = raw
    return made


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_names_of_headers_are_each_records_own_also_those_that_are_no_text(
    client: Client, kafka: DevBroker, make_topic: Callable[..., str]
) -> None:
    topic = make_topic()
    named = [[b"a", b"b"], [b"a"], [b"\xff", b"b"], [b"\xff", b"ab"], [], [b"", b"\xef\xbf\xbd"], [b"a", b"b"]]
    # It reads its schemas with what Python has deprecated.
    from kafka import KafkaProducer

    foreign = KafkaProducer(bootstrap_servers=kafka.bootstrap_servers)
    for names in named:
        foreign.send(topic, b"x", headers=[(raw_name(name), b"1") for name in names])
    foreign.close()
    reader = client.consumer(reading(kafka.bootstrap_servers), whole_records=True)
    found = [[name for name, _ in r.headers] for batch in read(reader, topic) for r in batch.values]
    assert found == [[name.decode("utf-8", "replace") for name in names] for names in named]
    reader.close()


def test_a_record_of_a_hundred_megabytes_passes(
    client: Client, kafka: DevBroker, make_topic: Callable[..., str]
) -> None:
    size = 100_000_000
    topic = make_topic(**{"max.message.bytes": str(size + 1_000)})
    larger = {"message.max.bytes": str(size + 1_000), "queue.buffering.max.kbytes": "200000"}
    producer = client.producer({**writing(kafka.bootstrap_servers), **larger})
    producer.produce(topic, [os.urandom(64) + bytes(size - 64)])
    left, failures = producer.flush(TIMEOUT_S), producer.take_failures()
    producer.close()
    assert left == 0
    if failures:
        # The broker's own limit for a request is 100 MiB; what it says is a failure, not a fault.
        assert failures[0].size_bytes == size
        return
    fetch = {"fetch.message.max.bytes": str(size + 1_000), "receive.message.max.bytes": str(size + 1_000_000)}
    fetch["fetch.max.bytes"] = str(size + 1_000)
    reader = client.consumer({**reading(kafka.bootstrap_servers), **fetch})
    assert [len(v) for batch in read(reader, topic) for v in batch.values] == [size]
    reader.close()


def test_partitions_are_chosen_by_number_or_by_the_partitioner(
    client: Client, producer: Producer, consumer: Consumer, make_topic: Callable[..., str]
) -> None:
    topic = make_topic(partitions=5)
    keys = [b"21", b"foobar", b"a-little-bit-long-string", b"abc"]
    chosen = client.murmur2_partitions(keys, 5)
    assert chosen == [(h & 0x7FFFFFFF) % 5 for h in (-973932308, -790332482, -985981536, 479470107)]
    write(producer, topic, [*keys, b"here"], keys=[*keys, b"abc"], partitions=[-1, -1, 2 - (1 << 32), -1, 4])
    found = {v: batch.partition.partition for batch in read(consumer, topic, 5) for v in batch.values}
    assert found == dict(zip([*keys, b"here"], [*chosen, 4], strict=True))
    try:
        producer.produce(topic, [b"x"], partitions=[99])
        producer.flush(TIMEOUT_S)
        (failure,) = producer.take_failures()
    except ClientError as error:
        failure = error.failure
    assert failure.name == "_UNKNOWN_PARTITION"


@pytest.mark.parametrize(
    ("more", "of_a_call", "of_all"),
    [
        pytest.param({"linger_ms": "60000"}, 1, 1, id="within a period"),
        pytest.param({"linger_ms": "0"}, 1, None, id="a period each call"),
        pytest.param({"sticky_partitioning_linger_ms": "0"}, None, None, id="as the library is told"),
        pytest.param({"partitioner": "random", "linger_ms": "60000"}, 1, 1, id="as the library does"),
    ],
)
@pytest.mark.parametrize("whole_records", [False, True])
def test_records_without_a_key_stay_in_a_partition_for_a_period(
    client: Client,
    kafka: DevBroker,
    consumer: Consumer,
    make_topic: Callable[..., str],
    more: dict[str, str],
    of_a_call: int | None,
    of_all: int | None,
    whole_records: bool,
) -> None:
    topic = make_topic(partitions=5)
    made = client.producer(writing(kafka.bootstrap_servers, **more))
    made.partitions(topic, TIMEOUT_S)
    for call in range(40):
        values = [b"%d" % call] * 50
        if whole_records:
            made.produce_records([(topic, value, None, None, None, []) for value in values])
        else:
            made.produce(topic, values)
    assert made.flush(TIMEOUT_S) == 0
    made.close()
    found: dict[bytes, set[int]] = {}
    for batch in read(consumer, topic, 5):
        for value in batch.values:
            found.setdefault(value, set()).add(batch.partition.partition)
    assert len(found) == 40
    several = {2, 3, 4, 5}
    assert set(map(len, found.values())) <= ({of_a_call} if of_a_call else several)
    assert len(set[int]().union(*found.values())) in ({of_all} if of_all else several)


def test_records_without_a_key_do_not_stay_where_nobody_leads(client: Client) -> None:
    # Noticed sooner than after nine seconds.
    soon = {"broker.session.timeout.ms": "2000", "broker.heartbeat.interval.ms": "500"}
    with DevBroker(brokers=3, properties=soon) as broker:
        create_topics(broker.bootstrap_servers, {"topic": 3})
        broker.kill(2)

        def leaders() -> set[int | None]:
            # One that has asked the broker that is gone, goes on asking it.
            admin = client.admin({"bootstrap.servers": broker.bootstrap_servers.split(",")[0]}, 3.0)
            try:
                described = admin.describe_topics(["topic"])["topic"]
            except ClientError:
                return set()
            finally:
                admin.close()
            return set() if isinstance(described, Failure) else {at.leader for at in described.replicas.values()}

        wait_until(lambda: None in leaders(), "a leader is missed")
        made = client.producer(writing(broker.bootstrap_servers, linger_ms="0", delivery_timeout_ms="3000"))
        made.partitions("topic", TIMEOUT_S)
        for _ in range(200):
            made.produce("topic", [b"x"] * 50)
        made.flush(TIMEOUT_S)
        # One or none of a call; a ninth of all, if a call stayed with what it draws.
        assert len(made.take_failures()) < 100
        made.close()


def test_partitions_and_offsets_are_asked_for(
    client: Client, kafka: DevBroker, producer: Producer, consumer: Any, make_topic: Callable[..., str]
) -> None:
    topic = make_topic()
    partition = KafkaTopicPartition(topic, 0)
    write(producer, topic, [b"a", b"b", b"c"], timestamps=[1_700_000_000_000 + n for n in (0, 10, 20)])
    assert consumer.watermark_offsets(partition, TIMEOUT_S) == (0, 3)
    assert consumer.offsets_for_times({partition: 1_700_000_000_005}, TIMEOUT_S) == {partition: 1}
    assert consumer.committed([partition], TIMEOUT_S) == {partition: None}
    consumer.assign({partition: 0})
    consumer.commit({partition: 2})
    deadline = time.monotonic() + TIMEOUT_S
    while not any(isinstance(event, OffsetsCommitted) for event in consumer.consume(10, 0.5)):
        assert time.monotonic() < deadline
    assert consumer.committed([partition], TIMEOUT_S) == {partition: 2}


def test_a_partition_that_is_assigned_twice_is_refused_and_goes_on_waking_its_reader(
    producer: Producer, consumer: Consumer, make_topic: Callable[..., str]
) -> None:
    topic = make_topic(partitions=2)
    first, second = KafkaTopicPartition(topic, 0), KafkaTopicPartition(topic, 1)
    consumer.assign({first: 0})
    with pytest.raises(ClientError, match="_CONFLICT"):
        consumer.assign({first: 0, second: 0})
    deadline = time.monotonic() + TIMEOUT_S
    while not any(isinstance(event, EndOfPartition) for event in consumer.consume(10, 1.0)):
        assert time.monotonic() < deadline
    write(producer, topic, [b"x"], partitions=[0])
    begun = time.monotonic()
    assert any(isinstance(event, Records) for event in consumer.consume(10, TIMEOUT_S))
    assert time.monotonic() - begun < TIMEOUT_S / 3


def test_what_was_heard_before_a_callback_raises_comes_with_the_next_call(
    client: Client, kafka: DevBroker, make_topic: Callable[..., str]
) -> None:
    topic = make_topic()
    partition = KafkaTopicPartition(topic, 0)

    def refuse(_text: str) -> None:
        raise ArithmeticError("no statistics today")

    settings = {**CONSUMER_DEFAULTS, "bootstrap.servers": kafka.bootstrap_servers, "group.id": topic}
    consumer: Any = client.consumer({**settings, "statistics.interval.ms": "1"}, on_statistics=refuse)
    heard: list[Any] = []
    refused = 0
    # Statistics come between their outcomes, each millisecond.
    for offset in range(100):
        consumer.commit({partition: offset})
    deadline = time.monotonic() + TIMEOUT_S
    while len(heard) < 100 or not refused:
        assert time.monotonic() < deadline, len(heard)
        try:
            heard += consumer.consume(10, 0.0)
        except ArithmeticError:
            refused += 1
    assert sorted(heard, key=lambda event: event.offsets[partition]) == [
        OffsetsCommitted({partition: offset}, None) for offset in range(100)
    ]
    with contextlib.suppress(ArithmeticError):
        consumer.close()
    with pytest.raises(ValueError, match="closed"):
        consumer.consume(1, 0.0)


def test_a_consumer_that_is_closed_leaves_nothing_for_stderr(client: Client, capfd: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        consumer = client.consumer(
            {"bootstrap.servers": f"127.0.0.1:{port}", "group.id": "g", "reconnect.backoff.ms": "1"}
        )
        # When it comes again, it has said why.
        for _ in range(3):
            server.accept()[0].close()
        with server.accept()[0]:
            consumer.close()
    assert capfd.readouterr().err == ""


class Longer(list[Any]):
    """Says that it is longer than it is."""

    def __len__(self) -> int:
        return 1_000


def test_columns_are_as_long_as_they_are_and_not_as_they_say(client: Client) -> None:
    producer = client.producer(writing(NOBODY))
    producer.produce("topic", Longer([b"x"]))
    producer.produce_records(Longer([record_of(topic="topic", headers=Longer([("name", b"x")]))]))
    for column in ("keys", "timestamps", "partitions"):
        with pytest.raises(ValueError, match="a column of 0"):
            producer.produce("topic", [b"x"], **{column: Longer()})
    producer.close()


def test_handles_that_were_not_made_let_go_of_nothing(client: Client) -> None:
    program = (
        "import os\n"
        "from headrace.kafka.client.native import _librdkafka\n"
        "for make in (_librdkafka.Consumer, _librdkafka.Producer):\n"
        "    for arguments in ((), ({},), (7,)):\n"
        "        try:\n"
        "            make(*arguments)\n"
        "        except (TypeError, RuntimeError):\n"
        "            pass\n"
        "os.fstat(0)\n"
    )
    ended = subprocess.run([sys.executable, "-c", program], stdin=subprocess.PIPE, capture_output=True, check=False)
    assert (ended.returncode, ended.stderr) == (0, b"")


@pytest.fixture
def transactional(client: Client, kafka: DevBroker, topic_name: Callable[[str], str]) -> Iterator[Producer]:
    more = {"transactional.id": topic_name("id"), "linger.ms": "5000", "transaction.timeout.ms": "60000"}
    made = client.producer({**writing(kafka.bootstrap_servers), "delivery.timeout.ms": "30000", **more})
    made.init_transactions(TIMEOUT_S)
    made.begin_transaction()
    yield made
    made.close()


def test_records_that_were_never_sent_do_not_hold_up_an_abort(
    transactional: Producer, make_topic: Callable[..., str]
) -> None:
    transactional.produce(make_topic(), [b"x"] * 100)
    begun = time.monotonic()
    transactional.abort_transaction(TIMEOUT_S)
    assert time.monotonic() - begun < 4
    transactional.begin_transaction()


def test_a_commit_says_which_delivery_failed(transactional: Producer, make_topic: Callable[..., str]) -> None:
    transactional.produce(make_topic(**{"max.message.bytes": "1000"}), [b"x" * 2_000])
    with pytest.raises(ClientError) as raised:
        transactional.commit_transaction(TIMEOUT_S)
    assert raised.value.failure.name == "MSG_SIZE_TOO_LARGE"
    assert raised.value.failure.requires_abort


def test_nothing_is_left_of_a_flush_that_does_not_wait(client: Client) -> None:
    producer = client.producer(writing(NOBODY))
    assert producer.flush(0.0) == 0
    producer.produce("topic", [b"x"])
    assert producer.flush(0.0) == 1
    producer.close()


def test_failures_that_were_heard_of_survive_a_refusal(
    client: Client, kafka: DevBroker, make_topic: Callable[..., str]
) -> None:
    small = make_topic(**{"max.message.bytes": "1000"})
    producer = client.producer(writing(kafka.bootstrap_servers, queue_buffering_max_messages="1", linger_ms="0"))
    with pytest.raises(ClientError):
        producer.produce(small, [b"x" * 2_000, b"x", b"x" * 2_000_000])
    producer.flush(TIMEOUT_S)
    assert [failure.size_bytes for failure in producer.take_failures()] == [2_000]
    producer.close()


# --- memory -----------------------------------------------------------------------------------------------------------


def test_records_that_outlive_their_consumer_say_that_they_are_gone(
    client: Client, kafka: DevBroker, producer: Producer, make_topic: Callable[..., str]
) -> None:
    topic = make_topic()
    write(producer, topic, [b"x"] * 10)
    reader = client.consumer(reading(kafka.bootstrap_servers))
    batches = read(reader, topic, max_records=3)
    kept, dropped = batches[0], batches.pop()
    del dropped
    reader.close()
    with pytest.raises(ValueError, match="gone"):
        list(kept.values)
    with pytest.raises(ValueError, match="gone"):
        kept.source.value(0)
    del kept, batches, reader
    gc.collect()


def test_references_are_counted_right(
    client: Client, kafka: DevBroker, producer: Producer, consumer: Consumer, make_topic: Callable[..., str]
) -> None:
    topic = make_topic()
    value, key, text = os.urandom(20), os.urandom(20), os.urandom(20)
    named = [("header", text)]
    values, keys = [value] * 50, [key] * 50
    records = [record_of(topic=topic, value=value, key=key, timestamp=1_700_000_000_000, headers=named)] * 50
    held = (value, key, text, values, keys, named, records, records[0])
    before = [sys.getrefcount(each) for each in held]
    for _ in range(20):
        write(producer, topic, values, keys=keys, timestamps=[1_700_000_000_000] * 50)
        write_records(producer, records)
        with pytest.raises(TypeError):
            producer.produce(topic, [*values, "text"], keys=[*keys, None])
        with pytest.raises(TypeError):
            producer.produce_records([*records, record_of(topic=topic, headers=[*named, ("header", "text")])])
    assert [sys.getrefcount(each) for each in held] == before
    whole = client.consumer(reading(kafka.bootstrap_servers), whole_records=True)
    kinds = sys.getrefcount(KafkaConsumerRecord)
    for one in [record for batch in read(whole, topic) for record in batch.values]:
        # Of the list, of the variable, and the argument.
        assert sys.getrefcount(one) == 3
        # Of the record, of the tuple here, of the variable, and the argument.
        assert [sys.getrefcount(part) for part in (one.key, one.value, one.headers)] == [4, 4, 4]
    del one
    assert sys.getrefcount(KafkaConsumerRecord) == kinds
    whole.close()
    for batch in read(consumer, topic):
        source = batch.source
        # Of the batch, of its values, of the variable, and the argument.
        assert sys.getrefcount(source) == 4
        made = [sys.getrefcount(one) for part in (batch.values, batch.values[3:]) for one in part]
        assert set(made) == {2}
        assert sys.getrefcount(source) == 4


def resident_mb() -> float:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6


SHORT_LOGS = {"log.retention.check.interval.ms": "1000", "log.segment.delete.delay.ms": "1000"}
"""So that what is written is soon gone from the disk."""


@pytest.mark.parametrize("total", [2_000_000, pytest.param(100_000_000, marks=pytest.mark.full)])
@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="resident memory is read from /proc")
def test_memory_is_flat_over_many_records(total: int, client: Client) -> None:
    with DevBroker(topics={"in": 4}, properties=SHORT_LOGS) as broker:
        small = {"retention.bytes": "50000000", "segment.bytes": "20000000"}
        create_topics(broker.bootstrap_servers, {"out": 4}, config=small)
        producer = client.producer(writing(broker.bootstrap_servers, queue_buffering_max_messages="10000"))
        for _ in range(100):
            producer.produce_records([record_of(topic="in", value=bytes(100), headers=[("a", b"x")])] * 5_000)
        assert producer.flush(TIMEOUT_S) == 0
        few = {"queued.min.messages": "1000", "queued.max.messages.kbytes": "1000", "fetch.message.max.bytes": "200000"}
        settings = {**reading(broker.bootstrap_servers), **few}
        consumer = client.consumer(settings, whole_records=True)
        places = [KafkaTopicPartition("in", number) for number in range(4)]
        consumer.assign(dict.fromkeys(places, 0))
        seen, samples = 0, []
        while seen < total:
            for event in consumer.consume(500, 1.0):
                if isinstance(event, Records):
                    seen += len(event.values)
                    producer.produce_records(
                        [("out", r.value, r.key, None, r.timestamp, r.headers) for r in event.values]
                    )
                    if seen * 50 // total > len(samples):
                        samples.append(resident_mb())
                elif isinstance(event, EndOfPartition):
                    consumer.seek({event.partition: 0}, TIMEOUT_S)
        assert producer.flush(TIMEOUT_S) == 0
        assert producer.take_failures() == []
        producer.close()
        consumer.close()
    # Queues fill in the first tenth.
    early, late = max(samples[5:25]), max(samples[25:])
    print(f"{seen} records; resident memory: {early:.0f} MB at the most in the first half, {late:.0f} in the second")
    assert late < early * 1.05 + 5


# --- threads, processes, and the end ----------------------------------------------------------------------------------


def is_refused(call: Callable[[], object]) -> bool:
    try:
        call()
    except RuntimeError as error:
        return "another is using it" in str(error)
    return False


def test_a_second_thread_is_refused_while_the_first_is_inside(
    consumer: Consumer, producer: Producer, make_topic: Callable[..., str]
) -> None:
    topic = make_topic()
    consumer.assign({KafkaTopicPartition(topic, 0): 0})
    # Behind the end there is nothing that a call could come back with.
    wait_until(lambda: any(isinstance(event, EndOfPartition) for event in consumer.consume(1, 1.0)), "its end")

    def go_in_and_stay() -> None:
        # Until it is inside, the other thread may come in for a moment.
        while is_refused(lambda: consumer.consume(1, TIMEOUT_S)):
            pass

    inside = threading.Thread(target=go_in_and_stay)
    inside.start()
    wait_until(lambda: is_refused(lambda: consumer.consume(1, 0)), "the other thread is inside")
    refused_close = is_refused(consumer.close)
    write(producer, topic, [b"x"])
    inside.join()
    assert refused_close


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
def test_a_forked_process_is_refused_and_can_end(
    client: Client, producer: Producer, consumer: Consumer, make_topic: Callable[..., str]
) -> None:
    topic = make_topic()
    write(producer, topic, [b"x"] * 10)
    consumer.assign({KafkaTopicPartition(topic, 0): 0})
    events = consumer.consume(1, TIMEOUT_S)
    pid = os.fork()
    if pid == 0:
        told = 0
        for call in (lambda: consumer.consume(1, 0), lambda: producer.produce(topic, [b"y"]), consumer.close):
            try:
                call()
            except RuntimeError:
                told += 1
        events.clear()
        gc.collect()
        os._exit(10 + told)
    _, status = os.waitpid(pid, 0)
    assert os.waitstatus_to_exitcode(status) == 13
    write(producer, topic, [b"z"])
    del events


AT_THE_END = """
import faulthandler, sys
faulthandler.enable()
from headrace.kafka.client.native import NativeClient
from headrace.kafka.client.protocol import KafkaTopicPartition
client = NativeClient()
producer = client.producer({{"bootstrap.servers": "{servers}"}})
consumer = client.consumer({{"bootstrap.servers": "{servers}", "group.id": "g"}})
consumer.assign({{KafkaTopicPartition("{topic}", 0): 0}})
kept = consumer.consume(5, 10.0)
producer.produce("{topic}", [bytes(100)] * 10_000)
{ending}
"""


@pytest.mark.parametrize(
    "ending",
    [
        "",
        "sys.exit(0)",
        "del consumer, producer",
        "cycle = [consumer, producer, kept]; cycle.append(cycle); del consumer, producer, kept",
        "import threading, time; threading.Thread(target=lambda: consumer.consume(1000, 60), daemon=True).start()",
    ],
)
def test_the_interpreter_ends_well_with_messages_in_flight(
    ending: str, client: Client, kafka: DevBroker, producer: Producer, make_topic: Callable[..., str]
) -> None:
    topic = make_topic()
    write(producer, topic, [b"x"] * 100)
    program = AT_THE_END.format(servers=kafka.bootstrap_servers, topic=topic, ending=ending)
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, timeout=60, check=False)
    assert (ended.returncode, ended.stderr) == (0, b"")


# --- fairness ---------------------------------------------------------------------------------------------------------


def test_partitions_that_are_full_are_served_in_turn(
    client: Client, kafka: DevBroker, producer: Producer, consumer: Consumer, make_topic: Callable[..., str]
) -> None:
    topic = make_topic(partitions=4)
    for number in range(4):
        write(producer, topic, [b"x"] * 2_000, partitions=[number] * 2_000)
    consumer.assign({KafkaTopicPartition(topic, number): 0 for number in range(4)})
    ready: set[int] = set()

    def are_ready() -> bool:
        ready.update(event.partition.partition for event in consumer.consume(1, 0) if isinstance(event, Records))
        return len(ready) == 4

    # One record at a look, so that the first that is there is not empty when the last one comes.
    wait_until(are_ready, "all partitions have been fetched")
    served = []
    while len(served) < 200:
        # What a slow function leaves room for: few records a call, and each call is a step of 50 ms.
        served += [event.partition.partition for event in consumer.consume(5, 1.0) if isinstance(event, Records)]
    for start in range(len(served) - 8):
        assert set(served[start : start + 8]) == {0, 1, 2, 3}, served


def test_no_partition_waits_for_a_second_below_a_slow_function(
    client: Client,
    kafka: DevBroker,
    producer: Producer,
    make_topic: Callable[..., str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv(CHOICE, "native")
    topic = make_topic(partitions=4)
    for number in range(4):
        write(producer, topic, [b"%d" % number] * 300, partitions=[number] * 300)

    def slow(value: str) -> tuple[str, float]:
        began = time.monotonic()
        while time.monotonic() < began + 0.005:
            pass
        return value, began

    env = environment()
    stream = env.from_source(source(kafka.bootstrap_servers, topic), WatermarkStrategy.no_watermarks(), "full")
    served: dict[str, list[float]] = {}
    for value, at_s in stream.map(slow).execute_and_collect("slow"):
        served.setdefault(value, []).append(at_s)
    assert {value: len(times) for value, times in served.items()} == dict.fromkeys("0123", 300)
    # Until the first of them is empty.
    last_s = min(times[-1] for times in served.values())
    waits_s = [b - a for times in served.values() for a, b in pairwise(t for t in times if t <= last_s)]
    assert max(waits_s) < 1.0
