"""The page of a folder of predictions: the worst images first, in one file that stays small, however many there are."""

from __future__ import annotations

import heapq
import threading
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import quote

from jaxad.inference.answer import Answer
from jaxad.io.pictures import data_uri, shrink
from jaxad.io.text import name_text, visible
from jaxad.report.templates import rendered

LISTED = 1000
"""Images with a thumbnail on the page, and problems in its table."""
SIDE = 144
"""Longer side of a thumbnail in pixels; a thousand of them take 5 MB or so."""


class Worst:
    """Collects the worst of many answers, in memory that does not grow; safe to use from several threads.

    Args:
        listed: how many are kept.
    """

    def __init__(self, listed: int = LISTED):
        self._listed = listed
        self._heap: list[tuple[float, int, dict[str, Any]]] = []
        self._turn = threading.Lock()
        self._judged = self._anomalous = 0

    def add(self, answer: Answer, link: str = "") -> None:
        """Takes up an answer; its overlay is drawn only where it is among the worst so far.

        Args:
            answer: of an image.
            link: the picture to open for it, relative to the page; "" for none.
        """
        badness = answer.score if answer.scaled is None else answer.scaled
        with self._turn:
            self._judged, self._anomalous = self._judged + 1, self._anomalous + bool(answer.anomalous)
            number = self._judged
            if len(self._heap) == self._listed and badness <= self._heap[0][0]:
                return
        row = _row(answer, link)
        with self._turn:
            # Of equals the first stay: numbers count down from them.
            heapq.heappush(self._heap, (badness, -number, row))
            if len(self._heap) > self._listed:
                heapq.heappop(self._heap)

    def page(self, model: Mapping[str, Any] | None = None, problems: Sequence[Mapping[str, str]] = ()) -> str:
        """The page, which needs no network and no other file.

        Args:
            model: which one judged (`Restored.identity`).
            problems: `file`, `kind` and `detail` of what was not judged.
        """
        values = {
            "rows": [row for _, _, row in sorted(self._heap, key=lambda entry: entry[:2], reverse=True)],
            "judged": self._judged,
            "anomalous": self._anomalous,
            "model": model,
            "problems": problems[:LISTED],
            "left_out": len({problem["file"] for problem in problems}),
        }
        return visible(rendered("jaxad.report", "prediction_page.html", values), lines=True)


def _row(answer: Answer, link: str) -> dict[str, Any]:
    return {
        "file": name_text(answer.file),
        "category": answer.category,
        "verdict": answer.verdict,
        "score": answer.score,
        "threshold": answer.threshold,
        "scaled": answer.scaled,
        "link": quote(link),
        "thumbnail": data_uri(shrink(answer.overlay, SIDE), ".jpg", quality=70),
    }
