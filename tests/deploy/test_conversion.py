"""Operations of JAX as ONNX, noise among them, against JAX itself."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import onnxruntime

from jaxad.deploy.onnx_conversion import to_onnx
from jaxad.deploy.program import Input


def operations(pixels, seed, place):
    key = jax.vmap(lambda seed: jax.random.fold_in(jax.random.key(0), seed))(seed[None])
    keys = jax.vmap(lambda key: jax.random.split(key, 3))(key)
    noise = jax.vmap(lambda key: jax.random.normal(key, (5, 7)))(keys[:, 1])
    x = jnp.asarray(pixels, jnp.float32)
    least = jnp.take_along_axis(x, jnp.argmin(x, axis=1, keepdims=True), axis=1)
    padded = jnp.pad(x, ((1, 0), (0, 2)))[:, 1:]
    return noise, x.T @ x, least, padded, jnp.roll(x, 1, 0), jax.lax.top_k(x, 2)[0], x[place], *beyond(x, place)


def beyond(x, place):
    """What JAX makes of indices that are not there."""
    own = (jnp.take(x, place + 2, axis=0, mode=mode) for mode in ("fill", "clip"))
    numbers = jnp.take(x.astype(jnp.int32), jnp.stack([place, place + 2]), axis=0, mode="fill")
    constant = jnp.take(x, np.array([1, 9]), axis=1, mode="fill", fill_value=-3.0)
    return *own, numbers.astype(jnp.float32), constant


def test_each_image_gets_what_jax_gives_and_noise_is_that_of_its_seed():
    inputs = [Input("pixels", "uint8", (4, 6)), Input("seed", "uint32", ()), Input("place", "int32", ())]
    model = to_onnx(operations, inputs, names := tuple("abcdefghijk"))
    pixels = np.random.default_rng(0).integers(0, 256, (2, 4, 6), np.uint8)
    seeds, places = np.array([4_000_000_001, 7], np.uint32), np.array([3, 0], np.int32)
    session = onnxruntime.InferenceSession(model.SerializeToString())
    found = session.run(names, {"pixels": pixels, "seed": seeds, "place": places})
    for one, wanted in zip(found, jax.vmap(operations)(pixels, seeds, places), strict=True):
        np.testing.assert_allclose(one, wanted, atol=1e-6)
    assert np.abs(found[0][0] - found[0][1]).max() > 1
