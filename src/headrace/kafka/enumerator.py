"""Which partitions there are to read, each resolved to a position that can be stored.

Theory of operation. `start` and `discover` describe the topics, compare with what is known, and resolve what is new:
partitions of the first look that finds any with the program's starting offsets, later ones at their first record, as
they were empty a moment ago (FLIP-288). A topic that is not there ends a start; `discover` passes over it, as the job
is running. What is read and is not there any more is warned of once, and kept: it may come back.
Restored splits are kept, whatever the program subscribes to now, and those that it does not are warned of (the
legacy source drops them). If a log does not hold a restored position any more, `offsets.reset` decides, and says so.
"""

from __future__ import annotations

import logging
import re
import struct
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass, replace
from typing import TypeAlias, assert_never

from headrace.connector import SourceChanged, Split, SplitEnumerator
from headrace.errors import ConfigError, ExternalError, HeadraceError, InternalError, UserCodeError
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
    Custom,
    Earliest,
    KafkaOffsetResetStrategy,
    KafkaOffsetsInitializer,
    LogOffsets,
    PartitionOffsetsRetriever,
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


class KafkaSubscriber(ABC):
    """Decides which partitions a source reads, in place of a list or a pattern. *Extension*: Java's interface.

    >>> class Shard(KafkaSubscriber):
    ...     def get_subscribed_topic_partitions(self, admin_client: Admin) -> Set[KafkaTopicPartition]:
    ...         names = [name for name in admin_client.topic_names() if name.startswith("rss.")]
    ...         return {KafkaTopicPartition(name, 0) for name in names}
    """

    @abstractmethod
    def get_subscribed_topic_partitions(self, admin_client: Admin) -> Set[KafkaTopicPartition]:
        """The partitions to read, as of now; asked at the start and at each discovery.

        `admin_client` asks the source's cluster: `topic_names()` lists it, `describe_topics(names)` says which
        partitions there are. What it raises is tried again, as any discovery is; what this method raises by itself ends
        the job.
        """


@dataclass(frozen=True, slots=True)
class Asked:
    """The partitions that the program's own subscriber names, at each look."""

    subscriber: KafkaSubscriber


Subscription: TypeAlias = Topics | TopicPattern | Partitions
"""What to read, at one look."""


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


def partitions_of(
    subscription: Subscription, topics: Iterable[TopicDescription], *, is_strict: bool = True
) -> list[KafkaTopicPartition]:
    """The partitions to read. Raises `ExternalError` for one that is asked for and does not exist, if `is_strict`."""
    found = [KafkaTopicPartition(topic.name, number) for topic in topics for number in topic.partitions]
    if not isinstance(subscription, Partitions):
        return found
    missing = set(subscription.partitions) - set(found)
    if missing and is_strict:
        listed = ", ".join(map(str, sorted(missing)))
        raise ExternalError(f"there is no partition {listed}; correct `set_partitions`", retriable=False)
    return [partition for partition in subscription.partitions if partition not in missing]


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

    subscription: Subscription | Asked
    starting: KafkaOffsetsInitializer
    stopping: KafkaOffsetsInitializer | None
    reset_strategy: KafkaOffsetResetStrategy
    group_id: str | None
    servers: str
    keeps_unsubscribed: bool = True
    commits: bool = False
    """Whether offsets are committed to the group."""

    keeps_stops: bool = False
    """Whether splits may have stop offsets of their own, although the program has set none."""

    is_balanced: bool = False
    """Whether new partitions go where the fewest are, instead of where Flink's formula puts them."""


