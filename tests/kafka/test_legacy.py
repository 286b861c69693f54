"""Flink's old Kafka API on real Kafka: where it starts, what it commits, and what it writes where."""

from __future__ import annotations

import os
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Consumer, ConsumerGroupTopicPartitions, Message, Producer, TopicPartition
from confluent_kafka.admin import AdminClient
from tests.groups import committed_by
from tests.kafka.jobs import TIMEOUT_S, committed, environment

from headrace.broker import DevBroker
from headrace.common.serialization import SimpleStringSchema
from headrace.connector import SourceContext, WriterContext
from headrace.errors import DataError, ExternalError
from headrace.kafka.legacy import FlinkKafkaConsumer, FlinkKafkaProducer, Semantic
from headrace.kafka.split import KafkaSplit

Make = Callable[..., str]


class Until(SimpleStringSchema):
    """Text, up to a record that says "end"."""

    def is_end_of_stream(self, element: Any) -> bool:
        return bool(element == "end")


@pytest.fixture(autouse=True)
def nothing_is_said() -> Iterator[None]:
    """The unit tests are about the warnings."""
    with warnings.catch_warnings(action="ignore", category=DeprecationWarning):
        yield


@pytest.fixture
def admin(kafka: DevBroker) -> AdminClient:
    return AdminClient({"bootstrap.servers": kafka.bootstrap_servers, "log_level": 2})


@pytest.fixture
def write(kafka: DevBroker) -> Callable[..., None]:
    def write(topic: str, *values: str, partition: int = 0, at_ms: int = 0) -> None:
        producer = Producer({"bootstrap.servers": kafka.bootstrap_servers, "log_level": 2})
        for value in values:
            producer.produce(topic, value, partition=partition, timestamp=at_ms)
        assert producer.flush(TIMEOUT_S) == 0

    return write


@pytest.fixture
def consumer(kafka: DevBroker) -> Callable[..., FlinkKafkaConsumer]:
    def make(topics: str | Sequence[str], group: str | None = None, **more: str) -> FlinkKafkaConsumer:
        properties = {"bootstrap.servers": kafka.bootstrap_servers}
        properties |= {name.replace("_", "."): value for name, value in more.items()}
        if group is not None:
            properties["group.id"] = group
        return FlinkKafkaConsumer(topics, Until(), properties)

    return make


@pytest.fixture
def producer(kafka: DevBroker) -> Callable[..., FlinkKafkaProducer]:
    def make(topic: str, semantic: Semantic = Semantic.AT_LEAST_ONCE, **more: str) -> FlinkKafkaProducer:
        properties = {"bootstrap.servers": kafka.bootstrap_servers}
        properties |= {name.replace("_", "."): value for name, value in more.items()}
        return FlinkKafkaProducer(topic, SimpleStringSchema(), properties, semantic=semantic)

    return make


Write = Callable[..., None]
From = Callable[..., FlinkKafkaConsumer]
To = Callable[..., FlinkKafkaProducer]


@pytest.fixture
def offset_of(kafka: DevBroker) -> Callable[[str, str], int | None]:
    """What a group has committed of a topic's partition 0; None: nothing."""

    def offset(group: str, topic: str) -> int | None:
        found = committed_by(kafka.bootstrap_servers, group, topic)
        return None if found.offset < 0 else int(found.offset)

    return offset


def messages(servers: str, topic: str) -> list[Message]:
    """All records of a topic."""
    consumer = Consumer({"bootstrap.servers": servers, "group.id": topic, "enable.partition.eof": True})
    partitions = consumer.list_topics(topic, TIMEOUT_S).topics[topic].partitions
    consumer.assign([TopicPartition(topic, partition, 0) for partition in partitions])
    found, ended, deadline = [], 0, time.monotonic() + TIMEOUT_S
    while ended < len(partitions):
        assert time.monotonic() < deadline
        message = consumer.poll(1.0)
        if message is not None and message.error() is not None:
            ended += 1
        elif message is not None:
            found.append(message)
    consumer.close()
    return found


