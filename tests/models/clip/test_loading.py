import json

import numpy as np
import pytest
from safetensors.numpy import save_file

from jaxad.errors import WeightsError
from jaxad.models.clip.checkpoints import CLIP_LAYOUTS
from jaxad.models.clip.config import CLIPConfig, TextConfig, VisionConfig
from jaxad.models.clip.loading import load_clip, load_text_tower
from jaxad.models.clip.towers import abstract_clip
from jaxad.models.stable_diffusion.checkpoints import find_part
from jaxad.models.weights.key_map import to_torch
from jaxad.models.weights.loader import find_weights
from jaxad.nn import module_state
from jaxad.nn.normalization import OPENAI_CLIP, Normalization
from tests.models.clip.made_checkpoints import HUGGINGFACE_CONFIG, OPEN_CLIP_CONFIG, as_open_clip, draw_clip, write

TEXT_CONFIG = {**HUGGINGFACE_CONFIG["text_config"], "model_type": "clip_text_model", "projection_dim": 8}


@pytest.fixture(scope="module")
def tensors():
    return draw_clip()


@pytest.fixture(scope="module")
def whole(tensors, tmp_path_factory):
    """Parameters of the CLIP by their paths."""
    folder = write(tmp_path_factory.mktemp("whole"), tensors, HUGGINGFACE_CONFIG)
    return parameters(load_clip(find_weights(folder)))


def parameters(module):
    return {path: np.asarray(array) for path, array in module_state.split(module)[1].items()}


def assert_tower(actual, whole, tower, *without):
    """All of the tower's parameters are those of the whole CLIP."""
    expected = {path.removeprefix(f"{tower}/"): array for path, array in whole.items() if path.startswith(f"{tower}/")}
    assert actual.keys() == {path for path in expected if not path.startswith(without)}
    for path, array in actual.items():
        np.testing.assert_array_equal(array, expected[path], err_msg=path)


@pytest.mark.parametrize("nested", [False, True], ids=["text at the top", "custom_text"])
def test_open_clip_layout_holds_the_same(tensors, whole, tmp_path, nested):
    renamed = as_open_clip(tensors)
    if nested:
        kept = ("visual.", "logit_scale")
        renamed = {name if name.startswith(kept) else f"text.{name}": x for name, x in renamed.items()}
    renamed["attn_mask"] = np.zeros((12, 12), np.float32)
    config = {"model_cfg": OPEN_CLIP_CONFIG, "preprocess_cfg": {}}
    weights = find_weights(write(tmp_path, renamed, config, "open_clip_config.json"))
    model = load_clip(weights)
    actual = parameters(model)
    assert actual.keys() == whole.keys()
    for path, array in actual.items():
        np.testing.assert_array_equal(array, whole[path], err_msg=path)
    assert model.vision.config.interpolation == "antialias"
    assert_tower(parameters(load_text_tower(weights)), whole, "text")


def test_normalization_is_the_checkpoints(tensors, tmp_path):
    mean, std = [0.5, 0.4, 0.3], [0.25, 0.2, 0.1]
    preprocess = {"mean": mean, "std": std, "interpolation": "bicubic"}
    config = {"model_cfg": OPEN_CLIP_CONFIG, "preprocess_cfg": preprocess}
    open_clip = write(tmp_path / "open_clip", as_open_clip(tensors), config, "open_clip_config.json")
    transformers = write(tmp_path / "transformers", tensors, HUGGINGFACE_CONFIG)
    assert load_clip(find_weights(transformers)).vision.config.normalization == OPENAI_CLIP
    (transformers / "preprocessor_config.json").write_text(json.dumps({"image_mean": mean, "image_std": std}))
    images = np.random.default_rng(0).integers(0, 256, (2, 4, 4, 3), np.uint8)
    for folder in (open_clip, transformers):
        normalization = load_clip(find_weights(folder)).vision.config.normalization
        assert normalization == Normalization((0.5, 0.4, 0.3), (0.25, 0.2, 0.1))
        np.testing.assert_allclose(normalization(images), (images / 255 - np.array(mean)) / np.array(std), atol=1e-5)
        np.testing.assert_allclose(normalization.inverse(normalization(images)), images, atol=1e-4)


