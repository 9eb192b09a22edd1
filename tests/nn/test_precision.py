import re

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from jaxad import parallel
from jaxad.models.clip import towers as clip_towers
from jaxad.models.clip.config import TextConfig
from jaxad.models.clip.towers import TextTower
from jaxad.models.vit import network as vit_network
from jaxad.models.vit.config import ViTConfig
from jaxad.nn import module_state, precision
from jaxad.nn.precision import Conv, Linear, compute_dtype, product, with_rounded_parameters


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_named_types_are_taken_as_they_are(precision):
    assert compute_dtype(precision) == precision


@pytest.mark.parametrize(("dtype", "tolerance"), [(jnp.float32, 1e-5), (jnp.bfloat16, 0.03)])
@pytest.mark.parametrize("use_bias", [True, False])
def test_products_come_out_in_float32_with_their_gradients(dtype, tolerance, use_bias):
    layer = Linear(32, 8, use_bias=use_bias, dtype=dtype, rngs=nnx.Rngs(0))
    exact = nnx.Linear(32, 8, use_bias=use_bias, rngs=nnx.Rngs(0))
    x = np.random.default_rng(0).normal(size=(3, 5, 32)).astype(np.float32)

    def loss(module, x):
        return jnp.square(module(x)).mean()

    chex.assert_type(layer(x), jnp.float32)
    chex.assert_shape(layer(x), (3, 5, 8))
    chex.assert_trees_all_close(layer(x), exact(x), atol=3 * tolerance)
    graph, state = nnx.split(layer)
    exact_graph, exact_state = nnx.split(exact)
    actual = jax.grad(lambda state: loss(nnx.merge(graph, state), x))(state)
    expected = jax.grad(lambda state: loss(nnx.merge(exact_graph, state), x))(exact_state)
    chex.assert_type(actual["kernel"].get_value(), jnp.float32)
    chex.assert_trees_all_close(actual["kernel"].get_value(), expected["kernel"].get_value(), atol=tolerance)


@pytest.mark.parametrize("rounded", [False, True])
def test_the_output_is_of_the_compute_type_where_asked(rounded):
    layer = Linear(32, 8, rounded=rounded, dtype=jnp.bfloat16, rngs=nnx.Rngs(0))
    exact = nnx.Linear(32, 8, rngs=nnx.Rngs(0))
    x = np.random.default_rng(0).normal(size=(3, 5, 32)).astype(np.float32)
    y, pull = jax.vjp(layer, x)
    chex.assert_type(y, jnp.bfloat16 if rounded else jnp.float32)
    chex.assert_trees_all_close(y.astype(jnp.float32), exact(x), atol=0.05)
    chex.assert_type(pull(y)[0], jnp.float32)


@pytest.mark.parametrize(("dtype", "tolerance"), [(jnp.float32, 1e-5), (jnp.bfloat16, 0.06)])
@pytest.mark.parametrize("output", [jnp.float32, jnp.bfloat16])
def test_products_of_stacks_run_in_their_type_backwards_too(dtype, tolerance, output):
    noise = np.random.default_rng(0)
    x, y = noise.normal(size=(2, 5, 8)).astype(np.float32), noise.normal(size=(2, 8, 3)).astype(np.float32)
    weights = noise.normal(size=(2, 5, 3)).astype(np.float32)
    exact, exact_pull = jax.vjp(jnp.matmul, x, y)
    found, pull = jax.vjp(lambda x, y: product(x, y, dtype, output), x, y)
    chex.assert_type(found, output)
    found, gradients = found.astype(jnp.float32), pull(weights.astype(output))
    tolerance = tolerance if output == jnp.float32 else 0.06
    chex.assert_trees_all_close((found, gradients), (exact, exact_pull(weights)), atol=tolerance)
    program = jax.make_jaxpr(pull)(weights.astype(output)).jaxpr
    operands = [var.aval.dtype for eqn in program.eqns if eqn.primitive.name == "dot_general" for var in eqn.invars]
    assert operands == [jnp.dtype(dtype)] * 4


