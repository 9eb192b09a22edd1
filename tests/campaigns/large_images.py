"""Recall of 20 px defects in photos of 12 MP, with tiles and without: `python -m tests.campaigns.large_images`.

Images of 4000 x 3000 px are woven of real fabric tiles (AITEX, 256 px), whose seams are blended so that neither mean
nor contrast changes there. Real defects, cut out by their masks and shrunk to 20 px, are added to half of the test
images.
Training, hold-out and test take tiles of their own. Both ways get the same images, network, bank and rate of false
alarms, so that recalls compare at one threshold rule.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator
from pathlib import Path

import cv2
import jax
import numpy as np
from PIL import Image

import jaxad
from jaxad.data import Tiling

SHAPE, PATCH, SEAM = (3000, 4000), 256, 48
DEFECT = 20
KINDS = ("more/aitex_04", "parts/magnetic_tile")
FABRIC = "more/aitex_04"
COUNTS = {"train/good": 6, "holdout": 8, "test/good": 4, "test/defect": 8}
DEFECTS_PER_IMAGE = 4
FALSE_ALARM = 0.12


def gray(file: Path) -> np.ndarray:
    """An image as float32 [h w]."""
    return np.asarray(Image.open(file).convert("L"), np.float32)


def woven(tiles: list[np.ndarray], rng: np.random.Generator) -> np.ndarray:
    """A fabric of `SHAPE` of tiles in random order, upright or upside down, float32."""
    step, (height, width) = PATCH - SEAM, SHAPE
    ramp = np.clip((np.arange(PATCH) + 0.5) / SEAM, 0, 1)
    edge = np.sqrt(ramp * ramp[::-1])
    window = np.outer(edge, edge).astype(np.float32)
    total, power = (np.zeros((height + PATCH, width + PATCH), np.float32) for _ in range(2))
    for top in range(0, height, step):
        for left in range(0, width, step):
            tile = tiles[rng.integers(len(tiles))]
            # Upside down the weave runs as before, mirrored it would not.
            turn = rng.choice((-1, 1))
            tile = tile[::turn, ::turn]
            place = np.s_[top : top + PATCH, left : left + PATCH]
            total[place] += window * (tile - tile.mean())
            power[place] += window**2
    mean = np.mean([tile.mean() for tile in tiles])
    # Divided by the root of the summed squares, contrast is that of one tile where several overlap.
    margin = SEAM
    return (mean + total / np.sqrt(np.maximum(power, 1e-3)))[margin : margin + height, margin : margin + width]


def defects(data: Path) -> list[tuple[np.ndarray, np.ndarray]]:
    """Real defects of at most `DEFECT` px: what they add to the fabric, float32 [h w], and their masks."""
    found = []
    for kind in KINDS:
        for file in sorted((data / kind / "ground_truth").rglob("*.png")):
            name = file.name.replace("_mask", "")
            image = next((data / kind / "test" / file.parent.name).glob(f"{Path(name).stem}.*"))
            mask, photo = gray(file) > 127, gray(image)
            count, regions, boxes, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8))
            if count < 2:
                continue
            best = 1 + int(np.argmax(boxes[1:, cv2.CC_STAT_AREA]))
            x, y, width, height = boxes[best, :4]
            if min(width, height) < 6 or max(width, height) > 6 * min(width, height):
                continue
            own, around = (regions == best)[y : y + height, x : x + width], photo[~mask]
            added = (photo[y : y + height, x : x + width] - np.median(around)) * own
            scale = DEFECT / max(width, height)
            size = max(round(width * scale), 3), max(round(height * scale), 3)
            share = cv2.resize(own.astype(np.float32), size, interpolation=cv2.INTER_AREA)
            shrunk = cv2.resize(added.astype(np.float32), size, interpolation=cv2.INTER_AREA)
            if np.abs(shrunk).max() > 25:
                found.append((shrunk, share > 0.25))
    return found


def fabric(folder: Path) -> list[np.ndarray]:
    """The tiles of a folder, those left out that show an edge of the fabric."""
    tiles = [gray(file) for file in sorted(folder.iterdir())]
    return [t for t in tiles if max(np.ptp(t.mean(0)), np.ptp(t.mean(1))) < 20]


def make(data: Path, root: Path) -> list[str]:
    """Writes all images and masks; which defect lies in each test image."""
    tiles, fresh = (fabric(data / FABRIC / part) for part in ("train/good", "test/good"))
    pools = {"train/good": tiles[::2], "holdout": tiles[1::2], "test/good": fresh, "test/defect": fresh}
    kinds = defects(data)
    rng = np.random.default_rng(0)
    order = rng.permutation(len(kinds))
    used = 0
    for part, count in COUNTS.items():
        for number in range(count):
            file = root / "fabric" / ("validation/good" if part == "holdout" else part) / f"{number:02}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            image, mask = woven(pools[part], rng), np.zeros(SHAPE, np.uint8)
            for _ in range(DEFECTS_PER_IMAGE if part == "test/defect" else 0):
                added, shape = kinds[order[used % len(kinds)]]
                used += 1
                top, left = (int(rng.integers(60, length - 60)) for length in SHAPE)
                place = np.s_[top : top + shape.shape[0], left : left + shape.shape[1]]
                image[place] += added
                mask[place][shape] = 255
            Image.fromarray(np.clip(np.round(image), 0, 255).astype(np.uint8)).save(file, compress_level=1)
            if mask.any():
                outline = root / "fabric/ground_truth/defect" / f"{number:02}_mask.png"
                outline.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(mask).save(outline)
    return [f"{len(tiles)} and {len(fresh)} tiles, {len(kinds)} different defects, {used} pasted"]


def ways(backbone: str) -> Iterator[tuple[str, int, Tiling | None]]:
    """What is compared: name, side of the network's input, tiles."""
    yield "whole image at 224 px", 224, None
    yield "whole image at 448 px", 448, None
    yield "tiles of 448 px at 224 px", 224, Tiling(448, 0.25)


