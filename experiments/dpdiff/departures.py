"""DPDiff-AD: every step from the published objective and inference to the preset `retrieval`.

Command (two CPU cores):
    python -m experiments.dpdiff.departures --data folder:/my/parts --out runs/departures --steps 100 --seeds 0 1 2

No published numbers: the paper has the first row alone, at its own size. Network, blocks and optimizer are those of the
preset `small` in every row, so that the rows differ in what they learn and in what is made of it. Each row keeps what
the rows above it changed, but `linear`, which stands beside `retrieval`; rows that change nothing that is learned are
judged with the runs above them. Also prints the share of the squared residual of normal patches that comes from the
noise that was drawn, and not from the image: the variance between two draws over the mean square.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
import tyro

import jaxad
from experiments.dpdiff.rows import Mean, RowOptions, Table
from experiments.rows import percent
from jaxad.nn import module_state
from jaxad.types import Array, Batch, Features

Settings = dict[str, Any]

PUBLISHED: Settings = {
    "prediction": "epsilon",
    "train_timesteps": (0, 1000),
    "start_timestep": 250,
    "sampling_steps": 3,
    "draws": 1,
    "residual": "squared",
}
"""Fields of DPDiffConfig, of the preset "small", that are as published."""
PAIR: Settings = {**PUBLISHED, "sampling_steps": 1, "antithetic": True}
COSINE: Settings = {**PAIR, "residual": "cosine"}
VELOCITY: Settings = {**COSINE, "prediction": "v", "train_timesteps": (0, 400)}
WEAK: Settings = {**VELOCITY, "start_timestep": 100}
RETRIEVAL: Settings = {**WEAK, "precondition": "retrieval"}
EXPECTED: Settings = {
    **RETRIEVAL,
    "groups": 2,
    # Two groups have twice the channels, which the network would take as its width.
    "width": 384,
    "tokens": 256,
    "image_score": "excess",
    "expected_share": 0.5,
}
ALL: Settings = {**EXPECTED, "nearest": True, "expected_share": 0.75}
"""As of the preset "retrieval", but for the size of images."""


@dataclass(frozen=True)
class Row:
    """What a row changes.

    Attributes:
        trained: fields of DPDiffConfig in training; None for the runs of the row `like`.
        judged: fields that differ afterwards.
        like: an earlier row.
    """

    trained: Settings | None = None
    judged: Settings | None = None
    like: str | None = None


def _difference(judged: Settings, trained: Settings) -> Settings:
    return {name: value for name, value in judged.items() if trained.get(name) != value}


ROWS: dict[str, Row] = {
    "published": Row(PUBLISHED),
    "antithetic pair, one step": Row(judged=_difference(PAIR, PUBLISHED), like="published"),
    "cosine residual": Row(judged=_difference(COSINE, PUBLISHED), like="published"),
    "v, t below 400": Row(VELOCITY),
    "t = 100": Row(judged=_difference(WEAK, VELOCITY), like="v, t below 400"),
    "linear": Row({**WEAK, "precondition": "linear"}),
    "retrieval": Row(RETRIEVAL),
    "two groups": Row(EXPECTED, {"image_score": "protocol", "expected_share": 0.0}),
    "excess score": Row(judged={"expected_share": 0.0}, like="two groups"),
    "half of expected off": Row(judged={}, like="two groups"),
    "nearest patch": Row(ALL, {"expected_share": 0.5}),
    "three quarters off": Row(judged={}, like="nearest patch"),
}


@dataclass(frozen=True, kw_only=True)
class Departures(RowOptions):
    """Train and evaluate the steps."""

    preset: Literal["small"] = "small"
    """Network, blocks and optimizer of all rows."""
    images: int = 64
    """Normal test images whose residuals are drawn twice."""


def main(options: Departures) -> dict[str, tuple[Mean, float]]:
    """Runs every row and prints its means; returns these and the share of noise in normal residuals by row."""
    shares: dict[str, float] = {}
    with Table(options, {}, "steps from the published setting", shares=True) as table:
        for name, row in ROWS.items():
            detectors = table.row(name, like=row.like, judged=row.judged, **(row.trained or {}))
            found = [noise_share(detector, table.normal_features(detector, options.images)) for detector in detectors]
            shares[name] = float(np.mean(found))
            print(f"{'':28} noise      {percent([shares[name]])} of a normal residual", flush=True)
    return {name: (mean, shares[name]) for name, mean in table.rows.items()}


def noise_share(detector: jaxad.Detector, features: Features, batch_size: int = 8) -> float:
    """Share of the squared residual that differs from draw to draw.

    Args:
        detector: whose explanations are features before and after reconstruction.
        features: tokens [b n c] of normal images.
        batch_size: images at once.

    Returns:
        0..1: half the mean square of what two reconstructions differ by, over that of their residuals.
    """
    graphdef, arrays = module_state.split(detector)

    @jax.jit
    def squares(arrays: dict[str, Array], tokens: Array, keys: Array) -> tuple[jax.Array, jax.Array]:
        model = module_state.merge(graphdef, arrays)
        batch = Batch({}, jnp.zeros(len(tokens), jnp.uint32), jnp.ones(len(tokens), bool))

        def residual(draw: int) -> jax.Array:
            own = jax.vmap(jax.random.fold_in, (0, None))(keys, draw)
            explanation = model.judge(Features(tokens, features.grid), batch, own).explanation
            return jnp.asarray(explanation.before) - jnp.asarray(explanation.after)

        first, second = residual(0), residual(1)
        return jnp.square(first - second).sum() / 2, (jnp.square(first).sum() + jnp.square(second).sum()) / 2

    total, keys = np.zeros(2), jax.random.split(jax.random.key(0), len(features.tokens))
    for start in range(0, len(keys), batch_size):
        chosen = slice(start, start + batch_size)
        total += np.asarray(squares(arrays, jnp.asarray(features.tokens[chosen]), keys[chosen]))
    return float(total[0] / total[1])


if __name__ == "__main__":
    main(tyro.cli(Departures, description=__doc__))