@pytest.mark.parametrize(("platform", "written"), [("cpu", jnp.float32), ("tpu", jnp.bfloat16), ("cuda", jnp.bfloat16)])
def test_products_write_16_bits_themselves_but_on_cpus(monkeypatch, platform, written):
    monkeypatch.setattr(precision, "target_platform", lambda: platform)
    x, kernel = jnp.ones((64, 32), jnp.bfloat16), jnp.ones((32, 16), jnp.bfloat16)

    def forwards(x):
        return product(x, kernel, jnp.bfloat16, jnp.bfloat16)

    def backwards(x):
        return jax.grad(lambda x: forwards(x).astype(jnp.float32).sum())(x)

    for function in (forwards, backwards):
        text = str(jax.make_jaxpr(function)(x))
        assert f"preferred_element_type={jnp.dtype(written)}" in text
        chex.assert_type(function(x), jnp.bfloat16)
    chex.assert_trees_all_equal(forwards(x), jnp.full((64, 16), 32, jnp.bfloat16))


@pytest.mark.parametrize("platform", ["cpu", "tpu"])
def test_layers_of_towers_and_backbones_multiply_as_products_do(monkeypatch, platform):
    """On CPUs in float32 outputs, which their matrix units write; all layers' outputs are rounded."""
    monkeypatch.setattr(precision, "target_platform", lambda: platform)
    low, x = {"dtype": jnp.bfloat16, "rngs": nnx.Rngs(0)}, jnp.ones((2, 5, 32), jnp.bfloat16)
    shape = {"width": 32, "depth": 1, "heads": 2, "hidden": 64}
    for block in (
        vit_network.Block(ViTConfig(patch=14, **shape), **low),
        clip_towers.Block(TextConfig(projection=16, vocabulary=40, context=7, **shape), causal=False, **low),
    ):
        assert block(x).dtype == jnp.bfloat16
        text = str(jax.make_jaxpr(block)(x))
        products = [eqn for eqn in re.findall(r"dot_general\[.*?\]\s+\w+ \w+", text, re.DOTALL) if "(([2], [0])" in eqn]
        assert len(products) == 6
        written = "float32" if platform == "cpu" else "bfloat16"
        assert all(f"preferred_element_type={written}" in eqn for eqn in products)


def test_gradients_have_the_types_of_what_they_are_of():
    """`jax.checkpoint` and networks whose parameters are kept in 16 bits need it."""
    layer = Linear(32, 8, dtype=jnp.bfloat16, param_dtype=jnp.bfloat16, rngs=nnx.Rngs(0))
    graph, state = nnx.split(layer)
    x = jnp.ones((3, 32), jnp.bfloat16)
    run = jax.checkpoint(lambda state, x: nnx.merge(graph, state)(x).sum())
    to_state, to_x = jax.grad(run, argnums=(0, 1))(state, x)
    chex.assert_type([to_x, *jax.tree.leaves(to_state)], jnp.bfloat16)


@pytest.mark.parametrize(("dtype", "tolerance"), [(jnp.float32, 1e-5), (jnp.bfloat16, 0.05)])
@pytest.mark.parametrize("options", [{}, {"strides": 2, "padding": 1}, {"strides": 2, "padding": [(0, 1), (0, 1)]}])
def test_convolutions_and_their_gradients_equal_those_of_flax(dtype, tolerance, options):
    layer = Conv(6, 4, (3, 3), dtype=dtype, rngs=nnx.Rngs(0), **options)
    exact = nnx.Conv(6, 4, (3, 3), rngs=nnx.Rngs(0), **options)
    x = np.random.default_rng(0).normal(size=(2, 7, 8, 6)).astype(np.float32)

    def run(module):
        graph, state = nnx.split(module)
        run = jax.checkpoint(lambda state, x: nnx.merge(graph, state)(x).astype(jnp.float32))
        y = run(state, x)
        weights = jnp.sin(jnp.arange(y.size)).reshape(y.shape)
        return y, jax.grad(lambda *given: (run(*given) * weights).sum(), argnums=(0, 1))(state, x)

    chex.assert_type(layer(x), dtype)
    expected = run(exact)
    chex.assert_trees_all_close(
        jax.tree.leaves(run(layer)), jax.tree.leaves(expected), atol=tolerance * 10, rtol=tolerance
    )


def test_the_gradient_of_a_16_bit_convolution_is_summed_in_float32():
    """4,096 equal terms: in bfloat16 their sum would stand still at 256."""
    layer = Conv(1, 1, (1, 1), dtype=jnp.bfloat16, use_bias=False, rngs=nnx.Rngs(0))
    graph, state = nnx.split(layer)
    gradient = jax.grad(lambda state: nnx.merge(graph, state)(jnp.ones((1, 64, 64, 1))).sum())(state)
    assert gradient["kernel"].get_value().item() == 4096


