"""The client protocol on `confluent_kafka`'s Python objects, which is loaded when the first client is made.

What its calls cost on the machine this was written on, per record in batches of 500: `value` 47 ns, `partition` 83,
`timestamp` 178 (it makes a tuple), `offset` 124, `error` 39. `map` over the unbound method takes half of a loop's time.
So offsets are read for the last record only, and for others when somebody asks. `produce` takes 0.4 µs with positional
arguments, 1.0 with keywords; `produce_batch` wants a dict for each record and takes no timestamps.
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from headrace.kafka.client.protocol import (
    ClientError,
    ClientFailed,
    CommittedOffset,
    EndOfPartition,
    Event,
    Failure,
    KafkaTopicPartition,
    OffsetsCommitted,
    PartitionFailed,
    Position,
    Records,
    Settings,
    TopicDescription,
)

if TYPE_CHECKING:
    from confluent_kafka import KafkaError, Message, TopicPartition
    from confluent_kafka.admin import AdminClient

_LOG = logging.getLogger("headrace.kafka.client")
_WAIT_SLICE_S = 0.1
"""Every longer wait is made of slices, so that signals are served and causes are heard of."""

_HOPELESS = frozenset({"_AUTHENTICATION", "_SSL", "_RESOLVE"})
"""Failures to connect that trying again does not mend."""


class PureClient:
    """Makes clients on `confluent_kafka`."""

    def consumer(self, settings: Settings, *, with_keys: bool = False, with_headers: bool = False) -> PureConsumer:
        return PureConsumer(settings, with_keys=with_keys, with_headers=with_headers)

    def producer(self, settings: Settings) -> PureProducer:
        return PureProducer(settings)

    def admin(self, settings: Settings, timeout_s: float) -> PureAdmin:
        return PureAdmin(settings, timeout_s)


class _QuietLog:
    """Takes the client's own log lines. They repeat ten times a second while a broker is away, so: for debugging."""

    def log(self, level: int, message: str, *args: object) -> None:
        _LOG.debug(message, *args)


class _Heard:
    """What a client reported beside its calls. Separate from the client, so that the two make no reference cycle."""

    def __init__(self) -> None:
        self.failures: list[Failure] = []
        self.events: list[Event] = []
        self.cause: Failure | None = None

    def on_error(self, error: KafkaError) -> None:
        failure = _failure(error)
        if failure.name != "_ALL_BROKERS_DOWN" or self.cause is None:
            self.cause = failure
        self.events.append(ClientFailed(failure))

    def on_delivery(self, error: KafkaError | None, message: Message) -> None:
        if error is not None:
            self.failures.append(replace(_failure(error), topic=message.topic(), size_bytes=len(message)))

    def on_commit(self, error: KafkaError | None, partitions: Iterable[TopicPartition]) -> None:
        listed = list(partitions)
        error = error or next((one.error for one in listed if one.error), None)
        offsets = {_partition(one): one.offset for one in listed}
        self.events.append(OffsetsCommitted(offsets, _failure(error) if error else None))


def _failure(error: KafkaError) -> Failure:
    return Failure(
        name=error.name(),
        text=error.str(),
        is_retriable=error.retriable(),
        is_fatal=error.fatal(),
        requires_abort=error.txn_requires_abort(),
    )


def _partition(one: TopicPartition) -> KafkaTopicPartition:
    return KafkaTopicPartition(one.topic, one.partition)


def _config(settings: Settings, heard: _Heard, **more: Any) -> dict[str, Any]:
    return {**settings, "log_level": "4", "error_cb": heard.on_error, "logger": _QuietLog(), **more}


@contextlib.contextmanager
def _failing_as_client_error(heard: _Heard | None = None) -> Iterator[None]:
    """Lets `ClientError` come out instead of confluent_kafka's exceptions, with the cause that was heard of."""
    from confluent_kafka import KafkaException

    try:
        yield
    except KafkaException as error:
        raise ClientError(_with_cause(_of_exception(error), heard)) from None


def _of_exception(error: BaseException) -> Failure:
    from confluent_kafka import KafkaError

    reason = error.args[0] if error.args else None
    return _failure(reason) if isinstance(reason, KafkaError) else Failure("_FAIL", str(error))


