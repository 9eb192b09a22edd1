import dataclasses
import json
import operator
import subprocess
import sys
from dataclasses import dataclass
from typing import ClassVar, get_args

import pytest

import jaxad.config
from jaxad.config import (
    CLIPFusionConfig,
    CLIPFusionPreset,
    Config,
    DataConfig,
    DPDiffConfig,
    FirstStageTrainConfig,
    PatchBankConfig,
    TrainConfig,
    VLMDiffConfig,
    VLMDiffPreset,
    from_json,
    setting,
    to_json,
)
from jaxad.config.training import up_to_date
from jaxad.errors import ConfigError

CONFIGS = [value for name, value in vars(jaxad.config).items() if name.endswith("Config") and name != "Config"]


@pytest.mark.parametrize("cls", CONFIGS)
def test_json_round_trip(cls):
    for config in (cls(), *map(cls.preset, cls.presets())):
        config.check()
        assert from_json(cls, json.loads(json.dumps(to_json(config)))) == config


def test_round_trip_keeps_tuples_and_missing_values():
    config = DPDiffConfig(blocks=(4, 5), train_timesteps=(0, 500))
    values = json.loads(json.dumps(to_json(config)))
    assert values["blocks"] == [4, 5]
    assert from_json(DPDiffConfig, values) == config
    assert from_json(DPDiffConfig, {"blocks": None}) == DPDiffConfig()
    assert from_json(TrainConfig, {"learning_rate": 1}).learning_rate == 1.0


EARLIER = [({}, {}), ({"tensorboard": False}, {}), ({"tensorboard": True}, {"loggers": ["tensorboard"]})]


@pytest.mark.parametrize(("before", "now"), EARLIER)
def test_what_runs_of_earlier_versions_recorded_is_read(before, now):
    for cls in (TrainConfig, FirstStageTrainConfig):
        assert to_json(from_json(cls, up_to_date({"seed": 3, **before}))) == to_json(cls(seed=3)) | now


def test_every_wrong_value_is_listed_at_once():
    values = {"color": "red", "depth": "deep", "residual": "l2", "train_timesteps": [1], "blocks": 4, "draws": True}
    with pytest.raises(ConfigError) as error:
        from_json(DPDiffConfig, values)
    for name in values:
        assert f"{name}" in str(error.value)
    assert "'squared', 'cosine'" in str(error.value)


def test_an_unknown_field_is_answered_with_the_nearest_name():
    with pytest.raises(ConfigError, match="start_timestep"):
        from_json(DPDiffConfig, {"start_timesteps": 3})


@pytest.mark.parametrize(
    ("config", "names"),
    [
        (DPDiffConfig(depth=0, draws=0, beta_end=2.0, sinkhorn_epsilon=0.0), "depth draws beta_end sinkhorn_epsilon"),
        (DPDiffConfig(start_timestep=1000, train_timesteps=(5, 5)), "start_timestep train_timesteps"),
        (DPDiffConfig(start_timestep=2, blocks=(1, 1)), "sampling_steps blocks"),
        (DPDiffConfig(levels=(100, 1000), sampling_steps=200), "levels sampling_steps 100 1000"),
        (DPDiffConfig(levels=(), depth=0), "levels depth"),
        (DPDiffConfig(tokens=0), "tokens"),
        (DPDiffConfig(denoiser="none", precondition="linear"), "denoiser score precondition"),
        (DPDiffConfig(tokens=256, denoiser="unet"), "tokens"),
        (DPDiffConfig(image_score="excess"), "image_score excess precondition retrieval"),
        (DPDiffConfig(expected_share=0.5, precondition="linear"), "expected_share 0.5 precondition retrieval"),
        (DPDiffConfig(image_score="excess", expected_share=0.5), "image_score expected_share"),
        (DPDiffConfig(expected_share=-0.5), "expected_share -0.5"),
        (DPDiffConfig(nearest=True), "nearest precondition retrieval"),
        (DPDiffConfig(nearest=True, score="prototype", precondition="retrieval"), "nearest score prototype"),
        (DPDiffConfig(levels=(90, 90), score="prototype"), "levels score different"),
        (DPDiffConfig.preset("small", levels=(100, 400)), "levels train_timesteps"),
        (DPDiffConfig(blocks=[3, 3], depth="4"), "blocks depth"),  # type: ignore[arg-type]
        (DPDiffConfig.preset("small", start_timestep=500), "start_timestep train_timesteps"),
        (DPDiffConfig(train_timesteps=(100, 1000)), "start_timestep train_timesteps"),
        (DPDiffConfig(train_timesteps=(1, 1000), sampler="ddpm"), "start_timestep train_timesteps"),
        (CLIPFusionConfig(vv_blocks=0), "vv_blocks"),
        (CLIPFusionConfig(diffusion_taps=([201, 3],)), "diffusion_taps"),  # type: ignore[arg-type]
        (DPDiffConfig(score="prototype", local_prototypes=0, global_prototypes=0), "local_prototypes"),
        (PatchBankConfig(bank_size=0, neighbors=9, chunk=4, blocks=()), "bank_size neighbors blocks"),
        (TrainConfig(steps=0, learning_rate=-1.0, clip_norm=0.0, ema=1.0), "steps learning_rate clip_norm ema"),
        (TrainConfig(learning_rate=float("nan"), weight_decay=float("nan")), "learning_rate weight_decay"),
        (DataConfig(holdout=1.5, workers=-1), "holdout workers"),
    ],
)
def test_impossible_values_are_listed_at_once(config, names):
    with pytest.raises(ConfigError) as error:
        config.check()
    for name in names.split():
        assert name in str(error.value)


