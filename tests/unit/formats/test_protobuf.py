"""Protobuf messages and rows, of messages that are declared here."""

from __future__ import annotations

import pickle
from typing import Any

import pytest
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory, struct_pb2, timestamp_pb2
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.unit.formats.values import read, spoiled

from headrace.common import Row, Types
from headrace.datastream.formats.protobuf import (
    ProtobufDeserializationSchema,
    ProtobufRowDeserializationSchema,
    ProtobufRowSerializationSchema,
    ProtobufSerializationSchema,
)
from headrace.errors import ConfigError, DataError
from headrace.formats.protobuf import row_type_of

F = descriptor_pb2.FieldDescriptorProto


def declared(syntax: str) -> Any:
    """Messages `All` and `Inner` in one of Protobuf's two dialects."""
    package = f"headrace.test.{syntax}"
    file = descriptor_pb2.FileDescriptorProto(name=f"{syntax}.proto", package=package, syntax=syntax)
    side = file.enum_type.add(name="Side")
    side.value.add(name="BUY", number=0)
    side.value.add(name="SELL", number=1)
    inner = file.message_type.add(name="Inner")
    inner.field.add(name="n", number=1, type=F.TYPE_INT32, label=F.LABEL_OPTIONAL)
    message = file.message_type.add(name="All")
    entry = message.nested_type.add(name="MapEntry")
    entry.options.map_entry = True
    entry.field.add(name="key", number=1, type=F.TYPE_STRING, label=F.LABEL_OPTIONAL)
    entry.field.add(name="value", number=2, type=F.TYPE_MESSAGE, type_name=f".{package}.Inner", label=F.LABEL_OPTIONAL)
    kinds = {
        "text": (F.TYPE_STRING, None),
        "small": (F.TYPE_SINT32, None),
        "large": (F.TYPE_FIXED64, None),
        "unsigned": (F.TYPE_UINT32, None),
        "double": (F.TYPE_DOUBLE, None),
        "single": (F.TYPE_FLOAT, None),
        "flag": (F.TYPE_BOOL, None),
        "raw": (F.TYPE_BYTES, None),
        "side": (F.TYPE_ENUM, "Side"),
        "class": (F.TYPE_MESSAGE, "Inner"),
    }
    for number, (name, (kind, of)) in enumerate(kinds.items(), 1):
        type_name = None if of is None else f".{package}.{of}"
        message.field.add(name=name, number=number, type=kind, type_name=type_name, label=F.LABEL_OPTIONAL)
        message.field.add(name=f"{name}s", number=number + 20, type=kind, type_name=type_name, label=F.LABEL_REPEATED)
    message.field.add(
        name="map", number=50, type=F.TYPE_MESSAGE, type_name=f".{package}.All.MapEntry", label=F.LABEL_REPEATED
    )
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{package}.All"))


Proto2, Proto3 = declared("proto2"), declared("proto3")
SINGLE: dict[str, st.SearchStrategy[Any]] = {
    "text": st.text(),
    "small": st.integers(-(2**31), 2**31 - 1),
    "large": st.integers(0, 2**64 - 1),
    "unsigned": st.integers(0, 2**32 - 1),
    "double": st.floats(),
    "single": st.floats(width=32),
    "flag": st.booleans(),
    "raw": st.binary(),
    "side": st.sampled_from(["BUY", "SELL"]),
    "class": st.builds(lambda n: Row(n=n), st.integers(0, 9)),
}


def rows(*, with_none: bool) -> st.SearchStrategy[Row]:
    fields: dict[str, st.SearchStrategy[Any]] = {}
    for name, values in SINGLE.items():
        fields[name] = st.none() | values if with_none or name == "class" else values
        fields[f"{name}s"] = st.lists(values, max_size=3)
    fields["map"] = st.dictionaries(st.text(), SINGLE["class"], max_size=1)
    return st.fixed_dictionaries(fields).map(lambda values: Row(**values))


TWO, THREE = [
    (ProtobufRowSerializationSchema(kind), ProtobufRowDeserializationSchema(kind)) for kind in (Proto2, Proto3)
]


@settings(max_examples=60)
@given(rows(with_none=True), rows(with_none=False))
def test_any_row_comes_back_as_it_was(with_none: Row, without: Row) -> None:
    for (writes, reads), row in ((TWO, with_none), (THREE, without)):
        written = writes.serialize(row)
        assert written is not None
        back = reads.deserialize(written)
        assert back is not None
        assert {n: repr(value) for n, value in back.as_dict().items()} == {n: repr(v) for n, v in row.as_dict().items()}


