"""Latency and operations of CLIPFusion, on networks of a few channels."""

from __future__ import annotations

import dataclasses
import json
import re

import jax
import pytest

from jaxad import parallel
from jaxad.bench import clipfusion as bench_clipfusion
from jaxad.inference.predictor import Predictor
from jaxad.memory.bank import SPARE
from jaxad.nn import module_state
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


@pytest.mark.parametrize(("shots", "memory_gb"), [(0, 8.0), (2, 8.0), (2, 1e-6)], ids=["none", "two", "a few at once"])
def test_devices_keep_their_images(shots, memory_gb):
    """Nothing is sent between two devices that have all parameters: every image's rows lie on its own."""
    mesh = parallel.make_mesh()
    config, images = bench_clipfusion.settings("default", "tiny", "float32"), 5 * mesh.size
    config = dataclasses.replace(config, memory_gb=memory_gb)
    detector = bench_clipfusion.abstract_detector(config, "tiny", shots)
    predictor = Predictor(module_state.without_arrays(detector), "exact-256", batch_size=images, mesh=mesh)
    batch = bench_clipfusion._batch(detector, images)
    shapes = jax.tree.map(lambda array: jax.ShapeDtypeStruct(array.shape, array.dtype), batch)
    program = predictor.trace(shapes).lower().compile().as_text()
    assert mesh.size > 1
    assert not re.findall(r"all-gather|all-to-all|collective-permute|all-reduce|reduce-scatter", program)
