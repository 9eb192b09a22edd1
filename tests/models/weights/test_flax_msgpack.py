"""Flax checkpoints: their names and layouts become those of torch, and damage is refused."""

from __future__ import annotations

import contextlib

import flax.serialization
import hypothesis
import hypothesis.strategies as st
import ml_dtypes
import numpy as np
import pytest

from jaxad.errors import WeightsError
from jaxad.models.weights.flax_msgpack import read_flax_msgpack
from jaxad.models.weights.loader import read_tensors


def values(*shape, dtype=np.float32):
    return np.arange(np.prod(shape, dtype=int)).reshape(shape).astype(dtype)


def write(file, tree):
    file.write_bytes(flax.serialization.msgpack_serialize(tree))
    return file


def nested(paths):
    tree = {}
    for path, value in paths.items():
        *parents, leaf = path.split("/")
        node = tree
        for part in parents:
            node = node.setdefault(part, {})
        node[leaf] = value
    return tree


@pytest.mark.parametrize(
    "dtype", ["float64", "float32", "float16", "int64", "int32", "uint8", "bool", ml_dtypes.bfloat16]
)
def test_every_type(tmp_path, dtype):
    array = values(2, 3, dtype=dtype)
    tensors = read_tensors(write(tmp_path / "a.msgpack", {"a": array, "scalar": array[1, 2], "empty": array[:0]}))
    np.testing.assert_array_equal(tensors["a"], array, strict=True)
    np.testing.assert_array_equal(tensors["scalar"], array[1, 2, ...], strict=True)
    assert tensors["empty"].shape == (0, 3)


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("down_blocks_0/resnets_1/conv1/kernel", "down_blocks.0.resnets.1.conv1.weight"),
        ("mid_block/attentions_0/transformer_blocks_0/attn1/to_out_0/bias",
         "mid_block.attentions.0.transformer_blocks.0.attn1.to_out.0.bias"),
        ("up_blocks_3/attentions_2/transformer_blocks_0/ff/net_0/proj/kernel",
         "up_blocks.3.attentions.2.transformer_blocks.0.ff.net.0.proj.weight"),
        ("up_blocks_0/upsamplers_0/conv/kernel", "up_blocks.0.upsamplers.0.conv.weight"),
        ("down_blocks_2/downsamplers_0/conv/bias", "down_blocks.2.downsamplers.0.conv.bias"),
        ("time_embedding/linear_1/kernel", "time_embedding.linear_1.weight"),
        ("conv_norm_out/scale", "conv_norm_out.weight"),
        ("text_model/embeddings/token_embedding/embedding", "text_model.embeddings.token_embedding.weight"),
        ("text_model/encoder/layers/11/layer_norm1/scale", "text_model.encoder.layers.11.layer_norm1.weight"),
        ("encoder/layer/3/layer_scale1/lambda1", "encoder.layer.3.layer_scale1.lambda1"),
        ("embeddings/cls_token", "embeddings.cls_token"),
        ("params/conv/kernel", "conv.weight"),
        ("params/bn/scale", "bn.weight"),
        ("batch_stats/bn/mean", "bn.running_mean"),
        ("batch_stats/bn/var", "bn.running_var"),
    ],
)  # fmt: skip
def test_names_are_those_of_torch(tmp_path, path, name):
    file = write(tmp_path / "a.msgpack", nested({path: values(3, 4)}))
    tensors = read_flax_msgpack(file)
    assert list(tensors) == [name]
    np.testing.assert_array_equal(tensors[name], values(3, 4).T if path.endswith("kernel") else values(3, 4))


def test_layouts_are_those_of_torch(tmp_path):
    kernels = {"linear": values(3, 4), "conv1d": values(5, 3, 4), "conv": values(5, 6, 3, 4)}
    tensors = read_flax_msgpack(write(tmp_path / "a.msgpack", {name: {"kernel": k} for name, k in kernels.items()}))
    np.testing.assert_array_equal(tensors["linear.weight"], np.einsum("io->oi", kernels["linear"]))
    np.testing.assert_array_equal(tensors["conv1d.weight"], np.einsum("wio->oiw", kernels["conv1d"]))
    np.testing.assert_array_equal(tensors["conv.weight"], np.einsum("hwio->oihw", kernels["conv"]))


def test_chunks_are_joined(tmp_path, monkeypatch):
    monkeypatch.setattr(flax.serialization, "MAX_CHUNK_SIZE", 64)
    array = values(7, 9)
    file = write(tmp_path / "a.msgpack", {"dense": {"kernel": array, "bias": array[0]}})
    assert b"__msgpack_chunked_array__" in file.read_bytes()
    np.testing.assert_array_equal(read_flax_msgpack(file)["dense.weight"], array.T)


def test_many_entries_and_long_names(tmp_path):
    """More than 15 entries, and names of more than 31 characters, take other forms in msgpack."""
    tree = {f"{'x' * length}{length}": values(length + 1) for length in range(300)}
    tensors = read_flax_msgpack(write(tmp_path / "a.msgpack", tree))
    assert list(tensors) == list(tree)
    np.testing.assert_array_equal(tensors[f"{'x' * 299}299"], values(300))


