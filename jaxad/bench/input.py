"""Images per second from disk to a batch on the device, for encoded images of several sizes and formats.

`jaxad bench input`; `python -m tests.parity.input_benchmark` sets a torch DataLoader beside it.
"""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from jaxad.bench import benchmarks
from jaxad.data.batches import batches
from jaxad.data.folder import FolderSource
from jaxad.io.threads import cpus
from jaxad.types import Record, View

VIEW = View(448, 448)
BATCH = 16
IMAGES: Mapping[int, tuple[int, int]] = {448: (32, 160), 1024: (16, 64), 5000: (2, 8)}
"""By length of the images' sides: different files, and images read in a pass."""
FORMATS: Mapping[str, Mapping[str, Any]] = {"jpg": {"quality": 92}, "png": {"compress_level": 6}}


def input_benchmark(
    *, images: Mapping[int, tuple[int, int]] = IMAGES, workers: int | None = None, passes: int = 3
) -> list[dict[str, Any]]:
    """Times `jaxad.data.batches` and the copy to the device.

    Args:
        images: see `IMAGES`.
        workers: threads that decode; None for one per core.
        passes: how often each case is read; the fastest pass counts, after one more to fill the disk's cache.

    Returns:
        One row for each format and size: `format`, `side` and `megabytes` of the encoded images, `images_per_second`
        in training, and `seeded_per_second` where the pixels are hashed besides, as inference does; `cpu_ms` and
        `seeded_cpu_ms`, processor time of this process in milliseconds for each image, which other jobs change little.
    """
    workers = workers or cpus()
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for source, indices in cases(Path(folder), images):
            timed = [[read(source, indices, workers, seeds) for seeds in (False, True)] for _ in range(passes + 1)][1:]
            (seconds, cpu), (seeded, seeded_cpu) = np.min(timed, axis=0) / len(indices)
            row = {"images_per_second": 1 / seconds, "seeded_per_second": 1 / seeded}
            rows.append({**describe(source), **row, "cpu_ms": 1e3 * cpu, "seeded_cpu_ms": 1e3 * seeded_cpu})
    return rows


def cases(folder: Path, images: Mapping[int, tuple[int, int]] = IMAGES) -> Iterator[tuple[FolderSource, list[int]]]:
    """Sources of images of every format and size, written for the purpose, and the order in which to read them."""
    for side, (files, number) in images.items():
        for ending, options in FORMATS.items():
            records = []
            for index in range(files):
                file = folder / f"{side}-{index}.{ending}"
                photo(side, index).save(file, **options)
                records.append(Record(file, "photo", 0, "good", identity=file.name))
            yield FolderSource(f"{ending}-{side}", tuple(records)), [i % files for i in range(number)]


def describe(source: FolderSource) -> dict[str, Any]:
    """Format, side and mean size in 1e6 bytes of a source's files."""
    ending, side = source.name.split("-")
    size = np.mean([record.file.stat().st_size for record in source.records])
    return {"format": ending, "side": int(side), "megabytes": round(float(size) / 1e6, 3)}


def read(source: FolderSource, indices: list[int], workers: int, seeds: bool = False) -> tuple[float, float]:
    """Wall-clock and processor seconds of one pass, until the last batch lies on the device."""
    import jax

    start = time.perf_counter(), time.process_time()
    for loaded in batches(source, {"image": VIEW}, BATCH, workers=workers, indices=indices, seeds=seeds):
        placed = jax.device_put(loaded.batch.images["image"])
    jax.block_until_ready(placed)
    return time.perf_counter() - start[0], time.process_time() - start[1]


def photo(side: int, seed: int) -> Image.Image:
    """Smooth colors under sensor noise, so that JPEG and PNG reach the sizes of photographs."""
    rng = np.random.default_rng([seed, side])
    colors = Image.fromarray(rng.integers(0, 256, (12, 12, 3), dtype=np.uint8)).resize(
        (side, side), Image.Resampling.BICUBIC
    )
    noise = rng.integers(-5, 6, (side, side, 1), dtype=np.int16)
    return Image.fromarray(np.clip(np.asarray(colors) + noise, 0, 255).astype(np.uint8))


def main() -> None:
    """Time images per second from disk to a batch on the device, for several formats and sizes."""
    for row in input_benchmark():
        print(json.dumps(row))


benchmarks.register("input", main)
