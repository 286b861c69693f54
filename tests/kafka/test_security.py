"""A secured broker: Java's properties work unchanged, what is wrong is named within seconds, and no secret is told."""

from __future__ import annotations

import base64
import json
import logging
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest
from confluent_kafka import KafkaError, Producer
from tests.kafka.door import Door
from tests.kafka.jobs import TIMEOUT_S, committed, environment, sink, source
from tests.kafka.secured import PASSWORD, USER, Secured, plain_line

from headrace.common import WatermarkStrategy
from headrace.common.serialization import SimpleStringSchema
from headrace.errors import ExternalError
from headrace.kafka import DeliveryGuarantee, KafkaSource
from headrace.kafka.client.native import NativeClient, NativeUnavailableError
from headrace.kafka.client.protocol import Client, ClientFailed, KafkaTopicPartition, Records
from headrace.kafka.client.provision import create_topics
from headrace.kafka.client.pure import PureClient
from headrace.kafka.client.pure.admin import PureAdmin


def java(ca: Path, password: str = PASSWORD) -> dict[str, str]:
    """What a program that ran with Flink sets."""
    return {
        "security.protocol": "SASL_SSL",
        "sasl.mechanism": "PLAIN",
        "sasl.jaas.config": plain_line(USER, password),
        "ssl.truststore.type": "PEM",
        "ssl.truststore.location": str(ca),
    }


def librdkafka(ca: Path) -> dict[str, str]:
    """The same under the client's own names."""
    return {
        "security.protocol": "sasl_ssl",
        "sasl.mechanisms": "PLAIN",
        "sasl.username": USER,
        "sasl.password": PASSWORD,
        "ssl.ca.location": str(ca),
    }


def has_canary(text: str) -> bool:
    return "canary" in text


@pytest.mark.parametrize("properties", [java, librdkafka])
def test_a_job_reads_and_writes_exactly_once_and_tells_no_secret(
    properties: Callable[[Path], Mapping[str, str]],
    secured: Secured,
    topic_name: Callable[[str], str],
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
) -> None:
    caplog.set_level(logging.DEBUG)
    read, written = topic_name("in"), topic_name("out")
    create_topics(secured.open_servers, {read: 1, written: 1})
    producer = Producer({"bootstrap.servers": secured.open_servers, "log_level": 2})
    producer.produce(read, b"a")
    assert producer.flush(TIMEOUT_S) == 0

    env = environment(tmp_path, execution_checkpointing_interval="1 s")
    reading = source(secured.servers, read, {**properties(secured.ca), "group.id": read})
    writing = sink(secured.servers, written, DeliveryGuarantee.EXACTLY_ONCE, properties(secured.ca))
    stream = env.from_source(reading, WatermarkStrategy.no_watermarks(), "in")
    stream.map(str.upper).sink_to(writing)
    plan = env.get_execution_plan()
    env.execute("secured")

    assert committed(secured.open_servers, written) == [b"A"]
    told = [repr(reading), repr(writing), plan, caplog.text, *capfd.readouterr()]
    assert not any(map(has_canary, told))
    files = [file for file in tmp_path.rglob("*") if file.is_file()]
    assert files
    assert not any(b"canary" in file.read_bytes() for file in files)


WRONG: dict[str, tuple[Callable[[Secured], Mapping[str, str]], str]] = {
    "password": (
        lambda at: java(at.ca, "canary-of-a-typo"),
        r"refused the login: .*Invalid username or password.*`sasl.jaas.config`",
    ),
    "authority": (
        lambda at: java(at.other_ca),
        r"TLS to .* failed: .*certificate verify failed.*`ssl.ca.location`",
    ),
    "no protocol": (
        lambda at: {},
        r"cannot be reached: connections are closed .*over TLS.*`security.protocol`",
    ),
    "no login": (
        lambda at: {"security.protocol": "SSL", "ssl.ca.location": str(at.ca)},
        r"cannot be reached: connections are closed .*over TLS.*`security.protocol` to SASL_SSL",
    ),
    "mechanism": (
        lambda at: {**librdkafka(at.ca), "sasl.mechanisms": "SCRAM-SHA-512"},
        r"refused the login: .*`sasl.mechanism`",
    ),
}


