"""What becomes of a property."""

from __future__ import annotations

import contextlib
import ctypes
import json
import re
from collections import Counter
from pathlib import Path

import pytest
from confluent_kafka import Consumer, KafkaException, Producer, cimpl
from hypothesis import example, given, settings
from hypothesis import strategies as st

from headrace.errors import ConfigError, NotSupportedError
from headrace.kafka import KafkaSource
from headrace.kafka.properties import (
    find,
    is_secret,
    masked,
    producer_settings,
    resolve_secrets,
    token_source,
    translate,
    with_brokers,
)
from headrace.kafka.property_table import (
    ALIASES,
    PROPERTIES,
    Ignored,
    Own,
    Passed,
    Property,
    Refused,
    Role,
    Translated,
    read_bool,
    read_int,
)

CONSUMER, PRODUCER = Role.CONSUMER, Role.PRODUCER

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


def librdkafka_names() -> set[str]:
    """The properties of the installed librdkafka that have a default, as it dumps them, without functions."""
    library = ctypes.CDLL(cimpl.__file__)
    names: set[str] = set()
    for kind in ("", "topic_"):
        new, dump = getattr(library, f"rd_kafka_{kind}conf_new"), getattr(library, f"rd_kafka_{kind}conf_dump")
        destroy, free = getattr(library, f"rd_kafka_{kind}conf_destroy"), library.rd_kafka_conf_dump_free
        new.restype, dump.restype = ctypes.c_void_p, ctypes.POINTER(ctypes.c_char_p)
        dump.argtypes = [ctypes.c_void_p, ctypes.POINTER(ctypes.c_size_t)]
        destroy.argtypes, free.argtypes = [ctypes.c_void_p], [ctypes.POINTER(ctypes.c_char_p), ctypes.c_size_t]
        made, count = new(), ctypes.c_size_t()
        pairs = dump(made, ctypes.byref(count))
        names |= {(pairs[at] or b"").decode() for at in range(0, count.value, 2)}
        free(pairs, count)
        destroy(made)
    return {name for name in names if not re.search(r"_cb$|opaque|interceptors|default_topic_conf", name)}


def test_every_property_of_librdkafka_has_an_answer() -> None:
    names = librdkafka_names()
    assert len(names) > 80
    unsettable = {"builtin.features", "enabled_events", "enable_sasl_queue", "client.software.name"}
    # A consumer of share groups, which is another client.
    unsettable |= {name for name in names if name.startswith(("test.mock.", "share."))}
    assert names - unsettable - {row.name for row in PROPERTIES} == set()


ROWS = [(row, role) for row in PROPERTIES for role in Role if row.role in (None, role)]


def refusal(settings: dict[str, str], role: Role) -> str:
    """What a client says that is made with these settings; nothing if it takes them."""
    make = Consumer if role is CONSUMER else Producer
    try:
        make({"bootstrap.servers": "127.0.0.1:1", "group.id": "g", "log_level": 0, **settings})
    except KafkaException as error:
        return str(error)
    return ""


@pytest.mark.parametrize(("row", "role"), ROWS, ids=lambda part: getattr(part, "name", None))
def test_every_row_does_what_it_says(row: Property, role: Role) -> None:
    match row.treatment:
        case Passed(name):
            (setting,) = translate({row.name: "v"}, role).settings.items()
            assert setting[1] == "v"
            assert setting[0] in {name or row.name, ALIASES.get(name or row.name)}
            # The client knows it, though it may not like this value.
            assert "No such configuration property" not in refusal({setting[0]: "v"}, role)
        case Own(what):
            assert what
            assert translate({row.name: "1"}, role).settings == {}
        case Ignored(why):
            found = translate({row.name: "v"}, role)
            assert found.settings == {}
            assert found.warnings == ((f"`{row.name}` has no effect: {why}",) if why else ())
        case Refused(instead):
            with pytest.raises(NotSupportedError, match=re.escape(f"`{row.name}` cannot be set: {instead}")):
                translate({row.name: "v"}, role)
        case Translated():
            assert row.name in TRANSLATED


def test_every_property_has_one_row_for_each_client() -> None:
    rows = Counter((row.name, role) for row in PROPERTIES for role in Role if row.role in (None, role))
    assert [at for at, count in rows.items() if count > 1] == []


