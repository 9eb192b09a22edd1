"""LPIPS, the discriminator and the gradients of autoencoder finetuning against torch, on small random networks."""

from __future__ import annotations

import copy

import jax
import numpy as np
import pytest
import safetensors.numpy
import torch
from diffusers import AutoencoderKL
from torch import nn
from torchvision.models import vgg16

from jaxad.config import FirstStageConfig
from jaxad.models.convnets.lpips import load_lpips
from jaxad.models.convnets.patch_discriminator import load_discriminator
from jaxad.models.convnets.vgg import abstract_vgg16, key_maps
from jaxad.models.stable_diffusion.autoencoder_kl import load_autoencoder, save_autoencoder
from jaxad.models.stable_diffusion.checkpoints import autoencoder_key_maps
from jaxad.models.weights.key_map import to_torch
from jaxad.models.weights.loader import find_weights
from jaxad.nn import module_state
from jaxad.training.autoencoder.loss import AUTOENCODER, DISCRIMINATOR, LPIPS, AutoencoderLoss

pytestmark = pytest.mark.parity

STAGES = ((4, 4), (6, 6), (8, 8, 8), (10, 10, 10), (10, 10, 10))
SIZE = 32
BOUND = 1e-4


def error(ours, theirs):
    """max |error| / RMS(reference)."""
    theirs = theirs.detach().numpy() if isinstance(theirs, torch.Tensor) else theirs
    return float(np.abs(np.asarray(ours) - theirs).max() / np.sqrt(np.square(theirs).mean()))


def randomize(module, seed=0):
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in module.named_parameters():
        gain = parameter.ndim == 1 and name.endswith("weight")
        scale = 0.2 if parameter.ndim == 1 else parameter[0].numel() ** -0.5
        parameter.data = gain + scale * torch.randn(parameter.shape, generator=generator)
    return module


def narrow_vgg():
    """torchvision's VGG16 with few channels, its 31 modules at their usual places."""
    network, inputs, layers = vgg16(), 3, []
    for stage, widths in enumerate(STAGES):
        for width in widths:
            layers += [nn.Conv2d(inputs, width, 3, padding=1), nn.ReLU()]
            inputs = width
        layers.append(network.features[4 if stage == 0 else 9])
    return randomize(nn.Sequential(*layers))


class TorchLPIPS(nn.Module):
    """The distance as its paper defines it (arXiv 1801.03924, Eq. 1), on torchvision's modules."""

    def __init__(self, features):
        super().__init__()
        self.features = features
        for stage, widths in enumerate(STAGES):
            weights = torch.rand(widths[-1], generator=torch.Generator().manual_seed(stage))
            self.register_buffer(f"weights{stage}", weights)

    def forward(self, first, second):
        shift, scale = torch.tensor([-0.030, -0.088, -0.188]), torch.tensor([0.458, 0.448, 0.450])
        pair = [(x - shift[None, :, None, None]) / scale[None, :, None, None] for x in (first, second)]
        total, stage = 0, 0
        for place, layer in enumerate(self.features):
            pair = [layer(x) for x in pair]
            if isinstance(layer, nn.ReLU) and isinstance(self.features[place + 1], nn.MaxPool2d):
                unit = [x / (torch.linalg.vector_norm(x, dim=1, keepdim=True) + 1e-10) for x in pair]
                weights = getattr(self, f"weights{stage}")
                total = total + torch.einsum("bchw,c->bhw", (unit[0] - unit[1]) ** 2, weights).mean((1, 2))
                stage += 1
        return total

    def files(self, folder):
        tensors = {f"features.{name}": tensor.numpy() for name, tensor in self.features.state_dict().items()}
        safetensors.numpy.save_file(tensors, folder / "vgg16.safetensors")
        linears = {f"lin{s}.model.1.weight": getattr(self, f"weights{s}").numpy() for s in range(len(STAGES))}
        linears = {name: tensor.reshape(1, -1, 1, 1) for name, tensor in linears.items()}
        safetensors.numpy.save_file(linears, folder / "lpips.safetensors")
        return folder / "vgg16.safetensors", folder / "lpips.safetensors"


