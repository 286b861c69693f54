"""Metrics of Kafka's clients, out of what librdkafka says of itself once a second if there is a reporter.

Its statistics (https://github.com/confluentinc/librdkafka/blob/master/STATISTICS.md) are shown under their own names,
with broker, topic and partition as labels, and what the Java client has as well also under its names, in its units.
"""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

from headrace.errors import HeadraceError
from headrace.kafka.client.protocol import Admin, ClientError, KafkaTopicPartition, Position, Settings
from headrace.kafka.client.reports import log_statistics
from headrace.kafka.property_table import read_bool
from headrace.metrics.registry import Groups, Row

_LOG = logging.getLogger("headrace.kafka")

_INTERVAL: Final = "statistics.interval.ms"
_INTERVAL_MS: Final = "1000"

CONSUMER: Final[Groups] = (("KafkaSourceReader", None), ("KafkaConsumer", None))
PRODUCER: Final[Groups] = (("KafkaProducer", None),)

_WAITED, _ANSWERED = "int_latency", "rtt"
"""A record's wait in the producer's queue, and a request's for its answer."""

_TOTALS: Final = {
    "request-total": "tx",
    "response-total": "rx",
    "outgoing-byte-total": "tx_bytes",
    "incoming-byte-total": "rx_bytes",
}
_OF_CONSUMER: Final = {"records-consumed-total": "rxmsgs", "bytes-consumed-total": "rxmsg_bytes"}
_OF_PRODUCER: Final = {"record-send-total": "txmsgs"}
"""Java's names of what librdkafka counts for the client as a whole."""

_NO_METRICS: Final = frozenset({"ts", "time", "nodeid", "partition", "broker", "leader"})


class Statistics:
    """What a client has said of itself last."""

    def __init__(self) -> None:
        self.found: Mapping[str, Any] = {}
        self._averages_ms: dict[str, float] = {}

    def hear(self, text: str) -> None:
        """Takes the client's JSON text."""
        log_statistics(text)
        self.found = json.loads(text)
        for name in (_WAITED, _ANSWERED):
            windows = [broker.get(name) or {} for broker in _parts(self.found, "brokers").values()]
            if count := sum(each.get("cnt", 0) for each in windows):
                total_us = sum(each.get("avg", 0) * each.get("cnt", 0) for each in windows)
                self._averages_ms[name] = total_us / count / 1000

    def average_ms(self, name: str) -> float | None:
        """A time, over all brokers, when there was one last; None: there was none yet."""
        return self._averages_ms.get(name)

    @property
    def send_ms(self) -> float:
        """How long a record waits before it is sent, and then for its answer; -1: there was none yet."""
        waited, answered = self.average_ms(_WAITED), self.average_ms(_ANSWERED)
        return -1 if waited is None or answered is None else waited + answered


def with_statistics(settings: Settings, *, is_reported: bool) -> Settings:
    """A client's settings, such that it says something of itself if somebody reads it."""
    return {_INTERVAL: _INTERVAL_MS, **settings} if is_reported else settings


def forwards(properties: Mapping[str, str], switch: str) -> bool:
    """Whether a client's own metrics are shown, as the property `switch` has it, or Flink's older one."""
    return read_bool(properties, switch, True) and not read_bool(properties, "flink.disable-metrics", False)


def consumer_rows(statistics: Statistics) -> Iterator[Row]:
    """A consumer's own metrics."""
    yield from _client_rows(statistics.found, CONSUMER, _TOTALS | _OF_CONSUMER)
    yield from _known("fetch-latency-avg", statistics.average_ms(_ANSWERED), CONSUMER)


