"""What would go wrong with a job on its clusters: plain functions over what these were asked, findings out.

`headrace.kafka.survey` asks, and makes `headrace.kafka.facts`. What was not asked or not answered is not in them, and
no finding comes of it: the finding is then that it was not answered.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any, Final

from headrace.connector import DeliveryGuarantee
from headrace.errors import ConfigError, ExternalError
from headrace.kafka.client.protocol import (
    Failure,
    GroupDescription,
    KafkaTopicPartition,
    TopicDescription,
)
from headrace.kafka.enumerator import Partitions, Subscription, TopicPattern, Topics, is_subscribed, topics_of
from headrace.kafka.facts import Checkpointing, Facts, Reads, Transacts, Writes
from headrace.kafka.failures import connection_trouble, is_unknown_topic, may_not
from headrace.kafka.offsets import Custom, reset, resolve
from headrace.kafka.properties import producer_settings, translate
from headrace.kafka.property_table import Role, read_int
from headrace.kafka.record_size import largest_record
from headrace.kafka.serialization import BuiltSchema
from headrace.kafka.sink import KafkaSink
from headrace.kafka.source import KafkaSource
from headrace.kafka.split import KafkaSplit
from headrace.kafka.transaction import (
    MAX_SETTING,
    choose_timeout,
    delivery_timeout,
    merged_properties,
)

_MINUTE_MS: Final = 60_000
_HOUR_MS: Final = 60 * _MINUTE_MS
_DAY_MS: Final = 24 * _HOUR_MS
_CLOCK_TOLERANCE_MS: Final = 2_000
_RECEIVE_MAX_BYTES: Final = 100_000_000
"""librdkafka's default of `receive.message.max.bytes`."""
_NAMED_AT_MOST: Final = 3

AUTO_CREATE: Final = "auto.create.topics.enable"


class Severity(Enum):
    """What follows from a finding."""

    ERROR = "error"
    """The job would not start, or could not do what it promises."""
    WARNING = "warning"
    """It would run, and something may go wrong."""
    NOTE = "note"
    """Worth knowing; or it could not be checked."""