def _with_cause(failure: Failure, heard: _Heard | None) -> Failure:
    if heard is None or heard.cause is None or failure.name not in ("_TIMED_OUT", "_TRANSPORT", "_MSG_TIMED_OUT"):
        return failure
    return replace(failure, cause=heard.cause)


class _Source:
    """The messages behind a batch."""

    __slots__ = ("_messages",)

    def __init__(self, messages: Sequence[Message]) -> None:
        self._messages = messages

    def offset(self, index: int) -> int:
        offset = self._messages[index].offset()
        assert offset is not None
        return offset

    def key(self, index: int) -> bytes | None:
        return self._messages[index].key()

    def value(self, index: int) -> bytes | None:
        return self._messages[index].value()


def _headers(message: Message) -> list[tuple[str, bytes | None]]:
    headers: Any = message.headers()
    return headers or []


class PureConsumer:
    """`Consumer` on `confluent_kafka.Consumer`."""

    def __init__(self, settings: Settings, *, with_keys: bool, with_headers: bool) -> None:
        from confluent_kafka import Consumer, KafkaError, Message, TopicPartition

        self._heard = _Heard()
        with _failing_as_client_error():
            self._client: Consumer | None = Consumer(
                _config(settings, self._heard, on_commit=self._heard.on_commit, **{"enable.partition.eof": "true"})
            )
        self._topic_partition = TopicPartition
        self._error, self._value, self._timestamp = Message.error, Message.value, Message.timestamp
        self._partition = Message.partition
        self._end_code: int = KafkaError._PARTITION_EOF
        self._with_keys = with_keys
        self._with_headers = with_headers
        self._assigned: dict[tuple[str | None, int | None], KafkaTopicPartition] = {}
        self._topics = 0

    def assign(self, positions: Mapping[KafkaTopicPartition, int]) -> None:
        assert self._client is not None
        with _failing_as_client_error(self._heard):
            self._client.incremental_assign(
                [self._topic_partition(p.topic, p.partition, o) for p, o in positions.items()]
            )
        self._assigned.update({(p.topic, p.partition): p for p in positions})
        self._topics = len({topic for topic, _ in self._assigned})

    def unassign(self, partitions: Iterable[KafkaTopicPartition]) -> None:
        assert self._client is not None
        gone = list(partitions)
        with _failing_as_client_error(self._heard):
            self._client.incremental_unassign([self._topic_partition(p.topic, p.partition) for p in gone])
        for p in gone:
            del self._assigned[p.topic, p.partition]
        self._topics = len({topic for topic, _ in self._assigned})

    def consume(self, max_records: int, timeout_s: float) -> list[Event]:
        client = self._client
        assert client is not None
        with _failing_as_client_error(self._heard):
            messages = client.consume(max_records, 0)
            if not messages:
                # `consume` with a timeout would wait for all of them.
                first = client.poll(timeout_s)
                if first is not None:
                    messages = [first]
                    if max_records > 1:
                        messages += client.consume(max_records - 1, 0)
        events, self._heard.events[:] = list(self._heard.events), []
        if messages:
            if (
                self._topics == 1
                and not any(map(self._error, messages))
                and len(set(map(self._partition, messages))) == 1
                and (partition := self._assigned.get((messages[0].topic(), messages[0].partition())))
            ):
                events.append(self._records(partition, messages))
            else:
                events += self._sorted(messages)
        return events

    def _sorted(self, messages: list[Message]) -> Iterator[Event]:
        """Events of several partitions; those of one partition in its order. What is no longer assigned is left out."""
        groups: dict[KafkaTopicPartition, list[Message]] = {}
        for message in messages:
            partition = self._assigned.get((message.topic(), message.partition()))
            error = message.error()
            if error is None:
                if partition is not None:
                    groups.setdefault(partition, []).append(message)
            elif partition is None:
                if error.code() != self._end_code:
                    yield ClientFailed(_failure(error))
            else:
                if partition in groups:
                    yield self._records(partition, groups.pop(partition))
                if error.code() == self._end_code:
                    yield EndOfPartition(partition, message.offset() or 0)
                else:
                    yield PartitionFailed(partition, _failure(error))
        for partition, group in groups.items():
            yield self._records(partition, group)

    def _records(self, partition: KafkaTopicPartition, messages: list[Message]) -> Records:
        last = messages[-1].offset()
        assert last is not None
        return Records(
            partition=partition,
            values=list(map(self._value, messages)),
            timestamps=[at for _, at in map(self._timestamp, messages)],
            next_offset=last + 1,
            source=_Source(messages),
            keys=[message.key() for message in messages] if self._with_keys else None,
            headers=[_headers(message) for message in messages] if self._with_headers else None,
        )

    def end_seen(self, partition: KafkaTopicPartition) -> int | None:
        assert self._client is not None
        asked = self._topic_partition(partition.topic, partition.partition)
        with _failing_as_client_error(self._heard):
            _, end = self._client.get_watermark_offsets(asked, cached=True)
        return end if end >= 0 else None

    def commit(self, offsets: Mapping[KafkaTopicPartition, int]) -> None:
        assert self._client is not None
        listed = [self._topic_partition(p.topic, p.partition, offset) for p, offset in offsets.items()]
        with _failing_as_client_error(self._heard):
            self._client.commit(offsets=listed, asynchronous=True)

    def close(self) -> None:
        if self._client is not None:
            client, self._client = self._client, None
            with _failing_as_client_error(self._heard):
                client.close()


