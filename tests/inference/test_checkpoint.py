import json
import shutil

import numpy as np
import pytest
from flax import nnx

import jaxad
from jaxad.config import PatchBankConfig, to_json
from jaxad.detectors.dpdiff.detector import DPDiff
from jaxad.detectors.patch_bank import PatchBank
from jaxad.errors import CheckpointError, ConfigError
from jaxad.inference import checkpoint
from jaxad.inference.checkpoint import pretrained_identity
from jaxad.models.backbone import load_backbone
from jaxad.nn import module_state
from jaxad.nn.variables import Frozen, Statistic
from jaxad.testing import toy_model, toy_training
from tests.models.vit.made_checkpoints import write_dinov2
from tests.training.test_trainer import arrays, assert_bit_equal


@pytest.fixture
def copy(trained, tmp_path):
    """A copy of the trained run's workdir, to be damaged."""
    return shutil.copytree(trained.workdir, tmp_path / "run")


def edit_meta(step, **changes):
    file = step / "meta" / "metadata"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


def test_restores_from_workdir_and_from_a_step(trained):
    for place in (trained.workdir, str(trained.workdir), trained.workdir / "checkpoints" / "12"):
        restored = jaxad.restore(place)
        assert_bit_equal(restored.detector, trained.model)
        assert restored.detector.categories == ("disc", "tile")
        assert restored.detector.config == trained.model.config
        assert restored.threshold == trained.threshold
        assert restored.meta["step"] == 12
        assert restored.meta["train"] == json.loads(json.dumps(to_json(toy_training())))


def test_an_earlier_step_is_that_of_its_time_and_has_no_threshold_yet(trained):
    restored = jaxad.restore(trained.workdir / "checkpoints" / "8")
    assert restored.meta["step"] == 8
    assert restored.threshold is None
    path = "denoiser/project_out/kernel"
    assert np.abs(arrays(restored.detector)[path] - arrays(trained.model)[path]).max() > 1e-5


def test_a_restored_detector_predicts_the_same(trained, parts):
    file = parts.test.records[0].file
    first, second = (jaxad.predict(m, file)[0] for m in (trained.model, jaxad.restore(trained.workdir).detector))
    assert first.score == second.score
    np.testing.assert_array_equal(first.map, second.map)


def test_a_threshold_holds_for_the_settings_it_was_measured_under(trained):
    other = jaxad.restore(trained.workdir, draws=2, sampling_steps=2)
    assert (other.threshold, other.meta["threshold"]) == (None, None)
    assert other.notes == ("draws = 2, sampling_steps = 2: the threshold, measured under other settings, is left out",)
    same = jaxad.restore(trained.workdir, precision="float32", draws=trained.model.config.draws)
    assert (same.threshold, same.notes) == (trained.threshold, ())


def test_inference_settings_can_be_changed_and_shapes_cannot(trained):
    assert jaxad.restore(trained.workdir, start_timestep=100, draws=2).detector.config.start_timestep == 100
    with pytest.raises(CheckpointError) as error:
        jaxad.restore(trained.workdir, depth=2, local_prototypes=5)
    assert "missing array denoiser/blocks/1/mlp_in/kernel" in str(error.value)
    assert "local/queries: shape (3, 32), expected (5, 32)" in str(error.value)
    with pytest.raises(ConfigError, match="color"):
        jaxad.restore(trained.workdir, color="blue")


def test_a_backbone_from_a_folder_travels_in_the_checkpoint(parts, tmp_path):
    folder, other = tmp_path / "network", tmp_path / "other"
    write_dinov2(folder)
    write_dinov2(other, registers=1)
    model = PatchBank.create(PatchBankConfig(backbone=str(folder), image_size=28, bank_size=50))
    run = jaxad.fit(model, parts.train, workdir=tmp_path / "run")
    moved = folder.rename(tmp_path / "elsewhere")
    restored = jaxad.restore(tmp_path / "run")
    assert_bit_equal(restored.detector, run.model)
    assert_bit_equal(jaxad.restore(tmp_path / "run", backbone=str(moved)).detector, run.model)
    assert restored.detector.backbone.sha256 == load_backbone(str(moved)).sha256
    with pytest.raises(CheckpointError, match="SHA-256"):
        jaxad.restore(tmp_path / "run", backbone=str(other))
    with pytest.raises(CheckpointError, match="`backbone`"):
        jaxad.restore(tmp_path / "run", backbone=str(folder))