class Area(Enum):
    """What a finding is about."""

    PLAN = "plan"
    CONNECTION = "connection"
    TLS = "tls"
    AUTHENTICATION = "authentication"
    TOPIC = "topic"
    RIGHTS = "rights"
    TRANSACTION = "transaction"
    GROUP = "group"
    REPLICATION = "replication"
    SIZE = "size"
    CLOCK = "clock"
    RETENTION = "retention"
    POSITION = "position"
    CHECKPOINT = "checkpoint"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that would go wrong: about what, why, and what to do. `setting` is the first one to look at."""

    severity: Severity
    area: Area
    subject: str
    problem: str
    cure: str = ""
    setting: str | None = None


def findings(
    facts: Facts,
    reads: Sequence[Reads],
    writes: Sequence[Writes],
    transacts: Sequence[Transacts],
    checkpointing: Checkpointing,
) -> list[Finding]:
    """All that would go wrong with these operators on this cluster."""
    found = list(of_connection(facts, [*(one.operator for one in reads), *(one.operator for one in writes)]))
    for reading in reads:
        found += of_reading(reading, facts, checkpointing)
    for writing in writes:
        found += of_writing(writing, facts)
    for transaction in transacts:
        found += of_transaction(transaction, facts, checkpointing)
    if facts.cluster is not None:
        found += of_clock(facts)
        found += of_unread_settings(facts)
    return list(dict.fromkeys(found))


def split_cure(text: str) -> tuple[str, str]:
    """A message of Headrace's as problem and cure.

    >>> split_cure("`a` is 1; set it to 2")
    ('`a` is 1', 'set it to 2')
    """
    problem, semicolon, cure = text.rpartition("; ")
    return (problem, cure) if semicolon else (text, "")


def of_connection(facts: Facts, operators: Sequence[str]) -> Iterator[Finding]:
    """Whether the brokers could be asked at all, and to the end."""
    for operator, text in facts.complaints:
        yield Finding(Severity.ERROR, Area.PLAN, f"`{operator}`", *split_cure(text))
    if facts.failure is None:
        return
    subject = f"brokers {facts.servers}"
    trouble = connection_trouble(facts.failure, facts.servers)
    needed = f"needed by {_listed(f'`{operator}`' for operator in dict.fromkeys(operators))}, nothing there was checked"
    if facts.cluster is not None:
        needed = "what is not listed here was not checked"
    if trouble is None:
        yield Finding(Severity.ERROR, Area.CONNECTION, subject, f"{facts.failure}; {needed}", "look at the brokers")
    else:
        problem = f"{trouble.problem}; {needed}"
        yield Finding(Severity.ERROR, Area(trouble.of), subject, problem, trouble.cure, trouble.setting)


def of_reading(reads: Reads, facts: Facts, checkpointing: Checkpointing) -> Iterator[Finding]:
    """A source: its topics, the rights on them, their retention, its group, and where it would begin."""
    subscription = reads.subscription
    if subscription is None or facts.cluster is None:
        return
    names = topics_of(subscription, facts.existing)
    if isinstance(subscription, TopicPattern) and not names and facts.failure is None:
        problem = f"`{reads.operator}` reads what matches {subscription.pattern!r}: no topic that it may see does"
        cure = "correct the pattern, create a topic, or grant Describe on it"
        yield Finding(Severity.WARNING, Area.TOPIC, f"`{reads.operator}`", problem, cure)
    for name in names:
        subject, found = f"topic {name!r}", facts.topics.get(name)
        if found is None:
            continue
        if may_not(found, "READ"):
            yield _missing_right(subject, "Read", f"`{reads.operator}` cannot read it", found)
        elif isinstance(found, Failure):
            problem = f"`{reads.operator}` reads it, and it cannot be described: {found}"
            if is_unknown_topic(found):
                problem = f"`{reads.operator}` reads it, and it does not exist"
            cure = "create the topic, or correct its name; a source has none created"
            yield Finding(Severity.ERROR, Area.TOPIC, subject, problem, cure)
        else:
            yield from _unknown_right(subject, "read", found)
            yield from _leaders(found, subscription)
            yield from _retention(name, facts, checkpointing, is_resumed=not reads.source.ends)
            yield from _fetched_size(reads.source, name, facts)
    yield from _source_group(reads, facts)
    yield from _positions(reads, facts)


def _missing_right(subject: str, right: str, what: str, found: object) -> Finding:
    absent = " (the brokers say the same of a topic that does not exist)" if isinstance(found, Failure) else ""
    absent = absent if subject.startswith("topic") else ""
    problem = f"{what}: this principal has no {right} on it{absent}"
    return Finding(Severity.ERROR, Area.RIGHTS, subject, problem, f"grant it {right} on {subject} (an ACL)")


def _unknown_right(subject: str, what: str, found: TopicDescription | None) -> Iterator[Finding]:
    if found is None or found.operations is None:
        problem = f"not checked: whether this principal may {what} it, as the brokers do not say"
        yield Finding(Severity.NOTE, Area.RIGHTS, subject, problem)


def _leaders(topic: TopicDescription, subscription: Subscription | None = None) -> Iterator[Finding]:
    subject = f"topic {topic.name!r}"
    wanted = set(topic.partitions)
    if isinstance(subscription, Partitions):
        wanted = {one.partition for one in subscription.partitions if one.topic == topic.name}
        if missing := sorted(wanted - set(topic.partitions)):
            problem = f"it has no partition {_listed(map(str, missing))}"
            yield Finding(Severity.ERROR, Area.TOPIC, subject, problem, "correct `set_partitions`")
    if leaderless := sorted(n for n, one in topic.replicas.items() if n in wanted and one.leader is None):
        problem = f"partition {_listed(map(str, leaderless))} has no leader: nobody can read or write it now"
        cure = f"start the brokers that hold it: {_listed(_homes(topic, leaderless))}"
        yield Finding(Severity.ERROR, Area.REPLICATION, subject, problem, cure)


def _homes(topic: TopicDescription, partitions: Iterable[int]) -> list[str]:
    return sorted({str(broker) for n in partitions for broker in topic.replicas[n].replicas})


def _retention(topic: str, facts: Facts, checkpointing: Checkpointing, *, is_resumed: bool) -> Iterator[Finding]:
    subject, policy = f"topic {topic!r}", (facts.of_topic(topic, "cleanup.policy") or "").split(",")
    retention_ms = int(facts.of_topic(topic, "retention.ms") or -1)
    slowest_ms = checkpointing.slowest_ms
    if "delete" in policy and 0 <= retention_ms < _DAY_MS:
        setting, kept = "retention.ms", _duration(retention_ms)
        if slowest_ms is not None and retention_ms < slowest_ms:
            problem = (
                f"its records are kept for {kept}, and the last complete checkpoint may be {_duration(slowest_ms)} old "
                "(`execution.checkpointing.interval` and `.timeout`): what a restart would read again may be gone"
            )
            cure = f"raise the topic's `{setting}`, or lower these"
            yield Finding(Severity.WARNING, Area.RETENTION, subject, problem, cure, setting)
        elif is_resumed:
            problem = f"its records are kept for {kept}: a job that is away for longer loses what it had not read"
            yield Finding(Severity.NOTE, Area.RETENTION, subject, problem, f"raise the topic's `{setting}`", setting)
    retention_bytes = int(facts.of_topic(topic, "retention.bytes") or -1)
    if "delete" in policy and retention_bytes >= 0 and is_resumed:
        setting = "retention.bytes"
        problem = (
            f"it keeps {retention_bytes} bytes of each partition: how long a job may be away depends on how much is "
            "written"
        )
        yield Finding(Severity.NOTE, Area.RETENTION, subject, problem, f"raise the topic's `{setting}`", setting)
    if "compact" in policy:
        problem = (
            "it is compacted: a record may be gone before it is read, or read again, once there is a later one of its "
            "key"
        )
        cure = "let the job not depend on every record, or read a topic that is not compacted"
        yield Finding(Severity.NOTE, Area.RETENTION, subject, problem, cure, "cleanup.policy")


def _fetched_size(source: KafkaSource, topic: str, facts: Facts) -> Iterator[Finding]:
    setting = "receive.message.max.bytes"
    largest = int(facts.of_topic(topic, "max.message.bytes") or 0)
    taken = int(translate(dict(source.properties), Role.CONSUMER).settings.get(setting, _RECEIVE_MAX_BYTES))
    if largest > taken:
        problem = f"its records may have {largest} bytes (`max.message.bytes`), and the source takes {taken}"
        cure = f"raise `{setting}` of the source"
        yield Finding(Severity.WARNING, Area.SIZE, f"topic {topic!r}", problem, cure, setting)


def _source_group(reads: Reads, facts: Facts) -> Iterator[Finding]:
    group = reads.source.group_id
    if group is None or group not in facts.group_rights:
        return
    subject, rights = f"group {group!r}", facts.group_rights[group]
    if reads.commits and may_not(rights, "READ"):
        what = f"`{reads.operator}` cannot report its progress to it (`commit.offsets.on.checkpoint` false has it not)"
        yield _missing_right(subject, "Read", what, rights)
    elif reads.source.starting.needs_group and not reads.restored and may_not(rights, "DESCRIBE"):
        what = f"`{reads.operator}` cannot start from the offsets that are committed to it"
        yield _missing_right(subject, "Describe", what, rights)
    if reads.commits and (active := _active(group, facts)):
        problem = f"{active}; what `{reads.operator}` reports of its progress would be refused"
        cure = "stop it, or give the job a `group.id` of its own"
        yield Finding(Severity.WARNING, Area.GROUP, subject, problem, cure, "group.id")


def _active(group: str, facts: Facts) -> str | None:
    found = facts.groups.get(group)
    if not isinstance(found, GroupDescription) or not found.members:
        return None
    who = _listed(f"{member.client_id!r} at {member.host}" for member in found.members)
    return f"another application is active in it, with {_counted(len(found.members), 'member')}: {who}"


def _positions(reads: Reads, facts: Facts) -> Iterator[Finding]:
    """Whether the logs hold what the checkpoint goes on from, or the starting offsets."""
    strategy, starting = reads.source.reset_strategy, reads.source.starting
    for split in reads.restored:
        log, topic = facts.logs.get(split.partition), facts.topics.get(split.partition.topic)
        if (
            isinstance(topic, Failure)
            and is_unknown_topic(topic)
            and not split.is_finished
            and not _names(reads, split)
        ):
            problem = (
                f"the checkpoint of `{reads.operator}` goes on with a partition of it, and it does not exist any more"
            )
            cure = "if it is not to come back, nothing needs to be done"
            yield Finding(Severity.WARNING, Area.POSITION, f"topic {split.partition.topic!r}", problem, cure)
        if split.is_finished or log is None or not isinstance(topic, TopicDescription):
            continue
        was_recreated = None not in (topic.topic_id, split.topic_id) and topic.topic_id != split.topic_id
        subject = f"partition {split.partition}"
        try:
            moved = reset(
                split.partition, split.position, log, strategy, is_start=split.is_start, was_recreated=was_recreated
            )
        except ExternalError as error:
            yield Finding(Severity.ERROR, Area.POSITION, subject, f"the checkpoint goes on behind the log: {error}")
            continue
        if moved is not None and moved.reason is not None:
            problem = f"the log does not hold what the checkpoint of `{reads.operator}` goes on from: {moved.reason}"
            cure = "accept the loss, or set `auto.offset.reset` to none, which refuses to start; raise `retention.ms`"
            yield Finding(Severity.ERROR, Area.POSITION, subject, problem, cure, "retention.ms")
    if reads.restored:
        return
    if isinstance(starting.place, Custom):
        problem = "not checked: its starting offsets are decided by an initializer of the program's own"
        yield Finding(Severity.NOTE, Area.POSITION, f"`{reads.operator}`", problem)
        return
    for partition in _partitions(reads, facts):
        log, subject = facts.logs.get(partition), f"partition {partition}"
        if log is None:
            continue
        try:
            moved = reset(partition, resolve(starting, partition, log), log, strategy)
        except ExternalError as error:
            yield Finding(Severity.ERROR, Area.POSITION, subject, *split_cure(str(error)))
            continue
        if moved is not None and moved.reason is not None:
            problem = f"the log does not hold where `{reads.operator}` is to begin: {moved.reason}"
            yield Finding(Severity.WARNING, Area.POSITION, subject, problem, "correct the starting offsets")


def _names(reads: Reads, split: KafkaSplit) -> bool:
    """Whether the program names the split's topic, so that it is missed already."""
    subscription = reads.subscription
    return isinstance(subscription, Topics | Partitions) and is_subscribed(subscription, split.partition)


