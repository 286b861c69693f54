"""Markdown files as what can be run in them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGES = [
    ROOT / "README.md",
    ROOT / "DESIGN.md",
    ROOT / "CONTRIBUTING.md",
    ROOT / "CHANGELOG.md",
    *sorted((ROOT / "docs").glob("*.md")),
]


@dataclass(frozen=True)
class Snippet:
    """A fenced block. `line` is where it begins."""

    language: str
    text: str
    line: int


def snippets(page: Path) -> list[Snippet]:
    """All fenced blocks of a page."""
    text = page.read_text(encoding="utf-8")
    return [
        Snippet(match[1], match[2], text[: match.start()].count("\n") + 1)
        for match in re.finditer(r"^```(\w*)\n(.*?)^```$", text, re.M | re.S)
    ]
