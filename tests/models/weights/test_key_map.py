"""Key maps: from tensors to parameters, back again, and what is said where they do not fit."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest
from flax import nnx

from jaxad.errors import WeightsError
from jaxad.models.weights.key_map import (
    ARRAY,
    BATCH_NORM,
    CONV,
    CONV1X1_AS_LINEAR,
    LINEAR,
    MATRIX,
    NORM,
    choose_key_map,
    fill,
    split_linear,
    to_torch,
)
from jaxad.models.weights.loader import Weights
from jaxad.nn import module_state


class Block(nnx.Module):
    def __init__(self, rngs):
        self.norm = nnx.LayerNorm(4, rngs=rngs)
        self.query, self.key, self.value = (nnx.Linear(4, 4, rngs=rngs) for _ in range(3))


class Net(nnx.Module):
    """One module of every layout."""

    def __init__(self, rngs):
        self.token = nnx.Param(np.zeros(4, np.float32))
        self.conv = nnx.Conv(3, 4, (5, 2), rngs=rngs)
        self.depthwise = nnx.Conv(4, 4, (3, 3), feature_group_count=4, use_bias=False, rngs=rngs)
        self.batch_norm = nnx.BatchNorm(4, rngs=rngs)
        self.proj_in = nnx.Linear(4, 6, rngs=rngs)
        self.proj_out = nnx.Linear(6, 4, rngs=rngs)
        self.embed = nnx.Embed(7, 4, rngs=rngs)
        self.blocks = nnx.List([Block(rngs), Block(rngs)])
        self.head = nnx.Linear(4, 3, use_bias=False, rngs=rngs)


KEY_MAP = (
    ("token", "class_token", ARRAY),
    ("conv", "conv", CONV),
    ("depthwise", "depthwise", CONV),
    ("batch_norm", "bn", BATCH_NORM),
    ("proj_in", "proj_in", CONV1X1_AS_LINEAR),
    ("proj_out", "proj_out", LINEAR),
    ("embed/embedding", "embed.weight", ARRAY),
    ("blocks/{}/norm", "layer.{}.ln", NORM),
    ("blocks/1/norm", "last.ln", NORM),
    ("blocks/{}/query", "layer.{}.attn.in_proj", split_linear(0, 3, "_")),
    ("blocks/{}/key", "layer.{}.attn.in_proj", split_linear(1, 3, "_")),
    ("blocks/{}/value", "layer.{}.attn.in_proj", split_linear(2, 3, "_")),
    ("head", "head", MATRIX),
)
SHAPES = {
    "class_token": (4,),
    "conv.weight": (4, 3, 5, 2),
    "conv.bias": (4,),
    "depthwise.weight": (4, 1, 3, 3),
    **dict.fromkeys(("bn.weight", "bn.bias", "bn.running_mean", "bn.running_var"), (4,)),
    "proj_in.weight": (6, 4, 1, 1),
    "proj_in.bias": (6,),
    "proj_out.weight": (4, 6),
    "proj_out.bias": (4,),
    "embed.weight": (7, 4),
    **dict.fromkeys(("layer.0.ln.weight", "layer.0.ln.bias", "last.ln.weight", "last.ln.bias"), (4,)),
    **dict.fromkeys(("layer.0.attn.in_proj_weight", "layer.1.attn.in_proj_weight"), (12, 4)),
    **dict.fromkeys(("layer.0.attn.in_proj_bias", "layer.1.attn.in_proj_bias"), (12,)),
    "head": (4, 3),
}


@pytest.fixture(scope="module")
def abstract():
    return nnx.eval_shape(lambda: Net(nnx.Rngs(0)))


@pytest.fixture
def tensors():
    rng = np.random.default_rng(0)
    return {name: rng.normal(size=shape).astype(np.float32) for name, shape in SHAPES.items()}


def weights(tensors):
    return Weights("some/net", {}, (), tensors)


def refusal(module, tensors, **options):
    with pytest.raises(WeightsError) as caught:
        fill(module, weights(tensors), KEY_MAP, **options)
    return str(caught.value)


def test_every_layout_fills_its_parameters(abstract, tensors):
    _, arrays = module_state.split(fill(abstract, weights(tensors), KEY_MAP))
    assert (
        not {path: a.shape for path, a in arrays.items()}.items()
        ^ {path: a.shape for path, a in module_state.split(abstract)[1].items()}.items()
    )
    np.testing.assert_array_equal(arrays["token"], tensors["class_token"])
    np.testing.assert_array_equal(arrays["conv/kernel"][4, 1, 2, 3], tensors["conv.weight"][3, 2, 4, 1])
    np.testing.assert_array_equal(arrays["depthwise/kernel"][2, 1, 0, 3], tensors["depthwise.weight"][3, 0, 2, 1])
    np.testing.assert_array_equal(arrays["batch_norm/var"], tensors["bn.running_var"])
    np.testing.assert_array_equal(arrays["proj_in/kernel"], tensors["proj_in.weight"][:, :, 0, 0].T)
    np.testing.assert_array_equal(arrays["proj_out/kernel"], tensors["proj_out.weight"].T)
    np.testing.assert_array_equal(arrays["embed/embedding"], tensors["embed.weight"])
    np.testing.assert_array_equal(arrays["head/kernel"], tensors["head"])
    for part, name in enumerate(("query", "key", "value")):
        rows = slice(4 * part, 4 * part + 4)
        for block in (0, 1):
            stacked = f"layer.{block}.attn.in_proj"
            np.testing.assert_array_equal(arrays[f"blocks/{block}/{name}/kernel"], tensors[f"{stacked}_weight"][rows].T)
            np.testing.assert_array_equal(arrays[f"blocks/{block}/{name}/bias"], tensors[f"{stacked}_bias"][rows])


def test_plain_numbers_go_before_placeholders(abstract, tensors):
    _, arrays = module_state.split(fill(abstract, weights(tensors), KEY_MAP))
    np.testing.assert_array_equal(arrays["blocks/0/norm/scale"], tensors["layer.0.ln.weight"])
    np.testing.assert_array_equal(arrays["blocks/1/norm/scale"], tensors["last.ln.weight"])


def test_path_may_mix_plain_numbers_and_placeholders():
    module = nnx.eval_shape(lambda: nnx.List([nnx.List([nnx.Linear(2, 3, rngs=nnx.Rngs(0)) for _ in range(2)])] * 1))
    named = {"a.1.weight": np.ones((3, 2)), "a.1.bias": np.ones(3), "b.weight": np.zeros((3, 2)), "b.bias": np.ones(3)}
    key_map = (("{}/{}", "{}.{}", LINEAR), ("0/{}", "a.{}", LINEAR), ("{}/0", "never", LINEAR), ("0/0", "b", LINEAR))
    _, arrays = module_state.split(fill(module, weights(named), key_map))
    assert float(arrays["0/0/kernel"].sum()) == 0
    assert float(arrays["0/1/kernel"].sum()) == 6


def test_back_to_torch_is_bit_equal(abstract, tensors):
    back = to_torch(fill(abstract, weights(tensors), KEY_MAP), KEY_MAP)
    assert back.keys() == tensors.keys()
    for name, array in tensors.items():
        np.testing.assert_array_equal(back[name], array, strict=True)
        assert back[name].flags.c_contiguous


def test_back_to_torch_needs_every_part():
    module = fill(
        nnx.eval_shape(lambda: nnx.Linear(2, 2, rngs=nnx.Rngs(0))),
        weights({"qkv.weight": np.ones((6, 2)), "qkv.bias": np.ones(6)}),
        [("", "qkv", split_linear(1, 3))],
    )
    with pytest.raises(WeightsError, match=r"qkv\.\w+: the network holds no part \[0, 2\] of its 3"):
        to_torch(module, [("", "qkv", split_linear(1, 3))])


@pytest.mark.parametrize("dtype", [None, np.float16, ml_dtypes.bfloat16])
def test_parameters_have_the_type_asked_for(abstract, tensors, dtype):
    _, arrays = module_state.split(fill(abstract, weights(tensors), KEY_MAP, dtype=dtype))
    assert {array.dtype for array in arrays.values()} == {np.dtype(dtype or np.float32)}


def test_ignored_tensors_are_named_or_matched(abstract, tensors):
    extra = {"bn.num_batches_tracked": np.int64(3), "logit_scale": np.float32(1), "decoder.0.weight": np.ones(3)}
    fill(abstract, weights(tensors | extra), KEY_MAP, ignore=("*.num_batches_tracked", "logit_scale", "decoder.*"))
    message = refusal(abstract, tensors | extra, ignore=("num_batches_tracked", "logit", "decoder.?.weight"))
    assert "bn.num_batches_tracked: in the file, but not used" in message
    assert "logit_scale: in the file, but not used" in message
    assert len(message.splitlines()) == 3


def test_every_difference_is_listed_at_once(abstract, tensors):
    tensors["bn.weigth"] = tensors.pop("bn.weight")
    del tensors["layer.1.attn.in_proj_weight"]
    tensors["layer.0.attn.in_proj_weight"] = np.ones((9, 4), np.float32)
    tensors["layer.0.attn.in_proj_bias"] = np.ones(11, np.float32)
    tensors["proj_in.weight"] = np.ones((6, 4, 3, 3), np.float32)
    tensors["conv.bias"] = np.float32([0, np.nan, 0, 0])
    tensors["embed.weight"] = np.full((7, 4), np.inf, np.float32)
    message = refusal(abstract, tensors)
    assert message.startswith("some/net: weights do not fit the network:")
    for part in (
        "bn.weight: missing, needed for batch_norm/scale [4]; nearest in the file: bn.weigth",
        "bn.weigth: in the file, but not used",
        "in_proj_weight: missing, needed for blocks/1/key/kernel [4, 4], blocks/1/query/kernel [4, 4], blocks/1/value",
        "shape [9, 4] does not fit blocks/0/value/kernel [4, 4], which is part 3 of 3",
        "shape [11] does not fit blocks/0/query/bias [4], which is part 1 of 3",
        "proj_in.weight: shape [6, 4, 3, 3] does not fit proj_in/kernel [4, 6]",
        "conv.bias: holds values that are not finite",
        "embed.weight: holds values that are not finite",
    ):
        assert part in message
    assert len(message.splitlines()) == 1 + 2 + 1 + 3 + 3 + 3


@pytest.mark.parametrize("dtype", [np.float32, np.float16, ml_dtypes.bfloat16])
@pytest.mark.parametrize("value", [np.nan, -np.nan, np.inf, -np.inf])
def test_any_value_that_is_not_finite_is_found(abstract, tensors, dtype, value):
    largest = ml_dtypes.finfo(dtype).max
    tensors["conv.bias"] = np.array([largest, -largest, -0.0, 0.0], dtype)
    fill(abstract, weights(tensors), KEY_MAP, dtype=dtype)
    tensors["conv.bias"][2] = value
    assert "conv.bias: holds values that are not finite" in refusal(abstract, tensors, dtype=dtype)


def test_value_that_the_type_cannot_hold_is_named(abstract, tensors):
    tensors["conv.bias"] = np.float32([1e6, 0, 0, 0])
    assert "conv.bias: holds values that are not finite, or not in float16" in refusal(
        abstract, tensors, dtype="float16"
    )


@pytest.mark.parametrize("shape", [(1 << 20, 1 << 20, 1 << 20), (1 << 20, 1 << 20), ()])
def test_nothing_is_allocated_for_a_tensor_of_another_shape(abstract, tensors, shape):
    """A few bytes of a file can show an array of any size: one element, again and again."""
    for name in ("conv.bias", "proj_out.weight", "layer.0.attn.in_proj_weight"):
        shown = np.broadcast_to(np.float32(1), shape)
        message = refusal(abstract, {**tensors, name: shown})
        assert f"{name}: shape {list(shape)} does not fit" in message


def test_complex_numbers_lose_nothing_silently(abstract, tensors):
    tensors["conv.bias"] = np.ones(4, np.complex64)
    assert "conv.bias: complex, shape [4] does not fit" in refusal(abstract, tensors)


def test_path_without_a_row_is_a_mistake_of_the_key_map(abstract, tensors):
    with pytest.raises(KeyError, match="no row for the parameter batch_norm/bias"):
        fill(abstract, weights(tensors), [row for row in KEY_MAP if row[0] != "batch_norm"])


HF = (("norm", "layernorm", NORM), ("x/{}", "encoder.layer.{}.fc", LINEAR), ("y/{}", "encoder.layer.{}.norm", NORM))
HUB = (("norm", "norm", NORM), ("x/{}", "blocks.{}.mlp", LINEAR), ("y/3", "blocks.3.ls.gamma", ARRAY))


@pytest.mark.parametrize(
    ("names", "chosen"),
    [
        (["layernorm.weight", "encoder.layer.0.fc.weight", "encoder.layer.11.fc.bias", "norm.weight"], "HF"),
        (["norm.weight", "blocks.0.mlp.weight", "blocks.3.ls.gamma", "head.weight"], "hub"),
        (["norm.weight", "blocks.7.mlp.weight"], "hub"),
    ],
)
def test_layout_is_chosen_by_names(names, chosen):
    title, key_map = choose_key_map(weights(dict.fromkeys(names, np.ones(1))), {"HF": HF, "hub": HUB})
    assert title == chosen
    assert key_map is {"HF": HF, "hub": HUB}[chosen]


def test_no_layout_fits():
    names = ["stem.weight", "stage.0.weight", "norm.weight"]
    with pytest.raises(WeightsError) as caught:
        choose_key_map(weights(dict.fromkeys(names, np.ones(1))), {"HF": HF, "hub": HUB})
    for part in ("some/net: no layout known here fits", "norm.weight", "HF: 0 %", "hub: 33 %"):
        assert part in str(caught.value)