@pytest.mark.parametrize("role", ["source", "sink", "exactly-once sink"])
@pytest.mark.parametrize("wrong", WRONG)
def test_what_is_wrong_is_named_within_seconds_and_without_the_secret(
    wrong: str,
    role: str,
    secured: Secured,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
) -> None:
    caplog.set_level(logging.DEBUG)
    make, message = WRONG[wrong]
    properties = make(secured)
    env = environment(tmp_path)
    if role == "source":
        reading = source(secured.servers, "in", properties)
        stream = env.from_source(reading, WatermarkStrategy.no_watermarks(), "in")
        stream.print()
    else:
        guarantee = DeliveryGuarantee.NONE if role == "sink" else DeliveryGuarantee.EXACTLY_ONCE
        env.from_collection(["a"]).sink_to(sink(secured.servers, "out", guarantee, properties))
    begun = time.monotonic()
    with pytest.raises(ExternalError, match=message) as raised:
        env.execute("refused")
    assert time.monotonic() - begun < 8
    told = [*traceback.format_exception(raised.value), caplog.text, *capfd.readouterr()]
    assert not any(has_canary(text) for text in told)


def token(config: str) -> tuple[str, float, str]:
    """A token for `bob`, for a minute, which nobody has signed."""
    assert config == "asked=canary"
    now, until = time.time(), time.time() + 60

    def part(claims: dict[str, object]) -> str:
        return base64.urlsafe_b64encode(json.dumps(claims).encode()).decode().rstrip("=")

    return f"{part({'alg': 'none'})}.{part({'sub': USER, 'iat': now, 'exp': until})}.", until, USER


TOKENS = {
    "security.protocol": "SASL_PLAINTEXT",
    "sasl.mechanisms": "OAUTHBEARER",
    "sasl.oauthbearer.config": "asked=canary",
}


@pytest.fixture(params=["pure", "native"])
def client(request: pytest.FixtureRequest) -> Client:
    if request.param == "pure":
        return PureClient()
    try:
        return NativeClient()
    except NativeUnavailableError as error:
        pytest.skip(f"no native client here: {error}")


def test_a_client_logs_in_with_tokens_that_it_asks_for(
    client: Client, secured: Secured, topic_name: Callable[[str], str]
) -> None:
    topic = topic_name("tokens")
    create_topics(secured.open_servers, {topic: 1})
    settings = {"bootstrap.servers": secured.token_servers, **TOKENS}
    writer = client.producer(settings, token=token)
    writer.produce(topic, [b"x"])
    assert writer.flush(TIMEOUT_S) == 0
    assert writer.take_failures() == []
    writer.close()
    reader = client.consumer({**settings, "group.id": topic}, token=token)
    reader.assign({KafkaTopicPartition(topic, 0): 0})
    deadline = time.monotonic() + TIMEOUT_S
    while not (found := [e for e in reader.consume(1, 1.0) if isinstance(e, Records)]):
        assert time.monotonic() < deadline
    assert list(found[0].values) == [b"x"]
    reader.close()
    began = time.monotonic()
    transactional = {"transactional.id": topic, "transaction.timeout.ms": "60000", "delivery.timeout.ms": "30000"}
    writer = client.producer({**settings, **transactional}, token=token)
    writer.init_transactions(TIMEOUT_S)
    assert time.monotonic() - began < TIMEOUT_S / 3
    writer.close()
    admin = client.admin(settings, TIMEOUT_S, token=token)
    assert topic in admin.topic_names()
    assert admin.committed(topic, [KafkaTopicPartition(topic, 0)], stable=True)
    admin.close()