TRANSLATED = {
    # Tested in their own places, in this file or test_jaas.py; the others below.
    *("sasl.jaas.config", "sasl.login.callback.handler.class", "ssl.truststore.certificates"),
    *("ssl.keystore.certificate.chain", "ssl.keystore.key"),
    *("receive.buffer.bytes", "send.buffer.bytes", "buffer.memory", "sasl.mechanism", "sasl.mechanisms"),
    *("ssl.truststore.location", "ssl.keystore.location", "ssl.endpoint.identification.algorithm"),
    *("partitioner.ignore.keys", "interceptor.classes", "bootstrap.servers", "metadata.broker.list"),
    *("max.request.size", "message.max.bytes", "batch.size", "receive.message.max.bytes"),
}


@pytest.mark.parametrize("name", ["max.request.size", "message.max.bytes", "batch.size"])
def test_a_number_that_headrace_goes_by_is_one(name: str) -> None:
    assert set(translate({name: " 1000 "}, PRODUCER).settings.values()) == {"1000"}
    with pytest.raises(ConfigError, match=f"`{name}` is '1 MB'; it has to be a whole number"):
        translate({name: "1 MB"}, PRODUCER)


def test_a_login_in_front_of_a_broker_is_refused_and_not_shown() -> None:
    with pytest.raises(
        ConfigError, match=r"has a login before 'h:9092'; it belongs into `sasl.jaas.config`"
    ) as refused:
        translate({"bootstrap.servers": "a:1,user:opensesame@h:9092"}, CONSUMER)
    assert "opensesame" not in str(refused.value)


@pytest.mark.parametrize("name", ["bootstrap.servers", "metadata.broker.list"])
@pytest.mark.parametrize(
    "brokers",
    [
        "a",
        "a:9092",
        " a:1 , b.c-d_e:65535,",
        "[::1]:9092,[fe80::1%eth0]",
        "PLAINTEXT://a:9092",
        "10.0.0.1:1",
        "a:1,\n\tb:2",
    ],
)
def test_brokers_are_hosts_and_ports(name: str, brokers: str) -> None:
    (setting,) = translate({name: brokers}, CONSUMER).settings.items()
    # librdkafka takes a line break for part of a name.
    assert setting == ("bootstrap.servers", ",".join(part.strip() for part in brokers.split(",") if part.strip()))


@pytest.mark.parametrize(
    "brokers", ["a:abc", "a:0", "a:65536", "a:9092:1", "::1", "a b:1", "http://a:1/x", "a:", ":1", "", " , ", "a:1,b:x"]
)
def test_what_is_no_broker_is_refused_before_it_is_waited_for(brokers: str) -> None:
    bad = brokers.rpartition(",")[2].strip()
    with pytest.raises(ConfigError, match=rf"`bootstrap.servers` holds '.*{re.escape(bad)}.*'; each broker is HOST:P"):
        translate({"bootstrap.servers": brokers}, PRODUCER)


@pytest.mark.parametrize(
    ("properties", "role", "settings"),
    [
        ({"receive.buffer.bytes": "65536"}, CONSUMER, {"socket.receive.buffer.bytes": "65536"}),
        ({"sasl.mechanism": "PLAIN"}, PRODUCER, {"sasl.mechanism": "PLAIN"}),
        (
            {"ssl.endpoint.identification.algorithm": "HTTPS"},
            PRODUCER,
            {"ssl.endpoint.identification.algorithm": "https"},
        ),
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
        ({"interceptor.classes": " "}, PRODUCER, {}),
        ({"partitioner.ignore.keys": "true"}, PRODUCER, {"partitioner": "random"}),
        ({"partitioner.ignore.keys": "false", "partitioner": "murmur2"}, PRODUCER, {"partitioner": "murmur2"}),
        ({"partition.assignment.strategy": "org.apache.kafka.clients.consumer.RangeAssignor"}, CONSUMER, {}),
    ],
)
def test_properties_become_settings(properties: dict[str, str], role: Role, settings: dict[str, str]) -> None:
    assert translate(properties, role).settings == settings


