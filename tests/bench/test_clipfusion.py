"""Latency and operations of CLIPFusion, on networks of a few channels."""

from __future__ import annotations

import json

import pytest

from jaxad.bench import clipfusion as bench_clipfusion
from jaxad.memory.bank import SPARE
from jaxad.nn import precision as precision_of_networks


def test_operations_grow_with_references_alone():
    none, two = bench_clipfusion.clipfusion_benchmark((0, 2), size="tiny", preset="patchclip", count_only=True)
    assert "ms" not in none
    assert (none["dtype"], none["types"]) == ("auto", {"CLIP": "float32"})
    assert none["parts"]["references"] == 0
    assert two["parts"]["CLIP"] == none["parts"]["CLIP"] > 0
    # Two blocks of 9 patches with 16 channels, to 18 references and, once more, to the nearest of them; lengths, minima
    # and masks come on top of the products.
    products = 2 * 2 * 9 * (2 * 9 + 1 + SPARE) * 16 / 1e9
    assert products < two["parts"]["references"] < 1.5 * products
    for row in (none, two):
        assert row["gflop"] == pytest.approx(sum(row["parts"].values()))
        assert row["parts"]["other"] > 0


def test_networks_have_the_types_that_users_have_on_a_gpu(monkeypatch):
    monkeypatch.setattr(precision_of_networks, "target_platform", lambda: "gpu")
    for dtype, autoencoder in (("auto", "float32"), ("bfloat16", "bfloat16")):
        config = bench_clipfusion.settings("default", "tiny", dtype)
        networks = bench_clipfusion.abstract_detector(config, "tiny", 0).backbone
        assert (networks.vae.dtype, networks.unet.dtype) == (autoencoder, "bfloat16")


@pytest.mark.slow
def test_prediction_is_timed_and_its_parts_make_the_whole(capsys):
    bench_clipfusion.main((1,), size="tiny", dtype="float32")
    row = json.loads(capsys.readouterr().out)
    assert row["parts"].keys() == {"CLIP", "autoencoder", "UNet", "references", "other"}
    assert all(part > 0 for part in row["parts"].values())
    assert row["parts"]["UNet"] > row["parts"]["autoencoder"]
    assert row["ms"] > 0
    assert "published_ms" not in row
