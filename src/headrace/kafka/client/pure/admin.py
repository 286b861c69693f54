"""Asking a cluster, on `confluent_kafka.admin.AdminClient`."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from headrace.kafka.client.protocol import (
    ClientError,
    ClusterDescription,
    CommittedOffset,
    Failure,
    GroupDescription,
    GroupMember,
    KafkaTopicPartition,
    PartitionReplicas,
    Position,
    Settings,
    TokenSource,
    TopicDescription,
)
from headrace.kafka.client.pure.group import NO_COORDINATOR, committed
from headrace.kafka.client.pure.probe import speaks_tls, tls_fault
from headrace.kafka.client.pure.reports import (
    HeardReports,
    client_config,
    failing_as_client_error,
    failure_of,
    failure_of_exception,
    partition_of,
)
from headrace.kafka.client.reports import is_hopeless, shared_settings, with_cause

if TYPE_CHECKING:
    from confluent_kafka.admin import AdminClient

_LOG = logging.getLogger("headrace.kafka.client")

_TELL_AFTER_S = 2.0
_PAUSE_S = 0.05
_ASK_EVERY_S = 2.0
_NEVER_S = 3600.0
"""The longest that the client lets a request wait."""
_NO_ANSWER_YET = NO_COORDINATOR | {"_TIMED_OUT"}


def _operations(described: Any) -> frozenset[str] | None:
    names = frozenset(operation.name for operation in described.authorized_operations or ())
    # Who may not describe a thing is not told of it: without this one, the broker does not know of operations.
    return names if "DESCRIBE" in names else None


def _known(number: int) -> int | None:
    return None if number == -1 else number


def _assigned(member: Any) -> tuple[KafkaTopicPartition, ...]:
    assignment = member.assignment
    return () if assignment is None else tuple(sorted(partition_of(one) for one in assignment.topic_partitions))


def _replicas(partition: Any) -> PartitionReplicas:
    leader = partition.leader
    return PartitionReplicas(
        None if leader is None or leader.id < 0 else leader.id,
        tuple(node.id for node in partition.replicas),
        tuple(node.id for node in partition.isr),
    )


def _refusal(error: ClientError) -> Failure:
    """What a broker has refused; raises what befell the client."""
    if error.failure.name.startswith("_") and error.failure.name != "_UNKNOWN_PARTITION":
        raise error
    return error.failure


class PureAdmin:
    """`Admin` on `confluent_kafka.admin.AdminClient`."""

    def __init__(self, settings: Settings, timeout_s: float, token: TokenSource | None = None) -> None:
        self._reports = HeardReports()
        self._timeout_s = timeout_s
        self._servers = settings.get("bootstrap.servers", "the brokers")
        self._has_told = False
        self._has_answered = False
        self._is_probed = False
        self._is_closed = False
        self._may_never_end = False
        self._cluster: Any = None
        self._settings, self._token = shared_settings(settings), token
        self._connected: AdminClient | None = self._connect()

    def _connect(self) -> AdminClient:
        from confluent_kafka.admin import AdminClient

        with failing_as_client_error():
            return AdminClient(client_config(self._settings, self._reports, self._token))

    @property
    def _client(self) -> AdminClient:
        """A new one behind one that was left."""
        if self._is_closed:
            raise ValueError("the Kafka client is closed")
        if self._connected is None:
            self._connected = self._connect()
        return self._connected

    def _begin(self) -> float:
        """A request begins, at the time that this gives."""
        if self._has_answered:
            # What was reported while nobody asked is over: brokers close connections that are idle.
            self._client.poll(0)
            self._reports.cause = None
            self._reports.events.clear()
        return time.monotonic()

    def _first_done(self, futures: Sequence[Any], begun: float, until: float) -> Any | None:
        """A future that is done, or None at `until`; the client is served meanwhile, and given up at once where waiting
        cannot help."""
        while not (done := [future for future in futures if future.done()]):
            self._client.poll(0.005)
            cause = self._reports.cause
            may_probe = not self._has_answered and not self._is_probed
            if may_probe and cause is not None and cause.name == "_ALL_BROKERS_DOWN":
                # Connections are made and closed, and nothing says why.
                self._is_probed = True
                if speaks_tls(self._servers):
                    cause = replace(cause, text="connections are closed before anything is answered over TLS")
                    raise ClientError(Failure("_TRANSPORT", "the brokers cannot be reached", cause=cause))
            if cause is not None and is_hopeless(cause, has_succeeded=self._has_answered):
                cause = replace(cause, fault=tls_fault(self._settings, cause))
                raise ClientError(Failure("_TRANSPORT", "the brokers cannot be reached", cause=cause))
            now = time.monotonic()
            if now > until:
                return None
            if now - begun > _TELL_AFTER_S and not self._has_told and cause is not None:
                self._has_told = True
                _LOG.warning(
                    "no answer from %s yet, waiting for up to %g s: %s",
                    self._servers,
                    self._timeout_s,
                    cause,
                )
        return done[0]

    def _timed_out(self) -> ClientError:
        failure = Failure("_TIMED_OUT", f"no answer within {self._timeout_s:g} s", is_retriable=True)
        return ClientError(with_cause(failure, self._reports))

    def _answer(self, done: Any) -> Any:
        # Not `result`: the traceback that it attaches would keep the client until the next garbage collection.
        error = done.exception()
        if error is None:
            self._has_answered = True
            return done.result()
        failure = failure_of_exception(error)
        self._has_answered |= not failure.name.startswith("_")
        if failure.name == "_TIMED_OUT":
            raise self._timed_out()
        raise ClientError(with_cause(failure, self._reports))

    def _result(self, future: Any) -> Any:
        """The result of a request that the client ends after `timeout_s`."""
        begun = self._begin()
        done = self._first_done([future], begun, begun + self._timeout_s + 1.0)
        if done is None:
            raise self._timed_out()
        return self._answer(done)

    def _outcome(self, future: Any) -> Any:
        """Like `_result`, but a broker's refusal of this one thing is a value."""
        try:
            return self._result(future)
        except ClientError as error:
            return _refusal(error)

    def cluster_id(self) -> str:
        return str(self._described_cluster().cluster_id)

    def describe_cluster(self) -> ClusterDescription:
        with failing_as_client_error(self._reports):
            future = self._client.describe_cluster(include_authorized_operations=True, request_timeout=self._timeout_s)
        found = self._result(future)
        return ClusterDescription(
            str(found.cluster_id), tuple(sorted(node.id for node in found.nodes)), _operations(found)
        )

    def _described_cluster(self) -> Any:
        if self._cluster is None:
            with failing_as_client_error(self._reports):
                self._cluster = self._result(self._client.describe_cluster(request_timeout=self._timeout_s))
        return self._cluster

    def topic_names(self) -> list[str]:
        self._described_cluster()
        with failing_as_client_error(self._reports):
            return sorted(self._client.list_topics(timeout=self._timeout_s).topics)

    def describe_topics(self, names: Iterable[str]) -> dict[str, TopicDescription | Failure]:
        from confluent_kafka import TopicCollection

        asked = list(names)
        with failing_as_client_error(self._reports):
            futures = self._client.describe_topics(
                TopicCollection(asked), include_authorized_operations=True, request_timeout=self._timeout_s
            )
        described: dict[str, TopicDescription | Failure] = {}
        for name in asked:
            found = self._outcome(futures[name])
            if not isinstance(found, Failure):
                topic_id = None if found.topic_id is None else str(found.topic_id)
                numbers = tuple(sorted(partition.id for partition in found.partitions))
                replicas = {partition.id: _replicas(partition) for partition in found.partitions}
                found = TopicDescription(name, topic_id, numbers, _operations(found), replicas)
            described[name] = found
        return described

    def group_operations(self, group: str) -> frozenset[str] | Failure | None:
        found = self._described_group(group)
        return found if isinstance(found, Failure) else _operations(found)

    def ask_for_topic(self, name: str) -> bool:
        with failing_as_client_error(self._reports):
            found = self._client.list_topics(name, timeout=self._timeout_s).topics.get(name)
        if found is None or found.error is None:
            return found is not None
        if found.error.name() not in ("UNKNOWN_TOPIC_OR_PART", "LEADER_NOT_AVAILABLE"):
            raise ClientError(failure_of(found.error))
        return False

    def list_offsets(
        self, partitions: Iterable[KafkaTopicPartition], at: Position | int
    ) -> dict[KafkaTopicPartition, int | Failure | None]:
        from confluent_kafka import IsolationLevel
        from confluent_kafka.admin._listoffsets import OffsetSpec

        if isinstance(at, int):
            place: Any = OffsetSpec.for_timestamp(at)
        else:
            named: Any = OffsetSpec
            place = named.earliest() if at is Position.EARLIEST else named.latest()
        level = IsolationLevel.READ_COMMITTED if at is Position.STABLE else IsolationLevel.READ_UNCOMMITTED
        found = self._listed(partitions, place, level)
        return {p: one if isinstance(one, Failure) else _known(one.offset) for p, one in found.items()}

    def newest_times(
        self, partitions: Iterable[KafkaTopicPartition]
    ) -> dict[KafkaTopicPartition, int | Failure | None]:
        from confluent_kafka import IsolationLevel
        from confluent_kafka.admin._listoffsets import OffsetSpec

        named: Any = OffsetSpec
        found = self._listed(partitions, named.max_timestamp(), IsolationLevel.READ_UNCOMMITTED)
        return {p: one if isinstance(one, Failure) else _known(one.timestamp) for p, one in found.items()}

    def _listed(
        self, partitions: Iterable[KafkaTopicPartition], place: Any, level: Any
    ) -> dict[KafkaTopicPartition, Any]:
        """By partition, the client's answer or a `Failure`."""
        from confluent_kafka import TopicPartition

        asked = {TopicPartition(p.topic, p.partition): place for p in partitions}
        if not asked:
            return {}
        with failing_as_client_error(self._reports):
            futures = self._client.list_offsets(asked, isolation_level=level, request_timeout=self._timeout_s)
        return {partition_of(one): self._outcome(future) for one, future in futures.items()}

    def committed(
        self, group: str, partitions: Iterable[KafkaTopicPartition], *, stable: bool
    ) -> dict[KafkaTopicPartition, CommittedOffset | Failure | None]:
        return committed(self._settings, group, partitions, stable=stable, timeout_s=self._timeout_s, token=self._token)

    def describe_groups(self, groups: Iterable[str]) -> dict[str, GroupDescription | Failure]:
        described: dict[str, GroupDescription | Failure] = {}
        for group in groups:
            found = self._described_group(group)
            if not isinstance(found, Failure):
                members = tuple(
                    GroupMember(one.client_id, one.host.lstrip("/"), _assigned(one)) for one in found.members
                )
                found = GroupDescription(found.state.name, members)
            described[group] = found
        return described

    def _described_group(self, group: str) -> Any:
        """The client's description of a group, or a `Failure`.

        Asked again and again, as the client (librdkafka 2.16) looks for the coordinator three times within a second,
        and if nobody knows it by then, as in a young cluster, never again.

        No request times out: for one that did, the client goes on looking for the coordinator, and once that is found
        the process crashes (`eonce->refcnt > 0`, librdkafka's issue 4605). Those that are left end with their client.
        """
        begun, pending = self._begin(), []
        deadline = begun + self._timeout_s
        try:
            while True:
                with failing_as_client_error(self._reports):
                    futures = self._client.describe_consumer_groups(
                        [group], include_authorized_operations=True, request_timeout=_NEVER_S
                    )
                pending.append(futures[group])
                done = self._first_done(pending, begun, min(time.monotonic() + _ASK_EVERY_S, deadline))
                is_over = time.monotonic() >= deadline
                if done is None:
                    if is_over:
                        raise self._timed_out()
                    continue
                pending.remove(done)
                try:
                    return self._answer(done)
                except ClientError as error:
                    self._may_never_end = True
                    if error.failure.name not in _NO_ANSWER_YET or is_over:
                        return _refusal(error)
                time.sleep(_PAUSE_S)
        finally:
            if pending:
                self._leave()

    def _leave(self) -> None:
        """Let go of a client in a thread, the last to hold it: one that has looked for a coordinator in vain may wait
        forever for its end (librdkafka 2.16)."""
        held, self._connected, self._may_never_end = [self._connected], None, False
        threading.Thread(target=held.clear, name="leaving-kafka", daemon=True).start()

    def describe_configs(self, topics: Iterable[str]) -> dict[str, Mapping[str, str] | Failure]:
        from confluent_kafka.admin._config import ConfigResource

        return self._configs(ConfigResource.Type.TOPIC, topics)

    def _configs(self, kind: Any, names: Iterable[str]) -> dict[str, Mapping[str, str] | Failure]:
        from confluent_kafka.admin._config import ConfigResource

        resources = {name: ConfigResource(kind, name) for name in names}
        if not resources:
            return {}
        with failing_as_client_error(self._reports):
            futures = self._client.describe_configs(list(resources.values()), request_timeout=self._timeout_s)
        described: dict[str, Mapping[str, str] | Failure] = {}
        for name, resource in resources.items():
            found = self._outcome(futures[resource])
            if not isinstance(found, Failure):
                found = {entry.name: entry.value for entry in found.values() if entry.value is not None}
            described[name] = found
        return described

    def broker_settings(self) -> Mapping[str, str] | Failure:
        from confluent_kafka.admin._config import ConfigResource

        broker = self._described_cluster().controller
        if broker is None:
            return Failure("_UNKNOWN_BROKER", "the cluster has no controller at the moment", is_retriable=True)
        return self._configs(ConfigResource.Type.BROKER, [str(broker.id)])[str(broker.id)]

    def broker_setting(self, name: str) -> str | None:
        found = self.broker_settings()
        return None if isinstance(found, Failure) else found.get(name)

    def close(self) -> None:
        self._is_closed = True
        if self._may_never_end:
            self._leave()
        self._connected = None