def test_kernels_are_whole_on_every_device_and_gradients_divided_again():
    mesh = parallel.make_mesh(2, jax.devices()[:2])
    layer = Linear(128, 128, rngs=nnx.Rngs(0))
    graph, state = nnx.split(layer)
    state, x = parallel.shard_parameters(state, mesh), parallel.shard_batch(np.ones((4, 128), np.float32), mesh)
    shardings = jax.tree.map(lambda array: array.sharding, state)

    def gradient(state, x):
        return jax.grad(lambda state: jnp.square(nnx.merge(graph, state)(x)).sum())(state)

    compiled = jax.jit(parallel.on_mesh(gradient, mesh), out_shardings=shardings).lower(state, x).compile()
    text = compiled.as_text()
    assert "all-gather" in text
    assert "all-to-all" not in text
    chex.assert_trees_all_close(compiled(state, x), jax.jit(gradient)(*jax.device_get((state, x))), rtol=1e-5)


def test_networks_name_what_they_round_besides_kernels_of_layers():
    """Their outputs stay the same, bit for bit: what is named is read in no other type."""
    low, rngs = {"dtype": jnp.bfloat16, "rngs": nnx.Rngs(0)}, np.random.default_rng(0)
    images = rngs.normal(size=(2, 28, 28, 3)).astype(np.float32)
    text = TextConfig(width=32, depth=1, heads=2, hidden=64, projection=16, vocabulary=40, context=7)
    for net, inputs, named in (
        (TextTower(text, **low), rngs.integers(0, 40, (2, 7), dtype=np.int32), "positions"),
        (clip_towers.PatchEmbed(14, 32, **low), images, "kernel"),
        (vit_network.PatchEmbed(ViTConfig(width=32, depth=1, heads=2, patch=14), **low), images, "kernel"),
    ):
        graph, arrays = module_state.split(net)
        rounded = with_rounded_parameters(net, arrays)
        assert rounded[named].dtype == jnp.bfloat16
        y = net(inputs)
        chex.assert_trees_all_equal(module_state.merge(graph, rounded)(inputs), y)
        assert jax.tree.leaves(y)[0].dtype == jnp.bfloat16


def test_parameters_are_rounded_once_where_nothing_trains():
    class Places(nnx.Module):
        ROUNDED = ("table",)

        def __init__(self, dtype):
            self.dtype = dtype
            self.table, self.other = (nnx.Param(jnp.full((1, 1, 1, 8), 1 / 3)) for _ in range(2))

        def __call__(self, x):
            return x + self.table[...].astype(self.dtype) + self.other[...]

    class Net(nnx.Module):
        def __init__(self, rngs):
            self.norm = nnx.LayerNorm(8, dtype=jnp.bfloat16, rngs=rngs)
            self.places, self.wide = Places(jnp.bfloat16), Places(jnp.float32)
            self.layers = nnx.List([nnx.Linear(8, 8, dtype=jnp.bfloat16, rngs=rngs), nnx.Linear(8, 8, rngs=rngs)])
            self.conv = Conv(8, 4, (3, 3), dtype=jnp.bfloat16, rngs=rngs)

        def __call__(self, x):
            return self.conv(self.layers[1](self.layers[0](self.wide(self.places(self.norm(x))))))

    net = Net(nnx.Rngs(0))
    graph, arrays = module_state.split(net)
    rounded = with_rounded_parameters(net, arrays)
    low = {path for path in arrays if rounded[path].dtype == jnp.bfloat16}
    assert low == {"layers/0/kernel", "conv/kernel", "places/table"}
    x = np.random.default_rng(0).normal(size=(2, 4, 4, 8)).astype(np.float32)
    chex.assert_trees_all_equal(module_state.merge(graph, rounded)(x), net(x))
    shapes = {path: jax.ShapeDtypeStruct(array.shape, array.dtype) for path, array in arrays.items()}
    chex.assert_trees_all_equal_dtypes(with_rounded_parameters(net, shapes), rounded)
    assert with_rounded_parameters(net, {"conv/kernel": arrays["conv/kernel"]}).keys() == {"conv/kernel"}
