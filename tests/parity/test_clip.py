"""CLIP against transformers and open_clip, on checkpoints that those libraries wrote, and at full size by name."""

from __future__ import annotations

import json

import jax
import numpy as np
import open_clip
import pytest
import torch
import transformers
from flax import serialization

from jaxad.models.clip.checkpoints import CLIP_LAYOUTS
from jaxad.models.clip.loading import load_clip, load_text_tower
from jaxad.models.weights.key_map import to_torch
from jaxad.models.weights.loader import find_weights
from jaxad.nn import module_state

pytestmark = pytest.mark.parity

VISION = {"hidden_size": 48, "intermediate_size": 80, "num_hidden_layers": 2, "num_attention_heads": 3}
VISION |= {"image_size": 32, "patch_size": 8}
TEXT = {"hidden_size": 32, "intermediate_size": 72, "num_hidden_layers": 2, "num_attention_heads": 2}
TEXT |= {"vocab_size": 99, "max_position_embeddings": 12, "bos_token_id": 97, "eos_token_id": 98}
OPEN_CLIP = {
    "embed_dim": 24,
    "vision_cfg": {"image_size": 32, "patch_size": 8, "width": 128, "layers": 3, "mlp_ratio": 1.67},
    "text_cfg": {"context_length": 12, "vocab_size": 49408, "width": 64, "heads": 1, "layers": 2, "mlp_ratio": 1.5},
}


def randomize(model):
    """Draw weights so that no branch vanishes: gains about 1, biases and embeddings not 0."""
    generator = torch.Generator().manual_seed(0)
    for name, parameter in model.named_parameters():
        noise = torch.randn(parameter.shape, generator=generator)
        if name == "logit_scale":
            parameter.data = torch.tensor(3.0)
        elif parameter.ndim == 1 and ("norm" in name or "ln_" in name) and name.endswith("weight"):
            parameter.data = 1 + 0.2 * noise
        elif parameter.ndim == 1 and name.endswith("bias"):
            parameter.data = 0.2 * noise
        elif "embedding" in name and parameter.ndim < 3:
            parameter.data = noise
        elif name.endswith(("proj", "text_projection")):
            parameter.data = noise / len(parameter) ** 0.5
        else:
            parameter.data = noise / parameter[0].numel() ** 0.5
    return model.eval()


def draw_images(height, width):
    return np.random.default_rng(0).normal(size=(2, height, width, 3)).astype(np.float32)


def to_nchw(images):
    return torch.from_numpy(images.transpose(0, 3, 1, 2).copy())


def draw_ids(vocabulary, pad):
    """Three texts of 12 ids that end with the largest id at different places."""
    ids = np.random.default_rng(1).integers(1, vocabulary - 2, (3, 12))
    for row, end in zip(ids, (3, 8, 11), strict=True):
        row[end], row[end + 1 :] = vocabulary - 1, pad
    return ids.astype(np.int32)


def run(module, *inputs, **options):
    graphdef, arrays = module_state.split(module)
    with jax.default_matmul_precision("highest"):
        call = jax.jit(lambda arrays, *inputs: module_state.merge(graphdef, arrays)(*inputs, **options))
        return call(arrays, *inputs)


def assert_close(record_property, pairs):
    """Largest |error| / RMS of the reference below 1e-4 for every name."""
    errors = {}
    for name, (actual, expected) in pairs.items():
        expected = expected.detach().numpy()
        assert actual.shape == expected.shape, name
        errors[name] = float(np.abs(np.asarray(actual) - expected).max() / np.sqrt(np.mean(expected**2)))
    record_property("largest_error", max(errors.values()))
    print({name: f"{error:.1e}" for name, error in errors.items()})
    assert max(errors.values()) < 1e-4, errors


@pytest.fixture(scope="module")
def huggingface(tmp_path_factory):
    """A CLIPModel with quick_gelu, and the folder that it was saved to."""
    config = transformers.CLIPConfig(text_config=TEXT, vision_config=VISION, projection_dim=20)
    model = randomize(transformers.CLIPModel(config))
    folder = tmp_path_factory.mktemp("huggingface")
    model.save_pretrained(folder)
    return model, folder


@pytest.mark.parametrize("size", [(32, 32), (24, 56)], ids=["own grid", "another"])
def test_transformers_vision(huggingface, size, record_property):
    model, folder = huggingface
    images = draw_images(*size)
    with torch.no_grad():
        options = {"interpolate_pos_encoding": size != (32, 32), "output_hidden_states": True}
        reference = model.vision_model(to_nchw(images), **options)
        embedding = model.visual_projection(reference.pooler_output)
        patches = model.visual_projection(model.vision_model.post_layernorm(reference.last_hidden_state[:, 1:]))
    output = run(load_clip(find_weights(folder)).vision, images, taps=(0, 1))
    assert_close(
        record_property,
        {
            "tokens": (output.tokens, reference.last_hidden_state),
            "tap 0": (output.taps[0], reference.hidden_states[1]),
            "tap 1": (output.taps[1], reference.hidden_states[2]),
            "pooled": (output.pooled, reference.pooler_output),
            "embedding": (output.embedding, embedding),
            "patches": (output.patches, patches),
        },
    )


