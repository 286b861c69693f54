"""Properties of a source or a sink as settings of librdkafka.

A program sets properties under the names that it would use with Flink; librdkafka's own names are taken as well. What
is in neither is an error, with the nearest name that exists; what becomes of each is a row of `property_table`. Where
the two clients have other defaults and it changes what a program means, the Java client's defaults hold
(`CONSUMER_DEFAULTS`, `PRODUCER_DEFAULTS`).
"""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, assert_never, cast

from headrace.common.secrets import is_reference, resolve
from headrace.errors import ConfigError, NotSupportedError
from headrace.kafka.client.protocol import TokenSource
from headrace.kafka.property_table import (
    ALIASES,
    PROPERTIES,
    Ignored,
    Own,
    Passed,
    Property,
    Refused,
    Role,
    Translated,
    has_login,
    read_int,
)


@dataclass(frozen=True, slots=True)
class Translation:
    """Properties as settings of the client, and what a program should be told."""

    settings: Mapping[str, str]
    warnings: tuple[str, ...]


CONSUMER_DEFAULTS: Final[Mapping[str, str]] = {
    "isolation.level": "read_uncommitted",
    # librdkafka waits for a second when its queue is full, which stalls a quick reader: 128,000 records/s instead of
    # 366,000.
    "fetch.queue.backoff.ms": "5",
    # For each partition. What is fetched stays in the processor's cache until it is read, in a tenth of the memory that
    # 200000 takes; the benchmark's hand-written loop is quicker with it by 2 to 3 %.
    "queued.min.messages": "20000",
    "fetch.message.max.bytes": str(4 * 1024 * 1024),
    # What bounds memory.
    "queued.max.messages.kbytes": str(128 * 1024),
}
PRODUCER_DEFAULTS: Final[Mapping[str, str]] = {
    "acks": "all",
    "enable.idempotence": "true",
    "partitioner": "murmur2_random",
    "delivery.timeout.ms": "120000",
    "message.max.bytes": "1048576",
    "linger.ms": "5",
    # Room for several batches of every size: the writer waits when it is full.
    "queue.buffering.max.messages": "500000",
    "queue.buffering.max.kbytes": str(128 * 1024),
}


def find(name: str, role: Role) -> Property | None:
    """The row for a property as this client knows it."""
    return next((row for row in PROPERTIES if row.name == name and row.role in (None, role)), None)


def translate(properties: Mapping[str, str], role: Role) -> Translation:
    """Settings for librdkafka. Raises `ConfigError` for what is unknown, wrong or cannot be had.

    >>> translate({"fetch.max.wait.ms": "100", "max.poll.records": "10"}, Role.CONSUMER).settings
    {'fetch.wait.max.ms': '100'}
    >>> translate({"bootstrap.server": "localhost"}, Role.CONSUMER)  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    headrace.errors.ConfigError: `bootstrap.server` is not ... of a Kafka consumer; did you mean `bootstrap.servers`?
    """
    settings: dict[str, str] = {}
    set_by: dict[str, str] = {}
    warnings: list[str] = []
    for name, value in properties.items():
        # As Java does, and as a pasted line may need; a secret may begin or end with a space.
        value = value if is_secret(name) else value.strip()
        row = find(name, role)
        if row is None and any(row.name == name for row in PROPERTIES):
            # Providers' snippets and many programs have one set of properties for producers and consumers.
            warnings.append(f"`{name}` has no effect: a Kafka {role.value} has no such property, the other client has")
            continue
        if row is None:
            raise _unknown(name, role)
        _check_text(name, value)
        match row.treatment:
            case Passed(other):
                made: Mapping[str, str] = {other or name: value}
            case Translated(into, _):
                made = into(value, properties)
            case Own():
                made = {}
            case Ignored(why):
                made = {}
                if why:
                    warnings.append(f"`{name}` has no effect: {why}")
            case Refused(instead):
                raise NotSupportedError(f"`{name}` cannot be set: {instead}")
            case _:
                assert_never(row.treatment)
        for key, setting in made.items():
            key = ALIASES.get(key, key)
            if settings.get(key, setting) != setting:
                raise ConfigError(
                    f"`{set_by[key]}` and `{name}` are both set, and say different things; set one of them"
                )
            settings[key] = setting
            set_by[key] = name
    if has_login(properties) and "sasl.mechanism" not in settings:
        raise ConfigError(
            f"`security.protocol` is {properties['security.protocol']}, and `sasl.mechanism` is not set: set it, for "
            "example to PLAIN or SCRAM-SHA-512 (Java's default, GSSAPI, is Kerberos, which Headrace has not)"
        )
    return Translation(settings, tuple(warnings))


