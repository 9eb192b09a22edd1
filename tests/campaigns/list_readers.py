"""Sound lists of a user's own images: CSV tables, exports of FiftyOne, regions; and the readers of all three."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from PIL import Image

from jaxad.data.layout import read_csv, scan
from jaxad.data.region import given_regions
from tests.data.nasty.lists import COMMON, HEAD, SAMPLES


def user_lists(folder: Path) -> list[Path]:
    """A file of each kind, with the images that they list."""
    for name in (*(line.split(",")[0] for line in COMMON), *(f"a/data/{n:03d}.png" for n in range(4))):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.zeros((4, 4), np.uint8)).save(folder / name)
    table, samples, labels = folder / "parts.csv", folder / "b/samples.json", folder / "a/labels.json"
    table.write_text("\n".join([HEAD, *COMMON]))
    samples.parent.mkdir()
    samples.write_text(json.dumps({"samples": SAMPLES}))
    labels.write_text(json.dumps({"classes": ["bad", "good"], "labels": {f"{n:03d}": int(n > 0) for n in range(4)}}))
    region, mask = folder / "roi.json", folder / "roi.png"
    region.write_text(json.dumps({"bottle": {"box": [1, 2, 3, 4], "size": [10, 12]}, "nut": {"boxes": [[0, 0, 5, 5]]}}))
    Image.fromarray(np.eye(12, dtype=np.uint8) * 255).save(mask)
    return [table, samples, labels, region, mask]


def read_user_list(file: Path) -> None:
    """Reads such a file, and looks at all that it lists."""
    if file.stem == "roi":
        for region in given_regions(str(file)).values():
            region.inside(40, 30).any()
        return
    listing = read_csv(file) if file.suffix == ".csv" else scan(file.parent)
    for record in (*listing.train, *listing.validation, *listing.test):
        record.file.is_file()
