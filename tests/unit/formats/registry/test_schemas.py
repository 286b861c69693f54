from __future__ import annotations

import pickle
import sys
from types import SimpleNamespace
from typing import Any

import cloudpickle
import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from hypothesis import given
from hypothesis import strategies as st

from headrace.common.serialization import SerializationSchema
from headrace.datastream.formats.registry import (
    ConfluentRegistryAvroDeserializationSchema,
    ConfluentRegistryAvroSerializationSchema,
    ConfluentRegistryJsonDeserializationSchema,
    ConfluentRegistryJsonSerializationSchema,
    ConfluentRegistryProtobufDeserializationSchema,
    ConfluentRegistryProtobufSerializationSchema,
    SubjectNameStrategy,
)
from headrace.errors import ConfigError, DataError
from headrace.formats.registry import wire
from headrace.formats.registry.client import Registry, RegistrySchema
from headrace.formats.registry.protobuf import indexes_of, names_at, outline_of

URL = "http://localhost:8081"
ITEM = {"type": "record", "name": "Item", "namespace": "feeds", "fields": [{"name": "url", "type": "string"}]}
LOGIN = "ada:opensesame"

MAKERS = {
    "read Avro": lambda configs: ConfluentRegistryAvroDeserializationSchema.for_generic(ITEM, URL, configs),
    "write Avro": lambda configs: ConfluentRegistryAvroSerializationSchema.for_generic("s", ITEM, URL, configs),
    "read JSON": lambda configs: ConfluentRegistryJsonDeserializationSchema.for_generic(URL, configs, validate=True),
    "write JSON": lambda configs: ConfluentRegistryJsonSerializationSchema.for_generic("s", {}, URL, configs),
    "read Protobuf": lambda configs: ConfluentRegistryProtobufDeserializationSchema.for_specific(
        Timestamp, URL, configs
    ),
    "write Protobuf": lambda configs: ConfluentRegistryProtobufSerializationSchema.for_specific(
        SubjectNameStrategy.RECORD, Timestamp, URL, configs
    ),
}
EVERY = pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)


@EVERY
def test_a_schema_is_a_value_that_can_be_pickled(make: Any) -> None:
    schema = make({"timeout": 3})
    # What it has made for this process stays here.
    (schema.serializer if isinstance(schema, SerializationSchema) else schema.deserializer)()

    assert pickle.loads(pickle.dumps(schema)) == schema
    assert cloudpickle.loads(cloudpickle.dumps(schema)) == make({"timeout": "3"})
    assert hash(schema) == hash(make({"timeout": 3}))


@EVERY
def test_no_secret_is_shown(make: Any) -> None:
    assert "opensesame" not in repr(make({"basic.auth.user.info": LOGIN}))
    assert "env:LOGIN" in repr(make({"basic.auth.user.info": "env:LOGIN"}))


@EVERY
def test_a_setting_that_there_is_not_is_named_with_the_nearest(make: Any) -> None:
    with pytest.raises(ConfigError, match=r"no setting `basic\.auth\.userinfo`; is it `basic\.auth\.user\.info`\?"):
        make({"basic.auth.userinfo": "a:b"})


@pytest.mark.parametrize(
    ("name", "value", "needed"),
    [
        ("timeout", "soon", "a number above 0"),
        ("timeout", 0, "a number above 0"),
        ("timeout", float("inf"), "a number above 0"),
        ("max.retries", -1, "a number"),
        ("max.retries", True, "a number"),
        ("auto.register.schemas", "perhaps", "true or false"),
        ("basic.auth.user.info", "", "a text that is not empty"),
        ("ssl.ca.location", 7, "a text that is not empty"),
        ("basic.auth.credentials.source", "SASL_INHERIT", "basic.auth.user.info"),
    ],
)
def test_a_setting_of_the_wrong_kind_is_refused(name: str, value: Any, needed: str) -> None:
    with pytest.raises(ConfigError, match=f"`{name}`.*{needed}"):
        Registry.of(URL, {name: value})


@pytest.mark.parametrize("url", ["", "localhost:8081", "ftp://a", "http://", None, 7, "http://a,b", f"{LOGIN}@host"])
def test_an_address_that_is_none_is_refused(url: Any) -> None:
    with pytest.raises(ConfigError, match="begins with http:// or https://") as caught:
        Registry.of(url)
    assert "opensesame" not in str(caught.value)


