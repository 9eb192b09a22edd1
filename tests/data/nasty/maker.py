"""What makes a nasty folder, and the list of them all."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

PARTS = ("train", "test_normal", "test_anomalous", "masks")
SIDE = 24


@dataclass(frozen=True)
class Nasty:
    """A folder.

    Attributes:
        group, title: what is special about it.
        make: writes it.
        counts: training, normal test, anomalous test images and masks by category, where it is understood.
        refused: the kinds of problems for which it is refused, or words of the message.
        notes: the kinds of notes.
        data: what is loaded, after the folder; "folder:" or "csv:parts.csv".
        flags: what a user says of names.
    """

    group: str
    title: str
    make: Callable[[Maker], None]
    counts: dict[str, tuple[int, int, int, int]]
    refused: tuple[str, ...]
    notes: tuple[str, ...]
    data: str = "folder:"
    flags: tuple[str, ...] = ()

    def words(self, root: Path) -> tuple[str, ...]:
        """The words of `jaxad check` for the folder in `root`."""
        kind, _, file = self.data.partition(":")
        return ("--data", f"{kind}:{root / file}", *self.flags)


FOLDERS: list[Nasty] = []


class Maker:
    """Writes small pictures, all of them different."""

    def __init__(self, root: Path):
        self.root = root
        self._drawn = 0

    def noise(self) -> np.ndarray:
        self._drawn += 1
        return np.random.default_rng(self._drawn).integers(40, 200, (SIDE, SIDE, 3), dtype=np.uint8)

    def path(self, name: str) -> Path:
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def photos(self, folder: str, number: int = 2, name: str = "{:03d}.png") -> None:
        for index in range(number):
            self.photo(f"{folder}/{name.format(index)}")

    def photo(self, name: str, pixels: np.ndarray | None = None, **options) -> Path:
        path = self.path(name)
        Image.fromarray(self.noise() if pixels is None else pixels).save(path, **options)
        return path

    def masks(self, folder: str, number: int = 2, name: str = "{:03d}_mask.png") -> None:
        for index in range(number):
            self.mask(f"{folder}/{name.format(index)}")

    def mask(self, name: str, value: int = 255, inverted: bool = False) -> None:
        pixels = np.zeros((SIDE, SIDE), np.uint8)
        pixels[4:8, 5:9] = value
        Image.fromarray(255 - pixels if inverted else pixels).save(self.path(name))

    def wide(self, folder: str, number: int, bits: int, *, color: bool = False) -> None:
        for index in range(number):
            values = (self.noise().astype(np.uint16) << 8 >> (16 - bits)) | (1 << (bits - 1))
            file = self.path(f"{folder}/{index:03d}.png")
            cv2.imwrite(str(file), values if color else values[..., 0])

    def text(self, name: str, content: str = "") -> None:
        self.path(name).write_text(content)

    def part(self, name: str = "bottle", train: str = "train/good", good: str = "test/good") -> None:
        """Four images to train on and two normal ones to test on."""
        self.photos(f"{name}/{train}", 4)
        self.photos(f"{name}/{good}")

    def whole(self, name: str = "bottle") -> None:
        """A category in MVTec-AD's layout: 4 training, 2 normal, 2 defective images, 2 masks."""
        self.part(name)
        self.photos(f"{name}/test/scratch")
        self.masks(f"{name}/ground_truth/scratch")


WHOLE = (4, 2, 2, 2)


def nasty(
    group: str,
    title: str,
    *,
    refused: str | tuple[str, ...] = (),
    notes: tuple[str, ...] = (),
    data: str = "folder:",
    flags: tuple[str, ...] = (),
    **counts,
):
    """Registers a folder; one without categories in `counts` has a whole one called bottle, or is refused."""
    refused = (refused,) if isinstance(refused, str) else refused

    def register(make: Callable[[Maker], None]) -> Callable[[Maker], None]:
        understood = {} if refused else counts or {"bottle": WHOLE}
        FOLDERS.append(Nasty(group, title, make, understood, refused, notes, data, flags))
        return make

    return register
