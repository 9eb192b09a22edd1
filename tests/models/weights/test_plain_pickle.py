"""Pickles that would take all memory, or never end, or end the process: refused, in both forms of torch.save."""

from __future__ import annotations

import io
import pickle
import zipfile

import numpy as np
import pytest

from jaxad.errors import WeightsError
from jaxad.models.weights import plain_pickle, torch_pickle
from jaxad.models.weights.loader import read_tensors
from jaxad.models.weights.plain_pickle import PlainUnpickler
from tests.models.weights.torch_files import MAGIC, SYSTEM, Call, Global, Storage, tensor, write_torch

LAUGHS = b")q\x00" + b"h\x00h\x00\x86q\x00" * 60
"""A tuple of the same tuple twice, sixty times over: a few bytes that take 2 ** 60 steps to hash or print."""


def size(number):
    return number.to_bytes(8, "little")


BOMBS = {
    "text of a terabyte": b"\x8d" + size(1 << 40),
    "bytes of a terabyte": b"\x8e" + size(1 << 40),
    "buffer of a terabyte": b"\x96" + size(1 << 40),
    "frame of a terabyte": b"\x95" + size(1 << 40),
    "number of a gigabyte": b"\x8b\x00\x00\x00\x40",
    "key that is hashed for ever": b"}" + LAUGHS + b"Ns",
    "keys that are hashed for ever": b"}(" + LAUGHS + b"Nu",
    "dict of such keys": b"(" + LAUGHS + b"N" + b"d",
    "set of such members": b"\x8f(" + LAUGHS + b"\x90",
    "frozen set of such members": b"(" + LAUGHS + b"\x91",
    "set made of such members": b"cbuiltins\nset\n(" + LAUGHS + b"l\x85R",
    "dict made of such keys": b"ccollections\nOrderedDict\n(" + LAUGHS + b"N\x86l\x85R",
    "key deeper than the stack": b"})" + b"\x85" * 200_000 + b"Ns",
    "storage called by it": LAUGHS + b"Q",
    "tensor of it": b"ctorch._utils\n_rebuild_tensor_v2\n(N" + LAUGHS * 3 + b"tR",
    "extension": b"\x82\x01",
}


@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "legacy"])
@pytest.mark.parametrize("name", BOMBS)
def test_bombs_are_refused_at_once(tmp_path, name, legacy):
    file, content = tmp_path / "net.pth", b"\x80\x02" + BOMBS[name] + b"."
    if legacy:
        file.write_bytes(b"".join(pickle.dumps(part, 2) for part in (MAGIC, 1001, SYSTEM)) + content)
    else:
        with zipfile.ZipFile(file, "w") as archive:
            archive.writestr("archive/data.pkl", content)
    with pytest.raises(WeightsError, match=r"net\.pth: damaged"):
        read_tensors(file)


def test_a_memo_of_any_number_takes_no_room():
    assert PlainUnpickler(io.BytesIO(b"\x80\x02Nr\xff\xff\xff\x7f.")).load() is None


class Containers(PlainUnpickler):
    def find_class(self, module, name):
        return self.container(module, name)


def test_copies_are_counted(monkeypatch):
    monkeypatch.setattr(plain_pickle, "OPCODES", 100)
    monkeypatch.setattr(plain_pickle._Opcodes, "left", 1000)
    ten = b"\x80\x02(" + b"N" * 10 + b"lq\x00"
    copies = b"cbuiltins\nlist\nh\x00\x85R"
    assert Containers(io.BytesIO(ten + copies * 10 + b".")).load() == [None] * 10
    with pytest.raises(ValueError, match="copies"):
        Containers(io.BytesIO(ten + copies * 11 + b".")).load()


def test_opcodes_are_counted(monkeypatch):
    monkeypatch.setattr(plain_pickle._Opcodes, "left", 50)
    PlainUnpickler(io.BytesIO(b"N0" * 24 + b"N.")).load()
    with pytest.raises(ValueError, match="opcodes"):
        PlainUnpickler(io.BytesIO(b"N0" * 25 + b"N.")).load()


