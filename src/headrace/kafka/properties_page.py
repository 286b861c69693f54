"""The table of properties, for people: what `headrace explain --properties` prints, and the docs hold."""

from __future__ import annotations

from typing import assert_never

from headrace.kafka.properties import CONSUMER_DEFAULTS, PRODUCER_DEFAULTS
from headrace.kafka.property_table import PROPERTIES, Ignored, Own, Passed, Property, Refused, Role, Translated


def properties_table() -> str:
    """Every property with what becomes of it, as Markdown."""
    rows = [
        f"| `{row.name}`{' (secret)' if row.is_secret else ''} | {_client(row)} | {_answer(row)} |"
        for row in sorted(PROPERTIES, key=lambda row: (row.name, str(row.role)))
    ]
    return "\n".join(["| Property | Client | What becomes of it |", "|---|---|---|", *rows])


def _client(row: Property) -> str:
    return "both" if row.role is None else row.role.value


def _answer(row: Property) -> str:
    match row.treatment:
        case Passed(None):
            return "passed on" + _default(row.name, row.role)
        case Passed(name):
            return f"passed on as `{name}`" + _default(str(name), row.role)
        case Translated(_, what):
            return f"becomes {what}" if what.startswith("`") else what
        case Own(what):
            return f"Headrace's: {what}"
        case Ignored(""):
            return "taken, and changes nothing"
        case Ignored(why):
            return f"no effect, and a warning: {why}"
        case Refused(instead):
            return f"refused: {instead}"
        case _:
            assert_never(row.treatment)


def _default(name: str, role: Role | None) -> str:
    """Where ours is not librdkafka's own."""
    ours = [
        defaults[name]
        for each, defaults in ((Role.CONSUMER, CONSUMER_DEFAULTS), (Role.PRODUCER, PRODUCER_DEFAULTS))
        if role in (None, each) and name in defaults
    ]
    return f"; {ours[0]} by default" if ours else ""
