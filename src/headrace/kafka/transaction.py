"""A region's Kafka transaction, with its marker: see `headrace.connector.transaction` for the protocol.

Theory of operation. The marker is the metadata string of an offset, committed inside the transaction for a group that
is used for nothing else (its name is the transactional id), on partition 0 of a topic that the job can read anyway. So
records and marker become visible together, or not at all. The offset itself is always 0 and means nothing. After
`init_transactions` nothing of an older producer is left to be decided; the marker is read with `require_stable`, which
waits for offsets of transactions that are being committed (KIP-447).

Invariants. The producer of one `fence` is never used again after a failure: a new `fence` makes a new one. A call of
unknown outcome is called again until it settles. Rights beside those of a plain writer: Write on the transactional id,
Read on the marker's topic and group.
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from headrace.connector import Source, Transaction, TransactionContext
from headrace.crash_points import crash_point
from headrace.errors import ConfigError, ExternalError, HeadraceError, InternalError, StateError
from headrace.kafka.client import default_client
from headrace.kafka.client.protocol import ClientError, CommittedOffset, Failure, KafkaTopicPartition, Producer
from headrace.kafka.client.reports import is_hopeless
from headrace.kafka.failures import (
    error_of,
    is_fenced,
    is_unsettled,
    may_not,
    missing_right,
    transaction_error_of,
    undelivered,
)
from headrace.kafka.metrics import Statistics, with_statistics
from headrace.kafka.properties import is_secret, producer_settings, resolve_secrets, token_source
from headrace.kafka.property_table import read_int
from headrace.kafka.record_size import topic_limits, with_batch_size
from headrace.kafka.source import KafkaSource
from headrace.kafka.topics import require_topics
from headrace.metrics.registry import Row

if TYPE_CHECKING:
    from headrace.kafka.sink import KafkaSink

_LOG = logging.getLogger("headrace.kafka")

FLINK_TIMEOUT_MS: Final = 3_600_000
_BROKER_DEFAULT_MAX_MS: Final = 900_000
MAX_SETTING: Final = "transaction.max.timeout.ms"
_CALL_S = 5.0
_WARN_EVERY_S = 15.0
_CLOSE_S = 1.0


@dataclass(frozen=True, slots=True)
class TransactionTimeout:
    """What `transaction.timeout.ms` is to be; `is_given` if the program said so, `warning` for what may go wrong."""

    timeout_ms: int
    is_given: bool
    warning: str | None = None


def choose_timeout(
    given_ms: int | None, broker_max_ms: int | None, interval_ms: int | None, checkpoint_timeout_ms: int
) -> TransactionTimeout:
    """`transaction.timeout.ms`: the program's, else Flink's hour or what the broker allows. Raises `ConfigError`.

    >>> choose_timeout(None, 900_000, 1_000, 600_000)
    TransactionTimeout(timeout_ms=900000, is_given=False, warning=None)
    """
    if given_ms is not None and broker_max_ms is not None and given_ms > broker_max_ms:
        raise ConfigError(
            f"`transaction.timeout.ms` is {given_ms}, and the brokers allow at most {broker_max_ms} "
            f"(`{MAX_SETTING}`); lower it, or raise the brokers' limit"
        )
    timeout_ms = given_ms if given_ms is not None else min(FLINK_TIMEOUT_MS, broker_max_ms or FLINK_TIMEOUT_MS)
    if interval_ms is None:
        return TransactionTimeout(timeout_ms, given_ms is not None)
    cure = f"raise it (the brokers' limit is `{MAX_SETTING}`), or lower"
    if timeout_ms < interval_ms:
        raise ConfigError(
            f"`transaction.timeout.ms` is {timeout_ms}, below `execution.checkpointing.interval`, {interval_ms} ms: no "
            f"transaction would live until its checkpoint; {cure} the interval"
        )
    warning = None
    if timeout_ms < interval_ms + checkpoint_timeout_ms:
        warning = (
            f"`transaction.timeout.ms` is {timeout_ms}, and a transaction may last {interval_ms} ms "
            f"(`execution.checkpointing.interval`) and {checkpoint_timeout_ms} ms "
            "(`execution.checkpointing.timeout`): if it does, its records are produced again after a restart; "
            f"{cure} one of these"
        )
    return TransactionTimeout(timeout_ms, given_ms is not None, warning)


def choose_delivery_timeout(given_ms: int | None, default_ms: int, transaction_timeout_ms: int) -> int:
    """`delivery.timeout.ms`, which must not exceed the transaction's. Raises `ConfigError` if the program says so."""
    if given_ms is None:
        return min(default_ms, transaction_timeout_ms)
    if given_ms > transaction_timeout_ms:
        raise ConfigError(
            f"`delivery.timeout.ms` is {given_ms}, above `transaction.timeout.ms` {transaction_timeout_ms}; lower it"
        )
    return given_ms


