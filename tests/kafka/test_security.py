"""A secured broker: Java's properties work unchanged, what is wrong is named within seconds, and no secret is told."""

from __future__ import annotations

import logging
import re
import shlex
import shutil
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest
from confluent_kafka import KafkaError, Producer
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption
from cryptography.hazmat.primitives.serialization.pkcs12 import serialize_key_and_certificates
from tests.kafka.door import Door
from tests.kafka.jobs import TIMEOUT_S, committed, environment, sink, source
from tests.kafka.secured import (
    CERTIFICATE_USER,
    PASSWORD,
    SCRAM_USER,
    USER,
    Secured,
    plain_line,
    quoted,
    scram_line,
    token,
)

from headrace.common import WatermarkStrategy
from headrace.common.serialization import SimpleStringSchema
from headrace.errors import ConfigError, ExternalError
from headrace.kafka import (
    DeliveryGuarantee,
    KafkaOffsetsInitializer,
    KafkaRecordSerializationSchema,
    KafkaSink,
    KafkaSource,
)
from headrace.kafka.client.protocol import Client, ClientFailed, KafkaTopicPartition, Records
from headrace.kafka.client.provision import create_topics
from headrace.kafka.client.pure.admin import PureAdmin
from headrace.kafka.presets import redpanda
from headrace.kafka.property_table import PROPERTIES


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
    return "canary" in text or "PRIVATE KEY" in text


TLS = {"security.protocol": "SSL", "ssl.truststore.type": "PEM"}

KEY_PASSWORD = "canary-of-a-key"


def certified(at: Secured, folder: Path, who: str = CERTIFICATE_USER, *, is_expired: bool = False) -> dict[str, str]:
    """TLS with a client certificate, in PEM."""
    keystore = folder / "client.pem"
    identity = at.authority.sign(who, is_expired=is_expired)
    keystore.write_text(identity.key_pem() + identity.certificate_pem())
    return {
        "security.protocol": "SSL",
        "ssl.truststore.type": "PEM",
        "ssl.truststore.location": str(at.ca),
        "ssl.keystore.type": "PEM",
        "ssl.keystore.location": str(keystore),
    }


def pkcs12(at: Secured, folder: Path) -> dict[str, str]:
    keystore = folder.with_name(f"{folder.name}-client.p12")
    keystore.write_bytes(at.authority.sign(CERTIFICATE_USER).pkcs12(KEY_PASSWORD))
    return {
        "security.protocol": "SSL",
        "ssl.ca.location": str(at.ca),
        "ssl.keystore.type": "PKCS12",
        "ssl.keystore.location": str(keystore),
        "ssl.keystore.password": KEY_PASSWORD,
    }


def pem_in_properties(at: Secured, _: Path) -> dict[str, str]:
    """As files of Java properties have it: in one line."""
    identity = at.authority.sign(CERTIFICATE_USER)
    return {
        "security.protocol": "SSL",
        "ssl.truststore.type": "PEM",
        "ssl.truststore.certificates": at.ca.read_text().replace("\n", " "),
        "ssl.keystore.type": "PEM",
        "ssl.keystore.certificate.chain": identity.certificate_pem().replace("\n", "\\n"),
        "ssl.keystore.key": identity.key_pem(KEY_PASSWORD).replace("\n", "\\n"),
        "ssl.key.password": KEY_PASSWORD,
    }


def references(at: Secured, folder: Path) -> dict[str, str]:
    """Secrets that are only referred to; a fixture sets the variable."""
    file = folder.with_name(f"{folder.name}-jaas")
    file.write_text(scram_line() + "\n")
    return {**scram("SCRAM-SHA-512")(at, folder), "sasl.jaas.config": f"file:{file}"}


def scram(mechanism: str) -> Callable[[Secured, Path], dict[str, str]]:
    return lambda at, _: {**java(at.ca), "sasl.mechanism": mechanism, "sasl.jaas.config": scram_line()}


OAUTH = "org.apache.kafka.common.security.oauthbearer"


def client_credentials(at: Secured, secret: str) -> dict[str, str]:
    login = f"clientId='{USER}' clientSecret={quoted(secret)} scope=kafka"
    return {
        "security.protocol": "SASL_PLAINTEXT",
        "sasl.mechanism": "OAUTHBEARER",
        "sasl.login.callback.handler.class": f"{OAUTH}.secured.OAuthBearerLoginCallbackHandler",
        "sasl.oauthbearer.token.endpoint.url": at.issuer,
        "sasl.jaas.config": f"{OAUTH}.OAuthBearerLoginModule required {login};",
    }


