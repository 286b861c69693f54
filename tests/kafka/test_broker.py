"""The development broker, for real."""

from __future__ import annotations

import os
import random
import re
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.admin import AdminClient
from tests.processes import wait_until

from headrace.broker import KAFKA_VERSIONS, DevBroker
from headrace.broker.properties import HOST, free_ports
from headrace.errors import ConfigError, ExternalError
from headrace.kafka.client.provision import create_topics

_TIMEOUT_S = 60.0


def produce(broker: DevBroker, topic: str, *values: bytes) -> None:
    producer = Producer({"bootstrap.servers": broker.bootstrap_servers, "transactional.id": topic, "log_level": 2})
    producer.init_transactions(_TIMEOUT_S)
    producer.begin_transaction()
    for value in values:
        producer.produce(topic, value)
    producer.commit_transaction(_TIMEOUT_S)


def produce_plainly(broker: DevBroker, topic: str, value: bytes) -> None:
    """Without a transaction: a transaction coordinator that died with its broker takes many seconds to move."""
    producer = Producer({"bootstrap.servers": broker.bootstrap_servers, "acks": "all", "log_level": 2})
    producer.produce(topic, value)
    assert producer.flush(_TIMEOUT_S) == 0


def read(broker: DevBroker, topic: str, count: int) -> list[bytes | None]:
    consumer = Consumer(
        {
            "bootstrap.servers": broker.bootstrap_servers,
            "group.id": topic,
            "isolation.level": "read_committed",
            "log_level": 2,
        }
    )
    consumer.assign([TopicPartition(topic, 0, 0)])
    try:
        return [message.value() for message in consumer.consume(count, _TIMEOUT_S)]
    finally:
        consumer.close()


def is_alive(pid: int) -> bool:
    """Whether a process is there and not a zombie that its parent has yet to reap."""
    state = subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True).stdout.strip()
    return bool(state) and not state.startswith("Z")