def test_clip_beside_the_image_tower_of_timm(tensors, whole, tmp_path):
    """As in the repositories of timm that open_clip loads from."""
    write(tmp_path, {"cls_token": np.zeros((1, 1, 24))}, {"architecture": "vit_base_patch16_plus_clip_240"})
    (tmp_path / "open_clip_config.json").write_text(json.dumps({"model_cfg": OPEN_CLIP_CONFIG}))
    save_file(as_open_clip(tensors), tmp_path / "open_clip_model.safetensors")
    model = load_clip(find_weights(tmp_path, prefer="open_clip"))
    np.testing.assert_array_equal(parameters(model)["logit_scale"], whole["logit_scale"])
    with pytest.raises(WeightsError, match="no layout known here fits"):
        load_clip(find_weights(tmp_path))


def test_round_trip_gives_the_same_files(tensors, tmp_path):
    model = load_clip(find_weights(write(tmp_path, tensors, HUGGINGFACE_CONFIG)))
    for layout, expected in (("transformers", tensors), ("open_clip", as_open_clip(tensors))):
        written = to_torch(model, CLIP_LAYOUTS[layout])
        assert written.keys() == expected.keys()
        for name, tensor in expected.items():
            np.testing.assert_array_equal(written[name], tensor, err_msg=name)


@pytest.mark.parametrize("prefix", ["", "text_model."])
@pytest.mark.parametrize("projected", [False, True])
def test_text_tower_of_a_text_model(tensors, whole, tmp_path, prefix, projected):
    mine = {name.replace("text_model.", prefix): x for name, x in tensors.items() if name.startswith("text_model.")}
    mine |= {"text_projection.weight": tensors["text_projection.weight"]} if projected else {}
    mine[f"{prefix}embeddings.position_ids"] = np.arange(12)[None]
    tower = load_text_tower(find_weights(write(tmp_path, mine, TEXT_CONFIG)))
    assert_tower(parameters(tower), whole, "text", *(() if projected else ("projection",)))


def test_text_tower_of_a_whole_clip(tensors, whole, tmp_path):
    weights = find_weights(write(tmp_path, tensors, HUGGINGFACE_CONFIG))
    assert_tower(parameters(load_text_tower(weights)), whole, "text")


def random_clip(vocabulary):
    """Tensors in half precision, by open_clip's names, of a network whose heads are 64 wide, and its config."""
    config = CLIPConfig(
        VisionConfig(128, 1, 2, 96, patch=2, image_size=6, projection=8, activation="gelu", interpolation="antialias"),
        TextConfig(64, 2, 1, 80, vocabulary, 5, projection=8, activation="gelu", end=2),
    )
    graphdef, arrays = module_state.split(abstract_clip(config))
    rng = np.random.default_rng(0)
    drawn = {path: rng.normal(size=array.shape).astype(np.float16) for path, array in arrays.items()}
    return to_torch(module_state.merge(graphdef, drawn), CLIP_LAYOUTS["open_clip"]), drawn, config


@pytest.fixture(scope="module")
def full_vocabulary():
    return random_clip(49408)


def test_open_clip_without_config(full_vocabulary, tmp_path):
    tensors, drawn, config = full_vocabulary
    save_file(tensors, tmp_path / "laion.safetensors")
    model = load_clip(find_weights(tmp_path / "laion.safetensors"))
    assert (model.vision.config, model.text.config) == (config.vision, config.text)
    for path, array in parameters(model).items():
        assert array.dtype == np.float32
        np.testing.assert_array_equal(array, drawn[path], err_msg=path)
    quick = load_clip(find_weights(tmp_path / "laion.safetensors"), activation="quick_gelu")
    assert {quick.vision.config.activation, quick.text.config.activation} == {"quick_gelu"}


def test_openai_tensors_have_quick_gelu(full_vocabulary, tmp_path):
    sizes = {"input_resolution": np.array(6), "context_length": np.array(5), "vocab_size": np.array(49408)}
    save_file(full_vocabulary[0] | sizes, tmp_path / "openai.safetensors")
    weights = find_weights(tmp_path / "openai.safetensors")
    towers = (load_clip(weights).vision, load_text_tower(weights))
    assert {tower.config.activation for tower in towers} == {"quick_gelu"}


