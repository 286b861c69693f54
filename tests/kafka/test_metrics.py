"""Metrics of whole jobs on real Kafka, as Prometheus reads them."""

from __future__ import annotations

import re
import time
import urllib.request
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TypeAlias

import prometheus_client.openmetrics.parser as openmetrics
import prometheus_client.parser as text_format
import pytest
from confluent_kafka import Producer
from tests.kafka.jobs import TIMEOUT_S, environment, sink

from headrace.broker import DevBroker
from headrace.common import WatermarkStrategy
from headrace.connector import ErrorPolicy, SinkWriter, SourceContext, TransactionContext, WriterContext
from headrace.datastream import DataStream, MapFunction, RuntimeContext
from headrace.errors import ExternalError
from headrace.kafka import DeadLetterSerializationSchema, DeliveryGuarantee, KafkaSink, KafkaSourceBuilder
from headrace.kafka.client.protocol import KafkaTopicPartition
from headrace.kafka.split import KafkaSplit
from headrace.runtime import Job

Make = Callable[..., str]
Read = Callable[..., KafkaSourceBuilder]
Labels: TypeAlias = "frozenset[tuple[str, str]]"
NO_TIME = WatermarkStrategy.no_watermarks()
JOB, OPERATOR = "flink_jobmanager_job_", "flink_taskmanager_job_task_operator_"


class Metrics:
    """What an endpoint shows at one moment."""

    def __init__(self, url: str) -> None:
        self.values: dict[str, dict[Labels, float]] = defaultdict(dict)
        plain = urllib.request.urlopen(url, timeout=TIMEOUT_S).read().decode()
        for family in text_format.text_string_to_metric_families(plain):
            for sample in family.samples:
                labels = frozenset(sample.labels.items())
                assert labels not in self.values[sample.name]
                self.values[sample.name][labels] = sample.value
        wanted = urllib.request.Request(url, headers={"Accept": "application/openmetrics-text; version=1.0.0"})
        with urllib.request.urlopen(wanted, timeout=TIMEOUT_S) as answer:
            assert answer.headers["Content-Type"].startswith("application/openmetrics-text")
            families = list(openmetrics.text_string_to_metric_families(answer.read().decode()))
        assert {family.type for family in families} == {"gauge"}

    def of(self, name: str, **labels: str) -> list[float]:
        """All values of a metric with these labels."""
        wanted = labels.items()
        return [value for have, value in self.values.get(name, {}).items() if wanted <= dict(have).items()]

    def total(self, name: str, operator: str, **labels: str) -> float | None:
        """The sum over all subtasks of an operator; None: there is no such metric."""
        found = self.of(OPERATOR + name, operator_name=operator, **labels)
        return sum(found) if found else None

    def job(self, name: str) -> float:
        (value,) = self.of(JOB + name)
        return value


@contextmanager
def shown(stream: DataStream, name: str, caplog: pytest.LogCaptureFixture) -> Iterator[Callable[..., Metrics]]:
    """Run a job; what is given waits until its metrics are as a function of them wants it."""
    caplog.set_level("INFO", logger="headrace")
    job = stream.get_execution_environment().execute_async(name)
    assert isinstance(job, Job)
    deadline = time.monotonic() + TIMEOUT_S

    def until(wanted: Callable[[Metrics], object]) -> Metrics:
        while True:
            url = re.search(rf"metrics of job `{name}`: (\S+)", caplog.text)
            metrics = None
            if url is not None and not job.has_ended:
                metrics = Metrics(url[1])
                if wanted(metrics):
                    return metrics
            assert not job.has_ended, job.take_unheard_failure()
            assert time.monotonic() < deadline, metrics and dict(metrics.values)
            time.sleep(0.05)

    try:
        yield until
    finally:
        job.cancel().result()


@contextmanager
def held_back(servers: str, values: Mapping[KafkaTopicPartition, list[bytes]], name: str) -> Iterator[Producer]:
    """Records that are in the log, and that a `read_committed` reader sees only once they are committed."""
    producer = Producer({"bootstrap.servers": servers, "transactional.id": name})
    producer.init_transactions()
    producer.begin_transaction()
    for at, each in values.items():
        for value in each:
            producer.produce(at.topic, value, partition=at.partition, timestamp=int(time.time() * 1000))
    assert producer.flush(TIMEOUT_S) == 0
    yield producer


