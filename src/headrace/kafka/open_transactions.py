"""Which transactions are open in a cluster, what they hold back, and how one is ended.

Theory of operation. A `read_committed` reader sees a partition up to its last stable offset, which is where the first
transaction begins in it that is open. Coordinators know which transactions are open and in which partitions; each
partition's leader knows which producers have one open there, and where it begins. What a leader knows and no
coordinator does *hangs* (KIP-664): nobody will ever end it.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final, TypeAlias

from headrace.kafka.client.protocol import (
    Admin,
    ClientError,
    Failure,
    KafkaTopicPartition,
    Position,
    Producer,
    TopicDescription,
)
from headrace.kafka.client.reports import is_hopeless
from headrace.kafka.client.transactions import OpenProducer, Transaction, TransactionAdmin
from headrace.kafka.failures import is_unknown_topic, is_unsettled

HANGING: Final = "Hanging"
UNLISTED: Final = "Unlisted"
"""States beside Kafka's own (`Ongoing`, `PrepareCommit`). Unlisted: no coordinator tells this principal of the
transactional id, which is forgotten, or may not be described."""

_CALL_S: Final = 5.0
_NO_LEADER: Final = Failure("LEADER_NOT_AVAILABLE", "it has no leader")


@dataclass(frozen=True, slots=True)
class Blocked:
    """A partition in which a transaction is open. `held_back` is how many offsets a `read_committed` reader does not
    get at because of it; 0 if another one began before. `start` None: it has not written there."""

    partition: KafkaTopicPartition
    start: int | None
    held_back: int

    def __str__(self) -> str:
        if not self.held_back:
            return str(self.partition)
        return f"{self.partition} from {self.start}: {self.held_back:,} held back"


@dataclass(frozen=True, slots=True)
class OpenTransaction:
    """One, with what it blocks. `transactional_id` and `coordinator` None: nobody who may be asked knows."""

    transactional_id: str | None
    state: str
    producer_id: int
    producer_epoch: int
    coordinator: int | None
    since_ms: int | None
    timeout_ms: int | None
    blocks: tuple[Blocked, ...]

    @property
    def identity(self) -> tuple[object, ...]:
        """Equal for as long as it is the same transaction in the same state, however much it holds back."""
        begins = tuple((blocked.partition, blocked.start) for blocked in self.blocks)
        return self.transactional_id, self.state, self.producer_id, self.producer_epoch, begins

    def is_older_than(self, age_ms: int, now_ms: int) -> bool:
        """Whether it has been open for longer."""
        return self.since_ms is not None and now_ms - self.since_ms > age_ms


@dataclass(frozen=True, slots=True)
class Found:
    """The open transactions, the oldest first, and the partitions in which more may be open, with why their leaders do
    not say."""

    transactions: tuple[OpenTransaction, ...]
    untold: Mapping[KafkaTopicPartition, Failure]


def find_open(admin: Admin, transactions: TransactionAdmin, topics: Sequence[str] | None = None) -> Found:
    """The open transactions of a cluster; with `topics` only those that are open in one of them.

    Raises `ClientError`, also for one of `topics` that cannot be described. What else this principal may not describe
    is left out.
    """
    names = admin.topic_names() if topics is None else list(topics)
    described = admin.describe_topics(names) if names else {}
    leaders: dict[KafkaTopicPartition, int | None] = {}
    for name, topic in described.items():
        if isinstance(topic, TopicDescription):
            leaders |= {KafkaTopicPartition(name, number): at.leader for number, at in topic.replicas.items()}
        elif topics is not None:
            raise ClientError(replace(topic, text=f"topic {name!r}: {topic.text}"))
    partitions = [partition for partition, leader in leaders.items() if leader is not None]
    # In this order: what is committed meanwhile does not look as if it were held back.
    ends = admin.list_offsets(partitions, Position.LATEST)
    stable = admin.list_offsets(partitions, Position.STABLE)
    behind = {p: (first, end) for p in partitions if (first := _int(stable[p])) < (end := _int(ends[p]))}
    before = transactions.open_producers(behind)
    opened = transactions.open_transactions()
    after = transactions.open_producers(sorted({*behind, *(p for one in opened for p in one.partitions if p in ends)}))
    hanging = unknown_to_coordinators(opened, before, after)
    ids = {number: name for name, number in transactions.transactional_ids().items()} if hanging else {}
    found = assemble(opened, after, hanging, behind, ids)
    if topics is not None:
        found = [one for one in found if any(b.partition.topic in topics for b in one.blocks)]
    answers: tuple[Mapping[KafkaTopicPartition, object], ...] = (ends, stable, before, after)
    untold = {partition: _NO_LEADER for partition, leader in leaders.items() if leader is None}
    for partition, said in (one for answered in answers for one in answered.items()):
        # A topic that was deleted meanwhile holds nothing back.
        if isinstance(said, Failure) and not is_unknown_topic(said):
            untold[partition] = said
    return Found(tuple(found), untold)


def _int(offset: int | Failure | None) -> int:
    return offset if isinstance(offset, int) else 0


def _of(found: tuple[OpenProducer, ...] | Failure) -> tuple[OpenProducer, ...]:
    return () if isinstance(found, Failure) else found


Producers: TypeAlias = Mapping[KafkaTopicPartition, tuple[OpenProducer, ...] | Failure]
"""What partitions' leaders know."""


