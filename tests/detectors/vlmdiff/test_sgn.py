"""The SGN on a small random Stable Diffusion, and its shape at full size."""

import dataclasses
import itertools
import math
from functools import partial

import jax
import numpy as np
import pytest

from jaxad.detectors.vlmdiff.sgn import Fusion, abstract_sgn, controlled_noise, make_sgn
from jaxad.errors import ConfigError
from jaxad.models.stable_diffusion.config import UNetConfig
from jaxad.models.stable_diffusion.unet import abstract_unet
from jaxad.nn import module_state
from tests.models.stable_diffusion.made_checkpoints import UNET, randomized


@pytest.fixture(scope="module")
def unet():
    return randomized(abstract_unet(UNET))


@pytest.fixture(scope="module")
def compiled(unet):
    """(arrays of the SGN, latents, image) -> what it adds, and the noise without and with it."""
    unet_def, unet_arrays = module_state.split(unet)
    sgn_def, _ = module_state.split(make_sgn(unet, 2, jax.random.key(0)))
    generator = np.random.default_rng(0)
    t, text = np.array([1, 801]), generator.normal(size=(2, 5, 12)).astype(np.float32)

    @jax.jit
    def run(arrays, latents, image):
        unet, sgn = module_state.merge(unet_def, unet_arrays), module_state.merge(sgn_def, arrays)
        hint = sgn.hint(image)
        added = sgn(latents, t, text, hint)
        return added, unet(latents, t, text)[0], controlled_noise(unet, sgn, latents, t, text, hint)

    latents = generator.normal(size=(2, 4, 6, 4)).astype(np.float32)
    image = generator.normal(size=(2, 8, 12, 3)).astype(np.float32)
    return run, latents, image


def test_at_first_exactly_nothing_is_added_to_what_the_unet_computes(unet, compiled):
    run, latents, image = compiled
    arrays = module_state.split(make_sgn(unet, 2, jax.random.key(0)))[1]
    (middle, controls), without, controlled = run(arrays, latents, image)
    assert [control.shape for control in controls] == [(2, 2, 3, 8), (2, 2, 3, 16)]
    assert not any(np.any(array) for array in (middle, *controls))
    # Equal but for the rounding of two programs that the compiler fuses differently.
    np.testing.assert_allclose(controlled, without, atol=2e-6)


def test_once_all_weights_have_moved_the_image_speaks(unet, compiled):
    run, latents, image = compiled
    start = module_state.split(make_sgn(unet, 2, jax.random.key(0)))[1]
    generator = np.random.default_rng(1)
    arrays = {
        path: array + 0.1 * generator.normal(size=array.shape).astype(np.float32) for path, array in start.items()
    }
    (middle, controls), without, first = run(arrays, latents, image)
    assert all(np.abs(array).mean() > 0.01 for array in (middle, *controls))
    assert np.abs(first - without).max() > 0.1
    assert np.abs(first - run(arrays, latents, image + 1)[2]).max() > 1e-3


def moved(start, where):
    """All arrays of an SGN, those by random steps for whose paths `where` says so."""
    generator = np.random.default_rng(1)
    steps = {path: 0.3 * generator.normal(size=array.shape).astype(np.float32) for path, array in start.items()}
    return {path: array + steps[path] if where(path) else array for path, array in start.items()}


LAST = ("zero_convs/", "middle_zero_conv/")


def test_only_through_its_zero_convolutions_does_it_reach_the_unet(unet, compiled):
    """Not by its hint, nor by the time embedding that it learns beside the UNet's."""
    run, latents, image = compiled
    start = module_state.split(make_sgn(unet, 2, jax.random.key(0)))[1]
    _, without, controlled = run(moved(start, lambda path: not path.startswith(LAST)), latents, image)
    np.testing.assert_allclose(controlled, without, atol=2e-6)
    for own in LAST:
        _, without, controlled = run(moved(start, lambda path, own=own: path.startswith(own)), latents, image)
        assert np.abs(controlled - without).max() > 0.01, own


