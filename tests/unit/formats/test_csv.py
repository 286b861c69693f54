"""CSV rows, by what Flink's own tests expect of them byte for byte, and what becomes of any bytes at all."""

from __future__ import annotations

import datetime
import pickle
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tests.unit.formats.values import BYTES, SIMPLE, read, rows_of, spoiled, values_of

from headrace.common import Row, TypeInformation, Types
from headrace.datastream.formats.csv import CsvRowDeserializationSchema, CsvRowSerializationSchema
from headrace.errors import ConfigError, DataError

TEXT, NUMBER = Types.STRING(), Types.INT()
AROUND = Row("BEGIN", None, "END")


def around(declared: TypeInformation) -> TypeInformation:
    return Types.ROW([TEXT, declared, TEXT])


@pytest.mark.parametrize(
    ("declared", "cell", "value"),
    [
        (Types.LONG(), "null", None),
        (TEXT, "null", None),
        (TEXT, '"This is a test."', "This is a test."),
        (TEXT, '"This is a test\n\r."', "This is a test\n\r."),
        (TEXT, '"aaaaaaaaaaaaaaaaaaaaaaaaa"', "a" * 25),
        (TEXT, "aaaaaaaaaaaaaaaaaaaaaaaa", "a" * 24),
        (Types.BOOLEAN(), "true", True),
        (Types.BYTE(), "124", 124),
        (Types.SHORT(), "10000", 10000),
        (Types.LONG(), "12345678910", 12345678910),
        (Types.FLOAT(), "0.33333334", 0.3333333432674408),
        (Types.DOUBLE(), "0.33333333332", 0.33333333332),
        (Types.DOUBLE(), "1.0E10", 1e10),
        (Types.BIG_DEC(), '"1234.0000000000000000000000001"', Decimal("1234.0000000000000000000000001")),
        (Types.BIG_INT(), '"123400000000000000000000000000"', 123400000000000000000000000000),
        (Types.SQL_DATE(), "2018-10-12", datetime.date(2018, 10, 12)),
        (Types.SQL_TIME(), "12:12:12", datetime.time(12, 12, 12)),
        (Types.SQL_TIMESTAMP(), '"2018-10-12 12:12:12.0"', datetime.datetime(2018, 10, 12, 12, 12, 12)),
        (Types.SQL_TIMESTAMP(), '"2018-10-12 12:12:12.05"', datetime.datetime(2018, 10, 12, 12, 12, 12, 50_000)),
        (Types.ROW([TEXT, NUMBER, Types.BOOLEAN()]), "Hello;42;false", Row("Hello", 42, False)),
        (Types.OBJECT_ARRAY(TEXT), "a;b;c", ["a", "b", "c"]),
        (Types.BASIC_ARRAY(Types.BYTE()), "12;4;null", [12, 4, None]),
        (BYTES, "awML", b"k\x03\x0b"),
    ],
)
def test_a_cell_is_written_and_read_as_on_flink(declared: TypeInformation, cell: str, value: Any) -> None:
    line, row = f"BEGIN,{cell},END\n".encode(), Row("BEGIN", value, "END")
    writer = CsvRowSerializationSchema.Builder(around(declared)).set_null_literal("null").build()
    reader = CsvRowDeserializationSchema.Builder(around(declared)).set_null_literal("null").build()
    assert writer.serialize(row) == line
    assert reader.deserialize(line) == row


