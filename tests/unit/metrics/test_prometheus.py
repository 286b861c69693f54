"""What Prometheus reads, checked with its own parsers, and the address where it does."""

from __future__ import annotations

import re
import socket
import sys
import threading
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import prometheus_client.openmetrics.parser as openmetrics
import prometheus_client.parser as text_format
import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, exposition
from prometheus_client.openmetrics.exposition import generate_latest as openmetrics_exposition

from headrace.errors import ConfigError
from headrace.metrics.prometheus import Collector, Endpoint
from headrace.metrics.registry import Sample, Scope

OF_ALL = {"host": "here"}


@contextmanager
def served(*samples: Sample) -> Iterator[str]:
    endpoint = Endpoint("localhost", [0], lambda: samples, OF_ALL)
    try:
        yield endpoint.url
    finally:
        endpoint.close()


def read(url: str) -> str:
    with urllib.request.urlopen(url, timeout=10) as answer:
        return str(answer.read().decode())


def parsed(samples: Sequence[Sample]) -> list[tuple[str, dict[str, str], float]]:
    """What both parsers make of it."""
    registry = CollectorRegistry()
    registry.register(Collector(lambda: samples, OF_ALL))
    plain = text_format.text_string_to_metric_families(exposition.generate_latest(registry).decode())
    found = [(s.name, s.labels, s.value) for family in plain for s in family.samples]
    families = openmetrics.text_string_to_metric_families(openmetrics_exposition(registry).decode())
    assert [(s.name, s.labels, s.value) for family in families for s in family.samples] == found
    return found


def test_labels_are_those_of_all_of_the_scope_and_of_pairs_of_key_and_value() -> None:
    scope = Scope("job", (("operator_name", 'a "b"\\\n'),), (("Reader", None), ("topic", "t.1"), ("partition", "0")))
    labels = {"host": "here", "operator_name": 'a "b"\\\n', "topic": "t.1", "partition": "0"}
    assert parsed([Sample(scope, "currentOffset", -1), Sample(Scope("job"), "uptime", 2.5)]) == [
        ("flink_job_Reader_topic_partition_currentOffset", labels, -1),
        ("flink_job_uptime", OF_ALL, 2.5),
    ]


words = st.text(max_size=8) | st.sampled_from(["a_total", "x_count", "x_sum", "x", "x_bucket", "_created", "x_info"])


@given(st.lists(st.tuples(words, words, words | st.none(), st.floats(allow_nan=False)), max_size=6))
def test_whatever_a_program_calls_its_metrics_both_parsers_read_them(
    metrics: list[tuple[str, str, str | None, float]],
) -> None:
    samples = [Sample(Scope("job", (), ((group, value),)), name, at) for name, group, value, at in metrics]
    assert len(parsed(samples)) <= len(samples)


def test_of_two_that_are_the_same_for_prometheus_the_first_is_shown(caplog: pytest.LogCaptureFixture) -> None:
    with served(Sample(Scope("job"), "a.b", 1), Sample(Scope("job"), "a-b", 2)) as url:
        for _ in range(2):
            assert re.findall(r"^flink_job_a_b\{.*", read(url), re.M) == ['flink_job_a_b{host="here"} 1.0']
    assert [message for message in caplog.messages if "`flink_job_a_b`" in message] == caplog.messages
    assert len(caplog.messages) == 1


def test_a_port_in_use_is_named_with_its_setting_and_a_range_passes_over_it() -> None:
    with socket.create_server(("localhost", 0)) as taken:
        port = taken.getsockname()[1]
        setting = r"`metrics.reporter.prom.port` \(`--metrics-port`\)"
        with pytest.raises(ConfigError, match=rf"{setting} is {port}, .*in use"):
            Endpoint("localhost", [port], tuple, {})
        endpoint = Endpoint("localhost", [port, 0], tuple, {})
        assert str(port) not in endpoint.url
        endpoint.close()


def test_an_address_that_is_not_of_this_machine_is_named_with_its_setting() -> None:
    with pytest.raises(ConfigError, match=r"`metrics.reporter.prom.host` is 'nowhere.invalid'"):
        Endpoint("nowhere.invalid", [0], tuple, {})
    with pytest.raises(ConfigError, match=r"metrics cannot be shown at 192.0.2.1, port 0: "):
        Endpoint("192.0.2.1", [0], tuple, {})


def test_behind_its_end_the_port_is_free_and_no_thread_is_left() -> None:
    first = Endpoint("localhost", [0], tuple, {})
    port = int(first.url.split(":")[2].split("/")[0])
    read(first.url)
    first.close()
    second = Endpoint("localhost", [port], tuple, {})
    assert second.url == first.url
    second.close()
    assert not [thread for thread in threading.enumerate() if thread.name == "headrace-metrics"]


def test_without_the_library_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "prometheus_client", None)
    with pytest.raises(ConfigError, match=r"pip install 'headrace\[metrics\]'"):
        Endpoint("localhost", [0], tuple, {})
