"""Each platform's attention equals XLA's; none of a large image holds its logits."""

from functools import partial

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental.pallas import tpu as pltpu
from jax.sharding import AxisType

from jaxad import parallel
from jaxad.nn import flash_attention
from jaxad.nn.attention import attention

TOKENS = 133
"""Odd, and no multiple of a kernel's block."""


@pytest.fixture(autouse=True)
def _kernels_for_few_keys(monkeypatch):
    """Interpreting a kernel takes long: a few tokens have to do."""
    monkeypatch.setattr(flash_attention, "LEAST_KEYS", 100)
    monkeypatch.setattr(flash_attention, "QUERIES", 48)


def arrays(dtype=jnp.float32, batch=1, tokens=TOKENS, width=8):
    return (np.random.default_rng(0).normal(size=(3, batch, tokens, 2, width)) * 2).astype(dtype)


def with_gradients(attend, q, k, v):
    """Output and gradients of a sum that weighs every element of the output differently."""
    weights = jnp.sin(jnp.arange(q.size)).reshape(q.shape)

    def total(q, k, v):
        y = attend(q, k, v)
        return (y.astype(jnp.float32) * weights).sum(), y

    return jax.jit(jax.grad(total, argnums=(0, 1, 2), has_aux=True))(q, k, v)


def test_many_keys_are_attended_to_a_few_queries_at_a_time():
    q, k, v = arrays(batch=2)
    usual = with_gradients(jax.nn.dot_product_attention, q, k, v)
    chex.assert_trees_all_close(
        with_gradients(partial(flash_attention.with_logits, causal=False), q, k, v), usual, atol=1e-4
    )


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("tokens", [77, TOKENS], ids=["few keys", "many"])
@pytest.mark.parametrize(("dtype", "tolerance"), [(jnp.float32, 1e-4), (jnp.bfloat16, 0.15)])
def test_what_is_left_to_xla_equals_the_usual_attention(dtype, tolerance, tokens, causal):
    """In 16 bits, logits and their gradients are rounded to them; sums of the softmax are not."""
    q, k, v = arrays(dtype)
    k, v = k[:, :tokens], v[:, :tokens]
    usual = partial(jax.nn.dot_product_attention, is_causal=causal)
    exact = with_gradients(usual, *(x.astype(jnp.float32) for x in (q, k, v)))
    found = with_gradients(partial(flash_attention.with_logits, causal=causal), q, k, v)
    assert {str(array.dtype) for array in jax.tree.leaves(found)} == {str(jnp.dtype(dtype))}
    as_float32 = jax.tree.map(lambda array: array.astype(jnp.float32), found)
    chex.assert_trees_all_close(as_float32, exact, atol=tolerance)


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize(("dtype", "tolerance"), [(jnp.float32, 1e-4), (jnp.bfloat16, 0.06)])
def test_the_kernel_of_tpus_equals_xla(dtype, tolerance, causal):
    q, k, v = arrays(dtype)
    exact = with_gradients(partial(flash_attention.with_logits, causal=causal), *arrays(dtype).astype(np.float32))
    with pltpu.force_tpu_interpret_mode():
        found = with_gradients(partial(flash_attention.on_tpu, causal=causal), q, k, v)
    as_float32 = jax.tree.map(lambda array: array.astype(jnp.float32), found)
    chex.assert_trees_all_close(as_float32, exact, atol=tolerance)


@pytest.mark.parametrize(("attend", "kernel"), [("on_tpu", "pallas_attention"), ("on_cuda", "cudnn_attention")])
def test_each_device_attends_within_its_own_images(monkeypatch, attend, kernel):
    """XLA stands in for the kernels, of which none can run on two devices at once here."""
    shapes = []

    def stand_in(q, k, v, *, causal):
        shapes.append(q.shape)
        return flash_attention.with_logits(q, k, v, causal=causal)

    monkeypatch.setattr(flash_attention, kernel, stand_in)
    monkeypatch.setattr(flash_attention, "_takes", lambda *_: True)
    mesh = jax.make_mesh((1, 2), ("data", "fsdp"), axis_types=(AxisType.Auto,) * 2)
    q, k, v = arrays(jnp.bfloat16, batch=4)
    expected = flash_attention.with_logits(q, k, v, causal=False)
    divided = jax.jit(parallel.on_mesh(partial(getattr(flash_attention, attend), causal=False), mesh))(
        *parallel.shard_batch((q, k, v), mesh)
    )
    chex.assert_trees_all_close(*(x.astype(jnp.float32) for x in (divided, expected)), atol=1e-5)
    assert divided.sharding.is_equivalent_to(parallel.batch_sharding(mesh), divided.ndim)
    assert {shape[0] for shape in shapes} == {2}


def lowered(platform, batch=4, tokens=TOKENS, width=32, mesh=None):
    """Training through attention as a platform gets it, as text."""
    x = jax.ShapeDtypeStruct((batch, tokens, 2 * width), jnp.bfloat16)

    def loss(x):
        return jnp.square(attention(x, x, x, 2).astype(jnp.float32)).sum()

    gradient = jax.grad(loss)
    traced = jax.jit(gradient if mesh is None else parallel.on_mesh(gradient, mesh)).trace(x)
    return traced.lower(lowering_platforms=(platform,)).as_text()


