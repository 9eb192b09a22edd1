"""The ViT against transformers' DINOv2 classes, on checkpoints that save_pretrained wrote and on real weights."""

from __future__ import annotations

import jax
import numpy as np
import pytest

from jaxad import module_state
from jaxad.models.positions import resize_matrix
from jaxad.models.vit import ViTConfig, abstract_vit, load_vit
from jaxad.models.weights import find_weights

torch = pytest.importorskip("torch")
import transformers  # noqa: E402

pytestmark = pytest.mark.parity

SMALL = {"hidden_size": 48, "num_hidden_layers": 3, "num_attention_heads": 3, "patch_size": 14, "image_size": 112}


def randomise(model):
    """Draw weights so that no branch vanishes: gains about 1, biases and tokens not 0."""
    generator = torch.Generator().manual_seed(0)
    for name, parameter in model.named_parameters():
        noise = torch.randn(parameter.shape, generator=generator)
        if "lambda1" in name or (parameter.ndim == 1 and name.endswith("weight")):
            parameter.data = 1 + 0.2 * noise
        elif parameter.ndim == 1:
            parameter.data = 0.2 * noise
        elif name.endswith("weight"):
            parameter.data = noise / parameter[0].numel() ** 0.5
        else:
            parameter.data = noise


def largest_error(model, folder, size):
    """Largest |error| / RMS of the reference over the final output and every block's output."""
    images = np.random.default_rng(0).normal(size=(2, *size, 3)).astype(np.float32)
    with torch.no_grad():
        reference = model(torch.from_numpy(images.transpose(0, 3, 1, 2)), output_hidden_states=True)
    network = load_vit(find_weights(folder))
    graphdef, arrays = module_state.split(network)
    blocks = tuple(range(network.config.depth))
    with jax.default_matmul_precision("highest"):
        x, taps = jax.jit(lambda arrays, images: module_state.merge(graphdef, arrays)(images, blocks))(arrays, images)
    pairs = [(x, reference.last_hidden_state), *((taps[i], reference.hidden_states[i + 1]) for i in blocks)]
    assert len(pairs) == 1 + len(reference.hidden_states) - 1
    return max(float(np.abs(a - b.numpy()).max() / np.sqrt(np.mean(b.numpy() ** 2))) for a, b in pairs)


@pytest.mark.parametrize("size", [(112, 112), (56, 56), (154, 196)], ids=["own grid", "shrunk", "grown"])
@pytest.mark.parametrize("kind", ["plain", "swiglu", "registers"])
def test_small_random_checkpoint(tmp_path, kind, size):
    if kind == "registers":
        config = transformers.Dinov2WithRegistersConfig(**SMALL, num_register_tokens=3)
        model = transformers.Dinov2WithRegistersModel(config).eval()
    else:
        model = transformers.Dinov2Model(transformers.Dinov2Config(**SMALL, use_swiglu_ffn=kind == "swiglu")).eval()
    randomise(model)
    model.save_pretrained(tmp_path)
    assert largest_error(model, tmp_path, size) < 1e-4


def test_sharded_checkpoint(tmp_path):
    model = transformers.Dinov2Model(transformers.Dinov2Config(**SMALL)).eval()
    randomise(model)
    model.save_pretrained(tmp_path, max_shard_size="100KB")
    assert len(list(tmp_path.glob("*.safetensors"))) > 1
    assert largest_error(model, tmp_path, (56, 56)) < 1e-4


def test_registers_with_published_positions_at_448(tmp_path):
    shape = {"hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 3, "patch_size": 14, "image_size": 518}
    model = transformers.Dinov2WithRegistersModel(transformers.Dinov2WithRegistersConfig(**shape)).eval()
    randomise(model)
    model.save_pretrained(tmp_path)
    assert largest_error(model, tmp_path, (448, 448)) < 1e-4


@pytest.mark.real
@pytest.mark.parametrize("side", [224, 448])
def test_real_dinov2_small(real_data, side):
    folder = real_data / "weights" / "dinov2-small"
    model = transformers.Dinov2Model.from_pretrained(folder, dtype=torch.float32).eval()
    assert largest_error(model, folder, (side, side)) < 1e-4


@pytest.mark.parametrize(("size", "registers"), [("base", 0), ("base", 4), ("large", 0), ("giant", 0)])
def test_full_size_has_the_parameters_of_the_torch_class(size, registers):
    config = ViTConfig.dinov2(size, registers)
    shape = {
        "hidden_size": config.width,
        "num_hidden_layers": config.depth,
        "num_attention_heads": config.heads,
        "patch_size": 14,
        "image_size": 518,
        "use_swiglu_ffn": config.swiglu,
    }
    with torch.device("meta"):
        if registers:
            model = transformers.Dinov2WithRegistersModel(transformers.Dinov2WithRegistersConfig(**shape))
        else:
            model = transformers.Dinov2Model(transformers.Dinov2Config(**shape))
    expected = sum(p.numel() for name, p in model.named_parameters() if not name.endswith("mask_token"))
    assert sum(np.prod(array.shape) for array in module_state.split(abstract_vit(config))[1].values()) == expected


@pytest.mark.parametrize("new", [16, 28, 32, 37, 50])
def test_positions_are_resized_as_by_torch(new):
    values = np.random.default_rng(0).normal(size=(1, 2, 37, 37)).astype(np.float32)

    def by_torch(**how):
        return torch.nn.functional.interpolate(torch.from_numpy(values), mode="bicubic", **how).numpy()

    def by_us(interpolation):
        matrix = resize_matrix(37, new, interpolation)
        return np.einsum("ij,kl,bcjl->bcik", matrix, matrix, values)

    np.testing.assert_allclose(by_us("bicubic"), by_torch(size=(new, new)), atol=3e-5)
    np.testing.assert_allclose(by_us("antialias"), by_torch(size=(new, new), antialias=True), atol=3e-5)
    np.testing.assert_allclose(by_us("dinomaly"), by_torch(scale_factor=(new + 0.1) / 37), atol=3e-5)
