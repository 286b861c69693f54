"""`headrace check`, each finding against a broker that has the fault."""

from __future__ import annotations

import json
import shutil
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Set
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.admin import AdminClient
from tests.kafka.jobs import TIMEOUT_S, committed, environment, sink, source
from tests.kafka.secured import MINIMAL_USER, Secured, plain_line
from tests.kafka.test_rights import TABLE, Names, Right, names
from tests.kafka.test_security import TLS, certified, has_canary, java, librdkafka

from headrace.broker import DevBroker
from headrace.cli.main import main
from headrace.common import SimpleStringSchema, WatermarkStrategy
from headrace.datastream import StreamExecutionEnvironment
from headrace.kafka import KafkaOffsetsInitializer, KafkaSource, KafkaSubscriber, survey
from headrace.kafka.client.protocol import Admin, KafkaTopicPartition
from headrace.kafka.client.provision import create_topics

__all__ = ["names"]

PROGRAM = """
import json, sys
from headrace.common import SimpleStringSchema, WatermarkStrategy
from headrace.datastream import ErrorPolicy, StreamExecutionEnvironment
from headrace.kafka import (
    DeliveryGuarantee, KafkaOffsetsInitializer, KafkaRecordSerializationSchema, KafkaSink, KafkaSource
)

said = json.loads(sys.argv[1])
env = StreamExecutionEnvironment.get_execution_environment()
print("not part of the answer")
for number, reads in enumerate(said["reads"]):
    reading = KafkaSource.builder().set_value_only_deserializer(SimpleStringSchema())
    reading.set_properties(reads["properties"])
    reading.set_topic_pattern(reads["topic"]) if "*" in reads["topic"] else reading.set_topics(reads["topic"])
    reading.set_starting_offsets(eval("KafkaOffsetsInitializer." + reads["starting"]))
    stream = env.from_source(reading.build(), WatermarkStrategy.no_watermarks(), "in" + "+" * number)
    for writes in said["writes"]:
        schema = KafkaRecordSerializationSchema.builder().set_topic(writes["topic"])
        schema.set_value_serialization_schema(SimpleStringSchema())
        writing = KafkaSink.builder().set_record_serializer(schema.build())
        writing.set_delivery_guarantee(DeliveryGuarantee[writes["guarantee"]])
        writing.set_transactional_id_prefix(writes["topic"] + "-prefix").set_properties(writes["properties"])
        written = stream.sink_to(writing.build()).name("out")
        if said.get("tolerates"):
            written.on_error(ErrorPolicy.drop())
    if not said["writes"]:
        stream.print()
env.execute(said["job"])
"""

JOB = "checked"
INTERVAL = {"execution.checkpointing.interval": "1 s"}


def reads(servers: str, topic: str, starting: str = "earliest()", **properties: str) -> dict[str, Any]:
    return {"topic": topic, "starting": starting, "properties": {"bootstrap.servers": servers, **_named(properties)}}


def writes(servers: str, topic: str, guarantee: str = "EXACTLY_ONCE", **properties: str) -> dict[str, Any]:
    named = {"bootstrap.servers": servers, **_named(properties)}
    return {"topic": topic, "guarantee": guarantee, "properties": named}


def _named(properties: Mapping[str, str]) -> dict[str, str]:
    return {name.replace("_", "."): value for name, value in properties.items()}


@dataclass(frozen=True)
class Found:
    """What a check said. `findings` as in JSON."""

    status: int
    findings: list[dict[str, Any]]
    stderr: str

    def of(self, area: str, *severities: str) -> list[dict[str, Any]]:
        wanted = severities or ("error", "warning")
        return [one for one in self.findings if one["area"] == area and one["severity"] in wanted]

    @property
    def grave(self) -> list[dict[str, Any]]:
        return [one for one in self.findings if one["severity"] != "note"]