def test_a_token_that_cannot_be_had_is_told_with_its_cause(
    client: Client, secured: Secured, caplog: pytest.LogCaptureFixture
) -> None:
    def none(_config: str) -> tuple[str, float, str]:
        raise OSError("the issuer is away")

    settings = {"bootstrap.servers": secured.token_servers, "group.id": "g", **TOKENS}
    reader = client.consumer(settings, token=none)
    reader.assign({KafkaTopicPartition("t", 0): 0})
    deadline = time.monotonic() + TIMEOUT_S
    while not any(isinstance(event, ClientFailed) for event in reader.consume(1, 0.5)):
        assert time.monotonic() < deadline
    reader.close()
    assert any("no token for OAUTHBEARER" in text and "the issuer is away" in text for text in caplog.messages)


def test_a_connection_that_was_closed_while_nobody_asked_is_no_failure(secured: Secured) -> None:
    admin = PureAdmin({**librdkafka(secured.ca), "bootstrap.servers": secured.servers}, TIMEOUT_S)
    before = admin.describe_topics(["a"])
    admin._reports.on_error(KafkaError(KafkaError._ALL_BROKERS_DOWN))
    assert admin.describe_topics(["a"]) == before
    admin.close()


def test_tls_to_a_port_that_speaks_none_is_named_within_seconds(secured: Secured) -> None:
    env = environment()
    reading = source(secured.open_servers, "in", librdkafka(secured.ca))
    env.from_source(reading, WatermarkStrategy.no_watermarks(), "in").print()
    begun = time.monotonic()
    with pytest.raises(ExternalError, match=r"speaks no TLS: set `security.protocol` to PLAINTEXT"):
        env.execute("refused")
    assert time.monotonic() - begun < 8


@pytest.fixture
def door(secured: Secured) -> Iterator[Door]:
    yield secured.door
    secured.door.open()


@pytest.mark.parametrize("guarantee", [DeliveryGuarantee.NONE, DeliveryGuarantee.EXACTLY_ONCE])
def test_handshakes_that_are_broken_off_end_no_job_that_has_run(
    guarantee: DeliveryGuarantee,
    secured: Secured,
    door: Door,
    topic_name: Callable[[str], str],
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    read, written = topic_name("in"), topic_name("out")
    create_topics(secured.open_servers, {read: 1, written: 1})
    servers, properties = f"localhost:{door.port}", {"security.protocol": "SSL", "ssl.ca.location": str(secured.ca)}
    properties["reconnect.backoff.max.ms"] = "100"
    writer = Producer({"bootstrap.servers": secured.open_servers, "log_level": 2})

    def write(value: str) -> None:
        writer.produce(read, value)
        assert writer.flush(TIMEOUT_S) == 0

    def wait_until(condition: Callable[[], bool]) -> None:
        deadline = time.monotonic() + TIMEOUT_S
        while not condition():
            assert not job.get_job_execution_result().done(), job.get_job_execution_result().result()
            assert time.monotonic() < deadline
            time.sleep(0.02)

    def is_written(*values: bytes) -> Callable[[], bool]:
        uncommitted = {"isolation.level": "read_uncommitted"}.items()
        return lambda: committed(secured.open_servers, written, uncommitted) == list(values)

    write("before")
    # No checkpoint: behind a lost connection a transaction's call may get stuck in the client, and cost a restart.
    env = environment(tmp_path, execution_checkpointing_interval="5 min", restart__strategy_type="none")
    reading = KafkaSource.builder().set_bootstrap_servers(servers).set_topics(read).set_properties(properties)
    reading.set_value_only_deserializer(SimpleStringSchema())
    stream = env.from_source(reading.build(), WatermarkStrategy.no_watermarks(), "in")
    stream.sink_to(sink(servers, written, guarantee, properties))
    job = env.execute_async("a broker that comes and goes")
    wait_until(is_written(b"before"))
    door.shut()
    # Several by the consumer and several by the producer, which try again every 100 ms.
    before = door.turned_away
    wait_until(lambda: door.turned_away >= before + 20)
    assert any("SSL_HANDSHAKE" in message for message in caplog.messages)
    write("meanwhile")
    door.open()
    wait_until(is_written(b"before", b"meanwhile"))
    job.cancel().result()
