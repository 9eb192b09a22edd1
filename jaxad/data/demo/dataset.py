"""The demo data set: real images that the packages of the `demo` extra carry, written once in MVTec layout.

    solar_mono, solar_poly   solar cells of elpv-dataset (electroluminescence, 300 x 300, gray). Normal: defect
                             probability 0; anomalous: 1. Defects are real; there are no masks. CC BY-NC-SA 4.0.
    brick, grass, gravel     160 x 160 tiles of scikit-image's textures (512 x 512, gray, CC0). Training, hold-out and
                             test tiles come from different regions. Defects and masks are drawn.

Nothing is downloaded. `demo.json` in the folder says which defects are drawn; DataSet.notes carries it.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from jaxad.config.fields import bad_seed, raise_problems
from jaxad.data.decode import decode_image
from jaxad.data.pixels import pixel_digest
from jaxad.errors import DataError
from jaxad.io.json_files import read_object
from jaxad.io.places import expanded
from jaxad.io.scratch import scratch

VERSION = 3
NOTES = "demo.json"
TILE = 160
EDGE = 320
"""Training and hold-out tiles lie left of this column, test tiles right of it."""
FLOOR = 352
"""Training tiles lie above this row, hold-out tiles below it."""
FOREIGN = {"brick": "gravel", "grass": "brick", "gravel": "grass"}
"""Each texture, and the one that its "foreign" defects are made of."""
KINDS = {
    "brick": ("crack", "foreign", "hole", "scratch", "stain", "worn"),
    "grass": ("foreign", "hole", "stain", "wire", "worn"),
    "gravel": ("foreign", "hole", "stain", "wire", "worn"),
}
"""The drawn defects of each texture: those that could occur on it and can be seen on it."""
SOLAR = {"solar_mono": "mono", "solar_poly": "poly"}

LICENSE = """\
The jaxad demo data set, assembled from Python packages.

solar_mono, solar_poly: images of the package elpv-dataset (Buerhop-Lutz et al., A Benchmark for Visual Identification
of Defective Solar Cells in Electroluminescence Imagery, EU PVSEC 2018; Deitsch et al., Solar Energy 185, 2019).
CC BY-NC-SA 4.0: non-commercial use only, with attribution, shared alike. Selected, otherwise unchanged. Their defects
are real.

