"""The detectors that DPDiff-AD is measured against, at toy size, and what tests of each ask of them."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import numpy as np
from flax import nnx

import jaxad
from jaxad.features import Encoder
from jaxad.nn import module_state
from jaxad.types import Batch, Features

FEATURES: dict[str, Any] = {"backbone": "random:32x4", "image_size": 56, "blocks": (0, 1, 2, 3)}


class Peer(NamedTuple):
    """A detector's class, toy settings, toy training (None where nothing is trained), and the least image AUROC."""

    detector: Any
    config: dict[str, Any]
    training: dict[str, Any] | None
    auroc: float

    def make(self, **changes: Any) -> Any:
        """A new one, always with the same parameters, with `changes` to its toy settings."""
        config = self.detector.config_class(**FEATURES | self.config | changes)
        return self.detector.create(config, key=jax.random.key(0))


def _training(**changes: Any) -> dict[str, Any]:
    return {"learning_rate": 2e-3, "steps": 30, "batch_size": 4, "checkpoint_every": 30} | changes


_ADAMW = {"clip_norm": 0.1, "weight_decay": 1e-4, "optimizer": "stable-adamw"}
_TRANSFORMER = {"width": 16, "heads": 2, "hidden": 32}

PEERS = {
    "linear": Peer(jaxad.LinearDenoiser, {}, None, 0.9),
    "retrieval": Peer(jaxad.RetrievalDetector, {"memory": 200, "retrieved": 40}, None, 0.9),
    "padim": Peer(jaxad.PaDiM, {"dimensions": 8}, None, 0.9),
    "patch-bank": Peer(jaxad.PatchBank, {"bank_size": 100}, None, 0.9),
    "dinomaly": Peer(jaxad.Dinomaly, {"depth": 4, "heads": 2}, _training(**_ADAMW), 0.7),
    "inp-former": Peer(
        jaxad.INPFormer, {"depth": 4, "heads": 2, "prototypes": 3}, _training(**_ADAMW, learning_rate=5e-3), 0.7
    ),
    "rd4ad": Peer(jaxad.RD4AD, {"blocks": (0, 1, 3), "embedding_depth": 1, "depths": (1, 2, 1)}, _training(), 0.8),
    "vitad": Peer(jaxad.ViTAD, {"blocks": (0, 1), "neck": (2, 3), "depth": 4, "heads": 2}, _training(), 0.8),
    "simplenet": Peer(jaxad.SimpleNet, {"hidden": 24, "noise": 1.0}, _training(learning_rate=1e-2), 0.8),
    "uniad": Peer(
        jaxad.UniAD, _TRANSFORMER | {"depth": 1, "neighborhood": 3}, _training(learning_rate=2e-2, clip_norm=0.1), 0.8
    ),
    "hvq-trans": Peer(
        jaxad.HVQTrans,
        _TRANSFORMER | {"depth": 2, "entries": 12, "transport": 2.0},
        _training(learning_rate=2e-2, clip_norm=0.1, steps=40),
        0.8,
    ),
}
TRAINED = [name for name, peer in PEERS.items() if peer.training]
REMEMBERING = [name for name, peer in PEERS.items() if not peer.training]


def encoded(model, source, images=4):
    """Features of the first images of a source."""
    return next(Encoder(model, batch_size=images).stream(source))[0]


def judged(model, features):
    """The judgement of features, of images of which nothing else is known."""
    count = len(features.tokens)
    batch = Batch({}, np.zeros(count, np.uint32), np.ones(count, bool))
    return model.judge(features, batch, jax.random.split(jax.random.key(0), count))


def maps(model, tokens):
    """Anomaly maps of tokens [b n c] on a grid of 4 x 4."""
    return np.asarray(judged(model, Features(tokens, (4, 4))).maps)


def silent(model, loss):
    """Paths of the trained arrays that a loss, a function of a detector, sends no gradient to.

    A bias of keys moves all logits of a query alike: it is left out.
    """
    graphdef, trained, rest = module_state.split(model, nnx.Param, ...)
    gradients = jax.jit(jax.grad(lambda params: loss(module_state.merge(graphdef, rest | params))))(trained)
    return {path for path, g in gradients.items() if not np.abs(g).max() > 0 and not path.endswith("key/bias")}


def perturbed(model, scale, part=""):
    """The detector with trained arrays drawn anew, those whose path holds `part`: zeros hide what reaches what."""
    graphdef, trained, rest = module_state.split(model, nnx.Param, ...)
    rng = np.random.default_rng(0)
    drawn = {p: np.asarray(scale * rng.normal(size=a.shape), a.dtype) for p, a in trained.items() if part in p}
    return module_state.merge(graphdef, rest | trained | drawn)