class Check:
    """Runs `headrace check` for a program that reads and writes what it is told."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.program = folder / "program.py"
        self.program.write_text(PROGRAM)

    def run(
        self,
        read: dict[str, Any] | list[dict[str, Any]],
        write: dict[str, Any] | list[dict[str, Any]] | None = None,
        *options: str,
        job: str = JOB,
        tolerates: bool = False,
        **settings: str,
    ) -> Result:
        said = {
            "job": job,
            "tolerates": tolerates,
            "reads": read if isinstance(read, list) else [read],
            "writes": write if isinstance(write, list) else [] if write is None else [write],
        }
        given = [f"-D{key.replace('_', '.')}={value}" for key, value in {**INTERVAL, **settings}.items() if value]
        return CliRunner().invoke(main, ["check", *options, *given, str(self.program), json.dumps(said)])

    def __call__(
        self,
        read: dict[str, Any] | list[dict[str, Any]],
        write: dict[str, Any] | list[dict[str, Any]] | None = None,
        *,
        tolerates: bool = False,
        **settings: str,
    ) -> Found:
        result = self.run(read, write, "--json", tolerates=tolerates, **settings)
        assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
        assert result.stdout, result.stderr
        answer = json.loads(result.stdout)
        assert sum(answer["counts"].values()) == len(answer["findings"])
        return Found(result.exit_code, answer["findings"], result.stderr)


@pytest.fixture
def check(tmp_path: Path) -> Check:
    return Check(tmp_path)


def only(findings: list[dict[str, Any]]) -> dict[str, Any]:
    assert len(findings) == 1, findings
    return findings[0]


@contextmanager
def member(servers: str, group: str, topic: str) -> Iterator[None]:
    """Somebody else's application in a group."""
    consumer = Consumer({"bootstrap.servers": servers, "group.id": group, "client.id": "somebody", "log_level": 2})
    consumer.subscribe([topic])
    deadline = time.monotonic() + TIMEOUT_S
    while not consumer.assignment():
        assert time.monotonic() < deadline
        consumer.poll(0.1)
    try:
        yield
    finally:
        consumer.close()


def produce(servers: str, topic: str, *values: str) -> None:
    producer = Producer({"bootstrap.servers": servers, "log_level": 2})
    for value in values:
        producer.produce(topic, value)
    assert producer.flush(TIMEOUT_S) == 0


# What it looks like


def test_a_job_that_would_run_is_said_to(kafka: DevBroker, make_topic: Callable[..., str], check: Check) -> None:
    read, written = make_topic(hint="in"), make_topic(hint="out")
    servers = kafka.bootstrap_servers
    job = reads(servers, read, group_id=read), writes(servers, written)
    found = check(*job)
    assert found.status == 0
    assert found.grave == []
    assert "not part of the answer" in found.stderr
    assert f"connecting to {servers}" in found.stderr
    table = check.run(*job)
    assert table.exit_code == 0
    assert "nothing would go wrong (0 errors, 0 warnings" in table.stdout
    assert f"job `{JOB}`: {servers} (cluster " in table.stdout
    assert check.run(*job, "--strict").exit_code == 0
    assert not (check.folder / ".headrace").exists()


def test_a_table_holds_each_finding_and_a_warning_fails_a_strict_check(
    kafka: DevBroker, make_topic: Callable[..., str], topic_name: Callable[[str], str], check: Check
) -> None:
    servers, short, missing = kafka.bootstrap_servers, make_topic(**{"retention.ms": "1000"}), topic_name("missing")
    warned = check.run(reads(servers, short))
    assert warned.exit_code == 0
    assert "0 errors, 1 warning," in warned.stdout
    assert check.run(reads(servers, short), None, "--strict").exit_code == 1
    failed = check.run([reads(servers, short), reads(servers, missing)])
    assert failed.exit_code == 1
    lines = failed.stdout.splitlines()
    severities = [line.split()[0] for line in lines if line.split()[:1] and line.split()[0] in ("error", "warning")]
    assert severities == ["error", "warning"]
    assert f"topic '{missing}'" in failed.stdout
    assert "1 error, 1 warning," in failed.stdout


def test_a_program_without_a_job_or_with_a_wrong_setting_was_not_checked(check: Check) -> None:
    check.program.write_text("print('nothing to do')")
    idle = CliRunner().invoke(main, ["check", str(check.program)])
    assert idle.exit_code == 1
    assert "starts no job, so nothing was checked" in idle.stderr
    check.program.write_text(PROGRAM)
    wrong = check.run(reads("127.0.0.1:1", "t"), None, **{"execution.checkpointing.interval": "soon"})
    assert wrong.exit_code == 2
    assert "`execution.checkpointing.interval`" in wrong.stderr


# The plan


