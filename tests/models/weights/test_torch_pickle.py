"""The reader of what torch.save writes, on files made without torch; parity/test_weight_formats.py has torch's own."""

from __future__ import annotations

import pickle
import zipfile

import ml_dtypes
import numpy as np
import pytest

from jaxad.errors import WeightsError
from jaxad.models.weights.loader import read_tensors
from tests.models.weights.torch_files import MAGIC, Call, Global, Storage, tensor, tensor_of, write_torch

forms = pytest.mark.parametrize("legacy", [False, True], ids=["zip", "legacy"])
VALUES = np.arange(6, dtype=np.float32).reshape(2, 3)


@pytest.fixture
def file(tmp_path):
    return tmp_path / "net.pth"


def refusal(file):
    with pytest.raises(WeightsError) as caught:
        read_tensors(file)
    assert str(file) in str(caught.value)
    return str(caught.value)


@forms
@pytest.mark.parametrize(
    "dtype", ["float64", "float32", "float16", "int64", "int32", "int16", "int8", "uint8", "bool", ml_dtypes.bfloat16]
)
def test_every_type(file, dtype, legacy):
    array = np.arange(6).reshape(2, 3).astype(dtype)
    write_torch(file, {"a": tensor_of(array), "scalar": tensor_of(array[1, 2])}, legacy=legacy)
    tensors = read_tensors(file)
    np.testing.assert_array_equal(tensors["a"], array, strict=True)
    np.testing.assert_array_equal(tensors["scalar"], array[1, 2, ...], strict=True)


@forms
def test_views_share_a_storage(file, legacy):
    storage = Storage(np.arange(24, dtype=np.float32))
    views = {
        "transposed": tensor(storage, 0, (6, 4), (1, 6)),
        "every second": tensor(storage, 1, (3, 3), (6, 2)),
        "expanded": tensor(storage, 5, (2, 3), (0, 1)),
        "empty": tensor(storage, 0, (0, 3), (3, 1)),
    }
    write_torch(file, views, legacy=legacy)
    grid, tensors = np.arange(24, dtype=np.float32).reshape(4, 6), read_tensors(file)
    np.testing.assert_array_equal(tensors["transposed"], grid.T)
    np.testing.assert_array_equal(tensors["every second"], [[1, 3, 5], [7, 9, 11], [13, 15, 17]])
    np.testing.assert_array_equal(tensors["expanded"], [[5, 6, 7], [5, 6, 7]])
    assert tensors["empty"].shape == (0, 3)
    assert not tensors["transposed"].flags.writeable


def test_storage_may_be_a_view_in_the_old_form(file):
    storage = Storage(np.arange(10, dtype=np.float32), view=("1", 4, 5))
    write_torch(file, {"a": tensor(storage, 1, (2, 2), (2, 1))}, legacy=True)
    np.testing.assert_array_equal(read_tensors(file)["a"], [[5, 6], [7, 8]])


@forms
@pytest.mark.parametrize(
    ("wrap", "names"),
    [
        (lambda w, b: {"w": w, "b": b}, {"w", "b"}),
        (lambda w, b: {"module.w": w, "module.b": b}, {"w", "b"}),
        (lambda w, b: {"module.w": w, "b": b}, {"module.w", "b"}),
        (lambda w, b: {"epoch": 3, "state_dict": {"_orig_mod.w": w}, "optimizer": {"state": {0: b}}}, {"w"}),
        (lambda w, b: {"model": {"state_dict": {"w": w}}, "ema": b}, {"w"}),
        (lambda w, b: {"student": {"s": w}, "teacher": {"module.backbone.w": w, "module.head.b": b}}, {"w"}),
        (lambda w, b: {"state_dict": {"backbone.w": w, "head.b": b}}, {"backbone.w", "head.b"}),
    ],
)
def test_state_dict_is_found_in_a_training_checkpoint(file, wrap, names, legacy):
    write_torch(file, wrap(tensor_of(VALUES), tensor_of(VALUES[0])), legacy=legacy)
    assert set(read_tensors(file)) == names


@forms
def test_what_training_leaves_behind_does_no_harm(file, legacy):
    scalar = Call(Global("numpy.core.multiarray", "scalar"), (Call(Global("numpy", "dtype"), ("f8",)), "12345678"))
    leftovers = {
        "args": Call(
            Global("argparse", "Namespace"), (), {"lr": 0.1, "out": Call(Global("pathlib", "PosixPath"), ("a",))}
        ),
        "callbacks": {Global("pytorch_lightning.callbacks.model_checkpoint", "ModelCheckpoint"): {"best": scalar}},
        "config": Call(Global("omegaconf.dictconfig", "DictConfig"), (), ({"_content": {}}, {"_flags": None})),
        "history": Call(Global("collections", "defaultdict"), (Global("builtins", "int"),)),
        "size": Call(Global("torch", "Size"), ((2, 3),)),
        "device": Call(Global("torch", "device"), ("cuda", 0)),
        "dtype": Global("torch", "bfloat16"),
        "seen": {1, 2},
    }
    metadata = Call(Global("collections", "OrderedDict"), ([["w", 1]],), {"_metadata": {"": {"version": 1}}})
    parameter = Call(Global("torch._utils", "_rebuild_parameter"), (tensor_of(VALUES), True, metadata))
    write_torch(file, {**leftovers, "state_dict": {"w": parameter}}, legacy=legacy)
    np.testing.assert_array_equal(read_tensors(file)["w"], VALUES)


