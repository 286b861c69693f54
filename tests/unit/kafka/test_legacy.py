"""Flink's old Kafka API: what it takes, what it makes of it, and what its warnings show."""

from __future__ import annotations

import inspect
import re
import time
import warnings
from collections.abc import Callable, Mapping
from dataclasses import fields
from typing import Any

import pytest

import headrace.datastream.connectors as connectors
from headrace import kafka
from headrace.common import Types, WatermarkStrategy
from headrace.common.serialization import ByteArraySchema, DeserializationSchema, SimpleStringSchema
from headrace.connector import SourceContext
from headrace.datastream import StreamExecutionEnvironment
from headrace.datastream.connectors.kafka import (
    DeliveryGuarantee,
    FlinkKafkaConsumer,
    FlinkKafkaProducer,
    KafkaOffsetResetStrategy,
    KafkaOffsetsInitializer,
    KafkaSink,
    KafkaSource,
    KafkaTopicPartition,
    Semantic,
)
from headrace.errors import ConfigError, NotSupportedError, UserCodeError
from headrace.kafka.client.protocol import Event, Records
from headrace.kafka.enumerator import Topics
from headrace.kafka.legacy import LegacyKafkaSink, LegacyKafkaSource
from headrace.kafka.offsets import KafkaOffsetResetStrategy as Reset
from headrace.kafka.reader import KafkaReader, ReaderSettings
from headrace.kafka.serialization import BuiltSchema
from headrace.kafka.split import KafkaSplit
from headrace.plan.graph import ReadSource, WriteSink

SERVERS = {"bootstrap.servers": "localhost:1"}
GROUP = {**SERVERS, "group.id": "readers"}
OLD = "of Flink's old API, which Flink 2.0 removed"
PARTITION = KafkaTopicPartition("t", 0)


class Until(DeserializationSchema):
    """Text, up to a record that says "end"."""

    def deserialize(self, message: bytes | None) -> str:
        assert message is not None
        return message.decode("ascii")

    def is_end_of_stream(self, element: str) -> bool:
        return element == "end"


def consumer(properties: Mapping[str, str] = GROUP, schema: Any = None, topics: Any = "t") -> FlinkKafkaConsumer:
    with warnings.catch_warnings(action="ignore", category=DeprecationWarning):
        return FlinkKafkaConsumer(topics, schema or SimpleStringSchema(), properties)


def producer(properties: Mapping[str, str] = SERVERS, **more: Any) -> FlinkKafkaProducer:
    with warnings.catch_warnings(action="ignore", category=DeprecationWarning):
        return FlinkKafkaProducer("t", SimpleStringSchema(), properties, **more)


@pytest.fixture
def env() -> StreamExecutionEnvironment:
    return StreamExecutionEnvironment.get_execution_environment()


# The consumer


def test_old_names_are_where_pyflink_had_them() -> None:
    assert connectors.FlinkKafkaConsumer is FlinkKafkaConsumer
    assert connectors.FlinkKafkaProducer is FlinkKafkaProducer
    assert connectors.Semantic is Semantic


# Of PyFlink 1.16 to 1.20, whose later versions do not list the classes that these are defined in.
SETTERS: dict[type[Any], dict[str, list[str]]] = {
    FlinkKafkaConsumer: {
        "set_commit_offsets_on_checkpoints": ["commit_on_checkpoints"],
        "set_start_from_earliest": [],
        "set_start_from_latest": [],
        "set_start_from_timestamp": ["startup_offsets_timestamp"],
        "set_start_from_group_offsets": [],
        "disable_filter_restored_partitions_with_subscribed_topics": [],
        "get_produced_type": [],
    },
    FlinkKafkaProducer: {
        "set_log_failures_only": ["log_failures_only"],
        "set_flush_on_checkpoint": ["flush_on_checkpoint"],
        "set_write_timestamp_to_kafka": ["write_timestamp_to_kafka"],
        "ignore_failures_after_transaction_timeout": [],
    },
}


@pytest.mark.parametrize("old", SETTERS)
def test_every_setter_of_pyflink_is_there_with_its_arguments(old: type[Any]) -> None:
    for name, arguments in SETTERS[old].items():
        assert list(inspect.signature(getattr(old, name)).parameters)[1:] == arguments


