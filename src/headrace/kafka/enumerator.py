"""Which partitions there are to read, each resolved to a position that can be stored.

Theory of operation. `start` and `discover` describe the topics, compare with what is known, and resolve what is new:
partitions of the first look with the program's starting offsets, later ones at their first record, as they were empty a
moment ago (FLIP-288). A topic that is not there ends a start; `discover` passes over it, as the job is running.
Restored splits are kept, whatever the program subscribes to now, and those that it does not are warned of. If a log
does not hold a restored position any more, `offsets.reset` decides, and says so.
"""

from __future__ import annotations

import logging
import re
import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias, assert_never

from headrace.connector import Split, SplitEnumerator
from headrace.errors import ExternalError, InternalError
from headrace.kafka.client.protocol import (
    Admin,
    ClientError,
    CommittedOffset,
    Failure,
    KafkaTopicPartition,
    Position,
    TopicDescription,
)
from headrace.kafka.failures import error_of, is_unknown_topic, may_not, missing_right
from headrace.kafka.offsets import (
    Earliest,
    KafkaOffsetResetStrategy,
    KafkaOffsetsInitializer,
    LogOffsets,
    needs,
    reset,
    resolve,
)
from headrace.kafka.split import KafkaSplit

_LOG = logging.getLogger("headrace.kafka")


@dataclass(frozen=True, slots=True)
class Topics:
    """All partitions of these topics."""

    names: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class TopicPattern:
    """All partitions of the topics whose whole name matches, without Kafka's internal ones."""

    pattern: str


@dataclass(frozen=True, slots=True)
class Partitions:
    """These partitions."""

    partitions: tuple[KafkaTopicPartition, ...]


Subscription: TypeAlias = Topics | TopicPattern | Partitions


def topics_of(subscription: Subscription, existing: Iterable[str]) -> tuple[str, ...]:
    """The topics to describe; `existing` are the cluster's, needed for a pattern only."""
    match subscription:
        case Topics(names):
            return names
        case Partitions(partitions):
            return tuple(sorted({partition.topic for partition in partitions}))
        case TopicPattern(pattern):
            return tuple(name for name in existing if re.fullmatch(pattern, name) and not name.startswith("__"))
        case _:
            assert_never(subscription)


def partitions_of(subscription: Subscription, topics: Iterable[TopicDescription]) -> list[KafkaTopicPartition]:
    """The partitions to read. Raises `ExternalError` for one that is asked for and does not exist."""
    found = [KafkaTopicPartition(topic.name, number) for topic in topics for number in topic.partitions]
    if not isinstance(subscription, Partitions):
        return found
    if missing := set(subscription.partitions) - set(found):
        listed = ", ".join(map(str, sorted(missing)))
        raise ExternalError(f"there is no partition {listed}; correct `set_partitions`", retriable=False)
    return list(subscription.partitions)


def is_subscribed(subscription: Subscription, partition: KafkaTopicPartition) -> bool:
    """Whether the program asks for this partition.

    >>> is_subscribed(TopicPattern("rss.*"), KafkaTopicPartition("rss.events", 3))
    True
    """
    if isinstance(subscription, Partitions):
        return partition in subscription.partitions
    return partition.topic in topics_of(subscription, [partition.topic])


def lane_of(partition: KafkaTopicPartition, lanes: int) -> int:
    """Which of `lanes` readers gets a partition, as Flink has it: in turn, from one that the topic's name chooses.

    >>> [lane_of(KafkaTopicPartition("orders", partition), 3) for partition in range(4)]
    [0, 1, 2, 0]
    >>> lane_of(KafkaTopicPartition("topic-a", 0), 8)
    5
    """
    # Java's hash of a string: a polynomial over UTF-16 code units, in 32 bits.
    digest = 0
    for (unit,) in struct.iter_unpack("<H", partition.topic.encode("utf-16-le")):
        digest = (digest * 31 + unit) & 0xFFFFFFFF
    return ((digest * 31 & 0x7FFFFFFF) % lanes + partition.partition) % lanes


@dataclass(frozen=True, slots=True)
class EnumeratorSettings:
    """What a source tells its enumerator."""

    subscription: Subscription
    starting: KafkaOffsetsInitializer
    stopping: KafkaOffsetsInitializer | None
    reset_strategy: KafkaOffsetResetStrategy
    group_id: str | None
    servers: str
    commits: bool = False
    """Whether offsets are committed to the group."""


