import chex
import numpy as np
import pytest

from jaxad.errors import WeightsError
from jaxad.nn.normalization import IMAGENET, INCEPTION, Normalization

EFFICIENTNET_PROCESSOR = {"image_processor_type": "EfficientNetImageProcessor", "image_std": [0.5, 0.4, 0.3]}


@pytest.mark.parametrize(
    ("preprocessor", "config", "expected"),
    [
        ({}, {}, INCEPTION),
        ({"image_mean": [0.1, 0.2, 0.3], "image_std": [1, 2, 3]}, {}, Normalization((0.1, 0.2, 0.3), (1.0, 2.0, 3.0))),
        ({"do_normalize": False}, {}, Normalization((0.0, 0.0, 0.0), (1.0, 1.0, 1.0))),
        ({}, {"pretrained_cfg": {"mean": [0.1] * 3, "std": [0.2] * 3}}, Normalization((0.1,) * 3, (0.2,) * 3)),
        (EFFICIENTNET_PROCESSOR, {}, Normalization((0.5, 0.5, 0.5), (0.5**2, 0.4**2, 0.3**2))),
        ({**EFFICIENTNET_PROCESSOR, "include_top": False}, {}, Normalization((0.5, 0.5, 0.5), (0.5, 0.4, 0.3))),
    ],
)
def test_checkpoints_say_how_images_are_normalized(preprocessor, config, expected):
    assert Normalization.of(preprocessor, config, INCEPTION) == expected


def test_normalization_that_cannot_be_used_is_explained():
    with pytest.raises(WeightsError) as caught:
        Normalization.of({"image_mean": [0.5], "rescale_factor": 1 / 127.5}, {}, IMAGENET)
    for sign in ("mean = [0.5]", "rescale_factor", "preprocessor_config.json"):
        assert sign in str(caught.value)


@pytest.mark.parametrize(
    ("preprocessor", "sign"),
    [
        *(({"image_mean": value}, "mean") for value in (None, 0.5, "abc", [0.5, 0.5, True], [1e30] * 3, {}, [[1]] * 3)),
        *(({"image_std": value}, "std") for value in ([0, 1, 1], [-1, 1, 1], [float("nan")] * 3, [float("inf")] * 3)),
        *(({"rescale_factor": value}, "rescale") for value in (None, "1/255", [], float("nan"), True)),
    ],
    ids=str,
)
def test_values_that_no_image_can_be_scaled_by(preprocessor, sign):
    with pytest.raises(WeightsError, match=sign):
        Normalization.of(preprocessor, {}, IMAGENET)


@pytest.mark.parametrize("config", [{"pretrained_cfg": 3}, {"preprocess_cfg": [1]}, {"architecture": []}], ids=str)
def test_what_says_nothing_is_taken_for_nothing(config):
    assert Normalization.of({"image_processor_type": 3}, config, INCEPTION) == INCEPTION


def test_inverse_undoes_it():
    images = np.random.default_rng(0).integers(0, 256, (2, 3, 4, 3), dtype=np.uint8)
    normalized = IMAGENET(images)
    chex.assert_type(normalized, np.float32)
    np.testing.assert_allclose(normalized[..., 0], (images[..., 0] / 255 - 0.485) / 0.229, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(IMAGENET.inverse(normalized), images, atol=1e-3)


@pytest.mark.parametrize("shape", [(4, 4, 3), (1, 4, 4, 1)])
def test_wrong_shape_is_named(shape):
    with pytest.raises(AssertionError, match="images"):
        IMAGENET(np.zeros(shape))
    with pytest.raises(AssertionError, match="normalized"):
        IMAGENET.inverse(np.zeros(shape))