def test_transformers_text_and_scale(huggingface, record_property):
    model, folder = huggingface
    ids = draw_ids(99, pad=98)
    with torch.no_grad():
        reference = model.text_model(torch.from_numpy(ids).long())
        embedding = model.text_projection(reference.pooler_output)
    network = load_clip(find_weights(folder))
    output = run(network.text, ids)
    assert_close(
        record_property,
        {
            "hidden": (output.hidden, reference.last_hidden_state),
            "pooled": (output.pooled, reference.pooler_output),
            "embedding": (output.embedding, embedding),
            "scale": (network.scale(), model.logit_scale.exp()),
        },
    )


@pytest.mark.parametrize("end", [2, 98], ids=["old config", "new config"])
def test_text_towers_of_stable_diffusion(tmp_path, end, record_property):
    """Exact GELU; old configs say the end token is 2; the penultimate output passes the final norm as in LDM."""
    config = transformers.CLIPTextConfig(**TEXT | {"eos_token_id": end}, hidden_act="gelu", projection_dim=20)
    model = randomize(transformers.CLIPTextModelWithProjection(config))
    model.save_pretrained(tmp_path / "projected")
    model.text_model.save_pretrained(tmp_path / "bare")
    ids = draw_ids(99, pad=0)
    with torch.no_grad():
        reference = model.text_model(torch.from_numpy(ids).long(), output_hidden_states=True)
        penultimate = model.text_model.final_layer_norm(reference.hidden_states[-2])
        embedding = model(torch.from_numpy(ids).long()).text_embeds
    bare, projected = (load_text_tower(find_weights(tmp_path / name)) for name in ("bare", "projected"))
    skipped = run(bare, ids, skip=1)
    output = run(projected, ids)
    assert_close(
        record_property,
        {
            "hidden": (output.hidden, reference.last_hidden_state),
            "pooled": (output.pooled, reference.pooler_output),
            "embedding": (output.embedding, embedding),
            "penultimate": (skipped.hidden, penultimate),
        },
    )
    assert bare.projection is None


def assert_same(first, second):
    first, second = (module_state.split(module)[1] for module in (first, second))
    assert first.keys() == second.keys()
    for path, array in first.items():
        np.testing.assert_array_equal(array, second[path], err_msg=path)


def flax_tree(state):
    """A state dict of transformers as its Flax classes saved it."""
    tree: dict = {}
    for name, tensor in state.items():
        *parents, leaf = name.split(".")
        array = tensor.numpy()
        if leaf == "weight" and array.ndim == 4:
            leaf, array = "kernel", array.transpose(2, 3, 1, 0)
        elif leaf == "weight" and array.ndim == 2:
            leaf, array = ("embedding", array) if "embedding" in parents[-1] else ("kernel", array.T)
        elif leaf == "weight":
            leaf = "scale"
        node = tree
        for part in parents:
            node = node.setdefault(part, {})
        node[leaf] = np.array(array, order="C")
    return tree


def test_formats_hold_the_same(huggingface, tmp_path):
    model, folder = huggingface
    expected = load_clip(find_weights(folder))
    config = (folder / "config.json").read_text()
    for name in ("pytorch_model.bin", "flax_model.msgpack"):
        other = tmp_path / name.split(".")[-1]
        other.mkdir()
        (other / "config.json").write_text(config)
        if name.endswith("bin"):
            torch.save(model.state_dict(), other / name)
        else:
            (other / name).write_bytes(serialization.msgpack_serialize(flax_tree(model.state_dict())))
        assert_same(load_clip(find_weights(other)), expected)


def test_round_trip_is_bit_equal(huggingface, tmp_path):
    model, folder = huggingface
    written = to_torch(load_clip(find_weights(folder)), CLIP_LAYOUTS["transformers"])
    state = model.state_dict()
    assert written.keys() == state.keys()
    assert all(torch.equal(torch.tensor(tensor), state[name]) for name, tensor in written.items())


@pytest.fixture(scope="module")
def open_clip_model():
    return randomize(open_clip.CLIP(**OPEN_CLIP))


@pytest.fixture(scope="module")
def open_clip_file(open_clip_model, tmp_path_factory):
    """As training with several devices leaves it."""
    file = tmp_path_factory.mktemp("open_clip") / "epoch_31.pt"
    state = {f"module.{name}": tensor for name, tensor in open_clip_model.state_dict().items()}
    torch.save({"epoch": 31, "name": "run", "state_dict": state}, file)
    return file


