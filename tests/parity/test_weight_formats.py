"""Files that torch, safetensors and Flax write, read without them; and weights on their way through jaxad and back."""

from __future__ import annotations

import argparse
from collections import OrderedDict

import flax.serialization
import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from jaxad.errors import WeightsError
from jaxad.models.weights.conversion import convert
from jaxad.models.weights.loader import find_weights, read_tensors

pytestmark = pytest.mark.parity

forms = pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
DTYPES = [
    torch.float64,
    torch.float32,
    torch.float16,
    torch.bfloat16,
    torch.int64,
    torch.int32,
    torch.uint8,
    torch.bool,
]


def state_dict():
    """Tensors of every type, scalars and empty ones, all contiguous and with memory of their own."""
    generator = torch.Generator().manual_seed(0)
    tensors = {str(dtype): (4 * torch.randn(5, 7, generator=generator)).to(dtype) for dtype in DTYPES}
    return tensors | {
        "scalar": torch.tensor(2.5),
        "empty": torch.zeros(0, 3),
        "conv": tensors["torch.float32"].repeat(2, 1)[:8, :6].reshape(4, 3, 2, 2).clone(),
    }


def bits(tensor):
    """A torch tensor's dtype, shape and bytes; numpy has no bfloat16 of its own."""
    name = str(tensor.dtype).removeprefix("torch.")
    return name, tuple(tensor.shape), tensor.detach().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()


def assert_same(tensors, expected):
    assert set(tensors) == set(expected)
    for name, tensor in expected.items():
        array = tensors[name]
        assert (array.dtype.name, array.shape, array.tobytes()) == bits(tensor), name


@forms
def test_torch(tmp_path, zipped):
    torch.save(state_dict(), tmp_path / "net.pth", _use_new_zipfile_serialization=zipped)
    assert_same(read_tensors(tmp_path / "net.pth"), state_dict())


def test_safetensors(tmp_path):
    save_file(state_dict(), tmp_path / "net.safetensors")
    assert_same(read_tensors(tmp_path / "net.safetensors"), state_dict())


def test_flax(tmp_path):
    save_file(state_dict(), tmp_path / "net.safetensors")
    arrays = dict(read_tensors(tmp_path / "net.safetensors"))
    arrays["conv"] = {"kernel": arrays["conv"].transpose(2, 3, 1, 0)}
    (tmp_path / "net.msgpack").write_bytes(flax.serialization.msgpack_serialize(arrays))
    expected = state_dict()
    assert_same(read_tensors(tmp_path / "net.msgpack"), expected | {"conv.weight": expected.pop("conv")})


@forms
def test_views_and_shared_storages(tmp_path, zipped):
    base = torch.arange(24.0).reshape(4, 6)
    views = {
        "base": base,
        "transposed": base.T,
        "strided": base[1:3, ::2],
        "expanded": base[:1].expand(5, 6),
        "channels_last": torch.randn(2, 3, 4, 5).to(memory_format=torch.channels_last),
        "tied": base,
        "parameter": torch.nn.Parameter(base[2]),
    }
    torch.save(views, tmp_path / "net.pth", _use_new_zipfile_serialization=zipped)
    assert_same(read_tensors(tmp_path / "net.pth"), views)


def test_types_without_a_storage_class(tmp_path):
    tensors = {"f8": torch.randn(3, 4).to(torch.float8_e4m3fn).T, "u16": torch.arange(5).to(torch.uint16)}
    torch.save(tensors, tmp_path / "net.pth")
    assert_same(read_tensors(tmp_path / "net.pth"), tensors)


@forms
def test_training_checkpoint(tmp_path, zipped):
    net = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4), torch.nn.Linear(4, 2))
    net = net.to(memory_format=torch.channels_last)
    moments = {number: {"step": 3, "exp_avg": torch.zeros_like(p)} for number, p in enumerate(net.parameters())}
    checkpoint = {
        "epoch": 3,
        "best": np.float64(0.5),
        "args": argparse.Namespace(lr=0.1),
        "optimizer": {"state": moments, "param_groups": [{"lr": 0.1, "betas": (0.9, 0.999)}]},
        "rng": torch.get_rng_state(),
        "device": torch.device("cpu"),
        "dtype": torch.bfloat16,
        "size": torch.Size([1, 2]),
        "state_dict": OrderedDict((f"module.{name}", tensor) for name, tensor in net.state_dict().items()),
    }
    torch.save(checkpoint, tmp_path / "net.ckpt", _use_new_zipfile_serialization=zipped)
    assert_same(read_tensors(tmp_path / "net.ckpt"), net.state_dict())


@pytest.mark.filterwarnings("ignore:torch.quantize_per_tensor")
@forms
@pytest.mark.parametrize(
    ("content", "sign"),
    [
        (lambda: torch.nn.Linear(2, 2), "torch.nn.modules.linear.Linear"),
        (lambda: {"w": torch.quantize_per_tensor(torch.ones(3), 0.1, 0, torch.qint8)}, "quantized"),
        (lambda: {"w": torch.eye(3).to_sparse()}, "sparse"),
        (lambda: {"w": torch.randn(2, dtype=torch.complex64).conj()}, "pending operations"),
    ],
    ids=["module", "quantized", "sparse", "conjugate"],
)
def test_what_is_no_plain_tensor_is_refused(tmp_path, content, sign, zipped):
    torch.save(content(), tmp_path / "net.pt", _use_new_zipfile_serialization=zipped)
    with pytest.raises(WeightsError, match=sign):
        read_tensors(tmp_path / "net.pt")


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.safetensors"])
def test_round_trip_is_bit_equal(tmp_path, name):
    """torch -> jaxad convert -> safetensors -> torch."""
    (tmp_path / "in").mkdir()
    (torch.save if name.endswith("bin") else save_file)(state_dict(), tmp_path / "in" / name)
    convert(tmp_path / "in", tmp_path / "out", shard_bytes=300)
    back = {}
    for file in find_weights(tmp_path / "out").files:
        back |= load_file(file)
    assert {name: bits(tensor) for name, tensor in back.items()} == {
        name: bits(tensor) for name, tensor in state_dict().items()
    }
