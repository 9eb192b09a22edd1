"""DPDiff-AD: depth, learning rate, sampling of categories and training objective, which the paper leaves open.

Command (two CPU cores):
    python -m experiments.dpdiff.training_settings --data folder:/my/parts --out runs/training \
        --preset small --steps 200

No published numbers: the paper gives neither the depth of its DiT nor the length of its training, schedule or sampling.
The first row is the preset; each of the others changes one setting of it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import tyro

from experiments.dpdiff.rows import Mean, RowOptions, Table

ROWS: dict[str, dict[str, Any]] = {
    "preset": {},
    "depth 1": {"depth": 1},
    "depth 4": {"depth": 4},
    "learning rate 5e-4": {"train": {"learning_rate": 5e-4}},
    "learning rate 1e-4": {"train": {"learning_rate": 1e-4}},
    "categories by size": {"train": {"sampling": "size"}},
    "noise prediction": {"prediction": "epsilon"},
    "all timesteps": {"train_timesteps": (0, 1000)},
}
"""What each row changes."""


@dataclass(frozen=True)
class Training(RowOptions):
    """Train and evaluate the settings."""

    rows: tuple[str, ...] = tuple(ROWS)
    """Which of them."""


def main(options: Training) -> dict[str, Mean]:
    """Runs every setting and prints its means; returns them by row."""
    with Table(options, {}, "training settings", shares=True) as table:
        for name in options.rows:
            table.row(name, **ROWS[name])
    return table.rows


if __name__ == "__main__":
    main(tyro.cli(Training, description=__doc__))