def merge_properties(sinks: Sequence[tuple[str, Mapping[str, str]]]) -> dict[str, str]:
    """The properties of sinks (name, properties) that share a producer. Raises `ConfigError` for a contradiction.

    >>> merge_properties([("a", {"linger.ms": "5"}), ("b", {"linger.ms": "9"})])  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    headrace.errors.ConfigError: sinks 'a' and 'b' share a transaction, and `linger.ms` is '5' for one and '9' for ...
    """
    merged: dict[str, str] = {}
    set_by: dict[str, str] = {}
    for sink, properties in sinks:
        for name, value in properties.items():
            if name == "bootstrap.servers":
                merged.setdefault(name, value)
            elif merged.setdefault(name, value) != value:
                values = "not the same" if is_secret(name) else f"{merged[name]!r} for one and {value!r} for the other"
                raise ConfigError(
                    f"sinks {set_by[name]!r} and {sink!r} share a transaction, and `{name}` is {values}; "
                    "make it the same"
                )
            set_by.setdefault(name, sink)
    return merged


def shared_prefix(sinks: Sequence[tuple[str, str]]) -> str:
    """The transactional id prefix of sinks (name, prefix) that share a producer: the first in the alphabet.

    They need not have the same one: on Flink, each sink has transactions, and therefore a prefix, of its own.

    >>> shared_prefix([("rss.counts", "job-b"), ("rss.late", "job-a")])
    'job-a'
    """
    chosen = min(prefix for _, prefix in sinks)
    for sink, prefix in sinks:
        if prefix != chosen:
            owner = next(name for name, other in sinks if other == chosen)
            _LOG.info(
                "sinks %r and %r share a transaction; its id begins with %r, and prefix %r is not used",
                owner,
                sink,
                chosen,
                prefix,
            )
    return chosen


def transactional_id_of(sinks: Sequence[KafkaSink], job: str, region: str) -> str:
    """The transactional id under which all of a region's `sinks` write."""
    prefix = shared_prefix([(_named(sink), sink.transactional_id_prefix or "") for sink in sinks])
    return f"{prefix}-{job}-{region}"


@dataclass(frozen=True, slots=True)
class MarkerPlace:
    """Where a region's marker is kept."""

    group: str
    topic: str

    @property
    def partition(self) -> KafkaTopicPartition:
        return KafkaTopicPartition(self.topic, 0)

    def __str__(self) -> str:
        return f"group {self.group!r}, topic {self.topic!r}"


def names_of(
    sinks: Sequence[KafkaSink],
    sources: Sequence[Source],
    context: TransactionContext,
    is_beside: Callable[[KafkaSource], bool],
) -> tuple[str, MarkerPlace]:
    """The transactional id of a region's `sinks`, and where its marker is kept. Raises `ConfigError`.

    `is_beside` says whether a source, which has other bootstrap servers than the sinks, is on their cluster all the
    same.
    """
    properties = merged_properties(sinks)
    transactional_id = transactional_id_of(sinks, context.job_name, context.region)
    topic = properties.get("headrace.marker.topic") or _marker_topic(sinks, sources, is_beside)
    given = properties.get("headrace.marker.group")
    # Regions of one job may name the same group, and must not have the same place.
    return transactional_id, MarkerPlace(transactional_id if given is None else f"{given}-{context.region}", topic)


def merged_properties(sinks: Sequence[KafkaSink]) -> dict[str, str]:
    """The properties of sinks that share a producer. Raises `ConfigError` for a contradiction."""
    return merge_properties([(_named(sink), dict(sink.properties)) for sink in sinks])


def delivery_timeout(properties: Mapping[str, str], settings: Mapping[str, str], transaction_timeout_ms: int) -> int:
    """`delivery.timeout.ms` for these properties, which have become these settings. Raises `ConfigError`."""
    given = read_int(properties, "delivery.timeout.ms", read_int(properties, "message.timeout.ms", None))
    return choose_delivery_timeout(given, int(settings["delivery.timeout.ms"]), transaction_timeout_ms)


