"""What torch.save wrote, read without torch and without running any code of the file.

Both forms are read: the zip archive of torch 1.6 and later, and the older sequence of pickles. A pickle may name any
Python object to be called; here only those in `_Unpickler` below exist, none of them a real one of torch, and any other
name refuses the file (`PlainUnpickler` bounds the rest). Tensors become records of where they lie, and are mapped into
memory when they are asked for.
"""

from __future__ import annotations

import functools
import math
import pickle
import re
import reprlib
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jaxad.errors import WeightsError
from jaxad.io.untrusted import AXES, reading, shape_fault
from jaxad.models.weights.mapped_file import DTYPES, ELSEWHERE, LazyTensors, MappedFile, damage, damaged
from jaxad.models.weights.plain_pickle import LONGEST, Function, PlainUnpickler

_KIND = "torch"
WRAPPERS = ("state_dict", "model", "model_state_dict", "teacher", "student")
"""Keys below which training code keeps the network, in the order of preference; a teacher is what DINO publishes."""

ZIP = b"PK\x03\x04"
_MAGIC = bytes.fromhex("6cfc9c46f9206aa85019")
_PROTOCOL = 1001
_NESTED = 8
"""Wrappers around the network."""
_SHOWN_TWICE = 16
"""How many times its size the tensors of a file may show of it together: several may share a storage."""


def is_torch_pickle(head: bytes) -> bool:
    """Whether a file that begins with these bytes is a zip archive or a pickle."""
    return head.startswith(ZIP) or (len(head) > 1 and head[0] == 0x80 and head[1] <= pickle.HIGHEST_PROTOCOL)


def read_torch_pickle(file: Path) -> Mapping[str, np.ndarray]:
    """Tensors of the state dict in a file of torch.save, be it bare or inside a training checkpoint (`WRAPPERS`).

    The prefixes `module.` of DataParallel and `_orig_mod.` of torch.compile are taken off; of a teacher or student,
    only its `backbone.` is kept where it has one, because its head serves pretraining alone.

    Raises:
        WeightsError: the file is damaged or truncated; it holds no state dict; or it names a Python object that is
            neither a tensor nor plain data, or a quantized, sparse or complex-conjugate tensor.
    """
    mapped = MappedFile(file, _KIND)
    makers, shown = {}, 0
    # A damaged pickle can raise nearly anything.
    with reading(damage(file, _KIND)), file.open("rb") as stream:
        read = _read_zip if stream.read(4) == ZIP else _read_legacy
        stream.seek(0)
        content, places = read(file, stream)
        for name, tensor in _state_dict(file, content).items():
            place = places[tensor.storage.key]
            _check(file, name, tensor, mapped, place)
            shown += math.prod(tensor.shape) * DTYPES[tensor.dtype].itemsize
            if shown > _SHOWN_TWICE * mapped.size + ELSEWHERE:
                raise damaged(file, _KIND, f"{name}: shows more than {_SHOWN_TWICE} times the file, as those before it")
            makers[name] = functools.partial(_array, mapped, place, tensor)
    return LazyTensors(makers)


# Tuples, because a pickle can set the attributes of any object that has some.


class _StorageType(NamedTuple):
    """Stands for a class such as torch.FloatStorage, and for the dtype of its elements."""

    dtype: str


class _DType(NamedTuple):
    """Stands for a torch.dtype."""

    name: str


class _Storage(NamedTuple):
    """A flat piece of memory: `count` elements from element `start` of the storage `key` in the file."""

    key: str
    dtype: str
    count: int
    start: int = 0


class _Tensor(NamedTuple):
    """A view of a storage; offset and strides in elements of `dtype`."""

    storage: _Storage
    dtype: str
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


class _Inert:
    """Takes the place of an object that training left in a checkpoint; takes everything and does nothing."""

    def __new__(cls, *arguments: Any, **named: Any) -> _Inert:
        return object.__new__(cls)

    def __init__(self, *arguments: Any, **named: Any):
        pass

    def __setstate__(self, state: Any) -> None:
        pass

    def __setitem__(self, key: Any, value: Any) -> None:
        pass

    def append(self, item: Any) -> None:
        pass

    def extend(self, items: Any) -> None:
        pass