@pytest.mark.parametrize(
    ("set_start", "reset", "group", "expected"),
    [
        (None, "latest", 4, 4),
        (None, "earliest", None, 0),
        (None, "latest", None, 10),
        (FlinkKafkaConsumer.set_start_from_group_offsets, "latest", 4, 4),
        (FlinkKafkaConsumer.set_start_from_earliest, "latest", 4, 0),
        (FlinkKafkaConsumer.set_start_from_latest, "earliest", 4, 10),
        (lambda consumer: consumer.set_start_from_timestamp(1006), "earliest", 4, 6),
    ],
)
def test_each_start_position_finds_its_record(
    admin: AdminClient,
    make_topic: Make,
    write: Write,
    consumer: From,
    set_start: Callable[[FlinkKafkaConsumer], Any] | None,
    reset: str,
    group: int | None,
    expected: int,
) -> None:
    topic = make_topic()
    for number in range(10):
        write(topic, str(number), at_ms=1000 + number)
    if group is not None:
        offsets = [ConsumerGroupTopicPartitions(topic, [TopicPartition(topic, 0, group)])]
        admin.alter_consumer_group_offsets(offsets)[topic].result(TIMEOUT_S)
    old = consumer(topic, topic, auto_offset_reset=reset)
    if set_start is not None:
        set_start(old)
    enumerator = old.to_source().create_enumerator(SourceContext("job", "in", 0, 1, True))
    (split,) = enumerator.start(None)
    enumerator.close()
    assert isinstance(split, KafkaSplit)
    assert split.position == expected


def test_a_program_of_the_old_api_runs_to_the_end_of_its_stream_in_each_partition(
    kafka: DevBroker, make_topic: Make, write: Write, consumer: From, producer: To
) -> None:
    read, written = make_topic(partitions=2), make_topic()
    write(read, "a", "b", "end", "c")
    write(read, "d", "end", "e", partition=1)
    env = environment()
    env.add_source(consumer(read).set_start_from_earliest()).map(str.upper).add_sink(producer(written))
    env.execute("old")
    assert sorted(m.value() for m in messages(kafka.bootstrap_servers, written)) == [b"A", b"B", b"D"]


def test_a_record_that_cannot_be_read_is_named_also_where_an_end_is_looked_for(
    kafka: DevBroker, make_topic: Make, write: Write
) -> None:
    class Numbers(Until):
        def deserialize(self, message: bytes | None) -> Any:
            return int(message or b"")

        def deserializer(self) -> Any:
            return self.deserialize

    topic = make_topic()
    write(topic, "1", "two", "3")
    env = environment()
    old = FlinkKafkaConsumer(topic, Numbers(), {"bootstrap.servers": kafka.bootstrap_servers})
    env.add_source(old.set_start_from_earliest()).print()
    with pytest.raises(DataError, match=rf"cannot deserialize the record at topic {topic}, partition 0, offset 1"):
        env.execute("numbers")


@pytest.mark.parametrize(
    ("checkpoints", "commits", "expected"),
    [(True, True, 2), (True, False, None), (False, True, 3), (False, False, 3)],
)
def test_offsets_are_committed_by_checkpoints_and_without_them_by_kafka(
    make_topic: Make,
    write: Write,
    consumer: From,
    offset_of: Callable[[str, str], int | None],
    checkpoints: bool,
    commits: bool,
    expected: int | None,
) -> None:
    topic = make_topic()
    write(topic, "a", "b", "end")
    env = environment()
    if checkpoints:
        env.enable_checkpointing(60_000)
    old = consumer(topic, topic).set_start_from_earliest().set_commit_offsets_on_checkpoints(commits)
    env.add_source(old).print()
    env.execute("committing")
    # Kafka itself commits what it has handed out, with the end.
    assert offset_of(topic, topic) == expected


PROGRAM = """if True:
    import sys
    from tests.kafka.test_legacy import program

    program(*sys.argv[1:])
"""


def program(servers: str, read: str, written: str, folder: str) -> None:
    """Copies, exactly once, to the end of the stream."""
    env = environment(Path(folder), execution_checkpointing_interval="100 ms")
    properties = {"bootstrap.servers": servers}
    source = FlinkKafkaConsumer(read, Until(), properties).set_start_from_earliest()
    sink = FlinkKafkaProducer(written, SimpleStringSchema(), properties, semantic=Semantic.EXACTLY_ONCE)
    env.add_source(source).add_sink(sink)
    env.execute("old copy")


def test_exactly_once_holds_for_the_old_classes_when_the_job_is_killed_and_resumes(
    kafka: DevBroker, make_topic: Make, write: Write, tmp_path: Path
) -> None:
    servers, read, written = kafka.bootstrap_servers, make_topic(), make_topic()
    write(read, *map(str, range(500)))
    arguments = (servers, read, written, str(tmp_path))
    environ = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    with subprocess.Popen([sys.executable, "-c", PROGRAM, *arguments], env=environ) as job:
        try:
            deadline = time.monotonic() + TIMEOUT_S
            while not committed(servers, written):
                assert time.monotonic() < deadline
                assert job.poll() is None
            write(read, *map(str, range(500, 1000)))
        finally:
            job.kill()
    write(read, *map(str, range(1000, 1500)), "end", "behind the end")
    program(*arguments)
    assert committed(servers, written) == [b"%d" % number for number in range(1500)]
    # The end is in the checkpoint: it holds for those who come back, too.
    write(read, "still behind the end")
    program(*arguments)
    assert len(committed(servers, written)) == 1500