def two_paths_by_torch(visual, images, vv_blocks):
    """Tokens along both paths after each block, and the final patches and class token."""
    o = x = visual._embeds(images)
    taps = []
    first = len(visual.transformer.resblocks) - vv_blocks
    for index, block in enumerate(visual.transformer.resblocks):
        if index < first:
            o = x = block(o)
        else:
            u, attn = block.ln_1(o), block.attn
            q, k, v = (u @ attn.in_proj_weight.T + attn.in_proj_bias).chunk(3, dim=-1)

            def attend(q, k, v, attn=attn):
                q, k, v = (y.unflatten(-1, (attn.num_heads, -1)).transpose(1, 2) for y in (q, k, v))
                shares = (q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5).softmax(-1)
                return attn.out_proj((shares @ v).transpose(1, 2).flatten(2))

            x = x + attend(v, v, v)
            o = o + attend(q, k, v)
            o = o + block.mlp(block.ln_2(o))
        taps.append((o, x))
    x = torch.cat([o[:, :1], x[:, 1:]], dim=1)
    shared = visual.ln_post(x) @ visual.proj
    return taps, shared[:, 0], shared[:, 1:]


def resized(model, size):
    """The same model for images of another size, its positions interpolated by open_clip."""
    if size == (32, 32):
        return model
    other = open_clip.CLIP(**OPEN_CLIP | {"vision_cfg": {**OPEN_CLIP["vision_cfg"], "image_size": size}})
    state = model.state_dict()
    open_clip.model.resize_pos_embed(state, other)
    other.load_state_dict(state)
    return other.eval()


@pytest.mark.parametrize(("size", "vv_blocks"), [((32, 32), 0), ((40, 24), 2), ((24, 24), 3)])
def test_open_clip_vision(open_clip_model, open_clip_file, size, vv_blocks, record_property):
    images = draw_images(*size)
    reference = resized(open_clip_model, size)
    with torch.no_grad():
        taps, embedding, patches = two_paths_by_torch(reference.visual, to_nchw(images), vv_blocks)
        encoded = reference.encode_image(to_nchw(images))
    path = "original" if vv_blocks == 2 else "vv"
    tower = load_clip(find_weights(open_clip_file)).vision
    output = run(tower, images, taps=(0, 1, 2), vv_blocks=vv_blocks, tapped_path=path)
    assert_close(
        record_property,
        {
            "embedding": (output.embedding, encoded),
            "embedding by blocks": (output.embedding, embedding),
            "patches": (output.patches, patches),
            **{f"tap {i}": (output.taps[i], both[path == "vv"]) for i, both in enumerate(taps)},
        },
    )


def test_open_clip_text(open_clip_model, open_clip_file, record_property):
    ids = draw_ids(49408, pad=0)
    with torch.no_grad():
        expected = open_clip_model.encode_text(torch.from_numpy(ids).long())
    network = load_clip(find_weights(open_clip_file))
    pairs = {"embedding": (run(network.text, ids).embedding, expected)}
    assert_close(record_property, pairs | {"scale": (network.scale(), open_clip_model.logit_scale.exp())})


def test_clipa(tmp_path, record_property):
    """The ViT of open_clip that differs most: no norm before, mean of patches, no causal mask, last token."""
    config = {
        "embed_dim": 12,
        "vision_cfg": {"image_size": 24, "patch_size": 8, "width": 32, "head_width": 16, "layers": 1}
        | {"no_ln_pre": True, "pool_type": "avg", "final_ln_after_pool": True, "ls_init_value": 1.0},
        "text_cfg": {"context_length": 12, "vocab_size": 99, "width": 32, "heads": 2, "layers": 1}
        | {"no_causal_mask": True, "pool_type": "last"},
    }
    model = randomize(open_clip.CLIP(**config))
    (tmp_path / "open_clip_config.json").write_text(json.dumps({"model_cfg": config}))
    torch.save(model.state_dict(), tmp_path / "open_clip_pytorch_model.bin")
    network = load_clip(find_weights(tmp_path))
    images, ids = draw_images(24, 24), draw_ids(99, pad=0)
    with torch.no_grad():
        image, text = model.encode_image(to_nchw(images)), model.encode_text(torch.from_numpy(ids).long())
    output = run(network.vision, images)
    assert_close(
        record_property, {"image": (output.embedding, image), "text": (run(network.text, ids).embedding, text)}
    )


def test_openai_half_precision(open_clip_model, tmp_path):
    """OpenAI's own files: names of open_clip, mostly half precision, sizes as tensors, quick_gelu."""
    reference = open_clip.CLIP(**OPEN_CLIP, quick_gelu=True)
    reference.load_state_dict(open_clip_model.state_dict())
    open_clip.model.convert_weights_to_lp(reference)
    state = reference.state_dict()
    sizes = {
        "input_resolution": torch.tensor(32),
        "context_length": torch.tensor(12),
        "vocab_size": torch.tensor(49408),
    }
    torch.save(state | sizes, tmp_path / "ViT-X.pt")
    network = load_clip(find_weights(tmp_path / "ViT-X.pt"))
    assert {network.vision.config.activation, network.text.config.activation} == {"quick_gelu"}
    for name, tensor in to_torch(network, CLIP_LAYOUTS["open_clip"]).items():
        assert tensor.dtype == np.float32
        np.testing.assert_array_equal(tensor, state[name].float().numpy(), err_msg=name)
    assert state["visual.proj"].dtype == torch.float16
