"""What a job does on its clusters, and what these told of it: values that `survey` makes and `findings` judges."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from headrace.connector import Source, TransactionContext
from headrace.kafka.client.protocol import (
    ClusterDescription,
    Failure,
    GroupDescription,
    KafkaTopicPartition,
    TopicDescription,
)
from headrace.kafka.enumerator import Subscription
from headrace.kafka.offsets import LogOffsets
from headrace.kafka.sink import KafkaSink
from headrace.kafka.source import KafkaSource
from headrace.kafka.split import KafkaSplit
from headrace.kafka.transaction import MarkerPlace


@dataclass(frozen=True, slots=True)
class Reads:
    """A source of the plan. `subscription` None: nobody knows what it reads; `restored` are the checkpoint's splits."""

    operator: str
    source: KafkaSource
    subscription: Subscription | None
    commits: bool
    restored: tuple[KafkaSplit, ...] = ()


@dataclass(frozen=True, slots=True)
class Writes:
    """A sink of the plan; if it `tolerates`, the job goes on when it fails on a record."""

    operator: str
    sink: KafkaSink
    tolerates: bool = False


@dataclass(frozen=True, slots=True)
class Transacts:
    """A region's transaction, in one of `lanes` lanes. `transactional_id` and `place` are None until it is known which
    topic lends its name to the marker."""

    operators: tuple[str, ...]
    sinks: tuple[KafkaSink, ...]
    sources: tuple[Source, ...]
    context: TransactionContext
    lane: int = 0
    lanes: int = 1
    transactional_id: str | None = None
    place: MarkerPlace | None = None


@dataclass(frozen=True, slots=True)
class Facts:
    """What one principal was told by one cluster.

    `failure` is what asking has ended with; `complaints` (operator, text) is what else could not be found out.
    `logs` and `newest_ms` are by partition and by topic, the latter of topics whose times are the brokers';
    `asked_at_ms` is this machine's time then. `markers` are by transactional id, as they are stored.
    """

    servers: str
    failure: Failure | None = None
    complaints: tuple[tuple[str, str], ...] = ()
    cluster: ClusterDescription | None = None
    broker: Mapping[str, str] | Failure | None = None
    existing: tuple[str, ...] = ()
    topics: Mapping[str, TopicDescription | Failure] = field(default_factory=dict)
    settings: Mapping[str, Mapping[str, str] | Failure] = field(default_factory=dict)
    group_rights: Mapping[str, frozenset[str] | Failure | None] = field(default_factory=dict)
    groups: Mapping[str, GroupDescription | Failure] = field(default_factory=dict)
    logs: Mapping[KafkaTopicPartition, LogOffsets] = field(default_factory=dict)
    newest_ms: Mapping[str, int] = field(default_factory=dict)
    asked_at_ms: int = 0
    markers: Mapping[str, str | Failure | None] = field(default_factory=dict)

    def of_topic(self, topic: str, setting: str) -> str | None:
        """A topic's setting; None if it may not be read."""
        found = self.settings.get(topic)
        return None if found is None or isinstance(found, Failure) else found.get(setting)

    def of_broker(self, setting: str) -> str | None:
        """A broker's setting; None if it may not be read."""
        return None if self.broker is None or isinstance(self.broker, Failure) else self.broker.get(setting)


@dataclass(frozen=True, slots=True)
class Checkpointing:
    """`execution.checkpointing.interval` (None: off) and `.timeout`."""

    interval_ms: int | None
    timeout_ms: int

    @property
    def slowest_ms(self) -> int | None:
        """How old the last complete checkpoint of a running job may be."""
        return None if self.interval_ms is None else self.interval_ms + self.timeout_ms