def refusal(file):
    with pytest.raises(WeightsError) as caught:
        read_tensors(file)
    assert str(file) in str(caught.value)
    return str(caught.value)


def test_truncated_anywhere(tmp_path):
    file = write(tmp_path / "a.msgpack", {"conv": {"kernel": values(2, 3)}, "norm": {"scale": values(3)}})
    content = file.read_bytes()
    for size in range(len(content)):
        file.write_bytes(content[:size])
        assert "damaged, truncated or no Flax msgpack file" in refusal(file)
    file.write_bytes(content + b"\0")
    assert "damaged, truncated or no Flax msgpack file" in refusal(file)


@pytest.mark.parametrize(
    ("tree", "sign"),
    [
        ({"a": {"step": 3}}, "a/step is no array"),
        ({"a": "text"}, "a is no array"),
        ({"a": [values(2)]}, "a is no array"),
        ({"a": 1 + 2j}, "a is no array"),
        ({"a": values(2, dtype="datetime64[s]")}, "a is no array"),
    ],
)
def test_leaf_that_is_no_array_is_named(tmp_path, tree, sign):
    assert sign in refusal(write(tmp_path / "a.msgpack", tree))


def word(text):
    return bytes([0xA0 | len(text)]) + text.encode()


def array(shape=b"\x91\x02", dtype="float32", data=bytes(8)):
    """An array of flax as bytes: extension 1 around shape, dtype and data."""
    content = b"\x93" + shape + word(dtype) + b"\xc4" + bytes([len(data)]) + data
    return b"\xc7" + bytes([len(content)]) + b"\x01" + content


def chunked(length, chunks):
    head = b"\x83\xb9__msgpack_chunked_array__\xc3" + word("shape") + b"\x81" + word("0") + bytes([length])
    return head + word("chunks") + chunks


def test_bytes_of_this_test_are_those_of_flax():
    assert b"\x81" + word("a") + array() == flax.serialization.msgpack_serialize({"a": np.zeros(2, np.float32)})


@pytest.mark.parametrize(
    "leaf",
    [
        pytest.param(array(shape=b"\x91\xcb" + np.array(2.0, ">f8").tobytes()), id="float in a shape"),
        pytest.param(array(shape=b"\x91\xff"), id="negative shape"),
        pytest.param(array(shape=b"\x92\x00\xcf" + b"\x40" + bytes(7)), id="empty, and beyond all bounds"),
        pytest.param(array(shape=b"\xdc\x00\x64" + b"\x01" * 100), id="100 axes"),
        pytest.param(array(shape=b"\x91\x03"), id="shape of more"),
        pytest.param(array(shape=array()), id="extension in an extension"),
        pytest.param(array(data=bytes(7)), id="half an element"),
        pytest.param(b"\xdd\xff\xff\xff\xff", id="list of 2 ** 32"),
        pytest.param(b"\xdc\x10\x00" * 300, id="lists in lists"),
        pytest.param(b"\x81\xa1a" * 100 + array(), id="maps in maps"),
        pytest.param(chunked(2, b"\x05"), id="chunks are a number"),
        pytest.param(chunked(2, b"\x81" + word("0") + b"\x05"), id="chunk is a number"),
        pytest.param(chunked(2, b"\x81" + word("1") + array()), id="first chunk is missing"),
        pytest.param(chunked(7, b"\x81" + word("0") + array()), id="chunks of another size"),
        pytest.param(chunked(2, b"\x81" + word("0") + array(shape=b"\x92\x02\x01")), id="chunk of two axes"),
        pytest.param(b"\x81\xa1\xff" + array(), id="name that is no text"),
    ],
)
def test_impossible_leaves_are_refused(tmp_path, leaf):
    file = tmp_path / "a.msgpack"
    file.write_bytes(b"\x81" + word("a") + leaf)
    assert "damaged, truncated or no Flax msgpack file" in refusal(file)


def test_extensions_within_each_other_take_no_time(tmp_path):
    """flax's reader copies what is left, again and again."""
    file, rest = tmp_path / "a.msgpack", 100_000
    levels = b"".join(b"\xc9" + rest.to_bytes(4, "big") + b"\x01\x93" for _ in range(10_000))
    file.write_bytes(b"\x81" + word("a") + levels + bytes(rest))
    assert "Flax msgpack" in refusal(file)


def test_two_arrays_of_one_name_are_refused(tmp_path):
    file = write(tmp_path / "a.msgpack", {"params": {"a": {"kernel": values(2, 2)}}, "a": {"weight": values(2)}})
    assert "another a.weight" in refusal(file)


@hypothesis.given(st.data())
@hypothesis.settings(max_examples=60, suppress_health_check=[hypothesis.HealthCheck.function_scoped_fixture])
def test_damage_is_refused_or_harmless(tmp_path, data):
    file = write(tmp_path / "a.msgpack", {"conv": {"kernel": values(2, 3)}, "norm": {"scale": values(3)}})
    content = bytearray(file.read_bytes())
    for _ in range(data.draw(st.integers(1, 3))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    file.write_bytes(content)
    with contextlib.suppress(WeightsError):
        tensors = read_flax_msgpack(file)
        assert sum(tensor.size for tensor in tensors.values()) < 1000
