"""One record, for people and for programs."""

from __future__ import annotations

import base64
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.cli.records import as_json, as_text
from headrace.kafka.client.protocol import KafkaConsumerRecord, TimestampType


def record(value: bytes | None, key: bytes | None = None, headers: list[tuple[str, bytes | None]] | None = None):
    return KafkaConsumerRecord("t", 0, 7, 0, TimestampType.CREATE_TIME, key, value, headers or [])


@given(st.binary() | st.text().map(str.encode), st.text(), st.booleans())
def test_no_record_moves_the_cursor_of_a_terminal(data: bytes, name: str, pretty: bool) -> None:
    lines = as_text(record(data, data, [(name, data)]), pretty=pretty).split("\n")
    assert all(line.replace("\t", " ").isprintable() for line in lines)
    assert pretty or len(lines) == 1


@given(st.none() | st.binary() | st.text().map(str.encode))
def test_no_byte_is_lost_in_json(data: bytes | None) -> None:
    found = json.loads(as_json(record(data, data, [("h", data)])))
    for shown in (found["key"], found["value"], found["headers"][0]["value"]):
        match shown:
            case {"base64": text}:
                assert base64.b64decode(text) == data
            case str():
                assert shown.encode() == data
            case None:
                assert data is None


@pytest.mark.parametrize(
    ("value", "lines"),
    [
        (b'{"a": [1.10, 12345678901234567890, {}], "b": "x"}', ["{", '  "a": [', "    1.10,"]),
        (b"[]", ["[]"]),
        (b"{broken", ["{broken"]),
        (b"two\nlines", ["two", "lines"]),
        (b"[" * 100_000, ["[" * 100_000]),
        (b"", [""]),
    ],
)
def test_pretty_json_has_its_numbers_as_they_are_written(value: bytes, lines: list[str]) -> None:
    found = as_text(record(value), pretty=True).split("\n")[1:]
    assert found[: len(lines)] == [f"  {line}" for line in lines]
    if value.startswith(b"{") and len(found) > 1:
        assert json.loads("\n".join(found)) == json.loads(value)


def test_a_time_beyond_every_calendar_is_shown() -> None:
    assert as_text(record(b"x")._replace(timestamp=2**63 - 1)).endswith("  x")
    assert "(no time)" in as_text(record(b"x")._replace(timestamp=-1))