def unknown_to_coordinators(
    opened: Iterable[Transaction], before: Producers, after: Producers
) -> list[tuple[KafkaTopicPartition, OpenProducer]]:
    """What leaders know of, and coordinators do not.

    Coordinators are told of a partition first, so what leaders knew both before and after they were asked for `opened`
    should be in there. What began or ended meanwhile is left out.
    """
    claimed = {(one.producer_id, partition) for one in opened for partition in one.partitions}
    stayed = {
        (partition, own.producer_id, own.producer_epoch, own.start_offset)
        for partition, said in before.items()
        for own in _of(said)
    }
    return [
        (partition, own)
        for partition, said in after.items()
        for own in _of(said)
        if (own.producer_id, partition) not in claimed
        and (partition, own.producer_id, own.producer_epoch, own.start_offset) in stayed
    ]


def assemble(
    opened: Iterable[Transaction],
    producers: Producers,
    hanging: Iterable[tuple[KafkaTopicPartition, OpenProducer]],
    behind: Mapping[KafkaTopicPartition, tuple[int, int]],
    ids: Mapping[int, str],
) -> list[OpenTransaction]:
    """What coordinators and leaders say, put together; `behind` has last stable offset and end, `ids` by producer.

    >>> at = KafkaTopicPartition("rss.counts", 0)
    >>> left = OpenProducer(7, 2, 0, start_offset=40, last_written_ms=1_000)
    >>> [one] = assemble([], {}, [(at, left)], {at: (40, 52)}, {7: "news-counts-0a1b2c3d-0"})
    >>> one.transactional_id, one.state, str(*one.blocks)
    ('news-counts-0a1b2c3d-0', 'Hanging', 'rss.counts-0 from 40: 12 held back')
    """
    found = []
    for one in opened:
        starts = {
            partition: own.start_offset
            for partition in one.partitions
            for own in _of(producers.get(partition, ()))
            if own.producer_id == one.producer_id
        }
        found.append(
            OpenTransaction(
                one.transactional_id,
                one.state,
                one.producer_id,
                one.producer_epoch,
                one.coordinator,
                one.started_at_ms,
                one.timeout_ms,
                tuple(_blocked(partition, starts.get(partition), behind) for partition in one.partitions),
            )
        )
    left: dict[tuple[int, int], list[tuple[KafkaTopicPartition, OpenProducer]]] = {}
    for partition, own in hanging:
        left.setdefault((own.producer_id, own.producer_epoch), []).append((partition, own))
    for (producer_id, epoch), places in left.items():
        written_ms = max(own.last_written_ms for _, own in places)
        found.append(
            OpenTransaction(
                ids.get(producer_id),
                HANGING if producer_id in ids else UNLISTED,
                producer_id,
                epoch,
                None,
                written_ms if written_ms >= 0 else None,
                None,
                tuple(_blocked(partition, own.start_offset, behind) for partition, own in places),
            )
        )
    return sorted(found, key=lambda one: (one.since_ms or 0, one.transactional_id or "", one.producer_id))


def _blocked(
    partition: KafkaTopicPartition, start: int | None, behind: Mapping[KafkaTopicPartition, tuple[int, int]]
) -> Blocked:
    first, end = behind.get(partition, (0, 0))
    return Blocked(partition, start, end - first if start == first else 0)


def abort(producer: Producer, timeout_s: float) -> None:
    """End what is open under the transactional id of this producer, which is new, and shut out its older producers.

    What its coordinator has begun to commit is committed. Raises `ClientError`.
    """
    deadline = time.monotonic() + timeout_s
    while True:
        try:
            producer.init_transactions(min(_CALL_S, timeout_s))
            return
        except ClientError as error:
            failure = error.failure
            if not is_unsettled(failure) or is_hopeless(failure) or time.monotonic() > deadline:
                raise


def abort_hanging(transactions: TransactionAdmin, one: OpenTransaction) -> None:
    """End a transaction that no coordinator knows, where it still is what it was. Raises `ClientError`."""
    begins = {blocked.partition: blocked.start for blocked in one.blocks}
    ours = []
    for partition, found in transactions.open_producers(begins).items():
        if isinstance(found, Failure):
            raise ClientError(found)
        for own in found:
            is_it = (own.producer_id, own.producer_epoch) == (one.producer_id, one.producer_epoch)
            if is_it and own.start_offset == begins[partition]:
                ours.append((partition, own))
    for partition, own in ours:
        transactions.abort(partition, own)
