"""One record as text for people, and as JSON for programs."""

from __future__ import annotations

import base64
import json
import re
import time
from typing import Any

from headrace.kafka.client.protocol import KafkaConsumerRecord, TimestampType

_NO_TEXT = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")


def as_text(record: KafkaConsumerRecord, *, pretty: bool = False) -> str:
    """One line: where, when, key, headers, value. With `pretty` the value has lines of its own, JSON indented.

    Bytes that are no text are hexadecimal, `0x00ff`; nothing in a record moves the terminal's cursor.

    >>> created = TimestampType.CREATE_TIME
    >>> record = KafkaConsumerRecord("rss.events", 0, 7, -1, created, b"k", b'{"n": 1}', [("trace", b"abc")])
    >>> print(as_text(record))
    rss.events-0@7  (no time)  key=k  [trace=abc]  {"n": 1}
    >>> print(as_text(record._replace(key=None, value=None, headers=[])))
    rss.events-0@7  (no time)  (no value)
    """
    parts = [f"{record.topic}-{record.partition}@{record.offset}", when(record.timestamp)]
    if record.key is not None:
        parts.append(f"key={in_one_line(bytes_as_text(record.key))}")
    if record.headers:
        headers = (f"{printable(name)}={_or_none(value)}" for name, value in record.headers)
        parts.append(f"[{in_one_line(', '.join(headers))}]")
    if record.value is None:
        return "  ".join([*parts, "(no value)"])
    text = bytes_as_text(record.value)
    if not pretty:
        return "  ".join([*parts, in_one_line(text)])
    lines = indented(text).splitlines() or [""]
    return "\n".join(["  ".join(parts), *(f"  {line}" for line in lines)])


def as_json(record: KafkaConsumerRecord) -> str:
    """One object in one line. Key, value and headers are texts; `{"base64": …}` where the bytes are not UTF-8.

    >>> record = KafkaConsumerRecord("t", 0, 7, -1, TimestampType.NO_TIMESTAMP_TYPE, b"k", bytes([255]), [])
    >>> print(as_json(record))  # doctest: +NORMALIZE_WHITESPACE
    {"topic": "t", "partition": 0, "offset": 7, "timestamp": null, "timestamp_type": "NO_TIMESTAMP_TYPE",
     "key": "k", "value": {"base64": "/w=="}, "headers": []}
    """
    content = {
        "topic": record.topic,
        "partition": record.partition,
        "offset": record.offset,
        "timestamp": None if record.timestamp < 0 else record.timestamp,
        "timestamp_type": TimestampType(record.timestamp_type).name,
        "key": json_bytes(record.key),
        "value": json_bytes(record.value),
        "headers": [{"name": name, "value": json_bytes(value)} for name, value in record.headers],
    }
    return json.dumps(content)


def bytes_as_text(data: bytes) -> str:
    """UTF-8 as text that can be printed; what is no text as hexadecimal digits.

    >>> bytes_as_text("Zürich".encode()), bytes_as_text(bytes([0, 255])), bytes_as_text(chr(0x9B).encode())
    ('Zürich', '0x00ff', '\\\\x9b')
    """
    try:
        text = data.decode()
    except UnicodeDecodeError:
        return f"0x{data.hex()}"
    return f"0x{data.hex()}" if _NO_TEXT.search(text) else printable(text)


def printable(text: str) -> str:
    """Without characters that would do something to a terminal; line breaks stay."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c in "\n\t" else c.encode("unicode_escape").decode() for c in text)


def when(timestamp_ms: int) -> str:
    """Local time to the millisecond."""
    if timestamp_ms < 0:
        return "(no time)"
    try:
        at = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(timestamp_ms // 1000))
    except (OverflowError, OSError, ValueError):
        return f"{timestamp_ms} ms"
    return f"{at}.{timestamp_ms % 1000:03}"


def in_one_line(text: str) -> str:
    """Line breaks and tabs as they are written in a string."""
    return text.replace("\n", "\\n").replace("\t", "\\t")


def indented(text: str) -> str:
    """JSON with its numbers as they are written; anything else as it is."""
    if not text.lstrip().startswith(("{", "[")):
        return text
    try:
        found = json.loads(text, parse_float=_Number, parse_int=_Number, parse_constant=_Number)
        return printable(_json_text(found, "\n"))
    except (ValueError, RecursionError):
        return text


class _Number(str):
    """A number as it is written: read as a float it might be another one."""

    __slots__ = ()


def _json_text(value: Any, line: str) -> str:
    inner = line + "  "
    match value:
        case _Number():
            return str(value)
        case dict() if value:
            pairs = (f"{json.dumps(k, ensure_ascii=False)}: {_json_text(v, inner)}" for k, v in value.items())
            return f"{{{inner}" + f",{inner}".join(pairs) + f"{line}}}"
        case list() if value:
            return f"[{inner}" + f",{inner}".join(_json_text(each, inner) for each in value) + f"{line}]"
        case _:
            return json.dumps(value, ensure_ascii=False)


def _or_none(value: bytes | None) -> str:
    return "(no value)" if value is None else bytes_as_text(value)


def json_bytes(data: bytes | None) -> str | dict[str, str] | None:
    """Bytes for JSON: text, or `{"base64": …}` where they are not UTF-8."""
    if data is None:
        return None
    try:
        return data.decode()
    except UnicodeDecodeError:
        return {"base64": base64.b64encode(data).decode()}
