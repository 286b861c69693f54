"""Secrets that a program only refers to: `env:NAME` and `file:PATH` as the value of a property that is a secret.

*Extension.* The reference is what plans, checkpoints and reprs hold; the secret is looked up when a client is made, in
the process that makes it, and kept nowhere else.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from headrace.errors import ConfigError


def is_reference(value: str) -> bool:
    """Whether this names a secret, and is none.

    >>> is_reference("env:KAFKA_SECRET"), is_reference("opensesame")
    (True, False)
    """
    return value.startswith(("env:", "file:"))


def resolve(name: str, value: str, environment: Mapping[str, str] = os.environ) -> str:
    """The secret that property `name` refers to. Raises `ConfigError` if it is not there.

    >>> resolve("sasl.password", "env:KAFKA_SECRET", {"KAFKA_SECRET": "opensesame"})
    'opensesame'
    >>> resolve("sasl.password", "env:KAFKA_SECRET", {})  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    headrace.errors.ConfigError: `sasl.password` is env:KAFKA_SECRET, and there is no such environment variable; ...
    """
    kind, _, place = value.partition(":")
    if kind == "env":
        if not environment.get(place):
            what = "that variable is empty" if place in environment else "there is no such environment variable"
            raise ConfigError(f"`{name}` is {value}, and {what}; set it where the job runs")
        return environment[place]
    try:
        secret = Path(place).expanduser().read_text(encoding="utf-8").removesuffix("\n").removesuffix("\r")
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is no text in UTF-8"
        raise ConfigError(
            f"`{name}` is {value}, and that file cannot be read: {why}; put it where the job runs"
        ) from None
    if not secret:
        raise ConfigError(f"`{name}` is {value}, and that file is empty; put the secret into it")
    return secret