def torch_discriminator(width=8):
    """PatchGAN (arXiv 1611.07004): its modules where latent diffusion has them."""
    layers = [nn.Conv2d(3, width, 4, 2, 1), nn.LeakyReLU(0.2)]
    for layer, stride in ((1, 2), (2, 2), (3, 1)):
        n_in, n_out = width * 2 ** (layer - 1), width * 2**layer
        layers += [nn.Conv2d(n_in, n_out, 4, stride, 1, bias=False), nn.BatchNorm2d(n_out), nn.LeakyReLU(0.2)]
    layers.append(nn.Conv2d(8 * width, 1, 4, 1, 1))
    return randomize(nn.Sequential(*layers), seed=5).train()


@pytest.fixture(scope="module")
def torch_networks():
    shape = {"down_block_types": ("DownEncoderBlock2D",) * 2, "up_block_types": ("UpDecoderBlock2D",) * 2}
    autoencoder = AutoencoderKL(**shape, block_out_channels=(32, 32), layers_per_block=1)
    return randomize(autoencoder, seed=3), TorchLPIPS(narrow_vgg()), torch_discriminator()


@pytest.fixture(scope="module")
def networks(torch_networks, tmp_path_factory):
    """Ours, read from files that the torch networks wrote."""
    folder = tmp_path_factory.mktemp("networks")
    autoencoder, lpips, discriminator = torch_networks
    autoencoder.save_pretrained(folder / "vae")
    tensors = {f"loss.discriminator.main.{name}": t.numpy() for name, t in discriminator.state_dict().items()}
    safetensors.numpy.save_file(tensors, folder / "discriminator.safetensors")
    return {
        AUTOENCODER: load_autoencoder(folder / "vae"),
        LPIPS: load_lpips(*lpips.files(folder)),
        DISCRIMINATOR: load_discriminator(find_weights(folder / "discriminator.safetensors")),
    }


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(7).normal(0, 1, (2, SIZE, SIZE, 3)).astype(np.float32)


def to_nchw(images):
    return torch.tensor(np.asarray(images)).permute(0, 3, 1, 2)


def test_torchvision_and_lpips_names_at_full_size():
    """Names and shapes of the published files: torchvision's VGG16 on the meta device."""
    with torch.device("meta"):
        theirs = {name: tuple(t.shape) for name, t in vgg16().state_dict().items() if name.startswith("features.")}
    graphdef, arrays = module_state.split(abstract_vgg16())
    zeros = module_state.merge(graphdef, {path: np.broadcast_to(np.float32(0), a.shape) for path, a in arrays.items()})
    ours = to_torch(zeros, key_maps()["torchvision"])
    assert {name: tensor.shape for name, tensor in ours.items()} == theirs
    assert sum(tensor.size for tensor in ours.values()) == 14_714_688
    slices = to_torch(zeros, key_maps()["lpips"])
    assert {name.split(".")[-2] for name in slices} == {name.split(".")[1] for name in theirs}
    assert "net.slice5.28.weight" in slices


