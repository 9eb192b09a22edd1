"""What comparing bytes costs on a checkpoint of real size: `python -m tests.campaigns.digest_cost`.

Saves and restores a DPDiff-AD on an untrained ViT-B/14, backbone embedded, with digests and without, in turn.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from unittest import mock

import jax

import jaxad
from jaxad import parallel
from jaxad.inference import checkpoint_writer, steps
from jaxad.io import digests
from jaxad.training.step import DetectorTrainer

TRIES = 5
META = {"train": {}, "data": {}, "protocol": "exact-256", "false_alarm": 0.01}


def seconds(call: Callable[[], object]) -> float:
    """How long a call takes."""
    began = time.perf_counter()
    call()
    return time.perf_counter() - began


def main() -> None:
    """Measures and prints medians, and the least and largest ratio of neighbors."""
    config = jaxad.DPDiffConfig(backbone="random:768x12", image_size=448)
    model = jaxad.DPDiff.create(config, key=jax.random.key(0))
    state = DetectorTrainer(model, jaxad.TrainConfig(), parallel.make_mesh()).init()

    def save(folder: Path) -> None:
        with checkpoint_writer.CheckpointWriter(folder) as writer:
            writer.save(0, model, meta=META, training=state)

    with tempfile.TemporaryDirectory() as temporary, mock.patch.object(checkpoint_writer, "EMBED_LIMIT", 10**10):
        saved: list[tuple[float, float]] = []
        restored: list[tuple[float, float]] = []
        whole, cheap = [], []
        for number in range(TRIES):
            folder = Path(temporary) / str(number)
            with_digests = seconds(lambda folder=folder: save(folder))
            with mock.patch.object(checkpoint_writer, "write_manifest"):
                saved.append((with_digests, seconds(lambda folder=folder: save(folder.with_suffix(".without")))))
            step = folder / "checkpoints" / "0"
            with_digests = seconds(lambda step=step: jaxad.restore(step))
            with mock.patch.object(digests.Manifest, "check"):
                restored.append((with_digests, seconds(lambda step=step: jaxad.restore(step))))
            cheap.append(seconds(lambda step=step: steps.open_step(step)))
            whole.append(seconds(steps.open_step(step).check))
        size = steps.open_step(step).manifest.bytes
    print(f"{size / 1e6:.0f} MB")
    for what, pairs in (("save", saved), ("restore", restored)):
        ratios = [with_digests / without for with_digests, without in pairs]
        medians = [statistics.median(each) for each in zip(*pairs, strict=True)]
        print(
            f"{what}: {medians[0]:.2f} s with, {medians[1]:.2f} s without; ratio {statistics.median(ratios):.2f} ",
            end="",
        )
        print(f"({min(ratios):.2f} to {max(ratios):.2f})")
    print(f"size and date of all files: {statistics.median(cheap):.3f} s; every byte: {statistics.median(whole):.2f} s")


if __name__ == "__main__":
    main()
