"""What lies beside an exported program: all that is needed to use it, as JSON."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from jaxad import __version__
from jaxad.deploy.program import Input, Program
from jaxad.inference.checkpoint import Restored
from jaxad.inference.steps import open_step
from jaxad.metrics import Protocol
from jaxad.types import Batch

FORMAT = 1
WHAT = {
    "seed": "hash of the decoded pixels, from which noise is drawn: the first 4 bytes, little-endian, of BLAKE2b (16 "
    "bytes) over height, width and 3 as little-endian uint32 and the RGB pixels before they are resized",
    "category": "place in `categories`, -1 where it is unknown",
}


def describe(
    program: Program, restored: Restored, kind: str, files: Mapping[str, str], platforms: Sequence[str]
) -> dict[str, Any]:
    """The description of an exported program.

    Args:
        program: what was exported.
        restored: the checkpoint that it came from.
        kind: "stablehlo" or "onnx".
        files: SHA-256 by name.
        platforms: that it runs on.
    """
    detector, protocol, meta = program.detector, program.protocol, restored.meta
    side, threshold = protocol.size, restored.threshold
    pretrained = meta["pretrained"]
    return {
        "description": FORMAT,
        "format": kind,
        "jaxad": __version__,
        "detector": detector.name,
        "title": detector.title,
        "files": dict(files),
        "platforms": list(platforms),
        "inputs": [_input(program, one) for one in program.inputs],
        "outputs": [
            {"name": "score", "dtype": "float32", "shape": ["b"], "what": _score(program)},
            {"name": "map", "dtype": "float32", "shape": ["b", side, side], "what": "anomaly map, already smoothed"},
        ],
        "least_side": detector.inputs.least_side,
        "categories": list(detector.categories),
        "depths": dict(detector.depths),
        "protocol": _protocol(protocol),
        "threshold": None if threshold is None else {k: v for k, v in threshold.to_json().items() if k != "images"},
        "notes": [*restored.notes, *detector.notes],
        "model": {
            "class": meta["class"],
            "step": meta["step"],
            "checkpoint": open_step(restored.folder).manifest.seal,
            "pretrained": pretrained and {name: pretrained[name] for name in ("id", "sha256")},
            "data": {name: meta.get("data", {}).get(name) for name in ("source", "images", "sha256")},
        },
    }


def _input(program: Program, one: Input) -> dict[str, Any]:
    view = program.detector.inputs.views.get(one.name)
    size = view and dataclasses.asdict(view)
    what = WHAT.get(one.name, "the image, RGB, resized as Pillow does it (antialiased)")
    return {"name": one.name, "dtype": one.dtype, "shape": ["b", *one.shape], "view": size, "what": what}


def _protocol(protocol: Protocol) -> dict[str, Any]:
    smoothing = protocol.smoothing
    return {
        "name": protocol.name,
        "description": protocol.description,
        "map_side": protocol.size,
        "smoothing": smoothing
        and {"sigma": smoothing.sigma, "radius": smoothing.radius, "boundary": smoothing.boundary},
        "in_program": True,
    }


def _score(program: Program) -> str:
    """How the image score is defined."""
    if _has_own_score(program):
        return "the detector's own image score"
    protocol = program.protocol
    of = "the map" if protocol.score_smoothed else "the map before it is smoothed"
    if protocol.top_share is not None:
        return f"mean of the highest {protocol.top_share:.0%} of the pixels of {of}"
    if protocol.pool == 1:
        return f"maximum of {of}"
    times = f", {protocol.pool_repeats} times" if protocol.pool_repeats > 1 else ""
    return f"maximum of {of} averaged over {protocol.pool} x {protocol.pool} pixels{times}"


def _has_own_score(program: Program) -> bool:
    detector = program.detector

    def scores(given: dict[str, Any]) -> Any:
        batch: dict[str, Any] = {name: jnp.asarray(array)[None] for name, array in given.items()}
        images: dict[str, Any] = {name: batch[name] for name in detector.inputs.views}
        whole = Batch(images, batch["seed"], jnp.ones(1, bool), batch["category"], program.extras)
        return detector.judge(detector.encode(whole), whole, jax.random.split(jax.random.key(0), 1)).scores

    return jax.eval_shape(scores, program.zeros()) is not None
