import hashlib
import json
from unittest import mock

import huggingface_hub
import ml_dtypes
import numpy as np
import pytest
from huggingface_hub import errors as hub_errors
from safetensors.numpy import load_file, save_file

from jaxad import module_state
from jaxad.errors import WeightsError
from jaxad.models import weights as loader
from jaxad.models.vit import load_vit
from jaxad.models.weights import find_weights, read_tensors
from tests.models.checkpoints import write_dinov2

QUERY = "encoder.layer.1.attention.attention.query.weight"


@pytest.fixture
def folder(tmp_path):
    write_dinov2(tmp_path / "net")
    return tmp_path / "net"


def change(folder, **changes):
    """Rewrite the checkpoint with tensors replaced, or removed where None is given."""
    tensors = {**load_file(folder / "model.safetensors"), **changes}
    save_file({name: value for name, value in tensors.items() if value is not None}, folder / "model.safetensors")


def shard(folder):
    """Cut the checkpoint into three shards with an index."""
    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    weight_map = {}
    for number in range(3):
        name = f"model-{number + 1:05}-of-00003.safetensors"
        part = dict(list(tensors.items())[number::3])
        save_file(part, folder / name)
        weight_map |= dict.fromkeys(part, name)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    return tensors


def problems(source):
    with pytest.raises(WeightsError) as caught:
        load_vit(find_weights(source))
    return str(caught.value)


def test_found_weights_say_what_they_are(folder):
    content = (folder / "model.safetensors").read_bytes()
    weights = find_weights(folder)
    assert weights.id == str(folder)
    assert weights.sha256 == hashlib.sha256(content).hexdigest()
    assert weights.bytes == len(content)
    assert weights.config["hidden_size"] == 24


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16])
def test_half_precision_becomes_float32(tmp_path, dtype):
    tensors = write_dinov2(tmp_path, dtype=dtype)
    _, arrays = module_state.split(load_vit(find_weights(tmp_path)))
    assert {array.dtype for array in arrays.values()} == {np.dtype("float32")}
    np.testing.assert_array_equal(arrays["blocks/1/attention/query/kernel"], tensors[QUERY].T)


def test_shards_equal_the_single_file(folder):
    single = module_state.split(load_vit(find_weights(folder)))[1]
    tensors = shard(folder)
    weights = find_weights(folder)
    assert len(weights.files) == 3
    assert len(weights.tensors) == len(tensors)
    assert weights.bytes == sum(file.stat().st_size for file in folder.glob("*.safetensors"))
    for path, array in module_state.split(load_vit(weights))[1].items():
        np.testing.assert_array_equal(array, single[path])


def test_missing_shard_is_named(folder):
    shard(folder)
    (folder / "model-00002-of-00003.safetensors").unlink()
    assert "missing: model-00002-of-00003.safetensors" in problems(folder)


def test_shard_outside_the_folder_is_refused(folder):
    shard(folder)
    (folder.parent / "other.safetensors").write_bytes((folder / "model-00001-of-00003.safetensors").read_bytes())
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": "../other.safetensors"}}))
    assert "missing: ../other.safetensors" in problems(folder)


def test_shard_without_a_promised_tensor_is_named(folder):
    shard(folder)
    index = json.loads((folder / "model.safetensors.index.json").read_text())
    index["weight_map"]["promised"] = "model-00001-of-00003.safetensors"
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    assert "promised (in model-00001-of-00003.safetensors)" in problems(folder)


def test_every_difference_is_listed_at_once(folder):
    nan = np.full((24, 24), np.nan, np.float32)
    change(
        folder,
        **{
            "layernorm.weight": None,
            "layernorm.weigth": np.ones(24, np.float32),
            QUERY: np.ones((24, 25), np.float32),
            "embeddings.patch_embeddings.projection.weight": np.ones((24, 147), np.float32),
            "encoder.layer.0.attention.attention.key.weight": nan,
            "head.weight": np.ones(3, np.float32),
        },
    )
    message = problems(folder)
    assert str(folder) in message
    assert "layernorm.weight: missing, needed for norm/scale [24]; nearest in the file: layernorm.weigth" in message
    assert f"{QUERY}: shape [24, 25] does not fit blocks/1/attention/query/kernel [24, 24]" in message
    assert "projection.weight: shape [24, 147] does not fit patch_embed/kernel [7, 7, 3, 24]" in message
    assert "encoder.layer.0.attention.attention.key.weight: holds values that are not finite" in message
    assert "head.weight: in the file, but not used" in message
    assert len(message.splitlines()) == 1 + 6


def test_tensor_that_only_pretraining_uses_may_be_absent(folder):
    change(folder, **{"embeddings.mask_token": None})
    load_vit(find_weights(folder))


