"""Safetensors files, checked by their library, read by memory mapping and written tensor by tensor.

The library's own reader copies every tensor, keeps in memory what it has read of an open file, and lacks the 8-bit
floats in numpy; its writer takes all tensors at once. The format: length of the header as 8 bytes, little-endian; the
header, JSON that gives dtype, shape and place of each tensor; the tensors (huggingface.co/docs/safetensors).
"""

from __future__ import annotations

import functools
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import safe_open

from jaxad.errors import WeightsError
from jaxad.io.json_files import Size, parse_json
from jaxad.io.untrusted import reading, shape_fault
from jaxad.models.weights.mapped_file import DTYPES, LazyTensors, MappedFile, damage, damaged

_KIND = "safetensors"
_HEADER = Size(bytes=100_000_000, values=2_000_000)
_SHOWN = 20

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
_CODE_OF = {name: code for code, name in _CODES.items()}


def is_safetensors(head: bytes) -> bool:
    """Whether a file that begins with these bytes, at least 9, is in this format."""
    return len(head) > 8 and int.from_bytes(head[:8], "little") <= _HEADER.bytes and head[8:9] == b"{"


def read_safetensors(file: Path) -> Mapping[str, np.ndarray]:
    """Tensors of a .safetensors file, each mapped into memory when it is asked for.

    Raises:
        WeightsError: the file is damaged or truncated, or has a dtype not known here.
    """
    mapped = MappedFile(file, _KIND)
    start = 8 + int.from_bytes(mapped.bytes(0, 8), "little")
    header = parse_json(mapped.bytes(8, start - 8), file, size=_HEADER, error=_bad_header)
    # Opening a file checks that every tensor has its place, with no gap, and the length of the file. What the library
    # lets through, such as fields too many or of another type, is checked below.
    with reading(damage(file, _KIND)), safe_open(file, "numpy"):
        pass
    header.pop("__metadata__", None)
    if faults := [f"{name} {fault}" for name, row in header.items() if (fault := _fault(row, mapped.size))]:
        raise damaged(file, _KIND, f"header: {'; '.join(faults[:_SHOWN])}")
    return LazyTensors(
        {
            name: functools.partial(
                mapped.array, start + row["data_offsets"][0], DTYPES[_CODES[row["dtype"]]], tuple(row["shape"])
            )
            for name, row in header.items()
        }
    )


def _bad_header(kind: str, file: Path | str, detail: str) -> WeightsError:
    return damaged(Path(file), _KIND, f"header: {detail}")


def _fault(row: Any, size: int) -> str:
    """What is wrong with a row of the header of a file of so many bytes, "" for nothing."""
    if not isinstance(row, dict) or not isinstance(code := row.get("dtype"), str):
        return "has no dtype"
    if code not in _CODES:
        return f"({code[:20]}): unknown dtype"
    itemsize = DTYPES[_CODES[code]].itemsize
    shape: Any = row.get("shape")
    if fault := shape_fault(shape, itemsize, size):
        return fault
    match row.get("data_offsets"):
        case [int(begin), int(end)] if 0 <= begin <= end and end - begin == math.prod(shape) * itemsize:
            return ""
    return "has other data_offsets than its shape needs"


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