@pytest.mark.parametrize("platform", ["cpu", "cuda", "rocm", "tpu"])
def test_training_lowers_for_every_platform(platform):
    kernel = "tpu_custom_call" in lowered(platform)
    assert kernel == (platform == "tpu")


def test_training_lowers_to_the_kernels_of_gpus(monkeypatch):
    """As on a machine with cuDNN, whose version is all that JAX asks for."""
    monkeypatch.setattr("jax._src.cudnn.fused_attention_stablehlo.check_cudnn_version", lambda: 91002)
    # Of a shape that nothing else has traced.
    text = lowered("cuda", batch=6)
    assert "__cudnn$fmhaSoftmax" in text
    assert "__cudnn$fmhaSoftmaxBackward" in text
    assert "tpu_custom_call" not in text


def test_no_logits_are_computed_on_tpus():
    def products(platform, rows):
        lines = lowered(platform).splitlines()
        return [line for line in lines if "dot_general" in line and f"{rows}x{TOKENS}x" in line]

    # Three parts of 45 queries, of which there are 133.
    assert products("rocm", 45)
    assert not products("tpu", 45)
    assert not products("rocm", TOKENS)


@pytest.mark.parametrize("platform", ["cuda", "tpu"])
def test_no_matrix_product_writes_logits_in_float32(platform):
    """Nor those of their gradients: of a text's few keys, which no kernel takes here."""
    results = [line.rsplit("->", 1)[1] for line in lowered(platform, tokens=63).splitlines() if "dot_general" in line]
    logits = [shape for shape in results if "63x63x" in shape]
    assert len(logits) == 2
    assert all("63x63xbf16" in shape for shape in logits)


@pytest.mark.parametrize("shape", [{"tokens": 77}, {"width": 160}], ids=["few keys", "wide heads"])
def test_what_the_kernel_does_not_pay_for_is_left_to_the_compiler(shape):
    assert "tpu_custom_call" not in lowered("tpu", **shape)


def test_images_that_do_not_divide_over_the_devices_are_left_to_the_compiler(monkeypatch):
    mesh = jax.make_mesh((1, 2), ("data", "fsdp"), axis_types=(AxisType.Auto,) * 2)
    assert "tpu_custom_call" in lowered("tpu", batch=4, mesh=mesh)
    assert "tpu_custom_call" not in lowered("tpu", batch=3, mesh=mesh)
    # Of a shape that nothing else has traced.
    monkeypatch.setattr(flash_attention, "cudnn_attention", lambda *_, **__: pytest.fail("asks for cuDNN's kernel"))
    monkeypatch.setattr(flash_attention, "_takes", lambda *_: True)
    assert "dot_general" in lowered("cuda", batch=5, mesh=mesh)


def test_the_kernel_of_gpus_is_asked_for_where_it_runs(monkeypatch):
    """cuDNN itself cannot run here: its call is recorded, and XLA answers in its place."""
    calls = []

    def answered(q, k, v, *, implementation, **options):
        calls.append((implementation, q.shape[1], "query_seq_lengths" not in options))
        return real(q, k, v, **options)

    real = jax.nn.dot_product_attention
    monkeypatch.setattr(jax.nn, "dot_product_attention", answered)
    for tokens, padded in ((TOKENS, TOKENS + 1), (134, 134)):
        q, k, v = arrays(jnp.bfloat16, tokens=tokens)
        expected = real(*(x.astype(jnp.float32) for x in (q, k, v)))
        found = flash_attention.on_cuda(q, k, v, causal=False)
        chex.assert_trees_all_close(found.astype(jnp.float32), expected, atol=0.06)
        assert calls[-1] == ("cudnn", padded, tokens == padded)
    calls.clear()
    flash_attention.on_cuda(*arrays(jnp.float32), causal=False)
    flash_attention.on_cuda(*arrays(jnp.bfloat16, tokens=63), causal=False)
    # A Hopper GPU that happens to be here takes these; what is compiled must not depend on it.
    flash_attention.on_cuda(*arrays(jnp.bfloat16, width=160), causal=False)
    assert not calls
    # The tokens of a text.
    q, k, v = arrays(jnp.bfloat16)
    assert flash_attention.on_cuda(q, k[:, :77], v[:, :77], causal=False).shape == q.shape
    assert set(calls) == {("cudnn", TOKENS + 1, False)}


def test_gpus_before_ampere_have_no_such_kernel(monkeypatch):
    class Gpu:
        compute_capability = "7.5"
        device_kind = jax.devices()[0].device_kind

    monkeypatch.setattr(jax, "local_devices", lambda backend: [Gpu()])
    mesh = parallel.make_mesh().abstract_mesh
    assert not flash_attention._gpus_are_new_enough()
    with jax.sharding.use_abstract_mesh(mesh):
        assert not flash_attention._gpus_are_new_enough()
    # Compiled for others, as `jaxad bench --topology` does.
    Gpu.device_kind = "Tesla T4"
    with jax.sharding.use_abstract_mesh(mesh):
        assert flash_attention._gpus_are_new_enough()