class PureProducer:
    """`Producer` on `confluent_kafka.Producer`."""

    def __init__(self, settings: Settings) -> None:
        from confluent_kafka import KafkaException, Producer

        self._heard = _Heard()
        self._settings = settings
        self._exception = KafkaException
        config = _config(settings, self._heard, on_delivery=self._heard.on_delivery)
        config["delivery.report.only.error"] = True
        with _failing_as_client_error():
            self._client: Producer | None = Producer(config)
        self._groups: dict[str, Any] = {}

    def produce(
        self,
        topic: str,
        values: Sequence[bytes | None],
        keys: Sequence[bytes | None] | None,
        timestamps: Sequence[int] | None,
    ) -> None:
        client = self._client
        assert client is not None
        produce = client.produce
        key: bytes | None = None
        value: bytes | None = None
        try:
            if keys is None and timestamps is not None and (not timestamps or min(timestamps) >= 0):
                for value, timestamp in zip(values, timestamps, strict=True):
                    try:
                        produce(topic, value, None, -1, None, None, timestamp)
                    except BufferError:
                        self._produce_waiting(topic, value, None, timestamp)
            elif keys is None and timestamps is None:
                for value in values:
                    try:
                        produce(topic, value)
                    except BufferError:
                        self._produce_waiting(topic, value, None, 0)
            else:
                times = [max(at, 0) for at in timestamps] if timestamps is not None else [0] * len(values)
                for value, key, timestamp in zip(values, keys or [None] * len(values), times, strict=True):
                    try:
                        produce(topic, value, key, -1, None, None, timestamp)
                    except BufferError:
                        self._produce_waiting(topic, value, key, timestamp)
        except self._exception as error:
            size = len(value or b"") + len(key or b"")
            raise ClientError(replace(_of_exception(error), topic=topic, size_bytes=size)) from None
        self.poll()

    def _produce_waiting(self, topic: str, value: bytes | None, key: bytes | None, timestamp: int) -> None:
        """The queue is full: serve reports until there is room. It empties at the latest as deliveries time out."""
        client = self._client
        assert client is not None
        while True:
            client.poll(_WAIT_SLICE_S)
            with contextlib.suppress(BufferError):
                client.produce(topic, value, key, -1, None, None, timestamp)
                return

    def poll(self) -> None:
        assert self._client is not None
        with _failing_as_client_error(self._heard):
            self._client.poll(0)

    def flush(self, timeout_s: float) -> int:
        assert self._client is not None
        deadline = time.monotonic() + timeout_s
        with _failing_as_client_error(self._heard):
            while (left := self._client.flush(min(1.0, max(0.0, deadline - time.monotonic())))) > 0:
                if time.monotonic() >= deadline:
                    break
        return left

    def take_failures(self) -> list[Failure]:
        heard = self._heard
        failures = [_with_cause(failure, heard) for failure in heard.failures]
        heard.failures.clear()
        failures += [e.failure for e in heard.events if isinstance(e, ClientFailed) and e.failure.name in _HOPELESS]
        heard.events.clear()
        return failures

    def init_transactions(self, timeout_s: float) -> None:
        client = self._client
        assert client is not None
        try:
            with _failing_as_client_error(self._heard):
                client.init_transactions(timeout_s)
        except ClientError as error:
            # The cause is heard of only while polled; a fatal error is raised there once more.
            with contextlib.suppress(self._exception):
                client.poll(0)
            raise ClientError(_with_cause(error.failure, self._heard)) from None

    def begin_transaction(self) -> None:
        assert self._client is not None
        with _failing_as_client_error(self._heard):
            self._client.begin_transaction()

    def send_offsets(self, group: str, partition: KafkaTopicPartition, offset: int, metadata: str) -> None:
        from confluent_kafka import TopicPartition

        assert self._client is not None
        at = TopicPartition(partition.topic, partition.partition, offset, metadata)
        with _failing_as_client_error(self._heard):
            if group not in self._groups:
                self._groups[group] = _group_metadata(self._settings, group)
            self._client.send_offsets_to_transaction([at], self._groups[group], _TRANSACTION_CALL_S)

    def commit_transaction(self, timeout_s: float) -> None:
        assert self._client is not None
        with _failing_as_client_error(self._heard):
            self._client.commit_transaction(timeout_s)

    def abort_transaction(self, timeout_s: float) -> None:
        assert self._client is not None
        with _failing_as_client_error(self._heard):
            self._client.abort_transaction(timeout_s)

    def close(self) -> None:
        if self._client is not None:
            client, self._client = self._client, None
            # It tells of a fatal error once more, and nobody is left to be told.
            with contextlib.suppress(self._exception):
                client.purge()
                client.poll(0)


