import pytest

from jaxad.errors import ConfigError, WeightsError
from jaxad.models.vit.config import PUBLISHED, ViTConfig


def test_config_defaults_are_those_of_the_class():
    assert ViTConfig.from_huggingface({"model_type": "dinov2"}) == ViTConfig(image_size=224)
    registers = ViTConfig.from_huggingface({"model_type": "dinov2_with_registers"})
    assert registers == ViTConfig(patch=16, image_size=224, registers=4, interpolation="antialias")
    assert ViTConfig.from_huggingface({"model_type": "vit"}) == ViTConfig.vit("base")


def test_fields_that_the_class_does_not_read_change_nothing():
    foreign = {"use_swiglu_ffn": True, "num_register_tokens": 4, "mlp_ratio": "four"}
    assert ViTConfig.from_huggingface({"model_type": "vit", **foreign}) == ViTConfig.vit("base")


def test_presets_equal_the_published_configs():
    base = {"model_type": "dinov2_with_registers", "patch_size": 14, "image_size": 518}
    assert ViTConfig.from_huggingface(base) == ViTConfig.dinov2("base", registers=4)
    giant = {"hidden_size": 1536, "num_hidden_layers": 40, "num_attention_heads": 24, "use_swiglu_ffn": True}
    config = {"model_type": "dinov2", "image_size": 518, **giant}
    assert ViTConfig.from_huggingface(config) == ViTConfig.dinov2("giant")
    large = {"hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 16, "intermediate_size": 4096}
    assert ViTConfig.from_huggingface({"model_type": "vit", "image_size": 384, **large}) == ViTConfig.vit("large", 384)


def test_dino_differs_from_hugging_faces_copy_in_epsilon_and_positions():
    small = {"hidden_size": 384, "num_attention_heads": 6, "intermediate_size": 1536, "patch_size": 8}
    copy = ViTConfig.from_huggingface({"model_type": "vit", **small})
    original = ViTConfig.dino("small", 8)
    assert (copy.norm_eps, copy.interpolation) == (1e-12, "bicubic")
    assert (original.norm_eps, original.interpolation) == (1e-6, "dinomaly")
    assert {**vars(copy), "norm_eps": 1e-6, "interpolation": "dinomaly"} == vars(original)


def test_every_published_network_is_listed():
    assert len(PUBLISHED) == 8 + 4 + 2
    assert PUBLISHED["DINO B/16"] == ("facebook/dino-vitb16", ViTConfig.dino("base", 16))
    giant = ("facebook/dinov2-with-registers-giant", ViTConfig.dinov2("giant", registers=4))
    assert PUBLISHED["DINOv2-g/14 registers"] == giant


@pytest.mark.parametrize("preset", [ViTConfig.dinov2, ViTConfig.dino, ViTConfig.vit])
def test_unknown_size_is_named(preset):
    with pytest.raises(ConfigError, match=r"size = 'huge': must be one of .*base"):
        preset("huge")


def test_impossible_config_lists_everything():
    config = {"model_type": "dinov2", "hidden_act": "relu", "num_channels": 4, "hidden_size": 30, "image_size": [8, 9]}
    config |= {"layer_norm_eps": "1e-6", "qkv_bias": 1, "num_hidden_layers": 0, "mlp_ratio": True}
    with pytest.raises(WeightsError) as caught:
        ViTConfig.from_huggingface(config)
    for name in ("hidden_act = 'relu'", "num_channels = 4", "hidden_size = 30", "image_size = [8, 9]"):
        assert name in str(caught.value)
    for name in ("layer_norm_eps = '1e-6'", "qkv_bias = 1", "num_hidden_layers = 0", "mlp_ratio = True"):
        assert name in str(caught.value)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"patch_size": 16, "image_size": 8}, "image_size = 8: must be at least patch_size = 16"),
        ({"num_attention_heads": 0}, "num_attention_heads = 0: must be one whole number above 0"),
        ({"num_register_tokens": -1}, "num_register_tokens = -1"),
        ({"model_type": "vit", "intermediate_size": 3072.5}, "intermediate_size = 3072.5"),
    ],
)
def test_impossible_field_is_named(fields, message):
    with pytest.raises(WeightsError, match=message):
        ViTConfig.from_huggingface({"model_type": "dinov2_with_registers", **fields})


@pytest.mark.parametrize("config", [{"model_type": "clip"}, {"model_type": ["vit"]}, {}])
def test_other_model_type_is_named(config):
    with pytest.raises(WeightsError) as caught:
        ViTConfig.from_huggingface(config)
    assert f"model_type = {config.get('model_type')!r}" in str(caught.value)
