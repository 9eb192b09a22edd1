"""VLMDiff on a toy Stable Diffusion: what trains, what it is conditioned on, sampling, checkpoints, command line."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
import safetensors.numpy

import jaxad
from jaxad import cli, parallel
from jaxad.config import VLMDiffConfig
from jaxad.data import FolderSource
from jaxad.data.captions.attach import Captions, with_captions
from jaxad.data.captions.writing import write_captions
from jaxad.diffusion.samplers import ldm_timesteps
from jaxad.diffusion.schedule import scaled_linear_schedule
from jaxad.errors import ConfigError
from jaxad.features import Encoder, FeatureCache, cache_identity, extras_of
from jaxad.models.vit.checkpoints import HUGGINGFACE_VIT
from jaxad.models.vit.config import ViTConfig
from jaxad.models.vit.network import abstract_vit
from jaxad.models.weights.key_map import to_torch
from jaxad.nn import module_state
from jaxad.nn.normalization import IMAGENET
from jaxad.training.step import DetectorTrainer
from jaxad.types import Batch, Features
from tests.models.stable_diffusion.made_checkpoints import write_pipeline
from tests.training.test_trainer import arrays, assert_bit_equal, rows

TOY = {"backbone": "random:32x2x8", "image_size": 32, "sampling_steps": 2}
CHANGED = {
    "seed": 0,
    "steps": 4,
    "batch_size": 2,
    "micro_batch": 2,
    "learning_rate": 0.01,
    "log_every": 1,
    "checkpoint_every": 2,
    "accumulate": 1,
}
TRAIN = VLMDiffConfig.training(**CHANGED)
TRAINED = ("sgn/", "unet/up_blocks/", "unet/conv_norm_out/", "unet/conv_out/")
"""All of the SGN, the UNet's output_blocks and out."""


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory):
    folder = tmp_path_factory.mktemp("diffusion") / "sd"
    write_pipeline(folder)
    return folder


@pytest.fixture(scope="module")
def described(parts):
    """All normal images, every second one with a caption."""
    root = parts.train.records[0].file.parents[3]
    images = jaxad.data.load(f"folder:{root}", config=jaxad.DataConfig(holdout=0.0)).train
    ids = tuple(record.identity for record in images.records)
    return with_captions(images, Captions("made up", ids[1::2], ("with a hole",) * len(ids[1::2])))


def config(pipeline, **changes):
    return VLMDiffConfig(**{"stable_diffusion": str(pipeline), **TOY, "remat": False} | changes)


def create(pipeline, **changes):
    return jaxad.VLMDiff.create(config(pipeline, **changes), key=jax.random.key(0))


def command(*words):
    cli.run(cli.parse([str(word) for word in words]))


@pytest.fixture(scope="module")
def workdir(pipeline, described, tmp_path_factory):
    """An undisturbed run, by the command line."""
    folder, root = tmp_path_factory.mktemp("vlmdiff"), described.records[0].file.parents[3]
    captioned = [record for record in described.records if record.caption]
    texts = [record.caption for record in captioned]
    captions = write_captions(
        folder, "parts", "toy", "pd", "train", [record.identity for record in captioned], lambda images: texts
    )
    flags = {f"--model.{name}": getattr(config(pipeline), name) for name in ("stable_diffusion", *TOY)}
    flags |= {f"--train.{name}": getattr(TRAIN, name) for name in CHANGED}
    words = [word for name, value in flags.items() for word in (name.replace("_", "-"), value)]
    words = ["--data", f"folder:{root}", "--holdout", "0", "--captions", captions, "--model.no-remat", *words]
    command("fit", "vlmdiff", *words, "--workdir", folder / "run")
    (folder / "words.json").write_text(json.dumps([str(word) for word in words]))
    return folder / "run"


def test_exactly_the_published_parameters_train(workdir, pipeline):
    before, after = arrays(create(pipeline)), arrays(jaxad.restore(workdir).detector)
    assert before.keys() == after.keys()
    changed = {path for path in before if before[path].tobytes() != after[path].tobytes()}
    assert [path for path in changed if not path.startswith(TRAINED)] == []
    trainable = {path for path in before if path.startswith(TRAINED)}
    # No gradient reaches the fusion and the zero convolutions above it.
    still = {path for path in trainable - changed if not path.startswith(("sgn/fusion/", "sgn/zero_convs/"))}
    assert still == set()
    assert not np.any(after["sgn/fusion/convs/0/0/kernel"])
    assert {path.split("/")[2] for path in changed if path.startswith("sgn/zero_convs/")} == {"2", "3"}