def test_text_tower_of_stable_diffusion_2_ckpt(full_vocabulary, tmp_path):
    tensors, drawn, _ = full_vocabulary
    inside = {f"cond_stage_model.model.{n}": x for n, x in tensors.items() if not n.startswith("visual.")}
    save_file(inside | {"model.diffusion_model.out.0.bias": np.zeros(3)}, tmp_path / "sd2.safetensors")
    for weights in (
        find_weights(tmp_path / "sd2.safetensors"),
        find_part(tmp_path / "sd2.safetensors", "text_encoder"),
    ):
        tower = load_text_tower(weights)
        assert (tower.config.depth, tower.config.projection, tower.config.activation) == (1, None, "gelu")
        assert_tower(parameters(tower), drawn, "text", "blocks/1", "projection")


def test_text_tower_of_stable_diffusion_1_ckpt(tmp_path):
    config = TextConfig(64, 2, 1, 80, vocabulary=30, context=5, projection=None)
    drawn = np.random.default_rng(0).normal
    shapes = {"embeddings.token_embedding.weight": (30, 64), "embeddings.position_embedding.weight": (5, 64)}
    for layer in ("encoder.layers.0.", "encoder.layers.1."):
        for part in ("q_proj", "k_proj", "v_proj", "out_proj"):
            shapes |= {f"{layer}self_attn.{part}.weight": (64, 64), f"{layer}self_attn.{part}.bias": (64,)}
        shapes |= {f"{layer}mlp.fc1.weight": (80, 64), f"{layer}mlp.fc1.bias": (80,)}
        shapes |= {f"{layer}mlp.fc2.weight": (64, 80), f"{layer}mlp.fc2.bias": (64,)}
        shapes |= {f"{layer}layer_norm{i}.{kind}": (64,) for i in (1, 2) for kind in ("weight", "bias")}
    shapes |= {f"final_layer_norm.{kind}": (64,) for kind in ("weight", "bias")}
    prefix = "cond_stage_model.transformer.text_model."
    inside = {prefix + name: drawn(size=shape).astype(np.float32) for name, shape in shapes.items()}
    inside[prefix + "embeddings.position_ids"] = np.arange(5)[None]
    save_file(inside | {"first_stage_model.quant_conv.bias": np.zeros(3)}, tmp_path / "sd1.safetensors")
    for weights in (
        find_weights(tmp_path / "sd1.safetensors"),
        find_part(tmp_path / "sd1.safetensors", "text_encoder"),
    ):
        tower = load_text_tower(weights)
        assert tower.config == config
        actual = parameters(tower)["blocks/1/attention/value/kernel"]
        np.testing.assert_array_equal(actual, inside[f"{prefix}encoder.layers.1.self_attn.v_proj.weight"].T)


def test_config_that_the_tensors_do_not_tell(tmp_path):
    tensors, _, _ = random_clip(100)
    tensors = {name: tensor for name, tensor in tensors.items() if not name.startswith("visual.ln_pre")}
    save_file(tensors, tmp_path / "clipa.safetensors")
    with pytest.raises(WeightsError) as caught:
        load_clip(find_weights(tmp_path / "clipa.safetensors"))
    for part in ("no open_clip_config.json", "visual.ln_pre.weight: missing", "100 tokens are not CLIP's"):
        assert part in str(caught.value)


@pytest.mark.parametrize(
    ("lacking", "held", "missing"),
    [
        ("embeddings.position_embedding.weight", "cond_stage_model.transformer.text_model.", "encoder.layers.0.mlp"),
        ("text_projection", "cond_stage_model.model.", "positional_embedding"),
        ("visual.conv1.weight", "", "visual.positional_embedding"),
    ],
)
def test_tensors_that_would_tell_the_config_are_named(full_vocabulary, tmp_path, lacking, held, missing):
    names = [name for name in full_vocabulary[0] if not name.startswith((lacking, missing))]
    if "transformer.text_model" in held:
        names = ["embeddings.token_embedding.weight", "encoder.layers.0.layer_norm1.bias"]
    save_file(
        {held + name: full_vocabulary[0].get(name, np.ones((2, 2))) for name in names}, tmp_path / "net.safetensors"
    )
    with pytest.raises(WeightsError) as caught:
        (load_text_tower if held else load_clip)(find_weights(tmp_path / "net.safetensors"))
    assert f"{lacking}: missing" in str(caught.value)
    assert missing in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"patch_size": 2}, r"patch_embedding.weight: shape \[24, 3, 4, 4\] does not fit vision/patch_embed/kernel"),
        ({"num_hidden_layers": 2}, r"layers\.2\.mlp\.fc1\.weight: in the file, but not used"),
        ({"num_hidden_layers": 4}, r"layers\.3\.mlp\.fc1\.weight: missing"),
        ({"intermediate_size": 48}, r"vision/blocks/0/mlp/fc1/kernel \[24, 48\]"),
    ],
)
def test_config_of_another_size_is_refused(tensors, tmp_path, changes, message):
    config = {**HUGGINGFACE_CONFIG, "vision_config": {**HUGGINGFACE_CONFIG["vision_config"], **changes}}
    with pytest.raises(WeightsError, match=message):
        load_clip(find_weights(write(tmp_path, tensors, config)))


