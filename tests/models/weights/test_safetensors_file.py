"""Safetensors read and written here, against the library."""

from __future__ import annotations

import contextlib
import json

import hypothesis
import hypothesis.strategies as st
import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy

from jaxad.errors import WeightsError
from jaxad.models.weights.safetensors_file import read_safetensors, write_safetensors

DTYPES = [
    "float64",
    "float32",
    "float16",
    "int64",
    "int32",
    "int16",
    "int8",
    "uint64",
    "uint32",
    "uint16",
    "uint8",
    "bool",
]
TENSORS = {str(dtype): np.arange(6).reshape(2, 3).astype(dtype) for dtype in DTYPES}
SMALL = {
    kind.__name__: np.arange(6).reshape(2, 3).astype(kind) for kind in (ml_dtypes.float8_e4m3fn, ml_dtypes.float8_e5m2)
}
"""Of types that the library writes, but does not read into numpy."""
TENSORS |= {
    "bfloat16": np.arange(6).reshape(2, 3).astype(ml_dtypes.bfloat16),
    "scalar": np.array(3.5, np.float32),
    "empty": np.zeros((0, 4), np.float32),
}


@pytest.fixture
def file(tmp_path):
    return tmp_path / "net.safetensors"


def test_reads_what_the_library_writes(file):
    safetensors.numpy.save_file(TENSORS | SMALL, file, metadata={"format": "np"})
    tensors = read_safetensors(file)
    assert set(tensors) == {*TENSORS, *SMALL}
    for name, array in (TENSORS | SMALL).items():
        np.testing.assert_array_equal(tensors[name], array, strict=True)


def test_library_reads_what_is_written(file):
    write_safetensors(file, TENSORS | {"transposed": np.arange(12.0).reshape(3, 4).T})
    tensors = safetensors.numpy.load_file(file)
    assert set(tensors) == {*TENSORS, "transposed"}
    for name, array in TENSORS.items():
        np.testing.assert_array_equal(tensors[name], array, strict=True)
    np.testing.assert_array_equal(tensors["transposed"], np.arange(12.0).reshape(3, 4).T)


def test_small_types_come_back(file):
    write_safetensors(file, SMALL)
    tensors = read_safetensors(file)
    for name, array in SMALL.items():
        np.testing.assert_array_equal(tensors[name], array, strict=True)


def test_tensors_are_aligned_whatever_their_types(file):
    write_safetensors(file, {"a": np.zeros(3, np.uint8), "b": np.zeros(3, np.float64), "c": np.zeros(1, np.float16)})
    tensors = read_safetensors(file)
    assert all(array.flags.aligned for array in tensors.values())


def test_cast_on_the_way(file):
    write_safetensors(file, {"a": np.float32([1.001, 2]), "n": np.int64([3])}, {"a": "bfloat16", "n": "int64"})
    tensors = read_safetensors(file)
    np.testing.assert_array_equal(tensors["a"], np.array([1.001, 2], ml_dtypes.bfloat16), strict=True)
    np.testing.assert_array_equal(tensors["n"], [3])


def test_value_too_large_for_the_type_is_named(file):
    with pytest.raises(WeightsError, match=r"net\.safetensors: big: values too large for float16; keep its float32"):
        write_safetensors(file, {"big": np.float32([70000])}, {"big": "float16"})


def test_values_that_were_not_finite_may_stay(file):
    write_safetensors(file, {"a": np.float32([np.inf])}, {"a": "float16"})
    assert read_safetensors(file)["a"] == np.inf


def refusal(file):
    with pytest.raises(WeightsError) as caught:
        read_safetensors(file)
    assert f"{file}: damaged, truncated or no safetensors file" in str(caught.value)
    return str(caught.value)


def test_truncated_anywhere(file):
    write_safetensors(file, {"a": np.zeros((2, 3), np.float32), "b": np.zeros(1, np.float64)})
    content = file.read_bytes()
    for size in range(len(content)):
        file.write_bytes(content[:size])
        refusal(file)


@pytest.mark.parametrize(
    ("entry", "sign"),
    [
        ({"dtype": "F12", "shape": [2], "data_offsets": [0, 8]}, "F12"),
        ({"dtype": "F32", "shape": [3], "data_offsets": [0, 8]}, "a"),
        ({"dtype": "F32", "shape": [2], "data_offsets": [4, 12]}, "a"),
        ({"dtype": "F32", "shape": [2], "data_offsets": [-8, 0]}, "header"),
        ({"dtype": "F32", "shape": [-1, -2], "data_offsets": [0, 8]}, "header"),
        ({"dtype": "F32", "shape": "2", "data_offsets": [0, 8]}, "header"),
        ({"dtype": "F32", "shape": [2.0], "data_offsets": [0, 8]}, "header"),
        ({"dtype": "F32", "shape": [2]}, "header"),
        ([], "header"),
        ({"dtype": "F4", "shape": [16], "data_offsets": [0, 8]}, "a (F4)"),
        ({"dtype": ["F32"], "shape": [2], "data_offsets": [0, 8]}, "header"),
        ({"dtype": "F32", "shape": [2], "data_offsets": [0]}, "header"),
        ({"dtype": "F32", "shape": [2], "data_offsets": [0, 8, 9]}, "header"),
        ({"dtype": "F32", "shape": [1] * 100, "data_offsets": [0, 4]}, "axes"),
        ({"dtype": "F32", "shape": [0, 1 << 62], "data_offsets": [0, 0]}, "a shape of [0, "),
    ],
)
def test_impossible_header_is_explained(file, entry, sign):
    # The library looks at what covers the whole file alone.
    covered = 4 if "axes" in sign else 0 if "[0, " in sign else 8
    write_header(file, json.dumps({"a": entry}).encode(), covered)
    assert sign in refusal(file)


def write_header(file, header, size=8):
    file.write_bytes(len(header).to_bytes(8, "little") + header + bytes(size))


def test_header_nested_without_end_is_explained(file):
    write_header(file, b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}")
    assert "nested" in refusal(file)


@hypothesis.given(st.data())
@hypothesis.settings(max_examples=60, suppress_health_check=[hypothesis.HealthCheck.function_scoped_fixture])
def test_damage_is_refused_or_harmless(file, data):
    write_safetensors(file, {"a": np.zeros((2, 3), np.float32), "b": np.zeros(1, np.float64)})
    content = bytearray(file.read_bytes())
    for _ in range(data.draw(st.integers(1, 3))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    file.write_bytes(content)
    with contextlib.suppress(WeightsError):
        tensors = read_safetensors(file)
        assert sum(tensor.size for tensor in tensors.values()) < 1000