@pytest.mark.parametrize(
    ("name", "role", "text"),
    [
        ("fetch.min.byte", CONSUMER, "did you mean `fetch.min.bytes`"),
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


@pytest.mark.parametrize(
    ("store", "kind", "commands"),
    [
        ("/trust.p12", "PKCS12", "`openssl pkcs12 -in /trust.p12 -nokeys -out /trust.pem`"),
        ("/trust.store", "pkcs12", "`openssl pkcs12 -in /trust.store -nokeys -out /trust.pem`"),
        ("/a b/trust.p12", None, "`openssl pkcs12 -in '/a b/trust.p12' -nokeys -out '/a b/trust.pem'`"),
        (
            "/v1.0/trust",
            "JKS",
            "`keytool -importkeystore -srckeystore /v1.0/trust -destkeystore /v1.0/trust.p12 -deststoretype PKCS12`, "
            "then `openssl pkcs12 -in /v1.0/trust.p12 -nokeys -out /v1.0/trust.pem`",
        ),
    ],
)
def test_a_javas_truststore_is_refused_with_the_commands_that_convert_it(
    store: str, kind: str | None, commands: str
) -> None:
    properties = {"ssl.truststore.location": store} | ({} if kind is None else {"ssl.truststore.type": kind})
    with pytest.raises(NotSupportedError, match=re.escape(f"Convert it once: {commands}")):
        translate(properties, CONSUMER)


def test_brokers_may_be_given_under_librdkafkas_name() -> None:
    assert with_brokers({"metadata.broker.list": "a:1"}, "") == {
        "metadata.broker.list": "a:1",
        "bootstrap.servers": "a:1",
    }
    assert with_brokers({"bootstrap.servers": "a:1"}, "") == {"bootstrap.servers": "a:1"}
    for none in ({}, {"metadata.broker.list": ""}, {"bootstrap.servers": ""}):
        with pytest.raises(ConfigError, match="no brokers"):
            with_brokers(none, "no brokers")


@pytest.mark.parametrize(("name", "role"), [("linger.ms", CONSUMER), ("session.timeout.ms", PRODUCER)])
def test_a_property_of_the_other_client_has_no_effect_and_is_told_of(name: str, role: Role) -> None:
    made = translate({name: "1"}, role)
    assert made.settings == {}
    assert made.warnings == (
        f"`{name}` has no effect: a Kafka {role.value} has no such property, the other client has",
    )


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


@pytest.mark.parametrize("value", ["1_000", "٣", "", "1.5", "9" * 5000, " 1"])
def test_a_number_is_one_as_java_has_it(value: str) -> None:
    assert read_int({"x": "-12"}, "x", 0) == -12
    with pytest.raises(ConfigError, match="whole number"):
        read_int({"x": value}, "x", 0)


def test_a_secret_that_is_only_referred_to_is_looked_up_late_and_shown_as_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "key-password"
    file.write_text("from-a-file\n")
    properties = {
        "sasl.password": "env:HEADRACE_TEST_SECRET",
        "ssl.key.password": f"file:{file}",
        "group.id": "env:is-no-secret",
    }
    assert translate(properties, CONSUMER).settings == properties
    assert masked(properties) == properties

    monkeypatch.setenv("HEADRACE_TEST_SECRET", "from-the-environment")

    assert resolve_secrets(properties) == {
        "sasl.password": "from-the-environment",
        "ssl.key.password": "from-a-file",
        "group.id": "env:is-no-secret",
    }


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("env:HEADRACE_TEST_NOWHERE", "`sasl.password` is env:HEADRACE_TEST_NOWHERE, and there is no such environment"),
        ("env:", "no such environment variable"),
        ("file:/nowhere/secret", "`sasl.password` is file:/nowhere/secret, and that file cannot be read: No such file"),
        ("file:\0", "cannot be read"),
    ],
)
def test_a_secret_that_is_not_there_is_said_with_its_reference(value: str, text: str) -> None:
    with pytest.raises(ConfigError, match=text):
        resolve_secrets({"sasl.password": value})


PEM = "-----BEGIN CERTIFICATE-----\nTUlJRA==\nTUlJRQ==\n-----END CERTIFICATE-----\n"


@pytest.mark.parametrize("written", [PEM, PEM.replace("\n", "\\n"), PEM.replace("\n", " "), PEM.replace("\n", "\r\n")])
@pytest.mark.parametrize(
    ("name", "setting"),
    [
        ("ssl.truststore.certificates", "ssl.ca.pem"),
        ("ssl.keystore.certificate.chain", "ssl.certificate.pem"),
        ("ssl.keystore.key", "ssl.key.pem"),
    ],
)
def test_pem_in_a_property_has_its_lines_again(name: str, setting: str, written: str) -> None:
    assert translate({name: written + written}, CONSUMER).settings == {setting: PEM + PEM}


