"""Steps from the published setting, on toy data."""

from __future__ import annotations

import numpy as np
import pytest

from experiments.dpdiff.departures import ROWS, Departures, main, noise_share
from jaxad.config import DPDiffConfig
from jaxad.testing import toy_model
from jaxad.types import Features
from tests.experiments.dpdiff.toy_rows import toy_rows


@pytest.mark.parametrize("antithetic", [False, True])
def test_share_of_noise_before_anything_is_learned(antithetic):
    # The denoiser's output is zero at first, so that with x and noise of unit variance the reconstruction is
    # a x + sqrt(a (1 - a)) noise, whose noise cancels in a pair.
    settings = {"prediction": "v", "start_timestep": 250, "sampling_steps": 1, "standardize": "none"}
    model = toy_model(**settings, antithetic=antithetic)
    rows, columns = model.grid
    tokens = np.random.default_rng(0).normal(size=(24, rows * columns, model.channels)).astype(np.float32)
    wanted = 0.0 if antithetic else float(model._schedule.alpha_bar[250])
    assert noise_share(model, Features(tokens, model.grid), 8) == pytest.approx(wanted, abs=0.02)


def test_rows_are_settings_and_what_they_share_is_trained_above():
    for name, row in ROWS.items():
        trained = row.trained if row.like is None else ROWS[row.like].trained
        assert trained is not None, name
        assert not DPDiffConfig.preset("small", **{**trained, **(row.judged or {})}).problems(), name
    for name in ("half of expected off", "three quarters off"):
        assert "expected_share" not in ROWS[name].judged, name


def test_the_last_row_is_the_preset_retrieval_but_for_the_size_of_images():
    last = list(ROWS.values())[-1]
    assert last.like is not None
    settings = {**(ROWS[last.like].trained or {}), **(last.judged or {})}
    preset = DPDiffConfig.preset("retrieval")
    assert DPDiffConfig.preset("small", **settings, image_size=preset.image_size) == preset


@pytest.mark.slow
def test_departures_run(parts, tmp_path):
    rows = main(Departures(**vars(toy_rows(parts, tmp_path, seeds=(0, 1), backbone="random:48x12")), images=4))
    assert list(rows) == list(ROWS)
    assert all(0 <= share <= 1 for _, share in rows.values())
    assert len(list((tmp_path / "reports").rglob("report.json"))) == 2 * len(ROWS)
    trained = sum(row.like is None for row in ROWS.values())
    assert len(list(tmp_path.glob("*/seed-*/config.json"))) == 2 * trained
    assert rows["published"][1] > rows["antithetic pair, one step"][1]
