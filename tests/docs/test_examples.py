"""The examples run as they are, each as a user starts it; what they wrote is read by a consumer that knows neither."""

from __future__ import annotations

import json
import os
import runpy
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Consumer, Producer, TopicPartition
from tests.docs.pages import ROOT
from tests.kafka.jobs import TIMEOUT_S, committed

from headrace.broker import DevBroker

EXAMPLES = ROOT / "examples"
HOUR_MS = 3_600_000
NOON_MS = 1_767_268_800_000


class Example:
    """An example with its topics on the broker, and the folder that its jobs resume from."""

    def __init__(self, program: str, kafka: DevBroker, folder: Path, output: str, topics: Mapping[str, str]) -> None:
        self._program = EXAMPLES / program
        self._servers = kafka.bootstrap_servers
        self._folder = folder
        self._output = output
        clean = {name: value for name, value in os.environ.items() if not name.startswith("KAFKA_API_")}
        self._environment = {**clean, **topics, "KAFKA_BOOTSTRAP_SERVERS": self._servers, "PYTHONUNBUFFERED": "1"}
        self._producer = Producer({"bootstrap.servers": self._servers, "log_level": 2})

    @contextmanager
    def running(self, beginning: str) -> Iterator[None]:
        """Until the end of the block; the job says this when it starts, and stops by SIGTERM without complaint."""
        log = self._folder / "log"
        command = [sys.executable, "-m", "headrace", "run", "--state-dir", str(self._folder / "state")]
        command += ["-D", "execution.checkpointing.interval=100ms", str(self._program)]
        with log.open("wb") as file:
            process = subprocess.Popen(command, env=self._environment, stdout=file, stderr=subprocess.STDOUT)
        try:
            deadline = time.monotonic() + TIMEOUT_S
            while beginning not in log.read_text():
                assert process.poll() is None, log.read_text()
                assert time.monotonic() < deadline, log.read_text()
                time.sleep(0.01)
            yield
            process.send_signal(signal.SIGTERM)
            assert process.wait(TIMEOUT_S) == 0, log.read_text()
        finally:
            process.kill()
            process.wait()

    def produce(self, topic: str, *values: str) -> None:
        for value in values:
            self._producer.produce(topic, value)
        assert self._producer.flush(TIMEOUT_S) == 0

    def results(self) -> Iterator[str]:
        """Each result as it becomes visible."""
        settings = {"bootstrap.servers": self._servers, "group.id": self._output, "log_level": 2}
        consumer = Consumer({**settings, "isolation.level": "read_committed"})
        consumer.assign([TopicPartition(self._output, 0, 0)])
        try:
            while (message := consumer.poll(TIMEOUT_S)) is not None:
                assert message.error() is None, message.error()
                yield message.value().decode()
            pytest.fail(f"no more results in {TIMEOUT_S} s")
        finally:
            consumer.close()

    def all_results(self) -> list[str]:
        """Read anew, to the end."""
        return [value.decode() for value in committed(self._servers, self._output) if value is not None]


def test_upper_case_writes_every_line_in_upper_case(
    kafka: DevBroker, make_topic: Callable[..., str], tmp_path: Path
) -> None:
    read, written = make_topic(hint="in"), make_topic(hint="out")
    example = Example("upper_case.py", kafka, tmp_path, written, {"INPUT_TOPIC": read, "OUTPUT_TOPIC": written})
    example.produce(read, "to be", "or not", "größer")
    with example.running("starts from the beginning"):
        results = example.results()
        assert [next(results) for _ in range(3)] == ["TO BE", "OR NOT", "GRÖSSER"]
    results.close()
    assert example.all_results() == ["TO BE", "OR NOT", "GRÖSSER"]


def test_market_lag_compares_news_with_the_last_price_once_and_goes_on_after_a_stop(
    kafka: DevBroker, make_topic: Callable[..., str], tmp_path: Path
) -> None:
    news, prices, lags = make_topic(hint="news"), make_topic(hint="prices"), make_topic(hint="lags")
    topics = {"NEWS_TOPIC": news, "PRICE_TOPIC": prices, "LAG_TOPIC": lags}
    example = Example("market_lag.py", kafka, tmp_path, lags, topics)

    def item(title: str, market: str = "fed-cut", at_ms: int = NOON_MS) -> str:
        return json.dumps({"market": market, "ts": at_ms, "title": title})

    def price(price: float, at_ms: int) -> str:
        return json.dumps({"market": "fed-cut", "ts": at_ms, "price": price})

    def lag(title: str, price: float | None, lag_ms: int | None, market: str = "fed-cut") -> dict[str, Any]:
        return {"market": market, "title": title, "price": price, "lag_ms": lag_ms}

    example.produce(news, item("from before the first start"))
    example.produce(prices, price(0.99, NOON_MS))
    results = map(json.loads, visible := example.results())
    expected = []
    with example.running("starts from the beginning"):
        # Two topics have no common order: news goes on coming until the prices, the newest of which is not the last
        # one, have been seen.
        example.produce(prices, price(0.5, NOON_MS - HOUR_MS), price(0.25, NOON_MS - 2 * HOUR_MS))
        for title in map("probe {}".format, range(200)):
            example.produce(news, item(title))
            expected.append(next(results))
            if expected[-1] == lag(title, 0.5, HOUR_MS):
                break
            assert expected[-1] == lag(title, None, None)
        example.produce(news, item("another", "world-cup"), item("an old one", at_ms=NOON_MS - 3 * HOUR_MS))
        expected += [lag("another", None, None, "world-cup"), lag("an old one", 0.5, -2 * HOUR_MS)]
        assert [next(results) for _ in range(2)] == expected[-2:]

    example.produce(news, item("while it was stopped"))
    with example.running("resumes from"):
        expected.append(lag("while it was stopped", 0.5, HOUR_MS))
        assert next(results) == expected[-1]
    visible.close()
    assert [json.loads(result) for result in example.all_results()] == expected


def test_market_lag_logs_in_at_confluent_cloud_with_the_key_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KAFKA_BOOTSTRAP_SERVERS", "example.confluent.cloud:9092")
    monkeypatch.setenv("KAFKA_API_KEY", "KEY")
    monkeypatch.setenv("KAFKA_API_SECRET", "canary/+=")
    program = runpy.run_path(str(EXAMPLES / "market_lag.py"))
    source, sink = program["source"]("rss.events"), program["sink"]("market.lag")
    login = {
        "bootstrap.servers": "example.confluent.cloud:9092",
        "security.protocol": "SASL_SSL",
        "sasl.mechanism": "PLAIN",
        "sasl.username": "KEY",
        "sasl.password": "canary/+=",
    }
    assert login.items() <= source.client_settings("test").items()
    assert login.items() <= sink.client_settings().items()
    assert "canary" not in f"{source} {sink}"
