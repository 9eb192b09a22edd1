import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxad.errors import ConfigError
from jaxad.models.clip.config import CLIPConfig, TextConfig
from jaxad.models.clip.dense import text_relevance, value_patches, window_embeddings
from jaxad.models.clip.loading import load_clip
from jaxad.models.clip.towers import abstract_clip, abstract_text_tower, abstract_vision_tower
from jaxad.models.weights.loader import find_weights
from jaxad.nn import module_state
from jaxad.nn.positions import resize_matrix
from tests.models.clip.made_checkpoints import (
    CONTEXT,
    DEPTH,
    HUGGINGFACE_CONFIG,
    PATCH,
    SIDE,
    VOCABULARY,
    draw_clip,
    relevance_forward,
    text_forward,
    value_forward,
    vision_forward,
    window_forward,
    write,
)

GRID = (2, 5)
IMAGES = np.random.default_rng(1).normal(size=(2, GRID[0] * PATCH, GRID[1] * PATCH, 3))
IDS = np.random.default_rng(2).integers(1, VOCABULARY - 1, (3, CONTEXT))
ENDS = (4, 7, CONTEXT - 1)
for row, end in zip(IDS, ENDS, strict=True):
    row[end] = VOCABULARY - 1
    row[end + 1 :] = 0


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    return find_weights(write(tmp_path_factory.mktemp("clip"), draw_clip(), HUGGINGFACE_CONFIG))


@pytest.fixture(scope="module")
def model(weights):
    return load_clip(weights)


def run(module, *inputs, **options):
    """The module as one compiled program, as it is always used."""
    graphdef, arrays = module_state.split(module)
    with jax.default_matmul_precision("highest"):
        call = jax.jit(lambda arrays, *inputs: module_state.merge(graphdef, arrays)(*inputs, **options))
        return call(arrays, *inputs)


def error(actual, expected):
    return np.abs(np.asarray(actual) - expected).max() / np.sqrt(np.mean(expected**2))


def expected_positions():
    rows, columns = (resize_matrix(SIDE, new, "bicubic") for new in GRID)
    square = draw_clip()["vision_model.embeddings.position_embedding.weight"][1:].reshape(SIDE, SIDE, -1)
    return np.einsum("hy,wx,yxc->hwc", rows, columns, square).reshape(GRID[0] * GRID[1], -1)


@pytest.fixture(scope="module")
def one_path(model):
    return run(model.vision, IMAGES, taps=(0, 1, 2))


@pytest.fixture(scope="module")
def two_paths(model):
    """Outputs with a second path through the last two of three blocks, tapped on it."""
    return run(model.vision, IMAGES, taps=(0, 1, 2), vv_blocks=2, tapped_path="vv")


@pytest.fixture(scope="module")
def read(model):
    return run(model.text, IDS)


@pytest.mark.parametrize("vv_blocks", [0, 2])
def test_vision_tower_equals_numpy_reference(one_path, two_paths, vv_blocks):
    expected = vision_forward(draw_clip(), IMAGES, expected_positions(), vv_blocks)
    actual = two_paths if vv_blocks else one_path
    for name in ("tokens", "pooled", "embedding", "patches"):
        assert error(getattr(actual, name), expected[name]) < 1e-5, name
    for block, tap in actual.taps.items():
        assert error(tap, expected[f"{'x' if vv_blocks else 'o'}{block}"]) < 1e-5, block
    assert list(actual.taps) == [0, 1, 2]


def test_second_path_changes_patches_only(one_path, two_paths):
    np.testing.assert_allclose(two_paths.taps[0], one_path.taps[0], atol=1e-5)
    np.testing.assert_allclose(two_paths.pooled, one_path.pooled, atol=1e-5)
    np.testing.assert_allclose(two_paths.tokens[:, 0], one_path.tokens[:, 0], atol=1e-5)
    assert np.abs(two_paths.taps[1] - one_path.taps[1]).max() > 0.1
    assert np.abs(two_paths.patches - one_path.patches).max() > 0.1


