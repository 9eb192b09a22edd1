"""Prompts of CLIPFusion and WinCLIP, where their states stand among the tokens, and what text towers make of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxad.config import CLIPFusionConfig
from jaxad.config.clipfusion import OBJECT, STATE
from jaxad.models.clip.tokenizer import CLIPTokenizer, token_positions
from jaxad.models.clip.towers import TextTower
from jaxad.nn import module_state
from jaxad.types import Array

VISA_WORDS = {
    "chewinggum": "chewing gum",
    "macaroni1": "macaroni",
    "macaroni2": "macaroni",
    **{f"pcb{number}": "printed circuit board" for number in range(1, 5)},
}
"""Names of categories that are not words, as PromptAD spells them; the others only have underscores for spaces."""

NORMAL_STATES = (
    *("{}", "flawless {}", "perfect {}", "unblemished {}"),
    *("{} without flaw", "{} without defect", "{} without damage"),
)
ABNORMAL_STATES = ("damaged {}", "{} with flaw", "{} with defect", "{} with damage")
TEMPLATES = (
    *("a cropped photo of the {}", "a cropped photo of a {}"),
    *("a close-up photo of a {}", "a close-up photo of the {}"),
    *("a bright photo of a {}", "a bright photo of the {}"),
    *("a dark photo of the {}", "a dark photo of a {}"),
    *("a jpeg corrupted photo of a {}", "a jpeg corrupted photo of the {}"),
    *("a blurry photo of the {}", "a blurry photo of a {}"),
    *("a photo of a {}", "a photo of the {}"),
    *("a photo of a small {}", "a photo of the small {}", "a photo of a large {}", "a photo of the large {}"),
    *("a photo of the {} for visual inspection", "a photo of a {} for visual inspection"),
    *("a photo of the {} for anomaly detection", "a photo of a {} for anomaly detection"),
)
"""WinCLIP's compositional prompt ensemble (arXiv 2303.14814)."""

ACCURATE_TEMPLATES = tuple(
    template.replace("corrupted photo of a", "corrupted photo of the") + "."
    for template in TEMPLATES
    if template != "a cropped photo of a {}"
)
"""The same in Accurate-WinCLIP: as sentences, one of them missing and one there twice."""

BATCH = 64
"""Texts that a tower takes at once."""


class StateTexts(NamedTuple):
    """What the diffusion model is told of each category; categories of fewer states are filled up with the last one.

    Attributes:
        queries: float32 [g s k d], text tokens of the prompts that name a state.
        places: int32 [g s m], the state's tokens among the k, filled up with the last one.
        used: bool [g s m], False for that filling.
        weights: float32 [g s], 1 / (number of states of the category), 0 for filled-up states.
        reference: float32 [g k d], text tokens of the prompt for references.
    """

    queries: np.ndarray
    places: np.ndarray
    used: np.ndarray
    weights: np.ndarray
    reference: np.ndarray


def object_words(category: str, config: CLIPFusionConfig) -> str:
    """What a category is called in prompts: "metal_nut" is a metal nut, "pcb1" a printed circuit board."""
    if config.object_names == "verbatim":
        return config.words(category) or category
    return config.words(category) or VISA_WORDS.get(category) or category.replace("_", " ")


def clip_prompts(category: str, config: CLIPFusionConfig) -> tuple[list[str], list[str]]:
    """The prompts that describe a normal and an abnormal object of that category."""
    words = object_words(category, config)
    if config.prompt_mode == "single":
        normal, abnormal = (
            [config.clip_prompt.replace(STATE, state).replace(OBJECT, words)] for state in config.clip_states
        )
        return normal, abnormal
    templates = TEMPLATES if config.prompt_mode == "winclip-ensemble" else ACCURATE_TEMPLATES
    normal, abnormal = (
        [template.format(state.format(words)) for state in states for template in templates]
        for states in (NORMAL_STATES, ABNORMAL_STATES)
    )
    return normal, abnormal


