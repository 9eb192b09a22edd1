"""Safetensors files, read and written tensor by tensor, all dtypes included.

The library reads them, but for types that numpy has only by ml_dtypes. It writes only what lies in memory as a whole;
hence the writer here. The format: length of the header as 8 bytes, little-endian; the header, JSON that gives dtype,
shape and place of each tensor; the tensors (huggingface.co/docs/safetensors).
"""

from __future__ import annotations

import functools
import json
import math
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open

from jaxad.errors import WeightsError
from jaxad.models.weights.mapped_file import DTYPES, LazyTensors, MappedFile, damaged

KIND = "safetensors"
LONGEST_HEADER = 100_000_000

_CODES = {
    "F64": "float64",
    "F32": "float32",
    "F16": "float16",
    "BF16": "bfloat16",
    "F8_E4M3": "float8_e4m3fn",
    "F8_E5M2": "float8_e5m2",
    "I64": "int64",
    "I32": "int32",
    "I16": "int16",
    "I8": "int8",
    "U64": "uint64",
    "U32": "uint32",
    "U16": "uint16",
    "U8": "uint8",
    "BOOL": "bool",
    "C64": "complex64",
}
_OWN = ("BF16", "F8_E4M3", "F8_E5M2")
"""Types that older versions of the library do not read into numpy, or no version does."""
_CODE_OF = {name: code for code, name in _CODES.items()}


def is_safetensors(head: bytes) -> bool:
    """Whether a file that begins with these bytes, at least 9, is in this format."""
    return len(head) > 8 and int.from_bytes(head[:8], "little") <= LONGEST_HEADER and head[8:9] == b"{"


def read_safetensors(file: Path) -> Mapping[str, np.ndarray]:
    """Tensors of a .safetensors file, each read when it is asked for.

    Raises:
        WeightsError: the file is damaged or truncated, or has a dtype not known here.
    """
    try:
        with safe_open(file, "numpy") as opened:
            names = opened.offset_keys()
            codes = {name: opened.get_slice(name).get_dtype() for name in names}
    except (SafetensorError, OSError, ValueError) as error:
        raise damaged(file, KIND, error) from error
    if strangers := [f"{name} ({code})" for name, code in codes.items() if code not in _CODES]:
        raise damaged(file, KIND, f"unknown dtypes: {', '.join(strangers)}")
    own = _mapped(file, [name for name, code in codes.items() if code in _OWN])
    return LazyTensors({name: own.get(name) or functools.partial(_read, file, name) for name in names})


def _read(file: Path, name: str) -> np.ndarray:
    # Opened anew for each: an open file keeps all pages in memory that were read.
    with safe_open(file, "numpy") as opened:
        return opened.get_tensor(name)


def _mapped(file: Path, names: list[str]) -> dict[str, Callable[[], np.ndarray]]:
    """What maps the tensors of types that the library does not give to numpy, from a file that it has checked."""
    if not names:
        return {}
    mapped = MappedFile(file, KIND)
    start = 8 + int.from_bytes(mapped.bytes(0, 8), "little")
    header = json.loads(mapped.bytes(8, start - 8))
    rows = {name: header[name] for name in names}
    return {
        name: functools.partial(
            mapped.array, start + row["data_offsets"][0], DTYPES[_CODES[row["dtype"]]], tuple(row["shape"])
        )
        for name, row in rows.items()
    }


def write_safetensors(file: Path, tensors: Mapping[str, np.ndarray], dtypes: Mapping[str, str] | None = None) -> None:
    """Write tensors one after the other, so that memory holds one of them at a time.

    Args:
        file: where to write; an existing file is overwritten.
        tensors: name -> array.
        dtypes: name -> name of the dtype to cast to; None to leave them all as they are.

    Raises:
        WeightsError: values that are finite, but too large for the dtype wanted.
    """
    wanted = {name: DTYPES[dtypes[name] if dtypes else array.dtype.name] for name, array in tensors.items()}
    # Wide elements first keeps every tensor aligned.
    names = sorted(wanted, key=lambda name: (-wanted[name].itemsize, name))
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name in names:
        shape = tensors[name].shape
        begin, end = end, end + math.prod(shape) * wanted[name].itemsize
        header[name] = {"dtype": _CODE_OF[wanted[name].name], "shape": list(shape), "data_offsets": [begin, end]}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with file.open("wb") as stream:
        stream.write(len(text).to_bytes(8, "little") + text)
        for name in names:
            tensor = tensors[name]
            with np.errstate(over="ignore"):
                array = np.ascontiguousarray(tensor, wanted[name])
            if array.dtype != tensor.dtype and not np.isfinite(array).all() and np.isfinite(tensor).all():
                raise WeightsError(f"{file.name}: {name}: values too large for {array.dtype}; keep its {tensor.dtype}")
            stream.write(array.reshape(-1).view(np.uint8).data)
