"""What follows from a cluster's answers: those that no broker of the tests gives, and where little matters."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace

import pytest

from headrace.common.serialization import SimpleStringSchema
from headrace.connector import DeliveryGuarantee, TransactionContext
from headrace.kafka import (
    KafkaOffsetResetStrategy,
    KafkaOffsetsInitializer,
    KafkaRecordSerializationSchema,
    KafkaSink,
    KafkaSource,
)
from headrace.kafka.client.protocol import (
    ClusterDescription,
    Failure,
    GroupDescription,
    GroupMember,
    KafkaTopicPartition,
    PartitionReplicas,
    TopicDescription,
)
from headrace.kafka.enumerator import Partitions
from headrace.kafka.facts import Checkpointing, Facts, Reads, Transacts, Writes
from headrace.kafka.findings import Area, Finding, Severity, findings
from headrace.kafka.offsets import LogOffsets, OffsetsInitializer, PartitionOffsetsRetriever
from headrace.kafka.split import KafkaSplit
from headrace.kafka.transaction import MarkerPlace

ERROR, WARNING, NOTE = Severity.ERROR, Severity.WARNING, Severity.NOTE
ALL = frozenset({"DESCRIBE", "READ", "WRITE"})
P0 = KafkaTopicPartition("in", 0)
THREE = {0: PartitionReplicas(1, (1, 2, 3), (1, 2, 3))}
SETTINGS = {
    "cleanup.policy": "delete",
    "retention.ms": "604800000",
    "retention.bytes": "-1",
    "max.message.bytes": "1048588",
    "min.insync.replicas": "2",
}
BROKER = {
    "auto.create.topics.enable": "false",
    "transaction.max.timeout.ms": "900000",
    "offsets.retention.minutes": "10080",
    "transactional.id.expiration.ms": "604800000",
}
CHECKPOINTING = Checkpointing(1_000, 600_000)


def topic(name: str, **changes: object) -> TopicDescription:
    return replace(TopicDescription(name, f"id-of-{name}", (0,), ALL, THREE), **changes)  # type: ignore[arg-type]


FACTS = Facts(
    servers="host:1",
    cluster=ClusterDescription("cluster", (1, 2, 3), frozenset({"DESCRIBE"})),
    broker=BROKER,
    topics={name: topic(name) for name in ("in", "out")},
    settings={"in": SETTINGS, "out": SETTINGS},
    group_rights={"g": ALL, "p-job-r": ALL},
    groups={"g": GroupDescription("EMPTY", ()), "p-job-r": GroupDescription("DEAD", ())},
    logs={P0: LogOffsets(10, 20)},
    newest_ms={"in": 1_000_000},
    asked_at_ms=1_000_000,
)
"""Of a cluster on which nothing is wrong."""


def reads(initializer: KafkaOffsetsInitializer | None = None, *splits: KafkaSplit, **properties: str) -> Reads:
    builder = KafkaSource.builder().set_bootstrap_servers("host:1").set_topics("in").set_group_id("g")
    builder.set_value_only_deserializer(SimpleStringSchema()).set_properties(properties)
    source = builder.set_starting_offsets(initializer or KafkaOffsetsInitializer.earliest()).build()
    return Reads("reading", source, source.subscription, True, splits)  # type: ignore[arg-type]


def writes(guarantee: DeliveryGuarantee = DeliveryGuarantee.EXACTLY_ONCE, **properties: str) -> Writes:
    schema = KafkaRecordSerializationSchema.builder().set_topic("out")
    schema.set_value_serialization_schema(SimpleStringSchema())
    builder = KafkaSink.builder().set_bootstrap_servers("host:1").set_record_serializer(schema.build())
    builder.set_delivery_guarantee(guarantee).set_transactional_id_prefix("p").set_properties(properties)
    return Writes("writing", builder.build())


def transacts() -> Transacts:
    context = TransactionContext("job", "r", CHECKPOINTING.interval_ms, CHECKPOINTING.timeout_ms)
    place = MarkerPlace("p-job-r", "in")
    sinks, sources = (writes().sink,), (reads().source,)
    return Transacts(("writing",), sinks, sources, context, transactional_id="p-job-r", place=place)


def found(
    facts: Facts = FACTS, reading: Reads | None = None, writing: Writes | None = None, *, every: bool = False
) -> list[Finding]:
    """All findings but the two notes of what can never be checked."""
    said = findings(facts, [reading or reads()], [writing or writes()], [transacts()], CHECKPOINTING)
    return [one for one in said if every or not one.problem.startswith("not checked")]


def only(said: list[Finding]) -> tuple[Severity, Area, str]:
    assert len(said) == 1, said
    return said[0].severity, said[0].area, said[0].subject


def with_topic(name: str, found: TopicDescription | Failure) -> Facts:
    return replace(FACTS, topics={**FACTS.topics, name: found})


def with_settings(name: str, **settings: str) -> Facts:
    changed = {**SETTINGS, **{key.replace("_", "."): value for key, value in settings.items()}}
    return replace(FACTS, settings={**FACTS.settings, name: changed})


def with_broker(**settings: str) -> Facts:
    return replace(FACTS, broker={**BROKER, **{key.replace("_", "."): value for key, value in settings.items()}})


def test_of_a_cluster_that_has_it_all_only_what_can_never_be_checked_is_said() -> None:
    assert found() == []
    unchecked = {(one.severity, one.area) for one in found(every=True)}
    assert unchecked == {(NOTE, Area.CLOCK), (NOTE, Area.RIGHTS)}


def test_of_a_cluster_that_was_not_reached_only_that_is_said() -> None:
    lost = Facts("host:1", failure=Failure("_TRANSPORT", "no", cause=Failure("_AUTHENTICATION", "wrong")))
    assert only(found(lost, every=True)) == (ERROR, Area.AUTHENTICATION, "brokers host:1")


def test_a_cluster_that_stops_answering_hides_nothing_of_what_it_has_said() -> None:
    stopped = replace(with_topic("in", Failure("UNKNOWN_TOPIC_OR_PART", "no")), failure=Failure("_TIMED_OUT", "late"))
    stopped = replace(stopped, settings={}, groups={}, logs={})
    said = found(stopped)
    assert [(one.severity, one.area) for one in said] == [(ERROR, Area.CONNECTION), (ERROR, Area.TOPIC)]
    assert "was not checked" in said[0].problem


def test_a_failure_that_is_not_about_the_connection_is_told_as_it_is() -> None:
    odd = Facts("host:1", failure=Failure("UNKNOWN", "what now"))
    (said,) = found(odd)
    assert (said.severity, said.area) == (ERROR, Area.CONNECTION)
    assert "what now" in said.problem


def test_what_a_program_contradicts_itself_in_is_told_with_its_cure() -> None:
    (said,) = found(replace(FACTS, complaints=(("writing", "`a` is 1; make it 2"),)))
    assert (said.area, said.subject, said.problem, said.cure) == (Area.PLAN, "`writing`", "`a` is 1", "make it 2")


def test_brokers_that_say_nothing_of_rights_are_not_taken_for_a_yes() -> None:
    for name, what in (("in", "read"), ("out", "write")):
        said = found(with_topic(name, topic(name, operations=None)), every=True)
        assert any(one.subject == f"topic {name!r}" and f"may {what} it" in one.problem for one in said)
        assert all(one.severity is NOTE for one in said)


@pytest.mark.parametrize("name", ["in", "out"])
def test_a_topic_that_cannot_be_described_is_told_as_the_brokers_say_it(name: str) -> None:
    (said,) = found(with_topic(name, Failure("INVALID_TOPIC_EXCEPTION", "what a name")))
    assert (said.severity, said.area, said.subject) == (ERROR, Area.TOPIC, f"topic {name!r}")
    assert "what a name" in said.problem


class _Own(OffsetsInitializer):
    def get_partition_offsets(
        self, partitions: Collection[KafkaTopicPartition], partition_offsets_retriever: PartitionOffsetsRetriever
    ) -> Mapping[KafkaTopicPartition, int]:
        raise AssertionError("nobody asks it")


def test_what_the_programs_own_code_decides_is_said_not_to_be_checked() -> None:
    said = found(reading=reads(KafkaOffsetsInitializer.of(_Own())), every=True)
    assert any("an initializer of the program's own" in one.problem for one in said)
    chosen = KafkaRecordSerializationSchema.builder().set_topic_selector(str)
    chosen.set_value_serialization_schema(SimpleStringSchema())
    sink = KafkaSink.builder().set_bootstrap_servers("host:1").set_record_serializer(chosen.build()).build()
    said = found(writing=Writes("choosing", sink), every=True)
    assert any("each of its records chooses its topic" in one.problem for one in said)


def test_old_brokers_want_a_right_on_the_cluster_from_an_idempotent_producer() -> None:
    old = with_topic("out", topic("out", topic_id=None))
    assert only(found(old)) == (ERROR, Area.RIGHTS, "cluster host:1")
    assert found(old, writing=writes(DeliveryGuarantee.AT_LEAST_ONCE, **{"enable.idempotence": "false"})) == []
    allowed = ClusterDescription("cluster", (1, 2, 3), frozenset({"DESCRIBE", "IDEMPOTENT_WRITE"}))
    assert found(replace(old, cluster=allowed)) == []
    assert found(replace(old, cluster=replace(allowed, operations=None))) == []


def test_a_sinks_topic_that_is_missing_is_created_by_brokers_that_do_and_are_let() -> None:
    missing = with_topic("out", Failure("UNKNOWN_TOPIC_OR_PART", "no"))
    creating = replace(missing, broker={**BROKER, "auto.create.topics.enable": "true"})
    unread = replace(missing, broker=Failure("CLUSTER_AUTHORIZATION_FAILED", "no"))
    assert only(found(missing)) == (ERROR, Area.TOPIC, "topic 'out'")
    assert only(found(creating)) == (WARNING, Area.TOPIC, "topic 'out'")
    assert only(found(unread)) == (WARNING, Area.TOPIC, "topic 'out'")
    forbids = writes(**{"allow.auto.create.topics": "false"})
    assert found(creating, writing=forbids)[0].setting == "allow.auto.create.topics"
    assert found(creating, writing=forbids)[0].severity is ERROR


@pytest.mark.parametrize(
    ("in_sync", "minimum", "severity"),
    [
        ((1, 2, 3), "2", None),
        ((1, 2), "2", None),
        ((1,), "2", ERROR),
        ((1, 2, 3), "3", WARNING),
        ((1, 2), "3", ERROR),
        ((1, 2, 3), "4", ERROR),
        ((1, 2, 3), "1", WARNING),
    ],
)
def test_replicas_in_sync_are_held_against_the_minimum(
    in_sync: tuple[int, ...], minimum: str, severity: Severity | None
) -> None:
    facts = with_settings("out", min_insync_replicas=minimum)
    facts = replace(
        facts, topics={**facts.topics, "out": topic("out", replicas={0: PartitionReplicas(1, (1, 2, 3), in_sync)})}
    )
    assert [one.severity for one in found(facts)] == ([] if severity is None else [severity])
    # Who waits for one replica alone is not refused.
    lax = writes(DeliveryGuarantee.NONE, acks="1")
    assert found(facts, writing=lax) == []


def test_one_replica_is_a_note_only_where_there_is_one_broker() -> None:
    one = with_topic("out", topic("out", replicas={0: PartitionReplicas(1, (1,), (1,))}))
    one = replace(one, settings={**one.settings, "out": {**SETTINGS, "min.insync.replicas": "1"}})
    assert only(found(one)) == (WARNING, Area.REPLICATION, "topic 'out'")
    alone = replace(one, cluster=ClusterDescription("cluster", (1,)))
    assert only(found(alone)) == (NOTE, Area.REPLICATION, "topic 'out'")


def test_a_partition_without_leader_is_an_error_with_the_brokers_to_start() -> None:
    (said,) = found(with_topic("in", topic("in", replicas={0: PartitionReplicas(None, (2, 3), ())})))
    assert (said.severity, said.area) == (ERROR, Area.REPLICATION)
    assert "2, 3" in said.cure


def test_a_partition_that_is_asked_for_and_does_not_exist_is_named() -> None:
    asked = replace(reads(), subscription=Partitions((P0, KafkaTopicPartition("in", 7))))
    (said,) = found(reading=asked)
    assert (said.severity, said.problem) == (ERROR, "it has no partition 7")


def test_lanes_that_are_alike_are_told_of_once() -> None:
    other = replace(transacts(), lane=1, lanes=2, transactional_id="p-job-r1", place=MarkerPlace("p-job-r1", "in"))
    both = [replace(transacts(), lanes=2), other]
    facts = replace(FACTS, group_rights={**FACTS.group_rights, "p-job-r1": frozenset({"DESCRIBE"})})
    said = findings(facts, [reads()], [writes()], both, CHECKPOINTING)
    assert [one.subject for one in said if one.problem.startswith("not checked: Write")] == [
        "transaction 'p-job-r' and its like in 1 other lane"
    ]
    # But each has a group of its own.
    assert [one.subject for one in said if one.severity is ERROR] == ["group 'p-job-r1'"]


def test_positions_follow_the_checkpoint_or_else_the_starting_offsets() -> None:
    split = KafkaSplit(P0, 5, topic_id="id-of-in")
    assert only(found(reading=reads(None, split))) == (ERROR, Area.POSITION, "partition in-0")
    assert found(reading=reads(None, replace(split, position=10))) == []
    assert found(reading=reads(None, replace(split, stop=5))) == []
    # Nothing was read of it yet, and retention has moved its start.
    assert found(reading=reads(None, replace(split, is_start=True))) == []
    recreated = found(reading=reads(None, replace(split, position=12, topic_id="another")))
    assert "was deleted and created again" in recreated[0].problem

    none, latest = KafkaOffsetResetStrategy.NONE, KafkaOffsetResetStrategy.LATEST
    given = found(reading=reads(KafkaOffsetsInitializer.offsets({P0: 3}, latest)))
    assert only(given) == (WARNING, Area.POSITION, "partition in-0")
    uncommitted = KafkaOffsetsInitializer.committed_offsets(none)
    assert only(found(reading=reads(uncommitted))) == (ERROR, Area.POSITION, "partition in-0")
    removed = replace(FACTS, topics={**FACTS.topics, "old": Failure("UNKNOWN_TOPIC_OR_PART", "no")})
    old = KafkaSplit(KafkaTopicPartition("old", 0), 5)
    assert only(found(removed, reads(None, old))) == (WARNING, Area.POSITION, "topic 'old'")
    assert found(removed, reads(None, replace(old, stop=5))) == []
    at = replace(FACTS, logs={P0: LogOffsets(10, 20, committed=12)})
    assert found(at, reads(uncommitted)) == []


@pytest.mark.parametrize(
    ("setting", "value", "severity"),
    [
        ("offsets_retention_minutes", "10", WARNING),
        ("offsets_retention_minutes", "11", NOTE),
        ("offsets_retention_minutes", "1440", None),
        ("transactional_id_expiration_ms", "600999", WARNING),
        ("transactional_id_expiration_ms", "601000", None),
        ("transaction_max_timeout_ms", "600999", WARNING),
        ("transaction_max_timeout_ms", "999", ERROR),
    ],
)
def test_what_brokers_end_and_forget_is_held_against_the_slowest_checkpoint(
    setting: str, value: str, severity: Severity | None
) -> None:
    assert [one.severity for one in found(with_broker(**{setting: value}))] == ([] if severity is None else [severity])


def test_a_clock_may_be_two_seconds_ahead_and_is_never_known_to_be_behind() -> None:
    assert found(replace(FACTS, asked_at_ms=1_000_000 - 2_000)) == []
    assert only(found(replace(FACTS, asked_at_ms=1_000_000 - 2_001))) == (WARNING, Area.CLOCK, "brokers host:1")
    assert found(replace(FACTS, asked_at_ms=2_000_000)) == []


def test_more_members_than_three_are_counted() -> None:
    members = tuple(GroupMember(f"c{n}", "host", ()) for n in range(5))
    (said,) = found(replace(FACTS, groups={**FACTS.groups, "g": GroupDescription("STABLE", members)}))
    assert "with 5 members: 'c0' at host, 'c1' at host, 'c2' at host and 2 more" in said.problem