_TRANSACTION_CALL_S = 5.0

_ANY_CLIENT = (
    "bootstrap.servers",
    "security.",
    "sasl.",
    "ssl.",
    "broker.",
    "client.",
    "socket.",
    "https.",
    "enable.ssl.",
)


def _shared_settings(settings: Settings) -> dict[str, str]:
    """The settings that a client of any kind takes."""
    return {name: value for name, value in settings.items() if name.startswith(_ANY_CLIENT)}


def _group_metadata(settings: Settings, group: str) -> Any:
    """What a transaction wants to know of a group. Only a consumer of that group can say it; it asks nobody."""
    from confluent_kafka import Consumer

    client = Consumer(_config(_shared_settings(settings), _Heard(), **{"group.id": group}))
    try:
        return client.consumer_group_metadata()
    finally:
        client.close()


class PureAdmin:
    """`Admin` on `confluent_kafka.admin.AdminClient`."""

    def __init__(self, settings: Settings, timeout_s: float) -> None:
        from confluent_kafka.admin import AdminClient

        self._heard = _Heard()
        self._timeout_s = timeout_s
        self._cluster: Any = None
        config = _shared_settings(settings)
        with _failing_as_client_error():
            self._client: AdminClient | None = AdminClient(_config(config, self._heard))

    def _result(self, future: Any) -> Any:
        """The future's result; the client is served meanwhile, and given up at once where waiting cannot help."""
        assert self._client is not None
        deadline = time.monotonic() + self._timeout_s + 1.0
        while not future.done():
            self._client.poll(0.005)
            cause = self._heard.cause
            if cause is not None and cause.name in _HOPELESS:
                raise ClientError(Failure("_TIMED_OUT", "the brokers cannot be reached", cause=cause))
            if time.monotonic() > deadline:
                failure = Failure("_TIMED_OUT", f"no answer within {self._timeout_s:g} s", is_retriable=True)
                raise ClientError(_with_cause(failure, self._heard))
        # Not `result`: the traceback that it attaches would keep the client until the next garbage collection.
        error = future.exception()
        if error is not None:
            raise ClientError(_with_cause(_of_exception(error), self._heard))
        return future.result()

    def _outcome(self, future: Any) -> Any:
        """Like `_result`, but a broker's refusal of this one thing is a value."""
        try:
            return self._result(future)
        except ClientError as error:
            if error.failure.name.startswith("_") and error.failure.name != "_UNKNOWN_PARTITION":
                raise
            return error.failure

    def cluster_id(self) -> str:
        return str(self._described_cluster().cluster_id)

    def _described_cluster(self) -> Any:
        assert self._client is not None
        if self._cluster is None:
            with _failing_as_client_error(self._heard):
                self._cluster = self._result(self._client.describe_cluster(request_timeout=self._timeout_s))
        return self._cluster

    def topic_names(self) -> list[str]:
        self._described_cluster()
        assert self._client is not None
        with _failing_as_client_error(self._heard):
            return sorted(self._client.list_topics(timeout=self._timeout_s).topics)

    def describe_topics(self, names: Iterable[str]) -> dict[str, TopicDescription | Failure]:
        from confluent_kafka import TopicCollection

        assert self._client is not None
        asked = list(names)
        with _failing_as_client_error(self._heard):
            futures = self._client.describe_topics(TopicCollection(asked), request_timeout=self._timeout_s)
        described: dict[str, TopicDescription | Failure] = {}
        for name in asked:
            found = self._outcome(futures[name])
            if not isinstance(found, Failure):
                topic_id = None if found.topic_id is None else str(found.topic_id)
                numbers = tuple(sorted(partition.id for partition in found.partitions))
                found = TopicDescription(name, topic_id, numbers)
            described[name] = found
        return described

    def list_offsets(
        self, partitions: Iterable[KafkaTopicPartition], at: Position | int
    ) -> dict[KafkaTopicPartition, int | Failure | None]:
        from confluent_kafka import TopicPartition
        from confluent_kafka.admin._listoffsets import OffsetSpec

        assert self._client is not None
        if isinstance(at, int):
            place: Any = OffsetSpec.for_timestamp(at)
        else:
            named: Any = OffsetSpec
            place = named.earliest() if at is Position.EARLIEST else named.latest()
        asked = {TopicPartition(p.topic, p.partition): place for p in partitions}
        if not asked:
            return {}
        with _failing_as_client_error(self._heard):
            futures = self._client.list_offsets(asked, request_timeout=self._timeout_s)
        offsets: dict[KafkaTopicPartition, int | Failure | None] = {}
        for one, future in futures.items():
            found = self._outcome(future)
            offset = found if isinstance(found, Failure) else found.offset
            offsets[_partition(one)] = None if offset == -1 else offset
        return offsets

    def committed(
        self, group: str, partitions: Iterable[KafkaTopicPartition], *, stable: bool
    ) -> dict[KafkaTopicPartition, CommittedOffset | Failure | None]:
        from confluent_kafka import ConsumerGroupTopicPartitions, TopicPartition

        asked = [TopicPartition(p.topic, p.partition) for p in partitions]
        deadline = time.monotonic() + self._timeout_s
        while True:
            assert self._client is not None
            request = ConsumerGroupTopicPartitions(group, asked)
            with _failing_as_client_error(self._heard):
                futures = self._client.list_consumer_group_offsets(
                    [request], require_stable=stable, request_timeout=self._timeout_s
                )
            answer = self._outcome(futures[group])
            if isinstance(answer, Failure):
                if answer.name != "UNSTABLE_OFFSET_COMMIT":
                    return {_partition(one): answer for one in asked}
            elif not any(o.error and o.error.name() == "UNSTABLE_OFFSET_COMMIT" for o in answer.topic_partitions):
                return {_partition(one): _committed(one) for one in answer.topic_partitions}
            if time.monotonic() > deadline:
                failure = Failure(
                    "UNSTABLE_OFFSET_COMMIT", "a transaction holds the group's offsets", is_retriable=True
                )
                return {_partition(one): failure for one in asked}
            self._client.poll(_WAIT_SLICE_S)

    def broker_setting(self, name: str) -> str | None:
        from confluent_kafka.admin._config import ConfigResource

        assert self._client is not None
        broker = self._described_cluster().controller
        if broker is None:
            return None
        resource = ConfigResource(ConfigResource.Type.BROKER, str(broker.id))
        with _failing_as_client_error(self._heard):
            futures = self._client.describe_configs([resource], request_timeout=self._timeout_s)
        found = self._outcome(futures[resource])
        if isinstance(found, Failure) or name not in found:
            return None
        value: str | None = found[name].value
        return value

    def close(self) -> None:
        self._client = None


def _committed(one: TopicPartition) -> CommittedOffset | Failure | None:
    if one.error:
        return _failure(one.error)
    return None if one.offset < 0 else CommittedOffset(one.offset, one.metadata or "")
