"""What figures share: curves as SVG and PDF, and sheets of pictures as PNG.

Not an experiment itself.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from jaxad.detector import Detector
from jaxad.inference.heat import fit_mask, heat
from jaxad.inference.maps import finite_map, fit_map
from jaxad.inference.predictor import Predictor
from jaxad.io.atomic import write_whole
from jaxad.io.pictures import encode_picture, shrink
from jaxad.report.comparison.plots import STYLE, require_matplotlib, write_figure
from jaxad.report.images import mask_picture
from jaxad.types import Source

SIDE, GAP, HEAD = 160, 4, 14
"""Of a sheet in pixels: longer side of a picture, space between pictures, height of a line of text."""

Curve = Mapping[float, float | None]
"""y by x."""


@dataclass(frozen=True)
class Panel:
    """One chart of a figure.

    Attributes:
        title: above it.
        x: name of the axis.
        curves: by name.
        published: names of the curves that are the paper's, which are drawn broken.
    """

    title: str
    x: str
    curves: Mapping[str, Curve]
    published: Sequence[str] = ()


def write_curves(panels: Sequence[Panel], folder: Path, name: str) -> list[Path]:
    """Draws charts beside each other, values 0..1 in percent; returns the files NAME.svg and NAME.pdf."""
    require_matplotlib("figures")
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(3.4 * len(panels), 2.8), layout="constrained")
        for axes, panel in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True):
            for label, curve in panel.curves.items():
                known = sorted((x, 100 * y) for x, y in curve.items() if y is not None)
                style = "--" if label in panel.published else "-"
                axes.plot(*zip(*known, strict=True), style, marker=".", label=label) if known else None
            axes.set_title(panel.title)
            axes.set_xlabel(panel.x)
            axes.legend(fontsize=6)
        return write_figure(figure, folder, name)


def defective(source: Source, categories: Sequence[str] | None, images: int) -> list[int]:
    """Numbers of the first defective images of each category, of all categories if none are named."""
    found: dict[str, list[int]] = {name: [] for name in categories or source.categories}
    for number, record in enumerate(source.records):
        if record.label and len(found.get(record.category, range(images))) < images:
            found[record.category].append(number)
    return [number for own in found.values() for number in own]


def write_sheet(
    source: Source,
    chosen: Sequence[int],
    detectors: Mapping[str, Detector],
    file: Path,
    protocol: str,
    sources: Mapping[str, Source] | None = None,
) -> Path:
    """Draws a sheet: for each image a row of it, its defect, and the anomaly map of each detector.

    A map's colors run from the least to the largest value of the image, as published sheets have them.

    Args:
        source: the images.
        chosen: their numbers.
        detectors: by the heads of their columns.
        file: PNG.
        protocol: evaluation protocol, which says how maps are smoothed.
        sources: in place of `source` for some detectors, e.g. with captions.

    Returns:
        The file.
    """
    pictures: list[list[np.ndarray]] = [[] for _ in chosen]
    for row, number in zip(pictures, chosen, strict=True):
        image = shrink(source[number].image, SIDE)
        mask = source.mask(number)
        none = np.zeros(image.shape[:2], bool)
        row += [image, mask_picture(none if mask is None else fit_mask(mask, image.shape[:2]))]
    for name, detector in detectors.items():
        outputs = Predictor(detector, protocol, batch_size=8).stream((sources or {}).get(name, source), indices=chosen)
        maps = [map for output in outputs for map in output.maps]
        for row, map in zip(pictures, maps, strict=True):
            map = fit_map(finite_map(map), row[0].shape[:2])
            row.append(heat(map, low=float(map.min()), high=float(map.max()) + 1e-12))
    heads = ["image", "defect", *detectors]
    return write_whole(file, encode_picture(_joined(heads, pictures), ".png"))


def _joined(heads: Sequence[str], rows: Sequence[Sequence[np.ndarray]]) -> np.ndarray:
    """Pictures uint8 [h w 3] as a table with heads, one picture."""
    heights = [max(picture.shape[0] for picture in row) for row in rows]
    sheet = Image.new("RGB", (len(heads) * (SIDE + GAP), HEAD + sum(height + GAP for height in heights)), "white")
    draw = ImageDraw.Draw(sheet)
    for column, head in enumerate(heads):
        draw.text((column * (SIDE + GAP), 0), head, fill="black")
    top = HEAD
    for row, height in zip(rows, heights, strict=True):
        for column, picture in enumerate(row):
            sheet.paste(Image.fromarray(picture), (column * (SIDE + GAP), top))
        top += height + GAP
    return np.asarray(sheet)
