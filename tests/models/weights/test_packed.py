"""A checkpoint inside a zip archive, as kl-f8.zip is published."""

import zipfile

import numpy as np
import pytest

from jaxad.errors import WeightsError
from jaxad.models.weights.loader import find_weights
from tests.models.weights.torch_files import tensor_of, write_torch

VALUES = np.random.default_rng(0).normal(size=(64, 64)).astype(np.float32)


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "jaxad" / "unpacked"


@pytest.fixture
def checkpoint(tmp_path):
    file = tmp_path / "model.ckpt"
    write_torch(file, {"encoder.weight": tensor_of(VALUES)})
    return file


def pack(file, *members, method=zipfile.ZIP_DEFLATED):
    with zipfile.ZipFile(file, "w", method) as archive:
        for member, name in members:
            archive.write(member, name)
    return file


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_the_checkpoint_is_unpacked_once(tmp_path, checkpoint, cache, method):
    packed = pack(tmp_path / "kl-f8.zip", (checkpoint, "kl-f8/model.ckpt"), method=method)
    weights = find_weights(packed)
    np.testing.assert_array_equal(weights.tensors["encoder.weight"], VALUES)
    assert weights.id == str(packed)
    assert weights.sha256 == find_weights(checkpoint).sha256, "what counts is the network, not how it is packed"
    (unpacked,) = cache.rglob("*.ckpt")
    written = unpacked.stat().st_mtime_ns
    find_weights(packed)
    assert unpacked.stat().st_mtime_ns == written


def test_one_that_was_cut_off_is_unpacked_anew(tmp_path, checkpoint, cache):
    packed = pack(tmp_path / "kl-f8.zip", (checkpoint, "model.ckpt"))
    find_weights(packed)
    (unpacked,) = cache.rglob("*.ckpt")
    unpacked.write_bytes(unpacked.read_bytes()[:100])
    np.testing.assert_array_equal(find_weights(packed).tensors["encoder.weight"], VALUES)


def test_a_file_of_torch_save_is_not_unpacked(checkpoint, cache):
    assert find_weights(checkpoint).files == (checkpoint,)
    assert not cache.exists()


def test_which_of_several(tmp_path, checkpoint):
    packed = pack(tmp_path / "two.zip", (checkpoint, "a.ckpt"), (checkpoint, "b/c.pth"))
    with pytest.raises(WeightsError, match=r"two\.zip: packs a\.ckpt, b/c\.pth; unpack it and give one"):
        find_weights(packed)


def test_other_archives_and_bombs(tmp_path, cache):
    (tmp_path / "zeros").write_bytes(bytes(1 << 20))
    bomb = pack(tmp_path / "bomb.zip", (tmp_path / "zeros", "model.ckpt"))
    with pytest.raises(WeightsError, match=r"model\.ckpt would unpack to 1,048,576 bytes; no weights do so"):
        find_weights(bomb)
    with pytest.raises(WeightsError, match=r"without the data\.pkl of torch\.save"):
        find_weights(pack(tmp_path / "other.zip", (tmp_path / "zeros", "readme.txt")))
    assert not cache.exists()


def test_damage_is_found_and_leaves_nothing(tmp_path, checkpoint, cache):
    packed = pack(tmp_path / "kl-f8.zip", (checkpoint, "model.ckpt"))
    content = bytearray(packed.read_bytes())
    content[len(content) // 2] ^= 255
    packed.write_bytes(content)
    with pytest.raises(WeightsError, match=r"kl-f8\.zip"):
        find_weights(packed)
    assert not [path for path in cache.rglob("*") if path.is_file()]