@pytest.mark.parametrize(
    ("declared", "cell", "value", "is_written"),
    [
        (TEXT, "123*'4**", "123'4*", False),
        (TEXT, "'123''4**'", "123'4*", True),
        (TEXT, "'a;b*'c'", "a;b'c", False),
        (TEXT, "'a;b''c'", "a;b'c", True),
        (TEXT, "a*nb", "a\nb", False),
        (NUMBER, "       12          ", 12, False),
        (NUMBER, "12", 12, True),
        (Types.SQL_TIMESTAMP(), "    2018-10-12 12:12:12     ", datetime.datetime(2018, 10, 12, 12, 12, 12), False),
        (Types.ROW([TEXT, TEXT]), "1:hello", Row("1", "hello"), False),
        (Types.ROW([TEXT, TEXT]), "'1:hello world'", Row("1", "hello world"), True),
        (TEXT, "null", "null", True),
    ],
)
def test_other_delimiters_quotes_and_escapes(
    declared: TypeInformation, cell: str, value: Any, is_written: bool
) -> None:
    line, row = f"BEGIN;{cell};END\n".encode(), Row("BEGIN", value, "END")
    reader = CsvRowDeserializationSchema.Builder(around(declared)).set_escape_character("*").set_quote_character("'")
    assert reader.set_array_element_delimiter(":").set_field_delimiter(";").build().deserialize(line) == row
    writer = CsvRowSerializationSchema.Builder(around(declared)).set_escape_character("*").set_quote_character("'")
    if is_written:
        assert writer.set_array_element_delimiter(":").set_field_delimiter(";").build().serialize(row) == line


ROW = Types.ROW([TEXT, NUMBER, TEXT])


@pytest.mark.parametrize(
    ("line", "strict", "lenient"),
    [
        ("Test,null,Test", DataError, Row("Test", None, "Test")),
        ("Test,2147483648,Test", DataError, Row("Test", None, "Test")),
        ("Test", DataError, Row("Test", None, None)),
        ("Test,12,Test,Test", DataError, None),
        ("#Test,12,Test", Row("#Test", 12, "Test"), Row("#Test", 12, "Test")),
        ('"Test,12,Test', DataError, None),
        ('"Test"x,12,Test', DataError, None),
        ("Test,12,", Row("Test", 12, ""), Row("Test", 12, "")),
        ("a,1,b\nc,2,d", Row("a", 1, "b"), Row("a", 1, "b")),
        ("a,1,b\r\n", Row("a", 1, "b"), Row("a", 1, "b")),
        ("", None, None),
    ],
)
def test_what_cannot_be_read_is_an_error_or_none_or_passed_over(line: str, strict: Any, lenient: Any) -> None:
    builder = CsvRowDeserializationSchema.Builder(ROW)
    if strict is DataError:
        with pytest.raises(DataError, match="CsvRowDeserializationSchema cannot read these bytes"):
            builder.build().deserialize(line.encode())
    else:
        assert builder.build().deserialize(line.encode()) == strict
    assert builder.set_ignore_parse_errors(True).build().deserialize(line.encode()) == lenient
    assert builder.build().deserialize(None) is None


def test_comments_are_passed_over_where_they_are_allowed() -> None:
    schema = CsvRowDeserializationSchema.Builder(ROW).set_allow_comments(True).build()
    assert schema.deserialize(b"#Test,12,Test") is None
    assert schema.deserialize(b"# one\r\n#two\na,1,b") == Row("a", 1, "b")
    assert schema.skips


def test_lines_end_as_they_are_told_to() -> None:
    builder = CsvRowSerializationSchema.Builder(ROW)
    row = Row("Test", 12, "2019-12-26 12:12:12")
    assert builder.set_line_delimiter("\r").set_quote_character("#").build().serialize(row) == (
        b"Test,12,#2019-12-26 12:12:12#\r"
    )
    assert builder.disable_quote_character().set_line_delimiter("").build().serialize(row) == (
        b"Test,12,2019-12-26 12:12:12"
    )


def test_builders_refuse_what_cannot_be() -> None:
    for builder in (CsvRowDeserializationSchema.Builder, CsvRowSerializationSchema.Builder):
        with pytest.raises(TypeError, match="Type information must not be None"):
            builder(None)  # type: ignore[arg-type]
        with pytest.raises(ConfigError, match="is for rows, and was given Integer"):
            builder(NUMBER)
        with pytest.raises(ConfigError, match="`set_field_delimiter` takes one character"):
            builder(ROW).set_field_delimiter(",,")
        with pytest.raises(TypeError, match="`set_null_literal` takes a str"):
            builder(ROW).set_null_literal(None)  # type: ignore[arg-type]
        for refused in (Types.MAP(TEXT, TEXT), Types.ROW([Types.ROW([TEXT])]), Types.OBJECT_ARRAY(BYTES)):
            with pytest.raises(ConfigError, match=r"CSV rows cannot have .* in field `f"):
                builder(around(refused)).build()
    with pytest.raises(ConfigError, match="`set_line_delimiter` takes"):
        CsvRowSerializationSchema.Builder(ROW).set_line_delimiter(";")