def test_only_what_trains_takes_optimizer_memory(pipeline):
    model = create(pipeline)
    trainer = DetectorTrainer(model, TRAIN, parallel.make_mesh())
    state = jax.eval_shape(trainer.init)
    everything = arrays(model)
    assert state.params.keys() == {path for path in everything if path.startswith(TRAINED)}
    moments = sum(leaf.size for leaf in jax.tree.leaves(state.opt_state) if leaf.ndim)
    assert moments == 2 * sum(leaf.size for leaf in jax.tree.leaves(state.params))


@pytest.mark.slow
def test_a_run_cut_off_and_started_again_is_bit_equal_to_an_undisturbed_one(workdir, tmp_path):
    again = shutil.copytree(workdir, tmp_path / "run")
    shutil.rmtree(again / "checkpoints" / "4")
    command("fit", "vlmdiff", *json.loads(workdir.with_name("words.json").read_text()), "--workdir", again)
    assert_bit_equal(jaxad.restore(again).detector, jaxad.restore(workdir).detector)
    assert rows(again) == rows(workdir)


def test_captions_change_what_the_loss_is_conditioned_on(pipeline, described, parts):
    model = create(pipeline)
    cached = FeatureCache.build(model, described, encoder=Encoder(model, mesh=parallel.make_mesh()))
    features = cached[np.arange(2)]
    assert features.extras["image"].dtype == np.uint8
    assert cached.bytes == FeatureCache.size(model, len(described))
    empty = np.asarray(model.empty[...])
    same = [np.abs(text - empty).max() < 2e-3 * np.abs(empty).max() for text in features.extras["text"]]
    assert same == [True, False]
    silent = FolderSource(described.name, tuple(replace(record, caption="") for record in described.records))
    assert cached.identity == cache_identity(model, described) != cache_identity(model, silent)
    trainer = DetectorTrainer(model, TRAIN, parallel.make_mesh())
    losses = []
    for text in (features.extras["text"], np.broadcast_to(empty, features.extras["text"].shape)):
        batch = replace(features, extras={**features.extras, "text": text})
        losses.append(float(trainer.step(trainer.init(), batch, jax.random.key(0))[1]["loss"]))
    assert abs(losses[0] - losses[1]) > 1e-4 * losses[0]


def test_without_captions_there_is_one_empty_text(pipeline, described):
    model = create(pipeline, captions="never")
    assert extras_of(model, described.records, training=True) == {}
    assert extras_of(create(pipeline), described.records, training=False) == {}
    ids = extras_of(create(pipeline, captions="always"), described.records, training=False)["caption"]
    assert ids.shape == (len(described), 77)
    assert np.array_equal(ids[0], ids[2])
    assert not np.array_equal(ids[0], ids[1])


def test_timesteps_and_alpha_bars_are_the_published_ones():
    """As the authors sample: 10 steps from t = 999, the first call at 901."""
    assert ldm_timesteps(999, 10) == (901, 801, 701, 601, 501, 401, 301, 201, 101, 1)
    published = {
        0: 0.99915,
        1: 0.99830,
        101: 0.89298,
        201: 0.75214,
        301: 0.58882,
        401: 0.42288,
        501: 0.27500,
        601: 0.15982,
        701: 0.08192,
        801: 0.03655,
        901: 0.01400,
        999: 0.00466,
    }
    for t, alpha_bar in published.items():
        assert scaled_linear_schedule().alpha_bar[t] == pytest.approx(alpha_bar, abs=5e-6)


def test_impossible_sizes_and_settings_are_named(pipeline):
    with pytest.raises(ConfigError, match="image_size = 39: must be a multiple of the autoencoder's 2"):
        create(pipeline, image_size=39, backbone="random:32x2x13")
    with pytest.raises(ConfigError, match=r"start_timestep = 1000[\s\S]*guidance|guidance[\s\S]*start_timestep = 1000"):
        config(pipeline, start_timestep=1000, guidance=-1.0).check()
    with pytest.raises(ConfigError, match="random:WIDTH"):
        create("random:12")


