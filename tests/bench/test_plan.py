"""Plans: how they are made, the largest batch that fits, what is too large for its compiler, devices at hand."""

import dataclasses
import math

import jax
import jax.numpy as jnp
import pytest

from jaxad.bench import _topologies
from jaxad.bench._measured import planned_gb
from jaxad.bench._plan import SECONDS, largest_batch, plan, table
from jaxad.bench._topologies import Chip, find_topology

REFUSED = (
    "RESOURCE_EXHAUSTED: XLA:TPU compile permanent error. Ran out of memory in memory space hbm. Used 25.50G of 15.75G "
    "hbm. Exceeded hbm capacity by 9.75G."
)


@pytest.mark.parametrize(
    ("gb", "most"),
    [
        (lambda images: 1.5 + 0.25 * images, 304),
        (lambda images: 1.5 + 0.25 * images + (images > 160) * 20, 224),
        (lambda images: 1.0 if images <= 40 else math.inf, 40),
        (lambda images: 0.9 * images**1.1, 56),
        (lambda images: 78.0 + images, 0),
        (lambda images: math.inf, 0),
    ],
    ids=["line", "jump", "refused", "curve", "none", "never"],
)
def test_the_largest_batch_is_the_last_that_fits(gb, most):
    tried = []

    def told(images):
        tried.append(images)
        return gb(images)

    assert largest_batch(told, 78.0, 8) == most
    assert len(tried) == len(set(tried)) <= 8
    assert all(images % 8 == 0 for images in tried)


def test_a_line_is_followed_in_few_compilations():
    tried = []
    largest_batch(lambda images: tried.append(images) or 2.0 + 0.2 * images, 76.0, 16)
    assert len(tried) <= 4


@pytest.fixture
def card(monkeypatch):
    """A card whose name is that of the devices of this machine."""
    chip = Chip(jax.devices()[0].device_kind, "cuda", memory_gb=1, peak_tflops=0.01, bandwidth_gbs=100)
    monkeypatch.setitem(_topologies.CHIPS, "h100", chip)
    return find_topology("h100:1")


def test_where_the_devices_are_the_program_is_timed_too(card, monkeypatch):
    monkeypatch.setattr("jaxad.bench._plan.SECONDS", 0.01)
    assert SECONDS > 0.01
    ran = []
    traced = jax.jit(lambda a: a @ a).trace(jax.ShapeDtypeStruct((64, 64), jnp.float32))
    row = plan(traced, card, images=3, prepare=lambda: lambda: ran.append(1))
    assert card.present
    assert row["measured"]["runs"] == len(ran) - 1
    seconds = row["measured"]["ms"]["p50"] / 1e3
    assert row["measured"]["mfu"] == pytest.approx(2 * 64**3 / seconds / 1e10)
    assert "ms measured" in table([{"program": "product", "batch_size": 3, **row}])


def test_float32_has_the_rate_of_tf32_and_no_time_where_the_data_sheet_has_none(card, monkeypatch):
    traced = jax.jit(lambda a: a @ a).trace(jax.ShapeDtypeStruct((256, 256), jnp.float32))
    absent = dataclasses.replace(card, present=False)

    def least(dtype, tf32):
        topology = dataclasses.replace(absent, chip=dataclasses.replace(card.chip, tf32_tflops=tf32))
        monkeypatch.setattr(_topologies.Topology, "compile", lambda _, traced: traced.lower().compile())
        return plan(traced, topology, images=1, prepare=lambda: lambda: None, dtype=dtype)

    seconds = 2 * 256**3 / 1e10
    low, half, untold = least("bfloat16", None), least("float32", 0.005), least("float32", None)
    assert (low["roofline_ms"], half["roofline_ms"]) == pytest.approx((1e3 * seconds, 2e3 * seconds))
    assert half["images_per_second"] == pytest.approx(1 / (2 * seconds))
    assert [untold[name] for name in ("roofline_ms", "bound", "images_per_second")] == [None] * 3
    lines = table([{"program": name, "batch_size": 1, **row} for name, row in (("a", half), ("b", untold))])
    assert len({line.count("|") for line in lines.splitlines()}) == 1


def test_what_does_not_fit_is_not_run(card, monkeypatch):
    monkeypatch.setattr("jaxad.bench._plan.SHARE", 1e-9)
    traced = jax.jit(lambda a: a @ a).trace(jax.ShapeDtypeStruct((64, 64), jnp.float32))
    row = plan(traced, card, images=1, prepare=lambda: pytest.fail("placed its arrays"))
    assert not row["fits"]
    assert "measured" not in row


def test_rows_that_were_refused_stand_in_the_table(card, monkeypatch):
    def refuse(*_):
        raise jax.errors.JaxRuntimeError(REFUSED)

    traced = jax.jit(lambda a: a + a).trace(jax.ShapeDtypeStruct((4,), jnp.float32))
    whole = plan(traced, card, images=1, prepare=lambda: lambda: None)
    monkeypatch.setattr(_topologies.Topology, "compile", refuse)
    refused = plan(traced, card, images=1, prepare=lambda: lambda: None)
    assert (refused["fits"], refused["device"]) == (False, card.chip.name)
    lines = table([{"program": name, "batch_size": 1, **row} for name, row in (("a", whole), ("b", refused))])
    assert "| 27.4 |  | no |" in lines
    assert len({line.count("|") for line in lines.splitlines()}) == 1


def test_other_errors_of_a_compiler_are_raised(card, monkeypatch):
    def fail(*_):
        raise jax.errors.JaxRuntimeError("INTERNAL: a bug")

    monkeypatch.setattr(_topologies.Topology, "compile", fail)
    traced = jax.jit(lambda a: a + a).trace(jax.ShapeDtypeStruct((4,), jnp.float32))
    with pytest.raises(jax.errors.JaxRuntimeError, match="INTERNAL"):
        plan(traced, card, images=1, prepare=lambda: lambda: None)


def test_the_plan_of_memory_counts_what_is_donated_once():
    array = jax.ShapeDtypeStruct((1000,), jnp.float32)
    gb = planned_gb(jax.jit(lambda a, b: a * b, donate_argnums=0).lower(array, array).compile())
    assert gb["arguments"] == pytest.approx(8000 / 1e9)
    assert gb["results"] == 0
    assert gb["total"] == gb["arguments"] + gb["temporaries"]
    assert gb["arguments"] <= gb["peak"] <= gb["total"]
