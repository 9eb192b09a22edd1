"""VLMDiff: fewer DDIM steps and less noise at the start, their effect on speed and quality. Ours, not in the paper.

Command (a checkpoint of `jaxad fit vlmdiff` or of a table's run; one GPU):
    python -m experiments.vlmdiff_sampling --checkpoint runs/vlmdiff/mvtec_ad/RUN/seed-1 --data mvtec_ad

Evaluates one checkpoint under every setting; nothing is trained. Published is t = 999 in 10 steps, the first row, of
which 6.8 % of an image's signal is left (SPEC 1.8). Less noise keeps more of the image, its defects too. Images per
second are of the whole evaluation (decoding, networks, metrics) after its first batch, which compiles.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from pathlib import Path

import tyro

import jaxad
from experiments.vlmdiff_caption_rows import described
from experiments.vlmdiff_rows import PROTOCOL
from jaxad.evaluate import score
from jaxad.metrics import summarise
from jaxad.progress import Reporter

COLUMNS = ("image_auroc", "pixel_auroc", "pixel_ap", "aupro")


@dataclass(frozen=True)
class Sampling:
    """Sweep start timestep and number of steps of a checkpoint."""

    checkpoint: Path
    """A workdir or one step's folder of VLMDiff."""
    data: str
    """Prepared data set, or `folder:PATH` of categories in MVTec layout."""
    data_dir: Path | None = None
    """Folder of the prepared data sets; TFDS_DATA_DIR or ~/tensorflow_datasets if not given."""
    captions: Path | None = None
    """Folder of caption folders, for a model that takes captions at test time; see `vlmdiff_rows`."""
    vlm: str = "internvl"
    """Captioner, by the beginning of its name in the names of these folders."""
    timesteps: tuple[int, ...] = (999, 750, 500, 250)
    """Start timesteps t, 1 to 999."""
    steps: tuple[int, ...] = (10, 5, 3, 2, 1)
    """Numbers of DDIM steps."""
    batch_size: int = 16
    """Images at once."""


@dataclass(frozen=True)
class Row:
    """One setting: its metrics, 0..1, and images per second (None where there is only one batch)."""

    start_timestep: int
    sampling_steps: int
    images_per_second: float | None
    mean: dict[str, float | None]


def main(options: Sampling) -> list[Row]:
    """Prints speed and metrics of every setting, in percent."""
    reporter, rows = Reporter(), []
    dataset = jaxad.data.load(options.data, options.data_dir, config=jaxad.DataConfig(holdout=0.0))
    test = described(dataset.test, options.captions, options.data, options.vlm, "test")
    print(f"{'t':>4} {'steps':>5} {'images/s':>9} " + " ".join(f"{name:>11}" for name in COLUMNS))
    for start, steps in itertools.product(options.timesteps, options.steps):
        detector = jaxad.restore(options.checkpoint, start_timestep=start, sampling_steps=steps).detector
        with reporter.images(f"t {start}, {steps} steps", len(test)) as progress:
            scored = score(detector, test, protocol=PROTOCOL, batch_size=options.batch_size, progress=progress)
        mean = summarise(scored.results())
        rate = scored.images / scored.seconds if scored.images else None
        cells = ("-" if value is None else f"{100 * value:.1f}" for value in map(mean.get, COLUMNS))
        speed = "-" if rate is None else f"{rate:.2f}"
        print(f"{start:4} {steps:5} {speed:>9} " + " ".join(f"{cell:>11}" for cell in cells), flush=True)
        rows.append(Row(start, steps, rate, mean))
    return rows


if __name__ == "__main__":
    main(tyro.cli(Sampling, description=__doc__))