def _partitions(reads: Reads, facts: Facts) -> list[KafkaTopicPartition]:
    return partitions_read(reads.subscription, facts.topics.values()) if reads.subscription is not None else []


def partitions_read(
    subscription: Subscription, topics: Iterable[TopicDescription | Failure]
) -> list[KafkaTopicPartition]:
    """The partitions that are subscribed to and exist."""
    described = {topic.name: topic for topic in topics if isinstance(topic, TopicDescription)}
    names = topics_of(subscription, described)
    found = [KafkaTopicPartition(name, n) for name in names if name in described for n in described[name].partitions]
    return [one for one in found if not isinstance(subscription, Partitions) or one in subscription.partitions]


def of_writing(writes: Writes, facts: Facts) -> Iterator[Finding]:
    """A sink: its topic, the rights on it, how it is replicated, and what it takes."""
    sink, operator = writes.sink, writes.operator
    if facts.cluster is None:
        return
    if sink.topic is None:
        problem = "not checked: each of its records chooses its topic"
        yield Finding(Severity.NOTE, Area.TOPIC, f"`{operator}`", problem)
        return
    subject, found = f"topic {sink.topic!r}", facts.topics.get(sink.topic)
    if found is None:
        return
    if may_not(found, "WRITE"):
        yield _missing_right(subject, "Write", f"`{operator}` cannot write it", found)
    elif isinstance(found, Failure) and is_unknown_topic(found):
        yield _absent(writes, subject, facts)
    elif isinstance(found, Failure):
        problem = f"`{operator}` writes it, and it cannot be described: {found}"
        yield Finding(Severity.ERROR, Area.TOPIC, subject, problem)
    else:
        yield from _unknown_right(subject, "write", found)
        yield from _idempotence(sink, found, facts)
        yield from _leaders(found)
        yield from _replication(sink, found, facts)
        yield from _written(writes, found.name, facts)