@pytest.mark.parametrize(
    "config",
    [DPDiffConfig(residual="l2"), DPDiffConfig(sampler="euler"), TrainConfig(schedule="poly"), TrainConfig(steps="9")],
)
def test_a_value_that_is_none_of_the_choices_never_falls_back_to_another(config):
    with pytest.raises(ConfigError, match="must be"):
        config.check()


def test_presets():
    paper = DPDiffConfig.preset()
    assert paper == DPDiffConfig()
    assert (paper.local_prototypes, paper.global_prototypes, paper.image_size) == (8, 2, 448)
    assert (paper.local_weight, paper.global_weight, paper.sampling_steps) == (0.2, 0.001, 3)
    assert (paper.residual, paper.draws, paper.start_timestep) == ("squared", 1, 250)
    train = TrainConfig.preset("paper")
    assert (train.learning_rate, train.batch_size, train.sampling) == (1e-4, 32, "size")
    assert TrainConfig.preset("small").sampling == VLMDiffConfig.training("small").sampling == "even"
    assert DPDiffConfig.preset("small", depth=7).depth == 7
    for preset in (DPDiffConfig.preset, VLMDiffConfig.training):
        with pytest.raises(ConfigError, match=r"large.*paper, (diad, )?small"):
            preset("large")


@pytest.mark.parametrize("cls", CONFIGS)
def test_the_first_preset_is_the_default_one(cls):
    assert cls.preset(cls.presets()[0]) == cls.preset() == cls()


def test_names_of_presets_are_typed_as_they_are():
    assert get_args(CLIPFusionPreset) == CLIPFusionConfig.presets()
    assert get_args(VLMDiffPreset) == VLMDiffConfig.presets()


def test_vlmdiff_has_a_training_for_every_preset():
    for name in VLMDiffConfig.presets():
        VLMDiffConfig.training(name).check()
    published = VLMDiffConfig.training("paper")
    assert (published.batch_size * published.accumulate, published.learning_rate) == (48, 1e-5)
    assert published.micro_batch == "auto"
    assert VLMDiffConfig.training("diad") == VLMDiffConfig.training() == published


def test_epochs_are_counted_in_steps():
    published = VLMDiffConfig.training("paper")
    counted = published.counted(188)
    assert (published.epochs, counted.steps, counted.epochs) == (300, 1_175, None)
    assert published.counted(3_629).steps == 22_682
    assert VLMDiffConfig.training("paper", steps=20).counted(188).steps == 20
    assert VLMDiffConfig.training("paper", epochs=100).counted(36_465).steps == 75_969
    assert TrainConfig(epochs=0.001).counted(32).steps == 1
    assert TrainConfig().counted(32) == TrainConfig()
    with pytest.raises(ConfigError, match="epochs = 0: must be above 0"):
        TrainConfig(epochs=0).check()


@pytest.mark.parametrize(("kind", "published"), [(TrainConfig, (40_000, None)), (FirstStageTrainConfig, (None, 100))])
def test_a_length_is_given_in_steps_or_in_epochs(kind, published):
    length = operator.attrgetter("steps", "epochs")
    assert length(kind()) == length(kind.preset("paper")) == published
    for name in kind.presets():
        assert sum(part is not None for part in length(kind.preset(name))) == 1
        assert length(kind.preset(name, epochs=2)) == (None, 2)
        assert length(kind.preset(name, steps=7)) == (7, None)
        # As flags change a preset, field by field.
        preset = kind.preset(name)
        for field, wanted in (("steps", (7, None)), ("epochs", (None, 2))):
            changed = dataclasses.replace(preset, **{field: {"steps": 7, "epochs": 2}[field]}).instead_of(preset)
            assert length(changed) == wanted
        assert dataclasses.replace(preset, batch_size=3).instead_of(preset) == dataclasses.replace(preset, batch_size=3)
    with pytest.raises(ConfigError, match=r"steps = 7, epochs = 2: .*give one"):
        dataclasses.replace(kind(), steps=7, epochs=2).instead_of(kind()).check()


def test_a_config_of_ones_own_has_presets_and_a_check():
    @dataclass(frozen=True)
    class Own(Config):
        PRESETS: ClassVar = {"wide": {"width": 9}, "narrow": {}}
        width: int = setting(2, source="jaxad", reason="an example")

        def problems(self):
            return [] if self.width > 0 else ["width: must be above 0"]

    assert Own.presets() == ("wide", "narrow")
    assert (Own.preset().width, Own.preset("narrow").width, Own.preset("narrow", width=4).width) == (9, 2, 4)
    Own.preset().check()
    for wrong in (Own(width=0), Own(width="2")):  # type: ignore[arg-type]
        with pytest.raises(ConfigError, match="width"):
            wrong.check()


@pytest.mark.parametrize(("source", "reason"), [("ours", "a reason"), ("jaxad", ""), ("published code: DiT", "")])
def test_a_default_needs_a_known_source_and_a_reason(source, reason):
    with pytest.raises(ValueError, match="source"):
        setting(1, source=source, reason=reason)


def test_configs_are_free_of_jax():
    code = "import sys, jaxad.config; sys.exit('jax' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
