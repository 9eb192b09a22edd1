"""VLMDiff: fewer DDIM steps and less noise at the start, and their effect on speed and quality; not in the paper.

Command (a checkpoint of `jaxad fit vlmdiff` or of a table's run; one GPU):
    python -m experiments.vlmdiff.sampling --checkpoint runs/vlmdiff/mvtec_ad/RUN/seed-1 --data mvtec_ad

Expected: speed in inverse proportion to the steps; nothing is published but the first row, t = 999 in 10 steps, which
leaves 6.8 % of an image's signal (the square root of alpha-bar at 999). Less noise keeps more of the image, its defects
included. One checkpoint is evaluated under every setting; nothing is trained. Images per second are those of the whole
evaluation (decoding, networks, metrics) after its first two batches: the first compiles, and the second has started by
then.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from pathlib import Path

import tyro

from experiments.rows import Mean, head, percent
from experiments.sweep import SweepOptions, sweep
from experiments.vlmdiff.caption_rows import described
from experiments.vlmdiff.rows import PROTOCOL
from jaxad.io.progress import Reporter

COLUMNS = ("image_auroc", "pixel_auroc", "pixel_ap", "aupro")


@dataclass(frozen=True)
class Sampling(SweepOptions):
    """Sweep start timestep and number of steps of a checkpoint of VLMDiff."""

    captions: Path | None = None
    """Folder of caption folders, for a detector that takes captions at test time; see `rows.py`."""
    vlm: str = "internvl"
    """Captioner: how its name begins in the names of these folders."""
    timesteps: tuple[int, ...] = (999, 750, 500, 250)
    """Start timesteps t, 1 to 999."""
    steps: tuple[int, ...] = (10, 5, 3, 2, 1)
    """Numbers of DDIM steps."""
    batch_size: int = 16
    """Images at once."""


@dataclass(frozen=True)
class Row:
    """One setting: its metrics, 0..1, and images per second (None where there are no more than two batches)."""

    start_timestep: int
    sampling_steps: int
    images_per_second: float | None
    mean: Mean


def main(options: Sampling) -> list[Row]:
    """Prints speed and metrics of every setting, in percent."""
    reporter, rows = Reporter(), []
    test = options.load(options.data).test
    if options.captions is not None:
        test, _ = described(test, options.captions, options.data, options.vlm, "test", reporter)
    print(f"{'t':>4} {'steps':>5} {'images/s':>9} {head(COLUMNS)}")
    grid = itertools.product(options.timesteps, options.steps)
    settings = [{"start_timestep": start, "sampling_steps": steps} for start, steps in grid]
    scoring = {"protocol": PROTOCOL, "batch_size": options.batch_size}
    results = sweep(options, test, settings, reporter, **scoring)
    for setting, (scored, mean) in zip(settings, results, strict=True):
        rate = scored.images / scored.seconds if scored.images else None
        speed = "-" if rate is None else f"{rate:.2f}"
        start, steps = setting.values()
        print(f"{start:4} {steps:5} {speed:>9} {percent([mean[name] for name in COLUMNS])}", flush=True)
        rows.append(Row(start, steps, rate, mean))
    return rows


if __name__ == "__main__":
    main(tyro.cli(Sampling, description=__doc__))