@pytest.mark.parametrize("config", [{"model_type": "clip_vision_model"}, {}, {"model_type": "dinov2"}])
def test_config_of_something_else_is_refused(tensors, tmp_path, config):
    weights = find_weights(write(tmp_path, tensors, config))
    with pytest.raises(WeightsError, match="must be 'clip' or 'clip_text_model'"):
        load_text_tower(weights)


def test_weights_of_something_else_are_refused(tmp_path):
    save_file({"embeddings.cls_token": np.zeros((1, 1, 8))}, tmp_path / "vit.safetensors")
    with pytest.raises(WeightsError, match="no layout known here fits"):
        load_clip(find_weights(tmp_path / "vit.safetensors"))


def test_impossible_config_lists_everything():
    vision = {"hidden_act": "relu", "num_channels": 4, "hidden_size": 30, "image_size": [8, 9]}
    with pytest.raises(WeightsError) as caught:
        VisionConfig.from_huggingface({"model_type": "clip", "vision_config": vision})
    for name in ("hidden_act = 'relu'", "num_channels = 4", "hidden_size = 30", "image_size = [8, 9]"):
        assert name in str(caught.value)
    with pytest.raises(WeightsError) as caught:
        CLIPConfig.from_open_clip(
            {
                "embed_dim": 8,
                "vision_cfg": {"timm_model_name": "x", "pool_type": "map", "layers": [1, 2]},
                "text_cfg": {},
            }
        )
    for name in ("timm_model_name = 'x'", "pool_type = 'map'", "layers = [1, 2]"):
        assert name in str(caught.value)
    with pytest.raises(WeightsError, match="hf_model_name = 'roberta-base'"):
        TextConfig.from_open_clip({"embed_dim": 8, "text_cfg": {"hf_model_name": "roberta-base"}})
    with pytest.raises(WeightsError, match="has no vision_cfg"):
        CLIPConfig.from_open_clip({"embed_dim": 8, "text_cfg": {}})


def test_published_configs():
    """As OpenAI's and Stability's config.json say it; fields they lack have the class's default."""
    sizes = {"hidden_size": 768, "intermediate_size": 3072, "num_attention_heads": 12}
    vision = {"hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 24, "num_attention_heads": 16}
    large = {
        "model_type": "clip",
        "projection_dim": 768,
        "text_config": {"eos_token_id": 2},
        "text_config_dict": sizes,
        "vision_config": {},
        "vision_config_dict": {**vision, "patch_size": 14},
    }
    assert CLIPConfig.from_huggingface(json.loads(json.dumps(large))).vision == CLIPConfig.openai("L/14").vision
    text = CLIPConfig.from_huggingface(large).text
    assert (text.width, text.pool) == (768, "largest")
    base = CLIPConfig.from_huggingface({"model_type": "clip", "text_config": {"eos_token_id": 2}})
    assert base.vision == CLIPConfig.openai("B/32").vision
    second = {"model_type": "clip_text_model", "hidden_size": 1024, "num_hidden_layers": 23, "intermediate_size": 4096}
    second |= {"num_attention_heads": 16, "hidden_act": "quick_gelu"}
    config = TextConfig.from_huggingface(second, projected=False)
    assert config.activation == "gelu"
    assert (config.pool, config.end) == ("end", 49407)
