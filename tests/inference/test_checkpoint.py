import json
import os
import shutil

import jax
import numpy as np
import pytest
from flax import nnx

import jaxad
from jaxad import parallel
from jaxad.config import PatchBankConfig, to_json
from jaxad.detectors.dpdiff.detector import DPDiff
from jaxad.detectors.patch_bank import PatchBank
from jaxad.errors import ChangedError, CheckpointError, ConfigError, DamagedError
from jaxad.inference import checkpoint, checkpoint_writer
from jaxad.inference.checkpoint import pretrained_identity
from jaxad.io.digests import read_manifest, write_manifest
from jaxad.models.backbone import load_backbone
from jaxad.nn import module_state
from jaxad.nn.variables import Frozen, Statistic
from jaxad.testing import toy_model, toy_training
from jaxad.training.step import DetectorTrainer
from tests.campaigns.bit_flips import flips, step_bits
from tests.models.vit.made_checkpoints import write_dinov2
from tests.training.test_trainer import arrays, assert_bit_equal


@pytest.fixture
def copy(trained, tmp_path):
    """A copy of the trained run's workdir, to be damaged."""
    return shutil.copytree(trained.workdir, tmp_path / "run")


def edit_meta(step, **changes):
    """As somebody else might have written it: with a manifest that fits."""
    manifest, file = read_manifest(step), step / "meta" / "metadata"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))
    write_manifest(step, manifest.files, **manifest.about)


def truncate(file):
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def test_restores_from_workdir_and_from_a_step(trained):
    for place in (trained.workdir, str(trained.workdir), trained.workdir / "checkpoints" / "12"):
        restored = jaxad.restore(place)
        assert_bit_equal(restored.detector, trained.model)
        assert restored.detector.categories == ("disc", "tile")
        assert restored.detector.config == trained.model.config
        assert restored.threshold == trained.threshold
        assert restored.meta["step"] == 12
        assert restored.meta["train"] == json.loads(json.dumps(to_json(toy_training())))


def test_an_outline_knows_what_is_to_be_checked_and_reads_no_array(trained, monkeypatch):
    monkeypatch.setattr(checkpoint, "read_arrays", None)
    outline = checkpoint.read_outline(trained.workdir)
    assert outline.categories == trained.model.categories
    assert outline.inputs == trained.model.inputs
    assert outline.config == trained.model.config
    shapes = module_state.split(outline)[1].values()
    assert all(isinstance(array, jax.ShapeDtypeStruct) for array in shapes)


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
    monkeypatch.setattr(checkpoint_writer, "EMBED_LIMIT", 0)
    folder = tmp_path / "network"
    write_dinov2(folder)
    model = PatchBank.create(PatchBankConfig(backbone=str(folder), image_size=56, bank_size=50))
    run = jaxad.fit(model, parts.train, workdir=tmp_path / "run")
    assert not (tmp_path / "run" / "checkpoints" / "0" / "backbone").exists()
    restored = jaxad.restore(tmp_path / "run")
    assert_bit_equal(restored.detector, run.model)
    # A path that a checkpoint names is not read without a word.
    assert str(folder) in restored.notes[0]
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
    "victim", ["meta/metadata", "model/_METADATA", "model/manifest.ocdbt", "backbone/manifest.ocdbt"]
)
def test_a_damaged_step_is_named_and_passed_over(copy, victim):
    step = copy / "checkpoints" / "12"
    truncate(step / victim)
    with pytest.raises(DamagedError, match=victim):
        jaxad.restore(step)
    restored = jaxad.restore(copy)
    assert restored.meta["step"] == 8
    (note,) = restored.notes
    assert victim in note
    assert "step 8" in note
    truncate(copy / "checkpoints" / "8" / victim)
    with pytest.raises(DamagedError, match="no step is whole") as error:
        jaxad.restore(copy)
    assert str(error.value).count(victim) == 2


def test_a_finished_step_that_was_changed_is_passed_over_only_when_asked(copy):
    """Whoever does not read notes would judge by an older model."""
    step = copy / "checkpoints" / "12"
    truncate(step / "manifest.json")
    with pytest.raises(ChangedError, match=r"manifest\.json"):
        jaxad.restore(copy)
    restored = jaxad.restore(copy, pass_over=True)
    assert restored.meta["step"] == 8
    assert "manifest.json" in restored.notes[0]


def test_a_changed_bit_is_noticed_though_size_and_date_are_the_same(copy):
    step = copy / "checkpoints" / "12"
    file = max((step / "model").rglob("*"), key=lambda file: file.stat().st_size)
    status, content = file.stat(), bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))
    with pytest.raises(DamagedError, match=str(file)):
        jaxad.restore(step)
    # What is not read is not compared byte by byte: this is the model's, and meta alone is asked for.
    assert checkpoint.read_meta(step)["step"] == 12
    os.utime(file)
    with pytest.raises(DamagedError, match=str(file)):
        checkpoint.read_meta(step)


def test_no_random_bit_is_loaded(copy, trained):
    """A few of what `python -m tests.campaigns.bit_flips` does a thousand times."""
    step = copy / "checkpoints" / "12"
    like = DetectorTrainer(toy_model(), toy_training(), parallel.make_mesh()).abstract_state
    counts = flips(step, lambda: step_bits(step, like), 12, seed=0)
    assert sum(counts.values()) == 12
    assert not [part for part, outcome in counts if outcome == "CHANGED"]
    assert sum(number for (_, outcome), number in counts.items() if outcome == "refused") > 6


