"""DPDiff-AD: depth, learning rate, sampling of categories and training objective, which the paper leaves open.

Command (two CPU cores):
    python -m experiments.dpdiff_training --data folder:/my/parts --out runs/training --preset small --steps 200

No published numbers: the paper gives neither the depth of its DiT nor the length of its training (SPEC 3.4 rows 7, 15,
22 and 23). The first row is the preset; every other row changes one setting of it.
"""

from __future__ import annotations

import tyro

from experiments.dpdiff_rows import Mean, RowOptions, Table


def main(options: RowOptions) -> dict[str, Mean]:
    """Runs every setting and prints its means; returns them by row."""
    table = Table(options, {})
    table.row("preset")
    table.row("depth 1", depth=1)
    table.row("depth 4", depth=4)
    table.row("learning rate / 4", train={"learning_rate": table.train.learning_rate / 4})
    table.row("learning rate 1e-4", train={"learning_rate": 1e-4})
    table.row("categories by size", train={"sampling": "size"})
    table.row("noise prediction", prediction="epsilon")
    table.row("all timesteps", train_timesteps=(0, table.config.timesteps))
    return table.rows


if __name__ == "__main__":
    main(tyro.cli(RowOptions, description=__doc__))
