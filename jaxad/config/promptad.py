"""Settings of PromptAD."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from jaxad.config.clipfusion import OBJECT, CLIPFusionConfig, halves
from jaxad.config.clipfusion_presets import E32
from jaxad.config.fields import Config, Precision, at_least, make_preset, raise_problems, setting
from jaxad.config.training import TrainConfig

_PUBLIC = "published code: PromptAD"

_PUBLISHED: dict[str, Any] = {
    "steps": 100,
    "batch_size": 400,
    "learning_rate": 2e-3,
    "optimizer": "sgd",
    "weight_decay": 5e-4,
    "schedule": "cosine",
    "final_rate": 1e-5 / 2e-3,
}

_SPOT = "colour spot"  # codespell:ignore

KNOWN_STATES: Mapping[str, tuple[str, ...]] = {
    "bottle": ("large breakage", "small breakage", "contamination"),
    "cable": ("bent wire", "missing part", "missing wire", "cut", "poke"),
    "capsule": ("crack", "faulty imprint", "poke", "scratch", f"{OBJECT} squeezed with compression"),
    "carpet": ("hole", "color stain", "metal contamination", "thread residue", "thread", "cut"),
    "grid": ("breakage", "thread residue", "thread", "metal contamination", "glue", "a bent shape"),
    "hazelnut": ("crack", "cut", "hole", "print"),
    "leather": ("color stain", "cut", "fold", "glue", "poke"),
    "metal_nut": ("a bent shape", "color stain", "a flipped orientation", "scratch"),
    "pill": ("color stain", "contamination", "crack", "faulty imprint", "scratch", "abnormal type"),
    "screw": ("manipulated front", "scratch neck", "scratch head"),
    "tile": ("crack", "glue strip", "gray stroke", "oil", "rough surface"),
    "toothbrush": ("defect", "anomaly"),
    "transistor": ("bent lead", "cut lead", "damage", "misplaced transistor"),
    "wood": ("color stain", "hole", "scratch", "liquid"),
    "zipper": ("broken teeth", "fabric border", "defect fabric", "broken fabric", "split teeth", "squeezed teeth"),
    "candle": (
        "melded wax",
        "foreign particals",  # codespell:ignore
        *("extra wax", "chunk of wax missing", "weird candle wick"),
        *("damaged corner of packaging", f"different {_SPOT}"),
    ),
    "capsules": ("scratch", "discolor", "misshape", "leak", "bubble"),
    "cashew": ("breakage", "small scratches", "burnt", "stuck together", "spot"),
    "chewinggum": ("corner missing", "scratches", "chunk of gum missing", _SPOT, "cracks"),
    "fryum": ("breakage", "scratches", "burnt", _SPOT, "fryum stuck together", _SPOT),
    **dict.fromkeys(
        ("macaroni1", "macaroni2"),
        ("color spot", "small chip around edge", "small scratches", "breakage", "cracks"),
    ),
    **dict.fromkeys(("pcb1", "pcb2", "pcb3"), ("bent", "scratch", "missing", "melt")),
    "pcb4": ("scratch", "extra", "missing", "wrong place", "damage", "burnt", "dirt"),
    "pipe_fryum": ("breakage", "small scratches", "burnt", "stuck together", _SPOT, "cracks"),
}
"""What PromptAD calls the defects of MVTec-AD's and VisA's categories, as it spells them."""


@dataclass(frozen=True)
class PromptADConfig(Config):
    """PromptAD: prompts learned from a few normal images (arXiv 2404.05231).

    The preset "paper" is its public code, with which the published numbers were made, slips included; "equations" has
    what the paper writes where that code differs.
    """

    RESOURCES: ClassVar = ("chunk",)
    MAIN: ClassVar = ("clip", "clip_image_size", "objects", "class_states", "known_states")
    SIGHT: ClassVar = (
        *("clip", "clip_tokenizer", "clip_image_size", "clip_blocks", "clip_block_path", "vv_blocks"),
        *("temperature", "objects", "output_size", "chunk", "precision"),
    )
    """The fields that mean the same in CLIPFusionConfig: how images are seen."""
    PRESETS: ClassVar = {
        "paper": {},
        "equations": {"temperature": None, "clip_block_path": "original", "margin_over": "channels", "prompts": (1, 1)},
    }

    clip: str = setting(E32, source=_PUBLIC, reason="the paper names network and data only")
    """Folder, file or Hugging Face id of a CLIP (ViT-B-16-plus-240 of OpenCLIP on LAION-400M), or "random:WIDTH", a
    small untrained one."""
    clip_tokenizer: str | None = setting(None, source="jaxad", reason="a CLIP is published with its tokenizer")
    """Folder or id with CLIP's tokenizer files; None for those of `clip`."""
    clip_image_size: int | None = setting(None, source="paper")
    """Side in pixels of CLIP's square input, resized bicubically; None for what it was trained on, here 240."""
    clip_blocks: tuple[int | float, ...] = setting((3, 8), source=_PUBLIC, reason='the paper says "l-th layer"')
    """Blocks whose patches are compared with the references: by number from 1, from the end as -1, or as shares of the
    depth."""
    clip_block_path: Literal["original", "attended"] = setting(
        "attended", source=_PUBLIC, reason="as it is computed there; the paper has the blocks' outputs"
    )
    """Those outputs; or with the attention of the block behind, which the code adds to what it has put by."""
    vv_blocks: int | None = setting(None, source=_PUBLIC, reason="the paper gives no number")
    """Number of last blocks with a value-value path, whose patches are compared with prompts; None for all."""
    temperature: float | None = setting(
        1 / math.log(100),
        source=_PUBLIC,
        reason="it multiplies cosines by the logarithm that the checkpoint holds, not by its exponential",
        decision="promptad-published-code",
    )
    """Divides cosines before the softmax, in training and later on; None for the checkpoint's, about 0.01."""
    prompts: tuple[int, int] = setting(
        (3, 1),
        source=_PUBLIC,
        reason="its script for image scores has three, that for maps one; the paper says one",
        decision="promptad-published-code",
    )
    """Learned normal prompts for the image score, and for the map."""
    prompt_tokens: int = setting(4, source="paper")
    """Learned tokens of each, before the name of the object."""
    suffixes: int = setting(4, source="paper")
    """Learned abnormal suffixes, each of which follows each normal prompt."""
    suffix_tokens: int = setting(1, source="paper")
    """Learned tokens of each suffix."""
    objects: tuple[str, ...] = setting((), source=_PUBLIC, reason="VisA's names are spelled out, others left alone")
    """Words for categories, as CATEGORY=WORDS; the others are called by their names, "_" as space, VisA's spelled
    out."""
    states: tuple[str, ...] = setting(
        (
            *(f"{word} {OBJECT}" for word in ("damaged", "flawed", "abnormal", "imperfect", "blemished")),
            *("flaw", "defect", "damage"),
        ),
        source="paper",
    )
    """Abnormal states of any object: with [object] in them, or what it is an object *with*."""
    class_states: tuple[str, ...] = setting((), source="jaxad", reason="for categories of one's own")
    """Further states for some categories, as CATEGORY=STATE,STATE, in the place of known ones."""
    known_states: bool = setting(
        True, source=_PUBLIC, reason="the paper shows some of them", decision="promptad-published-code"
    )
    """Whether categories named as MVTec-AD's and VisA's have the states that PromptAD has for them, which are the
    defects of their test images."""
    match_weight: float = setting(0.001, source="paper")
    """Weight lambda of the distance between the means of manual and of learned abnormal prompts."""
    margin: float = setting(0.0, source="paper")
    """By how much patches and images must be nearer to the normal than to the abnormal prompts."""
    margin_over: Literal["patches", "channels"] = setting(
        "patches",
        source=_PUBLIC,
        reason="for maps its triplet loss sums over the patches of an image, channel by channel",
        decision="promptad-published-code",
    )
    """What squared distances between patches and prompts are summed over before they are compared: the patches, or the
    channels, as the paper's norm is; those between images and prompts are always sums over channels."""
    output_size: int = setting(400, source=_PUBLIC, reason="the paper does not say at which size maps are compared")
    """Side in pixels of maps."""
    chunk: int = setting(4096, source="jaxad", reason="bounds memory only")
    """Bank entries compared at once."""
    precision: Precision = setting("auto", source="jaxad", reason="published is float16, in which training is coarse")
    """Compute type of the networks: "auto" is float32 on CPU, and bfloat16 on GPU and TPU."""

    @classmethod
    def training(cls, name: str | None = None, **changes: Any) -> TrainConfig:
        """The training that goes with the preset of that name, with `changes` to it; not checked yet.

        Raises:
            ConfigError: no preset has that name.
        """
        return make_preset(TrainConfig, name, dict.fromkeys(cls.PRESETS, _PUBLISHED), changes)

    @property
    def sight(self) -> CLIPFusionConfig:
        """How it sees, as settings of PatchCLIP, CLIPFusion's half without diffusion."""
        return CLIPFusionConfig(models=("clip",), **{name: getattr(self, name) for name in self.SIGHT})

    def problems(self) -> list[str]:
        """A line for each field that cannot work."""
        problems = self.sight.problems()
        problems += at_least(self, 1, ("prompt_tokens", "suffixes", "suffix_tokens"))
        problems += at_least(self, 0, ("match_weight", "margin"))
        if min(self.prompts) < 1:
            problems.append(f"prompts = {self.prompts}: must be at least 1 each")
        if not self.clip_blocks:
            problems.append("clip_blocks: needs one or more blocks, whose patches are compared with references")
        if not self.states or not all(state.strip() for state in self.states):
            problems.append(f"states = {self.states}: needs one or more, and none without words")
        if bad := [pair for pair in self.class_states if not halves(pair)[0] or not self._own_states(halves(pair)[0])]:
            problems.append(f"class_states = {bad}: needs the form CATEGORY=STATE,STATE")
        return problems

    def check_categories(self, categories: Sequence[str]) -> None:
        """Raises ConfigError where `objects` or `class_states` name a category that is not one of these."""
        self.sight.check_categories(categories)
        if strangers := [pair for pair in self.class_states if halves(pair)[0] not in categories]:
            listed = ", ".join(categories)
            raise_problems("PromptADConfig", [f"class_states = {strangers}: no such category; there are {listed}"])

    def abnormal(self, category: str, words: str) -> list[str]:
        """The manual abnormal prompts of a category, without learned tokens and full stop.

        Args:
            category: its name.
            words: what it is called in prompts.
        """
        known = KNOWN_STATES.get(category, ()) if self.known_states else ()
        states = (*self.states, *(self._own_states(category) or known))
        return [state.replace(OBJECT, words) if OBJECT in state else f"{words} with {state}" for state in states]

    def _own_states(self, category: str) -> tuple[str, ...]:
        given = dict(map(halves, self.class_states)).get(category, "")
        return tuple(state.strip() for state in given.split(",") if state.strip())
