"""Reading, on `confluent_kafka.Consumer`.

What its calls cost on the machine this was written on, per record in batches of 500: `value` 47 ns, `partition` 83,
`timestamp` 178 (it makes a tuple), `offset` 124, `error` 39. `map` over the unbound method takes half of a loop's time.
So offsets are read for the last record only, and for others when somebody asks.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from itertools import repeat
from operator import methodcaller
from typing import TYPE_CHECKING, Any

from headrace.kafka.client.protocol import (
    UNREADABLE_HEADERS,
    ClientFailed,
    EndOfPartition,
    Event,
    Headers,
    KafkaConsumerRecord,
    KafkaTopicPartition,
    OnStatistics,
    PartitionFailed,
    Records,
    Settings,
    TimestampType,
    TokenSource,
)
from headrace.kafka.client.pure.reports import HeardReports, client_config, failing_as_client_error, failure_of

if TYPE_CHECKING:
    from confluent_kafka import Message


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

    def headers(self, index: int) -> Headers:
        return _headers(self._messages[index])

    def timestamp(self, index: int) -> int:
        return self._messages[index].timestamp()[1]


_make_record = partial(tuple.__new__, KafkaConsumerRecord)
_TIMESTAMP_TYPES = tuple(TimestampType)


# Of a name that is no UTF-8 confluent-kafka makes a result *and* an error, which the interpreter's own quick call of a
# method does not look for.
_headers_of = methodcaller("headers")


def _headers(message: Message) -> Headers:
    try:
        headers: Any = _headers_of(message)
    except (SystemError, UnicodeDecodeError):
        return [(UNREADABLE_HEADERS, None)]
    return headers or []


class PureConsumer:
    """`Consumer` on `confluent_kafka.Consumer`."""

    def __init__(
        self,
        settings: Settings,
        *,
        with_text: bool = False,
        whole_records: bool = False,
        token: TokenSource | None = None,
        on_statistics: OnStatistics | None = None,
    ) -> None:
        from confluent_kafka import Consumer, KafkaError, Message, TopicPartition

        self._reports = HeardReports()
        with failing_as_client_error():
            self._client: Consumer | None = Consumer(
                client_config(
                    settings,
                    self._reports,
                    token,
                    on_statistics,
                    on_commit=self._reports.on_commit,
                    **{"enable.partition.eof": "true"},
                )
            )
        self._topic_partition = TopicPartition
        self._error, self._value, self._timestamp = Message.error, Message.value, Message.timestamp
        self._partition = Message.partition
        self._end_code: int = KafkaError._PARTITION_EOF
        self._with_text = with_text
        self._whole_records = whole_records
        self._assigned: dict[tuple[str | None, int | None], KafkaTopicPartition] = {}
        self._topics = 0

    def assign(self, positions: Mapping[KafkaTopicPartition, int]) -> None:
        assert self._client is not None
        with failing_as_client_error(self._reports):
            self._client.incremental_assign(
                [self._topic_partition(p.topic, p.partition, o) for p, o in positions.items()]
            )
        self._assigned.update({(p.topic, p.partition): p for p in positions})
        self._topics = len({topic for topic, _ in self._assigned})

    def unassign(self, partitions: Iterable[KafkaTopicPartition]) -> None:
        assert self._client is not None
        gone = list(partitions)
        with failing_as_client_error(self._reports):
            self._client.incremental_unassign([self._topic_partition(p.topic, p.partition) for p in gone])
        for p in gone:
            del self._assigned[p.topic, p.partition]
        self._topics = len({topic for topic, _ in self._assigned})

    def pause(self, partitions: Iterable[KafkaTopicPartition]) -> None:
        assert self._client is not None
        with failing_as_client_error(self._reports):
            self._client.pause([self._topic_partition(p.topic, p.partition) for p in partitions])

    def resume(self, partitions: Iterable[KafkaTopicPartition]) -> None:
        assert self._client is not None
        with failing_as_client_error(self._reports):
            self._client.resume([self._topic_partition(p.topic, p.partition) for p in partitions])

    def seek(self, positions: Mapping[KafkaTopicPartition, int], timeout_s: float) -> None:
        assert self._client is not None
        with failing_as_client_error(self._reports):
            for partition, offset in positions.items():
                self._client.seek(self._topic_partition(partition.topic, partition.partition, offset))

    def consume(self, max_records: int, timeout_s: float) -> list[Event]:
        client = self._client
        assert client is not None
        with failing_as_client_error(self._reports):
            messages = client.consume(max_records, 0)
            if not messages:
                # `consume` with a timeout would wait for all of them.
                first = client.poll(timeout_s)
                if first is not None:
                    messages = [first]
                    if max_records > 1:
                        messages += client.consume(max_records - 1, 0)
        events, self._reports.events[:] = list(self._reports.events), []
        if messages:
            times = [at for _, at in map(self._timestamp, messages)]
            # Without a timestamp it may be an error: asking each message for one costs more than this look.
            if (
                self._topics == 1
                and (min(times) >= 0 or not any(map(self._error, messages)))
                and len(set(map(self._partition, messages))) == 1
                and (partition := self._assigned.get((messages[0].topic(), messages[0].partition())))
            ):
                events.append(self._records(partition, messages, times))
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
                    yield ClientFailed(failure_of(error))
            else:
                if partition in groups:
                    yield self._timed(partition, groups.pop(partition))
                if error.code() == self._end_code:
                    yield EndOfPartition(partition, message.offset() or 0)
                else:
                    yield PartitionFailed(partition, failure_of(error))
        for partition, group in groups.items():
            yield self._timed(partition, group)

    def _timed(self, partition: KafkaTopicPartition, messages: list[Message]) -> Records:
        return self._records(partition, messages, [at for _, at in map(self._timestamp, messages)])

    def _records(self, partition: KafkaTopicPartition, messages: list[Message], times: list[int]) -> Records:
        last = messages[-1].offset()
        assert last is not None
        values: list[Any] = list(map(self._value, messages))
        if self._with_text:
            values = [None if v is None else v.decode("utf-8", "replace") for v in values]
        elif self._whole_records:
            message_type = type(messages[0])
            offsets, keys = map(message_type.offset, messages), map(message_type.key, messages)
            types = [_TIMESTAMP_TYPES[kind] for kind, _ in map(self._timestamp, messages)]
            place, headers = (repeat(partition.topic), repeat(partition.partition)), map(_headers, messages)
            values = list(map(_make_record, zip(*place, offsets, times, types, keys, values, headers, strict=False)))
        return Records(partition, values, times, last + 1, _Source(messages))

    def end_seen(self, partition: KafkaTopicPartition) -> int | None:
        assert self._client is not None
        asked = self._topic_partition(partition.topic, partition.partition)
        with failing_as_client_error(self._reports):
            _, end = self._client.get_watermark_offsets(asked, cached=True)
        return end if end >= 0 else None

    def commit(self, offsets: Mapping[KafkaTopicPartition, int]) -> None:
        assert self._client is not None
        listed = [self._topic_partition(p.topic, p.partition, offset) for p, offset in offsets.items()]
        with failing_as_client_error(self._reports):
            self._client.commit(offsets=listed, asynchronous=True)

    def close(self) -> None:
        if self._client is not None:
            client, self._client = self._client, None
            with failing_as_client_error(self._reports):
                client.close()
