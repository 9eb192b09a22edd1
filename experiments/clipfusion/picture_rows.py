"""What the figures of CLIPFusion share: settings without references side by side on defective images.

Not an experiment itself; `figure1.py`, `figure3.py` and `figure5.py` are.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import jaxad
from experiments.clipfusion.fused_rows import Run, widest
from experiments.clipfusion.rows import PROTOCOL, Row, RowOptions
from jaxad.detectors.clipfusion.networks import load_networks
from jaxad.inference.sheet import defective


@dataclass(frozen=True)
class PictureOptions(RowOptions):
    """Data and networks as for the tables."""

    data: tuple[str, ...] = ("mvtec_ad",)
    images: int = 1
    """Defective images of each category."""


def draw(options: PictureOptions, columns: Mapping[str, Row], figure: str) -> list[Path]:
    """Draws a sheet for each data set, --out/FIGURE-DATA.png, with a column for each setting; returns the files."""
    written = []
    configs = {name: row.config(options) for name, row in columns.items()}
    networks = load_networks(widest([Run(config, 0, 0) for config in configs.values()]))
    for data in options.data:
        dataset = options.load(data, categories=options.categories)
        names = jaxad.data.ClassNames(dataset.categories)
        detectors = [
            jaxad.CLIPFusion.create(config, backbone=networks.of(config.models)).remember(names)
            for config in configs.values()
        ]
        chosen = defective(dataset.test, options.categories, options.images)
        file = options.out / f"{figure}-{Path(data).name}.png"
        drawn = jaxad.sheet(dataset.test, detectors, chosen, names=tuple(configs), protocol=PROTOCOL)
        written.append(drawn.save(file))
    return written
