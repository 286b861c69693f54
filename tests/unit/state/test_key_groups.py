from __future__ import annotations

import datetime as dt
import ipaddress
import os
import subprocess
import sys
import uuid
from dataclasses import dataclass
from decimal import Decimal
from enum import Enum, IntEnum, StrEnum
from fractions import Fraction
from pathlib import Path
from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.common.types import Row
from headrace.errors import NotSupportedError
from headrace.state.key_groups import check_key, key_group


class Colour(Enum):
    RED = "red"


class Level(IntEnum):
    ONE = 1


class Name(StrEnum):
    A = "a"


class Place(NamedTuple):
    x: int
    y: float


@dataclass(frozen=True)
class Point:
    x: object
    y: object = 0


@dataclass(frozen=True)
class Folded:
    """Its equality is its own."""

    name: str

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Folded) and self.name.lower() == other.name.lower()

    def __hash__(self) -> int:
        return hash(self.name.lower())


class Text(str):
    __slots__ = ()


class Autumn(dt.tzinfo):
    """Clocks that are set back: of an hour that comes twice, the second time (`fold`) has another offset."""

    def utcoffset(self, when: dt.datetime | None) -> dt.timedelta:
        return dt.timedelta(hours=1 if when is not None and when.fold else 2)

    def dst(self, when: dt.datetime | None) -> None:
        return None

    def tzname(self, when: dt.datetime | None) -> str:
        return "autumn"


AUTUMN = Autumn()
EAST = dt.timezone(dt.timedelta(hours=2))
NOON = dt.datetime(2026, 5, 4, 12, 0, 0, 7)


@pytest.mark.parametrize(
    "keys",
    [
        (1, 1.0, True, Decimal(1), Fraction(1), 1 + 0j, Level.ONE, Decimal("1.000")),
        (0, -0.0, False, Decimal("-0")),
        (0.5, Fraction(1, 2), Decimal("0.5")),
        (2**70, float(2**70), Decimal(2**70)),
        (float("inf"), Decimal("inf")),
        ("a", Name.A, Text("a")),
        ((1, "a"), (1.0, "a"), (True, Name.A)),
        ((1, 2), Place(1, 2.0)),
        (frozenset([1, "b"]), frozenset(["b", True])),
        (frozenset([1, 2, 3]), frozenset([3.0, 2.0, 1.0])),
        (Point(1, "a"), Point(True, Name.A)),
        (Row(1, "a"), Row(1.0, "a")),
        (Row(a=1, b=2), Row(b=2, a=1)),
        (NOON.replace(tzinfo=EAST), (NOON - dt.timedelta(hours=2)).replace(tzinfo=dt.UTC)),
        (NOON, NOON.replace(fold=1)),
        (NOON.replace(tzinfo=AUTUMN), NOON.replace(tzinfo=AUTUMN, fold=1)),
        (dt.time(12, tzinfo=EAST), dt.time(10, tzinfo=dt.UTC)),
        (dt.timedelta(days=1), dt.timedelta(hours=24)),
    ],
    ids=repr,
)
def test_equal_keys_share_a_group(keys: tuple[object, ...]) -> None:
    assert all(key == keys[0] for key in keys)

    assert len({key_group(key, 1 << 20) for key in keys}) == 1


@pytest.mark.parametrize(
    ("key", "group"),
    [
        ("reuters.com", 116),
        ("", 0),
        ("ü€\ud800", 21),
        (b"reuters.com", 116),
        (7, 112),
        (-1.5, 120),
        (None, 113),
        (("reuters.com", 7), 51),
        ((), 57),
        (frozenset({"a", "b"}), 89),
        (Colour.RED, 31),
        (Point(1), 60),
        (Row("a", 1), 21),
        (NOON, 38),
        (NOON.replace(tzinfo=EAST), 96),
        (dt.date(2026, 5, 4), 65),
        (dt.time(12), 4),
        (dt.timedelta(seconds=1), 44),
        (uuid.UUID(int=5), 90),
    ],
    ids=repr,
)
def test_group_of_a_key_never_changes(key: object, group: int) -> None:
    # These numbers are in the snapshots of running jobs: a change here loses their state.
    assert key_group(key, 128) == group


def test_groups_are_the_same_in_every_process() -> None:
    program = (
        "from headrace.state.key_groups import key_group; from decimal import Decimal; "
        "print([key_group(k) for k in ('a', b'a', 3, 2.5, Decimal(7), ('a', 1), frozenset('abc'), None)])"
    )
    said = {
        subprocess.check_output(
            [sys.executable, "-c", program],
            env={**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": os.pathsep.join(sys.path)},
        )
        for seed in ("1", "2", "3")
    }

    assert len(said) == 1


scalars = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.decimals(allow_nan=False)
    | st.fractions()
    | st.text(st.characters())
    | st.binary()
    | st.dates()
    | st.datetimes(timezones=st.none() | st.sampled_from([dt.UTC, EAST, AUTUMN]))
    | st.times()
    | st.timedeltas()
    | st.uuids()
)
keys = st.recursive(
    scalars, lambda inner: st.tuples(inner, inner) | st.frozensets(inner) | st.builds(Point, inner), max_leaves=6
)


@given(keys, st.integers(1, 1 << 15))
def test_every_supported_key_has_a_group_in_range(key: object, max_parallelism: int) -> None:
    assert 0 <= key_group(key, max_parallelism) < max_parallelism
    check_key(key)


small = st.sampled_from([0, 1, True, 1.0, Decimal(1), Fraction(1), Level.ONE, "a", Name.A, b"a", None])
small_keys = st.recursive(
    small, lambda inner: st.tuples(inner) | st.frozensets(inner, max_size=2) | st.builds(Point, inner), max_leaves=4
)


@given(small_keys, small_keys)
def test_keys_that_are_equal_in_python_share_a_group(one: object, other: object) -> None:
    if one == other:
        assert key_group(one, 1 << 15) == key_group(other, 1 << 15)


def test_keys_spread_over_all_groups() -> None:
    for make in (str, int, lambda n: (f"user-{n}", n), lambda n: uuid.UUID(int=n * 7919)):
        counts = [0] * 128
        for n in range(128 * 100):
            counts[key_group(make(n))] += 1
        assert min(counts) > 40
        assert max(counts) < 200


@pytest.mark.parametrize(
    "key",
    [
        object(),
        Path("a"),
        ipaddress.ip_address("::1"),
        Folded("A"),
        [1],
        {"a": 1},
        {1},
        (1, object()),
        frozenset([object]),
        Point(object()),
        Exception(),
    ],
    ids=lambda key: type(key).__name__,
)
def test_key_whose_equality_is_not_known_is_refused_by_type(key: object) -> None:
    with pytest.raises(NotSupportedError, match=r"a \w+\.[\w.]+ cannot be a key.*have the key selector return"):
        key_group(key)
    with pytest.raises(NotSupportedError, match="cannot be a key"):
        check_key(key)


@dataclass
class Mutable:
    x: int


def test_mutable_dataclass_is_refused() -> None:
    with pytest.raises(NotSupportedError, match="Mutable cannot be a key"):
        key_group(Mutable(1))


@pytest.mark.parametrize("key", [float("nan"), Decimal("nan"), (1, float("nan"))])
def test_nan_is_refused(key: object) -> None:
    with pytest.raises(NotSupportedError, match="nan cannot be a key"):
        key_group(key)
    with pytest.raises(NotSupportedError, match="nan cannot be a key"):
        check_key(key)