def _check_text(name: str, value: str) -> None:
    try:
        is_text = "\0" not in value.encode().decode()
    except UnicodeError:
        is_text = False
    if not is_text:
        raise ConfigError(f"`{name}` holds a character that no setting can have; take it out")


_PEM: Final = frozenset(
    {"ssl.truststore.certificates", "ssl.keystore.certificate.chain", "ssl.ca.pem", "ssl.certificate.pem"}
)
"""No secrets, and as long as those: they may be referred to as well."""


def resolve_secrets(properties: Mapping[str, str]) -> dict[str, str]:
    """The properties with the secrets that they refer to. Raises `ConfigError` for one that is not there.

    For clients that are made now: what this returns must be kept nowhere.
    """
    return {
        name: resolve(name, value) if is_reference(value) and (is_secret(name) or name in _PEM) else value
        for name, value in properties.items()
    }


def producer_settings(properties: Mapping[str, str]) -> dict[str, str]:
    """Settings for a producer, defaults included.

    As in the Java client, idempotence is on unless the program says otherwise, or sets what it cannot be had with.
    """
    given = translate(properties, Role.PRODUCER).settings
    settings = {**PRODUCER_DEFAULTS, **given}
    in_flight = read_int(given, "max.in.flight.requests.per.connection", 5)
    contradicts = settings["acks"] not in ("all", "-1") or given.get("retries") == "0" or in_flight > 5
    if "enable.idempotence" not in given and contradicts:
        settings["enable.idempotence"] = "false"
    return settings


def _unknown(name: str, role: Role) -> ConfigError:
    names = {row.name for row in PROPERTIES if row.role in (None, role)}
    near = difflib.get_close_matches(name, names, n=1)
    hint = f"did you mean `{near[0]}`?" if near else "take it away, or check its spelling"
    return ConfigError(f"`{name}` is not a property of a Kafka {role.value}; {hint}")


def token_source(properties: Mapping[str, str]) -> TokenSource | None:
    """The function that `headrace.token.source` names, `module:function`; None without it. Raises `ConfigError`.

    >>> token_source({"headrace.token.source": "headrace.kafka.presets:msk_iam_token"}).__name__
    'msk_iam_token'
    """
    named = properties.get("headrace.token.source")
    if named is None:
        return None
    module, _, function = named.partition(":")
    try:
        found = getattr(importlib.import_module(module), function)
    except (ImportError, AttributeError, ValueError) as error:
        raise ConfigError(
            f"`headrace.token.source` is {named!r}, and there is no such function: {error}; it has to be "
            "module:function, of a module that can be imported where the job runs"
        ) from None
    if not callable(found):
        raise ConfigError(f"`headrace.token.source` is {named!r}, which is a {type(found).__name__}; name a function")
    return cast(TokenSource, found)


def is_secret(name: str) -> bool:
    """Whether a property's value must never be shown. True also of names that nobody knows: one may be misspelt."""
    rows = [row for row in PROPERTIES if row.name == name]
    return not rows or any(row.is_secret for row in rows)


def masked(properties: Mapping[str, str]) -> dict[str, str]:
    """The properties, for people: secrets as `***`, unless they are only referred to.

    >>> masked({"group.id": "g", "sasl.password": "opensesame", "ssl.key.password": "env:KEY_PASSWORD"})
    {'group.id': 'g', 'sasl.password': '***', 'ssl.key.password': 'env:KEY_PASSWORD'}
    """
    return {name: "***" if is_secret(name) and not is_reference(value) else value for name, value in properties.items()}


def checked(properties: Any, setter: str) -> dict[str, str]:
    """What a program gives to `setter`, which takes strings by their names. Raises `ConfigError`.

    >>> checked({"group.id": 7}, "set_properties")
    Traceback (most recent call last):
    headrace.errors.ConfigError: `set_properties` takes strings, and `group.id` is set to a int
    """
    if not isinstance(properties, Mapping):
        raise ConfigError(f"`{setter}` takes a dict of properties, got {type(properties).__name__}")
    for key, value in properties.items():
        if not isinstance(key, str) or not isinstance(value, str):
            raise ConfigError(f"`{setter}` takes strings, and `{key}` is set to a {type(value).__name__}")
    return dict(properties)


def with_brokers(properties: Mapping[str, str], otherwise: str) -> dict[str, str]:
    """The properties, with the brokers under Java's name. Raises `ConfigError` with a text if there are none.

    >>> with_brokers({"metadata.broker.list": "a:9092"}, "no brokers")["bootstrap.servers"]
    'a:9092'
    """
    brokers = properties.get("bootstrap.servers") or properties.get("metadata.broker.list")
    if not brokers:
        raise ConfigError(otherwise)
    return {**properties, "bootstrap.servers": brokers}
