"""Settings of DPDiff-AD."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from jaxad.config.fields import Blocks, Precision, at_least, check_types, make_preset, raise_problems, repeated_blocks


@dataclass(frozen=True)
class DPDiffConfig:
    """DPDiff-AD: dual prototypes, prototype-conditioned diffusion, residual maps (arXiv 2605.24402, SPEC 3)."""

    backbone: str = "facebook/dinov2-with-registers-base"
    """Frozen features: a folder, file or Hugging Face id, or "embedded", the ViT-S/14 of the `demo` extra (paper)."""
    blocks: Blocks = None
    """Blocks of a ViT, from 0, that are averaged: numbers, "middle" third, or None for the last half (paper: 6-11; SPEC
    1, 27); of a convolutional network the stages that are concatenated, None for strides 4, 8 and 16 (SPEC 26)."""
    image_size: int = 448
    """Side in pixels of the square input; a multiple of the backbone's patch (paper)."""
    standardize: Literal["channel", "token", "none"] = "channel"
    """Feature scaling before diffusion: fixed per-channel statistics, per-token layer norm, or none (SPEC 3)."""

    local_prototypes: int = 8
    """Number M of local prototypes; 0 leaves them out (paper)."""
    global_prototypes: int = 2
    """Number K of global prototypes; 0 leaves them out (paper)."""
    prototype_heads: int | None = None
    """Attention heads of the extractors; None for as many as leave 64 channels or more to each (SPEC 6: 12 of 768)."""
    prototype_mlp_ratio: float = 4.0
    """Width of the extractors' feed-forward layer over the feature width (SPEC 6)."""
    prototype_pre_norm: bool = True
    """Layer norm before attention and feed-forward in the extractors; Eq. 10 writes none (SPEC 6)."""
    local_weight: float = 0.2
    """Weight lambda_1 of the local prototype loss (paper)."""
    global_weight: float = 0.001
    """Weight lambda_2 of the optimal-transport loss (paper)."""
    sinkhorn_epsilon: float = 0.05
    """Entropic regularization, relative to a cost divided by the feature width (SPEC 14)."""
    sinkhorn_iterations: int = 500
    """Most log-domain Sinkhorn iterations; fewer where marginals hold to 1e-4 (ours: the 50 of SPEC 14 are too few)."""
    detach_prototypes: bool = False
    """Stop the diffusion loss from reaching the extractors (SPEC 13)."""

    timesteps: int = 1000
    """Length T of the noise schedule (paper)."""
    beta_start: float = 1e-4
    """First beta of the linear schedule (paper)."""
    beta_end: float = 0.02
    """Last beta of the linear schedule (paper)."""
    train_timesteps: tuple[int, int] = (0, 1000)
    """Half-open range from which training draws t uniformly (SPEC 15: all)."""
    prediction: Literal["epsilon", "v"] = "epsilon"
    """What the denoiser's last layer outputs; the loss is on that quantity (paper: the noise)."""

    denoiser: Literal["dit", "unet", "uvit"] = "dit"
    """Architecture of the denoiser: DiT (paper), U-Net or U-ViT (paper Table 9, SPEC 28)."""
    width: int | None = None
    """Width of the denoiser; None takes the feature width (SPEC 7), 3/8 of it for the U-Net's first level (ours: the
    whole width of SPEC 28 makes six times the parameters of the DiT that it is compared with)."""
    heads: int | None = None
    """Attention heads of the denoiser; None for as many as leave 64 channels or more to each (SPEC 7: 12 of 768). A
    U-Net of default width has as many as a DiT, of 24 channels on its first level (ours)."""
    depth: int = 4
    """Blocks of the denoiser: 1 is fastest, 12 is DiT-B; the U-Net always has two levels of two (SPEC 7)."""
    mlp_ratio: float = 4.0
    """Width of a DiT's feed-forward layers over its own width (SPEC 7); a U-ViT, whose blocks have no modulation, has 2
    more (ours), a U-Net has none."""
    self_attention: bool = True
    """Self-attention in every block of a DiT, besides the prototype attention (SPEC 8)."""

    start_timestep: int = 250
    """Timestep t to which test features are noised (SPEC 16)."""
    sampler: Literal["ddim", "ddpm"] = "ddim"
    """Reverse process: deterministic DDIM over few steps, or ancestral DDPM over every step (paper)."""
    sampling_steps: int = 3
    """Evenly spaced DDIM steps from `start_timestep` to 0 (paper; SPEC 17)."""
    noise: Literal["shared", "fresh"] = "shared"
    """One draw of prototype noise for all steps of an image, or a new one at each (SPEC 18)."""
    draws: int = 1
    """Noise draws whose reconstructions are averaged before the residual is taken (SPEC 30)."""
    residual: Literal["squared", "cosine"] = "squared"
    """Squared L2 of standardized features (paper, Eq. 22), or 1 - cosine of the backbone's own features (SPEC 30)."""
    score: Literal["reconstruction", "prototype"] = "reconstruction"
    """Map from the reconstruction (paper), or 1 - cosine to the nearest prototype (paper Table 5, rows 1 and 2)."""
    precision: Precision = "auto"
    """Compute type of the networks: "auto" is float32 on CPU and bfloat16 on GPU and TPU (DESIGN 4.4)."""

    @classmethod
    def preset(cls, name: Literal["paper", "small"] = "paper", **changes: Any) -> DPDiffConfig:
        """The published setting, or the small one for CPUs, demos and tests (SPEC row 29).

        The small one differs where it learns and detects more in few steps: middle blocks, v-prediction, only the
        timesteps that inference visits, one DDIM step from each of four noise draws, cosine residual.
        """
        small = {
            "backbone": "embedded",
            "image_size": 224,
            "blocks": "middle",
            "depth": 2,
            "prediction": "v",
            "train_timesteps": (0, 400),
            "sampling_steps": 1,
            "draws": 4,
            "residual": "cosine",
        }
        return make_preset(cls, name, {"paper": {}, "small": small}, changes)

    def check(self) -> None:
        """Raises ConfigError listing every field that cannot work."""
        check_types(self)
        problems = at_least(
            self,
            0,
            ("local_prototypes", "global_prototypes", "local_weight", "global_weight", "start_timestep"),
        )
        positive = ("image_size", "prototype_heads", "prototype_mlp_ratio", "sinkhorn_iterations", "timesteps", "heads")
        problems += at_least(self, 1, (*positive, "depth", "mlp_ratio", "sampling_steps", "draws"))
        low, high = self.train_timesteps
        if not 0 <= low < high <= self.timesteps:
            problems.append(f"train_timesteps = {low, high}: needs 0 <= low < high <= timesteps = {self.timesteps}")
        if not 0 < self.beta_start <= self.beta_end < 1:
            problems.append(f"beta_start, beta_end = {self.beta_start, self.beta_end}: needs 0 < start <= end < 1")
        if not self.sinkhorn_epsilon > 0:
            problems.append(f"sinkhorn_epsilon = {self.sinkhorn_epsilon}: must be above 0")
        if self.start_timestep >= self.timesteps:
            problems.append(f"start_timestep = {self.start_timestep}: must be below timesteps = {self.timesteps}")
        if self.sampler == "ddim" and self.sampling_steps > self.start_timestep:
            problems.append(f"sampling_steps = {self.sampling_steps}: more than start_timestep = {self.start_timestep}")
        last = 0 if self.sampler == "ddpm" else round(self.start_timestep / max(self.sampling_steps, 1))
        if self.score == "reconstruction" and not low <= last <= self.start_timestep < high:
            problems.append(
                f"start_timestep = {self.start_timestep}: sampling visits timesteps down to {last}, training draws "
                f"train_timesteps = {low, high}, the second excluded"
            )
        if self.denoiser != "dit" and not self.self_attention:
            problems.append(f'self_attention = False: the denoiser "{self.denoiser}" always has it; use "dit"')
        if self.score == "prototype" and self.local_prototypes + self.global_prototypes == 0:
            problems.append('score = "prototype" needs local_prototypes or global_prototypes above 0')
        problems += repeated_blocks(self.blocks)
        raise_problems("DPDiffConfig", problems)