def test_fusion_is_the_published_sum_of_normalized_halves():
    """With kernels of their center alone, a convolution of stride 2 takes every second pixel."""
    generator = np.random.default_rng(0)
    fusion = module_state.abstract(lambda rngs: Fusion([2, 3], [4, 4], dtype=np.float32, rngs=rngs))
    graphdef, arrays = module_state.split(fusion)
    centers = {path: generator.normal(size=array.shape[2:]).astype(np.float32) for path, array in arrays.items()}
    kernels = {path: np.pad(center[None, None], ((1, 1), (1, 1), (0, 0), (0, 0))) for path, center in centers.items()}
    above = [generator.normal(size=(2, 6, 4, width)).astype(np.float32) for width in (2, 3)]
    lowest = [generator.normal(size=(2, 3, 2, 4)).astype(np.float32) for _ in range(2)]
    found = jax.jit(lambda kernels, *given: module_state.merge(graphdef, kernels)(*given))(kernels, above, lowest)

    def silu(x):
        return x / (1 + np.exp(-x))

    for number, y in enumerate(lowest):
        for source, x in enumerate(above):
            halved = x[:, ::2, ::2] @ centers[f"convs/{number}/{source}/kernel"]
            halved = halved - halved.mean((1, 2), keepdims=True)
            y = y + silu(halved / np.sqrt(np.square(halved).mean((1, 2), keepdims=True) + 1e-5))
        np.testing.assert_allclose(found[number], silu(y), atol=1e-5)


def test_the_level_above_the_lowest_is_fused_with_it():
    """Of three levels: the widths of the others do not fit."""
    config = dataclasses.replace(
        UNET,
        block_out_channels=(8, 16, 32),
        down_attention=(True, False, False),
        up_attention=(False, False, True),
        heads=(2, 2, 2),
    )
    graphdef, arrays = module_state.split(abstract_sgn(config, 2))
    shapes = ((1, 8, 8, 4), (1,), (1, 5, config.cross_attention_dim), (1, 8, 8, 8))
    given = [jax.ShapeDtypeStruct(shape, np.float32) for shape in shapes]
    run = partial(jax.eval_shape, lambda arrays, *given: module_state.merge(graphdef, arrays)(*given))
    middle, controls = run(arrays, *given)
    assert [middle.shape, *(control.shape for control in controls)] == [(1, 2, 2, 32), (1, 2, 2, 16), (1, 2, 2, 32)]


def test_only_the_hint_encoder_is_drawn(unet):
    first, second = (module_state.split(make_sgn(unet, 2, jax.random.key(seed)))[1] for seed in (0, 1))
    differing = {path.rsplit("/", 2)[0] for path in first if not np.array_equal(first[path], second[path])}
    assert differing == {"hint/convs"}
    pretrained = module_state.split(unet)[1]
    for path, array in first.items():
        if path.startswith("trunk/"):
            np.testing.assert_array_equal(array, pretrained[path.removeprefix("trunk/")])
        elif not path.startswith("hint/convs/"):
            assert not np.any(array), path
    assert np.abs(first["hint/convs/0/kernel"]).max() <= 27**-0.5


def test_at_full_size_it_has_the_published_parameters():
    """Trunk of SD 1.5, 8 hint convolutions, 13 zero convolutions, 9 of the fusion."""
    arrays = module_state.split(abstract_sgn(UNetConfig.sd15(), 8))[1]
    shapes = {path: array.shape for path, array in arrays.items()}
    hint = [shapes[f"hint/convs/{index}/kernel"][2:] for index in range(7)] + [shapes["hint/zero_conv/kernel"][2:]]
    widths = (3, 16, 16, 32, 32, 96, 96, 256, 320)
    assert hint == list(itertools.pairwise(widths))
    zero_convs = [shapes[f"zero_convs/{index}/kernel"][0] for index in range(12)]
    assert zero_convs == [320] * 4 + [640] * 3 + [1280] * 5
    assert shapes["middle_zero_conv/kernel"] == (1280, 1280)
    fusion = sorted(shape for path, shape in shapes.items() if path.startswith("fusion/"))
    assert fusion == [(3, 3, 640, 1280)] * 3 + [(3, 3, 1280, 1280)] * 6
    trunk = sum(math.prod(shape) for path, shape in shapes.items() if path.startswith("trunk/"))
    assert trunk == 348_712_960


def test_a_factor_without_hint_encoder_is_named():
    for factor in (3, 16):
        with pytest.raises(ConfigError, match=f"factor {factor}"):
            abstract_sgn(UNET, factor)