class KafkaSplitEnumerator(SplitEnumerator):
    """Finds a source's partitions."""

    def __init__(self, admin: Admin, settings: EnumeratorSettings, discovery_interval_ms: int | None) -> None:
        self.discovery_interval_ms = discovery_interval_ms
        self._admin = admin
        self._settings = settings
        self._known: set[KafkaTopicPartition] = set()
        self._missing: set[str] = set()
        self._ids: dict[str, str] = {}
        self._first = settings.starting

    def start(self, restored: Sequence[Split] | None) -> list[Split]:
        kept = [_kafka_split(split) for split in restored or ()]
        subscription = self._subscription()
        if self._settings.keeps_unsubscribed:
            # First: it explains an error about a topic that the program does not name any more.
            self._warn_of_unsubscribed(subscription, kept)
        else:
            kept = self._drop_unsubscribed(subscription, kept)
        if restored is not None:
            kept = self._with_stops(self._check(kept))
            # A topic may have been found and read since: what may be its end must not be resolved a second time.
            self._first = KafkaOffsetsInitializer.earliest()
        self._check_group()
        self._known = {split.partition for split in kept}
        unread = [split for split in kept if not split.is_finished]
        self._ids = {split.partition.topic: split.topic_id for split in unread if split.topic_id}
        return [*kept, *self._find(subscription, is_strict=True)]

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
        """New partitions: from their first record, or, if none had been found before, from the starting offsets.

        *Differences from PyFlink*: topics that are not there, and brokers that do not answer, are asked for again the
        next time; Flink fails the job.
        """
        return [*self._find(self._subscription(), is_strict=False)]

    def lane_of(self, split: Split, loads: Sequence[int]) -> int:
        if self._settings.is_balanced:
            return loads.index(min(loads))
        return lane_of(_kafka_split(split).partition, len(loads))

    def close(self) -> None:
        self._admin.close()

    def _subscription(self) -> Subscription:
        """What to read now; raises `UserCodeError` for what a subscriber of the program's raises."""
        subscription = self._settings.subscription
        if not isinstance(subscription, Asked):
            return subscription
        subscriber = subscription.subscriber
        name = f"{type(subscriber).__name__}.get_subscribed_topic_partitions"
        try:
            partitions = subscriber.get_subscribed_topic_partitions(self._admin)
        except ClientError as error:
            raise error_of(f"`{name}` failed", error.failure, self._settings.servers) from None
        except HeadraceError:
            raise
        except Exception as error:
            raise UserCodeError(f"`{name}` failed with {type(error).__name__}: {error}", operator=name) from error
        if wrong := [partition for partition in partitions if not isinstance(partition, KafkaTopicPartition)]:
            raise ConfigError(f"`{name}` has to return a set of KafkaTopicPartition, and {wrong[0]!r} is in it")
        return Partitions(tuple(sorted(partitions)))

    def _with_stops(self, restored: list[KafkaSplit]) -> list[KafkaSplit]:
        """Restored splits with the stop offsets that the program has by now. Those that have one keep it: where
        `latest` was then, it stays."""
        stopping = self._settings.stopping
        if stopping is None:
            return restored if self._settings.keeps_stops else [replace(split, stop=None) for split in restored]
        endless = [split.partition for split in restored if split.stop is None]
        try:
            stops = self._resolve(stopping, endless, is_stop=True) if endless else {}
        except ClientError as error:
            raise error_of("stop offsets could not be looked up", error.failure, self._settings.servers) from None
        return [replace(split, stop=stops.get(split.partition, split.stop)) for split in restored]

    def _check_ids(self, topics: Iterable[TopicDescription]) -> None:
        """A topic that was created again while it is read: its positions mean other records."""
        for topic in topics:
            known = self._ids.setdefault(topic.name, topic.topic_id) if topic.topic_id is not None else None
            if known is not None and known != topic.topic_id:
                raise SourceChanged(
                    f"topic {topic.name!r} was created again while it was read: what has been read of the new one may "
                    "begin in its middle"
                )

    def _find(self, subscription: Subscription, *, is_strict: bool) -> list[KafkaSplit]:
        starting = KafkaOffsetsInitializer.earliest() if self._known else self._first
        try:
            existing = self._admin.topic_names() if isinstance(subscription, TopicPattern) else []
            topics = self._describe(topics_of(subscription, existing), is_strict=is_strict)
            self._warn_of_missing(subscription, topics)
            self._check_ids(topics.values())
            found = partitions_of(subscription, topics.values(), is_strict=is_strict)
            new = [p for p in found if p not in self._known]
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
            elif is_strict or not is_unknown_topic(found):
                raise error_of(f"topic {name!r} cannot be read", found, self._settings.servers)
        return described

    def _warn_of_missing(self, subscription: Subscription, topics: Mapping[str, TopicDescription]) -> None:
        """Once for each topic that is read, or named, and has gone; *differences from PyFlink*: that ends the job."""
        read = {partition.topic for partition in self._known if is_subscribed(subscription, partition)}
        missing = {*read, *topics_of(subscription, [])} - topics.keys()
        for name in sorted(missing - self._missing):
            _LOG.warning("topic %r is not there any more; nothing of it is read unless it comes back", name)
        self._missing = missing

    def _resolve(
        self, initializer: KafkaOffsetsInitializer, partitions: Sequence[KafkaTopicPartition], *, is_stop: bool = False
    ) -> dict[KafkaTopicPartition, int]:
        if isinstance(initializer.place, Custom) and partitions:
            initializer = initializer.place.ask(partitions, _Retriever(self), is_stop=is_stop)
            partitions = [p for p in partitions if p in initializer.given]
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
        committed = self.committed(asked.committed) if group is not None else {}
        return {
            p: LogOffsets(starts[p], ends[p], committed=committed.get(p), at_time=at_times.get(p)) for p in partitions
        }

    def committed(self, partitions: Set[KafkaTopicPartition]) -> dict[KafkaTopicPartition, int]:
        """What is committed to the source's group."""
        group = self._settings.group_id
        if group is None:
            raise ConfigError("committed offsets need a group: call `set_group_id`")
        committed = {}
        answer = self._admin.committed(group, sorted(partitions), stable=False) if partitions else {}
        for partition, found in answer.items():
            if may_not(found, "DESCRIBE"):
                raise missing_right("committed offsets cannot be read", "Describe", f"group {group!r}")
            if isinstance(found, Failure):
                raise error_of(f"offsets of group {group!r} cannot be read", found, self._settings.servers)
            if isinstance(found, CommittedOffset):
                committed[partition] = found.offset
        return committed

    def offsets_at(
        self, partitions: Sequence[KafkaTopicPartition], at: Position | int
    ) -> dict[KafkaTopicPartition, int]:
        """Offsets at a place in the log; of those partitions that have one."""
        found = self._offsets(self._admin.list_offsets(partitions, at))
        return {partition: offset for partition, offset in found.items() if offset is not None}

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
        """Restored splits, each at its position, or where the reset strategy says if its log does not hold that.

        One whose topic has gone stays as it is, as while the job runs, but where the read is to end some time.
        """
        unread = [split for split in restored if not split.is_finished]
        try:
            ends = self._settings.stopping is not None
            topics = self._describe({split.partition.topic for split in unread}, is_strict=ends)
            unread = [split for split in unread if split.partition.topic in topics]
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

    def _drop_unsubscribed(self, subscription: Subscription, restored: list[KafkaSplit]) -> list[KafkaSplit]:
        kept = [split for split in restored if is_subscribed(subscription, split.partition)]
        if dropped := [str(split.partition) for split in restored if split not in kept]:
            _LOG.warning(
                "the program no longer subscribes to %s: they come from the checkpoint, are dropped, and their "
                "positions are forgotten",
                ", ".join(dropped),
            )
        return kept

    def _warn_of_unsubscribed(self, subscription: Subscription, restored: Iterable[KafkaSplit]) -> None:
        unread = sorted(split.partition for split in restored if not split.is_finished)
        if others := [str(partition) for partition in unread if not is_subscribed(subscription, partition)]:
            _LOG.warning(
                "the program no longer subscribes to %s, but they come from the checkpoint and are still read, as in "
                "Flink. To stop reading them, give the source another `uid` and set "
                "`execution.state-recovery.ignore-unclaimed-state: true`, or start over with `--fresh`; either way the "
                "source begins at its starting offsets, which may repeat or lose records",
                ", ".join(others),
            )


