"""The benchmark's topics: made, filled, and read back to see what a run wrote, and when.

Every output topic has `message.timestamp.type=LogAppendTime`: the broker, not the program that is measured, says when
a record arrived.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

from records import Encoding, encoded, key, record

# Of messages with values, which the stubs cannot say.
Message = Any

PARTITIONS = 4
_BATCH = 5_000
_PROGRESS = 1_000_000
_SILENCE_S = 20.0
_WARMING_REQUESTS = 100_000
_FETCH_BYTES = 4 << 20


@dataclass(slots=True)
class Output:
    """What a run wrote: how many records, and how many of them the broker appended in each millisecond."""

    records: int = 0
    appended: Counter[int] = field(default_factory=Counter)

    def _times(self) -> list[tuple[int, int]]:
        return sorted(self.appended.items())

    @property
    def first_ms(self) -> int:
        return min(self.appended)

    @property
    def last_ms(self) -> int:
        return max(self.appended)

    def rate(self, share: float = 1.0) -> float:
        """Records per second over the last `share` of the records, from append to append.

        The records of the first millisecond of the stretch are its start, not part of it.
        """
        before, skipped = 0, self.records * (1.0 - share)
        for time_ms, count in self._times():
            before += count
            if before >= skipped:
                elapsed_ms = self.last_ms - time_ms
                return (self.records - before) * 1000 / elapsed_ms if elapsed_ms else float("nan")
        return float("nan")


class Topics:
    """The topics on one broker."""

    def __init__(self, bootstrap: str) -> None:
        self._bootstrap = bootstrap
        # Its connection outlives the broker, and would say so.
        self._admin = AdminClient({"bootstrap.servers": bootstrap, "log_level": 2})

    def create(self, name: str, *, append_time: bool) -> str:
        config = {"message.timestamp.type": "LogAppendTime" if append_time else "CreateTime", "retention.ms": "-1"}
        self._admin.create_topics([NewTopic(name, PARTITIONS, 1, config=config)])[name].result(30)
        return name

    def delete(self, *names: str) -> None:
        for future in self._admin.delete_topics(list(names)).values():
            future.result(30)

    def fill(
        self,
        name: str,
        count: int,
        say: Callable[[str], None],
        *,
        dressed: bool = False,
        encoding: Encoding = "json",
    ) -> None:
        """Writes records 0 to `count` - 1, spread over the partitions one by one; `dressed` with keys and headers."""
        failed: list[str] = []
        producer = self.producer(lambda error: failed.append(str(error)), linger_ms=20)
        for number in range(count):
            while True:
                try:
                    if dressed:
                        headers = [("trace", b"%016x" % number), ("origin", b"bench")]
                        producer.produce(
                            name, record(number), key(number).encode(), number % PARTITIONS, headers=headers
                        )
                    else:
                        producer.produce(name, encoded(number, encoding), None, number % PARTITIONS)
                    break
                except BufferError:
                    producer.poll(0.05)
            if number % _PROGRESS == 0 and number:
                say(f"{number:,} of {count:,} records written")
        left = producer.flush(120)
        if failed or left:
            raise RuntimeError(f"{len(failed) + left} records of {name} could not be written: {failed[:1]}")

    def warm_up(self) -> None:
        """Sends the broker so many requests that its JVM has compiled what it does with one.

        HotSpot counts calls, so a million records in a few hundred large requests leave it cold: it would compile on
        the cores of the runs that are measured, and that for minutes.
        """
        name = self.create("bench.warming", append_time=True)
        failed: list[object] = []
        producer = self.producer(failed.append, linger_ms=0, batch_records=1)
        for number in range(_WARMING_REQUESTS):
            if number % 1000 == 0:
                producer.flush(30)
            producer.produce(name, record(number), None, number % PARTITIONS)
        left = producer.flush(30)
        if failed or left:
            raise RuntimeError(f"{len(failed) + left} records of {name} could not be written: {failed[:1]}")
        read = sum(len(messages) for messages in self._batches(name, fetch_bytes=1))
        if read != _WARMING_REQUESTS:
            raise RuntimeError(f"{name} has {read} records, not {_WARMING_REQUESTS}")
        self.delete(name)

    def producer(
        self, on_error: Callable[[object], None], *, linger_ms: float, batch_records: int = 10_000
    ) -> Producer:
        """A producer that calls back for records that failed, and only for those."""

        def on_delivery(error: object, _message: Message) -> None:
            if error is not None:
                on_error(error)

        return Producer(
            {
                "bootstrap.servers": self._bootstrap,
                "linger.ms": linger_ms,
                "batch.num.messages": batch_records,
                "acks": "all",
                "delivery.report.only.error": True,
                "on_delivery": on_delivery,
            }
        )

    def reader(self, name: str, *, committed: bool = True, fetch_bytes: int = _FETCH_BYTES) -> Consumer:
        """A consumer at the beginning of every partition; it belongs to no group."""
        consumer = Consumer(
            {
                "bootstrap.servers": self._bootstrap,
                "group.id": "bench-reader",
                "enable.auto.commit": False,
                "auto.offset.reset": "error",
                "isolation.level": "read_committed" if committed else "read_uncommitted",
                "fetch.queue.backoff.ms": 2,
                "queued.min.messages": 200_000,
                "fetch.message.max.bytes": fetch_bytes,
                "enable.partition.eof": True,
            }
        )
        consumer.assign([TopicPartition(name, partition, 0) for partition in range(PARTITIONS)])
        return consumer

    def read(self, name: str, each: Callable[[list[bytes]], None]) -> Output:
        """Reads a topic that nobody writes to any more to its end, `read_committed`; `each` is given the values."""
        output = Output()
        for messages in self._batches(name):
            output.records += len(messages)
            output.appended.update([message.timestamp()[1] for message in messages])
            each([message.value() for message in messages])
        return output

    def append_times(self, name: str) -> dict[bytes, int]:
        """value → LogAppendTime in milliseconds, of a topic whose values are distinct."""
        return {m.value(): m.timestamp()[1] for messages in self._batches(name) for m in messages}

    def _batches(self, name: str, fetch_bytes: int = _FETCH_BYTES) -> Iterable[list[Message]]:
        consumer = self.reader(name, fetch_bytes=fetch_bytes)
        ended: set[int] = set()
        deadline = time.monotonic() + _SILENCE_S
        try:
            while len(ended) < PARTITIONS:
                messages: list[Message] = []
                arrived: list[Message] = consumer.consume(_BATCH, 0.1)
                for message in arrived:
                    error = message.error()
                    if error is None:
                        messages.append(message)
                    elif error.name() == "_PARTITION_EOF":
                        ended.add(message.partition())
                    else:
                        raise RuntimeError(f"{name} cannot be read: {error}")
                if messages or ended:
                    deadline = time.monotonic() + _SILENCE_S
                if time.monotonic() > deadline:
                    raise RuntimeError(f"{name} gave nothing for {_SILENCE_S:.0f} s; is a transaction open on it?")
                if messages:
                    yield messages
        finally:
            consumer.close()
