"""Sheets: the anomaly maps of several detectors beside each other, on the same images."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from jaxad.detector import Detector
from jaxad.errors import ConfigError
from jaxad.inference.checkpoint import restore
from jaxad.inference.heat import fit_mask, own_heat
from jaxad.inference.predictor import Predictor
from jaxad.io.atomic import write_whole
from jaxad.io.pictures import data_uri, encode_picture, shrink
from jaxad.io.text import visible
from jaxad.types import Source

Judge = Detector | Path | str | Callable[[], Detector]
"""A detector, the workdir or step of one, or what loads one."""
SIDE, GAP, HEAD = 160, 4, 14
"""In pixels: longer side of a picture, space between pictures, height of a line of text."""


@dataclass(frozen=True, eq=False, repr=False)
class Sheet:
    """A table of pictures.

    Attributes:
        heads: of its columns: "image", "defect", and the detectors.
        names: of its rows, the images.
        rows: pictures uint8 [h w 3], those of a row of one size.
    """

    heads: tuple[str, ...]
    names: tuple[str, ...]
    rows: tuple[tuple[np.ndarray, ...], ...]

    @property
    def picture(self) -> np.ndarray:
        """The whole of it, uint8 [h w 3]: heads of the columns, and above each row its name."""
        heights = [row[0].shape[0] for row in self.rows]
        size = len(self.heads) * (SIDE + GAP), HEAD + sum(HEAD + height + GAP for height in heights)
        canvas = Image.new("RGB", size, "white")
        draw = ImageDraw.Draw(canvas)
        for column, head in enumerate(self.heads):
            draw.text((column * (SIDE + GAP), 0), _fitting(draw, visible(head), SIDE), fill="black")
        top = HEAD
        for name, row, height in zip(self.names, self.rows, heights, strict=True):
            draw.text((0, top), _fitting(draw, visible(name), size[0] - GAP), fill="black")
            for column, picture in enumerate(row):
                canvas.paste(Image.fromarray(picture), (column * (SIDE + GAP), top + HEAD))
            top += HEAD + height + GAP
        return np.asarray(canvas)

    def save(self, file: Path | str) -> Path:
        """Writes `picture` as .png or .jpg; returns the file.

        Raises:
            JaxadError: another suffix.
        """
        return write_whole(file, encode_picture(self.picture, Path(file).suffix))

    def __repr__(self) -> str:
        return f"<Sheet: {len(self.rows)} images, {', '.join(self.heads[2:])}>"

    def _repr_html_(self) -> str:
        """For notebooks: the picture itself."""
        return f'<img alt="{len(self.rows)} images" src="{data_uri(self.picture, ".jpg")}">'


def sheet(
    source: Source,
    detectors: Sequence[Judge],
    chosen: Sequence[int] | None = None,
    *,
    names: Sequence[str] = (),
    protocol: str = "exact-256",
    captioned: Source | None = None,
    batch_size: int = 8,
    workers: int | None = None,
    progress: Callable[[int], None] | None = None,
) -> Sheet:
    """Draws for each image a row of it, its defect, and the anomaly map of each detector.

    A map's colors run from its least to its largest value, as published sheets have them. Checkpoints are loaded one
    after the other, and kept no longer than their column is drawn.

    Args:
        source: the images.
        detectors: workdirs, steps, functions that load a detector, or detectors that are loaded already.
        chosen: numbers of the images; None for the first two defective ones of each category.
        names: heads of the columns; the detectors' titles if not given.
        protocol: evaluation protocol, which says how maps are smoothed.
        captioned: the same images with captions, for detectors that take them.
        batch_size: images at once.
        workers: threads that decode images; None for one per CPU.
        progress: called with the number of maps done since the last call.

    Raises:
        ConfigError: more or fewer names than detectors, no images, or a number that no image has.
        CheckpointError: a checkpoint is missing or damaged.
        DataError: images cannot be read, or a detector does not know their category and needs it.
    """
    if names and len(names) != len(detectors):
        raise ConfigError(f"names = {' '.join(names)}: {len(names)} for {len(detectors)} detectors")
    chosen = defective(source) if chosen is None else list(chosen)
    if strangers := [number for number in chosen if not 0 <= number < len(source)]:
        raise ConfigError(f"chosen = {strangers}: {source.name} has images 0 to {len(source) - 1}")
    if not chosen:
        raise ConfigError(f"chosen: {source.name} has no defective images; say which to show")
    rows = [_shown(source, number) for number in chosen]

    def add_column(given: Judge) -> str:
        """Adds a detector's map to each row; its title. Nothing of one that is loaded here outlives the call."""
        detector = _loaded(given)
        own = captioned if captioned is not None and detector.inputs.captions == "always" else source
        how = {"indices": chosen, "workers": workers, "progress": progress}
        outputs = Predictor(detector, protocol, batch_size=batch_size).stream(own, **how)  # type: ignore[arg-type]
        maps = (found for output in outputs for found in output.maps)
        for row, found in zip(rows, maps, strict=True):
            row.append(own_heat(found, row[0].shape[:2]))
        return detector.title

    titles = [add_column(given) for given in detectors]
    records = [source.records[number] for number in chosen]
    heads = ("image", "defect", *_apart(names or titles))
    return Sheet(heads, tuple(r.identity or str(r.file) for r in records), tuple(map(tuple, rows)))


def _loaded(given: Judge) -> Detector:
    if isinstance(given, Detector):
        return given
    return restore(given, pass_over=True).detector if isinstance(given, Path | str) else given()


def defective(source: Source, categories: Sequence[str] | None = None, images: int = 2) -> list[int]:
    """Numbers of the first defective images of each category, of all categories if none are named."""
    found: dict[str, list[int]] = {name: [] for name in categories or source.categories}
    for number, record in enumerate(source.records):
        if record.label and len(found.get(record.category, range(images))) < images:
            found[record.category].append(number)
    return [number for own in found.values() for number in own]


def named(source: Source, names: Sequence[str]) -> list[int]:
    """Numbers of the images of these names: paths, or the ends of paths.

    Raises:
        ConfigError: names of no image or of several, all listed.
    """
    paths = [f"/{record.identity or record.file}" for record in source.records]
    found, problems = [], []
    for name in names:
        own = [number for number, path in enumerate(paths) if path.endswith(f"/{name.strip('/')}")]
        found += own[:1]
        if len(own) != 1:
            many = f"{len(own)} images end so, {paths[own[0]][1:]} and {paths[own[1]][1:]} among them" if own else ""
            problems.append(f"images = {name}: {many or f'no such image, such as {paths[0][1:]}'}")
    if problems:
        raise ConfigError("\n  ".join(problems))
    return found


def _shown(source: Source, number: int) -> list[np.ndarray]:
    """The image and its defect, black where there is none."""
    image, mask = shrink(source[number].image, SIDE), source.mask(number)
    inside = np.zeros(image.shape[:2], bool) if mask is None else fit_mask(mask, image.shape[:2])
    return [image, np.repeat(np.where(inside, 255, 0).astype(np.uint8)[..., None], 3, axis=2)]


def _apart(names: Sequence[str]) -> list[str]:
    """Names that tell columns apart: two runs of one detector are numbered."""
    return [name if names.count(name) == 1 else f"{name} {place + 1}" for place, name in enumerate(names)]


def _fitting(draw: ImageDraw.ImageDraw, text: str, width: int) -> str:
    """The text, or as much of its end as is so many pixels wide: ends tell paths apart."""
    ends = (text, *(f"...{text[start:]}" for start in range(1, len(text))))
    return next((end for end in ends if draw.textlength(end) <= width), "")
