"""The words of `--save`: pictures of every image that is judged."""

from __future__ import annotations

from typing import Literal, get_args

Save = Literal["overlay", "map", "mask", "heatmap", "input", "reconstruction", "autoencoder", "features", "terms"]
METAVAR = f"{{{','.join(get_args(Save))}}}..."