brick, grass, gravel: textures of the package scikit-image (originals from CC0Textures and DeviantArt). CC0. Cropped,
mirrored, turned and varied in brightness; the defects in their test images, and the masks, are drawn by program.
"""


@dataclass(frozen=True)
class DemoCounts:
    """Images of each category of the demo data set."""

    solar_train: int = 100
    solar_normal: int = 30
    solar_defective: int = 30
    texture_train: int = 60
    texture_normal: int = 24
    texture_defective: int = 30
    texture_validation: int = 16


def make_demo(folder: Path | str, *, counts: DemoCounts | None = None, seed: int = 0) -> Path:
    """Writes the demo data set, unless the folder already holds it with the same counts and seed.

    The folder appears complete or not at all.

    Args:
        folder: where; its parents are made.
        counts: images of each category.
        seed: choice of images, tiles and defects.

    Returns:
        The folder.

    Raises:
        ConfigError: a seed below 0 or above 2**32 - 1.
        DataError: a package of the `demo` extra is missing, or the folder exists and is not this data set.
    """
    raise_problems("make_demo", bad_seed("seed", seed))
    folder = expanded(folder)
    notes = _notes(counts or DemoCounts(), seed)
    if folder.exists() and not (folder.is_dir() and not any(folder.iterdir())):
        if _recorded(folder) == notes:
            return folder
        raise DataError(f"{folder}: holds something other than this demo data set; remove it or choose another folder")
    cells, textures = _package_data("elpv_dataset", "elpv-dataset"), _package_data("skimage", "scikit-image")
    folder.parent.mkdir(parents=True, exist_ok=True)
    with scratch(folder.parent, f".{folder.name}-") as place:
        root = place / folder.name
        root.mkdir()
        for name, kind in SOLAR.items():
            _write_solar(root / name, cells, kind, counts or DemoCounts(), _rng(seed, name))
        for name, other in FOREIGN.items():
            pair = (_texture(textures, name), _texture(textures, other))
            _write_texture(root / name, *pair, counts or DemoCounts(), _rng(seed, name))
        (root / "license.txt").write_text(LICENSE, "utf-8")
        (root / NOTES).write_text(json.dumps(notes, indent=1), "utf-8")
        try:
            os.replace(root, folder)
        except OSError:
            # Another process may have written it in the meantime.
            if _recorded(folder) != notes:
                raise
    return folder


def read_notes(folder: Path) -> dict[str, Any]:
    """What a demo data set says of itself, as sentences under "notes"; {} for any other folder."""
    notes = _recorded(folder)
    return {**notes, "notes": _sentences(notes["categories"])} if notes else {}


def _recorded(folder: Path) -> dict[str, Any]:
    """What `make_demo` wrote beside the images; {} in any other folder."""
    file = folder / NOTES
    if not file.is_file():
        return {}
    try:
        notes = read_object(file, error=DataError)
    except DataError:
        return {}
    categories = notes.get("categories")
    known = isinstance(categories, dict) and all(
        isinstance(note, dict) and isinstance(note.get("defects"), str) for note in categories.values()
    )
    return notes if known and notes.get("made_by") == "jaxad" else {}


def _sentences(categories: dict[str, Any]) -> list[str]:
    """What reports say of the defects."""
    found = []
    for kind, remark in (("drawn", "are drawn, not real"), ("real", "are real; where they are is not known")):
        if names := [name for name, note in categories.items() if note["defects"] == kind]:
            found.append(f"The defects of {', '.join(names)} {remark}.")
    return found


def _notes(counts: DemoCounts, seed: int) -> dict[str, Any]:
    solar = {"defects": "real", "masks": False, "source": "elpv-dataset", "license": "CC BY-NC-SA 4.0"}
    texture = {"defects": "drawn", "masks": True, "source": "scikit-image", "license": "CC0"}
    categories = {**dict.fromkeys(SOLAR, solar), **dict.fromkeys(FOREIGN, texture)}
    return {"made_by": "jaxad", "version": VERSION, "seed": seed, "counts": asdict(counts), "categories": categories}


def _package_data(module: str, package: str) -> Path:
    spec = importlib.util.find_spec(module)
    if spec is None or not spec.submodule_search_locations:
        raise DataError(f"the demo data set needs the package {package}: pip install 'jaxad[demo]'")
    return Path(spec.submodule_search_locations[0]) / "data"


def _rng(seed: int, name: str) -> np.random.Generator:
    salt = int.from_bytes(hashlib.blake2b(name.encode(), digest_size=4).digest(), "little")
    return np.random.default_rng([seed, salt])


def _write_solar(folder: Path, data: Path, kind: str, counts: DemoCounts, rng: np.random.Generator) -> None:
    rows = [line.split() for line in (data / "labels.csv").read_text("utf-8").splitlines()]
    normal = [data / file for file, probability, cell in rows if cell == kind and float(probability) == 0]
    defective = [data / file for file, probability, cell in rows if cell == kind and float(probability) == 1]
    seen: set[bytes] = set()
    good = _distinct([normal[i] for i in rng.permutation(len(normal))], counts.solar_train + counts.solar_normal, seen)
    bad = _distinct([defective[i] for i in rng.permutation(len(defective))], counts.solar_defective, seen)
    parts = {
        "train/good": good[: counts.solar_train],
        "test/good": good[counts.solar_train :],
        "test/defective": bad,
    }
    for part, files in parts.items():
        (folder / part).mkdir(parents=True)
        for file in files:
            shutil.copyfile(file, folder / part / file.name)


def _distinct(files: list[Path], number: int, seen: set[bytes]) -> list[Path]:
    """The first files whose pixels were not seen before."""
    chosen: list[Path] = []
    for file in files:
        if len(chosen) == number:
            break
        digest = pixel_digest(decode_image(file))
        if digest not in seen:
            seen.add(digest)
            chosen.append(file)
    return chosen


def _texture(data: Path, name: str) -> np.ndarray:
    file = data / f"{name}.png"
    if not file.is_file():
        raise DataError(f"{file}: this scikit-image does not carry the texture; pip install 'jaxad[demo]'")
    return decode_image(file)[..., 0]


def _write_texture(
    folder: Path, texture: np.ndarray, other: np.ndarray, counts: DemoCounts, rng: np.random.Generator
) -> None:
    # Drawing needs much that reading does not.
    from jaxad.data.demo.defects import draw_defect

    turns = folder.name != "brick"
    test = texture[:, EDGE:]
    regions = {
        "train": (texture[:FLOOR, :EDGE], counts.texture_train),
        "validation": (texture[FLOOR:, :EDGE], counts.texture_validation),
        "test": (test, counts.texture_normal),
    }
    for part, (region, number) in regions.items():
        for index in range(number):
            _save(folder / part / "good" / f"{index:03d}.png", _tile(region, rng, turns=turns))
    kinds = KINDS[folder.name]
    for index in range(counts.texture_defective):
        kind = kinds[index % len(kinds)]
        drawn, mask = draw_defect(kind, _tile(test, rng, turns=turns), _tile(other, rng, turns=True), rng)
        _save(folder / "test" / kind / f"{index:03d}.png", drawn)
        _save(folder / "ground_truth" / kind / f"{index:03d}_mask.png", mask.astype(np.uint8) * 255)


def _tile(region: np.ndarray, rng: np.random.Generator, *, turns: bool) -> np.ndarray:
    """A random crop, mirrored or not, turned where the material has no upright, under slightly varied light."""
    top, left = (int(rng.integers(size - TILE + 1)) for size in region.shape)
    tile = region[top : top + TILE, left : left + TILE]
    tile = tile[:, :: int(rng.choice([-1, 1]))]
    if turns:
        tile = np.rot90(tile, int(rng.integers(4)))
    lit = tile.astype(np.float32) * rng.uniform(0.92, 1.08) + rng.uniform(-6, 6)
    return np.clip(np.rint(lit), 0, 255).astype(np.uint8)


def _save(file: Path, image: np.ndarray) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image).save(file)
