"""What several detectors need of an image: which passes, and where each finds its own among them.

That the numbers are those of each detector alone is a slow test of the experiments.
"""

from __future__ import annotations

import dataclasses
import functools

import numpy as np
import pytest

from jaxad.bench.clipfusion import abstract_detector, settings
from jaxad.detectors.clipfusion.detector import CLIPFusion
from jaxad.detectors.clipfusion.mapdiff import joined
from jaxad.detectors.clipfusion.shared import SharedFeatures, sharing_key
from jaxad.errors import ConfigError
from jaxad.nn.variables import Memory

TINY = settings("default", "tiny", "float32")
STEPS = {201, 401, 801}


@functools.cache
def networks():
    """Shapes of tiny networks."""
    return abstract_detector(TINY, "tiny", 0).backbone


def made(shots=1, **changes):
    """A detector with random texts."""
    config = dataclasses.replace(TINY, **changes)
    detector = CLIPFusion(config, networks().of(config.models))
    detector.categories = ("part",)
    noise, width = np.random.default_rng(0), 12
    detector.queries = Memory(noise.normal(size=(1, len(config.states), 77, width)))
    detector.reference = Memory(noise.normal(size=(1, 77, width)))
    if shots:
        detector.diffusion_banks[0] = Memory(np.ones((1, 3, 4), np.float32))
    return detector


def test_a_prompt_and_a_timestep_are_one_pass_for_all():
    few = made()
    assert SharedFeatures([few]).passes == 2 * len(STEPS)
    # One state of two, no references, other weights, one model: nothing new.
    others = [made(states=("residue",)), made(0), made(map_weight=0.5), made(models=("diffusion",))]
    assert SharedFeatures([few, *others]).passes == 2 * len(STEPS)
    # Without references the late timestep is nobody's.
    assert SharedFeatures([made(0)]).passes == 2 * 2
    assert SharedFeatures([few, made(states=("hole",))]).passes == 3 * len(STEPS)
    assert SharedFeatures([few, made(vision_prompt="reference")]).passes == 3 * len(STEPS)
    assert SharedFeatures([made(0, models=("clip",))]).passes == 0


def test_every_detector_finds_its_own_prompts():
    detectors = [made(), made(states=("residue",)), made(states=("hole", "crack")), made(vision_prompt="reference")]
    shared = SharedFeatures(detectors)
    found = [{name: own.tolist() for name, own in places.items()} for places in shared._places]
    assert found == [
        {"passes": [[0, 1]]},
        {"passes": [[1]]},
        {"passes": [[2, 0]]},
        {"passes": [[0, 1]], "reference_passes": [3]},
    ]
    np.testing.assert_array_equal(shared._texts[0, :2], np.asarray(detectors[0].queries[...])[0])
    np.testing.assert_array_equal(shared._texts[0, 3], np.asarray(detectors[3].reference[...])[0])
    # Attention is that of the states, features of references that of theirs.
    states, references = (joined(shared._asked[3][name]) for name in ("passes", "reference_passes"))
    assert (states.timesteps, states.stages) == ((201, 401), ())
    assert (references.sites, {t for t, _ in references.stages}) == ((), {201, 801})


def test_networks_of_another_type_share_nothing():
    # Even where no model is in both.
    one, other = made(0, models=("clip",)), made(0, models=("diffusion",), precision="bfloat16")
    with pytest.raises(ConfigError, match="other precision"):
        SharedFeatures([one, other])


@pytest.mark.parametrize("changes", [{"image_size": 32}, {"latents": "sample"}, {"denoiser_input": "noised"}])
def test_what_sees_other_latents_shares_nothing(changes):
    with pytest.raises(ConfigError, match="other diffusion"):
        SharedFeatures([made(0), made(0, **changes)])


def test_models_are_shared_one_by_one():
    whole, clip = sharing_key(TINY), sharing_key(dataclasses.replace(TINY, models=("clip",)))
    assert clip == {name: whole[name] for name in ("precision", "clip")}
    assert SharedFeatures([made(0), made(0, models=("clip",))]).views.keys() == {"clip", "diffusion"}
    other = made(0)
    other.categories = ("another",)
    with pytest.raises(ConfigError, match="other categories"):
        SharedFeatures([made(0), other])
