"""What the builders refuse, and what their values show."""

from __future__ import annotations

import logging
import pickle
from collections.abc import Callable, Mapping, Sequence, Set
from typing import Any

import pytest

from headrace.common.serialization import SerializationSchema, SimpleStringSchema
from headrace.connector import Boundedness, SourceContext
from headrace.errors import ConfigError, DataError, UserCodeError
from headrace.kafka import (
    DeliveryGuarantee,
    FlinkFixedPartitioner,
    HeaderProvider,
    KafkaConsumerRecord,
    KafkaOffsetResetStrategy,
    KafkaOffsetsInitializer,
    KafkaPartitioner,
    KafkaProducerRecord,
    KafkaRecordDeserializationSchema,
    KafkaRecordSerializationSchema,
    KafkaRecordSerializationSchemaBuilder,
    KafkaSink,
    KafkaSinkBuilder,
    KafkaSinkContext,
    KafkaSource,
    KafkaSourceBuilder,
    KafkaSubscriber,
    KafkaTopicPartition,
)
from headrace.kafka.client.protocol import Admin
from headrace.kafka.serialization import BuiltSchema, check_record
from headrace.kafka.sink import WholeRecords


def source() -> KafkaSourceBuilder:
    return (
        KafkaSource.builder()
        .set_bootstrap_servers("localhost:1")
        .set_topics("t")
        .set_value_only_deserializer(SimpleStringSchema())
    )


def serializer() -> KafkaRecordSerializationSchema:
    builder = KafkaRecordSerializationSchema.builder().set_topic("t")
    return builder.set_value_serialization_schema(SimpleStringSchema()).build()


class Nobody(KafkaSubscriber):
    def get_subscribed_topic_partitions(self, admin_client: Admin) -> Set[KafkaTopicPartition]:
        return set()


def offsets_of(offset: int) -> KafkaOffsetsInitializer:
    return KafkaOffsetsInitializer.offsets({KafkaTopicPartition("t", 0): offset})


def sink() -> KafkaSinkBuilder:
    return KafkaSink.builder().set_bootstrap_servers("localhost:1").set_record_serializer(serializer())


