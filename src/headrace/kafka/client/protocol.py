"""What the rest of `headrace.kafka` asks of a Kafka client: batches in, batches out, failures as values.

Theory of operation. A client is a `Consumer` (assigned partitions, never a group member), a `Producer` (optionally
transactional) or an `Admin`. Records travel in `Records`, parallel lists of one partition each; what happens to a
partition otherwise (its end, a failure) travels between them as values, in order. A call that fails raises
`ClientError` with a `Failure` inside; `headrace.kafka.failures` turns it into one of Headrace's errors.

Invariants. No call waits longer than it was told to. Settings are librdkafka's names with string values
(`headrace.kafka.properties` translates). Each client is used from one thread.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum, IntEnum
from typing import Any, NamedTuple, Protocol, TypeAlias

Settings: TypeAlias = Mapping[str, str]
"""A client's settings, under librdkafka's names."""

TokenSource: TypeAlias = Callable[[str], "tuple[str, float, str]"]
"""For `sasl.mechanisms` OAUTHBEARER: takes `sasl.oauthbearer.config` when a token is wanted, and gives one, when it
expires (seconds since the epoch), and whose it is. It is called from within the client's calls."""


@dataclass(frozen=True, slots=True, order=True)
class KafkaTopicPartition:
    """A partition of a topic.

    >>> KafkaTopicPartition("rss.events", 0)
    KafkaTopicPartition(topic='rss.events', partition=0)

    *Differences from PyFlink*: `topic` and `partition` can be read, and it prints itself.
    """

    topic: str
    partition: int

    def __str__(self) -> str:
        return f"{self.topic}-{self.partition}"


class TlsFault(Enum):
    """What is wrong with TLS, as a second look at the port has found: the client has one text for most of these."""

    AUTHORITY = "no authority that is trusted here has signed the brokers' certificate"
    EXPIRED = "the brokers' certificate has expired, or is not valid yet"
    NAME = "the brokers' certificate is for another host"
    NO_CERTIFICATE = "the brokers want a client certificate, and there is none"
    CERTIFICATE = "the brokers do not take the client certificate"


@dataclass(frozen=True, slots=True)
class Failure:
    """What went wrong, as the client says it.

    `name` is librdkafka's (`_TIMED_OUT`, `TOPIC_AUTHORIZATION_FAILED`). `cause` is what the client reported besides, as
    a call that cannot connect says only that it timed out. `topic` and `size_bytes` are the record's,
    if it is about one.
    """

    name: str
    text: str
    is_retriable: bool = False
    is_fatal: bool = False
    requires_abort: bool = False
    topic: str | None = None
    size_bytes: int | None = None
    cause: Failure | None = None
    fault: TlsFault | None = None

    def __str__(self) -> str:
        return f"{self.text} ({self.name})" + (f": {self.cause}" if self.cause else "")


class ClientError(Exception):
    """A call of a client failed."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(str(failure))
        self.failure = failure


OnStatistics: TypeAlias = Callable[[str], None]
"""Takes what a client says of itself, a JSON text each `statistics.interval.ms`; called from within its calls."""

Headers: TypeAlias = "Sequence[tuple[str, bytes | None]]"
"""A record's headers, in their order; a name may be there more than once."""


class TimestampType(IntEnum):
    """What a record's timestamp means, by the topic's `message.timestamp.type`. Kafka's names."""

    NO_TIMESTAMP_TYPE = 0
    CREATE_TIME = 1
    LOG_APPEND_TIME = 2


class KafkaConsumerRecord(NamedTuple):
    """A record as it was read; Kafka's `ConsumerRecord`.

    `timestamp` in ms since the epoch, -1 if there is none; `key` and `value` are None where the record has none: a
    record with a key and without a value is a tombstone.
    """

    topic: str
    partition: int
    offset: int
    timestamp: int
    timestamp_type: TimestampType
    key: bytes | None
    value: bytes | None
    headers: Headers


ProducerRecord: TypeAlias = "tuple[str, bytes | None, bytes | None, int | None, int | None, Headers]"
"""What a `KafkaProducerRecord` is, too: topic, value, key, partition, timestamp and headers."""


class RecordSource(Protocol):
    """The records behind a batch, in the client's own form, for what is rarely asked."""

    def offset(self, index: int) -> int: ...

    def key(self, index: int) -> bytes | None: ...

    def value(self, index: int) -> bytes | None: ...

    def headers(self, index: int) -> Headers: ...

    def timestamp(self, index: int) -> int: ...


UNREADABLE_HEADERS = "headrace.unreadable.headers"
"""What a record has in place of its headers where the client cannot give them: one of the names is no UTF-8."""


