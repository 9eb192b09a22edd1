"""Fields of config.json: whatever JSON may say there, each reader takes it or names it."""

from __future__ import annotations

import itertools
import json

import pytest

from jaxad.errors import WeightsError
from jaxad.models.clip.config import CLIPConfig, TextConfig
from jaxad.models.convnets.efficientnet import EfficientNetConfig
from jaxad.models.convnets.resnet import ResNetConfig
from jaxad.models.stable_diffusion.config import AutoencoderConfig, UNetConfig
from jaxad.models.vit.config import ViTConfig
from jaxad.models.weights.config_fields import DEPTH, ConfigFields, plausible_depth
from tests.models.clip.made_checkpoints import HUGGINGFACE_CONFIG, OPEN_CLIP_CONFIG

ODD = (None, True, 0, -1, 0.5, 10**30, float("inf"), float("nan"), "", "a", [], {}, [0], [[]], {"a": 1}, [1] * 100)

DINOV2 = {"model_type": "dinov2_with_registers", "hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 3}
DINOV2 |= {"image_size": 28, "patch_size": 7, "mlp_ratio": 4, "num_register_tokens": 1, "use_swiglu_ffn": True}
RESNET = {"embedding_size": 8, "hidden_sizes": [8, 8, 16], "depths": [1, 1, 1], "layer_type": "basic"}
EFFICIENTNET = {"width_coefficient": 0.5, "depth_coefficient": 0.5, "hidden_dim": 64, "depth_divisor": 8}
EFFICIENTNET |= {"depthwise_padding": [5], "batch_norm_eps": 0.01, "strides": [1, 2, 2, 2, 1, 2, 1]}
READERS = {
    "vit": (ViTConfig.from_huggingface, DINOV2),
    "clip": (CLIPConfig.from_huggingface, HUGGINGFACE_CONFIG),
    "open_clip": (CLIPConfig.from_open_clip, OPEN_CLIP_CONFIG),
    "text": (lambda config: TextConfig.from_huggingface(config, projected=True), HUGGINGFACE_CONFIG),
    "resnet": (ResNetConfig.from_huggingface, RESNET),
    "efficientnet": (EfficientNetConfig.from_huggingface, EFFICIENTNET),
    "unet": (UNetConfig.from_diffusers, UNetConfig().to_diffusers()),
    "autoencoder": (AutoencoderConfig.from_diffusers, AutoencoderConfig().to_diffusers()),
}


def places(value):
    """Every object or list in a config, with the key of each of its members."""
    keys = value if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ()
    for key in keys:
        yield value, key
        yield from places(value[key])


@pytest.mark.parametrize("name", READERS)
def test_odd_values_are_taken_or_named(name):
    read, sound = READERS[name]
    assert read(sound)
    count = len(list(places(sound)))
    refused = 0
    for number, odd in itertools.product(range(count), ODD):
        config = json.loads(json.dumps(sound))
        holder, key = list(places(config))[number]
        holder[key] = odd
        said = refusal(read, config)
        refused += bool(said)
        # Of a width that is too small for its heads, the heads may be named.
        assert not said or isinstance(key, int) or key in said or "head_width" in said, (key, odd, said)
    assert refused > count


def refusal(read, config):
    """What is said of a config, "" of one that is taken."""
    try:
        read(config)
    except WeightsError as error:
        return str(error)
    return ""


@pytest.mark.parametrize("name", READERS)
@pytest.mark.parametrize("config", [[], "a", 3, None], ids=str)
def test_what_is_no_object_is_refused(name, config):
    with pytest.raises(WeightsError, match="config"):
        READERS[name][0](config)


@pytest.mark.parametrize(("name", "field"), [("vit", "num_hidden_layers"), ("unet", "layers_per_block")])
def test_no_network_of_a_million_blocks_is_begun(name, field):
    with pytest.raises(WeightsError, match=rf"{field} = 1000000: must be one whole number from 1 to"):
        READERS[name][0](READERS[name][1] | {field: 1_000_000})


def test_bounds_include_their_ends():
    c = ConfigFields("config.json", {"a": DEPTH, "b": 1, "c": DEPTH + 1, "d": 0}, {})
    assert c.depths("a", "b")
    assert not c.depths("c", "d")
    assert [problem.split(" =")[0] for problem in c.problems] == ["c", "d"]
    assert plausible_depth(DEPTH, "net") == DEPTH
    with pytest.raises(WeightsError, match="net: 129 blocks"):
        plausible_depth(DEPTH + 1, "net")


def test_true_is_no_number_and_one_is_not_true():
    c = ConfigFields("config.json", {"a": True, "b": 1, "c": 0}, {})
    assert not c.sizes("a")
    assert not c.one_of(b=(True,))
    assert not c.one_of(c=(False, None))
    assert c.one_of(a=(True,))
    assert not c.flags("b")


def test_long_values_are_not_printed_in_full():
    c = ConfigFields("config.json", {"a": "x" * 100_000}, {})
    c.sizes("a")
    with pytest.raises(WeightsError) as caught:
        c.stop()
    assert len(str(caught.value)) < 500


def test_a_width_is_a_multiple_of_its_heads():
    c = ConfigFields("config.json", {"width": 12, "heads": 3, "odd": 5, "none": 0}, {})
    assert c.multiple("width", "heads")
    assert not c.problems
    assert not c.multiple("width", "odd")
    assert not c.multiple("width", "none")
    assert [problem.split(" ")[0] for problem in c.problems] == ["width", "none"]