@pytest.mark.parametrize(
    ("build", "text"),
    [
        (
            lambda: KafkaSource.builder().set_topics("t").set_value_only_deserializer(bytes).build(),
            "set_bootstrap_servers",
        ),
        (
            lambda: KafkaSource.builder().set_bootstrap_servers("b").set_value_only_deserializer(bytes).build(),
            "set_topics",
        ),
        (
            lambda: KafkaSource.builder().set_bootstrap_servers("b").set_topics("t").build(),
            "set_value_only_deserializer",
        ),
        (lambda: source().set_topic_pattern("t.*"), "`set_topics` already says"),
        (lambda: source().set_partitions({KafkaTopicPartition("t", 0)}), "`set_topics` already says"),
        (lambda: KafkaSource.builder().set_topic_pattern("t("), "no regular expression"),
        (lambda: KafkaSource.builder().set_topics(), "one or more"),
        (lambda: source().set_property("enable.auto.commit", "true").build(), "set_group_id"),
        (lambda: source().set_property("commit.offsets.on.checkpoint", "true").build(), "set_group_id"),
        (lambda: source().set_starting_offsets(KafkaOffsetsInitializer.committed_offsets()).build(), "set_group_id"),
        (lambda: source().set_bounded(KafkaOffsetsInitializer.committed_offsets()).build(), "set_group_id"),
        (lambda: source().set_bounded(KafkaOffsetsInitializer.earliest()).build(), "would read nothing"),
        (lambda: source().set_group_id("").build(), "`group.id` is empty"),
        (lambda: source().set_kafka_subscriber(Nobody()), "`set_topics` already says"),
        (lambda: KafkaSource.builder().set_kafka_subscriber("t"), "takes a KafkaSubscriber, got str"),  # type: ignore[arg-type]
        (lambda: source().set_property("headrace.partition.assignment", "least").build(), "flink or fewest"),
        (lambda: source().set_starting_offsets(5), "an `OffsetsInitializer` of your own, got int"),  # type: ignore[arg-type]
        (lambda: source().set_starting_offsets(offsets_of(-3)).build(), "set_group_id"),
        (lambda: source().set_bounded(offsets_of(-2)).build(), r"t-0 cannot stop at its earliest offset \(-2\)"),
        (lambda: source().set_rack_id_supplier("rack"), "takes a function, got str"),  # type: ignore[arg-type]
        (lambda: source().set_rate_limit(0), "above 0, got 0"),
        (lambda: source().set_rate_limit(float("nan")), "above 0, got nan"),
        (lambda: source().set_property("auto.offset.reset", "beginning").build(), "earliest, latest or none"),
        (lambda: source().set_property("partition.discovery.interval.ms", "soon").build(), "whole number"),
        (lambda: source().set_property("fetch.min.byte", "1").build(), "did you mean `fetch.min.bytes`"),
        (lambda: source().set_property("fetch.min.bytes", 1), "`set_property` takes strings, and `fetch.min.bytes` is"),  # type: ignore[arg-type]
        (lambda: KafkaSink.builder().set_record_serializer(serializer()).build(), "set_bootstrap_servers"),
        (lambda: KafkaSink.builder().set_bootstrap_servers("b").build(), "set_record_serializer"),
        (lambda: sink().set_delivery_guarantee(DeliveryGuarantee.EXACTLY_ONCE).build(), "set_transactional_id_prefix"),
        (lambda: sink().set_transactional_id_prefix("ä" * 32_001), "64000 bytes"),
        (lambda: sink().set_record_serializer(SimpleStringSchema()), "KafkaRecordSerializationSchema"),  # type: ignore[arg-type]
        (
            lambda: (
                sink()
                .set_delivery_guarantee(DeliveryGuarantee.EXACTLY_ONCE)
                .set_transactional_id_prefix("p")
                .set_property("acks", "1")
                .build()
            ),
            "needs `acks` all",
        ),
        *(
            (
                lambda name=name, value=value: (
                    sink()
                    .set_delivery_guarantee(DeliveryGuarantee.EXACTLY_ONCE)
                    .set_transactional_id_prefix("p")
                    .set_property(name, value)
                    .build()
                ),
                "needs idempotence",
            )
            for name, value in [
                ("retries", "0"),
                ("request.required.acks", "1"),
                ("max.in.flight.requests.per.connection", "6"),
            ]
        ),
        (
            lambda: sink().set_property("max.in.flight.requests.per.connection", "x").build(),
            "`max.in.flight.requests.per.connection`",
        ),
        (lambda: KafkaRecordSerializationSchema.builder().set_topic("t").build(), "set_value_serialization_schema"),
        (
            lambda: (
                KafkaRecordSerializationSchema.builder().set_value_serialization_schema(SimpleStringSchema()).build()
            ),
            "set_topic",
        ),
    ],
)
def test_what_is_missing_or_contradicts_itself_is_refused_with_what_to_call(
    build: Callable[[], object], text: str
) -> None:
    with pytest.raises(ConfigError, match=text):
        build()


class Trace(HeaderProvider):
    def get_headers(self, element: Any) -> list[tuple[str, bytes | None]]:
        return []


class Copy(KafkaRecordDeserializationSchema):
    def deserialize(self, record: KafkaConsumerRecord) -> list[Any]:
        return [record]


_WRONG = (None, 7, object(), b"bytes", [7], {7: 7}, {None}, SimpleStringSchema, Trace, FlinkFixedPartitioner)
"""What hardly any method takes, and never all of them."""
_TAKEN = {
    "set_rate_limit": (7,),
    # Callables, as good as any.
    "set_rack_id_supplier": (SimpleStringSchema, Trace, FlinkFixedPartitioner),
    "set_header_provider": (SimpleStringSchema, FlinkFixedPartitioner),
    "set_topic_selector": (SimpleStringSchema, Trace, FlinkFixedPartitioner),
    "set_value_only_deserializer": (Trace, FlinkFixedPartitioner),
    "set_key_serialization_schema": (Trace, FlinkFixedPartitioner),
    "set_value_serialization_schema": (Trace, FlinkFixedPartitioner),
}


