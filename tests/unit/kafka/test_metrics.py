"""What is made of librdkafka's statistics."""

from __future__ import annotations

import json
from typing import Any

import pytest

from headrace.errors import ConfigError
from headrace.kafka.metrics import (
    CONSUMER,
    PRODUCER,
    Statistics,
    bytes_out,
    consumer_rows,
    forwards,
    producer_rows,
    with_statistics,
)
from headrace.metrics.registry import Row


def window(average_us: int, count: int) -> dict[str, int]:
    return {"avg": average_us, "p99": 2 * average_us, "cnt": count}


def statistics(**more: Any) -> Statistics:
    heard = Statistics()
    heard.hear(json.dumps(more))
    return heard


def test_before_a_client_has_said_anything_there_is_nothing() -> None:
    assert list(consumer_rows(Statistics())) == list(producer_rows(Statistics())) == []
    assert (Statistics().send_ms, bytes_out({}, None)) == (-1, 0)


def test_times_are_averages_over_all_brokers_and_stay_while_nothing_happens() -> None:
    brokers = {
        "a": {"state": "UP", "rtt": window(4_000, 3), "int_latency": window(1_000, 1)},
        "b": {"state": "DOWN", "rtt": window(8_000, 1), "int_latency": window(0, 0)},
    }
    heard = statistics(brokers=brokers)
    assert heard.send_ms == 5 + 1
    heard.hear(json.dumps({"brokers": {"a": {"rtt": window(0, 0), "int_latency": window(0, 0)}}}))
    assert heard.send_ms == 5 + 1
    rows = set(producer_rows(statistics(brokers=brokers)))
    assert Row("request-latency-avg", 5, PRODUCER) in rows
    assert Row("record-queue-time-avg", 1, PRODUCER) in rows
    assert Row("connection-count", 1, PRODUCER) in rows
    assert Row("rtt_p99", 16_000, (*PRODUCER, ("broker", "b"))) in rows
    assert {row.groups[-1] for row in rows if row.name == "int_latency_avg"} == {("broker", "a")}


def test_numbers_have_broker_topic_and_partition_as_labels_and_what_is_unknown_is_left_out() -> None:
    partitions = {"0": {"partition": 0, "rxmsgs": 7, "hi_offset": -1001, "desired": True}, "-1": {"rxmsgs": 9}}
    # A topic may be called anything.
    topics = {"t": {"partitions": partitions}, "cnt": {"partitions": {}}, "avg": {"partitions": {}}}
    rows = list(consumer_rows(statistics(name="c", ts=5, rx=3, rxmsgs=7, rxmsg_bytes=70, topics=topics)))
    place = (*CONSUMER, ("topic", "t"), ("partition", "0"))
    assert [row for row in rows if row.groups == place] == [Row("rxmsgs", 7, place)]
    assert [(row.name, row.value) for row in rows if row.groups == CONSUMER] == [
        ("response-total", 3),
        ("records-consumed-total", 7),
        ("bytes-consumed-total", 70),
        ("rx", 3),
        ("rxmsgs", 7),
        ("rxmsg_bytes", 70),
    ]
    assert len(rows) == 7


def test_bytes_are_those_of_the_sinks_topic_or_of_all() -> None:
    topics = {
        name: {"partitions": {"0": {"txbytes": size}, "1": {"txbytes": 1}}} for name, size in (("a", 10), ("b", 20))
    }
    assert [bytes_out({"topics": topics}, topic) for topic in ("a", "c", None)] == [11, 0, 32]


def test_a_client_says_something_of_itself_only_if_somebody_reads_it_or_the_program_wants_it() -> None:
    assert with_statistics({}, is_reported=False) == {}
    assert with_statistics({}, is_reported=True) == {"statistics.interval.ms": "1000"}
    given = {"statistics.interval.ms": "5000"}
    assert with_statistics(given, is_reported=True) == with_statistics(given, is_reported=False) == given


def test_a_clients_own_metrics_are_shown_unless_one_of_the_switches_says_no() -> None:
    switch = "register.producer.metrics"
    assert forwards({}, switch)
    assert forwards({switch: "true", "flink.disable-metrics": "false"}, switch)
    assert not forwards({switch: "false"}, switch)
    assert not forwards({"flink.disable-metrics": "true"}, switch)
    with pytest.raises(ConfigError, match=r"register\.producer\.metrics"):
        forwards({switch: "no"}, switch)
