import os

import numpy as np
import pytest

from jaxad.errors import DataError
from jaxad.io.npy import map_npy

HALF = np.dtype(np.float16)


def read(file):
    return map_npy(file, HALF, (3, 2), lambda said: DataError(f"{file}: {said}"))


def test_is_mapped_and_read_only(tmp_path):
    array = np.arange(24, dtype=np.float16).reshape(4, 3, 2)
    np.save(tmp_path / "0.npy", array)
    found = read(tmp_path / "0.npy")
    np.testing.assert_array_equal(found, array)
    assert isinstance(found, np.memmap)
    assert not found.flags.writeable


@pytest.mark.parametrize(
    "array",
    [
        np.zeros((4, 3, 2)),
        np.zeros((4, 2, 3), HALF),
        np.zeros((), HALF),
        np.array([{}], object),
    ],
    ids=lambda array: f"{array.dtype} {array.shape}",
)
def test_other_arrays_are_refused(tmp_path, array):
    np.save(tmp_path / "0.npy", array)
    with pytest.raises(DataError, match=r"0\.npy"):
        read(tmp_path / "0.npy")


def test_shape_beyond_the_file_is_refused(tmp_path):
    np.save(tmp_path / "0.npy", np.zeros((4, 3, 2), HALF))
    content = (tmp_path / "0.npy").read_bytes()
    for changed in (content.replace(b"(4,", b"(9,"), content[:-1], content[:20], b"PK\x03\x04" + content, b""):
        (tmp_path / "0.npy").write_bytes(changed)
        with pytest.raises(DataError, match=r"0\.npy"):
            read(tmp_path / "0.npy")


def test_what_is_no_file_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "0.npy")
    # With somebody at its other end, who writes nothing, as opening it would wait otherwise.
    end = os.open(tmp_path / "0.npy", os.O_RDWR)
    with pytest.raises(DataError, match="regular file"):
        read(tmp_path / "0.npy")
    os.close(end)