def measured(
    dataset: jaxad.data.DataSet, side: int, tiling: Tiling | None, backbone: str, workdir: Path, most: int | None
) -> dict:
    """Fits a patch bank, and finds what it finds."""
    config = jaxad.PatchBankConfig(backbone=backbone, blocks="middle", image_size=side, bank_size=5000)
    bank = jaxad.PatchBank.create(config, key=jax.random.key(0))
    how = {"tiling": tiling, "tiles_per_image": 16 if tiling else None, "false_alarm": FALSE_ALARM}
    run = jaxad.fit(bank, dataset.train, workdir=workdir, holdout=dataset.holdout, **how)
    alarms = {0: [], 1: []}
    # Normal images lie evenly among the others, so that a run that is stopped has seen some of both.
    groups = [[i for i, record in enumerate(dataset.test.records) if record.label == label] for label in (0, 1)]
    places = sorted(((k + 0.5) / len(group), i) for group in groups for k, i in enumerate(group))
    order = [index for _, index in places][:most]
    hit, there, scores = 0, 0, []
    began = time.perf_counter()
    for index in order:
        record = dataset.test.records[index]
        (found,) = jaxad.predict(run.model, [record.file], threshold=run.threshold, category="fabric")
        alarms[record.label].append(found.anomalous)
        scores.append((record.label, found.score))
        if (mask := dataset.test.mask(index)) is not None:
            count, regions, boxes, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8), connectivity=8)
            there += count - 1
            for region in range(1, count):
                left, top, width, height = boxes[region, :4]
                around = np.s_[max(top - 7, 0) : top + height + 7, max(left - 7, 0) : left + width + 7]
                own = cv2.dilate((regions[around] == region).astype(np.uint8), np.ones((15, 15))).astype(bool)
                hit += bool((found.mask[around] & own).any())
        said = f"{found.score:.4f}, limit {found.threshold:.4f}; {hit} of {there} defects so far"
        print(f"  {record.identity}: {said}", flush=True)
    seconds = (time.perf_counter() - began) / len(order)
    pairs = [(a, b) for label, a in scores if label for other, b in scores if not other]
    return {
        "image_auroc": float(np.mean([a > b for a, b in pairs])),
        "images_found": f"{sum(alarms[1])} of {len(alarms[1])}",
        "false_alarms": f"{sum(alarms[0])} of {len(alarms[0])}",
        "defects_marked": f"{hit} of {there}",
        "seconds_per_image": round(seconds, 2),
    }


def main() -> None:
    """Makes the images, measures each way, and prints a JSON object for each."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder with parts/ and more/, real categories")
    parser.add_argument("--backbone", default="embedded")
    parser.add_argument("--work", type=Path, required=True, help="folder for images (0.3 GB) and runs")
    parser.add_argument("--images", type=int, help="test images to judge; all if not given")
    parser.add_argument("--only", type=int, nargs="+", default=(0, 1, 2), help="numbers of the ways to measure")
    options = parser.parse_args()
    root = options.work / "images"
    if not root.is_dir():
        print(*make(options.data, root), flush=True)
    dataset = jaxad.data.load(f"folder:{root}", verify=False)
    for number, (name, side, tiling) in enumerate(ways(options.backbone)):
        if number not in options.only:
            continue
        workdir = options.work / f"run-{number}"
        result = measured(dataset, side, tiling, options.backbone, workdir, options.images)
        print(json.dumps({"way": name, **result}), flush=True)


if __name__ == "__main__":
    main()