def test_what_is_not_there_is_none_where_that_can_be_told() -> None:
    two = ProtobufRowDeserializationSchema(Proto2).deserialize(b"")
    three = ProtobufRowDeserializationSchema(Proto3).deserialize(b"")
    defaults = ProtobufRowDeserializationSchema(Proto2, read_default_values=True).deserialize(b"")
    assert two is not None
    assert three is not None
    assert defaults is not None
    assert (two["text"], two["small"], two["side"], two["class"], two["texts"], two["map"]) == (None,) * 4 + ([], {})
    assert (three["text"], three["small"], three["side"], three["class"]) == ("", 0, "BUY", None)
    assert (defaults["text"], defaults["small"], defaults["side"], defaults["class"]) == ("", 0, "BUY", None)


def test_a_number_that_an_enum_has_no_name_for_is_its_digits() -> None:
    message = Proto3()
    message.side = 7
    row = ProtobufRowDeserializationSchema(Proto3).deserialize(message.SerializeToString())
    assert row is not None
    assert row["side"] == "7"
    assert ProtobufRowSerializationSchema(Proto3).serialize(row) == message.SerializeToString()


def test_types_are_those_of_flinks_format() -> None:
    assert row_type_of(timestamp_pb2.Timestamp.DESCRIPTOR) == Types.ROW_NAMED(
        ["seconds", "nanos"], [Types.LONG(), Types.INT()]
    )
    found = dict(
        zip(row_type_of(Proto3.DESCRIPTOR).get_field_names(), row_type_of(Proto3.DESCRIPTOR).field_types, strict=True)
    )
    inner = Types.ROW_NAMED(["n"], [Types.INT()])
    assert found["sides"] == Types.OBJECT_ARRAY(Types.STRING())
    assert found["map"] == Types.MAP(Types.STRING(), inner)
    assert found["class"] == inner


@pytest.mark.parametrize("element", [{"small": 2**40 + 0.5}, {"text": b"x"}, {"sides": ["NOPE"]}, {"texts": [None]}, 7])
def test_what_cannot_be_written_is_an_error(element: Any) -> None:
    with pytest.raises(DataError, match=r"ProtobufRowSerializationSchema\(All\) cannot write this element"):
        ProtobufRowSerializationSchema(Proto3).serialize(element)


def test_messages_go_both_ways() -> None:
    reads, writes = ProtobufDeserializationSchema(Proto3), ProtobufSerializationSchema(Proto3)
    message = Proto3(text="a", texts=["b"])
    assert reads.deserialize(writes.serialize(message)) == message
    assert reads.deserialize(None) is None
    assert writes.serialize(None) is None
    with pytest.raises(DataError, match=r"ProtobufDeserializationSchema\(All\) cannot read these bytes: DecodeError"):
        reads.deserialize(b"\xff")
    with pytest.raises(DataError, match="TypeError: it is a Timestamp"):
        writes.serialize(timestamp_pb2.Timestamp())
    assert ProtobufRowDeserializationSchema(Proto3, ignore_parse_errors=True).deserialize(b"\xff") is None


def test_what_is_no_message_class_and_what_contains_itself_is_refused() -> None:
    with pytest.raises(ConfigError, match="a class of Protobuf messages is needed"):
        ProtobufDeserializationSchema(dict)
    with pytest.raises(ConfigError, match="a class of Protobuf messages is needed"):
        ProtobufRowSerializationSchema(Proto3())
    for kind in (ProtobufRowDeserializationSchema, ProtobufRowSerializationSchema):
        with pytest.raises(ConfigError, match=r"google\.protobuf\.Struct contains itself"):
            kind(struct_pb2.Struct)


SCHEMAS = [
    ProtobufDeserializationSchema(Proto3),
    ProtobufRowDeserializationSchema(Proto2),
    ProtobufRowDeserializationSchema(Proto3, ignore_parse_errors=True),
    ProtobufDeserializationSchema(struct_pb2.Struct),
]


@given(
    spoiled(lambda: rows(with_none=False).map(lambda row: ProtobufRowSerializationSchema(Proto3).serialize(row) or b""))
)
def test_any_bytes_give_a_value_or_a_data_error(data: bytes) -> None:
    for schema in SCHEMAS:
        read(schema, data)


def test_schemas_of_generated_classes_go_to_other_processes() -> None:
    kind = timestamp_pb2.Timestamp
    for schema in (
        ProtobufDeserializationSchema(kind),
        ProtobufRowDeserializationSchema(kind, read_default_values=True),
    ):
        assert pickle.loads(pickle.dumps(schema)).deserialize(b"\x08\x07") == schema.deserialize(b"\x08\x07")
    for writer in (ProtobufSerializationSchema(kind), ProtobufRowSerializationSchema(kind)):
        element = kind(seconds=7) if type(writer) is ProtobufSerializationSchema else Row(7, 0)
        assert pickle.loads(pickle.dumps(writer)).serialize(element) == b"\x08\x07"