@pytest.mark.parametrize(
    ("kind", "method"),
    [
        (kind, method)
        for kind in (KafkaSourceBuilder, KafkaSinkBuilder, KafkaRecordSerializationSchemaBuilder)
        for method in dir(kind)
        if method.startswith("set_") and method != "set_transaction_naming_strategy"
    ],
)
def test_what_a_method_does_not_take_is_refused_in_its_name(kind: type, method: str) -> None:
    for wrong in _WRONG:
        if wrong not in _TAKEN.get(method, ()):
            with pytest.raises(ConfigError, match=f"`{method}`"):
                getattr(kind(), method)(*(["group.id"] if method == "set_property" else []), wrong)


@pytest.mark.parametrize(
    "make",
    [
        KafkaOffsetsInitializer.timestamp,
        KafkaOffsetsInitializer.offsets,
        KafkaOffsetsInitializer.committed_offsets,
        lambda wrong: KafkaOffsetsInitializer.offsets({KafkaTopicPartition("t", 0): wrong}),
        lambda wrong: KafkaOffsetsInitializer.offsets({wrong: 0}),
        lambda wrong: KafkaOffsetsInitializer.offsets({}, wrong),
    ],
)
def test_offsets_of_wrong_types_are_refused(make: Callable[[Any], object]) -> None:
    for wrong in (None, "earliest", 1.5, float("nan"), True, 1 << 63, ("t", 0), b"x"):
        with pytest.raises(ConfigError, match=r"`(timestamp|offsets|committed_offsets)` takes"):
            make(wrong)


class Chooses(KafkaPartitioner):
    def __init__(self, chosen: Any) -> None:
        self.chosen = chosen

    def partition(
        self, record: Any, key: bytes | None, value: bytes | None, target_topic: str, partitions: Sequence[int]
    ) -> int:
        return self.chosen


def test_what_a_partitioner_gives_is_a_partitions_number() -> None:
    context = KafkaSinkContext(0, 1, lambda topic: (0, 1))
    builder = KafkaRecordSerializationSchema.builder().set_topic("t").set_value_serialization_schema(str.encode)

    class Index:
        def __index__(self) -> int:
            return 1

        def __eq__(self, other: object) -> bool:
            return other == 1

        __hash__ = None  # type: ignore[assignment]

    made = builder.set_partitioner(Chooses(Index())).build().serialize("x", context, None)
    assert made is not None
    assert (made.partition, type(made.partition)) == (1, int)
    for wrong in (2, -1, None, 1.0, "1"):
        with pytest.raises(DataError, match="the partitioner gave"):
            builder.set_partitioner(Chooses(wrong)).build().serialize("x", context, None)


def test_what_is_nearly_right_is_refused_with_what_is() -> None:
    cases: list[tuple[Callable[[], object], str]] = [
        (lambda: source().set_rate_limit(True), "above 0, got True"),
        (lambda: source().set_property(["group.id"], "g"), "`set_property` takes the name of a property, got list"),  # type: ignore[arg-type]
        (lambda: sink().set_property(None, "g"), "`set_property` takes the name of a property, got NoneType"),  # type: ignore[arg-type]
        (lambda: KafkaSource.builder().set_topic_pattern(""), "`set_topic_pattern` takes a regular expression"),
        (lambda: KafkaSource.builder().set_partitions({("t", 0)}), "KafkaTopicPartition"),  # type: ignore[arg-type]
        (lambda: source().set_value_only_deserializer(Copy()), "Copy, which goes to `set_deserializer`"),  # type: ignore[arg-type]
        (
            lambda: KafkaRecordSerializationSchema.builder().set_header_provider(Trace),  # type: ignore[arg-type]
            r"the class Trace; give it `Trace\(\)`",
        ),
    ]
    for build, text in cases:
        with pytest.raises(ConfigError, match=text):
            build()


def test_brokers_under_librdkafkas_name_are_brokers() -> None:
    builder = KafkaSource.builder().set_property("metadata.broker.list", "a:1").set_topics("t")
    read = builder.set_value_only_deserializer(bytes).build()
    write = KafkaSink.builder().set_property("metadata.broker.list", "a:1").set_record_serializer(serializer()).build()
    assert {each.bootstrap_servers for each in (read, write)} == {"a:1"}
    assert read.client_settings("x")["bootstrap.servers"] == write.client_settings()["bootstrap.servers"] == "a:1"
    with pytest.raises(ConfigError, match="say different things"):
        builder.set_bootstrap_servers("b:1").build()


CONTEXT = KafkaSinkContext(1, 2, lambda topic: (0, 1, 2))