def test_a_plan_that_is_refused_is_a_finding_beside_those_of_the_cluster(
    kafka: DevBroker, make_topic: Callable[..., str], topic_name: Callable[[str], str], check: Check
) -> None:
    servers = kafka.bootstrap_servers
    found = check(
        reads(servers, make_topic()), writes(servers, topic_name("gone")), **{"execution.checkpointing.interval": ""}
    )
    assert found.status == 1
    refusal = only(found.of("plan"))
    assert "delivers exactly once, but checkpoints are off" in refusal["problem"]
    assert "`execution.checkpointing.interval`" in refusal["cure"]
    assert only(found.of("topic"))["subject"].startswith("topic 'gone-")


def test_exactly_once_sinks_that_cannot_share_a_transaction_are_named(
    kafka: DevBroker,
    other_kafka: DevBroker,
    make_topic: Callable[..., str],
    topic_name: Callable[[str], str],
    check: Check,
) -> None:
    servers, read, written, other = kafka.bootstrap_servers, make_topic(), make_topic(), topic_name("other")
    create_topics(other_kafka.bootstrap_servers, {other: 1})
    two = check(reads(servers, read), [writes(servers, written), writes(other_kafka.bootstrap_servers, other)])
    assert two.status == 1
    assert any("write to several clusters, which no transaction spans" in one["problem"] for one in two.of("plan"))
    apart = check(reads(servers, read), [writes(servers, written, linger_ms="5"), writes(servers, read, linger_ms="9")])
    assert any("`linger.ms` is '5' for one and '9' for the other" in one["problem"] for one in apart.of("plan"))


def test_what_is_alike_in_all_lanes_is_told_once(
    kafka: DevBroker, make_topic: Callable[..., str], check: Check
) -> None:
    job = reads(kafka.bootstrap_servers, make_topic(partitions=3)), writes(kafka.bootstrap_servers, make_topic())
    found = check(*job, parallelism_default="3")
    assert found.grave == []
    assert only(found.of("rights", "note"))["subject"].endswith("-0' and its like in 2 other lanes")


# Connections

