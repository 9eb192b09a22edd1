"""What is on the devices while a detector is trained."""

import gc
import math
import time
import weakref
from contextlib import contextmanager

import jax
import numpy as np
import pytest
from flax import nnx

import jaxad
from jaxad.io.progress import Reporter
from jaxad.nn import module_state
from jaxad.nn.variables import Frozen
from jaxad.testing import toy_model, toy_training
from jaxad.training.step import DetectorTrainer
from tests.training.test_trainer import arrays


def held():
    """Bytes of all arrays on the first device."""
    gc.collect()
    here = [array for array in jax.live_arrays() if jax.devices()[0] in array.sharding.device_set]
    return sum(math.prod(array.sharding.shard_shape(array.shape)) * array.dtype.itemsize for array in here)


class Scales(Reporter):
    """Weighs what is on the first device when training begins and after its first step."""

    def __init__(self):
        super().__init__(quiet=True)
        self.weights = []

    def steps(self, what, total, done):
        @contextmanager
        def bar():
            self.weights.append(held())
            yield lambda step, terms, rate: self.weights.append(held())

        return bar()


@pytest.mark.parametrize("cache", ["memory", "off"])
def test_training_holds_every_array_once(parts, tmp_path, cache):
    before, scales = held(), Scales()
    model = toy_model()
    # Sizes alone: whoever keeps the arrays keeps them on the devices.
    groups = [
        {path: array.nbytes for path, array in group.items()}
        for group in module_state.split(model, nnx.Param, Frozen, ...)[1:3]
    ]
    trained, frozen = (sum(group.values()) for group in groups)
    sizes = groups[0] | groups[1]
    config = toy_training(steps=1, cache=cache)
    run = jaxad.fit(model, parts.train, config, workdir=tmp_path / "run", reporter=scales)
    # Parameters, their average and two moments; the backbone where every step needs it; the noise schedule and metrics.
    needed = 4 * trained + (frozen if cache == "off" else 0)
    assert min(frozen, trained) > 8e4
    assert len(scales.weights) == 2
    for weight in scales.weights:
        assert needed <= weight - before < needed + 4e4
    # The parameters of the detector given are as they were, and the one returned is whole.
    given, returned, new = (arrays(detector) for detector in (model, run.model, toy_model()))
    assert [path for path in sizes if given[path].tobytes() != new[path].tobytes()] == []
    assert not np.array_equal(returned["denoiser/project_out/kernel"], new["denoiser/project_out/kernel"])
    assert all(isinstance(array, jax.Array) for array in module_state.split(run.model)[1].values())


def test_the_optimizer_is_gone_when_the_threshold_is_measured(parts, tmp_path, monkeypatch):
    made: list = []
    left: list = [None]
    step = DetectorTrainer.step

    def watched(self, state, batch, key):
        found = step(self, state, batch, key)
        made.extend(weakref.ref(leaf) for leaf in jax.tree.leaves(found[0].opt_state))
        return found

    class AtThreshold(Reporter):
        def images(self, what, total):
            if what == "threshold":
                # On CPUs the thread that writes the last step reads the very arrays, and lets go of them when it ends.
                for _ in range(600):
                    gc.collect()
                    left[:] = [leaf for leaf in made if leaf() is not None]
                    if not left:
                        break
                    time.sleep(0.05)
            return super().images(what, total)

    monkeypatch.setattr(DetectorTrainer, "step", watched)
    model, config = toy_model(), toy_training(steps=1, cache="memory")
    quiet = AtThreshold(quiet=True)
    jaxad.fit(model, parts.train, config, workdir=tmp_path / "run", holdout=parts.holdout, reporter=quiet)
    assert len(made) > 50
    assert not left