def _absent(writes: Writes, subject: str, facts: Facts) -> Finding:
    enabled = facts.of_broker(AUTO_CREATE)
    if not writes.sink.may_create_topics or enabled == "false":
        setting = AUTO_CREATE if enabled == "false" else "allow.auto.create.topics"
        problem = f"`{writes.operator}` writes it, it does not exist, and is not created by being asked for"
        cure = f"create it, correct its name, or set `{setting}` to true"
        return Finding(Severity.ERROR, Area.TOPIC, subject, problem, cure, setting)
    if enabled is None:
        problem = (
            f"`{writes.operator}` writes it, it does not exist, and nobody knows whether the brokers would create it: "
            f"this principal may not read `{AUTO_CREATE}`"
        )
        return Finding(Severity.WARNING, Area.TOPIC, subject, problem, "create it, or correct its name", AUTO_CREATE)
    partitions, replicas = facts.of_broker("num.partitions"), facts.of_broker("default.replication.factor")
    problem = (
        f"`{writes.operator}` writes it, and it does not exist: a start has the brokers create it, with their defaults "
        f"(`num.partitions` {partitions}, `default.replication.factor` {replicas})"
    )
    return Finding(Severity.WARNING, Area.TOPIC, subject, problem, "create it as it is to be", AUTO_CREATE)


