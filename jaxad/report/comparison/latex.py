r"""Tables of a comparison in LaTeX, for a document that has `\usepackage{booktabs}`; plain pdflatex takes them."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence

from jaxad.io.text import visible
from jaxad.report.comparison.tables import Cell, Table

_ESCAPES = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"$<$",
    ">": r"$>$",
    "|": r"$|$",
    "±": r"$\pm$",
    **{character: f"\\{character}" for character in "&%$#_{}"},
}
_MANY = 7
"""Columns from which the type is smaller."""

DOCUMENT = r"""\documentclass{article}
\usepackage{booktabs}
\begin{document}
\input{tables}
\end{document}
"""
"""Shows the tables alone; `tables.tex` lies beside it."""


def latex(tables: Sequence[Table]) -> str:
    """The tables as floats, each with a caption and a label `tab:NAME`; best values in bold."""
    head = "% \\usepackage{booktabs}"
    return "\n\n".join([head, *map(_float, tables)]) + "\n"


def escaped(text: str) -> str:
    """A text as LaTeX prints it; what pdflatex has no letter for stands as its code."""
    return "".join(_ESCAPES.get(character) or _plain(character) for character in visible(text))


def _float(table: Table) -> str:
    columns = "l" * table.texts + "r" * (len(table.heads) - table.texts)
    rows = [" & ".join(map(_cell, row)) + r" \\" for row in table.rows]
    if table.ruled:
        rows.insert(-1, r"\midrule")
    size = r"\scriptsize\setlength{\tabcolsep}{3pt}" if len(table.heads) >= _MANY else r"\small"
    lines = [
        r"\begin{table}",
        r"\centering",
        f"\\caption{{{escaped(table.title)}.}}",
        f"\\label{{tab:{table.name}}}",
        size,
        f"\\begin{{tabular}}{{@{{}}{columns}@{{}}}}",
        r"\toprule",
        " & ".join(map(escaped, table.heads)) + r" \\",
        r"\midrule",
        *rows,
        r"\bottomrule",
        r"\end{tabular}",
        r"\end{table}",
    ]
    return "\n".join(lines)


def _cell(value: Cell) -> str:
    if isinstance(value, str):
        # A sign is a minus, not a hyphen.
        return f"${value}$" if value[:1] in ("+", "-") and value[1:2].isdecimal() else _indented(value)
    number = rf"\textbf{{{value.value}}}" if value.best else value.value
    return rf"{number} $\pm$ {value.spread}" if value.spread else number


def _indented(text: str) -> str:
    inner = escaped(text.lstrip())
    return rf"\quad {inner}" if text.startswith(" ") else inner


def _plain(character: str) -> str:
    base = unicodedata.normalize("NFD", character)
    accented = character <= "\u017f" and len(base) == 2 and base[0].isascii() and base[0].isalpha()
    if character.isascii() or accented:
        return character
    return rf"\textbackslash{{}}u{ord(character):04x}"
