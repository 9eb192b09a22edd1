"""The benchmark of networks, on a made-up small one in place of the published ones."""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
import pytest

from jaxad.bench import models as bench_models
from jaxad.errors import ConfigError
from jaxad.models.catalog import Network
from jaxad.models.vit.config import ViTConfig
from jaxad.models.vit.network import abstract_vit

WIDTH, TOKENS, HIDDEN = 16, 17, 32


@pytest.fixture
def small(monkeypatch):
    config = ViTConfig(WIDTH, 1, 2, 8, image_size=32, hidden=HIDDEN)
    image = jax.ShapeDtypeStruct((1, 32, 32, 3), jnp.float32)
    network = Network("small", "", "--model.backbone", partial(abstract_vit, config), (image,), lambda n, x: n(x)[0])
    monkeypatch.setattr(bench_models, "networks", lambda: (network,))
    monkeypatch.setattr("jaxad.models.catalog.PARAMETERS", {"small": 7})


def test_row_counts_operations_of_one_image(small):
    (row,) = bench_models.models_benchmark(batch=2, repeats=1)
    assert (row["name"], row["parameters"], row["batch"], row["input"]) == ("small", 7, 2, [32, 32])
    products = 16 * 8 * 8 * 3 * WIDTH + TOKENS * (4 * WIDTH**2 + 2 * WIDTH * HIDDEN) + 2 * TOKENS**2 * WIDTH
    assert 2 * products <= row["gflop"] * 1e9 < 1.3 * 2 * products
    assert row["per_second"] == pytest.approx(2 / row["seconds"])
    assert row["share"] > 0
    assert row["peak_from"] == "matrix product of side 2048"


def test_unknown_network_is_named(small):
    with pytest.raises(ConfigError, match=r"ResNet-7.*small"):
        list(bench_models.models_benchmark(["ResNet-7"]))


def test_published_peaks_are_those_of_the_variant():
    known = {
        "NVIDIA H100 80GB HBM3": 989.4e12,
        "NVIDIA H100 PCIe": 756e12,
        "NVIDIA H200": 989.4e12,
        "NVIDIA L4": 121e12,
        "NVIDIA GeForce RTX 4090": 165.2e12,
        "TPU v5 lite": 197e12,
        "TPU v5": 459e12,
    }
    known |= dict.fromkeys(("NVIDIA A100-SXM4-40GB", "NVIDIA A100 80GB PCIe"), 312e12)
    strange = ("NVIDIA L40S", "NVIDIA H100 NVL", "NVIDIA H200 NVL", "NVIDIA GH200 480GB", "TPU v4 lite")
    strange += ("NVIDIA GeForce RTX 4090 D", "cpu")
    for kind, rate in (known | dict.fromkeys(strange)).items():
        assert bench_models.published_peak(kind) == rate, kind