class Third(KafkaPartitioner):
    def partition(
        self, record: Any, key: bytes | None, value: bytes | None, target_topic: str, partitions: Sequence[int]
    ) -> int:
        assert (record, key, value, target_topic) == ("x", b"key", b"x", "topic-x")
        return partitions[-1]


def test_a_record_is_what_topic_selector_schemas_headers_and_partitioner_make_of_an_element() -> None:
    builder = KafkaRecordSerializationSchema.builder()
    builder.set_topic_selector(lambda element: f"topic-{element}").set_value_serialization_schema(str.encode)
    builder.set_key_serialization_schema(lambda _: b"key").set_header_provider(lambda _: {"a": b"1", "b": None})
    schema = builder.set_partitioner(Third()).build()
    made = schema.serialize("x", CONTEXT, 17)
    assert made == KafkaProducerRecord("topic-x", b"x", b"key", 2, 17, [("a", b"1"), ("b", None)])


class Told(SerializationSchema):
    """Writes which topic and part it was made for."""

    def __init__(self, place: str = "nothing") -> None:
        self.place = place

    def for_topic(self, topic: str, is_key: bool) -> Told:
        return Told(f"{topic} {'key' if is_key else 'value'}")

    def serialize(self, element: Any) -> bytes:
        return self.place.encode()


def test_schemas_are_told_which_topic_and_part_they_are_for() -> None:
    builder = KafkaRecordSerializationSchema.builder().set_topic("t")
    fixed = builder.set_key_serialization_schema(Told()).set_value_serialization_schema(Told()).build()
    builder = KafkaRecordSerializationSchema.builder().set_topic_selector(str)
    chosen = builder.set_key_serialization_schema(Told()).set_value_serialization_schema(Told()).build()
    assert isinstance(fixed, BuiltSchema)

    columns = fixed.columns()
    assert columns is not None
    assert columns("x") == (b"t key", b"t value")
    for topic in ("a", "b", "a"):
        record = chosen.serialize(topic, CONTEXT, None)
        assert record == KafkaProducerRecord(topic, f"{topic} value".encode(), f"{topic} key".encode())


@pytest.mark.parametrize(
    ("topic", "partition", "text"),
    [
        ([], 0, "name of a topic"),
        ("", 0, "name of a topic"),
        (None, 0, "name of a topic"),
        ("t", 3, "gave 3"),
        ("t", None, "gave None"),
    ],
)
def test_what_a_selector_or_a_partitioner_gives_is_looked_at(topic: Any, partition: Any, text: str) -> None:
    class Given(KafkaPartitioner):
        def partition(self, *_: Any) -> Any:
            return partition

    builder = KafkaRecordSerializationSchema.builder().set_topic_selector(lambda _: topic)
    schema = builder.set_value_serialization_schema(str.encode).set_partitioner(Given()).build()
    with pytest.raises(DataError, match=text):
        schema.serialize("x", CONTEXT, None)


@pytest.mark.parametrize("topic", ["no such/topic", "a\ud800", "t" * 250, "ä"])
def test_a_topic_that_can_be_none_is_found_where_a_record_may_fail(topic: str) -> None:
    builder = KafkaRecordSerializationSchema.builder().set_topic_selector(lambda _: topic)
    records = WholeRecords(builder.set_value_serialization_schema(str.encode).build(), CONTEXT, largest=1000)
    with pytest.raises(DataError, match="cannot be the name of a topic"):
        records.serialize("x", 7)


@pytest.mark.parametrize("time", [-1, 1 << 63, 10**30, True, 1.5])
def test_a_records_timestamp_has_to_be_one(time: Any) -> None:
    with pytest.raises(DataError, match="timestamp has to be a whole number"):
        check_record(KafkaProducerRecord("t", b"x", timestamp=time))


def test_a_fixed_partitioner_knows_its_subtask() -> None:
    builder = KafkaRecordSerializationSchema.builder().set_topic("t").set_value_serialization_schema(str.encode)
    schema = builder.set_partitioner(FlinkFixedPartitioner()).build()
    schema.open(CONTEXT)
    made = schema.serialize("x", CONTEXT, None)
    assert made is not None
    assert made.partition == 1