def test_another_network_compares(pipeline, workdir):
    """Its patch of 12 px does not divide 32 px: it sees 36 px, the nearest multiple."""
    other = "random:16x1x12"
    model = create(pipeline).with_backbone(other)
    assert (model.config.backbone, model.grid) == (other, (3, 3))
    generator = np.random.default_rng(0)
    image = generator.integers(0, 256, (1, 32, 32, 3)).astype(np.uint8)
    redrawn = generator.normal(size=(1, 32, 32, 3)).astype(np.float32)
    features = Features(np.zeros((1, 256, 8), np.float32), (16, 16), {"image": image})
    found = model.score(features, replace(features, extras={"image": redrawn})).maps
    mean, std = (np.array(values).reshape(1, 1, 1, 3) for values in (IMAGENET.mean, IMAGENET.std))
    seen = [jax.image.resize(x, (1, 36, 36, 3), "bilinear") for x in ((image / 255 - mean) / std, redrawn)]
    network: Any = model.backbone.network
    before, after = (np.asarray(network.patches(network(x.astype(np.float32))[0])) for x in seen)
    lengths = np.linalg.norm(before, axis=-1) * np.linalg.norm(after, axis=-1)
    expected = 1 - (before * after).sum(-1) / lengths
    np.testing.assert_allclose(found.reshape(1, 9), expected, atol=1e-5)

    restored = jaxad.restore(workdir, backbone=other)
    detector: Any = restored.detector
    assert (detector.grid, detector.categories) == ((3, 3), ("disc", "tile"))
    assert restored.meta["pretrained"]["id"] == detector.config.backbone == other
    assert restored.threshold is None
    assert "random:16x1x12 compares in place of random:32x2x8" in restored.notes[0]


@pytest.mark.parametrize(("stages", "first"), [(None, 0), ((1, 2, 3), 1)])
def test_convolutional_networks_compare_at_three_strides(pipeline, stages, first):
    """As DiAD does: maps of the outputs at strides 4, 8 and 16, resized with aligned corners and summed; of DINO's
    ResNet-50, VLMDiff takes those at strides 8, 16 and 32."""
    graphdef, weights = module_state.split(create(pipeline).with_backbone("random:resnet18", stages))
    generator = np.random.default_rng(0)
    image = generator.integers(0, 256, (1, 32, 32, 3)).astype(np.uint8)
    redrawn = generator.normal(size=(1, 32, 32, 3)).astype(np.float32)
    mean, std = (np.array(values).reshape(1, 1, 1, 3) for values in (IMAGENET.mean, IMAGENET.std))
    seen = np.concatenate([(image / 255 - mean) / std, redrawn]).astype(np.float32)

    # One program, because every operation on its own would be compiled on its own.
    @jax.jit
    def run(weights, image, redrawn, seen):
        model = module_state.merge(graphdef, weights)
        features = Features(np.zeros((1, 256, 8), np.float32), (16, 16), {"image": image})
        found = model.score(features, replace(features, extras={"image": redrawn}))
        return found.maps[0], model.backbone.network.taps(seen, range(first, first + 3))

    found, taps = run(weights, image, redrawn, seen)
    shapes = [(2, 8, 8, 64), (2, 4, 4, 128), (2, 2, 2, 256), (2, 1, 1, 512)]
    assert [tap.shape for tap in taps.values()] == shapes[first : first + 3]
    expected = np.zeros((32, 32))
    for before, after in (np.asarray(tap, np.float64) for tap in taps.values()):
        lengths = np.linalg.norm(before, axis=-1) * np.linalg.norm(after, axis=-1)
        expected += aligned(1 - (before * after).sum(-1) / lengths, 32)
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_stages_that_the_comparing_network_lacks(pipeline):
    model = create(pipeline)
    with pytest.raises(ConfigError, match=r"stages = 1 2: backbone = random:32x2x8 has no stages"):
        create(pipeline, stages=(1, 2))
    with pytest.raises(ConfigError, match=r"stages = 2 4: backbone = random:resnet18 has 0 to 3"):
        model.with_backbone("random:resnet18", (2, 4))
    with pytest.raises(ConfigError, match=r"stages = \(\): needs numbers from 0"):
        create(pipeline, stages=())


def aligned(map, size):
    """Enlarged [s s] -> [size size]; the corners stay what they are."""
    places, own = np.linspace(0, len(map) - 1, size), np.arange(len(map))
    wide = np.array([np.interp(places, own, row) for row in map])
    return np.array([np.interp(places, own, column) for column in wide.T]).T