def create_transaction(
    sinks: Sequence[KafkaSink], sources: Sequence[Source], context: TransactionContext
) -> KafkaTransaction:
    """The transaction of all of a region's `sinks`; asks the cluster what it has to know."""
    first = sinks[0]
    properties = merged_properties(sinks)
    admin = first.create_admin()
    try:
        cluster_id = admin.cluster_id()
        _check_one_cluster(sinks, cluster_id)
        limit = admin.broker_setting(MAX_SETTING)
        timeout = choose_timeout(
            read_int(properties, "transaction.timeout.ms", None),
            None if limit is None else int(limit),
            context.checkpoint_interval_ms,
            context.checkpoint_timeout_ms,
        )
        if timeout.warning is not None:
            _LOG.warning("%s", timeout.warning)
        written = {sink.topic for sink in sinks if sink.topic is not None}
        require_topics(
            admin,
            written,
            first.bootstrap_servers,
            may_create=all(sink.may_create_topics for sink in sinks),
            timeout_s=first.timeout_s,
        )
        limits = topic_limits(admin, written)
        transactional_id, place = names_of(sinks, sources, context, lambda source: _is_on(source, cluster_id))
        topic = place.topic
        is_named = "headrace.marker.topic" in properties
        its_role = "which is to hold the marker (`headrace.marker.topic`)" if is_named else "which the job reads"
        described = admin.describe_topics([topic])[topic]
        if may_not(described, "READ"):
            raise missing_right(f"the marker cannot be kept with topic {topic!r}", "Read", f"topic {topic!r}")
        if isinstance(described, Failure):
            raise error_of(f"topic {topic!r}, {its_role}", described, first.bootstrap_servers)
    except ClientError as error:
        what = "the transaction could not be set up"
        raise error_of(what, error.failure, first.bootstrap_servers) from None
    finally:
        admin.close()
    settings = with_batch_size(producer_settings(resolve_secrets(properties)), limits.values())
    settings["delivery.timeout.ms"] = str(delivery_timeout(properties, settings, timeout.timeout_ms))
    return KafkaTransaction(transactional_id, place, cluster_id, settings, timeout, first, context, limits)


def _check_one_cluster(sinks: Sequence[KafkaSink], cluster_id: str) -> None:
    first = sinks[0]
    for sink in sinks[1:]:
        if sink.bootstrap_servers == first.bootstrap_servers:
            continue
        admin = sink.create_admin()
        try:
            other = admin.cluster_id()
        except ClientError as error:
            what = f"the brokers of the sink to {_named(sink)!r}"
            raise error_of(what, error.failure, sink.bootstrap_servers) from None
        finally:
            admin.close()
        if other != cluster_id:
            raise ConfigError(
                f"the EXACTLY_ONCE sinks to {_named(first)!r} ({first.bootstrap_servers}) and "
                f"{_named(sink)!r} ({sink.bootstrap_servers}) write to two clusters, which no "
                "transaction spans; give one of them DeliveryGuarantee.AT_LEAST_ONCE, or make two jobs of it"
            )


def _named(sink: KafkaSink) -> str:
    return sink.topic or "a topic for each record"


def _is_on(source: KafkaSource, cluster_id: str) -> bool:
    admin = source.create_admin("marker-admin-client")
    try:
        return admin.cluster_id() == cluster_id
    except ClientError as error:
        what = f"the brokers of topic {source.fixed_topic!r}, which the job reads"
        raise error_of(what, error.failure, source.bootstrap_servers) from None
    finally:
        admin.close()


def _marker_topic(
    sinks: Sequence[KafkaSink], sources: Sequence[Source], is_beside: Callable[[KafkaSource], bool]
) -> str:
    """A topic that the job reads anyway, if it is on the sinks' cluster; else one that they write."""
    servers = sinks[0].bootstrap_servers
    for source in sources:
        if not isinstance(source, KafkaSource) or source.fixed_topic is None:
            continue
        if source.bootstrap_servers == servers or is_beside(source):
            return source.fixed_topic
    for topic in (sink.topic for sink in sinks):
        if topic is not None:
            return topic
    raise ConfigError(
        "an EXACTLY_ONCE sink whose records choose their topics needs to know one that exists, for the proof of its "
        "last commit: set its property `headrace.marker.topic`"
    )


