"""Tables on stdout: with lines and colors in a terminal, plain and whole where the output goes elsewhere."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from rich import box
from rich.console import Console
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from jaxad.io.text import visible


def print_table(heads: Sequence[str], rows: Sequence[Sequence[str]], *, numbers: Sequence[bool]) -> None:
    """Prints a table; no cell is ever cut off.

    Args:
        heads: names of the columns.
        rows: cells.
        numbers: which columns hold numbers, which stand to the right.
    """
    console = Console(file=sys.stdout, highlight=False)
    plain = not console.is_terminal
    table = Table(box=None if plain else box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    for head, number in zip(heads, numbers, strict=True):
        table.add_column(Text(head), justify="right" if number else "left", overflow="fold", no_wrap=plain)
    for row in rows:
        table.add_row(*(Text(visible(cell)) for cell in row))
    if not plain:
        console.print(table)
        return
    console.width = Measurement.get(console, console.options.update(max_width=10_000), table).maximum
    with console.capture() as captured:
        console.print(table)
    print("\n".join(line.rstrip() for line in captured.get().splitlines()))