def wait_for(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + _TIMEOUT_S
    while not condition():
        assert time.monotonic() < deadline, f"waited {_TIMEOUT_S} s for: {what}"
        time.sleep(0.02)


@pytest.fixture
def command() -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Starts `headrace broker` with arguments; ends what a failed test leaves."""
    started: list[subprocess.Popen[str]] = []

    def start(*arguments: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-m", "headrace", "broker", *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DevBroker]:
    """A broker that keeps its data."""
    with DevBroker(data_dir=tmp_path_factory.mktemp("kept")) as broker:
        yield broker


def ready_line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    assert select.select([process.stdout], [], [], _TIMEOUT_S)[0], "no ready line"
    return process.stdout.readline()


def test_the_shared_broker_commits_transactions(kafka: DevBroker, make_topic: Callable[..., str]) -> None:
    topic = make_topic()
    produce(kafka, topic, b"one", b"two")
    assert read(kafka, topic, 2) == [b"one", b"two"]


@pytest.mark.parametrize("version", [KAFKA_VERSIONS[0], pytest.param(KAFKA_VERSIONS[1], marks=pytest.mark.full)])
def test_data_survives_kill_restart_and_a_stop_when_its_folder_is_kept(version: str, tmp_path: Path) -> None:
    with DevBroker(version, data_dir=tmp_path, topics={"kept": 1}) as broker:
        before = broker.bootstrap_servers
        produce(broker, "kept", b"first")
        broker.kill()
        assert not broker.is_running
        broker.restart()
        assert broker.bootstrap_servers == before
        produce(broker, "kept", b"second")
    with DevBroker(version, data_dir=tmp_path, topics={"kept": 1}) as broker:
        assert read(broker, "kept", 2) == [b"first", b"second"]


def test_three_brokers_serve_while_one_is_dead() -> None:
    with DevBroker(brokers=3, topics={"replicated": 1}) as broker:
        assert len(broker.bootstrap_servers.split(",")) == 3
        produce_plainly(broker, "replicated", b"first")
        broker.kill(2)
        produce_plainly(broker, "replicated", b"second")
        broker.restart()
        assert broker.is_running
        assert read(broker, "replicated", 2) == [b"first", b"second"]


def test_a_paused_broker_answers_nothing_until_it_is_resumed(own: DevBroker) -> None:
    own.pause()
    host, port = own.bootstrap_servers.split(":")
    # ApiVersions version 0, client id "": any live broker answers it.
    request = bytes.fromhex("0000000a 0012 0000 00000001 0000")
    with socket.create_connection((host, int(port)), timeout=1) as connection:
        connection.sendall(request)
        with pytest.raises(TimeoutError):
            connection.recv(1)
        own.resume()
        connection.settimeout(_TIMEOUT_S)
        assert connection.recv(1)


def test_another_version_runs_and_its_temporary_data_is_gone_after_the_stop() -> None:
    with DevBroker(KAFKA_VERSIONS[1], topics={"t": 1}) as broker:
        folder = broker.data_dir
        assert folder.exists()
        produce(broker, "t", b"x")
    assert not folder.exists()


def test_no_server_and_no_temporary_data_outlive_an_owner_that_is_killed(tmp_path: Path) -> None:
    program = """if True:
        from headrace.broker import DevBroker
        broker = DevBroker().start()
        print(broker.data_dir, *broker.pids, flush=True)
        input()
    """
    owner = subprocess.Popen(
        [sys.executable, "-c", program],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    with owner:
        folder, pid = ready_line(owner).split()
        assert is_alive(int(pid))
        owner.kill()
    wait_for(lambda: not is_alive(int(pid)), "the server to end with its owner")
    wait_for(lambda: not Path(folder).exists(), "the temporary folder to be removed")


def test_a_server_that_cannot_start_says_why(tmp_path: Path) -> None:
    with pytest.raises(
        ExternalError, match=r"(?s)could not prepare its data folder:.*none for configuration num\.partitions"
    ):
        DevBroker(data_dir=tmp_path / "a", properties={"num.partitions": "none"}).start()
    with pytest.raises(
        ExternalError, match=r"(?s)1 ended before it was ready; its log .*server.log says:.*no.such.Class"
    ):
        DevBroker(data_dir=tmp_path / "b", properties={"authorizer.class.name": "no.such.Class"}).start()


def test_a_second_broker_in_the_same_folder_is_refused(own: DevBroker) -> None:
    with pytest.raises(ExternalError, match="another broker runs in the data folder"):
        DevBroker(data_dir=own.data_dir).start()
    assert own.is_running


def test_a_folder_with_other_files_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "letter.txt").write_text("dear")
    with pytest.raises(ConfigError, match="holds other files"):
        DevBroker(data_dir=tmp_path).start()


def test_a_cluster_of_another_size_is_not_started_on_the_same_data(tmp_path: Path) -> None:
    with DevBroker(data_dir=tmp_path):
        pass
    with pytest.raises(ConfigError, match="holds a cluster of 1 brokers, and 3 were asked for"):
        DevBroker(data_dir=tmp_path, brokers=3).start()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"version": "2.8.0"}, r"Kafka version '2\.8\.0' is not offered; use one of 3\.7\.2, 4\.1\.1"),
        ({"brokers": 2}, "1 or 3 brokers, not 2"),
        ({"port": 70000}, "port 70000 is not a TCP port"),
    ],
)
def test_settings_that_cannot_work_are_refused(settings: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        DevBroker(**settings)  # type: ignore[arg-type]


@pytest.mark.parametrize("how", [signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.full)])
def test_the_command_is_ready_in_one_line_and_stops_cleanly(
    how: signal.Signals, command: Callable[..., subprocess.Popen[str]], tmp_path: Path
) -> None:
    port = free_ports(1, random.Random())[0]
    process = command("--port", str(port), "--topic", "rss.events:4", "--data-dir", str(tmp_path))
    assert f"ready: bootstrap.servers={HOST}:{port} " in ready_line(process)
    topics = AdminClient({"bootstrap.servers": f"{HOST}:{port}"}).list_topics(timeout=_TIMEOUT_S).topics
    assert len(topics["rss.events"].partitions) == 4
    process.send_signal(how)
    _, errors = process.communicate(timeout=_TIMEOUT_S)
    assert process.returncode == 0
    assert errors.splitlines()[-1] == "stopped"
    assert (tmp_path / "node-1" / "data" / ".kafka_cleanshutdown").exists()


def test_the_command_names_a_port_that_is_in_use(command: Callable[..., subprocess.Popen[str]]) -> None:
    with socket.socket() as listener:
        listener.bind((HOST, 0))
        listener.listen()
        port = listener.getsockname()[1]
        process = command("--port", str(port))
        _, errors = process.communicate(timeout=_TIMEOUT_S)
    assert process.returncode == 1
    assert f"error: port {port} on 127.0.0.1 is in use by another program; choose another `port`" in errors


@pytest.mark.parametrize("is_kept", [False, True])
def test_the_command_ends_with_an_error_and_its_last_words_when_its_kafka_is_killed(
    is_kept: bool, command: Callable[..., subprocess.Popen[str]], tmp_path: Path
) -> None:
    kept = ["--data-dir", str(tmp_path)] if is_kept else []
    process = command("--port", str(free_ports(1, random.Random())[0]), *kept)
    found = re.search(r"data in (\S+),", ready_line(process))
    assert found is not None
    folder = found[1]
    listed = subprocess.run(["ps", "-Awwo", "pid=,args="], capture_output=True, text=True, check=True).stdout
    (pid,) = [
        int(line.split()[0])
        for line in listed.splitlines()
        if "kafka.Kafka" in line and "supervisor.py" not in line and folder in line
    ]
    os.kill(pid, signal.SIGKILL)
    _, errors = process.communicate(timeout=_TIMEOUT_S)
    assert process.returncode == 1
    assert "error: Kafka ended by itself; node-1/server.log ends with:\n  " in errors
    assert "Kafka Server started" in errors
    # What is named is still there.
    assert (f"the data and the whole logs are in {folder}" in errors) == is_kept == Path(folder).exists()


@pytest.mark.full
def test_records_with_old_timestamps_stay() -> None:
    # The first look is half a minute behind the start.
    looks = {"log.retention.check.interval.ms": "300"}
    with DevBroker(topics={"history": 1}, properties=looks) as broker:
        create_topics(broker.bootstrap_servers, {"forgotten": 1}, config={"retention.ms": "1000"})
        producer = Producer({"bootstrap.servers": broker.bootstrap_servers, "log_level": 2})
        consumer = Consumer({"bootstrap.servers": broker.bootstrap_servers, "group.id": "nobody", "log_level": 2})

        def held(topic: str) -> int:
            first, end = consumer.get_watermark_offsets(TopicPartition(topic, 0), _TIMEOUT_S)
            return int(end - first)

        # Twice: the second look that finds something to remove began behind the first record.
        for _ in range(2):
            for topic in ("history", "forgotten"):
                producer.produce(topic, b"x", timestamp=1_700_000_000_000)
            assert producer.flush(_TIMEOUT_S) == 0
            wait_until(lambda: held("forgotten") == 0, "what is older than its topic keeps is gone")
        assert held("history") == 2
        consumer.close()