@pytest.mark.parametrize("url", [f"http://{LOGIN}@host:8081", f"http://a,https://{LOGIN}@host/path"])
def test_a_login_in_an_address_is_refused_without_showing_it(url: str) -> None:
    with pytest.raises(ConfigError, match=r"at host holds a login; put it into `basic\.auth\.user\.info`") as caught:
        Registry.of(url)
    assert "opensesame" not in str(caught.value)


def test_the_newest_version_cannot_be_had_while_schemas_are_registered() -> None:
    with pytest.raises(ConfigError, match=r"`use\.latest\.version` and `auto\.register\.schemas`"):
        Registry.of(URL, {"use.latest.version": "true"})


@pytest.mark.parametrize(
    "schema", ["nonsense", "", {"type": "what"}, {"type": "record"}, 7, ["feeds.Unknown"], ["$root"]]
)
def test_what_is_no_avro_schema_is_refused_when_it_is_given(schema: Any) -> None:
    with pytest.raises(ConfigError, match="the Avro schema cannot be used"):
        ConfluentRegistryAvroDeserializationSchema.for_generic(schema, URL)
    with pytest.raises(ConfigError, match="the Avro schema cannot be used"):
        ConfluentRegistryAvroSerializationSchema.for_generic("s", schema, URL)


def test_an_avro_schema_is_given_as_the_formats_take_it() -> None:
    for text in ("string", '"string"'):
        assert ConfluentRegistryAvroDeserializationSchema.for_generic(text, URL).schema == '"string"'
        assert ConfluentRegistryAvroSerializationSchema.for_generic("s", text, URL).schema == '"string"'
    endless: Any = {"type": "array", "items": "null"}
    with pytest.raises(ConfigError, match="no bounds"):
        ConfluentRegistryAvroDeserializationSchema.for_generic(endless, URL)
    with pytest.raises(ConfigError, match="no bounds"):
        ConfluentRegistryAvroSerializationSchema.for_generic("s", endless, URL)


@pytest.mark.parametrize("schema", ["nonsense", {"type": "what"}, {"type": 7}, 7])
def test_what_is_no_json_schema_is_refused_when_it_is_given(schema: Any) -> None:
    with pytest.raises(ConfigError, match="no JSON Schema"):
        ConfluentRegistryJsonSerializationSchema.for_generic("s", schema, URL)


@pytest.mark.parametrize("given", [None, int, Timestamp(), "feeds.Item"])
def test_what_is_no_message_class_is_refused_when_it_is_given(given: Any) -> None:
    with pytest.raises(ConfigError, match="a class of Protobuf messages is needed"):
        ConfluentRegistryProtobufDeserializationSchema.for_specific(given, URL)


@pytest.mark.parametrize("subject", [None, "", 7])
def test_what_is_no_subject_is_refused(subject: Any) -> None:
    with pytest.raises(ConfigError, match="a subject is a name or a SubjectNameStrategy"):
        ConfluentRegistryAvroSerializationSchema.for_generic(subject, ITEM, URL)


def test_a_schema_without_a_name_is_refused_where_subjects_are_named_after_it() -> None:
    for strategy in (SubjectNameStrategy.RECORD, SubjectNameStrategy.TOPIC_RECORD):
        with pytest.raises(ConfigError, match="needs a schema with a name"):
            ConfluentRegistryAvroSerializationSchema.for_generic(strategy, '"string"', URL)
        with pytest.raises(ConfigError, match="needs a schema with a name"):
            ConfluentRegistryJsonSerializationSchema.for_generic(strategy, {"type": "object"}, URL)


def test_a_subject_after_the_topic_needs_one() -> None:
    schema = ConfluentRegistryAvroSerializationSchema.for_generic(SubjectNameStrategy.TOPIC, ITEM, URL)

    with pytest.raises(ConfigError, match=r"needs a topic.*ask `for_topic\(topic, is_key\)`"):
        schema.serialize({"url": "a"})
    assert schema.for_topic("t", True).subject_for("feeds.Item") == "t-key"