def _tensor(storage: _Storage, offset: int, shape: Any, strides: Any, *rest: Any, dtype: str = "") -> _Tensor:
    metadata = rest[2] if len(rest) > 2 else None
    if metadata:
        raise ValueError("a tensor with pending operations (conjugate or negative), or on another device; save a clone")
    numbers = (offset, *shape[: AXES + 1], *strides[: AXES + 1])
    if not isinstance(storage, _Storage) or len(shape) != len(strides) or any(type(n) is not int for n in numbers):
        raise ValueError("a tensor without storage, shape or strides")
    if len(shape) > AXES or max(map(abs, numbers)) >= 1 << 63:
        raise ValueError("a tensor of more axes, or larger numbers, than torch knows")
    return _Tensor(storage, dtype or storage.dtype, offset, tuple(shape), tuple(strides))


def _tensor_of_dtype(storage: _Storage, offset: int, shape: Any, strides: Any, *rest: Any) -> _Tensor:
    requires_grad, hooks, dtype, *metadata = rest
    if not isinstance(dtype, _DType):
        raise ValueError("a tensor without a dtype")
    return _tensor(storage, offset, shape, strides, requires_grad, hooks, *metadata, dtype=dtype.name)


def _parameter(tensor: _Tensor, *_: Any) -> _Tensor:
    return tensor


def _subclass(function: Any, _: Any, arguments: Any, *__: Any) -> Any:
    if not isinstance(function, Function):
        raise ValueError("a tensor's class is rebuilt by something that is no tensor function")
    return function(*arguments)


_STORAGES = {
    "DoubleStorage": "float64",
    "FloatStorage": "float32",
    "HalfStorage": "float16",
    "BFloat16Storage": "bfloat16",
    "LongStorage": "int64",
    "IntStorage": "int32",
    "ShortStorage": "int16",
    "CharStorage": "int8",
    "ByteStorage": "uint8",
    "BoolStorage": "bool",
    "ComplexFloatStorage": "complex64",
    "ComplexDoubleStorage": "complex128",
    "UntypedStorage": "uint8",
}
_GLOBALS: dict[tuple[str, str], Any] = {
    ("collections", "defaultdict"): Function(lambda *_: {}),
    ("torch._utils", "_rebuild_tensor"): Function(_tensor),
    ("torch._utils", "_rebuild_tensor_v2"): Function(_tensor),
    ("torch._utils", "_rebuild_tensor_v3"): Function(_tensor_of_dtype),
    ("torch._utils", "_rebuild_parameter"): Function(_parameter),
    ("torch._utils", "_rebuild_parameter_with_state"): Function(_parameter),
    ("torch.nn.parameter", "Parameter"): Function(_parameter),
    ("torch._tensor", "_rebuild_from_type_v2"): Function(_subclass),
    **{("torch", name): _StorageType(dtype) for name, dtype in _STORAGES.items()},
    **{("torch.storage", name): _StorageType(dtype) for name, dtype in _STORAGES.items()},
    **{("torch", name): _DType(name) for name in DTYPES},
}
_LEFTOVERS = re.compile(
    r"argparse\.Namespace|pathlib\.(Pure)?(Posix|Windows)?Path|typing\.Any|_codecs\.encode|torch\.device"
    r"|(builtins|__builtin__)\.(int|float|bool|str|bytes|complex|slice|object|NoneType)"
    r"|numpy\.(dtype|ndarray|float64|float32|int64)|numpy\.dtypes\.\w+|numpy\._?core\.multiarray\.(scalar|_reconstruct)"
    r"|collections\.(Counter|deque)|datetime\.(datetime|timedelta|date)"
    r"|(pytorch_lightning|lightning|lightning_fabric|lightning_utilities|omegaconf)\.([a-z_]\w*\.)*[A-Z]\w*"
)
"""Plain data and settings that training leaves in checkpoints beside the tensors."""


