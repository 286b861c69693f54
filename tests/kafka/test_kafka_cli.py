"""`headrace kafka` on real brokers, open and secured; with live jobs it is tried by `tests/crash/test_kafka_cli.py`."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.admin import AclBinding, AclOperation, AclPermissionType, ResourcePatternType, ResourceType
from tests.kafka.hanging import leave_hanging, unverified
from tests.kafka.jobs import TIMEOUT_S
from tests.kafka.secured import MINIMAL_USER, PASSWORD, USER, Secured, plain_line, scram_line
from tests.kafka.test_security import certified, java
from tests.processes import wait_until

from headrace.broker import DevBroker
from headrace.cli.main import main
from headrace.kafka.client.provision import create_topics

NOW_MS = 1_700_000_000_000


def run(servers: str, *arguments: object) -> Result:
    return CliRunner().invoke(main, ["kafka", *map(str, arguments), "--bootstrap-servers", servers])


def ok(servers: str, *arguments: object) -> str:
    result = run(servers, *arguments)
    assert result.exit_code == 0, result.output
    return result.stdout


def objects(servers: str, *arguments: object) -> list[dict[str, Any]]:
    return [json.loads(line) for line in ok(servers, *arguments, "--json").splitlines()]


def write(servers: str, topic: str, *values: bytes | None, at_ms: int = NOW_MS, partition: int = 0) -> None:
    producer = Producer({"bootstrap.servers": servers})
    for number, value in enumerate(values):
        producer.produce(
            topic,
            value,
            b"k%d" % number,
            partition,
            timestamp=at_ms + number,
            headers=[("trace", b"a"), ("raw", b"\xff")],
        )
    assert producer.flush(TIMEOUT_S) == 0


@contextmanager
def transaction(servers: str, transactional_id: str, topic: str, *values: bytes) -> Iterator[Producer]:
    """One with these records in it, which is open within the block unless it is ended there."""
    settings: dict[str, Any] = {"bootstrap.servers": servers, "transactional.id": transactional_id, "log_level": 2}
    producer = Producer(settings)
    producer.init_transactions(TIMEOUT_S)
    producer.begin_transaction()
    for value in values:
        producer.produce(topic, value, partition=0)
    assert producer.flush(TIMEOUT_S) == 0
    yield producer


# --- topics ---


def test_topics_are_listed_with_partitions_records_and_limits(kafka: DevBroker, make_topic: Callable[..., str]) -> None:
    topic = make_topic(partitions=3, **{"retention.ms": "7200000", "max.message.bytes": "2000000"})
    write(kafka.bootstrap_servers, topic, b"a", b"b", partition=2)

    [row] = objects(kafka.bootstrap_servers, "topics", topic)

    assert (row["partitions"], row["replication"], row["records"]) == (3, 1, 2)
    assert row["leaderless"] == row["under_replicated"] == []
    assert row["configs"]["max.message.bytes"] == "2000000"
    [line] = [line for line in ok(kafka.bootstrap_servers, "topics").splitlines() if line.startswith(topic)]
    assert line.split() == [topic, "3", "1", "2", "delete", "2", "h", "2,000,000", "B", "1"]


def test_kafkas_own_topics_are_listed_only_if_asked_for(kafka: DevBroker) -> None:
    with transaction(kafka.bootstrap_servers, "own-topics", "__consumer_offsets"):
        pass
    assert "__transaction_state" not in ok(kafka.bootstrap_servers, "topics")
    assert "__transaction_state" in ok(kafka.bootstrap_servers, "topics", "--internal")


def test_partitions_without_leader_or_replicas_are_named() -> None:
    # Noticed sooner than after nine seconds.
    soon = {"broker.session.timeout.ms": "2000", "broker.heartbeat.interval.ms": "500"}
    with DevBroker(brokers=3, properties=soon) as broker:
        create_topics(broker.bootstrap_servers, {"one": 3})
        create_topics(broker.bootstrap_servers, {"three": 1}, replication_factor=3)
        broker.kill(2)
        alive = broker.bootstrap_servers.split(",")[0]

        def trouble() -> dict[str, str]:
            # While the cluster notices, what asks the broker that is gone has no answer.
            lines = run(alive, "topics", "-X", "default.api.timeout.ms=5000").stdout.splitlines()[1:]
            return {line.split()[0]: line[line.index("B ") :].split(maxsplit=2)[-1] for line in lines}

        found = wait_until(
            lambda: (now := trouble()) and "no leader: " in now["one"] and "too few in sync: 0" in now["three"] and now,
            "a broker is missed",
        )
    assert "no leader" not in found["three"]


def test_a_topic_that_is_not_there_is_named(kafka: DevBroker, topic_name: Callable[[str], str]) -> None:
    missing = topic_name("missing")
    for command in (["topics", missing], ["tail", missing], ["transactions", "--topic", missing]):
        result = run(kafka.bootstrap_servers, *command)
        assert result.exit_code == 1
        assert f"topic '{missing}'" in result.stderr
        assert "create the topic, or correct its name" in result.stderr


# --- tail ---


def test_tail_shows_the_last_records_with_key_headers_and_place(
    kafka: DevBroker, make_topic: Callable[..., str]
) -> None:
    topic = make_topic(partitions=2)
    write(kafka.bootstrap_servers, topic, b"old", b'{"n": 1.0}', b"\x00\xff", None)
    write(kafka.bootstrap_servers, topic, b"newest", at_ms=NOW_MS + 60_000, partition=1)

    lines = ok(kafka.bootstrap_servers, "tail", topic, "-n", 4).splitlines()

    assert [line.split("  ")[0] for line in lines] == [f"{topic}-{place}" for place in ("0@1", "0@2", "0@3", "1@0")]
    assert lines[0].endswith('  key=k1  [trace=a, raw=0xff]  {"n": 1.0}')
    assert lines[1].endswith("  0x00ff")
    assert lines[2].endswith("  (no value)")
    assert lines[3].endswith("  newest")


def test_tail_gives_objects_in_which_no_byte_is_lost(kafka: DevBroker, make_topic: Callable[..., str]) -> None:
    topic = make_topic()
    write(kafka.bootstrap_servers, topic, "Zürich\n".encode(), b"\x00\xff", None)

    found = objects(kafka.bootstrap_servers, "tail", topic, "--from", "earliest")

    assert [one["value"] for one in found] == ["Zürich\n", {"base64": "AP8="}, None]
    assert found[0] == {
        "topic": topic,
        "partition": 0,
        "offset": 0,
        "timestamp": NOW_MS,
        "timestamp_type": "CREATE_TIME",
        "key": "k0",
        "value": "Zürich\n",
        "headers": [{"name": "trace", "value": "a"}, {"name": "raw", "value": {"base64": "/w=="}}],
    }


@pytest.mark.parametrize(
    ("arguments", "values"),
    [
        (["--from", "earliest"], "abcdef"),
        (["--from", "earliest", "--limit", "4"], "abcd"),
        (["--from", "2", "-p", "1"], "f"),
        (["--from", "9"], ""),
        (["--from", "latest"], ""),
        (["--from", f"@{NOW_MS + 1}"], "bcef"),
        (["--from", "2023-11-14T22:13:20.002Z"], "cf"),
        (["--from", "2100-01-01"], ""),
        (["-n", "0"], ""),
        (["-n", "9"], "adbecf"),
    ],
)
def test_tail_begins_where_it_is_told(
    kafka: DevBroker, make_topic: Callable[..., str], arguments: list[str], values: str
) -> None:
    topic = make_topic(partitions=2)
    write(kafka.bootstrap_servers, topic, b"a", b"b", b"c")
    write(kafka.bootstrap_servers, topic, b"d", b"e", b"f", partition=1)

    found = [one["value"] for one in objects(kafka.bootstrap_servers, "tail", topic, *arguments)]

    if "--limit" in arguments:
        assert len(found) == len(values)
    elif "-n" in arguments:
        assert "".join(found) == values
    else:
        assert sorted(found) == sorted(values)


def test_tail_hides_what_is_open_or_aborted_unless_told_otherwise(
    kafka: DevBroker, make_topic: Callable[..., str]
) -> None:
    topic, servers = make_topic(), kafka.bootstrap_servers
    write(servers, topic, b"first")
    with transaction(servers, f"{topic}-aborted", topic, *(b"%d" % n for n in range(30))) as producer:
        producer.abort_transaction(TIMEOUT_S)
    write(servers, topic, b"second")

    with transaction(servers, f"{topic}-open", topic, b"open"):
        # The last two, though forty offsets lie between them.
        assert [one["value"] for one in objects(servers, "tail", topic, "-n", 2)] == ["first", "second"]
        assert [one["value"] for one in objects(servers, "tail", topic, "--from", "1")] == ["second"]
        everything = objects(servers, "tail", topic, "--from", "1", "--isolation-level", "read_uncommitted")
        assert [one["value"] for one in everything][-2:] == ["second", "open"]
        assert len(everything) == 32


def test_tail_says_which_partition_and_which_place_are_wrong(kafka: DevBroker, make_topic: Callable[..., str]) -> None:
    topic = make_topic(partitions=2)
    partition = run(kafka.bootstrap_servers, "tail", topic, "-p", 2)
    assert partition.exit_code == 2
    assert f"topic '{topic}' has no partition 2; it has 0 to 1" in partition.stderr
    place = run(kafka.bootstrap_servers, "tail", topic, "--from", "yesterday")
    assert place.exit_code == 2
    assert "'yesterday' is no place in a topic" in place.stderr
    both = run(kafka.bootstrap_servers, "tail", topic, "--from", "1", "-n", 2)
    assert both.exit_code == 2


@contextmanager
def started(servers: str, *arguments: str, **more: Any) -> Iterator[subprocess.Popen[str]]:
    """The command as a process of its own, with its output in pipes."""
    command = [sys.executable, "-m", "headrace", "kafka", *arguments, "--bootstrap-servers", servers]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **more) as process:
        try:
            yield process
        finally:
            process.kill()


def test_tail_follows_until_ctrl_c_and_ends_without_a_word(kafka: DevBroker, make_topic: Callable[..., str]) -> None:
    topic = make_topic()
    write(kafka.bootstrap_servers, topic, b"before")
    with started(kafka.bootstrap_servers, "tail", topic, "--follow") as process:
        assert process.stdout is not None
        assert process.stdout.readline().endswith("  before\n")
        write(kafka.bootstrap_servers, topic, b"after")
        assert process.stdout.readline().endswith("  after\n")
        process.send_signal(signal.SIGINT)
        rest, errors = process.communicate(timeout=TIMEOUT_S)
    assert (process.returncode, rest, errors) == (0, "", "")


def test_tail_ends_with_whoever_reads_it(kafka: DevBroker, make_topic: Callable[..., str]) -> None:
    topic = make_topic()
    write(kafka.bootstrap_servers, topic, *([b"x" * 1000] * 3000))
    with started(kafka.bootstrap_servers, "tail", topic, "--from", "earliest") as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.readline()
        process.stdout.close()
        assert process.wait(TIMEOUT_S) == 0
        assert process.stderr.read() == ""


# --- offsets ---


def test_offsets_of_a_group_come_with_lag_and_members(kafka: DevBroker, make_topic: Callable[..., str]) -> None:
    topic, servers = make_topic(partitions=2), kafka.bootstrap_servers
    write(servers, topic, *([b"x"] * 5))
    settings = {"bootstrap.servers": servers, "group.id": topic, "client.id": "reader", "auto.offset.reset": "earliest"}
    member = Consumer({**settings, "enable.auto.commit": False})
    try:
        member.subscribe([topic])
        wait_until(lambda: member.poll(0.1) or len(member.assignment()) == 2, "partitions are assigned")
        member.commit(offsets=[TopicPartition(topic, 0, 2)], asynchronous=False)
        rows = objects(servers, "offsets", "--group", topic)
        shown = ok(servers, "offsets", "--group", topic)
    finally:
        member.close()

    first, second = rows
    assert (first["partition"], first["committed"], first["end"], first["lag"]) == (0, 2, 5, 3)
    assert first["member"] == "reader at 127.0.0.1"
    # It was never committed, and is read all the same.
    assert (second["partition"], second["committed"], second["lag"]) == (1, None, None)
    assert f"group '{topic}': stable, members: 1" in shown


def test_offsets_want_to_know_whose(kafka: DevBroker) -> None:
    result = run(kafka.bootstrap_servers, "offsets")
    assert result.exit_code == 2
    assert "give --group, --checkpoints or --job" in result.stderr
    assert run(kafka.bootstrap_servers, "offsets", "--group", "nobody's", "--json").exit_code == 1
    result = run(kafka.bootstrap_servers, "offsets", "--group", "nobody's")
    assert result.exit_code == 1
    assert 'there is no group "nobody\'s" on' in result.stderr


# --- transactions ---


def test_only_ids_of_a_headrace_job_are_aborted(kafka: DevBroker, make_topic: Callable[..., str]) -> None:
    topic, servers = make_topic(), kafka.bootstrap_servers
    foreign = f"{topic}-foreign"
    with transaction(servers, foreign, topic, b"x") as producer:
        for arguments in ([], ["--prefix", topic]):
            result = run(servers, "transactions", "--abort", foreign, "--yes", *arguments)
            assert result.exit_code == 2
            assert "nobody says that this is a Headrace job's" in result.stderr
        [one] = objects(servers, "transactions", "--topic", topic)
        producer.commit_transaction(TIMEOUT_S)
    assert (one["transactional_id"], one["state"]) == (foreign, "Ongoing")
    assert [(at["partition"]["topic"], at["start"], at["held_back"]) for at in one["blocks"]] == [(topic, 0, 1)]
    assert ok(servers, "transactions", "--topic", topic) == "no open transactions\n"


def test_an_id_that_nobody_knows_is_no_success(kafka: DevBroker, topic_name: Callable[[str], str]) -> None:
    missing = f"{topic_name('job')}-0a1b2c3d-0"
    result = run(kafka.bootstrap_servers, "transactions", "--prefix", "job", "--abort", missing, "--yes")
    assert result.exit_code == 1
    assert missing in result.stderr


def test_a_transaction_that_no_coordinator_knows_is_found_and_aborted(
    kafka: DevBroker, make_topic: Callable[..., str], topic_name: Callable[[str], str]
) -> None:
    topic, own, servers = make_topic(), f"{topic_name('job')}-0a1b2c3d-0", kafka.bootstrap_servers
    with unverified(servers):
        leave_hanging(servers, topic, own, b"late", int(time.time() * 1000) - 3_600_000)
    write(servers, topic, b"behind")
    here = ["transactions", "--topic", topic]

    with transaction(servers, f"{topic}-young", topic, b"x") as young:
        assert {one["state"] for one in objects(servers, *here)} == {"Hanging", "Ongoing"}
        # Longer than the broker's maximum of 15 minutes.
        [one] = objects(servers, *here, "--hanging")
        young.abort_transaction(TIMEOUT_S)
    assert (one["transactional_id"], one["state"], one["coordinator"]) == (own, "Hanging", None)
    assert one["blocks"] == [{"partition": {"topic": topic, "partition": 0}, "start": 0, "held_back": 3}]
    assert ok(servers, "tail", topic) == ""

    assert "nobody could commit it" in ok(servers, "transactions", "--prefix", "job", "--abort", own, "--yes")

    assert ok(servers, *here) == "no open transactions\n"
    assert [one["value"] for one in objects(servers, "tail", topic)] == ["behind"]


def test_what_hangs_is_looked_at_again_once_somebody_has_agreed(
    kafka: DevBroker,
    make_topic: Callable[..., str],
    topic_name: Callable[[str], str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    topic, own, servers = make_topic(), f"{topic_name('job')}-0a1b2c3d-0", kafka.bootstrap_servers
    command = ["transactions", "--prefix", "job", "--abort", own]
    now_ms = int(time.time() * 1000)

    def answer(meanwhile: Callable[[], object]) -> Result:
        with monkeypatch.context() as patch:
            patch.setattr("headrace.cli.transactions.click.confirm", lambda *_, **__: meanwhile())
            return run(servers, *command)

    def another() -> None:
        ok(servers, *command, "--yes")
        leave_hanging(servers, topic, own, b"its next", now_ms)

    with unverified(servers):
        leave_hanging(servers, topic, own, b"late", now_ms)
        refused = answer(another)
    assert refused.exit_code == 1
    assert f"transaction {own} is not what it was; look again, nothing was aborted" in refused.stderr
    assert [one["state"] for one in objects(servers, "transactions", "--topic", topic)] == ["Hanging"]

    # Others write on: it holds back more, and is the same.
    aborted = answer(lambda: write(servers, topic, b"behind"))
    assert aborted.exit_code == 0, aborted.output
    assert [one["value"] for one in objects(servers, "tail", topic)] == ["behind"]


def test_transactions_say_which_extra_they_need(kafka: DevBroker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "kafka.admin", None)
    result = run(kafka.bootstrap_servers, "transactions")
    assert result.exit_code == 2
    assert "pip install 'headrace[transactions]'" in result.stderr


# --- secured brokers ---


def properties_file(folder: Path, properties: dict[str, str]) -> Path:
    """As Java has it."""
    path = folder / "client.properties"
    lines = (f"{name}={value}".replace("\\", "\\\\") for name, value in properties.items())
    path.write_text("# Required connection configs for Kafka producer, consumer, and admin\n" + "\n".join(lines) + "\n")
    return path


@pytest.mark.parametrize("way", ["plain", "scram", "certificate", "token"])
def test_open_transactions_of_a_secured_broker_are_found(
    secured: Secured, tmp_path: Path, topic_name: Callable[[str], str], way: str
) -> None:
    topic = topic_name("secured")
    create_topics(secured.open_servers, {topic: 1})
    servers, properties = {
        "plain": (secured.servers, java(secured.ca)),
        "scram": (
            secured.scram_servers,
            {**java(secured.ca), "sasl.mechanism": "SCRAM-SHA-512", "sasl.jaas.config": scram_line()},
        ),
        "certificate": (secured.certificate_servers, certified(secured, tmp_path)),
        "token": (
            secured.token_servers,
            {
                "security.protocol": "SASL_PLAINTEXT",
                "sasl.mechanism": "OAUTHBEARER",
                "sasl.oauthbearer.config": "asked=canary",
                "headrace.token.source": "tests.kafka.secured:token",
            },
        ),
    }[way]
    config = properties_file(tmp_path, {**properties, "bootstrap.servers": servers, "acks": "all"})
    own = f"{topic}-0a1b2c3d-0"
    with transaction(secured.open_servers, own, topic, b"x"):
        command = ["kafka", "transactions", "--config", str(config), "--topic", topic]
        found = CliRunner().invoke(main, [*command, "--json"])
        assert found.exit_code == 0, found.output
        assert json.loads(found.stdout)["transactional_id"] == own
        aborted = CliRunner().invoke(main, [*command, "--prefix", topic.partition("-")[0], "--abort", own], input="y\n")
        assert aborted.exit_code == 0, aborted.output
        assert aborted.stdout.endswith(f"{own}: aborted\n")


def test_partitions_whose_leaders_do_not_say_what_is_open_are_named_and_it_is_no_success(
    secured: Secured, tmp_path: Path, topic_name: Callable[[str], str]
) -> None:
    seen, unseen, id_seen, id_unseen = (topic_name(hint) for hint in ("seen", "unseen", "job", "job"))
    own, other = f"{id_seen}-0a1b2c3d-0", f"{id_unseen}-0a1b2c3d-0"
    create_topics(secured.open_servers, {seen: 1, unseen: 1})
    with unverified(secured.open_servers):
        leave_hanging(secured.open_servers, seen, own, b"late", NOW_MS)
        leave_hanging(secured.open_servers, unseen, other, b"late", NOW_MS)
    properties = {**java(secured.ca), "sasl.jaas.config": plain_line(MINIMAL_USER)}
    config = properties_file(tmp_path, {**properties, "bootstrap.servers": secured.servers})

    def ask(*arguments: str) -> Result:
        return CliRunner().invoke(main, ["kafka", "transactions", "--config", str(config), *arguments])

    def may(operation: AclOperation, kind: ResourceType, name: str) -> AclBinding:
        literal, allow = ResourcePatternType.LITERAL, AclPermissionType.ALLOW
        return AclBinding(kind, name, literal, f"User:{MINIMAL_USER}", "*", operation, allow)

    described = [may(AclOperation.DESCRIBE, ResourceType.TOPIC, name) for name in (seen, unseen)]
    described += [may(AclOperation.DESCRIBE, ResourceType.TRANSACTIONAL_ID, name) for name in (own, other)]
    ending = may(AclOperation.CLUSTER_ACTION, ResourceType.BROKER, "kafka-cluster")
    abort = ("--prefix", "job", "--yes", "--abort", own)
    with secured.granted(described):
        nothing, not_aborted = ask("--topic", seen), ask(*abort)
        with secured.granted([may(AclOperation.READ, ResourceType.TOPIC, seen)]):
            found, refused = ask("--json"), ask(*abort)
            with secured.granted([ending]):
                aborted = ask(*abort)
    assert [one.exit_code for one in (nothing, not_aborted, found, refused, aborted)] == [1] * 5
    assert nothing.stdout == ""
    assert f"what is open in {seen}-0 is not known: " in nothing.stderr
    assert "this principal needs Read" in nothing.stderr
    assert f"whether it hangs in {seen}-0, {unseen}-0 is not known: " in not_aborted.stderr
    assert [json.loads(line)["transactional_id"] for line in found.stdout.splitlines()] == [own]
    assert f"what is open in {unseen}-0 is not known: " in found.stderr
    assert "needs ClusterAction on the cluster" in refused.stderr
    assert f"was aborted where it was found; whether it hangs in {unseen}-0 is not known: " in aborted.stderr
    assert "aborted\n" not in aborted.stdout
    assert ok(secured.open_servers, "transactions", "--topic", seen) == "no open transactions\n"
    ok(secured.open_servers, "transactions", "--prefix", "job", "--yes", "--abort", other)


def test_a_wrong_password_is_named_and_no_secret_is_told(
    secured: Secured, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = properties_file(tmp_path, {**java(secured.ca, "canary-wrong"), "bootstrap.servers": secured.servers})
    for arguments in (["topics"], ["tail", "any"], ["offsets", "--group", "any"], ["transactions"]):
        result = CliRunner().invoke(main, ["kafka", *arguments, "--config", str(config)])
        assert result.exit_code == 1
        assert "refused the login" in result.stderr
        assert "canary" not in result.output
    # One that is only referred to, over that of the file.
    monkeypatch.setenv("HEADRACE_TEST_PASSWORD", PASSWORD)
    login = ["-X", f"sasl.username={USER}", "-X", "sasl.password=env:HEADRACE_TEST_PASSWORD"]
    config = properties_file(tmp_path, {**java(secured.ca), "sasl.jaas.config": plain_line()})
    plain = [line for line in config.read_text().splitlines() if "jaas" not in line]
    config.write_text("\n".join(plain))
    result = CliRunner().invoke(
        main, ["kafka", "topics", "--config", str(config), *login, "--bootstrap-servers", secured.servers]
    )
    assert result.exit_code == 0, result.output


def test_brokers_that_are_not_named_or_not_there_are_told_of_in_time() -> None:
    unnamed = CliRunner().invoke(main, ["kafka", "topics"])
    assert unnamed.exit_code == 2
    assert "give --bootstrap-servers HOST:PORT" in unnamed.stderr
    begun = time.monotonic()
    gone = run("127.0.0.1:1", "topics", "-X", "default.api.timeout.ms=1000")
    assert gone.exit_code == 1
    assert "`default.api.timeout.ms` says how long to wait" in gone.stderr
    assert time.monotonic() - begun < 20
    misspelt = run("127.0.0.1:1", "topics", "-X", "security.protocl=SSL")
    assert misspelt.exit_code == 2
    assert "did you mean `security.protocol`?" in misspelt.stderr
    secret = run("127.0.0.1:1", "topics", "-X", "canary-without-a-name")
    assert secret.exit_code == 2
    assert "canary" not in secret.output
