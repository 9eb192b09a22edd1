"""Whose a workdir is: told by its checkpoints, by what settings mean and not how they are spelled."""

import json
import shutil

import pytest

import jaxad
from jaxad.config import PatchBankConfig, TrainConfig
from jaxad.detectors.patch_bank import PatchBank
from jaxad.errors import CheckpointError
from jaxad.training.run_folder import claim
from tests.models.vit.made_checkpoints import write_dinov2
from tests.training.damage import to_folder

RESOURCES = {"train": TrainConfig.RESOURCES}


@pytest.fixture
def copy(trained, tmp_path):
    return shutil.copytree(trained.workdir, tmp_path / "run")


@pytest.fixture
def settings(copy):
    return json.loads((copy / "config.json").read_text())


DAMAGE = {"empty": "", "half": '{"system": "dpd', "a list": "[]", "no run's": "{}", "deep": "[" * 100_000}


@pytest.mark.parametrize("content", [*DAMAGE.values(), None, to_folder], ids=[*DAMAGE, "missing", "a folder"])
def test_config_json_is_written_anew_where_the_checkpoint_knows_better(copy, settings, content):
    file = copy / "config.json"
    if callable(content):
        content(file)
    elif content is None:
        file.unlink()
    else:
        file.write_text(content)
    (told,) = claim(copy, settings, RESOURCES)
    assert str(file) in told
    assert json.loads(file.read_text()) == settings
    assert claim(copy, settings, RESOURCES) == []


def test_a_changed_config_json_does_not_make_the_run_another(copy, settings):
    changed = {**settings, "train": settings["train"] | {"learning_rate": 7.0}}
    (copy / "config.json").write_text(json.dumps(changed))
    assert len(claim(copy, settings, RESOURCES)) == 1
    with pytest.raises(CheckpointError, match=r"train.learning_rate: 0.005 there, 7.0 now"):
        claim(copy, changed, RESOURCES)


def test_a_run_that_named_tensorboard_before_there_were_loggers_goes_on(tmp_path, settings):
    claim(tmp_path / "old", settings | {"train": settings["train"] | {"tensorboard": True}}, RESOURCES)
    claim(tmp_path / "old", settings, RESOURCES)


def test_a_damaged_config_json_without_checkpoints_says_what_to_do(copy, settings):
    shutil.rmtree(copy / "checkpoints")
    (copy / "config.json").write_text("{")
    with pytest.raises(CheckpointError, match=r"config\.json.*new workdir"):
        claim(copy, settings, RESOURCES)
    (copy / "config.json").unlink()
    with pytest.raises(CheckpointError, match="not empty"):
        claim(copy, settings, RESOURCES)


def test_settings_that_do_not_change_the_result_make_no_other_run(copy, settings):
    own = {
        "log_every": 3,
        "checkpoint_every": 5,
        "keep_checkpoints": 9,
        "cache": "disk",
        "cache_limit_gb": 1.0,
        "device_share": 0.1,
        "fsdp": 2,
        "loggers": ["wandb"],
        "eval_every": 2,
        "eval_images": 7,
        "eval_on": "test",
    }
    assert set(own) == set(TrainConfig.RESOURCES)
    assert claim(copy, {**settings, "train": settings["train"] | own}, RESOURCES) == []
    as_auto_is_here = settings["config"] | {"precision": "float32"}
    assert claim(copy, {**settings, "config": as_auto_is_here}, RESOURCES) == []
    with pytest.raises(CheckpointError, match="precision"):
        claim(copy, {**settings, "config": settings["config"] | {"precision": "bfloat16"}}, RESOURCES)
    with pytest.raises(CheckpointError, match="seed"):
        claim(copy, {**settings, "train": settings["train"] | own | {"seed": 1}}, RESOURCES)


def test_a_backbone_is_its_content_wherever_it_lies(parts, tmp_path):
    for name, more in (("one", {}), ("two", {}), ("other", {"registers": 1})):
        write_dinov2(tmp_path / name, **more)

    def fit(name, workdir, **changes):
        config = PatchBankConfig(backbone=str(tmp_path / name), image_size=28, bank_size=50, **changes)
        return jaxad.fit(PatchBank.create(config), parts.train, workdir=tmp_path / workdir)

    fit("one", "run")
    # Before the end is recorded, too, when nothing but config.json tells.
    shutil.rmtree(tmp_path / "run" / "checkpoints")
    fit("two", "run", chunk=77)
    assert fit("one/../two", "run").workdir == tmp_path / "run"
    with pytest.raises(CheckpointError, match=r"weights\.backbone"):
        fit("other", "run")
    # The same weights, taken otherwise.
    config = json.loads((tmp_path / "two" / "config.json").read_text())
    (tmp_path / "two" / "config.json").write_text(json.dumps(config | {"layer_norm_eps": 1e-3}))
    with pytest.raises(CheckpointError, match=r"weights\.backbone"):
        fit("two", "run")