class Counted(MapFunction):
    """With metrics of its own, and a record that it cannot stand."""

    def open(self, runtime_context: RuntimeContext) -> None:
        group = runtime_context.get_metrics_group()
        self._seen = group.add_group("shop", "books & more").counter("seen")
        self._sizes = group.distribution("sizes")
        self._events = group.meter("events")
        group.gauge("subtask", runtime_context.get_index_of_this_subtask)

    def map(self, value: str) -> str:
        if value.startswith("bad"):
            raise ValueError("bad")
        self._seen.inc()
        self._sizes.update(len(value))
        self._events.mark_event(2)
        return value


def refuse_worse(value: str) -> str:
    if value.startswith("worse"):
        raise ValueError("worse")
    return value


def dead_letters(servers: str, topic: str, prefix: str) -> KafkaSink:
    builder = KafkaSink.builder().set_bootstrap_servers(servers)
    builder.set_record_serializer(DeadLetterSerializationSchema(topic))
    return builder.set_delivery_guarantee(DeliveryGuarantee.EXACTLY_ONCE).set_transactional_id_prefix(prefix).build()


@pytest.mark.parametrize("lanes", [1, 2])
def test_every_metric_of_the_page_is_shown_with_its_value(
    lanes: int, kafka: DevBroker, read: Read, make_topic: Make, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    servers, source, target, dead = kafka.bootstrap_servers, make_topic(partitions=2), make_topic(), make_topic()
    values = {
        KafkaTopicPartition(source, 0): [b"good 1", b"bad 22", b"good 333", b"dull"],
        KafkaTopicPartition(source, 1): [b"worse", b"good 4444", b"bad", b"good"],
    }
    env = environment(
        tmp_path,
        metrics_reporters="prom",
        metrics_reporter_prom_port="0",
        execution_checkpointing_interval="200 ms",
        parallelism_default=str(lanes),
    )
    builder = read(source).set_group_id(source).set_property("isolation.level", "read_committed")
    stream = env.from_source(builder.build(), WatermarkStrategy.for_monotonous_timestamps(), "in")
    stream = stream.map(Counted()).name("count").on_error(ErrorPolicy.drop())
    stream = (
        stream.map(refuse_worse)
        .name("refuse")
        .on_error(ErrorPolicy.dead_letter(dead_letters(servers, dead, f"{target}-prefix")))
    )
    stream = stream.filter(lambda value: value.startswith("good")).name("good")
    stream.sink_to(sink(servers, target)).name("out")

    with held_back(servers, values, f"{source}-writer") as producer, shown(stream, f"all-{lanes}", caplog) as until:
        before = until(lambda m: m.total("pendingRecords", "in") == 8)
        assert before.total("numRecordsIn", "in") == 0
        assert before.of(f"{OPERATOR}KafkaSourceReader_topic_partition_currentOffset") == [-1, -1]
        producer.commit_transaction()
        # Behind four records the end of their transaction.
        log_ends = [5, 5]

        def is_done(m: Metrics) -> bool:
            committed = m.of(f"{OPERATOR}KafkaSourceReader_topic_partition_committedOffset")
            # What comes of a client's statistics comes up to a second later than the rest.
            consumer = "KafkaSourceReader_KafkaConsumer_topic_partition"
            return (
                sorted(committed) == log_ends
                and (m.total("numBytesSend", "out") or 0) >= 27
                and (m.total(f"{consumer}_rxmsgs", "in", topic=source) or 0) >= 10
                and m.total(f"{consumer}_records_lag", "in", topic=source) == 0
            )

        after = until(is_done)

    def came_and_went(operator: str) -> tuple[float | None, float | None]:
        return after.total("numRecordsIn", operator), after.total("numRecordsOut", operator)

    assert [came_and_went(name) for name in ("in", "count", "refuse", "good", "out")] == [
        (8, 8),
        (8, 6),
        (6, 5),
        (5, 4),
        (4, 4),
    ]
    assert after.total("pendingRecords", "in") == 0
    assert after.total("numBytesIn", "in") == sum(len(value) for each in values.values() for value in each)
    assert after.total("numRecordsInErrors", "in") == 0
    assert after.total("numRecordsDropped", "count") == 2
    assert after.total("numDeadLetters", "refuse") == 1
    for number, last in enumerate((3, 3)):
        place = {"topic": source, "partition": str(number)}
        assert after.total("KafkaSourceReader_topic_partition_currentOffset", "in", **place) == last
        assert after.total("KafkaSourceReader_topic_partition_committedOffset", "in", **place) == log_ends[number]
    assert (after.total("KafkaSourceReader_commitsSucceeded", "in") or 0) >= lanes
    assert after.total("KafkaSourceReader_commitsFailed", "in") == 0
    # The ends of the writer's transaction are records for the client.
    assert after.total("KafkaSourceReader_KafkaConsumer_records_consumed_total", "in") == 10
    assert after.total("KafkaSourceReader_KafkaConsumer_topic_partition_records_lag", "in", topic=source) == 0
    assert after.total("KafkaSourceReader_KafkaConsumer_topic_partition_rxmsgs", "in", topic=source) == 10
    assert (after.total("currentSendTime", "out") or 0) > 0
    assert after.total("numRecordsSendErrors", "out") == after.total("numRecordsOutErrors", "out") == 0
    assert after.total("numBytesOut", "out") == after.total("numBytesSend", "out")
    assert (after.total("KafkaProducer_record_send_total", "out") or 0) >= 4
    successful = after.total("successfulCommittables", "out") or 0
    assert successful >= lanes
    assert after.total("failedCommittables", "out") == after.total("retriedCommittables", "out") == 0
    assert 0 <= (after.total("totalCommittables", "out") or 0) - successful <= lanes
    assert 0 < min(after.of(f"{OPERATOR}currentEmitEventTimeLag")) < TIMEOUT_S * 1000
    assert 0 < min(after.of(f"{OPERATOR}watermarkLag")) < TIMEOUT_S * 1000
    assert 0 < min(after.of(f"{OPERATOR}sourceIdleTime")) < TIMEOUT_S * 1000
    now_ms = time.time() * 1000
    for name in ("currentInputWatermark", "currentOutputWatermark"):
        assert all(now_ms - at < TIMEOUT_S * 1000 for at in after.of(OPERATOR + name, operator_name="count"))
    assert after.total("shop_seen", "count", shop="books & more") == 6
    assert after.total("sizes_sum", "count") == 36
    assert (after.total("events", "count") or 0) > 0
    assert sorted(after.of(f"{OPERATOR}subtask")) == list(range(lanes))
    assert sorted(dict(have)["subtask_index"] for have in after.values[f"{OPERATOR}subtask"]) == ["0", "1"][:lanes]
    assert after.job("numRestarts") == after.job("numberOfFailedCheckpoints") == after.job("downtime") == 0
    assert after.job("uptime") > 0
    assert after.job("numberOfCompletedCheckpoints") >= 1
    assert after.job("lastCompletedCheckpointId") >= 1
    assert after.job("lastCheckpointDuration") >= 0

    page = (Path(__file__).parents[2] / "docs" / "metrics.md").read_text(encoding="utf-8")
    own = {OPERATOR + name for name in ("shop_seen", "events", "subtask")}
    shown_names = {name for name in after.values if not name.startswith(f"{OPERATOR}sizes_")} - own
    assert names_on(page) - shown_names == set()
    # What librdkafka says besides has a page of its own.
    assert {n for n in shown_names - names_on(page) if not re.search("_Kafka(Consumer|Producer)_", n)} == set()


def names_on(page: str) -> set[str]:
    """The names of a page's tables, as Prometheus has them."""
    names: set[str] = set()
    prefix = ""
    for line in page.splitlines():
        if found := re.match(r"Scope: `(\w+)`", line):
            prefix = f"flink_{found[1]}_"
        elif line.startswith("| `"):
            for name in re.findall("`(.*?)`", line.split("|")[1]):
                names.add(prefix + re.sub("[.-]", "_", re.sub(r"\.<\w+>", "", name)))
    return names


def test_the_lag_is_known_before_anything_is_read_also_of_what_is_paused(
    kafka: DevBroker, read: Read, make_topic: Make
) -> None:
    topic = make_topic(partitions=2)
    producer = Producer({"bootstrap.servers": kafka.bootstrap_servers})
    for number in range(7):
        producer.produce(topic, b"x", partition=number % 2)
    producer.flush(TIMEOUT_S)
    reader = read(topic).build().create_reader(SourceContext("job", "in", 0, 1, False, is_reported=True))
    splits = [KafkaSplit(KafkaTopicPartition(topic, number), 1) for number in range(2)]
    try:
        reader.add_splits(splits)
        reader.pause_or_resume_splits([split.split_id for split in splits], [])
        deadline = time.monotonic() + TIMEOUT_S
        while reader.lag() is None:
            assert time.monotonic() < deadline
            list(reader.metrics())
        assert reader.lag() == 3 + 2
        assert [row.value for row in reader.metrics() if row.name == "currentOffset"] == [-1, -1]
        lags = {row.groups[-1]: row.value for row in reader.metrics() if row.name == "records-lag"}
        assert lags == {("partition", "0"): 3, ("partition", "1"): 2}
    finally:
        reader.close()


@pytest.mark.parametrize("guarantee", [DeliveryGuarantee.AT_LEAST_ONCE, DeliveryGuarantee.EXACTLY_ONCE])
def test_records_that_were_not_delivered_are_counted(
    guarantee: DeliveryGuarantee, kafka: DevBroker, make_topic: Make, topic_name: Make
) -> None:
    topic, fine = make_topic(**{"max.message.bytes": "1000"}), make_topic()
    sinks = [sink(kafka.bootstrap_servers, name, guarantee) for name in (topic, fine)]
    transaction = None
    if guarantee is DeliveryGuarantee.EXACTLY_ONCE:
        where = TransactionContext(topic_name("job"), "region", 1_000, 10_000, is_reported=True)
        transaction = sinks[0].create_transaction(sinks, [], where)
        transaction.fence()
    writers = [each.create_writer(WriterContext("job", "out", 0, 1, is_reported=True), transaction) for each in sinks]

    def shown(writer: SinkWriter) -> dict[str, float]:
        return {row.name: row.value for row in writer.metrics() if not row.groups}

    try:
        writers[0].write([b"x" * 5_000], None)
        with pytest.raises(ExternalError, match=topic):
            writers[0].flush()
        assert shown(writers[0])["numRecordsSendErrors"] == shown(writers[0])["numRecordsOutErrors"] == 1
        assert shown(writers[1])["numRecordsSendErrors"] == 0
        if transaction is not None:
            with pytest.raises(ExternalError):
                transaction.commit("marker")
            assert shown(writers[0])["successfulCommittables"] == 0
    finally:
        for part in (*writers, *([] if transaction is None else [transaction])):
            part.close()


def test_a_clients_own_metrics_can_be_left_out(
    kafka: DevBroker, read: Read, make_topic: Make, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    source, target = make_topic(), make_topic()
    env = environment(tmp_path, metrics_reporter_prom_port="0")
    builder = read(source).set_property("register.consumer.metrics", "false")
    off = {"flink.disable-metrics": "true"}
    out = sink(kafka.bootstrap_servers, target, DeliveryGuarantee.AT_LEAST_ONCE, off)
    stream = env.from_source(builder.build(), NO_TIME, "in")
    stream.sink_to(out).name("out")
    producer = Producer({"bootstrap.servers": kafka.bootstrap_servers})
    producer.produce(source, b"four")
    producer.flush(TIMEOUT_S)
    with shown(stream, "quiet", caplog) as until:
        metrics = until(lambda m: (m.total("numBytesOut", "out") or 0) >= 4 and m.total("numBytesIn", "in") == 4)
    assert [name for name in metrics.values if "KafkaConsumer" in name or "KafkaProducer" in name] == []