def test_pixels_are_those_that_the_autoencoder_was_trained_on(pipeline, monkeypatch):
    """Stable Diffusion's own takes -1 to 1; what it decodes is normalized for the comparison."""
    model = create(pipeline, pixels="symmetric")
    generator = np.random.default_rng(0)
    clean = generator.normal(size=(1, 16, 16, 4)).astype(np.float32)
    monkeypatch.setattr("jaxad.detectors.vlmdiff.detector.ddim", lambda *_, **__: clean)

    @jax.jit
    def run(image, key):
        batch = Batch({"image": image}, np.zeros(1, np.uint32), np.ones(1, bool))
        features = model.encode(batch)
        redrawn = model.reconstruct(features, key).extras["image"]
        moments = model.autoencoder.encode(image.astype(np.float32) / 127.5 - 1)
        expected = jax.numpy.concatenate([moments.mean, moments.logvar], axis=-1).reshape(1, 256, 8)
        return features.tokens, expected, redrawn, model.autoencoder.decode(clean / 0.18215)

    image = generator.integers(0, 256, (1, 32, 32, 3)).astype(np.uint8)
    tokens, expected, redrawn, decoded = run(image, jax.random.split(jax.random.key(0), 1))
    np.testing.assert_allclose(tokens, expected, atol=1e-5)
    mean, std = (np.array(values).reshape(1, 1, 1, 3) for values in (IMAGENET.mean, IMAGENET.std))
    np.testing.assert_allclose(redrawn, ((np.asarray(decoded) + 1) / 2 - mean) / std, atol=1e-4)


@pytest.mark.parametrize(("recorded", "other"), [("imagenet", "symmetric"), ("symmetric", "imagenet")])
def test_pixels_are_those_that_the_folder_of_a_finetuned_autoencoder_records(pipeline, tmp_path, recorded, other):
    shutil.copytree(Path(pipeline) / "vae", tmp_path / "finetuned")
    file = tmp_path / "finetuned/config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "pixels": recorded}))
    model = create(pipeline, autoencoder=str(file.parent))
    assert model._symmetric == (recorded == "symmetric")
    restored = jaxad.VLMDiff.abstract(model.config, model.pretrained.record)
    assert restored._symmetric == model._symmetric
    create(pipeline, autoencoder=str(file.parent), pixels=recorded)
    with pytest.raises(ConfigError) as caught:
        create(pipeline, autoencoder=str(file.parent), pixels=other)
    for part in (f"{file}: pixels = {recorded}", f"pixels = {other}", "pixels = auto"):
        assert part in str(caught.value)


def test_dino_resizes_positions_as_its_authors_do_under_any_name(pipeline, tmp_path):
    shape = ViTConfig(16, 1, 2, patch=8, image_size=24, hidden=32, layer_scale=False, norm_eps=1e-12)
    network = module_state.drawn(abstract_vit(shape), np.random.default_rng(0))
    safetensors.numpy.save_file(to_torch(network, HUGGINGFACE_VIT), tmp_path / "model.safetensors")
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    config = {"model_type": "vit", **sizes, "patch_size": 8, "image_size": 24}
    (tmp_path / "config.json").write_text(json.dumps(config))
    first, other = create(pipeline, backbone=str(tmp_path)), create(pipeline).with_backbone(str(tmp_path))
    for model in (first, other):
        assert model.backbone.network.config == replace(shape, interpolation="dinomaly")
    assert create(pipeline).backbone.network.config.interpolation == "bicubic"


def test_presets():
    assert VLMDiffConfig.preset("diad").captions == "never"
    training = VLMDiffConfig.training("paper")
    assert training.batch_size * training.accumulate == 48
    assert (training.learning_rate, training.weight_decay, training.sampling) == (1e-5, 0.01, "size")
    for name in ("paper", "diad", "small"):
        VLMDiffConfig.preset(name).check()
        VLMDiffConfig.training(name).check()


def test_captions_in_another_order_stay_with_their_images(described):
    ids = [record.identity for record in described.records][::-1]
    found = with_captions(described, Captions("made up", tuple(ids), tuple(f"of {image}" for image in ids)))
    assert [record.caption for record in found.records] == [f"of {record.identity}" for record in found.records]


def test_a_checkpoint_needs_nothing_but_itself_up_to_the_report(workdir, pipeline, described, tmp_path):
    meta = json.loads((workdir / "config.json").read_text())
    assert meta["data"]["captions"]["missing"] == 12
    assert meta["train"]["weight_decay"] == 0.01
    assert meta["protocol"] == "diad"
    root, moved = described.records[0].file.parents[3], pipeline.with_name("elsewhere")
    shutil.move(pipeline, moved)
    try:
        command(
            "evaluate", "--checkpoint", workdir, "--data", f"folder:{root}", "--out", tmp_path, "--protocol", "diad"
        )
    finally:
        shutil.move(moved, pipeline)
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["config"]["model"]["captions"] == "train"
    assert report["config"]["data"]["captions"]["missing"] == 12
    assert report["classes"]["disc"]["n_anomalous"] == 4
    assert 0 <= report["mean"]["pixel_auroc"] <= 1