@pytest.mark.parametrize(
    ("field", "value", "sign"),
    [
        ("num_hidden_layers", 4, "encoder.layer.3.norm1.weight: missing"),
        ("num_hidden_layers", 2, "encoder.layer.2.norm1.weight: in the file, but not used"),
        ("hidden_size", 48, "embeddings.cls_token: shape [1, 1, 24] does not fit cls_token [1, 1, 48]"),
        ("model_type", "dinov2_with_registers", "embeddings.register_tokens: missing"),
        ("model_type", "clip", "model_type = 'clip'"),
    ],
)
def test_swapped_config_is_named(folder, field, value, sign):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, field: value}))
    assert sign in problems(folder)


@pytest.mark.parametrize("size", [0, 5, 200, -1])
def test_truncated_file_is_named(folder, size):
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:size])
    assert f"{file}: damaged, truncated" in problems(folder)


def test_broken_config_is_named(folder):
    (folder / "config.json").write_text('{"model_type": ')
    assert f"{folder / 'config.json'}: no JSON object" in problems(folder)


def test_folder_without_weights_is_named(folder):
    (folder / "model.safetensors").unlink()
    assert "missing: model.safetensors or model.safetensors.index.json" in problems(folder)


def test_unknown_format_is_named(tmp_path):
    (tmp_path / "net.h5").write_bytes(b"")
    with pytest.raises(WeightsError, match=r"net\.h5: unknown weight format '\.h5'"):
        read_tensors(tmp_path / "net.h5")


def test_tensor_that_is_not_there_is_a_key_error(folder):
    with pytest.raises(KeyError, match="nothing"):
        find_weights(folder).tensors["nothing"]


@pytest.mark.parametrize("source", ["./no/such/folder", "/no/such/folder"])
def test_missing_folder_is_named(source):
    with pytest.raises(WeightsError, match=f"{source}: no such folder or file, and no hub id either"):
        find_weights(source)


def test_hub_switched_off_is_explained():
    with pytest.raises(WeightsError) as caught:
        find_weights("someone/something")
    for part in ("someone/something", "cannot be reached", "HF_HUB_OFFLINE", "model.safetensors"):
        assert part in str(caught.value)


@pytest.mark.parametrize("sharded", [False, True])
def test_hub_cache_serves_offline(folder, tmp_path, monkeypatch, sharded):
    """Laid out as the hub's client does it: refs/<revision> names a commit, snapshots/<commit> holds its files."""
    if sharded:
        shard(folder)
    cached = tmp_path / "cache" / "models--someone--dino"
    (cached / "refs").mkdir(parents=True)
    (cached / "refs" / "v1").write_text("0" * 40)
    (cached / "snapshots").mkdir()
    folder.rename(cached / "snapshots" / ("0" * 40))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    weights = find_weights("someone/dino", revision="v1")
    assert weights.id == "someone/dino"
    assert len(load_vit(weights).blocks) == 3
    with pytest.raises(WeightsError, match="HF_HUB_OFFLINE"):
        find_weights("someone/dino", revision="v2")


@pytest.mark.parametrize(
    ("error", "sign"),
    [
        (hub_errors.GatedRepoError, "is gated; accept its terms at https://huggingface.co/some/net"),
        (hub_errors.RepositoryNotFoundError, "nor a repository of the hub that is public or yours"),
        (hub_errors.RevisionNotFoundError, "has no revision 'v9'"),
        (hub_errors.HfHubHTTPError, "config.json could not be downloaded: 503"),
        (hub_errors.RemoteEntryNotFoundError, "missing in the repository: model.safetensors or"),
    ],
)
def test_answers_of_the_hub_are_explained(monkeypatch, error, sign):
    answer = mock.Mock(side_effect=error("503", response=mock.MagicMock()))
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", answer)
    with pytest.raises(WeightsError, match="some/net") as caught:
        find_weights("some/net", revision="v9")
    assert sign in str(caught.value)


def test_hub_that_does_not_answer_is_waited_for_once(monkeypatch):
    download = mock.Mock(side_effect=hub_errors.LocalEntryNotFoundError("no connection"))
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    with pytest.raises(WeightsError, match="cannot be reached"):
        find_weights("some/net")
    assert [call.kwargs["local_files_only"] for call in download.call_args_list] == [False, True, True]


def test_parameter_without_a_row_is_a_mistake_of_the_key_map(folder):
    network = load_vit(find_weights(folder))
    with pytest.raises(KeyError, match="no row for the parameter blocks/0/attention/key/bias"):
        loader.fill(network, find_weights(folder), ())
