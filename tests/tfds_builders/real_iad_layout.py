"""Miniature Real-IAD and Real-IAD Variety, in the official layout: folders, file names, lists."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

Entry = dict[str, Any]


class Writer:
    """Writes images, masks and lists of one resolution.

    Args:
        images: folder of the images, e.g. root/realiad_1024.
        view: how names call view n, e.g. "C{}".
        end: extension of the images.
        nested: put each category's folders into one more folder of its name, as its archive does.
    """

    def __init__(self, images: Path, *, view: str = "C{}", end: str = "jpg", nested: bool = False):
        self.images, self.view, self.end, self.nested = images, view, end, nested
        self._drawn = 0

    def folder(self, category: str) -> Path:
        return self.images / category / category if self.nested else self.images / category

    def normal(self, category: str, number: int) -> list[Entry]:
        """A normal object: the entries of its five views."""
        stem = f"OK/S{number:04d}/{category}_{number:04d}_OK"
        return [self._entry(category, "OK", stem, view) for view in range(1, 6)]

    def defective(
        self, category: str, code: str, number: int, visible: tuple[int, ...] = (1, 3), hidden: str = "OK"
    ) -> list[Entry]:
        """A defective object whose defect shows in some views; the others are of class `hidden`."""
        stem = f"NG/{code}/S{number:04d}/{category}_{number:04d}_NG_{code}"
        classes = [(view, code if view in visible else hidden) for view in range(1, 6)]
        return [self._entry(category, name, stem, view, mask=view in visible) for view, name in classes]

    def _entry(self, category: str, anomaly_class: str, stem: str, view: int, mask: bool = False) -> Entry:
        self._drawn += 1
        stem = f"{stem}_{self.view.format(view)}_2023092{view}1{self._drawn:05d}"
        file = self.folder(category) / f"{stem}.{self.end}"
        file.parent.mkdir(parents=True, exist_ok=True)
        rng = np.random.default_rng(self._drawn)
        Image.fromarray(rng.integers(0, 256, (10, 12, 3), dtype=np.uint8)).save(file)
        if mask:
            pixels = np.zeros((10, 12), np.uint8)
            pixels[2:5, view : view + 3] = 255
            Image.fromarray(pixels).save(file.with_name(f"{file.stem}_mask.png"))
        return {
            "category": category,
            "anomaly_class": anomaly_class,
            "image_path": f"{stem}.{self.end}",
            "mask_path": f"{stem}_mask.png" if mask else None,
        }


def write_list(folder: Path, category: str, train: list[Entry], test: list[Entry], **meta: Any) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / f"{category}.json"
    content = {"meta": {"prefix": f"{category}/", "normal_class": "OK", **meta}, "train": train, "test": test}
    file.write_text(json.dumps(content))
    return file