class KafkaSplitEnumerator(SplitEnumerator):
    """Finds a source's partitions."""

    def __init__(self, admin: Admin, settings: EnumeratorSettings, discovery_interval_ms: int | None) -> None:
        self.discovery_interval_ms = discovery_interval_ms
        self._admin = admin
        self._settings = settings
        self._known: set[KafkaTopicPartition] = set()
        self._missing: set[str] = set()

    def start(self, restored: Sequence[Split] | None) -> list[Split]:
        kept = [_kafka_split(split) for split in restored or ()]
        # First: it explains an error about a topic that the program does not name any more.
        self._warn_of_unsubscribed(kept)
        if restored is not None:
            kept = self._check(kept)
        self._check_group()
        self._known = {split.partition for split in kept}
        starting = self._settings.starting if restored is None else KafkaOffsetsInitializer.earliest()
        return [*kept, *self._find(starting, is_strict=True)]

    def _check_group(self) -> None:
        """Whether offsets may be committed to the group: who may not hears nothing for 45 s, and then of a time-out."""
        group = self._settings.group_id
        if group is None or not self._settings.commits:
            return
        try:
            found = self._admin.group_operations(group)
        except ClientError as error:
            _LOG.warning("whether offsets may be committed to group %r could not be asked: %s", group, error.failure)
            return
        if may_not(found, "READ"):
            what = f"offsets cannot be committed to group {group!r}"
            raise missing_right(what, "Read", f"group {group!r} (or `commit.offsets.on.checkpoint` set to false)")

    def discover(self) -> list[Split]:
        """New partitions, from their first record.

        *Differences from PyFlink*: topics that are not there, and brokers that do not answer, are asked for again the
        next time; Flink fails the job.
        """
        return [*self._find(KafkaOffsetsInitializer.earliest(), is_strict=False)]

    def lane_of(self, split: Split, lanes: int) -> int:
        return lane_of(_kafka_split(split).partition, lanes)

    def close(self) -> None:
        self._admin.close()

    def _find(self, starting: KafkaOffsetsInitializer, *, is_strict: bool) -> list[KafkaSplit]:
        subscription = self._settings.subscription
        try:
            existing = self._admin.topic_names() if isinstance(subscription, TopicPattern) else []
            topics = self._describe(topics_of(subscription, existing), is_strict=is_strict)
            new = [p for p in partitions_of(subscription, topics.values()) if p not in self._known]
            starts = self._resolve(starting, new)
            stopping = self._settings.stopping
            stops = {} if stopping is None else self._resolve(stopping, new, is_stop=True)
        except ClientError as error:
            raise error_of("partitions could not be looked for", error.failure, self._settings.servers) from None
        is_start = isinstance(starting.place, Earliest)
        self._known.update(new)
        return [KafkaSplit(p, starts[p], stops.get(p), topics[p.topic].topic_id, is_start) for p in new]

    def _describe(self, names: Iterable[str], *, is_strict: bool = True) -> dict[str, TopicDescription]:
        """Raises `ExternalError` for a topic that is not there, or leaves it out if it is not to be so strict."""
        described: dict[str, TopicDescription] = {}
        for name, found in self._admin.describe_topics(names).items():
            if may_not(found, "READ"):
                # Reading it would give no record and no error, for ever.
                raise missing_right(f"topic {name!r} cannot be read", "Read", f"topic {name!r}")
            if isinstance(found, TopicDescription):
                described[name] = found
                self._missing.discard(name)
            elif is_strict or not is_unknown_topic(found):
                raise error_of(f"topic {name!r} cannot be read", found, self._settings.servers)
            elif not isinstance(self._settings.subscription, TopicPattern) and name not in self._missing:
                self._missing.add(name)
                _LOG.warning("topic %r is not there any more, going on without new partitions of it: %s", name, found)
        return described

    def _resolve(
        self, initializer: KafkaOffsetsInitializer, partitions: Sequence[KafkaTopicPartition], *, is_stop: bool = False
    ) -> dict[KafkaTopicPartition, int]:
        logs = self._look_up(partitions, initializer)
        resolved = {}
        for partition, log in logs.items():
            offset = resolve(initializer, partition, log)
            moved = None if is_stop else reset(partition, offset, log, self._settings.reset_strategy)
            resolved[partition] = offset if moved is None else moved.offset
            if moved is not None:
                _LOG.warning("%s", moved.reason)
        return resolved

    def _look_up(
        self, partitions: Sequence[KafkaTopicPartition], initializer: KafkaOffsetsInitializer
    ) -> dict[KafkaTopicPartition, LogOffsets]:
        """What the cluster says of these partitions. The end is asked for first: a record that comes in between is then
        read, not skipped."""
        if not partitions:
            return {}
        admin, group = self._admin, self._settings.group_id
        asked = needs(initializer, frozenset(partitions), group is not None)
        ends = self._known_offsets(admin.list_offsets(partitions, Position.LATEST))
        starts = self._known_offsets(admin.list_offsets(partitions, Position.EARLIEST))
        times = {} if asked.timestamp_ms is None else admin.list_offsets(partitions, asked.timestamp_ms)
        at_times = self._offsets(times)
        committed = {}
        if asked.committed and group is not None:
            for partition, found in admin.committed(group, sorted(asked.committed), stable=False).items():
                if may_not(found, "DESCRIBE"):
                    raise missing_right("committed offsets cannot be read", "Describe", f"group {group!r}")
                if isinstance(found, Failure):
                    raise error_of(f"offsets of group {group!r} cannot be read", found, self._settings.servers)
                committed[partition] = found.offset if isinstance(found, CommittedOffset) else None
        return {
            p: LogOffsets(starts[p], ends[p], committed=committed.get(p), at_time=at_times.get(p)) for p in partitions
        }

    def _offsets(
        self, answer: dict[KafkaTopicPartition, int | Failure | None]
    ) -> dict[KafkaTopicPartition, int | None]:
        offsets = {}
        for partition, found in answer.items():
            if isinstance(found, Failure) and is_unknown_topic(found):
                # It was described a moment ago: it has just been created, or deleted.
                raise ExternalError(f"offsets of {partition} cannot be read at the moment: {found}")
            if isinstance(found, Failure):
                raise error_of(f"offsets of {partition} cannot be read", found, self._settings.servers)
            offsets[partition] = found
        return offsets

    def _known_offsets(self, answer: dict[KafkaTopicPartition, int | Failure | None]) -> dict[KafkaTopicPartition, int]:
        offsets = self._offsets(answer)
        if any(offset is None for offset in offsets.values()):
            raise ExternalError(f"brokers of {self._settings.servers} gave no offset for a partition; try again")
        return {partition: offset for partition, offset in offsets.items() if offset is not None}

    def _check(self, restored: list[KafkaSplit]) -> list[KafkaSplit]:
        """Restored splits, each at its position, or where the reset strategy says if its log does not hold that."""
        unread = [split for split in restored if not split.is_finished]
        try:
            topics = self._describe({split.partition.topic for split in unread})
            logs = self._look_up([split.partition for split in unread], KafkaOffsetsInitializer.earliest())
        except ClientError as error:
            raise error_of("restored partitions could not be checked", error.failure, self._settings.servers) from None
        checked = {}
        for split in unread:
            topic_id, log = topics[split.partition.topic].topic_id, logs[split.partition]
            was_recreated = None not in (topic_id, split.topic_id) and topic_id != split.topic_id
            moved = reset(
                split.partition,
                split.position,
                log,
                self._settings.reset_strategy,
                is_start=split.is_start,
                was_recreated=was_recreated,
            )
            if moved is not None:
                is_start = split.is_start and moved.offset == log.start
                checked[split] = replace(split, position=moved.offset, topic_id=topic_id, is_start=is_start)
                if moved.reason is not None:
                    _LOG.warning("records were lost to this job before it resumed: %s", moved.reason)
        return [checked.get(split, split) for split in restored]

    def _warn_of_unsubscribed(self, restored: Iterable[KafkaSplit]) -> None:
        subscription = self._settings.subscription
        unread = sorted(split.partition for split in restored if not split.is_finished)
        if others := [str(partition) for partition in unread if not is_subscribed(subscription, partition)]:
            _LOG.warning(
                "the program no longer subscribes to %s, but they come from the checkpoint and are still read, as in "
                "Flink. To stop reading them, give the source another `uid` and set "
                "`execution.state-recovery.ignore-unclaimed-state: true`, or start over with `--fresh`; either way the "
                "source begins at its starting offsets, which may repeat or lose records",
                ", ".join(others),
            )


def _kafka_split(split: Split) -> KafkaSplit:
    if not isinstance(split, KafkaSplit):
        raise InternalError(f"a Kafka source was given {split!r}")
    return split
