"""Files of Java properties, as the pages of hosted Kafka offer them for download. *Extension*."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from headrace.errors import ConfigError

_ESCAPED: Final = {"t": "\t", "n": "\n", "r": "\r", "f": "\f"}
_ESCAPE: Final = re.compile(r"\\(?:u([0-9a-fA-F]{4})|(.))", re.S)
_LINE: Final = re.compile(r"(?P<name>(?:\\.|[^\\=: \t\f])*)(?:[ \t\f]*[=:][ \t\f]*|[ \t\f]+|$)(?P<value>.*)", re.S)


def read_properties(path: Path) -> dict[str, str]:
    """The properties in a file, the last of one name being the one that counts. Raises `ConfigError`."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is no text in UTF-8"
        raise ConfigError(f"{path} cannot be read: {why}; name a file of properties (`name=value` lines)") from None
    return parse_properties(text)


def parse_properties(text: str) -> dict[str, str]:
    r"""Java's rules: `#` and `!` begin a comment, `=`, `:` or a blank ends a name, `\` at its end continues a line.

    >>> parse_properties("# Kafka\nbootstrap.servers=a:9092\nsasl.jaas.config=Module required \\\n    user='x';\n")
    {'bootstrap.servers': 'a:9092', 'sasl.jaas.config': "Module required user='x';"}
    """
    properties = {}
    for line in _lines(text):
        found = _LINE.fullmatch(line)
        assert found is not None
        properties[_unescaped(found["name"])] = _unescaped(found["value"])
    return properties


def _lines(text: str) -> Iterator[str]:
    """Logical lines: without comments, blanks before them, and breaks that are escaped."""
    whole = ""
    for line in re.split(r"\r\n|\r|\n", text):
        line = line.lstrip(" \t\f")
        if not whole and (not line or line[0] in "#!"):
            continue
        whole += line
        if (len(line) - len(line.rstrip("\\"))) % 2:
            whole = whole[:-1]
            continue
        yield whole
        whole = ""
    if whole:
        yield whole


def _unescaped(text: str) -> str:
    return _ESCAPE.sub(lambda e: chr(int(e[1], 16)) if e[1] else _ESCAPED.get(e[2], e[2]), text)
