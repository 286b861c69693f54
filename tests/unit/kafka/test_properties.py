"""What becomes of a property."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest
from confluent_kafka import Consumer, Producer
from hypothesis import given
from hypothesis import strategies as st

from headrace.errors import ConfigError, NotSupportedError
from headrace.kafka.properties import (
    PROPERTIES,
    Role,
    find,
    is_secret,
    masked,
    producer_settings,
    read_bool,
    translate,
)

CONSUMER, PRODUCER = Role.CONSUMER, Role.PRODUCER
PLAIN = "org.apache.kafka.common.security.plain.PlainLoginModule required"
SCRAM = "org.apache.kafka.common.security.scram.ScramLoginModule required"

JAVA = json.loads((Path(__file__).parent / "java-3.7.2.json").read_text())
"""Every property of Kafka's Java clients with its default, as their classes print them: `java -cp JARS
org.apache.kafka.clients.consumer.ConsumerConfig`, `…producer.ProducerConfig` and `…admin.AdminClientConfig`."""
ROLES = {"consumer": CONSUMER, "producer": PRODUCER, "admin": CONSUMER}


@pytest.mark.parametrize("client", JAVA)
def test_every_property_of_javas_clients_has_an_answer(client: str) -> None:
    assert [name for name in JAVA[client] if find(name, ROLES[client]) is None] == []


@pytest.mark.parametrize("client", JAVA)
def test_javas_own_defaults_may_be_set(client: str) -> None:
    role = ROLES[client]
    defaults = {name: default for name, default in JAVA[client].items() if default}
    settings = {**translate(defaults, role).settings, "bootstrap.servers": "127.0.0.1:1", "log_level": 0}
    # Raises for what librdkafka does not take.
    Consumer({**settings, "group.id": "g"}) if role is CONSUMER else Producer(settings)


def test_every_property_has_one_row_for_each_client() -> None:
    rows = Counter((row.name, role) for row in PROPERTIES for role in Role if row.role in (None, role))
    assert [at for at, count in rows.items() if count > 1] == []


@pytest.mark.parametrize(
    ("properties", "role", "settings"),
    [
        ({"fetch.min.bytes": "7"}, CONSUMER, {"fetch.min.bytes": "7"}),
        ({"max.poll.records": "7"}, CONSUMER, {}),
        ({"value.deserializer": "org.example.D"}, CONSUMER, {}),
        ({"request.timeout.ms": "7"}, CONSUMER, {"socket.timeout.ms": "7"}),
        ({"request.timeout.ms": "7"}, PRODUCER, {"request.timeout.ms": "7"}),
        ({"max.request.size": "7000"}, PRODUCER, {"message.max.bytes": "7000"}),
        ({"buffer.memory": "33554432"}, PRODUCER, {"queue.buffering.max.kbytes": "32768"}),
        ({"send.buffer.bytes": "-1"}, PRODUCER, {"socket.send.buffer.bytes": "0"}),
        ({"sasl.mechanisms": "PLAIN"}, CONSUMER, {"sasl.mechanism": "PLAIN"}),
        ({"message.timeout.ms": "9"}, PRODUCER, {"delivery.timeout.ms": "9"}),
        ({"ssl.endpoint.identification.algorithm": ""}, CONSUMER, {"ssl.endpoint.identification.algorithm": "none"}),
        ({"ssl.truststore.type": "PEM", "ssl.truststore.location": "/ca"}, CONSUMER, {"ssl.ca.location": "/ca"}),
        (
            {"ssl.keystore.type": "PEM", "ssl.keystore.location": "/k.pem", "ssl.key.password": "x"},
            PRODUCER,
            {"ssl.certificate.location": "/k.pem", "ssl.key.location": "/k.pem", "ssl.key.password": "x"},
        ),
        ({"ssl.keystore.location": "/k.p12"}, PRODUCER, {"ssl.keystore.location": "/k.p12"}),
        ({"group.id": "g"}, PRODUCER, {}),
        ({"partitioner.ignore.keys": "true"}, PRODUCER, {"partitioner": "random"}),
        ({"partitioner.ignore.keys": "false", "partitioner": "murmur2"}, PRODUCER, {"partitioner": "murmur2"}),
        ({"partition.assignment.strategy": "org.apache.kafka.clients.consumer.RangeAssignor"}, CONSUMER, {}),
        ({"sasl.kerberos.kinit.cmd": "kinit -k bob"}, CONSUMER, {"sasl.kerberos.kinit.cmd": "kinit -k bob"}),
        (
            {"sasl.kerberos.kinit.cmd": "/opt/kinit"},
            CONSUMER,
            {
                "sasl.kerberos.kinit.cmd": (
                    '/opt/kinit -R -t "%{sasl.kerberos.keytab}" -k %{sasl.kerberos.principal} || '
                    '/opt/kinit -t "%{sasl.kerberos.keytab}" -k %{sasl.kerberos.principal}'
                )
            },
        ),
    ],
)
def test_properties_become_settings(properties: dict[str, str], role: Role, settings: dict[str, str]) -> None:
    assert translate(properties, role).settings == settings


@pytest.mark.parametrize(
    ("line", "mechanism"),
    [
        (f'{PLAIN} username="bob" password="bob-\\"secret";', "PLAIN"),
        (f'{PLAIN}\n  username = "bob"\n  password="bob-\\"secret" ;', "PLAIN"),
        (f'{SCRAM} username="bob" password="bob-\\"secret" tokenauth=true;', "SCRAM-SHA-512"),
    ],
)
def test_a_jaas_line_becomes_user_and_password(line: str, mechanism: str) -> None:
    made = translate({"sasl.jaas.config": line, "sasl.mechanism": mechanism}, CONSUMER).settings
    assert made == {"sasl.username": "bob", "sasl.password": 'bob-"secret', "sasl.mechanism": mechanism}


@pytest.mark.parametrize(
    "properties",
    [
        {"sasl.jaas.config": "nonsense opensesame"},
        {"sasl.jaas.config": f'{PLAIN} username="bob";', "sasl.mechanism": "PLAIN"},
        {"sasl.jaas.config": f'{PLAIN} username="bob" password="opensesame";'},
        {"sasl.jaas.config": f'{PLAIN} username="bob" password="opensesame";', "sasl.mechanism": "SCRAM-SHA-256"},
        {"sasl.jaas.config": f'{PLAIN} username="bob" password=opensesame" "', "sasl.mechanism": "PLAIN"},
        {
            "sasl.jaas.config": 'com.sun.security.auth.module.Krb5LoginModule required password="opensesame";',
            "sasl.mechanism": "GSSAPI",
        },
    ],
)
def test_a_jaas_line_that_cannot_be_used_is_refused_and_never_shown(properties: dict[str, str]) -> None:
    with pytest.raises(ConfigError, match=r"`sasl\.jaas\.config`") as raised:
        translate(properties, CONSUMER)
    assert "opensesame" not in str(raised.value)


@given(st.text(st.characters(codec="utf-8", exclude_characters="\x00"), min_size=1))
def test_any_password_survives_a_jaas_line(password: str) -> None:
    quoted = password.replace("\\", "\\\\").replace('"', '\\"')
    line = f'{PLAIN} username="bob" password="{quoted}";'
    assert (
        translate({"sasl.jaas.config": line, "sasl.mechanism": "PLAIN"}, CONSUMER).settings["sasl.password"] == password
    )


@pytest.mark.parametrize(
    ("name", "role", "text"),
    [
        ("fetch.min.byte", CONSUMER, "did you mean `fetch.min.bytes`"),
        ("linger.ms", CONSUMER, "belongs to the other client"),
        ("entirely.unlike.anything.xyz", CONSUMER, "check its spelling"),
    ],
)
def test_an_unknown_property_is_refused_with_a_hint(name: str, role: Role, text: str) -> None:
    with pytest.raises(ConfigError, match=text):
        translate({name: "1"}, role)


@pytest.mark.parametrize(
    ("name", "role", "value"),
    [
        ("transactional.id", PRODUCER, "x"),
        ("interceptor.classes", CONSUMER, "x"),
        ("partitioner.class", PRODUCER, "x"),
        ("sasl.login.class", CONSUMER, "x"),
        ("ssl.provider", PRODUCER, "x"),
        ("bootstrap.controllers", CONSUMER, "x"),
        ("ssl.truststore.location", CONSUMER, "/store.jks"),
        ("ssl.keystore.location", CONSUMER, "/store.jks"),
    ],
)
def test_what_cannot_be_had_is_refused_with_a_way_out(name: str, role: Role, value: str) -> None:
    with pytest.raises(NotSupportedError, match=f"`{name}`"):
        translate({name: value}, role)


def test_two_names_of_one_setting_must_agree() -> None:
    with pytest.raises(ConfigError, match=r"`max.request.size` and `message.max.bytes` are both set"):
        translate({"max.request.size": "7000", "message.max.bytes": "8000"}, PRODUCER)
    agreed = translate({"max.request.size": "7000", "message.max.bytes": "7000"}, PRODUCER)
    assert agreed.settings == {"message.max.bytes": "7000"}


@pytest.mark.parametrize(
    ("properties", "idempotence"),
    [
        ({}, "true"),
        ({"acks": "-1", "retries": "1", "max.in.flight.requests.per.connection": "5"}, "true"),
        ({"acks": "1"}, "false"),
        ({"acks": "0"}, "false"),
        ({"request.required.acks": "1"}, "false"),
        ({"retries": "0"}, "false"),
        ({"max.in.flight.requests.per.connection": "6"}, "false"),
    ],
)
def test_idempotence_is_given_up_for_what_it_cannot_be_had_with(properties: dict[str, str], idempotence: str) -> None:
    assert producer_settings(properties)["enable.idempotence"] == idempotence


@pytest.mark.parametrize("idempotence", ["true", "false"])
def test_idempotence_that_the_program_sets_is_left_to_it(idempotence: str) -> None:
    for contradiction in ({"acks": "1"}, {"retries": "0"}, {"max.in.flight.requests.per.connection": "6"}, {}):
        properties = {"enable.idempotence": idempotence, **contradiction}
        assert producer_settings(properties)["enable.idempotence"] == idempotence


def test_what_has_no_effect_is_told_of_if_it_matters() -> None:
    assert translate({"max.block.ms": "1"}, PRODUCER).warnings == (
        "`max.block.ms` has no effect: a full queue is waited for; `delivery.timeout.ms` bounds it",
    )
    assert translate({"key.serializer": "x"}, PRODUCER).warnings == ()


@pytest.mark.parametrize(
    "name",
    ["sasl.password", "sasl.jaas.config", "ssl.keystore.key", "ssl.key.pem", "ssl.key.password", "some.password"],
)
def test_secrets_are_masked(name: str) -> None:
    assert is_secret(name)
    assert masked({name: "opensesame"}) == {name: "***"}


def test_a_truth_value_is_true_or_false() -> None:
    assert read_bool({"x": " True "}, "x", False)
    assert read_bool({}, "x", True)
    with pytest.raises(ConfigError, match=r"`x` is 'ja'"):
        read_bool({"x": "ja"}, "x", False)