@pytest.mark.parametrize(
    ("module", "make", "extra"),
    [
        ("confluent_kafka.schema_registry", "read JSON", "registry"),
        ("fastavro", "read Avro", "avro"),
        ("fastavro", "write Avro", "avro"),
        ("jsonschema", "write JSON", "registry"),
        ("google.protobuf.message", "read Protobuf", "protobuf"),
    ],
)
def test_an_extra_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch, module: str, make: str, extra: str) -> None:
    monkeypatch.setitem(sys.modules, module, None)

    with pytest.raises(ConfigError, match=rf"pip install 'headrace\[{extra}\]'"):
        MAKERS[make]({})


@given(indexes=st.lists(st.integers(0, 2**31), min_size=1), rest=st.binary())
def test_message_indexes_come_back_as_they_were_written(indexes: list[int], rest: bytes) -> None:
    head = wire.header(7) + wire.write_indexes(indexes)

    assert wire.schema_id_of(head + rest) == 7
    assert wire.read_indexes(head + rest) == (tuple(indexes), len(head))


@given(rest=st.binary())
def test_any_bytes_are_message_indexes_or_a_data_error(rest: bytes) -> None:
    try:
        indexes, start = wire.read_indexes(wire.header(7) + rest)
    except DataError:
        return
    assert indexes
    assert wire.HEADER_BYTES < start <= wire.HEADER_BYTES + len(rest)


def test_the_first_message_may_be_written_at_length() -> None:
    assert wire.read_indexes(wire.header(7) + b"\x02\x00rest") == ((0,), 7)


def test_messages_are_found_in_a_file_of_text() -> None:
    file = outline_of(
        """
        syntax = "proto2"; // message Comment {
        package a.b; /* message Comment { */
        option (x) = { text: "message Text {" };
        enum Color { RED = 0; }
        message First { optional string message = 1; oneof kind { int32 a = 2; } enum In { X = 0; } }
        extend First { optional int32 more = 100; }
        message Second {
          message Before {}
          map<string, Before> many_things = 1;
          message Behind { message Deep {} }
        }
        service S { rpc Call (First) returns (Second) { option deadline = 1; } }
        """
    )

    assert [names_at(file, way) for way in ((0,), (1,), (1, 0), (1, 2, 0))] == [
        ["a.b.First"],
        ["a.b.Second"],
        ["a.b.Second.Before"],
        ["a.b.Second.Behind.Deep"],
    ]
    assert names_at(file, (1, 1)) == ["a.b.Second.many_things", "a.b.Second.Behind"]
    for nothing in ((2,), (0, 0), (-1,), (1, 7)):
        assert names_at(file, nothing) == []


def test_a_message_is_found_where_its_class_says() -> None:
    import base64

    from google.protobuf import struct_pb2

    file = outline_of(base64.b64encode(struct_pb2.DESCRIPTOR.serialized_pb).decode())
    for message in (struct_pb2.Struct, struct_pb2.Value, struct_pb2.ListValue):
        assert message.DESCRIPTOR.full_name in names_at(file, indexes_of(message.DESCRIPTOR))


@given(text=st.text(alphabet="message {};/*\"'\npackage.<>map,A1="))
def test_any_text_is_a_file_or_a_value_error(text: str) -> None:
    try:
        outline_of(text)
    except ValueError:
        return


def test_a_proxy_without_its_scheme_is_refused_without_its_password(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PROXY", f"{LOGIN}@proxy.local:3128")
    for proxy in (f"{LOGIN}@proxy.local:3128", "env:PROXY"):
        with pytest.raises(ConfigError, match="`proxy` has to begin with http://") as refused:
            Registry.of(URL, {"proxy": proxy}).latest("prices-value", "AVRO")
        assert LOGIN.partition(":")[2] not in str(refused.value)


def test_what_is_registered_normalized_is_looked_up_so(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[bool] = []

    class Client:
        def lookup_schema(self, subject: str, schema: Any, normalize_schemas: bool = False) -> Any:
            asked.append(normalize_schemas)
            return SimpleNamespace(version=3)

    monkeypatch.setattr(Registry, "_client", lambda self: Client())
    assert Registry.of(URL, {"normalize.schemas": True}).version("s", RegistrySchema("AVRO", "{}")) == 3
    assert Registry.of(URL).version("s", RegistrySchema("AVRO", "{}")) == 3
    assert asked == [True, False]
