"""Settings to change in a checkpoint's config: typed by it, misspelled ones answered."""

from dataclasses import dataclass, field

import pytest

from jaxad.cli._overrides import overrides
from jaxad.config import CLIPFusionConfig, DPDiffConfig
from jaxad.errors import ConfigError


@dataclass(frozen=True)
class Sampler:
    steps: int = 3
    kind: str = "ddim"


@dataclass(frozen=True)
class Outer:
    name: str = "a"
    sampler: Sampler = field(default_factory=Sampler)


def test_values_have_the_types_of_the_config():
    words = ["start-timestep=200", "residual=cosine", "draws=4", "blocks=[2, 3]", "beta_end=1", "width=null"]
    expected = {"start_timestep": 200, "residual": "cosine", "draws": 4, "blocks": [2, 3], "beta_end": 1, "width": None}
    assert overrides(words, DPDiffConfig()) == expected
    assert overrides(["blocks=middle", "self_attention=false"], DPDiffConfig()) == {
        "blocks": "middle",
        "self_attention": False,
    }
    # A text stays one, whatever it looks like.
    assert overrides(["label=7"], CLIPFusionConfig()) == {"label": "7"}


def test_nested_settings():
    assert overrides(["sampler.steps=5", "sampler.kind=ddpm"], Outer()) == {"sampler": {"steps": 5, "kind": "ddpm"}}


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("draws", "NAME=VALUE"),
        ("start_timestep=abc", "start_timestep=abc: must be an int"),
        ("self_attention=7", "must be true or false"),
        ("residual=cubic", "must be one of squared, cosine"),
        ("drawers=2", "did you mean draws?"),
        ("nosuch.steps=2", "no such setting"),
        ("draws.steps=2", "draws"),
    ],
)
def test_what_cannot_work_is_named(word, said):
    with pytest.raises(ConfigError) as error:
        overrides([word], DPDiffConfig())
    assert said in str(error.value)
    assert f"--override {word}" in str(error.value)


def test_all_problems_at_once():
    with pytest.raises(ConfigError, match=r"draws=x[\s\S]*heds=2.*heads"):
        overrides(["draws=x", "heds=2"], DPDiffConfig())
    with pytest.raises(ConfigError, match="steps"):
        overrides(["sampler.stpes=2"], Outer())
