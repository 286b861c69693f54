"""Tables on a terminal, in a file and in a pipe."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table
from rich.text import Text


def table(*headings: str) -> Table:
    """An empty table; a heading that begins with `>` is over numbers."""
    made = Table(box=None, pad_edge=False)
    for heading in headings:
        is_number = heading.startswith(">")
        made.add_column(heading.removeprefix(">"), justify="right" if is_number else "left", overflow="fold")
    return made


def add_row(to: Table, *cells: object) -> None:
    """Add a row of plain text: what looks like markup is none. None is `-`."""
    to.add_row(*(Text("-" if cell is None else f"{cell:,}" if isinstance(cell, int) else str(cell)) for cell in cells))


def print_table(made: Table) -> None:
    """Into a file or a pipe a row is one line, whatever its length."""
    console = Console()
    Console(width=console.width if console.is_terminal else 200).print(made)
