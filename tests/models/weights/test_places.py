"""Weight files and indexes of shards that are none, or change while they are used."""

from __future__ import annotations

import json
import os

import numpy as np
import pytest
from safetensors.numpy import save_file

from jaxad.errors import WeightsError
from jaxad.models.weights.loader import find_weights, read_tensors


@pytest.mark.parametrize(
    "weight_map",
    [[], "a", 3, {"a": 3}, {"a": None}, {"a": ["x"]}, {"a": ""}, {"a": "x" * 3000}, {"a": "\0"}, {"a": "."}],
    ids=lambda value: str(value)[:20],
)
def test_index_of_anything_else_is_named(tmp_path, weight_map):
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": weight_map}))
    with pytest.raises(WeightsError) as caught:
        find_weights(tmp_path)
    assert str(index) in str(caught.value)
    assert len(str(caught.value)) < 1000


def test_tensors_that_no_shard_holds_are_counted(tmp_path):
    save_file({"a": np.ones(1)}, tmp_path / "one.safetensors")
    promised = {f"w{number}": "one.safetensors" for number in range(1000)}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": promised}))
    with pytest.raises(WeightsError, match=r"w0 \(in one\.safetensors\).* and 950 more"):
        find_weights(tmp_path)


def test_file_that_cannot_be_opened_is_named(tmp_path):
    os.mkfifo(tmp_path / "pipe.safetensors")
    for path in (tmp_path, tmp_path / "pipe.safetensors", tmp_path / "absent.safetensors"):
        with pytest.raises(WeightsError, match=str(path)):
            read_tensors(path)


def test_file_that_shrinks_after_it_was_found_is_named(tmp_path):
    file = tmp_path / "model.safetensors"
    save_file({"a": np.ones(1000)}, file)
    tensors = read_tensors(file)
    with file.open("r+b") as stream:
        stream.truncate(3000)
    with pytest.raises(WeightsError, match="has 3000 bytes now"):
        tensors["a"]
