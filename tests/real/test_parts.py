"""The whole pipeline on real photos with a real network: bottles of MVTec-AD, DINOv2-S, minutes on two cores."""

from __future__ import annotations

import jax
import pytest

import jaxad

pytestmark = [pytest.mark.real, pytest.mark.slow]


@pytest.fixture(scope="module")
def bottles(real_data):
    dataset = jaxad.data.load(
        f"folder:{real_data / 'parts'}", config=jaxad.DataConfig(categories=("bottle",), holdout=0.05)
    )
    test = dataset.test.select([i for i in range(len(dataset.test)) if i % 3 == 0])
    return dataset.train.per_class(48, seed=0), dataset.holdout, test


@pytest.fixture(scope="module")
def settings(real_data):
    return {"backbone": str(real_data / "weights" / "dinov2-small"), "blocks": (4, 5, 6, 7), "image_size": 224}


def test_patch_bank_finds_broken_bottles(bottles, settings):
    train, _, test = bottles
    bank = jaxad.PatchBank.create(jaxad.PatchBankConfig(**settings)).remember(train)
    mean = jaxad.evaluate(bank, test)["mean"]
    assert mean["image_auroc"] > 0.95
    assert mean["pixel_ap"] > 0.6


def test_dpdiff_learns_bottles_in_sixty_steps(bottles, settings, tmp_path):
    train, holdout, test = bottles
    config = jaxad.DPDiffConfig.preset("small", **settings)
    untrained = jaxad.evaluate(jaxad.DPDiff.create(config, key=jax.random.key(0)), test)["mean"]
    run = jaxad.fit(
        jaxad.DPDiff.create(config, key=jax.random.key(0)),
        train,
        jaxad.TrainConfig.preset("small", steps=60, batch_size=8),
        workdir=tmp_path / "run",
        holdout=holdout,
        false_alarm=0.1,
    )
    mean = jaxad.evaluate(run.model, test)["mean"]
    assert mean["image_auroc"] > 0.9
    assert mean["pixel_ap"] > max(0.5, untrained["pixel_ap"])
    broken = next(record.file for record in test.records if record.defect == "broken_large")
    answer = jaxad.predict(run.model, [broken], threshold=run.threshold, category="bottle")[0]
    assert answer.anomalous
    assert answer.box is not None
