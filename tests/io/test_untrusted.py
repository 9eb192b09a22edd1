"""What parsers raise becomes one error that names the file, and what files claim is compared before it is believed."""

import os
import struct

import pytest
from jax.errors import JaxRuntimeError

from jaxad.errors import DataError, MachineError, WeightsError
from jaxad.io.untrusted import bytes_of, path_fault, reading, shape_fault, told


class PanicException(BaseException):
    """As pyo3 calls what Rust's panics become."""


def named(said):
    return WeightsError(f"net.bin: {said}")


@pytest.mark.parametrize(
    "error",
    [
        *(MemoryError(), RecursionError("deep"), OverflowError("big"), KeyError("a"), AssertionError()),
        *(struct.error("short"), UnicodeDecodeError("utf-8", b"\xff", 0, 1, "bad"), PermissionError(13, "not yours")),
        PanicException("panicked"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_whatever_is_raised_names_the_file(error):
    with pytest.raises(WeightsError, match=r"^net\.bin: \S") as caught, reading(named):
        raise error
    assert caught.value.__cause__ is error


@pytest.mark.parametrize("error", [DataError("other.json: bad"), KeyboardInterrupt(), SystemExit(3), GeneratorExit()])
def test_errors_of_ours_and_interrupts_pass(error):
    with pytest.raises(type(error)) as caught, reading(named):
        raise error
    assert caught.value is error


@pytest.mark.parametrize(
    "error",
    [
        JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 9 bytes."),
        JaxRuntimeError("INTERNAL: no device"),
        RuntimeError("Unable to initialize backend 'cuda'"),
        ModuleNotFoundError("No module named 'timm'", name="timm"),
    ],
)
def test_what_the_machine_is_to_blame_for_is_laid_on_no_file(error):
    with pytest.raises(MachineError), reading(named):
        raise error


def test_memory_is_the_machines_where_the_file_was_measured():
    with pytest.raises(MachineError, match="out of memory"), reading(named, memory=True):
        raise MemoryError


def test_what_an_exception_holds_is_not_printed_without_end():
    laughs = ["ha"]
    for _ in range(60):
        laughs = [laughs, laughs]
    assert len(told(KeyError(laughs))) < 500
    assert told(ValueError("x" * 1000 + "\nsecond line")) == "ValueError: " + "x" * 300


def test_bytes_of_what_is_no_small_regular_file(tmp_path):
    file = tmp_path / "a"
    file.write_bytes(b"123")
    assert bytes_of(file, 3, named) == b"123"
    with pytest.raises(WeightsError, match="larger than"):
        bytes_of(file, 2, named)
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", tmp_path, tmp_path / "absent"):
        with pytest.raises(WeightsError, match=r"net\.bin"):
            bytes_of(path, 3, named)


@pytest.mark.parametrize(
    "path", ["/a", "C:/a", "a/../../b", "a\\b", "a\0", "é" * 128, "a/" * 65, "a/b" * 999, "\ud800"]
)
def test_paths_that_are_none_below_a_folder(path):
    assert path_fault(path)


@pytest.mark.parametrize("path", ["", "a", "./a", "a..b/c", "é" * 127, "a/" * 64, "\udce9"])
def test_paths_below_a_folder(path):
    assert not path_fault(path)


@pytest.mark.parametrize(
    "shape",
    [
        *(7, "12", None, [2.0], [True], [-1], ["2"], [1] * 33, [3, 4], [0, 1 << 62], [1 << 70]),
        [1 << 32, 1 << 32],
    ],
    ids=str,
)
def test_impossible_shapes(shape):
    assert shape_fault(shape, 4, 40)


@pytest.mark.parametrize("shape", [[], [10], (2, 5), [0], [0, 1000], [1] * 32], ids=str)
def test_possible_shapes(shape):
    assert not shape_fault(shape, 4, 40)