class KafkaTransaction(Transaction):
    """One region's transactions, one after the other."""

    def __init__(
        self,
        transactional_id: str,
        place: MarkerPlace,
        cluster_id: str,
        settings: Mapping[str, str],
        timeout: TransactionTimeout,
        sink: KafkaSink,
        context: TransactionContext,
        topic_limits: Mapping[str, int],
    ) -> None:
        self.topic_limits = topic_limits
        """How many bytes each topic takes in one batch, where that is known."""
        self._id = transactional_id
        self._place = place
        self._cluster_id = cluster_id
        self._settings = settings
        self._token = token_source(dict(sink.properties))
        self._timeout = timeout
        self._context = context
        self._servers = sink.bootstrap_servers
        self._timeout_s = sink.timeout_s
        self._create_admin = sink.create_admin
        self._producer: Producer | None = None
        self._is_open = False
        self._lost: HeadraceError | None = None
        self.statistics = Statistics()
        self.failed = Counter[str | None]()
        """Records that were not delivered, by topic."""
        self._begun_commits = 0
        self._done_commits = 0
        self._failed_commits = 0
        self._retried_commits = 0
        self._is_pending = False

    @property
    def location(self) -> Mapping[str, str | int]:
        return {
            "transactional_id": self._id,
            "cluster_id": self._cluster_id,
            "bootstrap_servers": self._servers,
            "group": self._place.group,
            "topic": self._place.topic,
            "partition": 0,
        }

    def fence(self, recorded: Mapping[str, str | int] | None = None) -> None:
        if recorded is not None and recorded["transactional_id"] != self._id:
            self._check_cluster(recorded)
            self._start_producer(str(recorded["transactional_id"])).close()
            return
        self.close()
        self._producer = self._start_producer(self._id)

    def _check_cluster(self, recorded: Mapping[str, str | int]) -> None:
        if recorded["cluster_id"] != self._cluster_id:
            raise StateError(
                f"the checkpoint's transactions ({recorded['transactional_id']}) are on cluster "
                f"{recorded['cluster_id']} ({recorded['bootstrap_servers']}), the sink now writes to cluster "
                f"{self._cluster_id} ({self._servers}), so their outcome cannot be read. If that "
                "cluster is gone, start over with `--fresh`; if not, point the sink at it, and move with a savepoint"
            )

    def _start_producer(self, transactional_id: str) -> Producer:
        """A producer that has shut out all others of this id."""
        settings = {"client.id": transactional_id, **self._settings, "transactional.id": transactional_id}
        settings["transaction.timeout.ms"] = str(self._timeout.timeout_ms)
        try:
            producer = default_client().producer(
                with_statistics(settings, is_reported=self._context.is_reported),
                token=self._token,
                on_statistics=self.statistics.hear if self._context.is_reported else None,
            )
        except ClientError as error:
            raise error_of("the transactional producer could not be set up", error.failure, self._servers) from None
        deadline = time.monotonic() + self._timeout_s
        while True:
            try:
                producer.init_transactions(min(_CALL_S, self._timeout_s))
            except ClientError as error:
                failure = error.failure
                if is_unsettled(failure) and not is_hopeless(failure) and time.monotonic() < deadline:
                    continue
                producer.close()
                if may_not(failure, "WRITE"):
                    what = "no transaction can be begun"
                    raise missing_right(what, "Write", f"transactional id {transactional_id!r}") from None
                if failure.name != "INVALID_TRANSACTION_TIMEOUT":
                    what = f"older producers of {transactional_id!r} could not be shut out"
                    raise error_of(what, failure, self._servers) from None
                self._lower_timeout()
                return self._start_producer(transactional_id)
            return producer

    def _lower_timeout(self) -> None:
        """The broker refused `transaction.timeout.ms`."""
        refused = self._timeout
        if refused.is_given or refused.timeout_ms <= _BROKER_DEFAULT_MAX_MS:
            raise ConfigError(
                f"the brokers refuse `transaction.timeout.ms` {refused.timeout_ms}: their limit, `{MAX_SETTING}`, is "
                f"lower (by default {_BROKER_DEFAULT_MAX_MS}); lower the one or raise the other"
            )
        _LOG.warning(
            "the brokers refuse Flink's default of %d for `transaction.timeout.ms`; trying their own default limit, %d",
            refused.timeout_ms,
            _BROKER_DEFAULT_MAX_MS,
        )
        context = self._context
        self._timeout = choose_timeout(
            None, _BROKER_DEFAULT_MAX_MS, context.checkpoint_interval_ms, context.checkpoint_timeout_ms
        )
        if self._timeout.warning is not None:
            _LOG.warning("%s", self._timeout.warning)
        choose_delivery_timeout(int(self._settings["delivery.timeout.ms"]), 0, self._timeout.timeout_ms)

    def read_marker(self, recorded: Mapping[str, str | int] | None = None) -> str | None:
        place = self._place
        if recorded is not None:
            self._check_cluster(recorded)
            place = MarkerPlace(str(recorded["group"]), str(recorded["topic"]))
        admin = self._create_admin()
        try:
            found = admin.committed(place.group, [place.partition], stable=True)[place.partition]
        except ClientError as error:
            found = error.failure
        finally:
            admin.close()
        if isinstance(found, Failure):
            raise error_of(f"the marker could not be read ({place})", found, self._servers)
        return found.metadata if isinstance(found, CommittedOffset) else None

    @contextlib.contextmanager
    def producing(self, what: str) -> Iterator[Producer]:
        """The producer, with a transaction open; `what` begins the error if that fails."""
        producer = self.producer
        try:
            if not self._is_open:
                producer.begin_transaction()
                self._is_open = True
            yield producer
        except ClientError as error:
            raise transaction_error_of(what, error.failure, self._servers) from None
        self._raise_failures(producer)

    @property
    def producer(self) -> Producer:
        """The one that has shut out all others."""
        if self._producer is None:
            raise InternalError(f"transaction {self._id} is used before it was fenced, or after it was closed")
        return self._producer

    def _raise_failures(self, producer: Producer) -> None:
        if failures := producer.take_failures():
            self.failed.update(failure.topic for failure in failures)
            telling = next(filter(is_fenced, failures), failures[0])
            self._lost = transaction_error_of(undelivered(failures), telling, self._servers)
        if self._lost is not None:
            raise self._lost

    def poll(self) -> None:
        """Serve the client between batches."""
        producer = self.producer
        try:
            producer.poll()
        except ClientError as error:
            raise transaction_error_of("records could not be written", error.failure, self._servers) from None
        self._raise_failures(producer)

    def flush(self) -> None:
        """Return when every record of the open transaction is acknowledged; `delivery.timeout.ms` bounds it."""
        producer = self.producer
        try:
            while producer.flush(_CALL_S) > 0:
                self._raise_failures(producer)
        except ClientError as error:
            raise transaction_error_of("records could not be written", error.failure, self._servers) from None
        self._raise_failures(producer)
        self._is_pending = True

    def metrics(self) -> Iterator[Row]:
        """What Flink's committers count. Each commit is one committable, and none is one of an earlier attempt."""
        yield Row("totalCommittables", self._begun_commits)
        yield Row("successfulCommittables", self._done_commits)
        yield Row("failedCommittables", self._failed_commits)
        yield Row("retriedCommittables", self._retried_commits)
        yield Row("pendingCommittables", int(self._is_pending))

    def commit(self, marker: str) -> None:
        # A start's claim is none: nothing was written and flushed before it.
        committable, self._is_pending = int(self._is_pending), False
        self._begun_commits += committable
        try:
            self._commit(marker)
        except HeadraceError:
            self._failed_commits += committable
            raise
        self._done_commits += committable

    def _commit(self, marker: str) -> None:
        # Raises what has failed already: the client would say only that it cannot commit.
        with self.producing("the transaction could not be begun") as producer:
            self._raise_failures(producer)
        place = self._place
        self._settle(
            f"the marker could not be written ({place})",
            lambda: producer.send_offsets(place.group, place.partition, 0, marker),
        )
        # Crash here: the broker knows the marker as pending; the next fence aborts it.
        crash_point("transaction.offsets_sent")
        self._raise_failures(producer)
        self._settle(f"transaction {self._id} could not be committed", lambda: producer.commit_transaction(_CALL_S))
        self._is_open = False
        # Crash here: committed, and only the marker says so.
        crash_point("transaction.committed")

    def _settle(self, what: str, call: Callable[[], None]) -> None:
        """Call until the outcome is known; raises `ExternalError` when the time of every try is over.

        It may then have been committed or not, as after a crash: the marker tells the next start.
        """
        tries = self._context.commit_retries + 1
        warned = time.monotonic()
        deadline = warned + tries * self._timeout_s
        while True:
            try:
                call()
                return
            except ClientError as error:
                if not is_unsettled(error.failure):
                    raise transaction_error_of(what, error.failure, self._servers) from None
                self._retried_commits += 1
                if time.monotonic() > deadline:
                    raise ExternalError(
                        f"{what}: nobody knows, after {tries * self._timeout_s:g} s (`sink.committer.retries` is "
                        f"{self._context.commit_retries}, each for `default.api.timeout.ms`): {error.failure}; the "
                        "next start reads what became of it, and loses and repeats nothing"
                    ) from None
                if time.monotonic() - warned > _WARN_EVERY_S:
                    warned = time.monotonic()
                    _LOG.warning("%s yet, asking again until its outcome is known: %s", what, error.failure)

    def close(self) -> None:
        if self._producer is None:
            return
        producer, self._producer = self._producer, None
        is_open, self._is_open, self._lost = self._is_open, False, None
        if is_open:
            try:
                producer.abort_transaction(_CLOSE_S)
            except ClientError as error:
                _LOG.debug("transaction %s was left to its next fence or its timeout: %s", self._id, error.failure)
        producer.close()