WAYS: dict[str, tuple[str, Callable[[Secured, Path], Mapping[str, str]]]] = {
    "Java, PLAIN": ("servers", lambda at, _: java(at.ca)),
    "librdkafka, PLAIN": ("servers", lambda at, _: librdkafka(at.ca)),
    "SCRAM-SHA-256": ("scram_servers", scram("SCRAM-SHA-256")),
    "SCRAM-SHA-512": ("scram_servers", scram("SCRAM-SHA-512")),
    "a preset": (
        "scram_servers",
        lambda at, _: {**redpanda(SCRAM_USER, "env:HEADRACE_TEST_PASSWORD"), "ssl.ca.location": str(at.ca)},
    ),
    "a file": ("scram_servers", references),
    "client certificate in PEM": ("certificate_servers", certified),
    "client certificate in PKCS#12": ("certificate_servers", pkcs12),
    "client certificate in properties": ("certificate_servers", pem_in_properties),
    "another host's certificate": (
        "misnamed_servers",
        lambda at, _: {**TLS, "ssl.truststore.location": str(at.ca), "ssl.endpoint.identification.algorithm": ""},
    ),
    "a client's id and secret": (
        "token_servers",
        lambda at, _: client_credentials(at, PASSWORD),
    ),
    "tokens": (
        "token_servers",
        lambda at, _: {
            "security.protocol": "SASL_PLAINTEXT",
            "sasl.mechanism": "OAUTHBEARER",
            "sasl.oauthbearer.config": "asked=canary",
            "headrace.token.source": "tests.kafka.secured:token",
        },
    ),
}