def _idempotence(sink: KafkaSink, topic: TopicDescription, facts: Facts) -> Iterator[Finding]:
    """Brokers before 2.8 want a right on the cluster from an idempotent producer. They know no ids of topics either."""
    operations = None if facts.cluster is None else facts.cluster.operations
    is_old, is_idempotent = topic.topic_id is None, producer_settings(dict(sink.properties))["enable.idempotence"]
    if is_old and is_idempotent == "true" and operations is not None and "IDEMPOTENT_WRITE" not in operations:
        problem = "this principal has no IdempotentWrite on it, which brokers before Kafka 2.8 want of such a producer"
        cure = "grant it IdempotentWrite on the cluster (an ACL), or set `enable.idempotence` to false"
        yield Finding(Severity.ERROR, Area.RIGHTS, f"cluster {facts.servers}", problem, cure, "enable.idempotence")


def _replication(sink: KafkaSink, topic: TopicDescription, facts: Facts) -> Iterator[Finding]:
    subject, area = f"topic {topic.name!r}", Area.REPLICATION
    placed = [one for one in topic.replicas.values() if one.leader is not None]
    if not placed:
        return
    factor, in_sync = min(len(one.replicas) for one in placed), min(len(one.in_sync) for one in placed)
    if factor == 1:
        is_alone = facts.cluster is not None and len(facts.cluster.brokers) == 1
        problem = "it has one replica: with its broker's disk, all that was written is lost"
        problem += ", as on any cluster of one broker" if is_alone else ""
        severity = Severity.NOTE if is_alone else Severity.WARNING
        yield Finding(severity, area, subject, problem, "give it a replication factor of 3")
    acks = producer_settings(dict(sink.properties))["acks"]
    is_promised = sink.delivery_guarantee is not DeliveryGuarantee.NONE
    if acks not in ("all", "-1"):
        if is_promised:
            problem = f"`acks` is {acks}: a record that was acknowledged is lost with its partition's leader"
            yield Finding(Severity.WARNING, area, subject, problem, "set `acks` to all", "acks")
        return
    setting, value = "min.insync.replicas", facts.of_topic(topic.name, "min.insync.replicas")
    if value is None:
        return
    needed, cure = int(value), "raise its replication factor, or lower its `min.insync.replicas`"
    if needed > factor:
        problem = f"`{setting}` is {needed}, and it has {_counted(factor, 'replica')}: no record can ever be written"
        yield Finding(Severity.ERROR, area, subject, problem, cure, setting)
    elif needed > in_sync:
        problem = f"`{setting}` is {needed}, and {in_sync} of {factor} replicas are in sync: nothing can be written now"
        yield Finding(Severity.ERROR, area, subject, problem, "start the brokers that are away", setting)
    elif needed == factor > 1:
        problem = f"`{setting}` is {needed}, as many as it has replicas: nothing can be written while a broker is away"
        yield Finding(Severity.WARNING, area, subject, problem, cure, setting)
    elif needed == 1 < factor and is_promised:
        problem = (
            f"`{setting}` is 1: a record that was acknowledged may be on one of {factor} replicas, and is lost with "
            "that broker"
        )
        yield Finding(Severity.WARNING, area, subject, problem, f"set the topic's `{setting}` to 2", setting)