def test_kerberos_is_refused_with_what_to_use_and_is_no_default() -> None:
    with pytest.raises(NotSupportedError, match=r"has no Kerberos; use .* SCRAM-SHA-512"):
        translate({"security.protocol": "SASL_SSL", "sasl.mechanism": "GSSAPI"}, CONSUMER)
    with pytest.raises(ConfigError, match=r"`sasl.mechanism` is not set: set it"):
        translate({"security.protocol": "sasl_plaintext"}, CONSUMER)
    # Java's default, set by a program that copies them all.
    assert translate({"security.protocol": "SSL", "sasl.mechanism": "GSSAPI"}, CONSUMER).settings == {
        "security.protocol": "SSL"
    }


def test_java_s_own_token_handler_is_taken_and_another_class_is_not() -> None:
    java = "org.apache.kafka.common.security.oauthbearer.OAuthBearerLoginCallbackHandler"
    assert translate({"sasl.login.callback.handler.class": java}, CONSUMER).settings == {}
    with pytest.raises(NotSupportedError, match=r"`headrace.token.source`"):
        translate({"sasl.login.callback.handler.class": "org.example.Handler"}, CONSUMER)


CONFIGURATIONS = st.dictionaries(
    st.sampled_from([row.name for row in PROPERTIES]) | st.text(max_size=20),
    st.text(max_size=40)
    | st.sampled_from(["", "true", "0", "-1", "SASL_SSL", "PLAIN", "GSSAPI", "env:X", "file:", "PEM", "PKCS12"]),
    max_size=6,
)


@given(CONFIGURATIONS, st.sampled_from(Role))
@example({"bootstrap.servers": "\0"}, CONSUMER)
@example({"client.id": "\ud800"}, PRODUCER)
def test_any_configuration_becomes_settings_or_is_the_programs_mistake(properties: dict[str, str], role: Role) -> None:
    with contextlib.suppress(ConfigError):
        made = producer_settings(properties) if role is PRODUCER else translate(properties, role).settings
        assert all(isinstance(value, str) for value in made.values())


@settings(max_examples=50)
@given(CONFIGURATIONS)
@example({"client.id": "\0"})
@example({"client.id": "\ud800"})
@example({"ssl.ca.location": "/nowhere", "security.protocol": "SSL"})
def test_any_configuration_makes_a_client_or_is_the_programs_mistake(properties: dict[str, str]) -> None:
    # Not these: they load what they name into the process, or connect to it.
    for name in ("plugin.library.paths", "ssl.engine.location", "ssl.providers", "bootstrap.servers", "debug"):
        properties.pop(name, None)
    builder = KafkaSource.builder().set_topics("t").set_value_only_deserializer(bytes)
    with contextlib.suppress(ConfigError):
        builder.set_properties(properties).set_bootstrap_servers("127.0.0.1:1").build().create_admin("x").close()


@pytest.mark.parametrize(
    ("named", "text"),
    [
        ("no_such_module_xyz:f", "No module named"),
        ("headrace.kafka.presets:no_such", "no attribute"),
        ("headrace.kafka.presets:", "no such function"),
        ("", "no such function"),
        ("headrace.kafka.presets:__name__", "is a str; name a function"),
    ],
)
def test_a_source_of_tokens_is_a_function_that_is_there(named: str, text: str) -> None:
    with pytest.raises(ConfigError, match=rf"`headrace.token.source` is {named!r}.*{text}"):
        token_source({"headrace.token.source": named})


@pytest.mark.parametrize("name", ["sasl.pasword", "sasl.pwd", "sasl.jass.config", "sasl.credential"])
def test_the_value_of_a_name_that_nobody_knows_is_not_shown(name: str) -> None:
    assert masked({name: "opensesame"}) == {name: "***"}


def test_spaces_around_a_value_are_no_part_of_it() -> None:
    assert translate({"linger.ms": "5 ", "sasl.mechanism": " PLAIN"}, Role.PRODUCER).settings["linger.ms"] == "5"


def test_lines_for_a_schema_registry_are_no_mistake() -> None:
    lines = {"schema.registry.url": "https://x", "basic.auth.credentials.source": "USER_INFO"}
    lines["basic.auth.user.info"] = "k:s"
    for role in Role:
        translated = translate(lines, role)
        assert translated.settings == {}
        assert len(translated.warnings) == 3
        assert "k:s" not in str(translated.warnings)


def test_certificates_may_be_referred_to_as_well(tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_text("-----BEGIN CERTIFICATE-----\n")
    properties = {"ssl.truststore.certificates": f"file:{tmp_path}/ca.pem", "ssl.ca.location": "file:not-one"}
    assert resolve_secrets(properties) == {
        "ssl.truststore.certificates": "-----BEGIN CERTIFICATE-----",
        "ssl.ca.location": "file:not-one",
    }
