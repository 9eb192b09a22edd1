"""Tiny images and detectors for tests, jaxad's own and other packages'; everything runs in seconds on a CPU.

parts = jaxad.data.load(f"folder:{make_parts(tmp_path)}")
check_detector(MyDetector.create(MyConfig(backbone=BACKBONE), key=jax.random.key(0)), parts.test)
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import chex
import jax
import numpy as np
from PIL import Image

from jaxad.config import DPDiffConfig, TrainConfig
from jaxad.detector import Detector
from jaxad.detectors.dpdiff import DPDiff
from jaxad.features import Encoder
from jaxad.inference.predictor import Predictor
from jaxad.types import Source

BACKBONE = "random:32x2"
"""An untrained Vision Transformer of width 32 and depth 2, always the same; takes images of 14 n pixels."""

MODEL: dict[str, Any] = {
    "backbone": BACKBONE,
    "image_size": 56,
    "local_prototypes": 3,
    "prototype_heads": 2,
    "heads": 2,
    "depth": 1,
}
TRAINING: dict[str, Any] = {
    "steps": 12,
    "batch_size": 4,
    "learning_rate": 5e-3,
    "clip_norm": 1.0,
    "ema": 0.5,
    "log_every": 1,
    "checkpoint_every": 4,
}


def toy_model(**changes: Any) -> DPDiff:
    """The smallest DPDiff-AD that still has every part; always the same parameters for the same settings.

    Args:
        changes: fields of `jaxad.DPDiffConfig`.
    """
    return DPDiff.create(DPDiffConfig(**MODEL | changes), key=jax.random.key(0))


def toy_training(**changes: Any) -> TrainConfig:
    """Twelve steps with a checkpoint every four.

    Args:
        changes: fields of `jaxad.TrainConfig`.
    """
    return TrainConfig(**TRAINING | changes)


def make_parts(
    root: Path | str, categories: tuple[str, ...] = ("disc", "tile"), *, train: int = 12, test: int = 4, size: int = 56
) -> Path:
    """Writes small made-up parts in MVTec layout: striped tiles, and a bright blot as defect.

    Args:
        root: folder to write to.
        categories: their names.
        train: normal training images of each.
        test: normal test images of each, and as many defective ones with their masks.
        size: side of the images in pixels.

    Returns:
        `root`.
    """
    root = Path(root)
    for number, category in enumerate(categories):
        rng = np.random.default_rng(number)
        for part, count in (("train/good", train), ("test/good", test), ("test/blot", test)):
            for index in range(count):
                image = _part(rng, number, size)
                if part == "test/blot":
                    mask = _blot(rng, size)
                    image[mask] = 255 - image[mask] // 4
                    _save(root / category / "ground_truth/blot" / f"{index:03}_mask.png", mask.astype(np.uint8) * 255)
                _save(root / category / part / f"{index:03}.png", image)
    return root


def check_detector(detector: Detector, source: Source, *, images: int = 3) -> None:
    """Checks that a detector keeps to the interface, on the first images of a source.

    Its features are finite; its judgement has one float32 map [h w] and at most one score for each image, all finite;
    and an image's map and score do not depend on the batch that the image is in.

    Args:
        detector: trained or not, its memory filled where it has one.
        source: images that it can judge.
        images: how many of them, at least 2.

    Raises:
        AssertionError: it does not; says where.
    """
    first = list(range(images))
    encoded, loaded = next(Encoder(detector, batch_size=images).stream(source, indices=first))
    chex.assert_tree_all_finite(encoded)
    batch = jax.tree.map(lambda array: array[:images], loaded.batch)
    known = [detector.categories.index(r.category) if r.category in detector.categories else 0 for r in loaded.records]
    batch = dataclasses.replace(batch, category=np.array(known, np.int32))
    judge = jax.eval_shape(detector.judge, encoded, batch, jax.random.split(jax.random.key(0), images))
    chex.assert_shape(judge.maps, (images, None, None))
    chex.assert_type(judge.maps, np.float32)
    if judge.scores is not None:
        chex.assert_shape(judge.scores, (images,))
    together = next(Predictor(detector, batch_size=images).stream(source, indices=first))
    reverse = next(Predictor(detector, batch_size=images).stream(source, indices=first[::-1]))
    chex.assert_tree_all_finite((together.maps, together.scores))
    chex.assert_trees_all_close(
        (together.maps, together.scores), (reverse.maps[::-1], reverse.scores[::-1]), rtol=1e-4, atol=1e-6
    )


def _part(rng: np.random.Generator, kind: int, size: int) -> np.ndarray:
    rows, columns = np.mgrid[:size, :size]
    wave = np.sin((rows * (kind + 1) + columns * 2) / 5 + rng.uniform(0, 6))
    gray = 90 + 30 * wave + rng.normal(0, 4, (size, size))
    return np.clip(np.stack([gray, gray * 0.9, gray * (0.7 + 0.2 * kind)], -1), 0, 255).astype(np.uint8)


def _blot(rng: np.random.Generator, size: int) -> np.ndarray:
    rows, columns = np.mgrid[:size, :size]
    center = rng.uniform(0.3 * size, 0.7 * size, 2)
    return (rows - center[0]) ** 2 + (columns - center[1]) ** 2 < (0.12 * size) ** 2


def _save(file: Path, array: np.ndarray) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(file)