def test_plain_keys_are_keys():
    value = {1: "a", "b": 2.5, None: {1, 2}, (1, "x"): frozenset({"y"}), "c": [True], -(1 << 60): ()}
    for protocol in range(6):
        assert Containers(io.BytesIO(pickle.dumps(value, protocol))).load() == value


def test_numbers_that_all_have_one_hash_are_no_keys():
    modulus = (1 << 61) - 1
    assert {hash(modulus * factor) for factor in range(9)} == {0}
    with pytest.raises(ValueError, match="key"):
        PlainUnpickler(io.BytesIO(pickle.dumps({modulus * 3: 0}, 2))).load()


def test_a_state_dict_that_holds_itself_ends(tmp_path):
    content = {}
    content["model"] = content
    write_torch(tmp_path / "net.pth", content)
    with pytest.raises(WeightsError, match="no state dict"):
        read_tensors(tmp_path / "net.pth")


@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "legacy"])
def test_a_dtype_is_a_dtype(tmp_path, legacy):
    """Not an object whose name is hashed for ever."""
    laughs = ()
    for _ in range(60):
        laughs = (laughs, laughs)
    hooks = Call(Global("collections", "OrderedDict"), ())
    forged = Call(Global("collections", "OrderedDict"), (), {"name": laughs})
    storage = Storage(np.ones(2, np.uint8))
    call = Call(Global("torch._utils", "_rebuild_tensor_v3"), (storage, 0, (2,), (1,), False, hooks, forged))
    write_torch(tmp_path / "net.pth", {"w": call}, legacy=legacy)
    with pytest.raises(WeightsError, match=r"net\.pth: damaged"):
        read_tensors(tmp_path / "net.pth")


def test_names_of_storages_are_names(tmp_path):
    write_torch(tmp_path / "net.pth", {"w": tensor(Storage(np.ones(1, np.float32)), 0, (1,), (1,))}, legacy=True)
    content = (tmp_path / "net.pth").read_bytes()
    keys = pickle.dumps(["0"], 2)
    assert content.count(keys) == 1
    forged = b"\x80\x02(" + LAUGHS + b"l."
    (tmp_path / "net.pth").write_bytes(content.replace(keys, forged))
    with pytest.raises(WeightsError, match=r"net\.pth: damaged"):
        read_tensors(tmp_path / "net.pth")


def test_a_list_of_members_as_long_as_the_file_says(tmp_path, monkeypatch):
    write_torch(tmp_path / "net.pth", {f"w{number}": tensor(Storage(np.ones(1)), 0, (1,), (1,)) for number in range(9)})
    assert len(read_tensors(tmp_path / "net.pth")) == 9
    monkeypatch.setattr(torch_pickle, "LONGEST", 300)
    with pytest.raises(WeightsError, match="list of members"):
        read_tensors(tmp_path / "net.pth")


@pytest.mark.parametrize("shape", [(1 << 20, 1 << 20), (1 << 62, 2), (1,) * 40])
def test_a_view_larger_than_any_memory_is_refused(tmp_path, shape):
    view = tensor(Storage(np.ones(1, np.float32)), 0, shape, (0,) * len(shape))
    write_torch(tmp_path / "net.pth", {"w": view})
    with pytest.raises(WeightsError, match=r"net\.pth"):
        read_tensors(tmp_path / "net.pth")


def test_many_views_of_one_storage_are_bounded_together(tmp_path):
    storage = Storage(np.ones(1, np.float32))
    side = 1 << 23
    write_torch(tmp_path / "net.pth", {f"w{number}": tensor(storage, 0, (side,), (0,)) for number in range(4)})
    with pytest.raises(WeightsError, match="w2: shows more"):
        read_tensors(tmp_path / "net.pth")
