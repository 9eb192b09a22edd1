"""CLIP at full size: names and shapes are those of transformers and open_clip, built without memory."""

from __future__ import annotations

import numpy as np
import open_clip
import pytest
import torch
import transformers

from jaxad.models.clip.checkpoints import CLIP_LAYOUTS, TEXT_LAYOUTS
from jaxad.models.clip.config import CLIPConfig, TextConfig, open_clip_config_of
from jaxad.models.clip.towers import abstract_clip, abstract_text_tower
from jaxad.models.weights.key_map import to_torch
from jaxad.nn import module_state

pytestmark = pytest.mark.parity


def shapes_in_file(module, key_map):
    """Names and shapes that the parameters of an abstract module have in a file."""
    graphdef, arrays = module_state.split(module)
    empty = {path: np.broadcast_to(np.int8(0), array.shape) for path, array in arrays.items()}
    return {name: tensor.shape for name, tensor in to_torch(module_state.merge(graphdef, empty), key_map).items()}


def shapes_in_torch(model):
    return {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}


@pytest.mark.parametrize("size", ["B/32", "B/16", "L/14"])
def test_full_size_openai(size):
    config = CLIPConfig.openai(size)
    v, t = config.vision, config.text
    theirs = transformers.CLIPConfig(
        projection_dim=v.projection,
        text_config={"hidden_size": t.width, "intermediate_size": t.hidden, "num_attention_heads": t.heads},
        vision_config={
            "hidden_size": v.width,
            "intermediate_size": v.hidden,
            "num_hidden_layers": v.depth,
            "num_attention_heads": v.heads,
            "patch_size": v.patch,
        },
    )
    with torch.device("meta"):
        model = transformers.CLIPModel(theirs)
    assert shapes_in_file(abstract_clip(config), CLIP_LAYOUTS["transformers"]) == shapes_in_torch(model)
    published = {"B/32": 151_277_313, "B/16": 149_620_737, "L/14": 427_616_513}
    assert sum(parameter.numel() for parameter in model.parameters()) == published[size]
    read = CLIPConfig.from_huggingface(theirs.to_dict())
    assert (read.vision, read.text.width) == (v, t.width)


def test_full_size_plus_240():
    published = open_clip.get_model_config("ViT-B-16-plus-240")
    with torch.device("meta"):
        model = open_clip.CLIP(**published)
    config = CLIPConfig.vit_b_16_plus_240()
    assert CLIPConfig.from_open_clip(published) == config
    assert CLIPConfig.from_open_clip(open_clip_config_of(model.state_dict(), quick_gelu=False)) == config
    assert shapes_in_file(abstract_clip(config), CLIP_LAYOUTS["open_clip"]) == shapes_in_torch(model)
    assert round(sum(parameter.numel() for parameter in model.parameters()) / 1e6, 2) == 208.38


@pytest.mark.parametrize(("version", "millions"), [(1, 123.06), (2, 340.39)])
def test_full_size_text_towers_of_stable_diffusion(version, millions):
    config = TextConfig.stable_diffusion(version)
    theirs = transformers.CLIPTextConfig(
        hidden_size=config.width,
        intermediate_size=config.hidden,
        num_hidden_layers=config.depth,
        num_attention_heads=config.heads,
    )
    with torch.device("meta"):
        model = transformers.CLIPTextModel(theirs)
    assert shapes_in_file(abstract_text_tower(config), TEXT_LAYOUTS["transformers"]) == shapes_in_torch(model)
    assert round(sum(parameter.numel() for parameter in model.parameters()) / 1e6, 2) == millions
    assert len(model.state_dict()) == 16 * config.depth + 4


def own_vits():
    """Published model configs of open_clip with a ViT and a text transformer of its own."""
    for name in open_clip.list_models():
        config = open_clip.get_model_config(name)
        own = isinstance(config["vision_cfg"].get("layers", 12), int) and "multimodal_cfg" not in config
        if own and "timm_model_name" not in config["vision_cfg"] and "hf_model_name" not in config["text_cfg"]:
            yield name, config


def test_every_own_vit_of_open_clip_is_read():
    """Shapes of towers cut down to one block, for all published sizes."""
    names = []
    for name, config in own_vits():
        for part in ("vision_cfg", "text_cfg"):
            config[part]["layers"] = 1
        with torch.device("meta"):
            model = open_clip.CLIP(**{key: value for key, value in config.items() if key != "custom_text"})
        read = CLIPConfig.from_open_clip(config)
        state = shapes_in_torch(model)
        assert state["visual.transformer.resblocks.0.mlp.c_fc.weight"] == (read.vision.hidden, read.vision.width), name
        assert state["transformer.resblocks.0.mlp.c_fc.weight"] == (read.text.hidden, read.text.width), name
        assert model.visual.transformer.resblocks[0].attn.num_heads == read.vision.heads, name
        assert model.transformer.resblocks[0].attn.num_heads == read.text.heads, name
        assert state["positional_embedding"] == (read.text.context, read.text.width), name
        told = "visual.ln_pre.weight" in state and read.text.vocabulary == 49408
        if told:
            guessed = open_clip_config_of(model.state_dict(), bool(config.get("quick_gelu")))
            assert CLIPConfig.from_open_clip(guessed) == read, name
        names.append(name)
    assert len(names) > 40