def test_loss_and_every_gradient(torch_networks, networks, images, capsys):
    """One batch with the adversary active: all terms, the adaptive weight, and the gradients of both networks."""
    config = FirstStageConfig(kl_weight=1e-2, perceptual_weight=0.7, discriminator_weight=0.5)
    graphdefs, arrays = {}, {}
    for name, network in networks.items():
        graphdefs[name], own = module_state.split(network)
        arrays |= {f"{name}/{path}": array for path, array in own.items()}
    key = jax.random.key(11)
    with jax.default_matmul_precision("highest"):
        loss = jax.jit(AutoencoderLoss(graphdefs, config).__call__)
        metrics, gradients = loss(arrays, images, key, np.float32(1))

    # In double precision, so that the errors are ours alone.
    autoencoder, lpips, discriminator = (copy.deepcopy(network).double() for network in torch_networks)
    x = to_nchw(images).double()
    moments = autoencoder.encode(x).latent_dist
    shape = moments.mean.permute(0, 2, 3, 1).shape[1:]
    noise = jax.vmap(lambda key: jax.random.normal(key, shape))(jax.random.split(key, len(images)))
    y = autoencoder.decode(moments.mean + moments.std * to_nchw(noise)).sample
    kl = 0.5 * (moments.mean**2 + moments.var - 1 - moments.logvar).sum() / len(x)
    distance = lpips(x, y)
    nll = ((x - y).abs() + 0.7 * distance[:, None, None, None]).sum() / len(x)
    generator = -discriminator(y).mean()
    last = autoencoder.decoder.conv_out.weight
    norms = [torch.autograd.grad(term, last, retain_graph=True)[0].norm() for term in (nll, generator)]
    weight = 0.5 * torch.clamp(norms[0] / (norms[1] + 1e-4), 0, 1e4).detach()
    (nll + 1e-2 * kl + weight * generator).backward()
    discriminator.zero_grad()
    judgement = 0.5 * (torch.relu(1 - discriminator(x)).mean() + torch.relu(1 + discriminator(y.detach())).mean())
    judgement.backward()

    theirs = {"lpips": distance.mean(), "kl": kl, "adaptive_weight": weight, "generator": generator}
    theirs |= {"discriminator": judgement, "loss": nll + 1e-2 * kl + weight * generator}
    errors = {name: error(metrics[name], value) for name, value in theirs.items()}
    assert 0.01 < float(weight) < 0.5e4
    ours = networks_with(networks, gradients)
    expected = {n: p.grad.numpy() for n, p in autoencoder.named_parameters()}
    found = to_torch(ours[AUTOENCODER], autoencoder_key_maps(networks[AUTOENCODER].config)["diffusers"])
    assert found.keys() == expected.keys()
    errors["autoencoder gradients"] = joint_error(found, expected)
    kernels = {f"convs/{i}/kernel": place for i, place in enumerate((0, 2, 5, 8))} | {"last/kernel": 11}
    parameters = dict(discriminator.named_parameters())
    expected = {path: parameters[f"{place}.weight"].grad.numpy() for path, place in kernels.items()}
    found = {path: np.transpose(gradients[f"{DISCRIMINATOR}/{path}"], (3, 2, 0, 1)) for path in kernels}
    errors["discriminator gradients"] = joint_error(found, expected)
    with capsys.disabled():
        print("\n" + ", ".join(f"{name} {value:.1e}" for name, value in errors.items()))
    assert max(errors.values()) < BOUND


def networks_with(networks, gradients):
    """The networks with their gradients in the places of their parameters."""
    filled = {}
    for name in (AUTOENCODER, DISCRIMINATOR):
        graphdef, own = module_state.split(networks[name])
        filled[name] = module_state.merge(graphdef, {path: gradients[f"{name}/{path}"] for path in own})
    return filled


def joint_error(ours, theirs):
    """Error of all arrays as one vector: some gradients vanish but for rounding."""
    flat = [np.concatenate([np.ravel(arrays[name]) for name in sorted(theirs)]) for arrays in (ours, theirs)]
    return error(*flat)


def test_saved_folder_in_diffusers(networks, images, tmp_path):
    """What finetuning saves reconstructs the same there."""
    network = networks[AUTOENCODER]
    save_autoencoder(network, tmp_path)
    theirs = AutoencoderKL.from_pretrained(tmp_path)
    with torch.no_grad():
        expected = theirs(to_nchw(images)).sample.permute(0, 2, 3, 1)
    graphdef, arrays = module_state.split(network)

    @jax.jit
    def reconstruct(arrays, images):
        autoencoder = module_state.merge(graphdef, arrays)
        return autoencoder.decode(autoencoder.encode(images).mean)

    with jax.default_matmul_precision("highest"):
        assert error(reconstruct(arrays, images), expected) < BOUND