@pytest.mark.parametrize(
    "build",
    [
        lambda b: b.set_topic("t").set_topic_selector(lambda _: "t"),
        lambda b: b.set_topic_selector(lambda _: "t").set_topic("t"),
        lambda b: b.set_topic_selector("t"),
        lambda b: b.set_header_provider({"a": b"1"}),
        lambda b: b.set_partitioner(lambda *_: 0),
        lambda b: source().set_deserializer(SimpleStringSchema()),
    ],
)
def test_schemas_that_contradict_each_other_or_are_none_are_refused(build: Callable[[Any], object]) -> None:
    with pytest.raises(ConfigError, match="`set_"):
        build(KafkaRecordSerializationSchema.builder())


def test_a_schema_for_values_only_costs_what_a_value_only_deserializer_does() -> None:
    schema = SimpleStringSchema()
    built = source().set_deserializer(KafkaRecordDeserializationSchema.value_only(schema)).build()
    assert built.schema is schema


def test_representations_show_no_secret() -> None:
    secrets = {
        "sasl.password": "opensesame",
        "ssl.key.password": "opensesame",
    }
    built = source().set_properties(secrets).build()
    builder = sink()
    for name, value in secrets.items():
        builder.set_property(name, value)
    assert "sasl.password" in repr(built)
    assert "opensesame" not in repr(built) + repr(builder.build())


def test_sources_and_sinks_are_values() -> None:
    built = source().set_bounded(KafkaOffsetsInitializer.latest()).build()
    assert pickle.loads(pickle.dumps(built)).properties == built.properties
    assert built.boundedness is Boundedness.BOUNDED
    assert built.ends
    unbounded = source().set_unbounded(KafkaOffsetsInitializer.latest()).build()
    assert unbounded.boundedness is Boundedness.CONTINUOUS_UNBOUNDED
    assert unbounded.ends
    assert not source().build().ends


def test_the_programs_reset_strategy_wins_over_that_of_its_starting_offsets() -> None:
    starting = source().set_starting_offsets(KafkaOffsetsInitializer.latest())
    assert starting.build().reset_strategy is KafkaOffsetResetStrategy.LATEST
    assert starting.set_property("auto.offset.reset", "none").build().reset_strategy is KafkaOffsetResetStrategy.NONE


def test_defaults_are_those_of_the_java_client_where_they_change_meaning() -> None:
    reading = source().build().client_settings("0")
    assert reading["isolation.level"] == "read_uncommitted"
    assert reading["auto.offset.reset"] == "error"
    assert reading["enable.auto.commit"] == "false"
    writing = sink().build().client_settings()
    assert writing["partitioner"] == "murmur2_random"
    assert (writing["acks"], writing["enable.idempotence"], writing["delivery.timeout.ms"]) == ("all", "true", "120000")
    assert sink().build().delivery_guarantee is DeliveryGuarantee.NONE


@pytest.mark.parametrize(
    ("key", "value", "made"),
    [
        (None, None, None),
        (None, str.encode, b"x"),
        (str.encode, str.encode, (b"x", b"x")),
    ],
)
def test_one_function_makes_what_the_writer_takes(key: object, value: object, made: object) -> None:
    schema = BuiltSchema(value or _Bytes(), key, "t")  # type: ignore[arg-type]
    function = schema.columns()
    assert (None if function is None else function("x")) == made


class _Bytes(SimpleStringSchema):
    def serializer(self) -> None:  # type: ignore[override]
        return None