class _Unpickler(PlainUnpickler):
    """Builds tensors' records and plain containers; imports nothing."""

    def __init__(self, file: Path, stream: Any):
        super().__init__(stream)
        self.file = file
        self.storages: dict[str, _Storage] = {}

    def find_class(self, module: str, name: str) -> Any:
        known = _GLOBALS.get((module, name)) or self.container(module, name)
        if known is not None:
            return known
        full = f"{module:.200}.{name:.200}"
        if _LEFTOVERS.fullmatch(full):
            return type(name, (_Inert,), {})
        if module == "torch" or module.startswith("torch."):
            raise WeightsError(
                f"{self.file}: holds {full}, which is no plain tensor, storage or dtype (quantized, sparse, or a whole "
                f"pickled module); save its state_dict() in float32 with torch.save, or as .safetensors"
            )
        raise WeightsError(
            f"{self.file}: refers to {full}, which is neither a tensor nor plain data and could run code; refused. "
            f"Get the weights as .safetensors"
        )

    def persistent_load(self, pid: Any) -> Any:
        kind, storage_type, key, _, count, *view = pid
        numbers = (count, *(view[0][1:] if view and view[0] is not None else ()))
        if kind != "storage" or not isinstance(storage_type, _StorageType) or not isinstance(key, str | int):
            raise ValueError(f"an object stored as {reprlib.repr(kind)}")
        if any(type(number) is not int or not 0 <= number < 1 << 63 for number in numbers):
            raise ValueError(f"storage {reprlib.repr(key)} of {reprlib.repr(numbers)} elements")
        root = _Storage(str(key), storage_type.dtype, count)
        if self.storages.setdefault(root.key, root) != root:
            raise ValueError(f"storage {root.key} in two forms")
        if view and view[0] is not None:
            _, start, length = view[0]
            return _Storage(root.key, root.dtype, length, start)
        return root


class _ShortDirectory:
    """A stream for zipfile, which reads the list of members at once, however long the file says it is."""

    def __init__(self, stream: Any):
        self._stream = stream

    def read(self, size: int = -1) -> bytes:
        if size > LONGEST:
            raise ValueError(f"a list of members of {size:,} bytes")
        return self._stream.read(size)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def open_zip(stream: Any) -> zipfile.ZipFile:
    """An archive whose list of members is not believed to be of any length."""
    bounded: Any = _ShortDirectory(stream)
    return zipfile.ZipFile(bounded)


def _read_zip(file: Path, stream: Any) -> tuple[Any, dict[str, int]]:
    """Content, and where each storage lies."""
    with open_zip(stream) as archive:
        entries = {entry.filename: entry for entry in archive.infolist()}

        def stored(name: str) -> zipfile.ZipInfo:
            if name not in entries:
                raise damaged(file, _KIND, f"lacks {name[:100]}")
            if entries[name].compress_type != zipfile.ZIP_STORED:
                raise WeightsError(f"{file}: {name} is compressed, which torch.save never does; save it anew")
            return entries[name]

        pickled = [name for name in entries if name.count("/") == 1 and name.endswith("/data.pkl")]
        if len(pickled) != 1:
            raise damaged(file, _KIND, "a zip archive without the data.pkl of torch.save")
        folder = pickled[0].removesuffix("data.pkl")
        if f"{folder}constants.pkl" in entries:
            raise WeightsError(
                f"{file}: is a TorchScript program; load it with torch.jit.load and save its state_dict()"
            )
        if f"{folder}byteorder" in entries and archive.read(stored(f"{folder}byteorder")) != b"little":
            raise WeightsError(f"{file}: was written big-endian; save it on a little-endian machine")
        with archive.open(stored(pickled[0])) as opened:
            unpickler = _Unpickler(file, opened)
            content = unpickler.load()
        places = {}
        for key in unpickler.storages:
            entry = stored(f"{folder}data/{key}")
            stream.seek(entry.header_offset + 26)
            lengths = stream.read(4)
            names = int.from_bytes(lengths[:2], "little") + int.from_bytes(lengths[2:], "little")
            places[key] = entry.header_offset + 30 + names
    return content, places