def test_text_tower_equals_numpy_reference(model, read):
    *_, penultimate, expected = text_forward(draw_clip(), IDS)
    assert error(read.hidden, expected) < 1e-5
    assert error(read.pooled, expected[range(3), ENDS]) < 1e-5
    assert error(read.embedding, expected[range(3), ENDS] @ draw_clip()["text_projection.weight"].T) < 1e-5
    assert error(run(model.text, IDS, skip=1).hidden, penultimate) < 1e-5


def test_tokens_see_none_that_follow(model, read):
    changed = IDS.copy()
    changed[:, 5:] = 3
    other = run(model.text, changed).hidden
    np.testing.assert_array_equal(read.hidden[:, :5], other[:, :5])
    assert np.abs(read.hidden[:, 5:] - other[:, 5:]).max() > 0.1


@pytest.mark.parametrize(
    ("pool", "places"), [("largest", (2, 2, 0)), ("end", (1, 3, 0)), ("last", (3, 3, 3))], ids=lambda value: str(value)
)
def test_places_that_stand_for_texts(pool, places):
    """The first of several equal ids; the first place where the end is missing, as transformers has it."""
    tower = abstract_text_tower(TextConfig(8, 1, 1, 8, vocabulary=10, context=4, pool=pool, end=7))
    ids = np.array([[1, 7, 9, 9], [1, 5, 9, 7], [8, 1, 1, 1]])
    np.testing.assert_array_equal(tower._places(ids), places)


def test_scale_is_the_exponential(model):
    np.testing.assert_allclose(model.scale(), np.exp(3.0), rtol=1e-6)


def test_bfloat16_computes_in_bfloat16_with_float32_parameters(weights, two_paths, read):
    low = load_clip(weights, jnp.bfloat16)
    assert {array.dtype for array in module_state.split(low)[1].values()} == {np.dtype("float32")}
    vision, text = run(low.vision, IMAGES, vv_blocks=2), run(low.text, IDS)
    pairs = [(vision.patches, two_paths.patches), (text.embedding, read.embedding)]
    for actual, exact in pairs:
        assert actual.dtype == jnp.bfloat16
        assert 1e-4 < error(actual.astype(jnp.float32), np.asarray(exact)) < 0.1


def test_tower_without_first_norm_or_class_token():
    """The parts in which CLIPA differs (open_clip's ViT-L-14-CLIPA)."""
    config = CLIPConfig.from_open_clip(
        {
            "embed_dim": 4,
            "vision_cfg": {"width": 8, "head_width": 4, "layers": 1, "image_size": 32, "no_ln_pre": True}
            | {"pool_type": "avg", "final_ln_after_pool": True, "ls_init_value": 0.1},
            "text_cfg": {"width": 8, "heads": 2, "layers": 1, "vocab_size": 9, "pool_type": "last"}
            | {"no_causal_mask": True},
        }
    )
    assert (config.text.causal, config.text.pool, config.vision.activation) == (False, "last", "gelu")
    graphdef, arrays = module_state.split(abstract_vision_tower(config.vision))
    assert "pre_norm/scale" not in arrays
    assert "blocks/0/scale2/gain" in arrays
    rng = np.random.default_rng(0)
    arrays = {path: rng.normal(size=array.shape).astype(np.float32) for path, array in arrays.items()}

    @jax.jit
    def embeddings(arrays, images):
        tower = module_state.merge(graphdef, arrays)
        return tower(images).embedding, window_embeddings(tower, images, np.arange(4)[None])

    whole, window = embeddings(arrays, rng.normal(size=(2, 32, 32, 3)).astype(np.float32))
    assert whole.shape == (2, 4)
    np.testing.assert_allclose(window[:, 0], whole, rtol=1e-4)