@dataclass(slots=True)
class Records:
    """Consecutive records of one partition. `timestamps` in ms, -1 where a record has none; slices are of its kind.

    `next_offset` is behind the last of them. `values` are bytes, or str if the consumer was asked for text, and None
    where a record has no value; or `KafkaConsumerRecord` if it was asked for whole records. They may be made one by one
    as they are asked for, and are gone once the consumer is closed; so much and no more is promised of them as a
    sequence: their length, an element, a slice, iteration.
    """

    partition: KafkaTopicPartition
    values: Sequence[Any]
    timestamps: Sequence[int]
    next_offset: int
    source: RecordSource


@dataclass(frozen=True, slots=True)
class EndOfPartition:
    """Every record below `offset` has been handed out, and the log held no more when it was read.

    Behind the records of a transaction comes a control record that is never handed out: `offset` is behind that.
    """

    partition: KafkaTopicPartition
    offset: int


@dataclass(frozen=True, slots=True)
class PartitionFailed:
    """Reading a partition failed; the client does not go on with it by itself if `failure` is not retriable."""

    partition: KafkaTopicPartition
    failure: Failure


@dataclass(frozen=True, slots=True)
class ClientFailed:
    """The client as a whole reports a failure: a connection, credentials, its group."""

    failure: Failure


@dataclass(frozen=True, slots=True)
class OffsetsCommitted:
    """What became of a `commit`; `failure` is None if it succeeded."""

    offsets: Mapping[KafkaTopicPartition, int]
    failure: Failure | None


Event: TypeAlias = Records | EndOfPartition | PartitionFailed | ClientFailed | OffsetsCommitted


class Consumer(Protocol):
    """Reads assigned partitions."""

    def assign(self, positions: Mapping[KafkaTopicPartition, int]) -> None:
        """Read these partitions too, each from its offset."""
        ...

    def unassign(self, partitions: Iterable[KafkaTopicPartition]) -> None:
        """Read these no more."""
        ...

    def pause(self, partitions: Iterable[KafkaTopicPartition]) -> None:
        """Give nothing more from these, which stay assigned, until `resume`; it is fetched again then."""
        ...

    def resume(self, partitions: Iterable[KafkaTopicPartition]) -> None:
        """Fetch from these again."""
        ...

    def seek(self, positions: Mapping[KafkaTopicPartition, int], timeout_s: float) -> None:
        """Go on with these assigned partitions at other offsets; what was fetched already does not come any more."""
        ...

    def consume(self, max_records: int, timeout_s: float) -> list[Event]:
        """At most `max_records` records and what happened between them; waits at most `timeout_s` for the first."""
        ...

    def end_seen(self, partition: KafkaTopicPartition) -> int | None:
        """The end of the partition's log as of the last answer from its broker; asks nobody. None: not known yet."""
        ...

    def commit(self, offsets: Mapping[KafkaTopicPartition, int]) -> None:
        """Commit to the group, in the background; `consume` reports `OffsetsCommitted`."""
        ...

    def close(self) -> None: ...


class Producer(Protocol):
    """Writes records, at will in transactions. Any call raises `ClientError` if the client as a whole has failed."""

    def produce(
        self,
        topic: str,
        values: Sequence[bytes | None],
        keys: Sequence[bytes | None] | None = None,
        timestamps: Sequence[int] | None = None,
        partitions: Sequence[int] | None = None,
    ) -> None:
        """Hand over records; waits while the queue is full.

        A timestamp below 0 means now, a partition below 0 that the partitioner chooses. Raises `TypeError`, and has
        handed over nothing, when a key or a value is neither bytes nor None.
        """
        ...

    def produce_records(self, records: Sequence[ProducerRecord]) -> None:
        """Hand over whole records, as `produce` does, in this order; without a timestamp (None) they are of now."""
        ...

    def partitions(self, topic: str, timeout_s: float) -> tuple[int, ...]:
        """The numbers of a topic's partitions; asks the brokers. Records can be written to all of them from then on.

        Raises `ClientError` for a topic that does not exist.
        """
        ...

    def poll(self) -> None:
        """Serve delivery reports; never waits."""
        ...

    def flush(self, timeout_s: float) -> int:
        """Wait until everything is acknowledged or has failed; how many records are neither after `timeout_s`."""
        ...

    def take_failures(self) -> list[Failure]:
        """Deliveries that failed since the last call."""
        ...

    def init_transactions(self, timeout_s: float) -> None: ...

    def begin_transaction(self) -> None: ...

    def send_offsets(self, group: str, partition: KafkaTopicPartition, offset: int, metadata: str) -> None:
        """Add an offset with its metadata to the transaction. Bounded, like all transactional calls: ask again."""
        ...

    def commit_transaction(self, timeout_s: float) -> None: ...

    def abort_transaction(self, timeout_s: float) -> None: ...

    def close(self) -> None:
        """Drop what was not flushed. May be called twice."""
        ...


