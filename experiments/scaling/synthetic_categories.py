"""Synthetic categories of parts, as many as wanted, with exact masks: for measuring how a detector scales.

Command:
    python -m experiments.scaling.synthetic_categories --out synthetic

Expected: 160 categories and 20,000 images of 224 pixels. A category's look, a surface or a part with marks on it, is
drawn from its name alone, an image from the category and its own number, so that the first categories are the same
however many there are. They say nothing of accuracy on real parts.
"""

from __future__ import annotations

import json
import math
import os
import shutil
import zlib
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, field
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import tyro
from PIL import Image
from scipy.ndimage import gaussian_filter

from jaxad.data.demo.defects import draw_defect
from jaxad.errors import DataError
from jaxad.io.atomic import write_whole

Rng = np.random.Generator
VERSION = 1
KINDS = ("scratch", "hole", "foreign", "worn")
"""Defects that `jaxad.data.demo.defects` draws."""
MISSING = "missing"
"""The defect of parts with marks: one of the marks is not there."""
UNFINISHED = ".unfinished"
SURFACES = ("stripes", "checks", "dots", "rings", "grain", "weave")
OUTLINES = ("disc", "square", "polygon", "gear", "ring", "bar")


@dataclass(frozen=True)
class ImageCounts:
    """Images of each category, and their side in pixels; 125 of 224 pixels are 20,000 in 160 categories."""

    train: int = 95
    normal: int = 10
    defective: int = 20
    size: int = 224


def category_names(count: int) -> list[str]:
    """Names of so many categories, in alphabetical order."""
    return [f"part_{number:03d}" for number in range(count)]


def write_categories(root: Path, names: Sequence[str], counts: ImageCounts, *, workers: int | None = None) -> None:
    """Writes those of the categories that are not there yet, in MVTec layout: JPEG images and PNG masks.

    Each category appears whole or not at all; the same call goes on after an interruption.

    Args:
        root: folder of the categories; its settings are kept beside it, in ROOT.json.
        names: of the categories.
        counts: images of each.
        workers: processes; None for one per CPU that this one may use.

    Raises:
        DataError: the folder was written with other settings.
    """
    settings, file = {"version": VERSION, **asdict(counts)}, root.with_name(f"{root.name}.json")
    if root.exists() and (not file.is_file() or json.loads(file.read_text("utf-8")) != settings):
        raise DataError(f"{root}: was written with other settings; remove it or choose another folder")
    write_whole(file, json.dumps(settings))
    (root / UNFINISHED).mkdir(parents=True, exist_ok=True)
    waiting = [name for name in names if not (root / name).exists()]
    if waiting:
        # Threads of jax, where it runs in this process, do not survive a fork.
        most = min(workers or len(os.sched_getaffinity(0)), len(waiting))
        with ProcessPoolExecutor(most, get_context("spawn")) as pool:
            list(pool.map(partial(_write_category, root, counts=counts), waiting))
    shutil.rmtree(root / UNFINISHED)


def _write_category(root: Path, name: str, counts: ImageCounts) -> None:
    place = root / UNFINISHED / name
    shutil.rmtree(place, ignore_errors=True)
    category = SyntheticCategory(name, counts.size)
    for folder, first, count in (("train/good", 0, counts.train), ("test/good", counts.train, counts.normal)):
        for index in range(count):
            _save(place / folder / f"{index:03d}.jpg", category.normal(first + index))
    for index in range(counts.defective):
        kind, image, mask = category.defective(index)
        _save(place / "test" / kind / f"{index:03d}.jpg", image)
        _save(place / "ground_truth" / kind / f"{index:03d}_mask.png", mask.astype(np.uint8) * 255)
    os.replace(place, root / name)


def _save(file: Path, image: np.ndarray) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.ascontiguousarray(image)).save(file, quality=95)


