"""What Jupyter shows: small HTML without scripts, that needs no network and no other file."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from html import escape
from typing import TYPE_CHECKING, Any

from jaxad.io.text import visible

if TYPE_CHECKING:
    import numpy as np

THUMBNAIL = 160
"""Longer side of a picture in pixels."""
_CELL = "padding:2px 10px;text-align:right"


def in_notebook() -> bool:
    """Whether this process is the kernel of a notebook, which shows HTML; IPython in a terminal does not."""
    shell = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    return getattr(shell, "kernel", None) is not None


def show_html(html: str) -> None:
    """Shows HTML below the cell that runs; only in a notebook."""
    from IPython.display import HTML, display

    display(HTML(html))


class Line:
    """A line of HTML below the cell that runs, which may change; nothing is shown before it is first set."""

    def __init__(self):
        self._handle: Any = None

    def set(self, html: str) -> None:
        """Shows it in place of what was there."""
        from IPython.display import HTML, display

        if self._handle is None:
            self._handle = display(HTML(html), display_id=True)
        else:
            self._handle.update(HTML(html))


def heading(title: str) -> str:
    """A line above what follows."""
    return f'<p style="margin:4px 0"><b>{text(title)}</b></p>'


def table(heads: Sequence[object], rows: Sequence[Sequence[object]], title: str = "") -> str:
    """A table; the first cell of a row is its name. Texts are escaped, and cannot control anything."""
    caption = heading(title) if title else ""
    head = "".join(f'<th style="{_CELL}">{text(cell)}</th>' for cell in heads)
    lines = []
    for first, *rest in rows:
        cells = "".join(f'<td style="{_CELL}">{text(cell)}</td>' for cell in rest)
        lines.append(f'<tr><th style="padding:2px 10px;text-align:left">{text(first)}</th>{cells}</tr>')
    top, body = f"<thead><tr>{head}</tr></thead>" if heads else "", "".join(lines)
    return f"{caption}<table>{top}<tbody>{body}</tbody></table>"


def figure(picture: np.ndarray, caption: str) -> str:
    """A small picture uint8 [h w 3] with words below it."""
    # Imported here: progress needs no pictures.
    from jaxad.io.pictures import data_uri, shrink

    image = data_uri(shrink(picture, THUMBNAIL), ".jpg", quality=75)
    style = f"display:inline-block;margin:4px;width:{THUMBNAIL}px;vertical-align:top;font-size:12px"
    return f'<figure style="{style}"><img src="{image}" alt=""><figcaption>{text(caption)}</figcaption></figure>'


def text(value: object) -> str:
    """A text for HTML, as `jaxad.io.text.visible` has it."""
    return escape(visible(value))