def test_copies_are_accepted_whatever_their_dates_and_names(trained, tmp_path):
    elsewhere = shutil.copytree(
        trained.workdir / "checkpoints" / "12", tmp_path / "best", copy_function=shutil.copyfile
    )
    for file in elsewhere.rglob("*"):
        os.utime(file, (0, 0))
    restored = jaxad.restore(elsewhere)
    assert_bit_equal(restored.detector, trained.model)
    assert (restored.threshold, restored.notes) == (trained.threshold, ())
    # A renamed step of a workdir is no step of it: its name would say another number.
    workdir = shutil.copytree(trained.workdir, tmp_path / "run")
    (workdir / "checkpoints" / "8").rename(workdir / "checkpoints" / "20")
    assert jaxad.restore(workdir).meta["step"] == 12
    (workdir / "checkpoints" / "12").rename(workdir / "checkpoints" / "twelve")
    assert jaxad.restore(workdir / "checkpoints" / "twelve").meta["step"] == 12
    with pytest.raises(DamagedError, match="holds step 8"):
        jaxad.restore(workdir)


def test_what_is_no_step_is_ignored(copy):
    for name in ("damaged-16", "16-backup", "0016", "²", "tmp"):
        (copy / "checkpoints" / name).mkdir()
    (copy / "checkpoints" / "notes.txt").write_text("keep")
    restored = jaxad.restore(copy)
    assert (restored.meta["step"], restored.notes) == (12, ())


def test_a_damaged_end_of_a_run_costs_the_threshold_alone(copy, trained):
    file = copy / "checkpoints" / "12" / "complete.json"
    content = file.read_text()
    limit = str(trained.threshold.of(None).image)
    other = json.loads(content) | {"of": "0" * 64}
    for damaged in ("", content[:40], content.replace(limit, f"1{limit}"), "[1]", json.dumps(other)):
        file.write_text(damaged)
        restored = jaxad.restore(copy)
        assert (restored.threshold, restored.meta["complete"], restored.meta["step"]) == (None, False, 12)
        assert "complete.json" in restored.notes[0]
    file.write_text(content)
    assert jaxad.restore(copy).threshold == trained.threshold


def test_a_step_without_permission_is_not_taken_for_damaged(copy, monkeypatch):
    def refuse(file):
        raise PermissionError(13, "Permission denied", str(file))

    monkeypatch.setattr("jaxad.io.digests.digest", refuse)
    with pytest.raises(CheckpointError, match="Permission denied") as error:
        jaxad.restore(copy)
    assert not isinstance(error.value, DamagedError)


def test_types_of_what_a_checkpoint_records_are_checked_and_all_faults_listed(copy):
    step = copy / "checkpoints" / "12"
    record = jaxad.restore(step).meta["pretrained"]
    edit_meta(step, categories=["disc", 5], system=None, train=[], pretrained=record | {"bytes": "many", "swaps": 1})
    with pytest.raises(CheckpointError) as error:
        jaxad.restore(copy)
    for place in ("system", "categories[1]", "train", "pretrained.bytes", "pretrained.swaps"):
        assert f"meta.{place}" in str(error.value)


@pytest.mark.parametrize("depth", [0, 11, 10**9, "12", True])
def test_depths_of_images_are_those_that_cameras_have(copy, depth):
    edit_meta(copy / "checkpoints" / "12", depths={"disc": depth})
    with pytest.raises(CheckpointError, match=r"depths\.disc"):
        jaxad.restore(copy)


def test_a_manifest_may_not_lead_out_of_its_folder(copy, tmp_path):
    step, other = copy / "checkpoints" / "12", tmp_path / "elsewhere"
    manifest = read_manifest(step)
    file = step / next(name for name in manifest.files if name.startswith("model/d/"))
    file.rename(other)
    file.symlink_to(other)
    with pytest.raises(DamagedError, match="link"):
        jaxad.restore(step)
    write_manifest(step, [*manifest.files, "../../../elsewhere"], **manifest.about)
    with pytest.raises(DamagedError, match="manifest"):
        jaxad.restore(step)


def test_shapes_are_compared_before_any_array_is_read(copy, monkeypatch):
    monkeypatch.setattr(checkpoint, "read_arrays", lambda *_: pytest.fail("read"))
    with pytest.raises(CheckpointError, match=r"local/queries: shape"):
        jaxad.restore(copy, local_prototypes=5)
    monkeypatch.setattr("jaxad.inference.stored_arrays.LEAST_BOUND", 0)
    monkeypatch.setattr("jaxad.inference.stored_arrays.RATIO", 0.5)
    with pytest.raises(CheckpointError, match="cannot hold"):
        jaxad.restore(copy)


def test_networks_that_cannot_be_built_are_said_so(copy):
    record = jaxad.restore(copy).meta["pretrained"]
    whole = record["config"]
    for config, kind, named in (
        ({}, ConfigError, "needs exactly.*shape"),
        (whole | {"shape": 5}, CheckpointError, r"checkpoints/12: .*cannot be built"),
        (whole | {"normalization": {"mean": "x"}}, ConfigError, "mean = 'x'"),
    ):
        edit_meta(copy / "checkpoints" / "12", pretrained=record | {"config": config})
        with pytest.raises(kind, match=named):
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
