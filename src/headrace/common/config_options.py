"""`ConfigOption`: one setting's key, type and default, and how its text is read."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from headrace.common.configuration import Configuration
from headrace.common.refusal import not_supported
from headrace.errors import ConfigError

T = TypeVar("T")

_UNITS_NANOS: Mapping[str, int] = {
    unit: nanos
    for units, nanos in (
        ("ns nano nanos nanosecond nanoseconds", 1),
        ("us µs micro micros microsecond microseconds", 1_000),
        ("ms milli millis millisecond milliseconds", 1_000_000),
        ("s sec secs second seconds", 1_000_000_000),
        ("m min mins minute minutes", 60 * 1_000_000_000),
        ("h hour hours", 3_600 * 1_000_000_000),
        ("d day days", 86_400 * 1_000_000_000),
    )
    for unit in units.split()
}


@dataclass(frozen=True, slots=True)
class OptionType(Generic[T]):
    """A type of setting: how its text is read, and the words for what is accepted."""

    parse: Callable[[str], T]
    """Raises ValueError for text that is not of the type."""
    accepted: str


def parse_duration_ms(text: str) -> int:
    """Whole milliseconds (rounded down) of a Flink duration; a bare number is milliseconds.

    >>> parse_duration_ms("10 s"), parse_duration_ms("500ms"), parse_duration_ms("1 min"), parse_duration_ms("250")
    (10000, 500, 60000, 250)
    """
    match = re.fullmatch(r"(\d+)\s*([a-zµ]*)", text.strip().lower())
    if match is None:
        raise ValueError(text)
    number, unit = match.groups()
    nanos = _UNITS_NANOS.get(unit or "ms")
    if nanos is None:
        raise ValueError(text)
    return int(number) * nanos // 1_000_000


def parse_boolean(text: str) -> bool:
    """True or false, in any case."""
    try:
        return {"true": True, "false": False}[text.strip().lower()]
    except KeyError:
        raise ValueError(text) from None


STRING = OptionType(str, "a text")
INTEGER = OptionType(int, "a whole number")
FLOAT = OptionType(float, "a number")
BOOLEAN = OptionType(parse_boolean, "true or false")
DURATION = OptionType(parse_duration_ms, "a duration such as `10 s`, `500 ms` or `1 min`")


def one_of(*names: str, **aliases: str) -> OptionType[str]:
    """One of these names, in any case, with `-` as good as `_`; an alias stands for the name it maps to."""
    known = {_folded(name): name for name in names} | {_folded(alias): name for alias, name in aliases.items()}

    def parse(text: str) -> str:
        try:
            return known[_folded(text)]
        except KeyError:
            raise ValueError(text) from None

    return OptionType(parse, "one of " + ", ".join(names))


def _folded(name: str) -> str:
    return re.sub(r"[-_\s]", "", name).lower()


@dataclass(frozen=True, slots=True)
class ConfigOption(Generic[T]):
    """One setting: its key, its type, what it is when not set, and what it is for.

    Durations are read as whole milliseconds. `supports` says which values Headrace can honour; the others are refused
    by name, with `instead` for what to do.

    >>> ConfigOptions.key("restart-strategy.fixed-delay.attempts").int_type().default_value(1).read(Configuration())
    1
    """

    key: str
    type: OptionType[Any]
    default: T
    description: str = ""
    minimum: float | None = None
    supports: Callable[[T], bool] | None = None
    instead: str = ""
    fallback_keys: tuple[str, ...] = ()

    @property
    def all_keys(self) -> tuple[str, ...]:
        """All keys it is read from, the first that is set first."""
        return (self.key, *self.fallback_keys)

    def is_set(self, configuration: Configuration) -> bool:
        """Whether the configuration has a value for it."""
        return any(map(configuration.contains_key, self.all_keys))

    def read(self, configuration: Configuration) -> T:
        """The value, or the default.

        Raises `ConfigError` for text that is not of its type, `NotSupportedError` for what Headrace cannot honour.
        """
        for key in self.all_keys:
            if configuration.contains_key(key):
                return self._parsed(key, configuration.get_string(key, ""))
        return self.default

    def _parsed(self, key: str, text: str) -> T:
        try:
            value = self.type.parse(text)
        except ValueError:
            raise ConfigError(f"`{key}` is {text!r}; set it to {self.type.accepted}") from None
        if self.minimum is not None and value < self.minimum:
            raise ConfigError(f"`{key}` is {text!r}; it must be at least {self.minimum}")
        if self.supports is not None and not self.supports(value):
            raise not_supported(f"{key}: {text}", self.instead)
        return value  # type: ignore[no-any-return]


class ConfigOptions:
    """Builds a `ConfigOption`: `ConfigOptions.key(…).int_type().default_value(…)`."""

    @staticmethod
    def key(key: str) -> ConfigOptions.OptionBuilder:
        return ConfigOptions.OptionBuilder(key)

    class OptionBuilder:
        """The key; the type comes next."""

        def __init__(self, key: str) -> None:
            self._key = key

        def boolean_type(self) -> ConfigOptions.TypedConfigOptionBuilder[bool]:
            return ConfigOptions.TypedConfigOptionBuilder(self._key, BOOLEAN)

        def int_type(self) -> ConfigOptions.TypedConfigOptionBuilder[int]:
            return ConfigOptions.TypedConfigOptionBuilder(self._key, INTEGER)

        def long_type(self) -> ConfigOptions.TypedConfigOptionBuilder[int]:
            return ConfigOptions.TypedConfigOptionBuilder(self._key, INTEGER)

        def float_type(self) -> ConfigOptions.TypedConfigOptionBuilder[float]:
            return ConfigOptions.TypedConfigOptionBuilder(self._key, FLOAT)

        def double_type(self) -> ConfigOptions.TypedConfigOptionBuilder[float]:
            return ConfigOptions.TypedConfigOptionBuilder(self._key, FLOAT)

        def string_type(self) -> ConfigOptions.TypedConfigOptionBuilder[str]:
            return ConfigOptions.TypedConfigOptionBuilder(self._key, STRING)

    class TypedConfigOptionBuilder(Generic[T]):
        """Key and type; the default comes last."""

        def __init__(self, key: str, option_type: OptionType[T]) -> None:
            self._key = key
            self._type = option_type

        def default_value(self, value: T) -> ConfigOption[T]:
            return ConfigOption(self._key, self._type, value)

        def no_default_value(self) -> ConfigOption[T | None]:
            return ConfigOption(self._key, self._type, None)