def _written(writes: Writes, topic: str, facts: Facts) -> Iterator[Finding]:
    """What the topic would refuse of what the sink makes."""
    subject, setting = f"topic {topic!r}", "max.request.size"
    settings = producer_settings(dict(writes.sink.properties))
    taken = facts.of_topic(topic, "max.message.bytes")
    # Where the job goes on, a record is measured by what the topic takes, as far as that can be.
    largest = largest_record(settings, int(taken) if taken is not None and writes.tolerates else None)
    if taken is not None and largest > int(taken):
        problem = (
            f"`{writes.operator}` may write records of {largest} bytes (`{setting}`), and the topic takes {taken} "
            "(`max.message.bytes`): one in between would end the job"
        )
        cure = f"raise the topic's `max.message.bytes`, or lower `{setting}`, which refuses it before it is sent"
        yield Finding(Severity.WARNING, Area.SIZE, subject, problem, cure, setting)
    schema = writes.sink.record_serializer
    is_without_key = isinstance(schema, BuiltSchema) and schema.key_schema is None
    if is_without_key and "compact" in (facts.of_topic(topic, "cleanup.policy") or "").split(","):
        problem = f"it is compacted and takes no record without a key, and `{writes.operator}` writes none with one"
        cure = "call `set_key_serialization_schema`, or set `cleanup.policy` to delete"
        yield Finding(Severity.ERROR, Area.TOPIC, subject, problem, cure, "cleanup.policy")


def of_transaction(transacts: Transacts, facts: Facts, checkpointing: Checkpointing) -> Iterator[Finding]:
    """An exactly-once region: how long its transactions may last, and its marker."""
    if facts.cluster is None or transacts.place is None:
        return
    place = transacts.place
    properties = merged_properties(transacts.sinks)
    if transacts.lane == 0:
        # The other lanes' are the same.
        yield from _lasting(transacts, properties, facts, checkpointing)
        yield from _expiry(facts, checkpointing)

    topic, rights = facts.topics.get(place.topic), facts.group_rights.get(place.group)
    if may_not(topic, "READ"):
        what = "the marker of the last commit cannot be kept with it"
        yield _missing_right(f"topic {place.topic!r}", "Read", what, topic)
    elif isinstance(topic, Failure) and "headrace.marker.topic" in properties:
        setting, problem = "headrace.marker.topic", f"it is to hold the marker, and cannot be described: {topic}"
        cure = f"create it, or set `{setting}` to one that exists"
        yield Finding(Severity.ERROR, Area.TOPIC, f"topic {place.topic!r}", problem, cure, setting)
    group = f"group {place.group!r}"
    if place.group in facts.group_rights and may_not(rights, "READ"):
        yield _missing_right(group, "Read", "the marker of the last commit cannot be kept in it", rights)
    if active := _active(place.group, facts):
        problem = f"{active}; what it commits there would replace the marker of this job's last commit"
        cure = "stop it, or set `headrace.marker.group` to a group of the job's own"
        yield Finding(Severity.ERROR, Area.GROUP, group, problem, cure, "headrace.marker.group")


def _lasting(
    transacts: Transacts, properties: Mapping[str, str], facts: Facts, checkpointing: Checkpointing
) -> Iterator[Finding]:
    """How long a transaction may last, and whether it may be begun."""
    more = f" and its like in {_counted(transacts.lanes - 1, 'other lane')}" if transacts.lanes > 1 else ""
    subject, area = f"transaction {transacts.transactional_id!r}{more}", Area.TRANSACTION
    limit = facts.of_broker(MAX_SETTING)
    setting = "transaction.timeout.ms"
    try:
        timeout = choose_timeout(
            read_int(properties, setting, None),
            None if limit is None else int(limit),
            checkpointing.interval_ms,
            checkpointing.timeout_ms,
        )
        if timeout.warning is not None:
            yield Finding(Severity.WARNING, area, subject, *split_cure(timeout.warning), setting)
        setting = "delivery.timeout.ms"
        delivery_timeout(properties, producer_settings(properties), timeout.timeout_ms)
    except ConfigError as error:
        yield Finding(Severity.ERROR, area, subject, *split_cure(str(error)), setting)
    problem = (
        "not checked: Write on this transactional id, as it can only be asked for by beginning a transaction, which "
        "shuts a running copy of the job out"
    )
    yield Finding(Severity.NOTE, Area.RIGHTS, subject, problem)