@dataclass(frozen=True, slots=True)
class PartitionReplicas:
    """On which brokers a partition is, by their ids. `leader` None: none of them leads, and nobody reads or writes."""

    leader: int | None
    replicas: tuple[int, ...]
    in_sync: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class TopicDescription:
    """A topic that exists. `topic_id` is another one once the topic is created again; None: the broker has no ids."""

    name: str
    topic_id: str | None
    partitions: tuple[int, ...]
    operations: frozenset[str] | None = None
    """What this principal may do with it (`READ`, `WRITE`); None: the broker does not say."""
    replicas: Mapping[int, PartitionReplicas] = field(default_factory=dict)
    """By partition."""


@dataclass(frozen=True, slots=True)
class GroupMember:
    """One consumer of a group, and what is assigned to it."""

    client_id: str
    host: str
    partitions: tuple[KafkaTopicPartition, ...]


@dataclass(frozen=True, slots=True)
class GroupDescription:
    """A group's state (`STABLE`, `EMPTY`, `DEAD` for one that does not exist) and its members."""

    state: str
    members: tuple[GroupMember, ...]


@dataclass(frozen=True, slots=True)
class CommittedOffset:
    """An offset committed to a group, with its metadata."""

    offset: int
    metadata: str


class Position(Enum):
    """Places in a log that have names. STABLE: where the first transaction begins that is still open, else its end."""

    EARLIEST = "earliest"
    LATEST = "latest"
    STABLE = "stable"


@dataclass(frozen=True, slots=True)
class ClusterDescription:
    """A cluster with the ids of its brokers that are there. `operations`: as in `TopicDescription`."""

    cluster_id: str
    brokers: tuple[int, ...]
    operations: frozenset[str] | None = None


class Admin(Protocol):
    """Asks a cluster. Every call waits at most for the timeout it was created with."""

    def cluster_id(self) -> str: ...

    def describe_cluster(self) -> ClusterDescription: ...

    def topic_names(self) -> list[str]: ...

    def describe_topics(self, names: Iterable[str]) -> dict[str, TopicDescription | Failure]: ...

    def group_operations(self, group: str) -> frozenset[str] | Failure | None:
        """What this principal may do with a group, which need not exist; None: the broker does not say."""
        ...

    def ask_for_topic(self, name: str) -> bool:
        """Whether a topic exists; as a producer asks, so that brokers with `auto.create.topics.enable` create it."""
        ...

    def list_offsets(
        self, partitions: Iterable[KafkaTopicPartition], at: Position | int
    ) -> dict[KafkaTopicPartition, int | Failure | None]:
        """Offsets at a place, or of the first record at or after a time in ms (None: there is none)."""
        ...

    def newest_times(
        self, partitions: Iterable[KafkaTopicPartition]
    ) -> dict[KafkaTopicPartition, int | Failure | None]:
        """The highest timestamp of a record in each log, in ms (None: there is none)."""
        ...

    def committed(
        self, group: str, partitions: Iterable[KafkaTopicPartition], *, stable: bool
    ) -> dict[KafkaTopicPartition, CommittedOffset | Failure | None]:
        """Offsets committed to a group; with `stable`, waits for those in open transactions."""
        ...

    def describe_groups(self, groups: Iterable[str]) -> dict[str, GroupDescription | Failure]: ...

    def describe_configs(self, topics: Iterable[str]) -> dict[str, Mapping[str, str] | Failure]:
        """Each topic's settings, defaults included; a secret one is left out."""
        ...

    def broker_settings(self) -> Mapping[str, str] | Failure:
        """All settings of one broker, defaults included; a secret one is left out."""
        ...

    def broker_setting(self, name: str) -> str | None:
        """A broker's setting; None if it may not be read."""
        ...

    def close(self) -> None: ...


class Client(Protocol):
    """One implementation: what it makes."""

    def consumer(
        self,
        settings: Settings,
        *,
        with_text: bool = False,
        whole_records: bool = False,
        token: TokenSource | None = None,
        on_statistics: OnStatistics | None = None,
    ) -> Consumer:
        """`with_text`: values as str, decoded as UTF-8, malformed bytes as U+FFFD. `whole_records`: with
        key, headers and place, which are not made otherwise."""
        ...

    def producer(
        self, settings: Settings, *, token: TokenSource | None = None, on_statistics: OnStatistics | None = None
    ) -> Producer: ...

    def admin(self, settings: Settings, timeout_s: float, *, token: TokenSource | None = None) -> Admin: ...

    def murmur2_partitions(self, keys: Sequence[bytes], partition_count: int) -> list[int]:
        """The partition that Java's producer chooses for each key: for partitioners that do not always choose."""
        ...
