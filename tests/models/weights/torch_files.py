"""Files as torch.save writes them, written without torch: the zip archive, and the older sequence of pickles."""

from __future__ import annotations

import io
import pickle
import zipfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

MAGIC = 0x1950A86A20F9469CFC6C
SYSTEM = {"protocol_version": 1001, "little_endian": True, "type_sizes": {"short": 2, "int": 4, "long": 4}}
STORAGES = {
    "float64": "DoubleStorage",
    "float32": "FloatStorage",
    "float16": "HalfStorage",
    "bfloat16": "BFloat16Storage",
    "int64": "LongStorage",
    "int32": "IntStorage",
    "int16": "ShortStorage",
    "int8": "CharStorage",
    "uint8": "ByteStorage",
    "bool": "BoolStorage",
}


@dataclass(frozen=True)
class Global:
    """A Python object by its name, which need not exist here."""

    module: str
    name: str


@dataclass(frozen=True)
class Call:
    """What calling a global gives, with the state that it is then set to."""

    function: Global
    arguments: tuple[Any, ...]
    state: Any = None


@dataclass(frozen=True, eq=False)
class Storage:
    """Elements that several tensors may share; `count` may lie about how many there are."""

    array: np.ndarray
    count: int | None = None
    view: tuple[str, int, int] | None = None


@dataclass
class _Writer:
    storages: dict[int, Storage] = field(default_factory=dict)
    legacy: bool = False

    def dumps(self, content: Any) -> bytes:
        stream = io.BytesIO()
        writer = self

        class Pickler(pickle._Pickler):
            dispatch: ClassVar[dict] = dict(pickle._Pickler.dispatch)

            def persistent_id(self, obj: Any) -> Any:
                if not isinstance(obj, Storage):
                    return None
                writer.storages[id(obj)] = obj
                kind = Global("torch", STORAGES[obj.array.dtype.name])
                count = obj.array.size if obj.count is None else obj.count
                key = str(list(writer.storages).index(id(obj)))
                return ("storage", kind, key, "cpu", count, *((obj.view,) if writer.legacy else ()))

            def save_a_global(self, obj: Global) -> None:
                self.write(f"c{obj.module}\n{obj.name}\n".encode())

            def save_a_call(self, obj: Call) -> None:
                self.save(obj.function)
                self.save(obj.arguments)
                self.write(pickle.REDUCE)
                if obj.state is not None:
                    self.save(obj.state)
                    self.write(pickle.BUILD)

            dispatch[Global] = save_a_global
            dispatch[Call] = save_a_call

        Pickler(stream, 2).dump(content)
        return stream.getvalue()


def tensor(storage: Storage, offset: int, shape: tuple[int, ...], strides: tuple[int, ...]) -> Call:
    """A view of a storage, offset and strides in elements."""
    hooks = Call(Global("collections", "OrderedDict"), ())
    return Call(Global("torch._utils", "_rebuild_tensor_v2"), (storage, offset, shape, strides, False, hooks))


def tensor_of(array: np.ndarray) -> Call:
    """A tensor with a storage of its own."""
    array = np.ascontiguousarray(array).reshape(array.shape)
    strides = tuple(stride // array.itemsize for stride in array.strides)
    return tensor(Storage(array.reshape(-1)), 0, array.shape, strides)


def write_torch(file: Path, content: Any, *, legacy: bool = False, compression: int = zipfile.ZIP_STORED) -> None:
    """Write plain data that may hold `Call`, `Global` and `tensor(...)`."""
    writer = _Writer(legacy=legacy)
    pickled = writer.dumps(content)
    storages = list(writer.storages.values())
    if legacy:
        head = b"".join(pickle.dumps(part, 2) for part in (MAGIC, 1001, SYSTEM))
        keys = pickle.dumps([str(number) for number in range(len(storages))], 2)
        data = b"".join(len(s.array).to_bytes(8, "little") + s.array.tobytes() for s in storages)
        file.write_bytes(head + pickled + keys + data)
        return
    with zipfile.ZipFile(file, "w", compression) as archive:
        archive.writestr("archive/data.pkl", pickled)
        archive.writestr("archive/byteorder", "little")
        for key, storage in enumerate(storages):
            archive.writestr(f"archive/data/{key}", storage.array.tobytes())
        archive.writestr("archive/version", "3\n")