def _expiry(facts: Facts, checkpointing: Checkpointing) -> Iterator[Finding]:
    """What brokers forget of a job that is away, or whose checkpoints are far apart."""
    subject, slowest_ms = f"brokers {facts.servers}", checkpointing.slowest_ms
    of_offsets, of_ids = "offsets.retention.minutes", "transactional.id.expiration.ms"
    kept_ms = {
        of_offsets: int(facts.of_broker(of_offsets) or 0) * _MINUTE_MS,
        of_ids: int(facts.of_broker(of_ids) or 0),
    }
    for setting, what in ((of_offsets, "the marker of the last commit"), (of_ids, "a transactional id")):
        kept = kept_ms[setting]
        if kept and slowest_ms is not None and kept < slowest_ms:
            problem = (
                f"they forget {what} after {_duration(kept)} (`{setting}`), and {_duration(slowest_ms)} may pass "
                "between two commits (`execution.checkpointing.interval` and `.timeout`)"
            )
            cure = f"raise the brokers' `{setting}`, or lower these"
            yield Finding(Severity.WARNING, Area.RETENTION, subject, problem, cure, setting)
        elif kept and kept < _DAY_MS and setting == of_offsets:
            problem = (
                f"they forget {what} after {_duration(kept)} (`{setting}`): a job that ends in a crash, and is away "
                "for longer, asks what to believe"
            )
            cure = f"raise the brokers' `{setting}`"
            yield Finding(Severity.NOTE, Area.RETENTION, subject, problem, cure, setting)


def of_clock(facts: Facts) -> Iterator[Finding]:
    """How far the brokers' clocks and this machine's are apart, as far as it shows without writing anything."""
    ahead = {topic: newest - facts.asked_at_ms for topic, newest in facts.newest_ms.items()}
    topic = max(ahead, key=ahead.__getitem__, default=None)
    if topic is not None and ahead[topic] > _CLOCK_TOLERANCE_MS:
        problem = (
            f"their clock is ahead of this machine's by {_duration(ahead[topic])} at least: that is when they have "
            f"written the newest record of topic {topic!r}"
        )
        cure = "set this machine's clock, or theirs (NTP)"
        yield Finding(Severity.WARNING, Area.CLOCK, f"brokers {facts.servers}", problem, cure)
        return
    shown = "only shows if it is ahead, which it is not" if ahead else "does not show"
    problem = (
        f"not checked: brokers tell their time only to one who writes; theirs {shown} (a topic with "
        "`message.timestamp.type` LogAppendTime has it)"
    )
    yield Finding(Severity.NOTE, Area.CLOCK, f"brokers {facts.servers}", problem)


def of_unread_settings(facts: Facts) -> Iterator[Finding]:
    """What could not be checked, as this principal may not read settings."""
    unread = sorted(topic for topic, found in facts.settings.items() if isinstance(found, Failure))
    if unread:
        problem = (
            "not checked: `retention.ms`, `retention.bytes`, `cleanup.policy`, `max.message.bytes` and "
            f"`min.insync.replicas`, as they cannot be read ({facts.settings[unread[0]]})"
        )
        subject = f"topic {_listed(map(repr, unread))}"
        cure = "grant DescribeConfigs on it (an ACL), if it is to be checked; the job needs none"
        yield Finding(Severity.NOTE, Area.RIGHTS, subject, problem, cure)
    if isinstance(facts.broker, Failure):
        problem = (
            f"not checked: `{MAX_SETTING}`, `offsets.retention.minutes`, `transactional.id.expiration.ms` and "
            f"`{AUTO_CREATE}`, as they cannot be read ({facts.broker})"
        )
        cure = "grant DescribeConfigs on the cluster (an ACL), if it is to be checked; the job needs none"
        yield Finding(Severity.NOTE, Area.RIGHTS, f"brokers {facts.servers}", problem, cure)


def _duration(ms: int) -> str:
    """As people say it.

    >>> [_duration(ms) for ms in (250, 1_500, 60_000, 5_400_000, 604_800_000)]
    ['250 ms', '1.5 s', '60 s', '90 min', '7 days']
    """
    for unit, size in (("days", _DAY_MS), ("h", _HOUR_MS), ("min", _MINUTE_MS), ("s", 1000)):
        if ms >= 2 * size or (unit == "s" and ms >= size):
            return f"{round(ms / size, 1):g} {unit}"
    return f"{ms} ms"


def _counted(count: int, noun: str) -> str:
    return f"{count} {noun}{'' if count == 1 else 's'}"


def _listed(items: Iterable[Any]) -> str:
    listed = list(items)
    more = f" and {len(listed) - _NAMED_AT_MOST} more" if len(listed) > _NAMED_AT_MOST else ""
    return ", ".join(listed[:_NAMED_AT_MOST]) + more