def test_a_consumer_without_setters_starts_where_its_group_is_and_looks_for_partitions_once() -> None:
    source = consumer().to_source()
    assert source.subscription == Topics(("t",))
    assert source.starting == KafkaOffsetsInitializer.committed_offsets(KafkaOffsetResetStrategy.LATEST)
    assert dict(source.properties)["partition.discovery.interval.ms"] == "-1"
    assert "commit.offsets.on.checkpoint" not in dict(source.properties)
    assert (source.group_id, source.stopping, source.ends) == ("readers", None, False)
    assert not source.keeps_unsubscribed


@pytest.mark.parametrize(
    ("set_start", "expected"),
    [
        (FlinkKafkaConsumer.set_start_from_earliest, KafkaOffsetsInitializer.earliest()),
        (FlinkKafkaConsumer.set_start_from_latest, KafkaOffsetsInitializer.latest()),
        (lambda consumer: consumer.set_start_from_timestamp(1000), KafkaOffsetsInitializer.timestamp(1000)),
        (
            lambda consumer: consumer.set_start_from_earliest().set_start_from_group_offsets(),
            KafkaOffsetsInitializer.committed_offsets(KafkaOffsetResetStrategy.LATEST),
        ),
    ],
)
def test_each_start_position_is_the_new_one_of_that_name(
    set_start: Callable[[FlinkKafkaConsumer], FlinkKafkaConsumer], expected: KafkaOffsetsInitializer
) -> None:
    old = consumer()
    assert set_start(old) is old
    assert old.to_source().starting == expected