WRONG: dict[str, tuple[str, Callable[[Secured, Path], Mapping[str, str]], str, str | None, str]] = {
    "password": (
        "servers",
        lambda at, _: java(at.ca, "canary-of-a-typo"),
        "authentication",
        "sasl.password",
        "Invalid username or password",
    ),
    "mechanism": (
        "servers",
        lambda at, _: {**librdkafka(at.ca), "sasl.mechanisms": "SCRAM-SHA-512"},
        "authentication",
        "sasl.mechanism",
        "refused the login",
    ),
    "authority": (
        "servers",
        lambda at, _: java(at.other_ca),
        "tls",
        "ssl.ca.location",
        "no authority that is trusted here",
    ),
    "host": (
        "misnamed_servers",
        lambda at, _: {**TLS, "ssl.truststore.location": str(at.ca)},
        "tls",
        "bootstrap.servers",
        "is for another host",
    ),
    "expired": (
        "expired_servers",
        lambda at, _: {**TLS, "ssl.truststore.location": str(at.ca)},
        "tls",
        None,
        "has expired",
    ),
    "no client certificate": (
        "certificate_servers",
        lambda at, _: {**TLS, "ssl.truststore.location": str(at.ca)},
        "tls",
        "ssl.certificate.location",
        "want a client certificate",
    ),
    "expired client certificate": (
        "certificate_servers",
        lambda at, folder: certified(at, folder, is_expired=True),
        "tls",
        "ssl.certificate.location",
        "do not take the client certificate",
    ),
    "plain where TLS is wanted": ("servers", lambda at, _: {}, "connection", "security.protocol", "over TLS"),
    "TLS where there is none": (
        "open_servers",
        lambda at, _: librdkafka(at.ca),
        "connection",
        "security.protocol",
        "cannot be reached",
    ),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_what_is_wrong_with_a_connection_is_recognised_and_hides_nothing_elsewhere(
    wrong: str,
    secured: Secured,
    kafka: DevBroker,
    topic_name: Callable[[str], str],
    tmp_path: Path,
    check: Check,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    where, make, area, setting, text = WRONG[wrong]
    # Nobody waits for a time to run out.
    monkeypatch.setattr(survey, "_CALL_S", TIMEOUT_S)
    missing = topic_name("missing")
    read = reads(getattr(secured, where), "in")
    read["properties"] |= make(secured, tmp_path)
    begun = time.monotonic()
    found = check(read, writes(kafka.bootstrap_servers, missing, "AT_LEAST_ONCE"))
    assert time.monotonic() - begun < TIMEOUT_S * 0.8
    assert found.status == 1
    trouble = only(found.of(area, "error"))
    assert trouble["setting"] == setting
    assert text in trouble["problem"]
    assert "needed by `in`" in trouble["problem"]
    assert trouble["cure"]
    assert only(found.of("topic"))["subject"] == f"topic '{missing}'"
    assert not has_canary(json.dumps(found.findings) + found.stderr)


def test_brokers_that_are_not_there_are_told_of_in_bounded_time(check: Check) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        begun = time.monotonic()
        found = check(reads(f"127.0.0.1:{taken.getsockname()[1]}", "in", default_api_timeout_ms="1000"))
        assert time.monotonic() - begun < 8
    assert found.status == 1
    refused = only(found.of("connection"))
    assert "refused" in refused["problem"]
    assert refused["setting"] == "bootstrap.servers"


def test_a_broker_that_does_not_answer_is_given_up_and_hides_nothing_elsewhere(
    kafka: DevBroker,
    other_kafka: DevBroker,
    topic_name: Callable[[str], str],
    check: Check,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(survey, "_CALL_S", TIMEOUT_S)
    missing, servers = topic_name("missing"), other_kafka.bootstrap_servers
    other_kafka.pause()
    try:
        begun = time.monotonic()
        found = check([reads(servers, "in", default_api_timeout_ms="1000"), reads(kafka.bootstrap_servers, missing)])
        assert time.monotonic() - begun < TIMEOUT_S * 0.8
    finally:
        other_kafka.resume()
    assert only(found.of("connection", "error"))["subject"] == f"brokers {servers}"
    assert only(found.of("topic", "error"))["subject"] == f"topic '{missing}'"


class _Stuck(KafkaSubscriber):
    """Never comes back, until the test is over."""

    ended = threading.Event()

    def get_subscribed_topic_partitions(self, admin_client: Admin) -> Set[KafkaTopicPartition]:
        self.ended.wait(TIMEOUT_S)
        return set()


def test_a_subscriber_that_never_comes_back_is_waited_for_in_bounded_time(
    kafka: DevBroker, monkeypatch: pytest.MonkeyPatch, check: Check
) -> None:
    monkeypatch.setattr(survey, "_ROUND_S", 1.0)
    check.program.write_text(
        PROGRAM.replace('reading.set_topics(reads["topic"])', "reading.set_kafka_subscriber(_Stuck())").replace(
            "import json, sys", "import json, sys\nfrom tests.kafka.test_check import _Stuck"
        )
    )
    try:
        found = check(reads(kafka.bootstrap_servers, "in"))
    finally:
        _Stuck.ended.set()
    assert "no answer within 1 s" in only(found.of("connection"))["problem"]
    assert found.status == 1


# Topics


def test_topics_that_are_missing_are_named_and_not_created(
    kafka: DevBroker,
    other_kafka: DevBroker,
    make_topic: Callable[..., str],
    topic_name: Callable[[str], str],
    check: Check,
) -> None:
    servers, creating, missing = kafka.bootstrap_servers, other_kafka.bootstrap_servers, topic_name("missing")
    found = check(reads(servers, missing), writes(servers, make_topic(), "AT_LEAST_ONCE"))
    assert only(found.of("topic", "error"))["problem"] == "`in` reads it, and it does not exist"
    found = check(reads(servers, make_topic()), writes(servers, missing, "AT_LEAST_ONCE"))
    assert only(found.of("topic", "error"))["setting"] == "auto.create.topics.enable"
    assert found.status == 1
    found = check(reads(creating, missing), writes(creating, missing, "AT_LEAST_ONCE"))
    assert only(found.of("topic", "error"))["problem"] == "`in` reads it, and it does not exist"
    told = only(found.of("topic", "warning"))
    assert "a start has the brokers create it, with their defaults (`num.partitions` 1," in told["problem"]
    found = check(reads(servers, f"{missing}.*"))
    assert "no topic that it may see does" in only(found.of("topic", "warning"))["problem"]
    marked = check(reads(servers, make_topic()), writes(servers, make_topic(), headrace_marker_topic=missing))
    assert only(marked.of("topic", "error"))["setting"] == "headrace.marker.topic"
    existing = AdminClient({"bootstrap.servers": creating, "log_level": 2}).list_topics(timeout=TIMEOUT_S).topics
    assert missing not in existing


# Rights


def minimal(secured: Secured, names: Names, *, from_committed: bool = False) -> tuple[dict[str, Any], dict[str, Any]]:
    """As in tests/kafka/test_rights.py."""
    login = {
        "security.protocol": "SASL_SSL",
        "sasl.mechanism": "PLAIN",
        "sasl.jaas.config": plain_line(MINIMAL_USER),
        "ssl.ca.location": str(secured.ca),
    }
    read = reads(secured.servers, names.read, group_id=names.group)
    if from_committed:
        read["starting"] = "committed_offsets(__import__('headrace.kafka').kafka.KafkaOffsetResetStrategy.EARLIEST)"
        read["properties"]["commit.offsets.on.checkpoint"] = "false"
    write = writes(secured.servers, names.written)
    read["properties"] |= login
    write["properties"] |= {**login, "headrace.marker.topic": names.marker}
    return read, write


def test_a_job_with_the_rights_that_it_needs_passes_and_what_cannot_be_asked_is_said(
    secured: Secured, names: Names, check: Check
) -> None:
    with secured.granted([names.granting(right) for right in TABLE]):
        found = check(*minimal(secured, names))
    assert found.grave == []
    assert found.status == 0
    unchecked = [one["problem"] for one in found.of("rights", "note")]
    assert any("Write on this transactional id" in one for one in unchecked)
    assert any("`min.insync.replicas`, as they cannot be read" in one for one in unchecked)
    assert any("`transaction.max.timeout.ms`" in one for one in unchecked)


@pytest.mark.parametrize("missing", TABLE, ids=lambda right: f"{right.operation} on {right.resource}")
def test_each_right_that_is_missing_is_named_unless_it_cannot_be_asked_for(
    missing: Right, secured: Secured, names: Names, check: Check
) -> None:
    from_committed = missing.reason == "starting from committed offsets"
    is_progress = [right.reason.startswith("reporting progress") for right in TABLE]
    left = [
        right
        for right, reports in zip(TABLE, is_progress, strict=True)
        if right != missing and not (from_committed and reports)
    ]
    with secured.granted([names.granting(right) for right in left]):
        found = check(*minimal(secured, names, from_committed=from_committed))
    kind, name, _ = names.of(missing)
    if kind.name == "TRANSACTIONAL_ID":
        assert found.grave == []
        assert any(one["subject"].startswith(f"transaction '{name}") for one in found.of("rights", "note"))
        return
    denied = only(found.of("rights", "error"))
    assert found.status == 1
    assert denied["subject"].startswith(f"{kind.name.lower()} '{name}")
    assert f"this principal has no {missing.operation} on it" in denied["problem"]
    assert denied["cure"].startswith(f"grant it {missing.operation} on ")


# Transactions, groups, and what brokers forget


@pytest.fixture(scope="module")
def meagre() -> Iterator[DevBroker]:
    """Three brokers that end transactions early, and soon forget."""
    properties = {
        "transaction.max.timeout.ms": "20000",
        "offsets.retention.minutes": "1",
        "transactional.id.expiration.ms": "90000",
    }
    with DevBroker(brokers=3, properties=properties) as broker:
        create_topics(broker.bootstrap_servers, {"single": 1}, 1, {"min.insync.replicas": "1"})
        for name, in_sync in (("weak", 1), ("sound", 2), ("stiff", 3)):
            create_topics(broker.bootstrap_servers, {name: 1}, 3, {"min.insync.replicas": str(in_sync)})
        yield broker


def test_a_broker_that_ends_transactions_early_and_forgets_is_measured_against_the_checkpoints(
    meagre: DevBroker, check: Check
) -> None:
    servers = meagre.bootstrap_servers
    read, write = reads(servers, "sound"), writes(servers, "sound")
    slow = check(read, write, **{"execution.checkpointing.interval": "2 s", "execution.checkpointing.timeout": "100 s"})
    assert slow.status == 0
    lasting = only(slow.of("transaction", "warning"))
    assert lasting["problem"].startswith("`transaction.timeout.ms` is 20000, and a transaction may last 2000 ms")
    forgotten = {one["setting"]: one["problem"] for one in slow.of("retention", "warning")}
    assert set(forgotten) == {"offsets.retention.minutes", "transactional.id.expiration.ms"}
    assert "after 60 s" in forgotten["offsets.retention.minutes"]

    quick = check(read, write, **{"execution.checkpointing.timeout": "10 s"})
    assert quick.grave == []
    assert "a job that ends in a crash" in only(quick.of("retention", "note"))["problem"]

    refused = only(check(read, writes(servers, "sound", transaction_timeout_ms="20001")).of("transaction", "error"))
    assert "the brokers allow at most 20000 (`transaction.max.timeout.ms`)" in refused["problem"]
    assert refused["setting"] == "transaction.timeout.ms"
    rare = check(read, write, **{"execution.checkpointing.interval": "30 s"})
    assert "no transaction would live until its checkpoint" in only(rare.of("transaction", "error"))["problem"]
    late = writes(servers, "sound", transaction_timeout_ms="20000", delivery_timeout_ms="30000")
    assert only(check(read, late).of("transaction", "error"))["setting"] == "delivery.timeout.ms"


def test_another_application_in_the_group_is_named_with_its_host(
    kafka: DevBroker, make_topic: Callable[..., str], topic_name: Callable[[str], str], check: Check
) -> None:
    servers, read, group = kafka.bootstrap_servers, make_topic(hint="in"), topic_name("group")
    with member(servers, group, read):
        found = check(reads(servers, read, group_id=group))
        assert found.status == 0
        active = only(found.of("group"))
        assert active["subject"] == f"group '{group}'"
        assert "with 1 member: 'somebody' at 127.0.0.1" in active["problem"]
        assert check(reads(servers, read, group_id=group, commit_offsets_on_checkpoint="false")).of("group") == []
    assert check(reads(servers, read, group_id=group)).of("group") == []


def test_another_application_in_the_markers_group_is_an_error(
    kafka: DevBroker, make_topic: Callable[..., str], topic_name: Callable[[str], str], check: Check
) -> None:
    servers, read, written = kafka.bootstrap_servers, make_topic(hint="in"), make_topic(hint="out")
    job = reads(servers, read), writes(servers, written, headrace_marker_group=topic_name("marker"))
    said = {"job": JOB, "reads": [job[0]], "writes": [job[1]]}
    plan = CliRunner().invoke(main, ["explain", str(check.program), json.dumps(said)]).stdout
    region = next(line.split()[1].rstrip(":") for line in plan.splitlines() if line.startswith("region "))
    group = f"{job[1]['properties']['headrace.marker.group']}-{region}"
    with member(servers, group, read):
        found = check(*job)
    assert found.status == 1
    assert only(found.of("group", "error"))["subject"] == f"group '{group}'"


# Topics' settings


def test_replicas_are_counted_against_what_acknowledged_is_to_mean(meagre: DevBroker, check: Check) -> None:
    servers = meagre.bootstrap_servers

    def found(topic: str, **properties: str) -> list[tuple[str, str]]:
        said = check(reads(servers, "sound"), writes(servers, topic, "AT_LEAST_ONCE", **properties))
        return [(one["severity"], one["problem"]) for one in said.of("replication", "error", "warning", "note")]

    assert found("sound") == []
    for topic, text in (
        ("single", "it has one replica"),
        ("weak", "may be on one of 3 replicas"),
        ("stiff", "nothing can be written while a broker is away"),
    ):
        severity, problem = found(topic)[0]
        assert (severity, len(found(topic))) == ("warning", 1)
        assert text in problem
    assert found("sound", acks="1")[0][1].startswith("`acks` is 1")

    admin = AdminClient({"bootstrap.servers": servers, "log_level": 2})
    home = admin.list_topics("single", timeout=TIMEOUT_S).topics["single"].partitions[0].leader
    meagre.kill(home)
    try:
        deadline = time.monotonic() + TIMEOUT_S
        while not any("nothing can be written now" in problem for _, problem in found("stiff")):
            assert time.monotonic() < deadline
        assert found("stiff")[0][0] == "error"
        assert "2 of 3 replicas are in sync" in found("stiff")[0][1]
        while not any("has no leader" in problem for _, problem in found("single")):
            assert time.monotonic() < deadline
    finally:
        meagre.restart()


def test_a_topic_that_wants_more_replicas_than_it_has_can_never_be_written(
    kafka: DevBroker, make_topic: Callable[..., str], check: Check
) -> None:
    servers, stuck = kafka.bootstrap_servers, make_topic(**{"min.insync.replicas": "2"})
    found = check(reads(servers, make_topic()), writes(servers, stuck, "AT_LEAST_ONCE"))
    assert found.status == 1
    assert "no record can ever be written" in only(found.of("replication", "error"))["problem"]


def test_records_larger_than_a_topic_or_a_source_takes_are_foreseen(
    kafka: DevBroker, make_topic: Callable[..., str], check: Check
) -> None:
    servers = kafka.bootstrap_servers
    small, large = make_topic(**{"max.message.bytes": "1000"}), make_topic(**{"max.message.bytes": "200000000"})
    found = check(reads(servers, large), writes(servers, small, "AT_LEAST_ONCE"))
    assert {one["subject"]: one["setting"] for one in found.of("size", "warning")} == {
        f"topic '{large}'": "receive.message.max.bytes",
        f"topic '{small}'": "max.request.size",
    }
    roomy = reads(servers, large, receive_message_max_bytes="300000000", fetch_max_bytes="1000000")
    assert check(roomy, writes(servers, small, "AT_LEAST_ONCE", max_request_size="1000")).of("size") == []
    # A record that is too large is measured before it is sent where its failure is provided for.
    assert check(roomy, writes(servers, small, "AT_LEAST_ONCE"), tolerates=True).of("size") == []
    # What is compressed cannot be.
    compressed = writes(servers, small, "AT_LEAST_ONCE", compression_type="lz4")
    assert only(check(roomy, compressed, tolerates=True).of("size"))["setting"] == "max.request.size"


def test_a_value_that_the_client_does_not_take_is_found_before_the_start(
    kafka: DevBroker, make_topic: Callable[..., str], check: Check
) -> None:
    servers = kafka.bootstrap_servers
    found = check(
        reads(servers, make_topic(), fetch_min_bytes="many"),
        writes(servers, make_topic(), "AT_LEAST_ONCE", acks="most"),
    )
    assert found.status == 1
    told = {one["subject"]: one["problem"] for one in found.of("plan", "error")}
    assert told.keys() == {"`in`", "`out`"}
    assert "fetch.min.bytes" in told["`in`"]
    assert "acks" in told["`out`"]


def test_what_a_topic_deletes_is_measured_against_the_checkpoints_and_a_day(
    kafka: DevBroker, make_topic: Callable[..., str], check: Check
) -> None:
    servers = kafka.bootstrap_servers

    def found(write: dict[str, Any] | None = None, **config: str) -> dict[str | None, str]:
        findings = check(reads(servers, make_topic(**_named(config))), write).of("retention", "warning", "note")
        return {one["setting"]: one["severity"] for one in findings}

    # The interval of a second and the default time-out of ten minutes.
    assert found(retention_ms="600999") == {"retention.ms": "warning"}
    assert found(retention_ms="601000") == {"retention.ms": "note"}
    assert found(retention_ms="86400000") == {}
    assert found(retention_ms="-1", retention_bytes="5000") == {"retention.bytes": "note"}
    assert found(cleanup_policy="compact", retention_ms="1000") == {"cleanup.policy": "note"}
    compacted = make_topic(**{"cleanup.policy": "compact"})
    refused = check(reads(servers, make_topic()), writes(servers, compacted, "AT_LEAST_ONCE"))
    assert "takes no record without a key" in only(refused.of("topic", "error"))["problem"]


def test_brokers_whose_clock_is_ahead_are_found_out_by_what_they_have_stamped(
    kafka: DevBroker, make_topic: Callable[..., str], check: Check, monkeypatch: pytest.MonkeyPatch
) -> None:
    servers, stamped = kafka.bootstrap_servers, make_topic(**{"message.timestamp.type": "LogAppendTime"})
    produce(servers, stamped, "now")
    told = only(check(reads(servers, stamped)).of("clock", "note", "warning"))
    assert told["severity"] == "note"
    assert "only shows if it is ahead, which it is not" in told["problem"]
    monkeypatch.setattr(survey, "_now_ms", lambda: int(time.time() * 1000) - 3_600_000)
    ahead = only(check(reads(servers, stamped)).of("clock", "note", "warning"))
    assert ahead["severity"] == "warning"
    assert "ahead of this machine's by 60 min at least" in ahead["problem"]


# The checkpoint folder


def run_once(kafka: DevBroker, read: str, written: str, folder: Path) -> None:
    """The program's job, bounded: its splits are found again, its ids are the same."""
    env = environment(folder, execution_checkpointing_interval="1 s")
    stream = env.from_source(source(kafka.bootstrap_servers, read), WatermarkStrategy.no_watermarks(), "in")
    stream.sink_to(sink(kafka.bootstrap_servers, written)).name("out")
    env.execute(JOB)


def start(kafka: DevBroker, read: str, written: str, folder: Path) -> Any:
    """The program's job, without end."""
    env: StreamExecutionEnvironment = environment(folder, execution_checkpointing_interval="100 ms")
    reading = KafkaSource.builder().set_bootstrap_servers(kafka.bootstrap_servers).set_topics(read)
    reading.set_starting_offsets(KafkaOffsetsInitializer.earliest())
    stream = env.from_source(
        reading.set_value_only_deserializer(SimpleStringSchema()).build(), WatermarkStrategy.no_watermarks(), "in"
    )
    stream.sink_to(sink(kafka.bootstrap_servers, written)).name("out")
    return env.execute_async(JOB)


def test_a_running_copy_is_named_and_notices_nothing(
    kafka: DevBroker, make_topic: Callable[..., str], check: Check, caplog: pytest.LogCaptureFixture
) -> None:
    servers, read, written = kafka.bootstrap_servers, make_topic(hint="in"), make_topic(hint="out")
    folder = check.folder / "state"
    produce(servers, read, "a")
    job = start(kafka, read, written, folder)
    deadline = time.monotonic() + TIMEOUT_S
    while committed(servers, written) != [b"a"]:
        assert time.monotonic() < deadline
    found = check(reads(servers, read), writes(servers, written), execution_checkpointing_dir=str(folder))
    assert found.status == 0
    assert "the job is running: process " in only(found.grave)["problem"]
    produce(servers, read, "b")
    while committed(servers, written) != [b"a", b"b"]:
        assert time.monotonic() < deadline
    job.stop()
    job.get_job_execution_result().result()
    assert not [record for record in caplog.records if "restart" in record.message]
    result = check.run(reads(servers, read), writes(servers, written), "--json", "--state-dir", str(folder))
    assert not [one for one in json.loads(result.stdout)["findings"] if one["severity"] != "note"]


def test_a_position_that_the_log_does_not_hold_any_more_is_found_before_the_start(
    kafka: DevBroker, make_topic: Callable[..., str], check: Check
) -> None:
    servers, read, written = kafka.bootstrap_servers, make_topic(hint="in"), make_topic(hint="out")
    folder = check.folder / "state"
    produce(servers, read, "a", "b")
    job = start(kafka, read, written, folder)
    deadline = time.monotonic() + TIMEOUT_S
    while committed(servers, written) != [b"a", b"b"]:
        assert time.monotonic() < deadline
    job.stop()
    job.get_job_execution_result().result()
    produce(servers, read, "c", "d", "e")
    where = {"execution_checkpointing_dir": str(folder)}
    assert check(reads(servers, read), writes(servers, written), **where).grave == []
    admin = AdminClient({"bootstrap.servers": servers, "log_level": 2})
    for future in admin.delete_records([TopicPartition(read, 0, 4)]).values():
        future.result()
    gone = check(reads(servers, read), writes(servers, written), **where)
    assert gone.status == 1
    told = only(gone.of("position"))
    assert f"offsets 2 to 3 of {read}-0 are gone" in told["problem"]
    strict = check(reads(servers, read, auto_offset_reset="none"), writes(servers, written), **where)
    assert "the checkpoint goes on behind the log" in only(strict.of("position", "error"))["problem"]
    assert check(reads(servers, read), writes(servers, written), headrace_fresh="true", **where).grave == []


def test_a_folder_that_was_lost_or_cannot_be_written_is_found_before_the_start(
    kafka: DevBroker, make_topic: Callable[..., str], check: Check
) -> None:
    servers, read, written = kafka.bootstrap_servers, make_topic(hint="in"), make_topic(hint="out")
    folder = check.folder / "state"
    where = {"execution_checkpointing_dir": str(folder)}
    produce(servers, read, "a")
    run_once(kafka, read, written, folder)
    finished = check(reads(servers, read), writes(servers, written), **where)
    assert "has reached its end before" in only(finished.grave)["problem"]
    shutil.rmtree(folder)
    lost = check(reads(servers, read), writes(servers, written), **where)
    assert lost.status == 1
    assert "the folder was lost" in only(lost.of("checkpoint", "error"))["problem"]
    folder.write_text("a file in the way")
    barred = check(reads(servers, read), writes(servers, written, "AT_LEAST_ONCE"), **where)
    assert barred.status == 1
    assert "execution.checkpointing.dir" in [one["setting"] for one in barred.of("checkpoint", "error")]