class _Retriever(PartitionOffsetsRetriever):
    """What a program's own initializer may ask, of the enumerator's cluster."""

    def __init__(self, enumerator: KafkaSplitEnumerator) -> None:
        self._enumerator = enumerator

    def committed_offsets(self, partitions: Iterable[KafkaTopicPartition]) -> Mapping[KafkaTopicPartition, int]:
        return self._enumerator.committed(frozenset(partitions))

    def end_offsets(self, partitions: Iterable[KafkaTopicPartition]) -> Mapping[KafkaTopicPartition, int]:
        return self._enumerator.offsets_at(list(partitions), Position.LATEST)

    def beginning_offsets(self, partitions: Iterable[KafkaTopicPartition]) -> Mapping[KafkaTopicPartition, int]:
        return self._enumerator.offsets_at(list(partitions), Position.EARLIEST)

    def offsets_for_times(
        self, timestamps_to_search: Mapping[KafkaTopicPartition, int]
    ) -> Mapping[KafkaTopicPartition, int]:
        found: dict[KafkaTopicPartition, int] = {}
        for at in sorted(set(timestamps_to_search.values())):
            asked = [partition for partition, time_ms in timestamps_to_search.items() if time_ms == at]
            found |= self._enumerator.offsets_at(asked, at)
        return found


def _kafka_split(split: Split) -> KafkaSplit:
    if not isinstance(split, KafkaSplit):
        raise InternalError(f"a Kafka source was given {split!r}")
    return split
