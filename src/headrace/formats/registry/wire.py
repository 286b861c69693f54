"""Confluent's wire format: what stands before the bytes of a key or a value that names its schema.

A zero byte, the schema's id in 4 bytes, big-endian; with Protobuf then the way to the message in its file: how many
indexes, and these, each as a zigzag varint, where `[0]`, the first message of the file, is a single zero byte.
"""

from __future__ import annotations

from collections.abc import Sequence

from headrace.errors import DataError

HEADER_BYTES = 5

_NO_WIRE_FORMAT = (
    "if its writer puts schema ids into headers (`header_schema_id_serializer`), have it put them before the bytes "
    "(`prefix_schema_id_serializer`)"
)


def header(schema_id: int) -> bytes:
    """What stands before the bytes.

    >>> header(7)
    b'\\x00\\x00\\x00\\x00\\x07'
    """
    return b"\0" + schema_id.to_bytes(4, "big")


def schema_id_of(message: bytes) -> int:
    """The id of the schema of these bytes. Raises `DataError` if they are not in the wire format.

    >>> schema_id_of(b"\\x00\\x00\\x00\\x00\\x07...")
    7
    """
    if not message or message[0] > 1:
        begin = f"begins with {message[:1].hex()}" if message else "is empty"
        raise DataError(
            f"this is not in the wire format of a schema registry: it {begin}, not with 00; " + _NO_WIRE_FORMAT
        )
    if message[0] == 1:
        raise DataError(f"the schema of these bytes is named by a GUID, which is not supported; {_NO_WIRE_FORMAT}")
    if len(message) < HEADER_BYTES:
        raise DataError(f"this ends within the id of its schema: {message.hex()}")
    return int.from_bytes(message[1:HEADER_BYTES], "big")


def write_indexes(indexes: Sequence[int]) -> bytes:
    """The way to a message in its file, as Protobuf's serializers write it behind the header.

    >>> write_indexes([0]), write_indexes([1, 0])
    (b'\\x00', b'\\x04\\x02\\x00')
    """
    if list(indexes) == [0]:
        return b"\0"
    written = bytearray()
    for number in (len(indexes), *indexes):
        rest = number << 1
        while rest > 0x7F:
            written.append(rest & 0x7F | 0x80)
            rest >>= 7
        written.append(rest)
    return bytes(written)


def read_indexes(message: bytes) -> tuple[tuple[int, ...], int]:
    """The way to the message, and where its bytes begin. Raises `DataError` for what is none.

    >>> read_indexes(header(7) + b"\\x04\\x02\\x00" + b"...")
    ((1, 0), 8)
    """
    count, at = _read_varint(message, HEADER_BYTES)
    if count == 0:
        return (0,), at
    if not 0 < count <= len(message) - at:
        raise DataError(f"{count} message indexes are announced, and {len(message) - at} bytes follow")
    indexes = []
    for _ in range(count):
        index, at = _read_varint(message, at)
        indexes.append(index)
    return tuple(indexes), at


def _read_varint(message: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        if at >= len(message) or shift > 63:
            raise DataError("the message indexes behind the schema's id are no varints")
        byte = message[at]
        at += 1
        value |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            return (value >> 1) ^ -(value & 1), at