def test_the_rack_is_asked_for_where_a_reader_is_made_and_goes_before_the_property(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    racks: list[str | None] = []

    class Recording:
        """A client that makes no consumer."""

        def consumer(self, settings: Mapping[str, str], **_: Any) -> None:
            racks.append(settings.get("client.rack"))

    made = source().set_property("client.rack", "property")
    where = SourceContext("job", "source", 0, 1, commits_offsets=False)
    monkeypatch.setattr("headrace.kafka.source.default_client", Recording)
    for supplier in (lambda: "here", lambda: None, lambda: ""):
        made.set_rack_id_supplier(supplier).build().create_reader(where)
    assert racks == ["here", "property", "property"]
    with pytest.raises(UserCodeError, match="`set_rack_id_supplier` failed with KeyError: 'RACK'"):
        made.set_rack_id_supplier(lambda: {}["RACK"]).build().create_reader(where)


def test_each_subtask_has_its_share_of_the_rate() -> None:
    built = source().set_rate_limit(100).build()
    rates = []
    for parallelism in (1, 4):
        reader = built.create_reader(SourceContext("job", "source", 0, parallelism, commits_offsets=False))
        rates.append(reader._rate_limit.per_second)  # type: ignore[attr-defined]
        reader.close()
    assert rates == [100.0, 25.0]


def test_discovery_is_every_five_minutes_unless_there_is_nothing_to_find() -> None:
    def interval_ms(builder: KafkaSourceBuilder) -> int | None:
        enumerator = builder.build().create_enumerator(SourceContext("job", "source", 0, 1, commits_offsets=False))
        enumerator.close()
        return enumerator.discovery_interval_ms

    assert interval_ms(source()) == 300_000
    for given, kept in (("7", 7), ("0", None), ("-1", None)):
        assert interval_ms(source().set_property("partition.discovery.interval.ms", given)) == kept
    bounded = source().set_property("partition.discovery.interval.ms", "7")
    assert interval_ms(bounded.set_bounded(KafkaOffsetsInitializer.latest())) is None


@pytest.mark.parametrize(
    ("properties", "setting", "effective"),
    [
        # What a source decides in spite of the program, and what it leaves to it.
        ({"client.id": "mine", "client.id.prefix": "p"}, "client.id", "p-0"),
        ({"group.id": "g"}, "client.id", "g-0"),
        ({}, "enable.auto.commit", "false"),
        ({"enable.auto.commit": "true", "group.id": "g"}, "enable.auto.commit", "true"),
        # The client never resets by itself; `reset_strategy` is the program's.
        ({"auto.offset.reset": "latest"}, "auto.offset.reset", "error"),
        ({"client.rack": "rack-1"}, "client.rack", "rack-1"),
        ({"fetch.min.bytes": "7"}, "fetch.min.bytes", "7"),
    ],
)
def test_what_becomes_of_a_sources_properties(properties: dict[str, str], setting: str, effective: str) -> None:
    assert source().set_properties(properties).build().client_settings("0")[setting] == effective


@pytest.mark.parametrize(
    ("properties", "said"),
    [
        ({"client.id": "mine"}, "WARNING: KafkaSource: `client.id` has no effect"),
        (
            {"partition.discovery.interval.ms": "10"},
            "WARNING: KafkaSource: `partition.discovery.interval.ms` has no effect",
        ),
        (
            {"auto.offset.reset": "latest"},
            "INFO: KafkaSource: `auto.offset.reset` is latest; the starting offsets alone would say earliest",
        ),
        ({"ssl.protocol": "TLSv1.3"}, "WARNING: KafkaSource: `ssl.protocol` has no effect"),
        ({"linger.ms": "5"}, "WARNING: KafkaSource: `linger.ms` has no effect"),
    ],
)
def test_what_a_source_decides_in_spite_of_the_program_is_said(
    properties: dict[str, str], said: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    source().set_bounded(KafkaOffsetsInitializer.latest()).build()
    assert caplog.records == []
    source().set_bounded(KafkaOffsetsInitializer.latest()).set_properties(properties).build()
    (record,) = caplog.records
    assert f"{record.levelname}: {record.message}".startswith(said)


def test_the_programs_reset_strategy_wins_over_the_starting_offsets() -> None:
    latest = source().set_property("auto.offset.reset", "latest").build()
    assert latest.reset_strategy is KafkaOffsetResetStrategy.LATEST
    assert source().build().reset_strategy is KafkaOffsetResetStrategy.EARLIEST


def test_a_secret_by_reference_is_looked_up_when_a_client_is_made_and_held_nowhere(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    line = "org.apache.kafka.common.security.plain.PlainLoginModule required username=bob password=opensesame;"
    login = {"security.protocol": "SASL_SSL", "sasl.mechanism": "PLAIN", "sasl.jaas.config": "env:HEADRACE_TEST_LINE"}
    reading, writing = source().set_properties(login).build(), sink().set_properties(login).build()
    with pytest.raises(ConfigError, match=r"`sasl.jaas.config` is env:HEADRACE_TEST_LINE, and there is no such"):
        reading.client_settings("0")
    with pytest.raises(ConfigError, match=r"`sasl.jaas.config` is env:HEADRACE_TEST_LINE, and there is no such"):
        writing.client_settings()

    monkeypatch.setenv("HEADRACE_TEST_LINE", line)

    assert reading.client_settings("0")["sasl.password"] == "opensesame"
    assert writing.client_settings()["sasl.password"] == "opensesame"
    for made in (reading, writing):
        assert "env:HEADRACE_TEST_LINE" in repr(made)
        assert b"opensesame" not in pickle.dumps(made)


def test_properties_come_singly_in_a_dict_and_in_the_spellings_of_older_programs() -> None:
    several = {"fetch.min.bytes": "7", "client.rack": "a"}
    for reading in (source().set_properties(several), source().set_kafka_consumer_config(several)):
        settings = reading.set_property("fetch.min.bytes", "8").build().client_settings("0")
        assert (settings["fetch.min.bytes"], settings["client.rack"]) == ("8", "a")
    written = {"linger.ms": "7", "client.rack": "a"}
    for writing in (sink().set_properties(written), sink().set_kafka_producer_config(written)):
        settings = writing.set_property("linger.ms", "8").build().client_settings()
        assert (settings["linger.ms"], settings["client.rack"]) == ("8", "a")
    with pytest.raises(ConfigError, match=r"takes strings, and `linger.ms` is set to a int"):
        sink().set_kafka_producer_config({"linger.ms": 7})  # type: ignore[dict-item]


def test_lineage_names_topics_and_cluster_and_no_secret() -> None:
    login = {"sasl.password": "opensesame"}
    reading = source().set_properties(login).set_bounded(KafkaOffsetsInitializer.latest()).build().get_lineage_vertex()
    assert reading.boundedness is Boundedness.BOUNDED
    assert [(data.name, data.namespace) for data in reading.datasets] == [("t", "kafka://localhost:1")]
    writing = sink().set_properties(login).build().get_lineage_vertex()
    assert [data.name for data in writing.datasets] == ["t"]
    assert writing.boundedness is None
    assert "opensesame" not in repr((reading, writing))
    builder = KafkaSource.builder().set_bootstrap_servers("a:1").set_topic_pattern("rss.*")
    (pattern,) = builder.set_value_only_deserializer(SimpleStringSchema()).build().get_lineage_vertex().datasets
    assert (pattern.name, pattern.facets["kafka"]["topic_pattern"]) == ("rss.*", "rss.*")
    free = KafkaRecordSerializationSchema.builder().set_topic_selector(str).set_value_serialization_schema(bytes)
    assert sink().set_record_serializer(free.build()).build().get_lineage_vertex().datasets == ()


@pytest.mark.parametrize(
    "record",
    [
        b"bytes",
        KafkaProducerRecord("", b"x"),
        KafkaProducerRecord("t", b"x", partition=-7),
        KafkaProducerRecord("t", b"x", partition="0"),  # type: ignore[arg-type]
        KafkaProducerRecord("t", b"x", timestamp=1.5),  # type: ignore[arg-type]
        KafkaProducerRecord("t", b"x", timestamp=-5),
        KafkaProducerRecord("t", b"x", headers={"a": b"x"}),  # type: ignore[arg-type]
        KafkaProducerRecord("t", b"x", headers=None),  # type: ignore[arg-type]
        KafkaProducerRecord("t", b"x", headers=iter([("a", b"x")])),  # type: ignore[arg-type]
        KafkaProducerRecord("t", b"x", headers=[("a", 1)]),  # type: ignore[list-item]
        KafkaProducerRecord("t", b"x", headers=[("a", "x")]),  # type: ignore[list-item]
    ],
)
def test_what_cannot_be_written_is_a_data_error_where_it_is_made(record: Any) -> None:
    with pytest.raises(DataError, match=r"have to|has to"):
        check_record(record)


def test_headers_of_a_provider_are_looked_at_too() -> None:
    builder = KafkaRecordSerializationSchema.builder().set_topic("t").set_value_serialization_schema(str.encode)
    schema = builder.set_header_provider(lambda _: [("a", 1)]).build()  # type: ignore[list-item,return-value]
    with pytest.raises(DataError, match=r"headers have to be pairs .*\('a', 1\)"):
        schema.serialize("x", CONTEXT, None)