def test_a_large_backbone_is_read_from_where_it_came_from(parts, tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoint, "EMBED_LIMIT", 0)
    folder = tmp_path / "network"
    write_dinov2(folder)
    model = PatchBank.create(PatchBankConfig(backbone=str(folder), image_size=56, bank_size=50))
    run = jaxad.fit(model, parts.train, workdir=tmp_path / "run")
    assert not (tmp_path / "run" / "checkpoints" / "0" / "backbone").exists()
    assert_bit_equal(jaxad.restore(tmp_path / "run").detector, run.model)
    moved = folder.rename(tmp_path / "elsewhere")
    with pytest.raises(CheckpointError, match="`backbone`"):
        jaxad.restore(tmp_path / "run")
    assert_bit_equal(jaxad.restore(tmp_path / "run", backbone=str(moved)).detector, run.model)


def test_a_filled_bank_comes_back_with_its_size(parts, tmp_path):
    model = PatchBank.create(PatchBankConfig(backbone="random:32x2", image_size=56, bank_size=50, per_category=True))
    run = jaxad.fit(model, parts.train, workdir=tmp_path / "run", holdout=parts.holdout)
    restored = jaxad.restore(tmp_path / "run")
    assert restored.detector.banks[...].shape == (2, 50, 32)
    assert_bit_equal(restored.detector, run.model)
    assert restored.threshold == run.threshold


def test_nothing_there_is_said_so(tmp_path):
    with pytest.raises(CheckpointError, match="no checkpoint there"):
        jaxad.restore(tmp_path / "nowhere")
    (tmp_path / "checkpoints").mkdir()
    with pytest.raises(CheckpointError, match="no step was completed"):
        jaxad.restore(tmp_path)


def test_an_unfinished_step_is_passed_over(copy):
    (copy / "checkpoints" / "12").rename(copy / "checkpoints" / "12.orbax-checkpoint-tmp")
    assert jaxad.restore(copy).meta["step"] == 8


@pytest.mark.parametrize(
    "victim", ["meta/metadata", "model/_METADATA", "model/manifest.ocdbt", "pretrained/manifest.ocdbt"]
)
def test_a_damaged_checkpoint_is_named(copy, victim):
    file = copy / "checkpoints" / "12" / victim
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    with pytest.raises(CheckpointError, match="damaged checkpoint"):
        jaxad.restore(copy)


def test_arrays_lost_from_a_checkpoint_are_noticed(copy):
    for file in (copy / "checkpoints" / "12" / "model").rglob("d/*"):
        file.unlink()
    with pytest.raises(CheckpointError, match="damaged checkpoint"):
        jaxad.restore(copy)


def test_a_newer_format_is_refused(copy):
    edit_meta(copy / "checkpoints" / "12", format=99)
    with pytest.raises(CheckpointError, match=r"format 99.*upgrade"):
        jaxad.restore(copy)


def test_an_unknown_setting_is_named(copy):
    config = to_json(toy_model().config)
    edit_meta(copy / "checkpoints" / "12", config={**config, "color": "blue"})
    with pytest.raises(CheckpointError, match="color: no such field"):
        jaxad.restore(copy)


def test_a_checkpoint_of_another_system_is_refused(copy):
    edit_meta(copy / "checkpoints" / "12", system="oracle")
    with pytest.raises(CheckpointError, match="oracle"):
        jaxad.restore(copy)


def test_a_damaged_training_state_stops_the_resumption(copy, parts):
    shutil.rmtree(copy / "checkpoints" / "12")
    shutil.rmtree(copy / "checkpoints" / "8" / "training")
    with pytest.raises(CheckpointError, match="optimizer state"):
        jaxad.fit(toy_model(), parts.train, toy_training(), workdir=copy, holdout=parts.holdout)


def test_backbones_of_one_hash_are_the_same_wherever_they_lie(trained, copy):
    assert pretrained_identity(trained.workdir) == ("", "random:32x2")
    record = jaxad.restore(copy).meta["pretrained"]
    edit_meta(copy / "checkpoints" / "12", pretrained=record | {"sha256": "5" * 64, "id": "elsewhere"})
    assert pretrained_identity(copy) == ("5" * 64, "")


def test_split_and_merge_are_inverse():
    model = toy_model()
    graphdef, state = module_state.split(model)
    assert isinstance(model, DPDiff)
    assert_bit_equal(module_state.merge(graphdef, state), model)
    below, rest = module_state.select(state, ("backbone", "local"))
    assert {path.split("/")[0] for path in below} == {"backbone", "local"}
    assert {path.split("/")[0] for path in rest} == {"channel_mean", "channel_std", "denoiser", "global_"}
    _, trained, frozen, statistics = module_state.split(model, nnx.Param, Frozen, Statistic)
    assert {**trained, **frozen, **statistics}.keys() == state.keys()
    assert {path.split("/")[0] for path in trained} == {"local", "global_", "denoiser"}
    assert {path.split("/")[0] for path in frozen} == {"backbone"}
    assert set(statistics) == {"channel_mean", "channel_std"}