def state_prompts(category: str, config: CLIPFusionConfig) -> list[str]:
    """The prompts that the UNet searches images of that category with, one for each state."""
    prompt = _named(config.map_prompt, category, config)
    return [prompt.replace(STATE, state) for state in config.states_of(category)]


def reference_prompt(category: str, config: CLIPFusionConfig) -> str:
    """The prompt that the UNet sees references of that category with."""
    return _named(config.reference_prompt, category, config)


def clip_embeddings(
    tower: TextTower, tokenizer: CLIPTokenizer, categories: Sequence[str], config: CLIPFusionConfig
) -> np.ndarray:
    """The normal and the abnormal direction of every category.

    Args:
        tower: CLIP's text tower.
        tokenizer: of that tower.
        categories: g names.
        config: prompts and states.

    Returns:
        float32 [g 2 d] of unit length: the mean of each list's embeddings, not normalized before, as in WinCLIP.

    Raises:
        ConfigError: a prompt that is too long for the tower.
    """
    lists = [prompts for category in categories for prompts in clip_prompts(category, config)]
    ids = tokenizer([prompt for prompts in lists for prompt in prompts], truncate=False)
    embeddings = _run(tower, ids, "embedding")
    bounds = np.cumsum([len(prompts) for prompts in lists])[:-1]
    means = np.stack([part.mean(axis=0) for part in np.split(embeddings, bounds)])
    means /= np.linalg.norm(means, axis=-1, keepdims=True)
    return means.reshape(len(categories), 2, -1)


def state_texts(
    tower: TextTower, tokenizer: CLIPTokenizer, categories: Sequence[str], config: CLIPFusionConfig
) -> StateTexts:
    """What the UNet is conditioned on, for every category and state.

    Args:
        tower: Stable Diffusion's text tower.
        tokenizer: of that tower.
        categories: g names.
        config: prompts and states.

    Raises:
        ConfigError: a prompt that is too long for the tower, or a state without tokens of its own.
    """
    prompts, phrases, counts = [], [], []
    for category in categories:
        before, states = _named(config.map_prompt.partition(STATE)[0], category, config), config.states_of(category)
        counts.append(len(states))
        prompts += state_prompts(category, config)
        phrases += [(before, state) for state in states]
    references = [reference_prompt(name, config) for name in categories]
    ids = tokenizer([*prompts, *references], truncate=False)
    places = [token_positions(tokenizer, *phrase) for phrase in phrases]
    hidden = _run(tower, ids, "hidden")
    most, longest = max(counts), max(map(len, places))
    starts = np.cumsum([0, *counts[:-1]])
    # Row of each category's states; those it lacks are its last one again.
    rows = np.stack([start + np.minimum(np.arange(most), n - 1) for start, n in zip(starts, counts, strict=True)])
    filled = np.array([[*row, *[row[-1]] * (longest - len(row))] for row in places], np.int32)
    used = np.array([[index < len(row) for index in range(longest)] for row in places])
    weights = np.stack([(np.arange(most) < n) / n for n in counts]).astype(np.float32)
    return StateTexts(hidden[rows], filled[rows], used[rows], weights, hidden[len(prompts) :])


def _named(prompt: str, category: str, config: CLIPFusionConfig) -> str:
    return prompt.replace(OBJECT, object_words(category, config))


def _run(tower: TextTower, ids: np.ndarray, field: str) -> np.ndarray:
    """One field of the tower's output for texts [n k], float32 [n ...]; equal texts run once."""
    unique, inverse = np.unique(ids, axis=0, return_inverse=True)
    size = min(BATCH, len(unique))
    padded = np.concatenate([unique, np.repeat(unique[-1:], -len(unique) % size, axis=0)])
    graphdef, arrays = module_state.split(tower)

    @jax.jit
    def run(arrays: dict[str, Array], ids: Array) -> jax.Array:
        return getattr(module_state.merge(graphdef, arrays)(ids), field).astype(jnp.float32)

    parts = [np.asarray(run(arrays, padded[start : start + size])) for start in range(0, len(padded), size)]
    return np.concatenate(parts)[inverse.reshape(-1)]