@pytest.mark.parametrize("semantic", [Semantic.EXACTLY_ONCE, Semantic.AT_LEAST_ONCE])
def test_all_records_of_a_subtask_go_to_one_partition(
    kafka: DevBroker, make_topic: Make, write: Write, consumer: From, producer: To, tmp_path: Path, semantic: Semantic
) -> None:
    read, written = make_topic(partitions=5), make_topic(partitions=3)
    for partition in range(5):
        write(read, *[str(partition)] * 20, "end", partition=partition)
    env = environment(tmp_path, execution_checkpointing_interval="1 s").set_parallelism(5)
    env.add_source(consumer(read).set_start_from_earliest()).add_sink(producer(written, semantic))
    env.execute("five lanes")
    found: dict[bytes, set[int]] = {}
    seen = messages(kafka.bootstrap_servers, written)
    for message in seen:
        found.setdefault(message.value(), set()).add(message.partition())
    assert len(seen) == 100
    assert all(len(partitions) == 1 for partitions in found.values()), found
    # Which lane reads which partition is the topic's affair; five lanes write to 0, 1, 2, 0, 1.
    assert sorted(partition for partitions in found.values() for partition in partitions) == [0, 0, 1, 1, 2]


def test_a_subtask_beyond_the_partitions_begins_with_the_first_again(
    kafka: DevBroker, make_topic: Make, producer: To
) -> None:
    topic = make_topic(partitions=3)
    for subtask in (1, 5):
        writer = producer(topic).to_sink().create_writer(WriterContext("job", "out", subtask, 6), None)
        writer.write([str(subtask).encode()] * 10, None)
        writer.finish()
        writer.close()
    found = {(message.value(), message.partition()) for message in messages(kafka.bootstrap_servers, topic)}
    assert found == {(b"1", 1), (b"5", 2)}


@pytest.mark.parametrize("semantic", Semantic)
def test_timestamps_of_the_elements_are_written_only_if_asked_for(
    kafka: DevBroker, make_topic: Make, write: Write, consumer: From, producer: To, tmp_path: Path, semantic: Semantic
) -> None:
    read = make_topic()
    write(read, "a", "end", at_ms=1234)
    begun_ms = time.time_ns() // 1_000_000
    for writes in (True, False):
        written = make_topic()
        env = environment(tmp_path / str(writes), execution_checkpointing_interval="1 s")
        old = producer(written, semantic).set_write_timestamp_to_kafka(writes)
        env.add_source(consumer(read).set_start_from_earliest()).add_sink(old)
        env.execute("timestamps")
        (message,) = messages(kafka.bootstrap_servers, written)
        if writes:
            assert message.timestamp()[1] == 1234
        else:
            assert message.timestamp()[1] >= begun_ms


def test_records_that_cannot_be_delivered_are_logged_and_lost_only_if_asked_for(
    kafka: DevBroker, make_topic: Make, producer: To, caplog: pytest.LogCaptureFixture
) -> None:
    topic = make_topic(**{"max.message.bytes": "1000"})

    def make() -> FlinkKafkaProducer:
        # What is in a batch with one that is too large is refused with it.
        return producer(topic, batch_num_messages="1")

    def run(old: FlinkKafkaProducer) -> None:
        env = environment()
        env.from_collection(["a", "b" * 5000, "c"]).add_sink(old)
        env.execute("too large")

    with pytest.raises(ExternalError, match="MSG_SIZE_TOO_LARGE"):
        run(make())
    caplog.clear()
    run(make().set_log_failures_only(True))
    assert "lost, as `set_log_failures_only` has it" in caplog.text
    assert {message.value() for message in messages(kafka.bootstrap_servers, topic)} == {b"a", b"c"}


@pytest.mark.parametrize("keeps", [False, True])
def test_partitions_of_topics_that_the_program_no_longer_names_are_dropped_unless_the_filter_is_disabled(
    kafka: DevBroker, make_topic: Make, write: Write, consumer: From, tmp_path: Path, keeps: bool
) -> None:
    kept, other = make_topic(), make_topic()

    def run(topics: Sequence[str], limit: int | None = None) -> list[str]:
        """What a run that goes on from the newest checkpoint reads: so many, or up to the end of each partition."""
        env = environment(tmp_path, execution_checkpointing_interval="100 ms")
        old = consumer(topics).set_start_from_earliest()
        if keeps:
            old.disable_filter_restored_partitions_with_subscribed_topics()
        return sorted(env.add_source(old).execute_and_collect("unsubscribing", limit))

    write(kept, "a")
    write(other, "b")
    # They are shown once a checkpoint is behind them.
    assert run([kept, other], limit=2) == ["a", "b"]
    write(kept, "c", "end")
    write(other, "d", "end")
    assert run([kept]) == (["c", "d"] if keeps else ["c"])