@pytest.mark.parametrize("way", WAYS)
def test_a_job_reads_and_writes_exactly_once_and_tells_no_secret(
    way: str,
    secured: Secured,
    topic_name: Callable[[str], str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
) -> None:
    caplog.set_level(logging.DEBUG)
    monkeypatch.setenv("HEADRACE_TEST_PASSWORD", PASSWORD)
    where, make = WAYS[way]
    servers, properties = getattr(secured, where), {**make(secured, tmp_path), "debug": "security,conf,feature"}
    folder = tmp_path / "checkpoints"
    read, written = topic_name("in"), topic_name("out")
    create_topics(secured.open_servers, {read: 1, written: 1})
    producer = Producer({"bootstrap.servers": secured.open_servers, "log_level": 2})
    producer.produce(read, b"a")
    assert producer.flush(TIMEOUT_S) == 0

    env = environment(folder, execution_checkpointing_interval="1 s")
    reading = source(servers, read, {**properties, "group.id": read})
    writing = sink(servers, written, DeliveryGuarantee.EXACTLY_ONCE, properties)
    stream = env.from_source(reading, WatermarkStrategy.no_watermarks(), "in")
    stream.map(str.upper).sink_to(writing)
    plan = env.get_execution_plan()
    env.execute("secured")

    assert committed(secured.open_servers, written) == [b"A"]
    told = [repr(reading), repr(writing), plan, caplog.text, *capfd.readouterr()]
    assert any("debug" in text for text in told)
    assert not any(map(has_canary, told))
    files = [file for file in folder.rglob("*") if file.is_file()]
    assert files
    assert not any(has_canary(file.read_bytes().decode("latin-1")) for file in files)


@pytest.mark.skipif(shutil.which("openssl") is None, reason="the cure is a command of OpenSSL's")
def test_a_truststore_that_is_refused_is_taken_once_it_is_converted_as_the_refusal_says(
    secured: Secured, tmp_path: Path
) -> None:
    store = tmp_path / "my trust.p12"
    cipher = BestAvailableEncryption(KEY_PASSWORD.encode())
    certificates = [secured.authority.identity.certificate]
    store.write_bytes(serialize_key_and_certificates(b"ca", None, None, certificates, cipher))
    properties = {**java(secured.ca), "ssl.truststore.location": str(store), "ssl.truststore.type": "PKCS12"}
    with pytest.raises(ConfigError, match=r"`ssl\.truststore\.location`") as raised:
        source(secured.servers, "topic", properties)
    told = re.search("`(openssl .*?)`", str(raised.value))
    assert told is not None
    subprocess.run([*shlex.split(told[1]), "-passin", f"pass:{KEY_PASSWORD}"], check=True, capture_output=True)
    pem = {"ssl.truststore.location": str(tmp_path / "my trust.pem"), "ssl.truststore.type": "PEM"}
    admin = source(secured.servers, "topic", {**properties, **pem}).create_admin("test")
    assert admin.cluster_id()
    admin.close()


PROGRAM = """
from pathlib import Path
from headrace.common import WatermarkStrategy
from headrace.common.serialization import SimpleStringSchema
from headrace.datastream import StreamExecutionEnvironment
from headrace.kafka import (
    DeliveryGuarantee, KafkaOffsetsInitializer, KafkaRecordSerializationSchema, KafkaSink, KafkaSource
)

properties = {properties!r}
reading = KafkaSource.builder().set_bootstrap_servers("127.0.0.1:1").set_topics("in").set_properties(properties)
reading.set_bounded(KafkaOffsetsInitializer.latest())
schema = KafkaRecordSerializationSchema.builder().set_topic("out").set_value_serialization_schema(SimpleStringSchema())
writing = KafkaSink.builder().set_bootstrap_servers("127.0.0.1:1").set_record_serializer(schema.build())
writing.set_properties(properties).set_delivery_guarantee(DeliveryGuarantee.EXACTLY_ONCE)
env = StreamExecutionEnvironment.get_execution_environment()
stream = env.from_source(
    reading.set_value_only_deserializer(SimpleStringSchema()).build(), WatermarkStrategy.no_watermarks(), "in"
)
stream.sink_to(writing.set_transactional_id_prefix("p").build())
env.execute("told")
"""


def test_explaining_a_program_shows_no_secret(tmp_path: Path) -> None:
    properties = {**java(tmp_path / "ca.pem"), "ssl.key.password": KEY_PASSWORD, "ssl.keystore.key": "canary"}
    program = tmp_path / "told.py"
    program.write_text(PROGRAM.format(properties=properties))
    command = [sys.executable, "-m", "headrace", "explain", str(program)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert "KafkaSource" in done.stdout
    assert not has_canary(done.stdout + done.stderr)


@pytest.mark.parametrize("wrong", ["clientId", "'", "username=bob", "Module"])
def test_no_refusal_of_a_property_shows_a_secret(wrong: str) -> None:
    """Of each property that is one, and of each kind of value that is refused."""
    secrets = [row.name for row in PROPERTIES if row.is_secret]
    assert len(secrets) >= 10
    for name in secrets:
        for value in (f"canary {wrong}", f"canary{wrong} required;", f"canary\0{wrong}", f"x required {wrong}=canary;"):
            properties = {"security.protocol": "SASL_SSL", "sasl.mechanism": "PLAIN", name: value}
            builder = KafkaSource.builder().set_topics("t").set_value_only_deserializer(SimpleStringSchema())
            try:
                source = builder.set_bootstrap_servers("127.0.0.1:1").set_properties(properties).build()
                told = repr(source)
                source.create_admin("x").close()
            except ConfigError as error:
                told = str(error)
            assert not has_canary(told), name


CONFLUENT_CLOUD = """
# Required connection configs for Kafka producer, consumer, and admin
bootstrap.servers={servers}
security.protocol=SASL_SSL
sasl.jaas.config=org.apache.kafka.common.security.plain.PlainLoginModule required username='{key}' password='{secret}';
sasl.mechanism=PLAIN
# Required for correctness in Apache Kafka clients prior to 2.6
client.dns.lookup=use_all_dns_ips
# Best practice for higher availability in Apache Kafka clients prior to 3.0
session.timeout.ms=45000
# Best practice for Kafka producer to prevent data loss
acks=all
"""


def test_confluent_clouds_snippet_works_as_pasted(secured: Secured, topic_name: Callable[[str], str]) -> None:
    topic = topic_name("pasted")
    create_topics(secured.open_servers, {topic: 1})
    secret = PASSWORD.replace("\\", "\\\\")
    pasted = CONFLUENT_CLOUD.format(servers=secured.servers, key=USER, secret=secret)
    lines = [line.partition("=") for line in pasted.splitlines() if line and not line.startswith("#")]
    properties = {name: value for name, _, value in lines}
    # The snippet's own brokers have a certificate of a public authority.
    trust = {"ssl.truststore.type": "PEM", "ssl.truststore.location": str(secured.ca)}
    schema = KafkaRecordSerializationSchema.builder().set_topic(topic)
    schema.set_value_serialization_schema(SimpleStringSchema())
    # One snippet serves producers and consumers, so each finds properties of the other.
    writing = KafkaSink.builder().set_kafka_producer_config({**properties, **trust})
    env = environment()
    env.from_collection(["a"]).sink_to(writing.set_record_serializer(schema.build()).build())
    env.execute("pasted writer")

    env = environment()
    reading = KafkaSource.builder().set_kafka_consumer_config({**properties, **trust}).set_topics(topic)
    reading.set_bounded(KafkaOffsetsInitializer.latest()).set_value_only_deserializer(SimpleStringSchema())
    stream = env.from_source(reading.build(), WatermarkStrategy.no_watermarks(), "in")
    with stream.execute_and_collect("pasted reader") as found:
        assert list(found) == ["a"]


WRONG: dict[str, tuple[str, Callable[[Secured, Path], Mapping[str, str]], str]] = {
    "password": (
        "servers",
        lambda at, _: java(at.ca, "canary-of-a-typo"),
        r"refused the login: .*Invalid username or password.*`sasl.jaas.config`",
    ),
    "SCRAM password": (
        "scram_servers",
        lambda at, _: {
            **java(at.ca),
            "sasl.mechanism": "SCRAM-SHA-512",
            "sasl.jaas.config": scram_line(password="canary-of-a-typo"),
        },
        r"refused the login: .*invalid credentials.*`sasl.jaas.config`",
    ),
    "client's secret": (
        "token_servers",
        lambda at, _: client_credentials(at, "canary-of-a-typo"),
        r"refused the login: Failed to acquire SASL OAUTHBEARER token: .*401.*`sasl.oauthbearer.token.endpoint.url`",
    ),
    "authority": (
        "servers",
        lambda at, _: java(at.other_ca),
        r"TLS to .* failed: no authority that is trusted here has signed .*; set `ssl.ca.location`",
    ),
    "authority of the machine": (
        "servers",
        lambda at, _: {**librdkafka(at.ca), "ssl.ca.location": ""},
        r"TLS to .* failed: no authority that is trusted here has signed .*; set `ssl.ca.location`",
    ),
    "host": (
        "misnamed_servers",
        lambda at, _: {**TLS, "ssl.truststore.location": str(at.ca)},
        r"TLS to .* failed: the brokers' certificate is for another host .*; .*`bootstrap.servers`",
    ),
    "expired": (
        "expired_servers",
        lambda at, _: {**TLS, "ssl.truststore.location": str(at.ca)},
        r"TLS to .* failed: the brokers' certificate has expired.*; renew it",
    ),
    "no client certificate": (
        "certificate_servers",
        lambda at, _: {**TLS, "ssl.truststore.location": str(at.ca)},
        r"TLS to .* failed: the brokers want a client certificate.*; set `ssl.certificate.location`",
    ),
    "expired client certificate": (
        "certificate_servers",
        lambda at, folder: certified(at, folder, is_expired=True),
        r"TLS to .* failed: the brokers do not take the client certificate.*has not expired",
    ),
    "no protocol": (
        "servers",
        lambda at, _: {},
        r"cannot be reached: connections are closed .*over TLS.*`security.protocol`",
    ),
    "no login": (
        "servers",
        lambda at, _: {"security.protocol": "SSL", "ssl.ca.location": str(at.ca)},
        r"cannot be reached: connections are closed .*over TLS.*`security.protocol` to SASL_SSL",
    ),
    "no TLS there": (
        "open_servers",
        lambda at, _: librdkafka(at.ca),
        r"speaks no TLS: set `security.protocol` to PLAINTEXT",
    ),
    "a login where there is none": (
        "misnamed_servers",
        lambda at, _: {**librdkafka(at.ca), "ssl.endpoint.identification.algorithm": "none"},
        r"refused the login: .*expect no SASL on this port: set `security.protocol` to SSL",
    ),
    "mechanism": (
        "servers",
        lambda at, _: {**librdkafka(at.ca), "sasl.mechanisms": "SCRAM-SHA-512"},
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
    where, make, message = WRONG[wrong]
    servers, properties = getattr(secured, where), make(secured, tmp_path)
    env = environment(tmp_path)
    if role == "source":
        reading = source(servers, "in", properties)
        stream = env.from_source(reading, WatermarkStrategy.no_watermarks(), "in")
        stream.print()
    else:
        guarantee = DeliveryGuarantee.NONE if role == "sink" else DeliveryGuarantee.EXACTLY_ONCE
        env.from_collection(["a"]).sink_to(sink(servers, "out", guarantee, properties))
    begun = time.monotonic()
    with pytest.raises(ExternalError, match=message) as raised:
        env.execute("refused")
    assert time.monotonic() - begun < 8
    told = [*traceback.format_exception(raised.value), caplog.text, *capfd.readouterr()]
    assert not any(has_canary(text) for text in told)


TOKENS = {
    "security.protocol": "SASL_PLAINTEXT",
    "sasl.mechanisms": "OAUTHBEARER",
    "sasl.oauthbearer.config": "asked=canary",
}


def test_a_client_logs_in_with_tokens_that_it_asks_for(
    client: Client, secured: Secured, topic_name: Callable[[str], str]
) -> None:
    topic = topic_name("tokens")
    create_topics(secured.open_servers, {topic: 1})
    settings = {"bootstrap.servers": secured.token_servers, **TOKENS}
    writer = client.producer(settings, token=token)
    began = time.monotonic()
    assert writer.partitions(topic, TIMEOUT_S) == (0,)
    assert time.monotonic() - began < TIMEOUT_S / 3
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
