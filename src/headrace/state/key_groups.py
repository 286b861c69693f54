"""Key groups: the unit in which keyed state is divided among lanes.

A key's group is the same in every process, on every machine and in every version, because snapshots are divided by it;
and it is the same for keys that are equal in Python (1, 1.0 and True), because a dict takes them for one key. Python's
own `hash` is salted for strings, so groups are computed from the key's value.
"""

from __future__ import annotations

import dataclasses
import datetime
import uuid
import zlib
from enum import Enum
from numbers import Number
from typing import Any, Final

from headrace.common.types import Row
from headrace.errors import NotSupportedError

_PLAIN: Final = frozenset({str, bytes, int, bool, type(None), uuid.UUID})
"""Types of which every value can be a key."""


def key_group(key: object, max_parallelism: int = 128) -> int:
    """The key group of a key: 0 to `max_parallelism` - 1.

    Supported are None, strings, bytes, numbers of every kind, dates and times, UUIDs, enum members, and tuples,
    frozensets, Rows and frozen dataclasses of these. Raises `NotSupportedError` for any other type, as equality of such
    keys is not known, and for nan.

    *Differences from PyFlink*: the groups are other ones, as Flink's come from the hash of a key's serialized form,
    which differs for 1 and 1.0. A snapshot cannot be exchanged with Flink anyway.

    >>> key_group(1) == key_group(1.0) == key_group(True)
    True
    >>> key_group("reuters.com"), key_group(("reuters.com", 7))
    (116, 51)
    """
    if type(key) is str:
        return zlib.crc32(key.encode("utf-8", "surrogatepass")) % max_parallelism
    return zlib.crc32(_canonical(key)) % max_parallelism


class UnusableKey(NotSupportedError):
    """A key that no key group can be told of: the fault of a record, and not of a setting."""


def check_key(key: object) -> None:
    """Raise what `key_group` would. Called for each key that is new to a state, so the usual ones cost little.

    >>> check_key(("reuters.com", 7))
    >>> check_key(range(3))
    Traceback (most recent call last):
    headrace.state.key_groups.UnusableKey: a builtins.range cannot be a key, as it is not known which of them ...
    """
    if type(key) not in _PLAIN and not (type(key) is tuple and all(type(part) in _PLAIN for part in key)):
        _canonical(key)


def _canonical(key: Any) -> bytes:
    """Bytes that are equal for equal keys. (Different keys may share theirs: they only share a group then.)"""
    match key:
        case str():
            return key.encode("utf-8", "surrogatepass")
        case bytes():
            return key
        case None:
            return b"None"
        case Number():
            if key != key:
                raise UnusableKey(
                    "nan cannot be a key, as it is not equal to itself; have the key selector return None for it"
                )
            # Of numbers, and of nothing else, the hash is defined by the language: equal over all types, not salted.
            return hash(key).to_bytes(8, "little", signed=True)
        case tuple():
            return b"(" + b"".join(map(_framed, key)) + b")"
        case frozenset():
            return b"{" + b"".join(sorted(map(_framed, key))) + b"}"
        case Row():
            # Rows with the same names in another order are equal.
            return b"Row{" + b"".join(sorted(map(_framed, key))) + b"}"
        case datetime.datetime() | datetime.time():
            return _canonical_time(key)
        case datetime.date():
            return key.isoformat().encode()
        case datetime.timedelta():
            return b"%d:%d:%d" % (key.days, key.seconds, key.microseconds)
        case uuid.UUID():
            return key.bytes
        case Enum() if type(key).__eq__ is object.__eq__:
            return f"{type(key).__qualname__}.{key.name}".encode()
        case _ if _compares_by_fields(type(key)):
            fields = [field for field in dataclasses.fields(key) if field.compare]
            parts = [_framed(getattr(key, field.name)) for field in fields]
            return type(key).__qualname__.encode() + b"(" + b"".join(parts) + b")"
        case _:
            raise UnusableKey(
                f"a {type(key).__module__}.{type(key).__qualname__} cannot be a key, as it is not known which of "
                "them are equal; have the key selector return a string, a number, or a tuple or frozen dataclass of "
                "such"
            )


def _framed(part: object) -> bytes:
    data = _canonical(part)
    return b"%d:" % len(data) + data


def _canonical_time(key: datetime.datetime | datetime.time) -> bytes:
    # As the standard library hashes them: `fold` does not count, and aware ones are equal wherever they are.
    key = key.replace(fold=0)
    offset = key.utcoffset()
    if offset is None:
        return key.isoformat().encode()
    if isinstance(key, datetime.datetime):
        since = key.replace(tzinfo=None) - datetime.datetime(1, 1, 1)
    else:
        since = datetime.timedelta(hours=key.hour, minutes=key.minute, seconds=key.second, microseconds=key.microsecond)
    return b"utc" + _canonical(since - offset)


def _compares_by_fields(kind: type) -> bool:
    """Whether this is a hashable dataclass whose equality is the generated one."""
    if not dataclasses.is_dataclass(kind) or kind.__hash__ is None:
        return False
    generated = getattr(kind.__eq__, "__code__", None)
    return generated is not None and generated.co_filename == "<string>"
