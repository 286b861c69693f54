"""The page that says what the Kafka connector has of Flink's: one row per feature, each with the test that shows it.

    python tools/matrix.py > docs/matrix.md

The rows are numbered as in the design's reference; those that belong to later parts are not here. A status is one of

- done: it is there, and these tests show it;
- superseded: it is machinery of Flink's for resuming transactions; these tests show what is guaranteed in its place;
- refused: it is refused, for the reason given, and these tests show that;
- elsewhere: it belongs to the metrics and tools;
- missing: it is not there yet.
"""

from __future__ import annotations

import re
from collections import defaultdict
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parent.parent
TABLE = Path(__file__).with_suffix(".txt")


class Row(NamedTuple):
    number: int
    feature: str
    status: str
    tests: str = ""
    note: str = ""


def rows() -> list[Row]:
    """`matrix.txt`, read: number | feature | status | tests | note."""
    found = []
    for line in TABLE.read_text(encoding="utf-8").splitlines():
        number, feature, status, tests, note = (part.strip() for part in (line + " | | |").split("|")[:5])
        found.append(Row(int(number), feature, status, tests, note))
    return found


def tests_by_name() -> dict[str, list[Path]]:
    """Where each test function is."""
    found: dict[str, list[Path]] = defaultdict(list)
    for path in sorted((ROOT / "tests").rglob("test_*.py")):
        for name in re.findall(r"^def (test_\w+)", path.read_text(encoding="utf-8"), re.M):
            found[name].append(path.relative_to(ROOT))
    return found


def page() -> str:
    """The page, in Markdown. Raises `LookupError` for a test that is not there, or a row that shows nothing."""
    known = tests_by_name()
    lines = [
        "# What there is of Flink's Kafka connector",
        "",
        "Written by `make matrix`. *Superseded* is machinery of Flink's for transactions that are resumed: it is not",
        "needed here: the tests are those of the guarantee. *Elsewhere* is what belongs to metrics and tools.",
        "",
        "| # | Feature | Status | Shown by |",
        "|---|---|---|---|",
    ]
    for row in rows():
        shown = []
        for name in row.tests.split():
            places = known.get(name, [])
            if len(places) != 1:
                raise LookupError(f"row {row.number}: {name} is in {len(places)} files, not in one")
            shown.append(f"[{name}](../{places[0].as_posix()})")
        if (row.status in ("done", "superseded", "refused")) != bool(shown):
            raise LookupError(f"row {row.number} is {row.status}, with {len(shown)} tests")
        text = "<br>".join([*([row.note] if row.note else []), *shown])
        lines.append(f"| {row.number} | {row.feature} | {row.status} | {text} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    print(page(), end="")