def _read_legacy(file: Path, stream: Any) -> tuple[Any, dict[str, int]]:
    """Content, and where each storage lies."""

    def load() -> Any:
        return _Unpickler(file, stream).load()

    if _MAGIC not in stream.peek(64)[:64]:
        raise WeightsError(f"{file}: a pickle that torch.save did not write; get the weights as .safetensors")
    _, protocol, system = load(), load(), load()
    if protocol != _PROTOCOL or not isinstance(system, dict) or not system.get("little_endian"):
        raise WeightsError(f"{file}: was written by an unknown version of torch, or big-endian; save it anew")
    unpickler = _Unpickler(file, stream)
    content, keys = unpickler.load(), load()
    places, position = {}, stream.tell()
    for key in keys:
        if not isinstance(key, str | int):
            raise ValueError("a storage without a name")
        stream.seek(position)
        storage = unpickler.storages[str(key)]
        if int.from_bytes(stream.read(8), "little") != storage.count:
            raise ValueError(f"storage {key} has another length than its tensors say")
        places[storage.key] = position + 8
        position += 8 + storage.count * DTYPES[storage.dtype].itemsize
    return content, places


def _state_dict(file: Path, content: Any) -> dict[str, _Tensor]:
    """The tensors of the network in what was unpickled, by name."""
    wrapper = ""
    # A dict of a pickle may hold itself.
    for _ in range(_NESTED):
        if not isinstance(content, Mapping):
            break
        inner = next((key for key in WRAPPERS if isinstance(content.get(key), Mapping)), None)
        if inner is None:
            break
        wrapper, content = inner, content[inner]
    tensors = {}
    if isinstance(content, Mapping):
        tensors = {str(name): value for name, value in content.items() if isinstance(value, _Tensor)}
    if not tensors:
        raise WeightsError(
            f"{file}: holds no state dict (names and their tensors), bare or below {', '.join(WRAPPERS)}"
        )
    for prefix in ("module.", "_orig_mod.", *(("backbone.",) if wrapper in ("teacher", "student") else ())):
        kept = {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
        if len(kept) == len(tensors) or (kept and prefix == "backbone."):
            tensors = kept
    return tensors


def _check(file: Path, name: str, tensor: _Tensor, mapped: MappedFile, place: int) -> None:
    """Raises WeightsError where a tensor leaves its storage, or the storage leaves the file."""
    storage = tensor.storage
    item = DTYPES[tensor.dtype].itemsize
    if fault := shape_fault(tensor.shape, item, mapped.size + ELSEWHERE):
        raise damaged(file, _KIND, f"{name}: {fault}")
    last = tensor.offset + sum((n - 1) * stride for n, stride in zip(tensor.shape, tensor.strides, strict=True))
    bytes = storage.count * DTYPES[storage.dtype].itemsize
    if min((tensor.offset, *tensor.strides)) < 0:
        raise damaged(file, _KIND, f"{name}: negative offset or strides")
    if 0 not in tensor.shape and (last + 1) * item > bytes:
        raise damaged(file, _KIND, f"{name}: reaches beyond its storage")
    if place + storage.start * DTYPES[storage.dtype].itemsize + bytes > mapped.size:
        raise damaged(file, _KIND, f"{name}: ends beyond the file's {mapped.size} bytes")


def _array(mapped: MappedFile, place: int, tensor: _Tensor) -> np.ndarray:
    dtype = DTYPES[tensor.dtype]
    start = place + tensor.storage.start * DTYPES[tensor.storage.dtype].itemsize + tensor.offset * dtype.itemsize
    return mapped.array(start, dtype, tensor.shape, tensor.strides)
