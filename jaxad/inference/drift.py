"""Drift: whether the scores of accepted parts still are those of the hold-out."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from scipy import stats

from jaxad.data.layout.results import LINES
from jaxad.errors import CheckpointError, ConfigError, DataError
from jaxad.inference.holdout_scores import HoldoutScores
from jaxad.inference.rechoose import no_scores, read_decided
from jaxad.inference.threshold import Threshold
from jaxad.io.json_files import parse_json

SURE = 0.01
"""Probability below which a difference is taken for one, over all categories together."""
FEW = 20
"""Accepted parts of a category below which nothing is said of it."""
PARTS = 10
"""Parts into which the predictions are divided, in their order, to show how the share above the threshold moves."""


class Line(NamedTuple):
    """What a prediction says: category, score, and the limit it was judged by (None without one)."""

    category: str
    score: float
    limit: float | None


@dataclass(frozen=True)
class Drift:
    """How the scores of a category have moved.

    Attributes:
        category: its name, "" of all together.
        images: predictions.
        accepted: those at or below the limit.
        holdout: normal images that they are compared with, those at or below the limit.
        median, holdout_median: of the scores of accepted parts and of the hold-out; None where there are none.
        statistic: Kolmogorov and Smirnov's, the largest distance of the two distributions, 0..1.
        p: probability of such a distance or a larger one where nothing has changed.
        above: shares above the limit in `PARTS` equal parts of the predictions, in their order; fewer where there are
            fewer predictions.
        verdict: "steady", "higher", "lower", "changed" or "too few".
    """

    category: str
    images: int
    accepted: int
    holdout: int
    median: float | None
    holdout_median: float | None
    statistic: float | None
    p: float | None
    above: tuple[float, ...]
    verdict: str

    def to_json(self) -> dict[str, Any]:
        """As JSON-ready values."""
        return {**asdict(self), "above": list(self.above)}

    def __str__(self) -> str:
        """The verdict in a sentence."""
        name = self.category or "all"
        if self.verdict == "too few":
            return f"{name}: too few to say ({self.accepted} accepted parts, {self.holdout} of the hold-out)"
        if self.verdict == "steady":
            return f"{name}: no sign of drift (p = {self.p:.2g})"
        how = {"higher": "higher than", "lower": "lower than", "changed": "spread otherwise than"}[self.verdict]
        advice = "look at camera, light and parts; `jaxad update` learns what is good and new"
        return f"{name}: accepted parts score {how} the hold-out (p = {self.p:.2g}); {advice}"


def drift(checkpoint: Path | str, predictions: Sequence[Path | str]) -> list[Drift]:
    """How the scores of accepted parts have moved against the hold-out of a run, by category.

    Args:
        checkpoint: a workdir, or one step's folder; its hold-out scores are kept with it.
        predictions: files as `jaxad predict` writes them, or folders of results, oldest first.

    Raises:
        CheckpointError: the run has no threshold, or no scores of a hold-out.
        DataError: predictions that cannot be read; lists all lines.
        ConfigError: predictions of another version of the run, by their limits.
    """
    decided = read_decided(checkpoint)
    if decided.threshold is None or decided.holdout is None:
        raise CheckpointError(f"{checkpoint}: {no_scores(checkpoint, decided)}")
    lines = [line for file in predictions for line in read_lines(Path(file))]
    if not lines:
        raise DataError(f"{', '.join(map(str, predictions))}: no predictions")
    _check_limits(lines, decided.threshold, checkpoint)
    return compare(lines, decided.holdout, decided.threshold)


def compare(lines: Sequence[Line], holdout: HoldoutScores, threshold: Threshold) -> list[Drift]:
    """Each category's accepted parts against its hold-out; where nobody named a category, all together.

    The hold-out is cut at the limit as well, so that both sides hold what would be accepted. Of several categories each
    has to be the surer (Bonferroni).
    """
    names = sorted({line.category for line in lines})
    return [_compared(name, lines, holdout, threshold, SURE / len(names)) for name in names]


def _compared(name: str, lines: Sequence[Line], holdout: HoldoutScores, threshold: Threshold, sure: float) -> Drift:
    limit = threshold.of(name).image
    scores = np.array([line.score for line in lines if line.category == name])
    known = np.array([category == name for category in holdout.categories])
    normal = holdout.scores[known] if known.any() else holdout.scores
    accepted, normal = scores[scores <= limit], normal[normal <= limit]
    above = tuple(float((part > limit).mean()) for part in np.array_split(scores, min(PARTS, len(scores))))
    medians = [float(np.median(part)) if len(part) else None for part in (accepted, normal)]
    statistic, p, verdict = None, None, "too few"
    if len(accepted) >= FEW and len(normal):
        found: Any = stats.ks_2samp(accepted, normal)
        statistic, p = float(found.statistic), float(found.pvalue)
        verdict = "steady" if p >= sure else _direction(accepted, normal)
    counts = len(scores), len(accepted), len(normal)
    return Drift(name, *counts, medians[0], medians[1], statistic, p, above, verdict)


def _direction(accepted: np.ndarray, normal: np.ndarray) -> str:
    """Where scores have gone: by the share of all pairs, one of each side, in which the accepted one is higher."""
    higher = stats.mannwhitneyu(accepted, normal).statistic / (len(accepted) * len(normal))
    return "higher" if higher > 0.55 else "lower" if higher < 0.45 else "changed"


def read_lines(place: Path) -> list[Line]:
    """The predictions in a file, or in a folder of results.

    Raises:
        DataError: it is not there, or has lines that are no predictions; names each.
    """
    file = place / LINES if place.is_dir() else place
    try:
        content = file.read_bytes()
    except OSError as error:
        raise DataError(f"{file}: cannot be read ({error.strerror}); give what `jaxad predict` has written") from error
    lines, faults = [], []
    for number, text in enumerate(content.splitlines(), 1):
        if text.strip():
            try:
                lines.append(_line(parse_json(text, file)))
            except (DataError, json.JSONDecodeError, KeyError, TypeError, ValueError):
                faults.append(str(number))
    if faults:
        listing = ", ".join(faults[:10]) + (", ..." if len(faults) > 10 else "")
        raise DataError(f"{file}: no predictions in lines {listing}")
    return lines


def _line(record: Mapping[str, Any]) -> Line:
    score, limit, category = record["score"], record["threshold"], record["category"]
    if not isinstance(category, str) or type(score) not in (int, float) or type(limit) not in (int, float, type(None)):
        raise TypeError
    if not np.isfinite(score):
        raise ValueError
    return Line(category, float(score), None if limit is None else float(limit))


def _check_limits(lines: Sequence[Line], threshold: Threshold, checkpoint: Path | str) -> None:
    """Refuses predictions of another detector: their limits are not those of the run."""
    for line in lines:
        limit = threshold.of(line.category).image
        if line.limit is not None and not np.isclose(line.limit, limit, rtol=1e-5, atol=0):
            raise ConfigError(
                f"predictions were made with the threshold {line.limit:.6g} and {checkpoint} has {limit:.6g}: they are "
                "of another run, or of another version of it; predict anew"
            )
