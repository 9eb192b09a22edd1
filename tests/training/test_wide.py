"""A process whose JAX computes in 64 bits, as is usual among scientists, trains and judges in 32 all the same."""

from __future__ import annotations

import jax
import numpy as np
import pytest

import jaxad
from jaxad.nn import module_state
from jaxad.testing import toy_model, toy_training


@pytest.fixture
def wide():
    with jax.enable_x64(True):
        yield


def dtypes(model):
    return {str(np.asarray(array).dtype) for array in module_state.split(model)[1].values()}


@pytest.mark.usefixtures("wide")
@pytest.mark.parametrize("denoiser", ["dit", "unet", "uvit"])
@pytest.mark.slow
def test_dpdiff_trains(parts, tmp_path, denoiser):
    model = toy_model(denoiser=denoiser)
    run = jaxad.fit(model, parts.train, toy_training(steps=1), workdir=tmp_path, holdout=parts.holdout)
    assert dtypes(run.model) == {"float32"}
    assert np.isfinite(jaxad.evaluate(run.model, parts.test)["mean"]["image_auroc"])


@pytest.mark.usefixtures("wide")
def test_a_coreset_is_chosen(parts):
    config = jaxad.PatchBankConfig(backbone="random:32x2", image_size=56, bank_size=8, subsampling="coreset")
    bank = jaxad.PatchBank.create(config).remember(parts.train)
    assert dtypes(bank) == {"float32"}
