"""Values as Java reads and writes them in text, which JSON and CSV rows on Flink go by."""

from __future__ import annotations

import datetime
import math
import re
import struct
from collections.abc import Callable
from decimal import Decimal
from typing import Any

from headrace.common.typeinfo import BasicType, BasicTypeInfo, TypeInformation

INT_RANGES = {
    BasicType.BYTE: (-(1 << 7), (1 << 7) - 1),
    BasicType.SHORT: (-(1 << 15), (1 << 15) - 1),
    BasicType.INT: (-(1 << 31), (1 << 31) - 1),
    BasicType.LONG: (-(1 << 63), (1 << 63) - 1),
}

_WHOLE = re.compile(r"[+-]?\d+", re.ASCII)
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d{1,9})?", re.ASCII)
_DATE = re.compile(r"(\d{4})-(\d{1,2})-(\d{1,2})", re.ASCII)
_TIME = re.compile(r"(\d{1,2}):(\d{1,2}):(\d{1,2})", re.ASCII)
_ISO_TIME = re.compile(r"(\d\d):(\d\d)(?::(\d\d)(?:\.(\d{0,9}))?)?", re.ASCII)


def parse_boolean(text: str) -> bool:
    """Java's `Boolean.parseBoolean`: whatever is not true is false.

    >>> parse_boolean(" TRUE "), parse_boolean("yes")
    (True, False)
    """
    return text.strip().lower() == "true"


def parse_whole(text: str, basic_type: BasicType) -> int:
    """A whole number of this width (any, for BIG_INT); ValueError for what is none."""
    text = text.strip()
    if not _WHOLE.fullmatch(text):
        raise ValueError(f"{text!r:.80} is not a whole number")
    number = int(text)
    low, high = INT_RANGES.get(basic_type, (number, number))
    if not low <= number <= high:
        raise ValueError(f"{number} does not fit into {basic_type.value}")
    return number


def parse_double(text: str) -> float:
    """Java's `Double.parseDouble`, without hexadecimal numbers.

    >>> parse_double("1.5d"), parse_double("1e999"), parse_double("-Infinity")
    (1.5, inf, -inf)
    """
    text = text.strip()
    if text.lstrip("+-") in ("NaN", "Infinity"):
        return float(text)
    number = text[:-1] if text[-1:] in tuple("dDfF") else text
    if not _NUMBER.fullmatch(number):
        raise ValueError(f"{text!r:.80} is not a number")
    return float(number)


def parse_decimal(text: str) -> Decimal:
    """Java's `BigDecimal(String)`."""
    text = text.strip()
    if not _NUMBER.fullmatch(text):
        raise ValueError(f"{text!r:.80} is not a decimal number")
    return Decimal(text)


def parser_of(declared: TypeInformation) -> Callable[[str], Any] | None:
    """What makes a truth value or a number of this type of text; None for a type that is neither."""
    match declared:
        case BasicTypeInfo(BasicType.BOOLEAN):
            return parse_boolean
        case BasicTypeInfo(kind) if kind in INT_RANGES or kind is BasicType.BIG_INT:
            return lambda text: parse_whole(text, kind)
        case BasicTypeInfo(BasicType.DOUBLE):
            return parse_double
        case BasicTypeInfo(BasicType.FLOAT):
            return lambda text: declared.to_internal_type(parse_double(text))
        case BasicTypeInfo(BasicType.BIG_DEC):
            return parse_decimal
        case _:
            return None


def parse_sql_date(text: str) -> datetime.date:
    """`java.sql.Date.valueOf`."""
    match = _DATE.fullmatch(text)
    if not match:
        raise ValueError(f"{text!r:.80} is not a date: YYYY-MM-DD")
    return datetime.date(*map(int, match.groups()))


def parse_sql_time(text: str) -> datetime.time:
    """`java.sql.Time.valueOf`."""
    match = _TIME.fullmatch(text)
    if not match:
        raise ValueError(f"{text!r:.80} is not a time: HH:MM:SS")
    hour, minute, second = map(int, match.groups())
    return datetime.time(hour, minute, second)


def parse_sql_timestamp(text: str) -> datetime.datetime:
    """`java.sql.Timestamp.valueOf`; what is below a microsecond is cut off."""
    date, separator, time = text.strip().partition(" ")
    time, dot, fraction = time.partition(".")
    if not separator or (dot and not re.fullmatch(r"\d{1,9}", fraction, re.ASCII)):
        raise ValueError(f"{text!r:.80} is not a timestamp: YYYY-MM-DD HH:MM:SS[.fff]")
    at = datetime.datetime.combine(parse_sql_date(date), parse_sql_time(time))
    return at.replace(microsecond=int(f"{fraction:0<6}"[:6]))


def parse_iso_timestamp(text: str) -> datetime.datetime:
    """Java's ISO_LOCAL_DATE_TIME; what is below a microsecond is cut off."""
    if len(text) > 10 and text[10] in "Tt":
        return datetime.datetime.combine(datetime.date.fromisoformat(text[:10]), parse_iso_time(text[11:]))
    raise ValueError(f"{text!r:.80} is not a timestamp: YYYY-MM-DDTHH:MM:SS[.fff], without a zone")


def parse_iso_time(text: str) -> datetime.time:
    """Java's ISO_LOCAL_TIME."""
    match = _ISO_TIME.fullmatch(text)
    if not match:
        raise ValueError(f"{text!r:.80} is not a time: HH:MM:SS[.fff], without a zone")
    hour, minute, second, fraction = match.groups()
    return datetime.time(int(hour), int(minute), int(second or 0), int(f"{fraction or '':0<6}"[:6]))


def double_text(number: float) -> str:
    """Java's `Double.toString`.

    >>> double_text(0.1), double_text(1e7), double_text(-0.00012), double_text(float("nan"))
    ('0.1', '1.0E7', '-1.2E-4', 'NaN')
    """
    return _java_text(number, repr(number))


def float_text(number: float) -> str:
    """Java's `Float.toString`, of a number that a Java float can hold.

    >>> float_text(0.10000000149011612)
    '0.1'
    """
    for digits in range(6, 10):
        text = f"{number:.{digits}g}"
        try:
            if struct.pack("f", float(text)) == struct.pack("f", number):
                break
        except OverflowError:
            continue
    return _java_text(number, text)


def _java_text(number: float, text: str) -> str:
    if not math.isfinite(number):
        return "NaN" if math.isnan(number) else "Infinity" if number > 0 else "-Infinity"
    if number == 0:
        return "-0.0" if math.copysign(1, number) < 0 else "0.0"
    sign, digits, exponent = Decimal(text).normalize().as_tuple()
    shown = "".join(map(str, digits))
    assert isinstance(exponent, int)
    point = len(shown) + exponent
    if -3 < point <= 7:
        if point <= 0:
            body = f"0.{'0' * -point}{shown}"
        else:
            shown = shown.ljust(point, "0")
            body = f"{shown[:point]}.{shown[point:] or '0'}"
    else:
        body = f"{shown[0]}.{shown[1:] or '0'}E{point - 1}"
    return "-" * sign + body
