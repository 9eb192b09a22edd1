"""Settings of DPDiff-AD."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from jaxad.config.fields import Blocks, at_least, setting
from jaxad.config.frozen_features import SMALL
from jaxad.config.retrieved_patches import RetrievedPatches

_FEW_STEPS: Mapping[str, Any] = {
    "depth": 2,
    "prediction": "v",
    "train_timesteps": (0, 400),
    "sampling_steps": 1,
    "residual": "cosine",
}
"""What DPDiff-AD learns and detects more with where it is trained for hundreds of steps."""


@dataclass(frozen=True)
class DPDiffConfig(RetrievedPatches):
    """DPDiff-AD: dual prototypes, prototype-conditioned diffusion, residual maps (arXiv 2605.24402).

    The preset "paper" is the published setting. "small" is for CPUs and tests; it learns and detects more in few steps:
    middle blocks, v-prediction, only the timesteps that inference visits, one DDIM step from each of four noise draws,
    cosine residual. "retrieval" detects most within half an hour on two cores: the network mends what the closed form
    makes of similar normal images' patches, of two groups of blocks at the published size, and what is left of an image
    and of normal patches, by the reconstruction and by the nearest patch, is taken into account.
    """

    RESOURCES: ClassVar = ("remat",)
    MAIN: ClassVar = (
        "backbone",
        "blocks",
        "image_size",
        "depth",
        "precondition",
        "start_timestep",
        "sampling_steps",
        "draws",
        "antithetic",
        "residual",
    )
    PRESETS: ClassVar = {
        "paper": {},
        "small": {**SMALL, **_FEW_STEPS, "draws": 4},
        "retrieval": {
            **SMALL,
            **_FEW_STEPS,
            "image_size": 448,
            "groups": 2,
            "width": 384,
            "tokens": 256,
            "precondition": "retrieval",
            "start_timestep": 100,
            "antithetic": True,
            "nearest": True,
            "image_score": "excess",
            "expected_share": 0.75,
        },
    }

    backbone: str = setting(
        "facebook/dinov2-with-registers-base",
        source="paper",
        reason="named only DINOv2-B; the paper cites the version with registers",
        decision="dpdiff-backbone",
    )
    """Frozen feature network: a folder, file or Hugging Face id (ORG/NAME or ORG/NAME@REVISION), or "embedded", the
    ViT-S/14 of the `demo` extra."""
    blocks: Blocks = setting(
        None,
        source="paper",
        reason="layers 6-11 of 12, counted from 0 since the ablation reaches 11; other depths take the same share",
        decision="dpdiff-feature-layers",
    )
    """Blocks of a ViT, from 0, that are averaged: numbers, "middle" third, or None for the last half; of a
    convolutional network the stages that are concatenated, None for strides 4, 8 and 16."""
    image_size: int = setting(448, source="paper")
    """Side in pixels of the square input; a multiple of the backbone's patch."""
    standardize: Literal["channel", "token", "none"] = setting(
        "channel",
        source="jaxad",
        reason="the paper is silent; a few channels of DINOv2 are so large that they would dominate the residual",
        decision="dpdiff-feature-scaling",
    )
    """Feature scaling before diffusion: fixed per-channel statistics, per-token layer norm, or none."""

    local_prototypes: int = setting(8, source="paper")
    """Number M of local prototypes; 0 leaves them out."""
    global_prototypes: int = setting(2, source="paper")
    """Number K of global prototypes; 0 leaves them out."""
    prototype_heads: int | None = setting(
        None,
        source="published code: INP-Former",
        reason="the paper gives no number; INP-Former's extractor has 12 heads for 768 channels",
        decision="dpdiff-prototype-extractors",
    )
    """Attention heads of the extractors; None for as many as leave 64 channels or more to each."""
    prototype_mlp_ratio: float = setting(
        4.0,
        source="published code: INP-Former",
        reason="the paper gives no width",
        decision="dpdiff-prototype-extractors",
    )
    """Width of the extractors' feed-forward layer over the feature width."""
    prototype_pre_norm: bool = setting(
        True,
        source="published code: INP-Former",
        reason="Eq. 10 writes no norm, but calls it a Transformer layer",
        decision="dpdiff-prototype-extractors",
    )
    """Layer norm before attention and feed-forward in the extractors."""
    local_weight: float = setting(0.2, source="paper")
    """Weight lambda_1 of the local prototype loss."""
    global_weight: float = setting(0.001, source="paper")
    """Weight lambda_2 of the optimal-transport loss."""
    sinkhorn_epsilon: float = setting(
        0.05,
        source="jaxad",
        reason="the paper gives none; relative to the feature width it suits any backbone",
        decision="dpdiff-optimal-transport",
    )
    """Entropic regularization, relative to a cost divided by the feature width."""
    sinkhorn_iterations: int = setting(
        500,
        source="jaxad",
        reason="the paper gives none; after 50 the marginals were still off",
        decision="dpdiff-optimal-transport",
    )
    """Most log-domain Sinkhorn iterations; it stops earlier once the marginals hold to 1e-4."""
    detach_prototypes: bool = setting(
        False,
        source="jaxad",
        reason="the paper states one sum of losses and no stopped gradient",
        decision="dpdiff-prototype-gradient",
    )
    """Stop the diffusion loss from reaching the extractors."""

    timesteps: int = setting(1000, source="paper")
    """Length T of the noise schedule."""
    beta_start: float = setting(1e-4, source="paper")
    """First beta of the linear schedule."""
    beta_end: float = setting(0.02, source="paper")
    """Last beta of the linear schedule."""
    train_timesteps: tuple[int, int] = setting(
        (0, 1000),
        source="jaxad",
        reason="the paper names no range; DDPM draws from the whole schedule",
        decision="dpdiff-training-timesteps",
    )
    """Half-open range from which training draws t uniformly."""
    tokens: int | None = setting(
        None,
        source="jaxad",
        reason="published training sees whole images; a quarter of the tokens takes a quarter of a step",
        decision="dpdiff-training-tokens",
    )
    """Most tokens of an image that a training step sees, a window at a random place: 256 at 448 pixels cost what 224
    pixels do. None for all of them."""
    prediction: Literal["epsilon", "v"] = setting("epsilon", source="paper")
    """What the denoiser's last layer outputs, and what the loss is on: the noise, or the velocity v."""
    precondition: Literal["none", "linear", "retrieval"] = setting(
        "none",
        source="jaxad",
        reason="published is the network alone; a denoiser in closed form is known before training, and hard to learn",
        decision="dpdiff-preconditioning",
    )
    """What the network's output is added to, so that training starts from it: nothing, or the prediction of a denoiser
    in closed form, the best linear one of all training features, or the best one given the most similar images."""

    denoiser: Literal["dit", "unet", "uvit", "none"] = setting("dit", source="paper")
    """Architecture of the denoiser: DiT, U-Net or U-ViT (the last two for the paper's Table 9), or none, which trains
    prototypes alone (rows 1 and 2 of Table 5)."""
    width: int | None = setting(
        None,
        source="jaxad",
        reason="the paper gives none; a narrower DiT could not represent noise of all channels, a wider U-Net "
        "would be many times as large as the DiT",
        decision="dpdiff-denoiser-size",
    )
    """Width of the denoiser; None takes the feature width, 3/8 of it for the first level of a U-Net."""
    heads: int | None = setting(
        None,
        source="published code: DiT",
        reason="the paper gives none; DiT-B has 12 heads of 64 channels",
        decision="dpdiff-denoiser-size",
    )
    """Attention heads of the denoiser; None for as many as leave 64 channels or more to each. A U-Net of default width
    has as many as a DiT, so 24 channels on its first level."""
    depth: int = setting(
        4,
        source="jaxad",
        reason="the paper gives none; its speed suggests one or two blocks, DiT-B has 12",
        decision="dpdiff-denoiser-size",
    )
    """Blocks of the denoiser: 1 is fastest, 12 is DiT-B; the U-Net always has two levels of two."""
    mlp_ratio: float = setting(
        4.0, source="published code: DiT", reason="the paper gives none", decision="dpdiff-denoiser-size"
    )
    """Width of a DiT's feed-forward layers over its own width; a U-ViT, whose blocks have no modulation, has 2 more, a
    U-Net has none."""
    self_attention: bool = setting(
        True,
        source="jaxad",
        reason="the text adds cross-attention to each DiT block; the caption of Figure 2 names no self-attention",
        decision="dpdiff-self-attention",
    )
    """Self-attention in every block of a DiT, besides the prototype attention."""

    start_timestep: int = setting(
        250,
        source="jaxad",
        reason="Figure 6 says a moderate value and cannot be read; at 250 half of the signal's variance is left",
        decision="dpdiff-start-timestep",
    )
    """Timestep t to which test features are noised."""
    levels: tuple[int, ...] | None = setting(
        None,
        source="jaxad",
        reason="published is one level; which one is best differs from category to category",
        decision="dpdiff-noise-levels",
    )
    """Several timesteps in place of `start_timestep`: the map is the mean of theirs, each divided by its own mean over
    the training features, measured after training. Each takes the time of one."""
    sampler: Literal["ddim", "ddpm"] = setting("ddim", source="paper")
    """Reverse process: deterministic DDIM over few steps, or ancestral DDPM over every step."""
    sampling_steps: int = setting(
        3, source="paper", reason="the paper gives the number, not the spacing", decision="dpdiff-ddim-steps"
    )
    """Evenly spaced DDIM steps from `start_timestep` to 0."""
    noise: Literal["shared", "fresh"] = setting(
        "shared",
        source="jaxad",
        reason="the paper is silent; with one draw only the noise level changes between steps",
        decision="dpdiff-noise-draws",
    )
    """One draw of prototype noise for all steps of an image, or a new one at each."""
    draws: int = setting(1, source="paper", decision="dpdiff-noise-draws")
    """Noise draws whose reconstructions are averaged before the residual is taken; pairs of draws if `antithetic`."""
    antithetic: bool = setting(
        False,
        source="jaxad",
        reason="published is one draw; what a reconstruction keeps of its noise cancels to first order in a pair",
        decision="dpdiff-antithetic-pairs",
    )
    """Draw noise in pairs, n and -n, of tokens and of prototypes; a pair takes twice the time of a draw."""
    residual: Literal["squared", "cosine"] = setting("squared", source="paper", decision="dpdiff-residual")
    """Squared L2 distance of standardized features, or 1 - cosine of the backbone's own features."""
    score: Literal["reconstruction", "prototype"] = setting("reconstruction", source="paper")
    """Anomaly map from the reconstruction, or 1 - cosine to the nearest prototype (rows 1 and 2 of the paper's Table
    5)."""
    image_score: Literal["protocol", "excess"] = setting(
        "protocol",
        source="paper",
        reason="the maximum of the pooled map; some normal patches are harder to restore than others",
        decision="dpdiff-image-score",
    )
    """Image score: what the protocol takes from the map, or from what exceeds the residuals of the remembered normal
    patches that are most alike."""
    remat: bool = setting(
        False, source="jaxad", reason="the published size fits in memory; results do not depend on it"
    )
    """Compute the denoiser's activations again for the gradient instead of keeping them: less memory, more time."""

    def settled(self) -> tuple[str, ...]:
        """All that what is remembered depends on: residuals of normal patches, and the patches themselves."""
        inference = ("levels", "sampler", "sampling_steps", "noise", "draws", "antithetic", "residual", "nearest")
        found = super().settled() if self.precondition == "retrieval" else ()
        own = ("score", *(() if self.levels else ("start_timestep",))) if self.expects else ()
        return (*(inference if self.levels or self.expects else ()), *own, *found)

    def problems(self) -> list[str]:
        """A line for each field that cannot work, or not beside the others."""
        least = ("local_prototypes", "global_prototypes", "local_weight", "global_weight", "start_timestep")
        problems = super().problems() + at_least(self, 0, least)
        positive = ("prototype_heads", "prototype_mlp_ratio", "sinkhorn_iterations", "timesteps", "heads")
        problems += at_least(self, 1, (*positive, "width", "depth", "mlp_ratio", "sampling_steps", "draws", "tokens"))
        low, high = self.train_timesteps
        if not 0 <= low < high <= self.timesteps:
            problems.append(f"train_timesteps = {low, high}: needs 0 <= low < high <= timesteps = {self.timesteps}")
        if not 0 < self.beta_start <= self.beta_end < 1:
            problems.append(f"beta_start, beta_end = {self.beta_start, self.beta_end}: needs 0 < start <= end < 1")
        if not self.sinkhorn_epsilon > 0:
            problems.append(f"sinkhorn_epsilon = {self.sinkhorn_epsilon}: must be above 0")
        if self.levels is None:
            problems += self._start_problems("start_timestep", self.start_timestep)
        else:
            problems += [problem for level in self.levels for problem in self._start_problems("levels", level)]
            if not self.levels or len(set(self.levels)) < len(self.levels) or min(self.levels) < 0:
                problems.append(f"levels = {self.levels}: needs one or more different timesteps from 0")
            if self.score == "prototype":
                problems.append('levels: no features are noised for score = "prototype"; use "reconstruction"')
        if self.precondition != "retrieval":
            wanted = ['image_score = "excess"'] if self.image_score == "excess" else []
            wanted += [f"expected_share = {self.expected_share}"] if self.expected_share > 0 else []
            wanted += ["nearest = True"] if self.nearest else []
            problems += [f'{field}: precondition = "{self.precondition}" must be "retrieval"' for field in wanted]
        if self.nearest and self.score == "prototype":
            problems.append('nearest = True: score = "prototype" has no residual that it could stand beside')
        if self.denoiser == "none":
            if self.score != "prototype":
                problems.append(f'denoiser = "none": score = "{self.score}" needs one; use "prototype"')
            if self.precondition != "none":
                problems.append(f'denoiser = "none": precondition = "{self.precondition}" needs one; use "none"')
        elif self.denoiser != "dit" and not self.self_attention:
            problems.append(f'self_attention = False: the denoiser "{self.denoiser}" always has it; use "dit"')
        if self.denoiser == "unet" and self.tokens is not None:
            problems.append(f'tokens = {self.tokens}: a U-Net needs the whole grid; use "dit" or "uvit", or None')
        if self.score == "prototype" and self.local_prototypes + self.global_prototypes == 0:
            problems.append('score = "prototype" needs local_prototypes or global_prototypes above 0')
        return problems

    def _start_problems(self, name: str, start: int) -> list[str]:
        """What does not fit one timestep from which features are restored, which field `name` gives."""
        problems, (low, high) = [], self.train_timesteps
        if start >= self.timesteps:
            problems.append(f"{name} = {start}: must be below timesteps = {self.timesteps}")
        if self.sampler == "ddim" and self.sampling_steps > start:
            problems.append(f"sampling_steps = {self.sampling_steps}: more than {name} = {start}")
        last = 0 if self.sampler == "ddpm" else round(start / max(self.sampling_steps, 1))
        if self.score == "reconstruction" and not low <= last <= start < high:
            problems.append(
                f"{name} = {start}: sampling visits timesteps down to {last}, training draws "
                f"train_timesteps = {low, high}, the second excluded"
            )
        return problems
