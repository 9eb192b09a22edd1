"""What a detector says of one image: decided at once, drawn when it is looked at."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from jaxad.inference import method
from jaxad.inference.heat import contour, fit_mask, heat, overlay
from jaxad.inference.maps import defect_box, heat_scale, image_map
from jaxad.io.notebook import figure, heading
from jaxad.io.text import name_text, visible

if TYPE_CHECKING:
    from jaxad.inference.threshold import Limits, Threshold
    from jaxad.types import Explanation

Verdict = Literal["anomalous", "normal", "undecided"]


DRAWN = 24
"""Answers that a notebook shows of a list."""


@dataclass(frozen=True, eq=False, repr=False)
class Answer:
    """The answer for one image. What takes time (map, box, mask, overlay) is made when it is first asked for.

    Attributes:
        file: its path, or a name for images given as arrays.
        category: as given or found, "" where unknown.
        score: image score; higher is more anomalous.
        image: uint8 [h w 3] at its own size.
        rule: by which it is decided; None gives score and map alone.
        model: what tells the checkpoint that judged from all others (`Restored.short_hash`), "" where there is none.
        small_map: float32 [h w] of the protocol's size.
        inside: bool [h w], what is judged of it; None for all.
        explanation: what pictures of the method show, its arrays without b; None where none were asked for.
    """

    file: str
    category: str
    score: float
    image: np.ndarray = field(repr=False)
    rule: Threshold | None = field(repr=False)
    model: str
    small_map: np.ndarray = field(repr=False)
    inside: np.ndarray | None = field(default=None, repr=False)
    explanation: Explanation | None = field(default=None, repr=False)

    @property
    def threshold(self) -> float | None:
        """Limit of the score, None where the detector has no threshold."""
        return None if self._limits is None else self._limits.image

    @property
    def scaled(self) -> float | None:
        """The score from 0 to 1 with the threshold at 0.5 (`Threshold.scaled`), alike in all categories."""
        return None if self.rule is None else self.rule.scaled(self.score, self.category)

    @property
    def anomalous(self) -> bool | None:
        """Whether the score is above the limit; None without a threshold."""
        return None if self._limits is None else self.score > self._limits.image

    @property
    def verdict(self) -> Verdict:
        """`anomalous` in a word."""
        return "undecided" if self.anomalous is None else "anomalous" if self.anomalous else "normal"

    @cached_property
    def map(self) -> np.ndarray:
        """float32 [h w] at the image's own size, with nothing above the pixel limit outside of what is judged."""
        return image_map(self.small_map, self.image.shape[:2], self.inside, self._limits and self._limits.pixel)

    @cached_property
    def box(self) -> tuple[int, int, int, int] | None:
        """[x0, y0, x1, y1] of the hottest region in pixels of the image (x1, y1 exclusive) if it is anomalous."""
        return defect_box(self.map, self._limits.pixel) if self._limits is not None and self.anomalous else None

    @cached_property
    def mask(self) -> np.ndarray | None:
        """bool [h w], pixels above the pixel limit; None without a threshold."""
        return None if self._limits is None else self.map > self._limits.pixel

    @cached_property
    def overlay(self) -> np.ndarray:
        """uint8 [h w 3]: the image under its heat, with what lies above the pixel limit outlined.

        Colors are those of the category's scale; without a threshold each map has a scale of its own.
        """
        low, high = self._scale
        heated = overlay(self.image, self.map, low=low, high=high)
        return heated if self.mask is None else contour(heated, self.mask)

    @cached_property
    def heatmap(self) -> np.ndarray:
        """uint8 [h w 3]: the map alone, in the colors of `overlay`."""
        low, high = self._scale
        return heat(self.map, low=low, high=high)

    def pictures(self, word: str) -> dict[str, np.ndarray]:
        """Pictures of the method (`jaxad.inference.method`), uint8 [h w 3] by the names of their parts.

        Args:
            word: `input`, `reconstruction`, `autoencoder`, `features` or `terms`, as given to `explain` before; or
                `heatmap`. Of one picture alone the name is "".
        """
        if word == "heatmap":
            return {"": self.heatmap}
        height, width = self.image.shape[:2]
        return {} if self.explanation is None else method.draw(word, self.explanation, (height, width))

    def __repr__(self) -> str:
        limit = "" if self.threshold is None else f", threshold {self.threshold:.4g}"
        category = f", {self.category}" if self.category else ""
        return f"<{self.verdict}: {visible(self.file)}{category}, score {self.score:.4g}{limit}>"

    def _repr_html_(self) -> str:
        """For notebooks: the overlay, and what is decided."""
        return figure(self.overlay, repr(self)[1:-1])

    def to_json(self) -> dict[str, Any]:
        """A line of predictions.jsonl; the file's name as `jaxad.io.text.name_text` writes it."""
        return {
            "file": name_text(self.file),
            "category": self.category,
            "score": self.score,
            "threshold": self.threshold,
            "anomalous": self.anomalous,
            "box": None if self.box is None else list(self.box),
            "scaled": self.scaled,
            "model": self.model or None,
        }

    @cached_property
    def _scale(self) -> tuple[float, float]:
        """Map values of the first and the last color."""
        if self._limits is None:
            judged = ... if self.inside is None else fit_mask(self.inside, self.map.shape)
            return heat_scale(normal=self.map[judged])
        return heat_scale(self._limits.pixel, np.array([self._limits.typical]))

    @property
    def _limits(self) -> Limits | None:
        return None if self.rule is None else self.rule.of(self.category)


class Answers(list[Answer]):
    """Answers for several images, in their order: a list that a notebook shows, the worst first."""

    def __repr__(self) -> str:
        verdicts = Counter(answer.verdict for answer in self)
        return f"<{len(self)} answers: {', '.join(f'{n} {verdict}' for verdict, n in verdicts.items()) or 'none'}>"

    def _repr_html_(self) -> str:
        """For notebooks: pictures of the worst ones, and their number."""
        worst = sorted(self, key=lambda answer: answer.score if answer.scaled is None else answer.scaled, reverse=True)
        shown = "".join(answer._repr_html_() for answer in worst[:DRAWN])
        rest = f", the {DRAWN} worst" if len(self) > DRAWN else ""
        return f"{heading(repr(self)[1:-1] + rest)}<div>{shown}</div>"
