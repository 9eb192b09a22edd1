"""Images per second of an evaluation of large images with masks, and what a further call of `jaxad.predict` costs.

The detector that evaluates is as small as can be, so that what is timed is all else: decoding, masks, metrics,
dispatch. Calls are timed of a DPDiff-AD of its small preset.
"""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from jaxad.bench import benchmarks
from jaxad.bench.input import photo
from jaxad.data.folder import FolderSource
from jaxad.errors import ConfigError
from jaxad.types import Record


def evaluation_benchmark(*, images: int = 96, side: int = 1024, passes: int = 3) -> dict[str, Any]:
    """Times an evaluation and calls of `jaxad.predict`.

    Args:
        images: defective images of a pass, JPEG, with masks as PNG; more than two batches.
        side: their length in pixels.
        passes: how often each is timed after a first time, which compiles; the fastest counts.

    Returns:
        `images_per_second`; `cpu_ms` and `thread_ms`, processor time of the process and of the calling thread for each
        image, which other jobs change little; `call_ms` of a further `jaxad.predict` of one small image, `steady_ms`
        of a `jaxad.Predictor` kept by the caller, and `call_cpu_ms` and `steady_cpu_ms` likewise.
    """
    import jax

    import jaxad
    from jaxad.data import ImageList
    from jaxad.inference.evaluation import score

    config = jaxad.PatchBankConfig(backbone="random:32x2", image_size=56, bank_size=64)
    detector = jaxad.PatchBank.create(config, key=jax.random.key(0))
    with tempfile.TemporaryDirectory() as folder:
        source = _defective(Path(folder), images, side)
        detector.remember(FolderSource("normal", source.records[:4]))
        rates, costs = [], []
        for _ in range(passes + 1):
            scored, _, cpu, thread = _timed(lambda: score(detector, source))
            rates.append(scored.images / scored.seconds)
            costs.append((cpu / images, thread / images))
    cpu, thread = 1e3 * np.min(costs[1:], axis=0)
    one = ImageList([np.asarray(photo(256, 0))])
    detector = jaxad.DPDiff.create(jaxad.DPDiffConfig.preset("small"), key=jax.random.key(0))
    predictor = jaxad.Predictor(detector, batch_size=1)
    calls = [_timed(lambda: jaxad.predict(detector, one))[1:3] for _ in range(passes + 1)][1:]
    steady = [_timed(lambda: list(predictor.stream(one, originals=True)))[1:3] for _ in range(passes + 1)][1:]
    (call_ms, call_cpu_ms), (steady_ms, steady_cpu_ms) = (1e3 * np.min(times, axis=0) for times in (calls, steady))
    found = {"images_per_second": max(rates[1:]), "cpu_ms": cpu, "thread_ms": thread, "call_ms": call_ms}
    found |= {"steady_ms": steady_ms, "call_cpu_ms": call_cpu_ms, "steady_cpu_ms": steady_cpu_ms}
    return {name: round(float(value), 1) for name, value in found.items()}


def _timed(work: Callable[[], Any]) -> tuple[Any, float, float, float]:
    """What `work` gives; seconds by the clock, of all processors, and of this thread."""
    start = time.perf_counter(), time.process_time(), time.thread_time()
    result = work()
    clock, process, thread = time.perf_counter(), time.process_time(), time.thread_time()
    return result, clock - start[0], process - start[1], thread - start[2]


def _defective(folder: Path, images: int, side: int) -> FolderSource:
    """Images with a round defect each, whose masks are gray."""
    rows, columns = np.mgrid[:side, :side] / side
    records = []
    for index in range(images):
        mask = (rows - 0.2 - 0.6 * index / images) ** 2 + (columns - 0.5) ** 2 < 0.1**2
        pixels = np.array(photo(side, index % 16))
        pixels[mask] = 255 - pixels[mask]
        file, masked = folder / f"{index}.jpg", folder / f"{index}_mask.png"
        Image.fromarray(pixels).save(file, quality=92)
        Image.fromarray(mask.astype(np.uint8) * 255).save(masked)
        records.append(Record(file, "photo", 1, "spot", masked, identity=file.name))
    return FolderSource("defective", tuple(records))


def main(*, images: int = 96, side: int = 1024, passes: int = 3) -> None:
    """Time an evaluation of large images with masks, and a further call of predict.

    Args:
        images: images of a pass, more than two batches of 16.
        side: their length in pixels.
        passes: how often each is timed.

    Raises:
        ConfigError: numbers that are too small.
    """
    least = {"images": (images, 33), "side": (side, 64), "passes": (passes, 1)}
    if low := [
        f"{name} = {given}: must be at least {bound}" for name, (given, bound) in least.items() if given < bound
    ]:
        raise ConfigError("\n  ".join(low))
    print(json.dumps(evaluation_benchmark(images=images, side=side, passes=passes), indent=2))


benchmarks.register("evaluation", main)

if __name__ == "__main__":
    main()
