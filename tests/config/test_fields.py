import dataclasses
import json
import subprocess
import sys
from itertools import pairwise

import pytest

from jaxad.config import (
    CLIPFusionConfig,
    DataConfig,
    DPDiffConfig,
    PatchBankConfig,
    TrainConfig,
    VLMDiffConfig,
    from_json,
    to_json,
)
from jaxad.errors import ConfigError

CONFIGS = [VLMDiffConfig, DPDiffConfig, PatchBankConfig, TrainConfig, DataConfig]


@pytest.mark.parametrize("cls", CONFIGS)
def test_json_round_trip(cls):
    for config in (cls(), *([cls.preset("small"), cls.preset("paper")] if hasattr(cls, "preset") else [])):
        config.check()
        assert from_json(cls, json.loads(json.dumps(to_json(config)))) == config


def test_round_trip_keeps_tuples_and_missing_values():
    config = DPDiffConfig(blocks=(4, 5), train_timesteps=(0, 500))
    values = json.loads(json.dumps(to_json(config)))
    assert values["blocks"] == [4, 5]
    assert from_json(DPDiffConfig, values) == config
    assert from_json(DPDiffConfig, {"blocks": None}) == DPDiffConfig()
    assert from_json(TrainConfig, {"learning_rate": 1}).learning_rate == 1.0


def test_every_wrong_value_is_listed_at_once():
    values = {"color": "red", "depth": "deep", "residual": "l2", "train_timesteps": [1], "blocks": 4, "draws": True}
    with pytest.raises(ConfigError) as error:
        from_json(DPDiffConfig, values)
    for name in values:
        assert f"{name}" in str(error.value)
    assert "'squared', 'cosine'" in str(error.value)


@pytest.mark.parametrize(
    ("config", "names"),
    [
        (DPDiffConfig(depth=0, draws=0, beta_end=2.0, sinkhorn_epsilon=0.0), "depth draws beta_end sinkhorn_epsilon"),
        (DPDiffConfig(start_timestep=1000, train_timesteps=(5, 5)), "start_timestep train_timesteps"),
        (DPDiffConfig(start_timestep=2, blocks=(1, 1)), "sampling_steps blocks"),
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
    assert (TrainConfig().learning_rate, TrainConfig().batch_size) == (1e-4, 32)
    assert DPDiffConfig.preset("small", depth=7).depth == 7
    with pytest.raises(ConfigError, match="has paper, small"):
        DPDiffConfig.preset("large")  # type: ignore[arg-type]


@pytest.mark.parametrize("cls", CONFIGS)
def test_every_field_is_explained(cls):
    import ast
    import inspect
    import textwrap

    body = ast.parse(textwrap.dedent(inspect.getsource(cls))).body[0].body  # type: ignore[attr-defined]
    explained = {
        field.target.id
        for field, text in pairwise(body)
        if isinstance(field, ast.AnnAssign) and isinstance(text, ast.Expr) and isinstance(text.value, ast.Constant)
    }
    assert explained == {field.name for field in dataclasses.fields(cls)}


def test_configs_are_free_of_jax():
    code = "import sys, jaxad.config; sys.exit('jax' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
