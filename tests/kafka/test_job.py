"""Whole jobs on real Kafka: what they say when something is not there, and what a stop leaves."""

from __future__ import annotations

import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from confluent_kafka import Producer
from tests.kafka.jobs import TIMEOUT_S, committed, environment, sink, source

from headrace.broker import DevBroker
from headrace.common import WatermarkStrategy
from headrace.errors import ExternalError, StateError
from headrace.kafka import DeliveryGuarantee
from headrace.kafka.client.provision import create_topics

Make = Callable[..., str]
GUARANTEES = list(DeliveryGuarantee)
SOON = {"default.api.timeout.ms": "1000"}


@pytest.fixture
def nobody() -> Iterator[str]:
    """An address that refuses connections."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield f"127.0.0.1:{taken.getsockname()[1]}"


def test_brokers_that_are_not_there_end_a_job_that_reads_them_in_the_stated_time(nobody: str, kafka: DevBroker) -> None:
    env = environment()
    stream = env.from_source(source(nobody, "in", SOON), WatermarkStrategy.no_watermarks(), "in")
    stream.sink_to(sink(kafka.bootstrap_servers, "out", DeliveryGuarantee.NONE))
    begun = time.monotonic()
    with pytest.raises(ExternalError, match=rf"{nobody} cannot be reached.*refused.*`default.api.timeout.ms`"):
        env.execute("reads nothing")
    assert 1 <= time.monotonic() - begun < 3


@pytest.mark.parametrize("guarantee", GUARANTEES)
def test_brokers_that_are_not_there_end_a_job_that_writes_to_them_in_the_stated_time(
    guarantee: DeliveryGuarantee, nobody: str, tmp_path: Path
) -> None:
    env = environment(tmp_path)
    env.from_collection(["a"]).sink_to(sink(nobody, "out", guarantee, SOON))
    begun = time.monotonic()
    with pytest.raises(ExternalError, match=rf"{nobody} cannot be reached.*refused.*`default.api.timeout.ms`"):
        env.execute("writes nothing")
    assert 1 <= time.monotonic() - begun < 3


@pytest.mark.parametrize("guarantee", GUARANTEES)
def test_topics_that_do_not_exist_end_a_job_at_once(
    guarantee: DeliveryGuarantee, kafka: DevBroker, make_topic: Make, topic_name: Make, tmp_path: Path
) -> None:
    servers, exists, missing = kafka.bootstrap_servers, make_topic(), topic_name("missing")
    for read, written in ((missing, exists), (exists, missing)):
        env = environment(tmp_path / read)
        stream = env.from_source(source(servers, read), WatermarkStrategy.no_watermarks(), "in")
        stream.sink_to(sink(servers, written, guarantee))
        begun = time.monotonic()
        with pytest.raises(ExternalError, match=f"'{missing}'.*create"):
            env.execute("a misspelt name")
        assert time.monotonic() - begun < 2


def test_a_job_moves_to_another_cluster_only_when_it_starts_over(
    kafka: DevBroker, other_kafka: DevBroker, make_topic: Make, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    topic = make_topic()
    create_topics(other_kafka.bootstrap_servers, {topic: 1})

    def run(broker: DevBroker, **options: str) -> None:
        env = environment(tmp_path, **options)
        env.from_collection(["a", "b"]).sink_to(sink(broker.bootstrap_servers, topic))
        env.execute("moving")

    run(kafka)
    with pytest.raises(StateError, match=r"on cluster .* now writes to cluster .*`--fresh`"):
        run(other_kafka)
    assert committed(other_kafka.bootstrap_servers, topic) == []
    run(other_kafka, headrace_fresh="true")
    assert "cannot be reached, what it left open ends with its timeout" in caplog.text
    assert committed(other_kafka.bootstrap_servers, topic) == [b"a", b"b"]
    # And back, over the marker that it left there.
    run(kafka, headrace_fresh="true")
    assert committed(kafka.bootstrap_servers, topic) == [b"a", b"b"] * 2


ENDLESS = """if True:
    import sys
    from tests.kafka.jobs import environment, sink
    from headrace.common import WatermarkStrategy
    from headrace.common.serialization import SimpleStringSchema
    from headrace.kafka import DeliveryGuarantee, KafkaSource

    servers, read, written = sys.argv[1:]
    env = environment()
    source = KafkaSource.builder().set_bootstrap_servers(servers).set_topics(read)
    source = source.set_value_only_deserializer(SimpleStringSchema()).build()
    stream = env.from_source(source, WatermarkStrategy.no_watermarks(), "in")
    # Records wait for a minute: only a flush sends them earlier.
    lingering = {"linger.ms": "60000"}

    def tell(value):
        if value == "last":
            print("seen", flush=True)
        return value

    stream.map(tell).sink_to(sink(servers, written, DeliveryGuarantee.NONE, lingering))
    env.execute("endless")
"""


def test_without_a_guarantee_a_clean_stop_still_delivers_everything_written(kafka: DevBroker, make_topic: Make) -> None:
    servers, read, written = kafka.bootstrap_servers, make_topic(), make_topic()
    values = [b"%d" % number for number in range(1000)] + [b"last"]
    producer = Producer({"bootstrap.servers": servers, "log_level": 2})
    for value in values:
        producer.produce(read, value)
    assert producer.flush(TIMEOUT_S) == 0
    program = [sys.executable, "-c", ENDLESS, servers, read, written]
    environ = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    with subprocess.Popen(program, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environ) as job:
        assert job.stdout is not None
        assert select.select([job.stdout], [], [], TIMEOUT_S)[0], "the job saw nothing"
        assert committed(servers, written) == []
        job.send_signal(signal.SIGTERM)
        _, errors = job.communicate(timeout=TIMEOUT_S)
    assert job.returncode == 0, errors
    assert committed(servers, written) == values