class SyntheticCategory:
    """A category: its look, and its images by their numbers.

    Args:
        name: what all of it is drawn from.
        size: side of the images in pixels.

    Attributes:
        kinds: names of its defects.
    """

    def __init__(self, name: str, size: int):
        self._name, self._size = name, size
        rng = _rng(name, "look")
        self._is_part = bool(rng.random() < 0.6)
        self._front, self._back = _Surface(rng, size), _Surface(rng, size, faint=True)
        self._outline = _Outline(rng)
        self._marks: list[_Mark] = []
        for _ in range(12 if self._is_part else 0):
            mark = _Mark(rng, bright=self._front.mean < 128)
            if len(self._marks) < 4 and all(map(mark.is_apart, self._marks)):
                self._marks.append(mark)
        drawn = rng.choice(KINDS, size=2, replace=False).tolist()
        self.kinds: tuple[str, ...] = (*drawn, MISSING) if self._is_part else tuple(drawn)

    def normal(self, index: int) -> np.ndarray:
        """A normal image, uint8 [size size 3]: slightly shifted, turned, lit, with noise."""
        return _pixels(self._drawn(_rng(self._name, "normal", index))[0])

    def defective(self, index: int) -> tuple[str, np.ndarray, np.ndarray]:
        """The name of its defect, an image, uint8 [size size 3], and its mask, bool [size size], which is not empty."""
        kind = self.kinds[index % len(self.kinds)]
        _, image, mask = self.pair(index, kind)
        return kind, image, mask

    def pair(self, index: int, kind: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The same part without and with a defect, both uint8 [size size 3], and the mask, bool [size size]."""
        rng = _rng(self._name, kind, index)
        missing = int(rng.integers(len(self._marks))) if kind == MISSING else None
        seen, part, whole = self._drawn(rng, missing)
        if missing is not None:
            return _pixels(whole), _pixels(seen), np.abs(whole - seen).max(0) > 4
        gray, ground = (_gray(image) for image in (whole, self._back.at(*self._grid())))
        while True:
            drawn, mask = draw_defect(kind, gray, ground, rng)
            if part[mask].mean() > 0.7:
                break
        # What the defect does to brightness, in all colors.
        return _pixels(whole), _pixels(whole + (drawn.astype(np.float32) - gray)), mask

    def _grid(self) -> tuple[np.ndarray, np.ndarray]:
        """Coordinates x and y, each [size size], from -1 to 1."""
        axis = np.linspace(-1, 1, self._size, dtype=np.float32)
        return np.broadcast_to(axis, (self._size,) * 2), np.broadcast_to(axis[:, None], (self._size,) * 2)

    def _drawn(self, rng: Rng, missing: int | None = None) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """An image, float32 [3 size size], where the part is, bool [size size], and the image with all its marks."""
        x, y = self._grid()
        scale, reach = rng.uniform(0.97, 1.03), 0.06 if self._is_part else 1.0
        u, v = (scale * c + rng.uniform(-reach, reach) for c in _turned(x, y, math.radians(rng.uniform(-5, 5))))
        front = self._front.at(u, v)
        if self._is_part:
            # The part lies anywhere on its ground.
            cover = self._outline.cover(u, v, self._size)
            ground = self._back.at(x + rng.uniform(-1, 1), y)
            image = ground + cover * (front - ground)
        else:
            cover, image = np.ones_like(x), front
        light = rng.uniform(0.94, 1.06) + rng.uniform(-0.05, 0.05) * x + rng.uniform(-0.05, 0.05) * y
        noise = 2.5 * rng.standard_normal(x.shape, dtype=np.float32)

        def finished(skipped: int | None) -> np.ndarray:
            seen = image
            for number, mark in enumerate(self._marks):
                if number != skipped:
                    seen = seen + mark.cover(u, v, self._size) * (mark.color[:, None, None] - seen)
            return seen * light + noise

        whole = finished(None)
        return whole if missing is None else finished(missing), cover > 0.5, whole


class _Surface:
    """A pattern of two colors; a faint one has hardly any."""

    def __init__(self, rng: Rng, size: int, *, faint: bool = False):
        self._kind = "grain" if faint else str(rng.choice(SURFACES))
        self._turn, self._period = rng.uniform(0, math.pi), rng.uniform(0.08, 0.3)
        self._sharp, self._ratio = rng.uniform(0.5, 4), rng.uniform(0.5, 1.5)
        base = rng.uniform(40, 215, 3)
        other = base + (rng.normal(0, 8, 3) if faint else rng.choice([-1, 1], 3) * rng.uniform(25, 90, 3))
        self._colors = np.clip(np.stack([base, other]), 15, 240).astype(np.float32)
        grain = gaussian_filter(rng.normal(size=(size, size)), rng.uniform(0.8, 5, 2), mode="wrap")
        self._grain = (grain / grain.std()).astype(np.float32)

    @property
    def mean(self) -> float:
        """Of its colors, 0 to 255."""
        return float(self._colors.mean())

    def at(self, u: np.ndarray, v: np.ndarray) -> np.ndarray:
        """Colors, float32 [3 h w], at coordinates [h w]."""
        base, other = self._colors[..., None, None]
        return base + self._share(u, v) * (other - base)

    def _share(self, u: np.ndarray, v: np.ndarray) -> np.ndarray:
        across, along = _turned(u, v, self._turn)
        rate, other = 2 * math.pi / self._period, 2 * math.pi / (self._period * self._ratio)
        grain = self._grained(u, v)
        if self._kind == "grain":
            return np.clip(0.5 + 0.25 * grain, 0, 1)
        if self._kind == "stripes":
            wave = np.sin(rate * across)
        elif self._kind == "checks":
            wave = np.sin(rate * across) * np.sin(other * along) * 1.5
        elif self._kind == "dots":
            wave = np.cos(rate * across) + np.cos(rate * along) - 0.8
        elif self._kind == "rings":
            wave = np.sin(rate * np.hypot(u, v * self._ratio))
        else:
            wave = np.maximum(np.sin(rate * across), np.sin(other * along) - 0.3)
        return np.clip(0.5 + 0.5 * np.tanh(self._sharp * wave) + 0.04 * grain, 0, 1)

    def _grained(self, u: np.ndarray, v: np.ndarray) -> np.ndarray:
        side = len(self._grain)
        rows, columns = (np.rint((c + 1) * (side / 2)).astype(np.int32) % side for c in (v, u))
        return self._grain[rows, columns]


class _Outline:
    """The outline of a part around the middle of the image."""

    def __init__(self, rng: Rng):
        self._kind = str(rng.choice(OUTLINES))
        self._radius, self._turn = rng.uniform(0.6, 0.75), rng.uniform(0, math.pi)
        self._corners, self._stretch = int(rng.integers(3, 9)), rng.uniform(0.45, 0.7)

    def cover(self, u: np.ndarray, v: np.ndarray, size: int) -> np.ndarray:
        """The share of each pixel that the part covers, float32 [h w]."""
        p, q = _turned(u, v, self._turn)
        far = np.hypot(p, q)
        if self._kind == "square":
            inside = 0.85 * self._radius - np.maximum(np.abs(p), np.abs(q))
        elif self._kind == "bar":
            inside = np.minimum(1.15 * self._radius - np.abs(p), self._stretch * self._radius - np.abs(q))
        elif self._kind == "polygon":
            sector = 2 * math.pi / self._corners
            inside = 0.9 * self._radius - far * np.cos(np.mod(np.arctan2(q, p), sector) - sector / 2)
        elif self._kind == "gear":
            teeth = np.tanh(3 * np.sin((self._corners + 5) * np.arctan2(q, p)))
            inside = self._radius * (1 + 0.09 * teeth) - far
        elif self._kind == "ring":
            inside = np.minimum(self._radius - far, far - 0.3 * self._radius)
        else:
            inside = self._radius - far
        return np.clip(0.5 + inside * (size / 2), 0, 1)


class _Mark:
    """A disc or a bar of one color that every image of a part has in the same place."""

    def __init__(self, rng: Rng, *, bright: bool):
        far, angle = rng.uniform(0.28, 0.42), rng.uniform(0, 2 * math.pi)
        self._u, self._v = far * math.cos(angle), far * math.sin(angle)
        self._turn, self._radius = rng.uniform(0, math.pi), rng.uniform(0.07, 0.12)
        self._stretch = float(rng.choice([1.0, 2.2]))
        self.color = (rng.uniform(200, 250, 3) if bright else rng.uniform(5, 50, 3)).astype(np.float32)

    def is_apart(self, other: _Mark) -> bool:
        """Whether the two do not touch."""
        far = math.hypot(self._u - other._u, self._v - other._v)
        return far > self._stretch * self._radius + other._stretch * other._radius

    def cover(self, u: np.ndarray, v: np.ndarray, size: int) -> np.ndarray:
        """The share of each pixel that it covers, float32 [h w]."""
        p, q = _turned(u - self._u, v - self._v, self._turn)
        return np.clip(0.5 + (self._radius - np.hypot(p / self._stretch, q)) * (size / 2), 0, 1)


def _turned(u: np.ndarray, v: np.ndarray, turn: float) -> tuple[np.ndarray, np.ndarray]:
    """Coordinates in a frame that is turned, in the type that they have."""
    across, along = math.cos(turn), math.sin(turn)
    return across * u + along * v, across * v - along * u


def _rng(*words: str | int) -> Rng:
    """Random numbers that depend on these words alone."""
    return np.random.default_rng(zlib.crc32(" ".join(map(str, words)).encode()))


def _pixels(image: np.ndarray) -> np.ndarray:
    """An image uint8 [h w 3] of colors [3 h w]."""
    return np.moveaxis(np.clip(np.rint(image), 0, 255).astype(np.uint8), 0, -1)


def _gray(image: np.ndarray) -> np.ndarray:
    """Mean of the colors [3 h w], uint8 [h w]."""
    return np.clip(np.rint(image.mean(0)), 0, 255).astype(np.uint8)


@dataclass(frozen=True)
class SyntheticOptions:
    """Write synthetic categories in MVTec layout."""

    out: Path
    """Folder of the categories."""
    count: int = 160
    """How many of them."""
    images: ImageCounts = field(default_factory=ImageCounts)
    """Images of each."""


def main(options: SyntheticOptions) -> Path:
    """Writes the categories; returns their folder."""
    write_categories(options.out, category_names(options.count), options.images)
    return options.out


if __name__ == "__main__":
    print(main(tyro.cli(SyntheticOptions, description=__doc__)))
