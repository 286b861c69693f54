"""`Configuration`: settings by key, as a program and the command line give them."""

from __future__ import annotations

import base64
from contextvars import ContextVar
from typing import Any, TypeAlias

from headrace.errors import ConfigError

Setting: TypeAlias = "str | int | float | bool | bytes"

_SECRET = ("password", "secret", "token", "apikey", "api-key", "credential", "private-key", "jaas")


class Configuration:
    """Settings by key.

    >>> configuration = Configuration().set_string("execution.checkpointing.interval", "10 s")
    >>> configuration.set_integer("parallelism.default", 1).to_dict()["parallelism.default"]
    '1'

    *Differences from PyFlink*: a value that is not of the type asked for is a `ConfigError` that names it; the text
    form hides the values of passwords and other secrets; not hashable, as it changes.
    """

    def __init__(self, other: Configuration | None = None) -> None:
        self._settings: dict[str, Setting] = {} if other is None else dict(other._settings)

    def get_string(self, key: str, default_value: str) -> str:
        setting = self._settings.get(key)
        return default_value if setting is None else _as_text(setting)

    def set_string(self, key: str, value: str) -> Configuration:
        return self._set(key, str(value))

    def get_integer(self, key: str, default_value: int) -> int:
        if key not in self._settings:
            return default_value
        text = _as_text(self._settings[key]).strip()
        try:
            return int(text)
        except ValueError:
            raise ConfigError(f"`{key}` is {_shown(key, text)}; set it to a whole number") from None

    def set_integer(self, key: str, value: int) -> Configuration:
        return self._set(key, int(value))

    def get_boolean(self, key: str, default_value: bool) -> bool:
        if key not in self._settings:
            return default_value
        text = _as_text(self._settings[key]).strip().lower()
        if text not in ("true", "false"):
            raise ConfigError(f"`{key}` is {_shown(key, text)}; set it to true or false")
        return text == "true"

    def set_boolean(self, key: str, value: bool) -> Configuration:
        return self._set(key, bool(value))

    def get_float(self, key: str, default_value: float) -> float:
        if key not in self._settings:
            return float(default_value)
        text = _as_text(self._settings[key]).strip()
        try:
            return float(text)
        except ValueError:
            raise ConfigError(f"`{key}` is {_shown(key, text)}; set it to a number") from None

    def set_float(self, key: str, value: float) -> Configuration:
        return self._set(key, float(value))

    def get_bytearray(self, key: str, default_value: bytearray) -> bytearray:
        if key not in self._settings:
            return default_value
        setting = self._settings[key]
        if not isinstance(setting, bytes):
            raise ConfigError(f"`{key}` was not set with set_bytearray(); read it as it was set")
        return bytearray(setting)

    def set_bytearray(self, key: str, value: bytearray) -> Configuration:
        return self._set(key, bytes(value))

    def _set(self, key: str, value: Setting) -> Configuration:
        self._settings[key] = value
        return self

    @staticmethod
    def parse_list_value(value: str | None) -> list[str]:
        """The items of a list setting: `[a, b]`, lines of `- a`, or `a;b`.

        >>> Configuration.parse_list_value("['a.jar', b.jar]"), Configuration.parse_list_value("a.jar;b.jar")
        (['a.jar', 'b.jar'], ['a.jar', 'b.jar'])
        """
        text = (value or "").strip()
        if text.startswith("[") and text.endswith("]"):
            items = text[1:-1].split(",")
        elif text.startswith("- "):
            items = [line.strip().removeprefix("- ") for line in text.splitlines()]
        else:
            return text.split(";") if text else []
        return [item.strip().strip("'\"") for item in items if item.strip()]

    def key_set(self) -> set[str]:
        return set(self._settings)

    def add_all_to_dict(self, target_dict: dict[str, str]) -> None:
        """Put every setting into the dict, as text."""
        target_dict.update(self.to_dict())

    def add_all(self, other: Configuration, prefix: str | None = None) -> Configuration:
        """Take over all of the other's settings, over those of the same key; each key behind the prefix, if any."""
        self._settings.update({(prefix or "") + key: value for key, value in other._settings.items()})
        return self

    def contains_key(self, key: str) -> bool:
        return key in self._settings

    def to_dict(self) -> dict[str, str]:
        """Every setting as text."""
        return {key: _as_text(value) for key, value in self._settings.items()}

    def remove_config(self, key: str) -> bool:
        """Forget a setting; whether there was one."""
        return self._settings.pop(key, None) is not None

    def __deepcopy__(self, memo: Any) -> Configuration:
        return Configuration(self)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Configuration) and self._settings == other._settings

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return "{" + ", ".join(f"{key}={_shown(key, text)}" for key, text in sorted(self.to_dict().items())) + "}"


def _as_text(setting: Setting) -> str:
    match setting:
        case bool():
            return "true" if setting else "false"
        case bytes():
            return base64.b64encode(setting).decode()
        case _:
            return str(setting)


def _shown(key: str, text: str) -> str:
    return "******" if any(word in key.lower() for word in _SECRET) else repr(text)


launch_configuration: ContextVar[Configuration | None] = ContextVar("launch_configuration", default=None)
"""What the command line of `headrace run` sets. It goes over the program's own settings: whoever starts a job decides,
as with `--fresh` and `--from`, which have to work on an unchanged program.

*Differences from PyFlink*: with `flink run -D`, settings in the program win.
"""
