"""`jaxad convert`: what it writes, what it says about it, and what it leaves alone."""

from __future__ import annotations

import hashlib
import json

import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import load_file

from jaxad import cli
from jaxad.errors import WeightsError
from jaxad.models.weights import conversion as converter
from jaxad.models.weights.conversion import convert
from jaxad.models.weights.loader import find_weights
from tests.models.weights.torch_files import Call, Global, tensor_of, write_torch

TENSORS = {
    "conv.weight": np.arange(24, dtype=np.float32).reshape(2, 3, 2, 2) / 7,
    "norm.weight": np.arange(4).astype(ml_dtypes.bfloat16),
    "steps": np.array(12, np.int64),
}


@pytest.fixture
def source(tmp_path):
    folder = tmp_path / "source"
    folder.mkdir()
    write_torch(folder / "pytorch_model.bin", {name: tensor_of(tensor) for name, tensor in TENSORS.items()})
    (folder / "config.json").write_text('{"model_type": "net"}')
    return folder


def test_every_tensor_arrives_as_it_was(source, tmp_path):
    manifest = convert(source, tmp_path / "out")
    assert sorted(file.name for file in (tmp_path / "out").iterdir()) == [
        "config.json",
        "manifest.json",
        "model.safetensors",
    ]
    tensors = load_file(tmp_path / "out" / "model.safetensors")
    assert tensors.keys() == TENSORS.keys()
    for name, tensor in TENSORS.items():
        np.testing.assert_array_equal(tensors[name], tensor, strict=True)
    weights = find_weights(tmp_path / "out")
    assert weights.config == {"model_type": "net"}
    assert json.loads((tmp_path / "out" / "manifest.json").read_text()) == manifest
    assert not list(tmp_path.glob(".*"))


def test_manifest_says_what_and_whence(source, tmp_path):
    manifest = convert(source, tmp_path / "out")
    read, written = source / "pytorch_model.bin", tmp_path / "out" / "model.safetensors"
    for row, file in ((manifest["source"]["files"][0], read), (manifest["files"][0], written)):
        content = file.read_bytes()
        assert row == {"name": file.name, "sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}
    assert manifest["source"]["id"] == str(source)
    assert manifest["license"] is None
    assert (manifest["tensors"], manifest["bytes"]) == (3, 96 + 8 + 8)
    assert manifest["dtypes"] == {"bfloat16": 1, "float32": 1, "int64": 1}


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_floating_point_tensors_are_cast(source, tmp_path, dtype):
    manifest = convert(source, tmp_path / "out", dtype=dtype)
    tensors = load_file(tmp_path / "out" / "model.safetensors")
    assert manifest["dtypes"] == {dtype: 2, "int64": 1}
    for name in ("conv.weight", "norm.weight"):
        np.testing.assert_array_equal(tensors[name], TENSORS[name].astype(dtype), strict=True)
    assert tensors["steps"] == 12


def test_shards(source, tmp_path):
    manifest = convert(source, tmp_path / "out", shard_bytes=100)
    assert [row["name"] for row in manifest["files"]] == [
        "model-00001-of-00002.safetensors",
        "model-00002-of-00002.safetensors",
    ]
    weights = find_weights(tmp_path / "out")
    assert len(weights.files) == 2
    for name, tensor in TENSORS.items():
        np.testing.assert_array_equal(weights.tensors[name], tensor, strict=True)


def test_what_describes_the_weights_comes_along(source, tmp_path):
    (source / "preprocessor_config.json").write_text('{"image_mean": [0.1, 0.2, 0.3]}')
    convert(source, tmp_path / "out")
    weights = find_weights(tmp_path / "out")
    assert (weights.config, weights.preprocessor) == ({"model_type": "net"}, {"image_mean": [0.1, 0.2, 0.3]})


def test_lone_file(source, tmp_path):
    manifest = convert(source / "pytorch_model.bin", tmp_path / "out", license="MIT")
    assert manifest["license"] == "MIT"
    assert not (tmp_path / "out" / "config.json").exists()
    assert load_file(tmp_path / "out" / "model.safetensors").keys() == TENSORS.keys()


@pytest.mark.parametrize(
    ("files", "license"),
    [
        ({"README.md": "---\ntags: [a]\nlicense: apache-2.0\n---\n# Net", "LICENSE": "MIT License\n"}, "apache-2.0"),
        ({"README.md": "---\nlicense: other\nlicense_name: 'cc-by-nc-4.0'\n---\n"}, "cc-by-nc-4.0"),
        ({"README.md": "# Net\nlicense: apache-2.0", "LICENSE": "\n  MIT License \n\nCopyright"}, "MIT License"),
        ({"README.md": "# Net"}, None),
    ],
)
def test_license_is_read_from_the_source(source, tmp_path, files, license):
    for name, text in files.items():
        (source / name).write_text(text)
    assert convert(source, tmp_path / "out")["license"] == license


def test_existing_folder_is_kept(source, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    (out / "precious").write_text("")
    with pytest.raises(WeightsError, match=r"out: exists; .*overwrite"):
        convert(source, out)
    with pytest.raises(WeightsError, match=r"out: is no folder that convert has written"):
        convert(source, out, overwrite=True)
    assert (out / "precious").exists()


def test_folder_of_an_earlier_conversion_may_be_replaced(source, tmp_path):
    out = tmp_path / "out"
    convert(source, out, shard_bytes=100)
    convert(source, out, overwrite=True)
    assert sorted(file.name for file in out.iterdir()) == ["config.json", "manifest.json", "model.safetensors"]
    with pytest.raises(WeightsError, match="holds the source"):
        convert(out / "model.safetensors", out, overwrite=True)
    assert not list(tmp_path.glob(".*"))


def test_nothing_is_left_of_a_failure(source, tmp_path, monkeypatch):
    convert(source, tmp_path / "out")
    before = (tmp_path / "out" / "manifest.json").read_text()
    write_torch(source / "pytorch_model.bin", {"big": tensor_of(np.float32([1e6]))})
    with pytest.raises(WeightsError, match="big: values too large for float16"):
        convert(source, tmp_path / "out", dtype="float16", overwrite=True)
    monkeypatch.setattr(converter, "digest", lambda files: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        convert(source, tmp_path / "new")
    assert (tmp_path / "out" / "manifest.json").read_text() == before
    assert sorted(file.name for file in tmp_path.iterdir()) == ["out", "source"]


def test_command(source, tmp_path, capsys):
    words = ["convert", str(source), str(tmp_path / "out"), "--dtype", "float16"]
    cli.run(cli.parse(words))
    printed = capsys.readouterr()
    assert f"{tmp_path / 'out'}: 3 tensors (2 float16, 1 int64)" in printed.out
    assert "the source states no license; --license NAME records it" in printed.err
    cli.run(cli.parse([*words, "--overwrite", "--license", "apache-2.0"]))
    assert "license" not in capsys.readouterr().err
    assert json.loads((tmp_path / "out" / "manifest.json").read_text())["license"] == "apache-2.0"


def test_command_refuses_code(tmp_path):
    write_torch(tmp_path / "net.ckpt", {"w": Call(Global("os", "system"), (f"touch {tmp_path / 'pwned'}",))})
    with pytest.raises(WeightsError, match=r"os\.system"):
        cli.run(cli.parse(["convert", str(tmp_path / "net.ckpt"), str(tmp_path / "out")]))
    assert [file.name for file in tmp_path.iterdir()] == ["net.ckpt"]