@pytest.mark.parametrize("timestamp", [-1, time.time_ns() // 1_000_000 + 3_600_000])
def test_a_start_in_the_future_or_before_1970_is_refused(timestamp: int) -> None:
    with pytest.raises(ConfigError, match=rf"the timestamp {timestamp} is .*; give milliseconds since 1970"):
        consumer().set_start_from_timestamp(timestamp)


@pytest.mark.parametrize(
    ("reset", "group", "without"),
    [
        ("earliest", Reset.EARLIEST, KafkaOffsetsInitializer.earliest()),
        ("latest", Reset.LATEST, KafkaOffsetsInitializer.latest()),
        (None, Reset.LATEST, KafkaOffsetsInitializer.latest()),
    ],
)
def test_where_the_group_has_no_offset_auto_offset_reset_decides(
    reset: str | None, group: Reset, without: KafkaOffsetsInitializer
) -> None:
    more = {} if reset is None else {"auto.offset.reset": reset}
    assert consumer(GROUP | more).to_source().starting == KafkaOffsetsInitializer.committed_offsets(group)
    assert consumer(SERVERS | more).to_source().starting == without


def test_with_none_as_auto_offset_reset_the_group_needs_an_offset_and_the_consumer_a_group() -> None:
    none = {"auto.offset.reset": "none"}
    assert consumer(GROUP | none).to_source().starting == KafkaOffsetsInitializer.committed_offsets()
    with pytest.raises(ConfigError, match="need a group"):
        consumer(SERVERS | none).to_source()


def test_offsets_are_committed_on_checkpoints_unless_they_are_not_to_be() -> None:
    on, off = (consumer().set_commit_offsets_on_checkpoints(commits).to_source() for commits in (True, False))
    assert "commit.offsets.on.checkpoint" not in dict(on.properties)
    assert dict(off.properties)["commit.offsets.on.checkpoint"] == "false"


def test_restored_partitions_of_other_topics_are_kept_when_the_filter_is_disabled() -> None:
    assert consumer().disable_filter_restored_partitions_with_subscribed_topics().to_source().keeps_unsubscribed


def test_flinks_own_properties_have_their_new_names() -> None:
    old = {
        "flink.partition-discovery.interval-millis": "5000",
        "flink.disable-metrics": "true",
        "flink.poll-timeout": "10",
    }
    properties = dict(consumer(GROUP | old).to_source().properties)
    assert properties.items() >= {
        ("partition.discovery.interval.ms", "5000"),
        ("register.consumer.metrics", "false"),
    }
    assert not any(name.startswith("flink.") for name in properties)
    written = dict(producer({**SERVERS, "flink.disable-metrics": "false"}).to_sink().properties)
    assert written == SERVERS | {"register.producer.metrics": "true"}


@pytest.mark.parametrize("topics", [["a", "b"], ("a", "b")])
def test_topics_come_as_a_list(topics: Any) -> None:
    assert consumer(topics=topics).to_source().subscription == Topics(("a", "b"))


def test_the_type_of_the_elements_is_the_schemas_where_it_is_known(env: StreamExecutionEnvironment) -> None:
    assert consumer().get_produced_type() == Types.STRING()
    assert consumer(schema=ByteArraySchema()).get_produced_type() == Types.PRIMITIVE_ARRAY(Types.BYTE())
    assert consumer(schema=bytes).get_produced_type() == Types.PICKLED_BYTE_ARRAY()
    with pytest.warns(DeprecationWarning, match=OLD):
        assert env.add_source(consumer()).get_type() == Types.STRING()
    with pytest.warns(DeprecationWarning, match=OLD):
        assert env.add_source(consumer(), "other", Types.INT()).get_type() == Types.INT()


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: consumer({}), "FlinkKafkaConsumer needs brokers: give `bootstrap.servers` in `properties`"),
        (lambda: producer({}), "FlinkKafkaProducer needs brokers: give `bootstrap.servers` in `producer_config`"),
        (lambda: consumer({**SERVERS, "fetch.min.bytes": 1}), "`fetch.min.bytes` in `properties` is set to a int"),  # type: ignore[dict-item]
        (lambda: consumer([("a", "b")]), "takes a dict as `properties`, got list"),  # type: ignore[arg-type]
        (lambda: consumer(topics=[]), r"list of names as `topics`, got \[\]"),
        (lambda: consumer(topics=re.compile("t.*")), "set_topic_pattern"),
        (lambda: consumer({**SERVERS, "auto.offset.reset": "smallest"}).to_source(), "earliest, latest or none"),
        (lambda: consumer({**SERVERS, "fetch.min.byte": "1"}).to_source(), "did you mean `fetch.min.bytes`"),
        (
            lambda: consumer(
                {
                    **SERVERS,
                    "flink.partition-discovery.interval-millis": "1",
                    "partition.discovery.interval.ms": "2",
                }
            ),
            "`flink.partition-discovery.interval-millis` and `partition.discovery.interval.ms` are both set",
        ),
        (lambda: producer(semantic=DeliveryGuarantee.NONE), "takes a Semantic as `semantic`"),
        (lambda: producer(kafka_producer_pool_size=0), "`kafka_producer_pool_size` is 0"),
        (lambda: producer(kafka_producer_pool_size=Semantic.NONE), "`kafka_producer_pool_size` is <Semantic.NONE"),
        (lambda: consumer().set_start_from_timestamp("1000"), "takes milliseconds, got '1000'"),  # type: ignore[arg-type]
        (lambda: producer(semantic=Semantic.NONE).set_flush_on_checkpoint(True).to_sink(), "contradicts Semantic.NONE"),
        (
            lambda: producer(semantic=Semantic.EXACTLY_ONCE).set_flush_on_checkpoint(False).to_sink(),
            "contradicts Semantic.EXACTLY_ONCE",
        ),
        (
            lambda: producer(semantic=Semantic.EXACTLY_ONCE).set_log_failures_only(True).to_sink(),
            r"`set_log_failures_only\(True\)` contradicts Semantic.EXACTLY_ONCE",
        ),
    ],
)
def test_what_is_missing_or_contradicts_itself_is_refused_by_name(make: Callable[[], object], text: str) -> None:
    with pytest.raises(ConfigError, match=text):
        make()


# Auto commit, which the reader decides: it depends on the job's checkpoints.


class Settled(Exception):
    """Raised instead of making a consumer."""