def producer_rows(statistics: Statistics) -> Iterator[Row]:
    """A producer's own metrics."""
    yield from _client_rows(statistics.found, PRODUCER, _TOTALS | _OF_PRODUCER)
    yield from _known("request-latency-avg", statistics.average_ms(_ANSWERED), PRODUCER)
    yield from _known("record-queue-time-avg", statistics.average_ms(_WAITED), PRODUCER)
    brokers = _parts(statistics.found, "brokers").values()
    if brokers:
        yield Row("record-retry-total", sum(broker.get("txretries", 0) for broker in brokers), PRODUCER)
        yield Row("requests-in-flight", sum(broker.get("waitresp_cnt", 0) for broker in brokers), PRODUCER)


def bytes_out(found: Mapping[str, Any], topic: str | None) -> int:
    """Bytes of keys and values that were sent to a topic, or to all."""
    topics = _parts(found, "topics")
    wanted = topics.values() if topic is None else [topics[topic]] if topic in topics else []
    return sum(one.get("txbytes", 0) for each in wanted for one in _parts(each, "partitions").values())


def at_partition(groups: Groups, topic: str, partition: int | str) -> Groups:
    """The group of a partition, below others."""
    return (*groups, ("topic", topic), ("partition", str(partition)))


def _client_rows(found: Mapping[str, Any], groups: Groups, totals: Mapping[str, str]) -> Iterator[Row]:
    for name, own in totals.items():
        yield from _known(name, found.get(own), groups)
    brokers = _parts(found, "brokers")
    if brokers:
        yield Row("connection-count", sum(broker.get("state") == "UP" for broker in brokers.values()), groups)
    yield from _numbers(found, groups)
    for name, broker in brokers.items():
        yield from _numbers(broker, (*groups, ("broker", name)))
    for topic, each in _parts(found, "topics").items():
        for number, one in _parts(each, "partitions").items():
            # What has no partition yet is in one of its own.
            if number != "-1":
                yield from _numbers(one, at_partition(groups, topic, number))


def _numbers(part: Mapping[str, Any], groups: Groups) -> Iterator[Row]:
    """All numbers of one part; what is below zero is not known. Of times, in µs, the average and a percentile."""
    for name, value in part.items():
        if isinstance(value, dict):
            # Otherwise nothing happened, or it is no window of times, whatever a topic is called.
            if isinstance(count := value.get("cnt"), int) and count:
                yield Row(f"{name}_avg", value["avg"], groups)
                yield Row(f"{name}_p99", value["p99"], groups)
        elif isinstance(value, int | float) and not isinstance(value, bool) and value >= 0 and name not in _NO_METRICS:
            yield Row(name, value, groups)


def _parts(found: Mapping[str, Any], name: str) -> Mapping[str, Mapping[str, Any]]:
    return found.get(name) or {}


def _known(name: str, value: float | None, groups: Groups) -> Iterable[Row]:
    return () if value is None else (Row(name, value, groups),)


class AskedEnds:
    """Ends of logs that a consumer has not heard of yet, asked for once each, in a thread."""

    def __init__(self, make_admin: Callable[[], Admin]) -> None:
        self._make_admin = make_admin
        self._asked: set[KafkaTopicPartition] = set()
        self._ends: dict[KafkaTopicPartition, int] = {}

    def of(self, partition: KafkaTopicPartition) -> int | None:
        """Where the log ended when it was asked for; None: no answer."""
        return self._ends.get(partition)

    def ask(self, partitions: Iterable[KafkaTopicPartition]) -> None:
        """Ask for those that were not asked for yet, and do not wait."""
        new = [partition for partition in partitions if partition not in self._asked]
        if new:
            self._asked.update(new)
            threading.Thread(target=self._ask, args=[new], name="headrace-lag", daemon=True).start()

    def _ask(self, partitions: Sequence[KafkaTopicPartition]) -> None:
        try:
            admin = self._make_admin()
            try:
                answers = admin.list_offsets(partitions, Position.LATEST)
            finally:
                admin.close()
        except (ClientError, HeadraceError) as error:
            _LOG.debug("the lag of %d partitions is not known yet: %s", len(partitions), error)
            self._asked.difference_update(partitions)
        else:
            self._ends.update({partition: end for partition, end in answers.items() if isinstance(end, int)})
