from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.common import ByteArraySchema, DeserializationSchema, SerializationSchema, SimpleStringSchema
from headrace.common.serialization import deserializer_of, serializer_of
from headrace.errors import ConfigError, DataError


@given(st.text(st.characters(codec="utf-8")), st.sampled_from(["UTF-8", "UTF-16BE", "UTF-32LE"]))
def test_a_string_comes_back_as_it_was_written(text: str, charset: str) -> None:
    schema = SimpleStringSchema(charset)
    data = schema.serialize(text)
    assert schema.deserialize(data) == text
    assert deserializer_of(schema)(data) == text  # type: ignore[misc]


@given(st.binary())
def test_any_bytes_can_be_read_as_text_and_the_quick_way_reads_the_same(data: bytes) -> None:
    schema = SimpleStringSchema()
    assert schema.deserializer()(data) == schema.deserialize(data) == data.decode("utf-8", "replace")


def test_malformed_bytes_become_the_replacement_character_and_missing_characters_a_question_mark() -> None:
    assert SimpleStringSchema().deserialize(b"a\xffb") == "a\ufffdb"
    assert SimpleStringSchema("ISO-8859-1").serialize("€") == b"?"
    assert SimpleStringSchema().serialize("\ud800") == b"?"


def test_no_value_stays_no_value() -> None:
    for schema in (SimpleStringSchema(), SimpleStringSchema("ISO-8859-1"), ByteArraySchema()):
        assert schema.serialize(None) is None
        assert schema.deserialize(None) is None
    assert SimpleStringSchema().deserializer()(None) is None


@pytest.mark.parametrize(("schema", "element"), [(SimpleStringSchema(), 1), (ByteArraySchema(), "text")])
def test_an_element_of_another_type_is_an_error_that_says_which_and_what_to_do(
    schema: SerializationSchema, element: Any
) -> None:
    with pytest.raises(DataError, match=rf"got {type(element).__name__}; put "):
        schema.serialize(element)


def test_bytes_are_handed_over_as_they_are() -> None:
    assert deserializer_of(ByteArraySchema()) is None
    assert serializer_of(ByteArraySchema()) is None
    assert ByteArraySchema().serialize(bytearray(b"x")) == b"x"


@pytest.mark.parametrize("charset", ["no-such", "UTF-16", "utf-32", "rot13"])
def test_a_charset_that_is_unknown_or_ambiguous_is_refused(charset: str) -> None:
    with pytest.raises(ConfigError, match="SimpleStringSchema"):
        SimpleStringSchema(charset)


class Lengths(SerializationSchema, DeserializationSchema):
    def serialize(self, element: Any) -> bytes:
        return b"x" * int(element)

    def deserialize(self, message: bytes | None) -> int:
        return len(message or b"")


def test_a_schema_of_the_programs_own_and_any_callable_are_as_good() -> None:
    for schema in (Lengths(), len):
        read = deserializer_of(schema)
        assert read is not None
        assert read(b"abc") == 3
    write = serializer_of(Lengths())
    assert write is not None
    assert write(2) == b"xx"
    assert serializer_of(str.encode) == str.encode


def test_what_is_neither_schema_nor_callable_is_refused() -> None:
    with pytest.raises(ConfigError, match="got str"):
        serializer_of("json")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="got NoneType"):
        deserializer_of(None)  # type: ignore[arg-type]


def test_a_subclass_that_reads_or_writes_in_its_own_way_does_so_in_the_hot_loop_too() -> None:
    class Shout(SimpleStringSchema):
        def serialize(self, element: Any) -> bytes | None:
            return super().serialize(element.upper())

        def deserialize(self, message: bytes | None) -> str | None:
            return (super().deserialize(message) or "").upper()

    class Short(ByteArraySchema):
        def serialize(self, element: Any) -> bytes | None:
            return element[:1]

    assert serializer_of(Shout())("a") == b"A"  # type: ignore[misc]
    assert deserializer_of(Shout())(b"a") == "A"  # type: ignore[misc]
    assert serializer_of(Short())(b"ab") == b"a"  # type: ignore[misc]
    assert deserializer_of(Short()) is None