def test_a_row_of_another_length_or_type_is_an_error() -> None:
    schema = CsvRowSerializationSchema.Builder(ROW).build()
    for element in (Row("a", 1), Row("a", "1", "b"), 7):
        with pytest.raises(DataError, match="CsvRowSerializationSchema cannot write this element"):
            schema.serialize(element)
    assert schema.serialize(None) is None
    assert schema.serialize(("a", 1, None)) == b"a,1,\n"


NULL = "\\N"
LEAVES = [kind for kind in SIMPLE if kind != BYTES]


@st.composite
def rows(draw: st.DrawFn) -> tuple[TypeInformation, Row]:
    kinds = draw(st.lists(st.sampled_from([*LEAVES, BYTES]), min_size=1, max_size=5))
    kinds += draw(st.sampled_from([[], [Types.OBJECT_ARRAY(NUMBER)], [Types.ROW([Types.LONG(), Types.SQL_DATE()])]]))
    row = draw(st.tuples(*map(values_of, kinds)).map(lambda values: Row(*values)))
    # One None alone in an array is an array that is None, and text may be what stands for None.
    return Types.ROW(kinds), Row(*(None if value in ([None], NULL) else value for value in row))


@settings(max_examples=100)
@given(rows(), st.sampled_from([None, "\\", "*"]), st.sampled_from(["\n", "\r\n", ""]), st.sampled_from('"#'))
def test_any_row_comes_back_as_it_was(
    made: tuple[TypeInformation, Row], escape: str | None, line_end: str, quote: str
) -> None:
    declared, row = made
    writer = CsvRowSerializationSchema.Builder(declared).set_null_literal(NULL).set_line_delimiter(line_end)
    reader = CsvRowDeserializationSchema.Builder(declared).set_null_literal(NULL)
    writer, reader = writer.set_quote_character(quote), reader.set_quote_character(quote)
    if escape is not None:
        writer, reader = writer.set_escape_character(escape), reader.set_escape_character(escape)
    if escape == "\\" and None in row:
        # Flink does not escape what stands for None.
        return
    written = writer.build().serialize(row)
    assert written is not None
    if written.strip(b"\r\n"):
        assert repr(reader.build().deserialize(written)) == repr(row)


EVERYTHING = Types.ROW([TEXT, NUMBER, Types.SQL_TIMESTAMP(), Types.OBJECT_ARRAY(Types.DOUBLE()), BYTES])
SCHEMAS = [
    CsvRowDeserializationSchema.Builder(EVERYTHING).set_ignore_parse_errors(ignores).set_allow_comments(ignores).build()
    for ignores in (False, True)
] + [CsvRowDeserializationSchema.Builder(EVERYTHING).set_escape_character("\\").build()]


def lines() -> st.SearchStrategy[bytes]:
    return rows_of(EVERYTHING).map(lambda row: CsvRowSerializationSchema(EVERYTHING).serialize(row) or b"")


@given(spoiled(lines))
@example(b"\xff")
@example(b"\0,1,,,")
@example(b"a" * 200_000 + b",1,2020-01-01 00:00:00,1;2,")
@example(b"a,1,0000-00-00 00:00:00,,")
def test_any_bytes_give_a_row_or_a_data_error(data: bytes) -> None:
    for schema in SCHEMAS:
        row = read(schema, data)
        assert row is None or isinstance(row, Row)


def test_schemas_go_to_other_processes() -> None:
    builder = CsvRowDeserializationSchema.Builder(ROW).set_field_delimiter(";").set_ignore_parse_errors(True)
    assert pickle.loads(pickle.dumps(builder.build())).deserialize(b"a;b;c") == Row("a", None, "c")
    writer = CsvRowSerializationSchema.Builder(ROW).set_field_delimiter(";").build()
    assert pickle.loads(pickle.dumps(writer)).serialize(Row("a", 1, "c")) == b"a;1;c\n"
