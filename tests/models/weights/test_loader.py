import hashlib
import json
import shutil
import time
from types import SimpleNamespace
from unittest import mock

import flax.serialization
import huggingface_hub
import ml_dtypes
import numpy as np
import pytest
from huggingface_hub import errors as hub_errors
from safetensors.numpy import load_file, save_file

from jaxad.errors import WeightsError
from jaxad.models import known_hashes
from jaxad.models.vit.checkpoints import LAYOUTS
from jaxad.models.vit.network import load_vit
from jaxad.models.weights import loader as loader
from jaxad.models.weights.key_map import choose_key_map, to_torch
from jaxad.models.weights.loader import Weights, find_weights, read_tensors
from jaxad.nn import module_state
from tests.models.vit.made_checkpoints import write_dinov2
from tests.models.weights.torch_files import tensor_of, write_torch

QUERY = "encoder.layer.1.attention.attention.query.weight"


@pytest.fixture
def folder(tmp_path):
    write_dinov2(tmp_path / "net")
    return tmp_path / "net"


def change(folder, **changes):
    """Rewrite the checkpoint with tensors replaced, or removed where None is given."""
    tensors = {**load_file(folder / "model.safetensors"), **changes}
    save_file({name: value for name, value in tensors.items() if value is not None}, folder / "model.safetensors")


def write_weights(file, tensors):
    """Write tensors in the format that the suffix asks for."""
    if file.suffix == ".safetensors":
        save_file(tensors, file)
    elif file.suffix == ".msgpack":
        file.write_bytes(flax.serialization.msgpack_serialize(tensors))
    else:
        write_torch(file, {name: tensor_of(tensor) for name, tensor in tensors.items()})


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
            "stray.weight": np.ones(3, np.float32),
        },
    )
    message = problems(folder)
    assert str(folder) in message
    assert "layernorm.weight: missing, needed for norm/scale [24]; nearest in the file: layernorm.weigth" in message
    assert f"{QUERY}: shape [24, 25] does not fit blocks/1/attention/query/kernel [24, 24]" in message
    assert "projection.weight: shape [24, 147] does not fit patch_embed/kernel [7, 7, 3, 24]" in message
    assert "encoder.layer.0.attention.attention.key.weight: holds values that are not finite" in message
    assert "stray.weight: in the file, but not used" in message
    assert len(message.splitlines()) == 1 + 6


def test_tensor_that_only_pretraining_uses_may_be_absent(folder):
    change(folder, **{"embeddings.mask_token": None})
    load_vit(find_weights(folder))