@pytest.fixture
def commits_itself(monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """`enable.auto.commit` as a source's client gets it, in a job with checkpoints or without."""

    class Client:
        def consumer(self, settings: Mapping[str, str], **_: Any) -> None:
            raise Settled(settings["enable.auto.commit"])

    monkeypatch.setattr("headrace.kafka.source.default_client", Client)

    def ask(properties: Mapping[str, str], *, checkpoints: bool) -> str:
        with pytest.raises(Settled) as settled:
            consumer(properties).to_source().create_reader(SourceContext("job", "in", 0, 1, checkpoints))
        return str(settled.value)

    return ask


def test_kafka_commits_by_itself_where_no_checkpoint_does(commits_itself: Callable[..., str]) -> None:
    assert commits_itself(GROUP, checkpoints=False) == "true"
    assert commits_itself(GROUP | {"enable.auto.commit": "false"}, checkpoints=False) == "false"
    assert commits_itself(SERVERS, checkpoints=False) == "false"
    assert commits_itself(GROUP, checkpoints=True) == "false"
    assert commits_itself(GROUP | {"enable.auto.commit": "true"}, checkpoints=True) == "false"


# The end of a stream


class Log:
    """A consumer that gives what it is told to, and the source of those records' offsets."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self.assigned: set[KafkaTopicPartition] = set()

    def assign(self, positions: Mapping[KafkaTopicPartition, int]) -> None:
        self.assigned |= set(positions)

    def unassign(self, partitions: list[KafkaTopicPartition]) -> None:
        self.assigned -= set(partitions)

    def consume(self, max_records: int, timeout_s: float) -> list[Event]:
        events, self.events = self.events, []
        return events

    def add(self, first: int, *values: bytes) -> None:
        """Records with gaps: only every second offset has one."""

        class Source:
            def offset(self, index: int) -> int:
                return first + 2 * index

            def value(self, index: int) -> bytes:
                return values[index]

        behind = first + 2 * len(values)
        self.events.append(Records(PARTITION, list(values), [0] * len(values), behind, Source()))  # type: ignore[arg-type]


@pytest.fixture
def log() -> Log:
    return Log()


def reader_of(log: Log, schema: Until) -> KafkaReader:
    source = consumer(schema=schema).to_source()
    settings = ReaderSettings(Reset.NONE, None, reads_uncommitted=True, servers="host:1")
    reader = KafkaReader(log, lambda: None, schema.deserializer(), settings, source.end_of_stream)  # type: ignore[arg-type, return-value]
    reader.add_splits([KafkaSplit(PARTITION, 0)])
    return reader


def read(reader: KafkaReader) -> list[bytes]:
    values: list[bytes] = []
    for batch in reader.poll(500, 0):
        values += batch.values
        batch.origin.advance(len(batch.values))
    return values


def test_a_record_that_ends_the_stream_ends_its_partition_and_is_not_handed_on(log: Log) -> None:
    reader = reader_of(log, Until())
    log.add(0, b"a", b"b")
    assert read(reader) == [b"a", b"b"]
    assert not reader.is_finished("t-0")
    log.add(4, b"c", b"end", b"d")
    log.add(10, b"end", b"e")
    assert read(reader) == [b"c"]
    assert reader.is_finished("t-0")
    assert log.assigned == set()
    # So it is when the job comes back to this snapshot.
    assert reader.snapshot() == [KafkaSplit(PARTITION, 6, stop=6)]


def test_a_snapshot_between_the_end_and_what_is_before_it_reads_that_again_and_no_more(log: Log) -> None:
    reader = reader_of(log, Until())
    log.add(0, b"a", b"end")
    assert [list(batch.values) for batch in reader.poll(500, 0)] == [[b"a"]]
    assert reader.snapshot() == [KafkaSplit(PARTITION, 0, stop=2)]


def test_a_record_that_cannot_be_deserialized_is_left_to_the_loop_which_names_it(log: Log) -> None:
    reader = reader_of(log, Until())
    log.add(0, b"a", b"\xff", b"end")
    assert read(reader) == [b"a", b"\xff", b"end"]


def test_an_end_that_cannot_be_told_names_the_record(log: Log) -> None:
    class Broken(Until):
        def is_end_of_stream(self, element: str) -> bool:
            raise ValueError(f"what is {element}?")

    reader = reader_of(log, Broken())
    log.add(7, b"a")
    text = r"`is_end_of_stream` failed with ValueError: what is a\? on the record at topic t, partition 0, offset 7"
    with pytest.raises(UserCodeError, match=text):
        reader.poll(500, 0)


def test_only_the_old_source_asks_for_the_end_of_a_stream() -> None:
    new = KafkaSource.builder().set_bootstrap_servers("b").set_topics("t").set_value_only_deserializer(Until()).build()
    assert (new.end_of_stream, new.ends) == (None, False)
    old = consumer(schema=Until()).to_source()
    assert old.end_of_stream is not None
    assert old.ends
    assert consumer(schema=SimpleStringSchema()).to_source().end_of_stream is None
    assert consumer(schema=bytes).to_source().end_of_stream is None


# The producer


def test_a_producer_without_setters_writes_at_least_once() -> None:
    sink = producer().to_sink()
    assert sink.delivery_guarantee is DeliveryGuarantee.AT_LEAST_ONCE
    schema = sink.record_serializer
    assert isinstance(schema, BuiltSchema)
    assert schema == BuiltSchema(schema.value_schema, topic="t")
    assert (sink.transactional_id_prefix, sink.writes_timestamps, sink.passes_over_failures) == (None, False, False)


@pytest.mark.parametrize("semantic", Semantic)
def test_each_semantic_is_the_guarantee_of_that_name(semantic: Semantic) -> None:
    sink = producer(semantic=semantic).to_sink()
    assert sink.delivery_guarantee.name == semantic.name
    assert sink.transactional_id_prefix == ("t" if semantic is Semantic.EXACTLY_ONCE else None)


def test_without_a_flush_on_checkpoints_nothing_is_guaranteed() -> None:
    assert producer().set_flush_on_checkpoint(False).to_sink().delivery_guarantee is DeliveryGuarantee.NONE
    assert producer().set_flush_on_checkpoint(True).to_sink().delivery_guarantee is DeliveryGuarantee.AT_LEAST_ONCE


def test_timestamps_and_passing_over_failures_are_asked_for() -> None:
    old = producer()
    assert old.set_write_timestamp_to_kafka(True) is old
    assert old.set_log_failures_only(True) is old
    assert old.ignore_failures_after_transaction_timeout() is old
    sink = old.to_sink()
    assert (sink.writes_timestamps, sink.passes_over_failures) == (True, True)


# In a program, and what it is told


def told(call: Callable[[], object]) -> str:
    with pytest.warns(DeprecationWarning, match=OLD) as caught:
        call()
    (warning,) = caught
    assert warning.filename == __file__
    return str(warning.message)


def evaluated(text: str, name: str, **names: Any) -> Any:
    """What the new spelling in a warning is, when a program does it."""
    code = text.partition("\n\n")[2].partition("\n\n")[0]
    scope: dict[str, Any] = {**vars(kafka), **globals(), **names}
    exec(code, scope)
    return scope[name]


@pytest.mark.parametrize(
    "old",
    [
        lambda: consumer(SERVERS),
        lambda: consumer(GROUP | {"auto.offset.reset": "earliest", "flink.partition-discovery.interval-millis": "7"}),
        lambda: consumer(topics=["a", "b'"]).set_start_from_timestamp(5).set_commit_offsets_on_checkpoints(False),
    ],
)
def test_the_new_spelling_in_the_warning_of_add_source_is_the_source_that_is_read(
    env: StreamExecutionEnvironment, old: Callable[[], FlinkKafkaConsumer]
) -> None:
    made = old()
    text = told(lambda: env.add_source(made, "in"))
    new = StreamExecutionEnvironment.get_execution_environment()
    source = evaluated(text, "source", env=new)
    (node,), (new_node,) = env.job.plan(None), new.job.plan(None)
    assert isinstance(node.operator, ReadSource)
    assert isinstance(node.operator.source, LegacyKafkaSource)
    for name in ("subscription", "properties", "starting", "stopping", "is_bounded"):
        assert getattr(source, name) == getattr(node.operator.source, name)
    assert repr(source.schema) == repr(node.operator.source.schema)
    assert node.name == new_node.name == "in"


@pytest.mark.parametrize(
    "old",
    [
        producer,
        lambda: producer(SERVERS | {"acks": "all"}, semantic=Semantic.EXACTLY_ONCE),
        lambda: producer(semantic=Semantic.NONE).set_write_timestamp_to_kafka(True),
    ],
)
def test_the_new_spelling_in_the_warning_of_add_sink_is_the_sink_that_is_written(
    env: StreamExecutionEnvironment, old: Callable[[], FlinkKafkaProducer]
) -> None:
    stream, made = env.from_collection(["a"]), old()
    text = told(lambda: stream.add_sink(made))
    sink = evaluated(text, "sink", stream=stream)
    node, new_node = (node for node in env.job.plan(None) if isinstance(node.operator, WriteSink))
    assert isinstance(node.operator, WriteSink)
    assert isinstance(node.operator.sink, LegacyKafkaSink)
    for name in (field.name for field in fields(KafkaSink) if field.name != "record_serializer"):
        assert getattr(sink, name) == getattr(node.operator.sink, name)
    assert sink.record_serializer.topic == node.operator.sink.record_serializer.topic
    assert isinstance(new_node.operator, WriteSink)


def test_creating_one_warns_where_it_is_created_with_the_new_spelling_so_far() -> None:
    text = told(lambda: FlinkKafkaConsumer("t", Until(), GROUP))
    for part in (
        ".set_group_id('readers')",
        ".set_value_only_deserializer(Until(…))",
        "committed_offsets(KafkaOffsetResetStrategy.LATEST)",
        "`set_bounded`",
        "`enable.auto.commit`",
        "topics that the program no longer names",
    ):
        assert part in text
    text = told(lambda: FlinkKafkaProducer("t", str.encode, SERVERS))
    for part in (
        ".set_value_serialization_schema(encode)",
        "AT_LEAST_ONCE",
        "each subtask writes to one",
        "timestamps",
    ):
        assert part in text


def test_no_warning_shows_a_secret() -> None:
    secret = {"sasl.password": "opensesame", "sasl.jaas.config": "opensesame", "unknown.token": "opensesame"}
    text = told(lambda: FlinkKafkaConsumer("t", SimpleStringSchema(), SERVERS | secret))
    text += told(lambda: FlinkKafkaProducer("t", SimpleStringSchema(), SERVERS | secret))
    assert "opensesame" not in text
    assert text.count(".set_property('sasl.password', '***')") == 2


def test_a_setter_behind_add_source_or_add_sink_is_refused(env: StreamExecutionEnvironment) -> None:
    source, sink = consumer(), producer()
    with pytest.warns(DeprecationWarning, match=OLD):
        env.add_source(source).add_sink(sink)
    for call in (
        source.set_start_from_earliest,
        source.disable_filter_restored_partitions_with_subscribed_topics,
        lambda: source.set_commit_offsets_on_checkpoints(True),
        lambda: sink.set_log_failures_only(True),
        lambda: sink.set_flush_on_checkpoint(True),
        lambda: sink.set_write_timestamp_to_kafka(True),
        sink.ignore_failures_after_transaction_timeout,
    ):
        with pytest.raises(ConfigError, match="is part of the program already; set what it needs before"):
            call()


def test_operators_have_flinks_names(env: StreamExecutionEnvironment) -> None:
    with warnings.catch_warnings(action="ignore", category=DeprecationWarning):
        env.add_source(consumer()).add_sink(producer())
        env.add_source(consumer(), "in").add_sink(producer()).name("out")
    assert [node.name for node in env.job.plan(None)] == ["Custom Source", "Unnamed", "in", "out"]


def test_the_new_sources_and_sinks_are_sent_to_their_own_methods(env: StreamExecutionEnvironment) -> None:
    new = consumer().to_source()
    stream = env.from_source(new, WatermarkStrategy.no_watermarks(), "in")
    with pytest.raises(
        TypeError, match=r"`add_source` takes a FlinkKafkaConsumer; LegacyKafkaSource is for `from_source`"
    ):
        env.add_source(new)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"`add_sink` takes a FlinkKafkaProducer; LegacyKafkaSink is for `sink_to`"):
        stream.add_sink(producer().to_sink())  # type: ignore[arg-type]
    with pytest.raises(NotSupportedError, match=r"`add_source\(object\)` is not supported.*`FlinkKafkaConsumer`"):
        env.add_source(object())  # type: ignore[arg-type]
    with pytest.raises(NotSupportedError, match=r"`add_sink\(object\)` is not supported.*`FlinkKafkaProducer`"):
        stream.add_sink(object())  # type: ignore[arg-type]