def test_windows_and_values_equal_numpy_reference(model):
    # All windows of 2 x 2 patches on a grid of 2 x 5.
    windows = np.array([[column, column + 1, 5 + column, 6 + column] for column in range(4)])
    graphdef, arrays = module_state.split(model.vision)

    @jax.jit
    def dense(arrays, images):
        tower = module_state.merge(graphdef, arrays)
        return window_embeddings(tower, images, windows), value_patches(tower, images)

    with jax.default_matmul_precision("highest"):
        found, values = dense(arrays, IMAGES)
    expected = vision_forward(draw_clip(), IMAGES, expected_positions(), 0)
    for number, patches in enumerate(windows.tolist()):
        assert error(found[:, number], window_forward(draw_clip(), expected["embedded"], patches)) < 1e-5
    assert error(values, value_forward(draw_clip(), expected["o1"])) < 1e-5


def test_relevance_of_patches_to_a_text_equals_that_by_differences(model):
    graphdef, arrays = module_state.split(model.vision)
    embedded = vision_forward(draw_clip(), IMAGES, expected_positions(), 0)["embedded"]
    texts = np.random.default_rng(3).normal(size=(2, model.vision.config.projection))
    with jax.default_matmul_precision("highest"):
        call = jax.jit(lambda arrays, *given: text_relevance(module_state.merge(graphdef, arrays), *given))
        found = call(arrays, IMAGES, texts.astype(np.float32))
    for image in range(2):
        assert error(found[image], relevance_forward(draw_clip(), embedded[image], texts[image])) < 1e-3


@pytest.mark.parametrize("blocks", [(3,), (-1, 0)])
def test_blocks_that_do_not_exist_are_named(model, blocks):
    with pytest.raises(ConfigError, match=r"taps = \[.*\]: needs some of 0 to 2"):
        model.vision(IMAGES, blocks)


def test_impossible_requests_are_named(model):
    with pytest.raises(ConfigError, match="vv_blocks = 4: must be 0 to 3"):
        model.vision(IMAGES, vv_blocks=4)
    with pytest.raises(ConfigError, match="skip = 2: must be 0 to 1"):
        model.text(IDS, skip=DEPTH["text"])
    with pytest.raises(ConfigError, match="texts of 13 tokens: this tower takes at most 12"):
        model.text(np.zeros((1, 13), int))


@pytest.mark.parametrize("size", [(4, 9), (3, 4), (0, 4)])
def test_size_that_is_no_multiple_of_the_patch_is_named(model, size):
    with pytest.raises(ConfigError, match=f"{size[0]} x {size[1]} pixels.*multiples of 4"):
        model.vision(np.zeros((1, *size, 3)))


def test_id_beyond_the_vocabulary_gives_no_number(model):
    ids = IDS.copy()
    ids[0, 0] = VOCABULARY
    assert np.isnan(run(model.text, ids).hidden[0]).all()


def count(module):
    return sum(int(np.prod(array.shape)) for array in module_state.split(module)[1].values())


def test_parameter_counts():
    plus = abstract_clip(CLIPConfig.vit_b_16_plus_240())
    assert round(count(plus.vision) / 1e6, 2) == 117.21
    assert round(count(plus.text) / 1e6, 2) == 91.16
    assert round(count(plus) / 1e6, 2) == 208.38
    assert round(count(abstract_text_tower(TextConfig.stable_diffusion(1))) / 1e6, 2) == 123.06
    assert round(count(abstract_text_tower(TextConfig.stable_diffusion(2))) / 1e6, 2) == 340.39


def test_wrong_shapes_and_types_are_named(model):
    with pytest.raises(AssertionError, match="images"):
        model.vision(np.zeros((28, 28, 3), np.float32))
    with pytest.raises(AssertionError, match="ids must be \\[b n\\]"):
        model.text(np.zeros(5, np.int32))
    with pytest.raises(AssertionError, match="ids must be integers"):
        model.text(np.zeros((1, 5), np.float32))