@pytest.mark.parametrize(
    ("field", "value", "sign"),
    [
        ("num_hidden_layers", 4, "encoder.layer.3.norm1.weight: missing"),
        ("num_hidden_layers", 100, "describes 100 blocks, and there are 61 tensors"),
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
    assert f"{folder / 'config.json'}: damaged JSON" in problems(folder)


def test_folder_without_weights_is_named(folder):
    (folder / "model.safetensors").rename(folder / "net.pth")
    message = problems(folder)
    assert "missing: model.safetensors or model.safetensors.index.json, or diffusion_pytorch_model" in message
    assert "to load one of net.pth, name the file itself" in message


@pytest.mark.parametrize("config", ["config.json", "open_clip_config.json"])
@pytest.mark.parametrize("name", loader.FILES)
def test_folder_in_every_naming(tmp_path, name, config):
    write_weights(tmp_path / name, {"w": np.ones((2, 3), np.float32)})
    (tmp_path / config).write_text('{"width": 3}')
    weights = find_weights(tmp_path)
    assert weights.config == {"width": 3}
    assert weights.files == (tmp_path / name,)
    np.testing.assert_array_equal(weights.tensors["w"], np.ones((2, 3)))


@pytest.mark.parametrize("name", ["diffusion_pytorch_model.safetensors", "pytorch_model.bin", "flax_model.msgpack"])
def test_shards_in_every_format(tmp_path, name):
    stem, suffix = name.rsplit(".", 1)
    weight_map = {f"t{number}": f"{stem}-{number}-of-2.{suffix}" for number in (1, 2)}
    for tensor, shard_name in weight_map.items():
        write_weights(tmp_path / shard_name, {tensor: np.full(2, float(tensor[1]), np.float32)})
    (tmp_path / f"{name}.index.json").write_text(json.dumps({"weight_map": weight_map}))
    assert {name: list(tensor) for name, tensor in find_weights(tmp_path).tensors.items()} == {
        "t1": [1, 1],
        "t2": [2, 2],
    }


@pytest.mark.parametrize("variant", loader.VARIANTS)
@pytest.mark.parametrize("name", ["model.safetensors", "diffusion_pytorch_model.safetensors", "pytorch_model.bin"])
def test_variants_in_one_file_and_in_shards(tmp_path, name, variant):
    stem, suffix = name.rsplit(".", 1)
    write_weights(tmp_path / f"{stem}.{variant}.{suffix}", {"w": np.full(2, 3, np.float16)})
    found = find_weights(tmp_path)
    assert [file.name for file in found.files] == [f"{stem}.{variant}.{suffix}"]
    assert list(found.tensors["w"]) == [3, 3]
    (tmp_path / f"{stem}.{variant}.{suffix}").unlink()
    shard_name = f"{stem}.{variant}-00001-of-00001.{suffix}"
    write_weights(tmp_path / shard_name, {"w": np.full(2, 4, np.float16)})
    for index in (f"{name}.index.{variant}.json", f"{name}.{variant}.index.json"):
        (tmp_path / index).write_text(json.dumps({"weight_map": {"w": shard_name}}))
        assert list(find_weights(tmp_path).tensors["w"]) == [4, 4]
        (tmp_path / index).unlink()
    with pytest.raises(WeightsError, match="missing"):
        find_weights(tmp_path)


def test_weights_as_they_are_go_before_their_variants(tmp_path):
    names = ["pytorch_model.bin", "model.fp16.safetensors", "model.bf16.safetensors", "model.non_ema.safetensors"]
    for number, name in enumerate(names):
        write_weights(tmp_path / name, {"w": np.full(1, number, np.float32)})
    for number, name in enumerate(names):
        assert find_weights(tmp_path).tensors["w"] == [number]
        (tmp_path / name).unlink()


def test_safetensors_go_before_other_formats(tmp_path):
    for number, name in enumerate(loader.FILES):
        write_weights(tmp_path / name, {"w": np.full(1, number, np.float32)})
    assert find_weights(tmp_path).tensors["w"] == [0]


def test_subfolder(tmp_path):
    write_dinov2(tmp_path / "unet")
    weights = find_weights(tmp_path, subfolder="unet")
    assert weights.id == f"{tmp_path}/unet"
    assert weights.config["hidden_size"] == 24
    (tmp_path / "sd.safetensors").touch()
    with pytest.raises(WeightsError, match=f"{tmp_path}/vae: no such folder; to load one of sd.safetensors, name"):
        find_weights(tmp_path, subfolder="vae")
    with pytest.raises(WeightsError, match="is a file, and has no subfolder 'vae'"):
        find_weights(tmp_path / "unet" / "model.safetensors", subfolder="vae")


def test_content_goes_before_the_suffix(tmp_path):
    tensors = {"w": np.ones(3, np.float32)}
    for name in ("model.safetensors", "pytorch_model.bin", "flax_model.msgpack"):
        write_weights(tmp_path / name, tensors)
        (tmp_path / name).rename(tmp_path / "net.weights")
        np.testing.assert_array_equal(read_tensors(tmp_path / "net.weights")["w"], tensors["w"])


@pytest.mark.parametrize(
    ("name", "content", "sign"),
    [
        ("net.h5", b"", r"unknown weight format '\.h5'"),
        ("net.onnx", b"\x08\x07\x12\x07pytorch", r"unknown weight format '\.onnx'"),
        ("net.pth", b"", "damaged, truncated or no torch file"),
        ("net.msgpack", b"", "damaged, truncated or no Flax msgpack file"),
        ("net.bin", b"\x93NUMPY", "damaged, truncated or no torch file"),
        ("net.bin", b"version https://git-lfs.github.com/spec/v1\n", "run git lfs pull"),
    ],
)
def test_unknown_format_is_named(tmp_path, name, content, sign):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(WeightsError, match=f"{name}: .*{sign}"):
        read_tensors(tmp_path / name)


def test_tensor_that_is_not_there_is_a_key_error(folder):
    with pytest.raises(KeyError, match="nothing"):
        find_weights(folder).tensors["nothing"]


def made(*names):
    return Weights("sd.ckpt", {}, (), {name: np.full(1, number) for number, name in enumerate(names)})


def test_part_of_a_checkpoint():
    weights = made("model.net.a.w", "vae.w", "model.net.b")
    part = weights.under("model.net.")
    assert {name: int(tensor[0]) for name, tensor in part.tensors.items()} == {"a.w": 0, "b": 2}
    assert str(part.under("a.")) == "sd.ckpt below model.net.a."
    assert part.id == "sd.ckpt"
    assert weights.has("vae.")
    assert not part.has("vae.")
    with pytest.raises(WeightsError, match=r"sd\.ckpt: no tensors below 'unet\.'; there are model, vae"):
        weights.under("unet.")


def test_moving_averages_take_the_place_of_the_last_weights():
    weights = made("model.net.in.0.w", "model.net.out.w", "model_ema.netin0w", "model_ema.decay", "vae.w")
    averaged = weights.ema().tensors
    assert {name: int(tensor[0]) for name, tensor in averaged.items()} == {
        "model.net.in.0.w": 2,
        "model.net.out.w": 1,
        "vae.w": 4,
    }
    with pytest.raises(WeightsError, match=r"sd\.ckpt: no moving averages"):
        made("model.net.w").ema()


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
    for found in (weights, find_weights("someone/dino@v1"), find_weights("someone/dino@0000000")):
        assert found.pinned == f"someone/dino@{'0' * 40}"
    with pytest.raises(WeightsError, match=r"HF_HUB_OFFLINE.*v2"):
        find_weights("someone/dino@v2")


def test_a_cache_of_one_commit_serves_offline_without_refs(folder, tmp_path, monkeypatch):
    # Which is not the only one on the way there.
    cache = tmp_path / "snapshots" / "cache"
    snapshots = cache / "models--someone--dino" / "snapshots"
    snapshots.mkdir(parents=True)
    shutil.copytree(folder, snapshots / ("1" * 40))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(cache))
    assert find_weights("someone/dino").pinned == f"someone/dino@{'1' * 40}"
    assert find_weights(f"someone/dino@{'1' * 40}").sha256 == find_weights(folder).sha256
    (snapshots / ("2" * 40)).mkdir()
    with pytest.raises(WeightsError, match="2" * 40):
        find_weights("someone/dino")


def test_a_local_folder_may_have_an_at_in_its_name(folder):
    renamed = folder.rename(folder.with_name("dino@home"))
    assert find_weights(renamed).pinned == str(renamed)


def test_files_that_are_published_must_be_those_that_are(folder, tmp_path, monkeypatch):
    snapshots = tmp_path / "cache" / "models--someone--dino" / "snapshots"
    snapshots.mkdir(parents=True)
    file = shutil.copytree(folder, snapshots / ("1" * 40)) / "model.safetensors"
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    content = hashlib.sha256(file.read_bytes()).hexdigest()
    monkeypatch.setattr(known_hashes, "KNOWN", {"someone/dino": {"model.safetensors": content}})
    assert find_weights("someone/dino").sha256 == content
    monkeypatch.setattr(known_hashes, "KNOWN", {"someone/dino": {"model.safetensors": "5" * 64}})
    with pytest.raises(WeightsError, match=r"not that of the published.*REVISION"):
        find_weights("someone/dino")
    # Who names a revision means what is there.
    assert find_weights(f"someone/dino@{'1' * 40}").sha256 == content
    assert find_weights(folder).sha256 == content


HUB_FILES = {"config.json", "unet/config.json", "unet/diffusion_pytorch_model.bin", "model.onnx", "flax_model.msgpack"}


def listed(*names):
    """What the hub says of a repository."""
    return SimpleNamespace(siblings=[SimpleNamespace(rfilename=name) for name in sorted(names)])


@pytest.fixture
def hub(monkeypatch):
    """The hub's client: what it lists and what it downloads can be set."""
    listing, download = mock.Mock(return_value=listed(*HUB_FILES)), mock.Mock()
    monkeypatch.setattr(huggingface_hub, "model_info", listing)
    monkeypatch.setattr(time, "sleep", mock.Mock())
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    return listing, download


@pytest.mark.parametrize(
    ("error", "sign"),
    [
        (hub_errors.GatedRepoError, "is gated; accept its terms at https://huggingface.co/some/net"),
        (hub_errors.RepositoryNotFoundError, "nor a repository of the hub that is public or yours"),
        (hub_errors.RevisionNotFoundError, "has no revision 'v9'"),
        (hub_errors.HfHubHTTPError, "could not be downloaded: 503"),
    ],
)
@pytest.mark.parametrize("asked", [0, 1], ids=["listing", "download"])
def test_answers_of_the_hub_are_explained(hub, error, sign, asked):
    hub[asked].side_effect = error("503", response=mock.MagicMock())
    with pytest.raises(WeightsError, match="some/net") as caught:
        find_weights("some/net", revision="v9")
    assert sign in str(caught.value)


def test_repository_without_weights_is_explained(hub):
    hub[0].return_value = listed("README.md")
    with pytest.raises(WeightsError, match=r"some/net: missing in the repository: model\.safetensors or"):
        find_weights("some/net")
    assert not hub[1].called


@pytest.mark.parametrize(
    ("subfolder", "wanted"),
    [("", ["config.json", "flax_model.msgpack"]), ("unet", ["unet/config.json", "unet/diffusion_pytorch_model.bin"])],
)
def test_only_what_is_needed_is_downloaded(hub, tmp_path, subfolder, wanted):
    def download(repository, name, **options):
        assert options == {"revision": "v1", "local_files_only": False}
        file = tmp_path / name.replace("/", "-")
        if name.endswith(".json"):
            file.write_text("{}")
        else:
            write_weights(file, {"w": np.ones(2, np.float32)})
        return str(file)

    hub[1].side_effect = download
    assert list(find_weights("some/net", "v1", subfolder).tensors["w"]) == [1, 1]
    assert [call.args[1] for call in hub[1].call_args_list] == wanted
    assert hub[0].call_count == 1


def test_hub_that_does_not_answer_is_asked_again_twice_and_then_no_more(hub):
    hub[0].side_effect = hub_errors.HTTPError("no connection")
    hub[1].side_effect = hub_errors.LocalEntryNotFoundError("not in the cache")
    with pytest.raises(WeightsError, match="cannot be reached"):
        find_weights("some/net")
    assert hub[0].call_count == 3
    assert [call.args for call in time.sleep.call_args_list] == [(1,), (2,)]
    assert {call.kwargs["local_files_only"] for call in hub[1].call_args_list} == {True}


@pytest.mark.parametrize(("status", "times"), [(503, 3), (429, 3), (404, 1), (403, 1)])
def test_hub_that_is_busy_is_asked_again(hub, status, times):
    hub[0].side_effect = hub_errors.HfHubHTTPError("no", response=mock.MagicMock(status_code=status))
    with pytest.raises(WeightsError, match="could not be downloaded"):
        find_weights("some/net")
    assert hub[0].call_count == times


@pytest.mark.real
def test_real_weights_return_bit_equal(real_data):
    weights = find_weights(real_data / "weights" / "dinov2-small")
    back = to_torch(load_vit(weights), choose_key_map(weights, LAYOUTS)[1])
    assert set(weights.tensors) - set(back) == {"embeddings.mask_token"}
    for name, tensor in back.items():
        np.testing.assert_array_equal(tensor.astype(np.float16), weights.tensors[name], strict=True)
