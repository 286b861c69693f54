"""What we write is read by Confluent's own deserializers, and the other way round, through a real registry."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
from confluent_kafka.schema_registry import (
    Schema,
    SchemaReference,
    SchemaRegistryClient,
    header_schema_id_serializer,
    record_subject_name_strategy,
    topic_record_subject_name_strategy,
    topic_subject_name_strategy,
)
from confluent_kafka.schema_registry.avro import AvroDeserializer, AvroSerializer
from confluent_kafka.schema_registry.json_schema import JSONDeserializer, JSONSerializer
from confluent_kafka.schema_registry.protobuf import ProtobufDeserializer, ProtobufSerializer
from confluent_kafka.schema_registry.serde import SchemaId
from confluent_kafka.serialization import SerializationContext
from tests.registry.messages import message_classes

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

Name = Callable[[str], str]

STRATEGIES = {
    SubjectNameStrategy.TOPIC: topic_subject_name_strategy,
    SubjectNameStrategy.RECORD: record_subject_name_strategy,
    SubjectNameStrategy.TOPIC_RECORD: topic_record_subject_name_strategy,
}
BY_TOPIC = {"subject.name.strategy": topic_subject_name_strategy}
LOOKS_UP = {"auto.register.schemas": False}
USES_LATEST = {"auto.register.schemas": False, "use.latest.version": True}


def item(name: str, *more: dict[str, Any]) -> dict[str, Any]:
    return {"type": "record", "name": name, "namespace": "feeds", "fields": [{"name": "url", "type": "string"}, *more]}


def titled(title: str) -> dict[str, Any]:
    return {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": title,
        "type": "object",
        "properties": {"url": {"type": "string"}, "count": {"type": "integer"}},
        "required": ["url"],
    }


def place(topic: str, is_key: bool) -> SerializationContext:
    return SerializationContext(topic, "key" if is_key else "value")


BOTH = pytest.mark.parametrize("is_key", [False, True], ids=["value", "key"])
ALL = pytest.mark.parametrize("strategy", STRATEGIES, ids=lambda strategy: strategy.value)


@BOTH
@ALL
def test_confluent_reads_avro_that_we_write(
    registry: str, confluent: SchemaRegistryClient, name: Name, strategy: SubjectNameStrategy, is_key: bool
) -> None:
    topic, schema = name("topic"), item(name("Item"))
    ours = ConfluentRegistryAvroSerializationSchema.for_generic(strategy, schema, registry).for_topic(topic, is_key)

    written = ours.serialize({"url": "http://a"})

    theirs = AvroDeserializer(confluent, conf={"subject.name.strategy": STRATEGIES[strategy]})
    assert theirs(written, place(topic, is_key)) == {"url": "http://a"}
    full_name = f"feeds.{schema['name']}"
    expected = {"topic": f"{topic}-{'key' if is_key else 'value'}", "record": full_name}.get(
        strategy.value, f"{topic}-{full_name}"
    )
    assert expected in confluent.get_subjects()


@BOTH
@ALL
def test_we_write_avro_byte_for_byte_as_confluent_does(
    registry: str, confluent: SchemaRegistryClient, name: Name, strategy: SubjectNameStrategy, is_key: bool
) -> None:
    topic, schema = name("topic"), item(name("Item"))
    theirs = AvroSerializer(confluent, json.dumps(schema), conf={"subject.name.strategy": STRATEGIES[strategy]})
    expected = theirs({"url": "http://a"}, place(topic, is_key))

    ours = ConfluentRegistryAvroSerializationSchema.for_generic(strategy, schema, registry).for_topic(topic, is_key)

    assert ours.serialize({"url": "http://a"}) == expected
    assert ConfluentRegistryAvroDeserializationSchema.for_generic(schema, registry).deserialize(expected) == {
        "url": "http://a"
    }


def test_avro_is_read_in_the_shape_of_the_readers_schema(
    registry: str, confluent: SchemaRegistryClient, name: Name
) -> None:
    topic, record = name("topic"), name("Item")
    theirs = AvroSerializer(confluent, json.dumps(item(record, {"name": "old", "type": "int"})), conf=BY_TOPIC)
    written = theirs({"url": "http://a", "old": 1}, place(topic, False))
    reader = item(record, {"name": "new", "type": "string", "default": "none yet"})

    assert ConfluentRegistryAvroDeserializationSchema.for_generic(reader, registry).deserialize(written) == {
        "url": "http://a",
        "new": "none yet",
    }
    assert ConfluentRegistryAvroDeserializationSchema.for_generic(None, registry).deserialize(written) == {
        "url": "http://a",
        "old": 1,
    }


def test_avro_that_does_not_fit_the_readers_schema_is_a_data_error(
    registry: str, confluent: SchemaRegistryClient, name: Name
) -> None:
    record = name("Item")
    theirs = AvroSerializer(confluent, json.dumps(item(record)), conf=BY_TOPIC)
    written = theirs({"url": "http://a"}, place(name("topic"), False))
    ours = ConfluentRegistryAvroDeserializationSchema.for_generic(
        item(record, {"name": "more", "type": "string"}), registry
    )

    with pytest.raises(DataError, match=r"Schema \(schema id \d+\) cannot read these bytes: SchemaResolutionError"):
        ours.deserialize(written)


def test_avro_with_references_is_read_and_written(registry: str, confluent: SchemaRegistryClient, name: Name) -> None:
    author, record, topic = name("Author"), name("Item"), name("topic")
    confluent.register_schema(author, Schema(json.dumps(item(author)), "AVRO"))
    both = item(record, {"name": "author", "type": f"feeds.{author}"})
    reference = SchemaReference(f"feeds.{author}", author, 1)
    theirs = AvroSerializer(confluent, Schema(json.dumps(both), "AVRO", [reference]), conf=BY_TOPIC)
    value = {"url": "http://a", "author": {"url": "http://b"}}
    written = theirs(value, place(topic, False))

    assert ConfluentRegistryAvroDeserializationSchema.for_generic(None, registry).deserialize(written) == value
    latest = ConfluentRegistryAvroSerializationSchema.for_generic(
        SubjectNameStrategy.TOPIC, item(record), registry, USES_LATEST
    )
    assert latest.for_topic(topic, False).serialize(value) == written


@BOTH
@ALL
def test_confluent_reads_json_that_we_write(
    registry: str, confluent: SchemaRegistryClient, name: Name, strategy: SubjectNameStrategy, is_key: bool
) -> None:
    topic, schema = name("topic"), titled(name("Item"))
    made = ConfluentRegistryJsonSerializationSchema.for_generic(strategy, schema, registry, validate=True)

    written = made.for_topic(topic, is_key).serialize({"url": "http://ä", "count": 2})

    conf = {"subject.name.strategy": STRATEGIES[strategy]}
    theirs = JSONDeserializer(None, schema_registry_client=confluent, conf=conf)
    assert theirs(written, place(topic, is_key)) == {"url": "http://ä", "count": 2}
    assert JSONSerializer(json.dumps(schema), confluent, conf=conf)(
        {"url": "http://ä", "count": 2}, place(topic, is_key)
    ) == (written)


@pytest.mark.parametrize("validates", [False, True])
def test_we_read_json_that_confluent_writes(
    registry: str, confluent: SchemaRegistryClient, name: Name, validates: bool
) -> None:
    theirs = JSONSerializer(json.dumps(titled("Item")), confluent, conf=BY_TOPIC)
    written = theirs({"url": "http://a"}, place(name("topic"), False))

    ours = ConfluentRegistryJsonDeserializationSchema.for_generic(registry, validate=validates)

    assert ours.deserialize(written) == {"url": "http://a"}


def test_json_is_checked_by_its_schema_on_both_ends(registry: str, confluent: SchemaRegistryClient, name: Name) -> None:
    topic = name("topic")
    lax = JSONSerializer(json.dumps(titled("Item")), confluent, conf={**BY_TOPIC, "validate": False})
    wrong = lax({"url": 1}, place(topic, False))
    writer = ConfluentRegistryJsonSerializationSchema.for_generic(f"{topic}-value", titled("Item"), registry)

    assert ConfluentRegistryJsonDeserializationSchema.for_generic(registry).deserialize(wrong) == {"url": 1}
    assert writer.serialize({"url": 1}) == wrong
    with pytest.raises(DataError, match=r"not as the schema with id \d+ says: at \$\.url: 1 is not of type 'string'"):
        ConfluentRegistryJsonDeserializationSchema.for_generic(registry, validate=True).deserialize(wrong)
    checks = ConfluentRegistryJsonSerializationSchema.for_generic(
        f"{topic}-value", titled("Item"), registry, validate=True
    )
    with pytest.raises(DataError, match="'url' is a required property"):
        checks.serialize({"count": 1})


def test_json_is_checked_as_it_is_written(registry: str, name: Name) -> None:
    @dataclass
    class Item:
        url: str | None
        count: float

    def writes(validate: bool) -> ConfluentRegistryJsonSerializationSchema:
        return ConfluentRegistryJsonSerializationSchema.for_generic(
            name("topic"), titled("Item"), registry, validate=validate
        )

    assert (writes(True).serialize(Item("http://a", 1)) or b"")[5:] == b'{"url":"http://a","count":1}'
    # Numbers that JSON has not got are null, as without a registry.
    assert (writes(False).serialize(Item("http://a", float("nan"))) or b"")[5:] == b'{"url":"http://a","count":null}'
    with pytest.raises(DataError, match=r"at \$\.count: None is not of type 'integer'"):
        writes(True).serialize({"url": "http://a", "count": float("nan")})
    with pytest.raises(DataError, match=r"Schema \(schema id \d+\) cannot write this element: .*JSON serializable"):
        writes(True).serialize({"url": {1}})


def test_json_schema_with_references_is_checked(registry: str, confluent: SchemaRegistryClient, name: Name) -> None:
    subject = name("author")
    confluent.register_schema(subject, Schema(json.dumps(titled("Author")), "JSON"))
    both = {"type": "object", "properties": {"author": {"$ref": "author.json"}}}
    schema = Schema(json.dumps(both), "JSON", [SchemaReference("author.json", subject, 1)])
    theirs = JSONSerializer(schema, confluent, conf={**BY_TOPIC, "validate": False})
    right, wrong = (theirs(value, place(name("t"), False)) for value in ({"author": {"url": "a"}}, {"author": {}}))
    ours = ConfluentRegistryJsonDeserializationSchema.for_generic(registry, validate=True)

    assert ours.deserialize(right) == {"author": {"url": "a"}}
    with pytest.raises(DataError, match="'url' is a required property"):
        ours.deserialize(wrong)


MESSAGES: dict[str, Callable[[dict[str, Any]], Any]] = {
    "Other": lambda classes: classes["Other"](text="hello"),
    "Item": lambda classes: classes["Item"](url="http://a", counts={"a": 1}, place=classes["places.Place"](city="x")),
    "Item.Author": lambda classes: classes["Item.Author"](name="Ada", number=7),
}


@BOTH
@ALL
@pytest.mark.parametrize("kind", MESSAGES)
def test_confluent_reads_protobuf_that_we_write(
    registry: str,
    confluent: SchemaRegistryClient,
    name: Name,
    strategy: SubjectNameStrategy,
    is_key: bool,
    kind: str,
) -> None:
    topic, classes = name("topic"), message_classes(name("p"))
    message, conf = MESSAGES[kind](classes), {"subject.name.strategy": STRATEGIES[strategy]}
    ours = ConfluentRegistryProtobufSerializationSchema.for_specific(strategy, classes[kind], registry)

    written = ours.for_topic(topic, is_key).serialize(message)

    # Apicurio does not give a schema in the form that this asks a registry for, so it is not told of one.
    assert ProtobufDeserializer(classes[kind], conf)(written, place(topic, is_key)) == message
    assert ProtobufSerializer(classes[kind], confluent, conf)(message, place(topic, is_key)) == written


@pytest.mark.parametrize("kind", MESSAGES)
def test_we_read_protobuf_that_confluent_writes(
    registry: str, confluent: SchemaRegistryClient, name: Name, kind: str
) -> None:
    classes = message_classes(name("p"))
    message = MESSAGES[kind](classes)
    written = ProtobufSerializer(classes[kind], confluent, BY_TOPIC)(message, place(name("topic"), False))

    ours = ConfluentRegistryProtobufDeserializationSchema.for_specific(classes[kind], registry)

    assert ours.deserialize(written) == message


def test_protobuf_whose_schema_was_registered_as_text_is_read(
    registry: str, confluent: SchemaRegistryClient, name: Name
) -> None:
    package, topic = name("p"), name("topic")
    classes = message_classes(package)
    text = f"""
        syntax = "proto3";
        package {package};  // message Wrong {{
        message Other {{ string text = 1; }}
        message Item {{
          string url = 1;
          map<string, int64> counts = 2;
          message Author {{ string name = 1; int64 number = 2; }}
        }}
    """
    confluent.register_schema(f"{topic}-value", Schema(text, "PROTOBUF"))
    writer = ConfluentRegistryProtobufSerializationSchema.for_specific(
        SubjectNameStrategy.TOPIC, classes["Item.Author"], registry, USES_LATEST
    )
    written = writer.for_topic(topic, False).serialize(classes["Item.Author"](name="Ada"))
    assert written is not None
    reader = ConfluentRegistryProtobufDeserializationSchema.for_specific(classes["Item.Author"], registry)

    assert reader.deserialize(written) == classes["Item.Author"](name="Ada")
    # Java does not count what stands for the map.
    assert written[5:8] == b"\x04\x02\x02"
    assert reader.deserialize(written[:5] + b"\x04\x02\x00" + written[8:]) == classes["Item.Author"](name="Ada")


def test_another_message_than_the_programs_is_a_data_error(
    registry: str, confluent: SchemaRegistryClient, name: Name
) -> None:
    package = name("p")
    classes = message_classes(package)
    written = ProtobufSerializer(classes["Other"], confluent, BY_TOPIC)(
        classes["Other"](text="hello"), place(name("topic"), False)
    )
    assert written is not None
    ours = ConfluentRegistryProtobufDeserializationSchema.for_specific(classes["Item"], registry)

    with pytest.raises(DataError, match=rf"this is no {package}\.Item, but {package}\.Other"):
        ours.deserialize(written)
    with pytest.raises(DataError, match=r"there is no message at \[7\]"):
        ours.deserialize(written[:5] + b"\x02\x0e")
    with pytest.raises(
        DataError, match=rf"Schema\({package}\.Item, schema id \d+\) cannot write this element: TypeError: it is a str"
    ):
        ConfluentRegistryProtobufSerializationSchema.for_specific("s", classes["Item"], registry).serialize("text")


def test_a_schema_id_that_the_registry_does_not_have_is_a_data_error(registry: str) -> None:
    ours = ConfluentRegistryAvroDeserializationSchema.for_generic(None, registry)

    with pytest.raises(DataError, match=f"the schema registry at {registry} has no schema with id 2000000000"):
        ours.deserialize(b"\0" + (2_000_000_000).to_bytes(4, "big") + b"x")


def test_a_schema_of_another_kind_is_a_data_error(registry: str, confluent: SchemaRegistryClient, name: Name) -> None:
    theirs = JSONSerializer(json.dumps(titled("Item")), confluent, conf=BY_TOPIC)
    written = theirs({"url": "http://a"}, place(name("topic"), False))

    with pytest.raises(DataError, match=r"the schema with id \d+ is of kind JSON, and has to be AVRO"):
        ConfluentRegistryAvroDeserializationSchema.for_generic(None, registry).deserialize(written)


def test_schemas_named_by_a_guid_are_refused_by_name(registry: str) -> None:
    schema_id = SchemaId("AVRO", 1, str(uuid.UUID(int=7)))
    headers: list[tuple[str, bytes]] = []
    in_headers = header_schema_id_serializer(b"\x10http://a", SerializationContext("t", "value", headers), schema_id)
    before = schema_id.guid_to_bytes() + b"\x10http://a"

    assert headers
    for message in (in_headers, before, b""):
        with pytest.raises(DataError, match="`prefix_schema_id_serializer`"):
            ConfluentRegistryAvroDeserializationSchema.for_generic(None, registry).deserialize(message)


def test_a_record_without_a_value_stays_none(registry: str, name: Name) -> None:
    schema = item(name("Item"))

    assert ConfluentRegistryAvroDeserializationSchema.for_generic(schema, registry).deserialize(None) is None
    assert ConfluentRegistryAvroSerializationSchema.for_generic("s", schema, registry).serialize(None) is None


def test_a_schema_that_is_not_compatible_is_a_config_error(
    registry: str, confluent: SchemaRegistryClient, name: Name
) -> None:
    subject, record = name("subject"), name("Item")
    confluent.register_schema(subject, Schema(json.dumps(item(record)), "AVRO"))
    confluent.set_compatibility(subject, "BACKWARD")
    worse = item(record, {"name": "more", "type": "string"})
    ours = ConfluentRegistryAvroSerializationSchema.for_generic(subject, worse, registry)

    with pytest.raises(ConfigError, match=f"not compatible with what subject '{subject}' has"):
        ours.serialize({"url": "http://a", "more": "b"})


def test_a_schema_that_is_not_registered_is_a_config_error_if_it_must_not_be(
    registry: str, confluent: SchemaRegistryClient, name: Name
) -> None:
    subject, record = name("subject"), name("Item")
    ours = ConfluentRegistryAvroSerializationSchema.for_generic(subject, item(record), registry, LOOKS_UP)

    with pytest.raises(ConfigError, match=f"no subject '{subject}'; register .* `auto.register.schemas` true"):
        ours.serialize({"url": "http://a"})
    confluent.register_schema(subject, Schema(json.dumps(item(name("Else"))), "AVRO"))
    with pytest.raises(ConfigError, match=f"subject '{subject}' does not have this schema"):
        ours.serialize({"url": "http://a"})
    schema_id = confluent.register_schema(subject, Schema(json.dumps(item(record)), "AVRO"))
    written = ours.serialize({"url": "http://a"})
    assert written is not None
    assert written[:5] == b"\0" + schema_id.to_bytes(4, "big")


def test_the_newest_version_is_written_with_if_it_is_asked_for(
    registry: str, confluent: SchemaRegistryClient, name: Name
) -> None:
    subject, record = name("subject"), name("Item")
    ours = ConfluentRegistryAvroSerializationSchema.for_generic(subject, item(record), registry, USES_LATEST)
    with pytest.raises(ConfigError, match=f"there is no subject '{subject}'"):
        ours.serialize({"url": "http://a"})
    newest = item(record, {"name": "more", "type": "string", "default": "standard"})
    for schema in (item(record), newest):
        confluent.register_schema(subject, Schema(json.dumps(schema), "AVRO"))

    written = ours.serialize({"url": "http://a"})

    assert AvroDeserializer(confluent)(written, None) == {"url": "http://a", "more": "standard"}


def test_each_schema_is_asked_for_once(
    registry: str, confluent: SchemaRegistryClient, name: Name, monkeypatch: pytest.MonkeyPatch
) -> None:
    topic, schema = name("topic"), item(name("Item"))
    writer = ConfluentRegistryAvroSerializationSchema.for_generic(SubjectNameStrategy.TOPIC, schema, registry)
    serialize = writer.for_topic(topic, False).serializer()
    reader = ConfluentRegistryAvroDeserializationSchema.for_generic(schema, registry)
    assert reader.deserialize(serialize({"url": "first"})) == {"url": "first"}

    def refuse(*args: object, **kwargs: object) -> None:
        pytest.fail("the registry was asked again")

    monkeypatch.setattr(SchemaRegistryClient, "__getattribute__", refuse)
    for number in range(100):
        assert reader.deserialize(serialize({"url": str(number)})) == {"url": str(number)}