@forms
@pytest.mark.parametrize(
    "name",
    [
        "os.system",
        "posix.system",
        "builtins.eval",
        "builtins.exec",
        "builtins.getattr",
        "builtins.__import__",
        "__builtin__.apply",
        "subprocess.Popen",
        "importlib.import_module",
        "operator.attrgetter",
        "functools.partial",
        "pickle.loads",
        "copyreg._reconstructor",
        "torch.hub.load",
        "torch.storage._load_from_bytes",
        "torch.nn.modules.linear.Linear",
        "pytorch_lightning.utilities.cloud_io.load",
        "collections.namedtuple",
    ],
)
def test_any_other_global_is_refused_by_name(file, tmp_path, name, legacy):
    module, _, function = name.rpartition(".")
    attack = Call(Global(module, function), (f"touch {tmp_path / 'pwned'}",))
    write_torch(file, {"w": tensor_of(VALUES), "attack": attack}, legacy=legacy)
    assert name in refusal(file)
    assert not (tmp_path / "pwned").exists()


@pytest.mark.parametrize(
    "attack",
    [
        pytest.param(b"(S'touch %s'\nios\nsystem\n.", id="INST"),
        pytest.param(b"(cos\nsystem\nS'touch %s'\no.", id="OBJ"),
        pytest.param(b"cos\nsystem\n(S'touch %s'\nt\x81.", id="NEWOBJ"),
        pytest.param(b"\x8c\x02os\x8c\x06system\x93\x8c\x0atouch %s\x85R.", id="STACK_GLOBAL"),
    ],
)
def test_other_ways_to_call_are_refused(file, tmp_path, attack):
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("archive/data.pkl", b"\x80\x04" + attack.replace(b"%s", str(tmp_path / "pwned").encode()))
    assert "os.system" in refusal(file) or "damaged" in refusal(file)
    assert not (tmp_path / "pwned").exists()


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("_rebuild_qtensor", ()),
        ("_rebuild_sparse_tensor", ()),
        ("_rebuild_meta_tensor_no_storage", ()),
    ],
)
def test_tensors_of_other_kinds_are_refused_by_name(file, name, arguments):
    write_torch(file, {"w": Call(Global("torch._utils", name), arguments)})
    message = refusal(file)
    assert f"torch._utils.{name}" in message
    assert "quantized, sparse" in message


@pytest.mark.parametrize("state", [(None, {"function": None}), (None,), {"function": None}, [None]], ids=str)
@pytest.mark.parametrize("name", ["torch._utils._rebuild_tensor_v2", "torch.FloatStorage", "collections.OrderedDict"])
def test_what_pickles_call_cannot_be_changed(file, name, state):
    """BUILD could otherwise replace what later files are read with."""
    opcodes = f"c{name.rpartition('.')[0]}\n{name.rpartition('.')[2]}\n".encode() + pickle.dumps(state, 2)[2:-1] + b"b."
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("archive/data.pkl", b"\x80\x02" + opcodes)
    assert "damaged" in refusal(file)
    write_torch(file, {"w": tensor_of(VALUES)})
    np.testing.assert_array_equal(read_tensors(file)["w"], VALUES)


@forms
@pytest.mark.parametrize(
    ("offset", "shape", "strides"),
    [
        (0, (2, 4), (4, 1)),
        (1, (6,), (1,)),
        (-1, (2,), (1,)),
        (0, (2, 2), (-1, 1)),
        (0, (7,), (2**60,)),
        (5, (-1,), (1,)),
    ],
)
def test_tensor_beyond_its_storage_is_refused(file, offset, shape, strides, legacy):
    other = tensor_of(np.ones(1000, np.float32))
    write_torch(file, {"w": tensor(Storage(VALUES.reshape(-1)), offset, shape, strides), "z": other}, legacy=legacy)
    assert "w: " in refusal(file)


@forms
def test_storage_longer_than_the_file_is_refused(file, legacy):
    write_torch(file, {"w": tensor(Storage(VALUES.reshape(-1), count=10**6), 0, (10**6,), (1,))}, legacy=legacy)
    assert "damaged, truncated" in refusal(file)


@forms
def test_truncated_anywhere(file, legacy):
    write_torch(file, {"a": tensor_of(VALUES), "b": tensor_of(VALUES.T)}, legacy=legacy)
    content = file.read_bytes()
    for size in [*range(0, 64, 5), *range(64, len(content), 23), len(content) - 1]:
        file.write_bytes(content[:size])
        message = refusal(file)
        assert "damaged, truncated" in message or "torch.save did not write" in message


@pytest.mark.parametrize(
    ("content", "sign"),
    [
        (pickle.dumps({"a": 1}, 2), "a pickle that torch.save did not write"),
        (b"".join(pickle.dumps(part, 2) for part in (MAGIC, 1001, {"little_endian": False})), "big-endian"),
        (b"".join(pickle.dumps(part, 2) for part in (MAGIC, 1002, {"little_endian": True})), "unknown version"),
    ],
)
def test_other_pickles_are_explained(file, content, sign):
    file.write_bytes(content)
    assert sign in refusal(file)


def test_compressed_archive_is_explained(file):
    write_torch(file, {"a": tensor_of(np.zeros(1000, np.float32))}, compression=zipfile.ZIP_DEFLATED)
    assert "is compressed, which torch.save never does" in refusal(file)


def test_torchscript_is_explained(file):
    write_torch(file, {"w": tensor_of(VALUES)})
    with zipfile.ZipFile(file, "a") as archive:
        archive.writestr("archive/constants.pkl", "")
    assert "is a TorchScript program" in refusal(file)


def test_archive_of_something_else_is_explained(file):
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("word/document.xml", "")
    assert "without the data.pkl" in refusal(file)


@pytest.mark.parametrize("content", [{}, [1, 2], {"state_dict": {"epoch": 3}}, tensor_of(VALUES)])
def test_file_without_a_state_dict_is_explained(file, content):
    write_torch(file, content)
    assert "no state dict" in refusal(file)
