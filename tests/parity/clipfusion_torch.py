"""CLIPFusion in torch on open_clip and diffusers, which jaxad's is compared with in numbers and in time.

It is written from the paper for one image at a time, and shares no code with jaxad. All passes of an image,
every state at every timestep, are one batch of the UNet.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import open_clip
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from diffusers.models.attention_processor import AttnProcessor

F = torch.nn.functional
MEAN, STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)

Terms = tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]
"""Maps [s s] and scores of one model by modality."""


class Memory(NamedTuple):
    """What prompts and references of one category became.

    Attributes:
        texts: [2 d] of unit length, normal and abnormal.
        queries: [s k d], text tokens of the prompt of each state.
        places: of each state's own tokens among the k.
        blocks, taps: patches [m c] of the references by block of CLIP and by tap of the UNet; none without references.
    """

    texts: torch.Tensor
    queries: torch.Tensor
    places: Sequence[slice]
    blocks: Sequence[torch.Tensor] = ()
    taps: Sequence[torch.Tensor] = ()


class TorchFusion:
    """The networks and what the paper computes with them.

    Args:
        clip, vae, unet: the networks.
        blocks: of CLIP, counted from 0, whose patches are compared with the references.
        taps: (timestep, up-block) of the UNet for the same.
        timesteps: at which attention is looked at.
        size: side of the maps.
    """

    def __init__(
        self,
        clip: open_clip.CLIP,
        vae: AutoencoderKL,
        unet: UNet2DConditionModel,
        *,
        blocks: Sequence[int],
        taps: Sequence[tuple[int, int]],
        timesteps: Sequence[int],
        size: int,
    ):
        self.clip, self.vae, self.unet = clip.eval(), vae.eval(), unet.eval()
        self._blocks, self._taps, self._timesteps, self._size = blocks, taps, timesteps, size
        self._attention: dict[str, torch.Tensor] = {}
        self._outputs: dict[int, torch.Tensor] = {}
        for name, module in unet.named_modules():
            if name.endswith("attn2"):
                module.set_processor(AttnProcessor())
                module.get_attention_scores = self._recorded(name, module)
        for index, block in enumerate(unet.up_blocks):
            block.register_forward_hook(lambda module, inputs, output, i=index: self._outputs.update({i: output}))

    def predict(self, clip_image: np.ndarray, image: np.ndarray, memory: Memory) -> tuple[torch.Tensor, torch.Tensor]:
        """Map [s s] and score (Eq. 4 and 9) of uint8 images [h w 3] at the sizes of the two models."""
        both = self.clip_terms(clip_image, memory), self.diffusion_terms(image, memory)
        (clip_map, clip_score), (map, score) = ([sum(part.values()) for part in terms] for terms in both)
        return 0.25 * clip_map + 0.75 * map, 0.75 * clip_score + 0.25 * score

    def clip_terms(self, image: np.ndarray, memory: Memory) -> Terms:
        """CLIP's half (Eq. 1 and 7)."""
        token, patches, blocks = self.clip_features(image)

        def abnormal(embeddings: torch.Tensor) -> torch.Tensor:
            logits = self.clip.logit_scale.exp() * F.normalize(embeddings, dim=-1) @ memory.texts.T
            return logits.softmax(-1)[..., 1]

        maps, scores = {"language": self._upsampled(abnormal(patches))}, {"language": abnormal(token)}
        if memory.blocks:
            far = [_distance(blocks[b], known) for b, known in zip(self._blocks, memory.blocks, strict=True)]
            maps["vision"] = self._upsampled(sum(far) / len(far))
            scores["vision"] = maps["vision"].max()
        return maps, scores

    def diffusion_terms(self, image: np.ndarray, memory: Memory) -> Terms:
        """The diffusion model's half (Eq. 6, 8, 10 and 11)."""
        used = {t for t, _ in self._taps} if memory.taps else set()
        steps = sorted(used.union(self._timesteps))
        attention, outputs = self.passes(image, memory.queries, steps)
        looked_at = [steps.index(t) for t in self._timesteps]
        side = max(round(site.shape[2] ** 0.5) for site in attention.values())
        resized = []
        for name, site in attention.items():
            if "mid_block" in name:
                continue
            own = [site[s, looked_at][..., places].mean((0, -1)) for s, places in enumerate(memory.places)]
            resized.append(_resized(torch.stack(own).mean(0), side))
        raw = torch.stack(resized).mean(0)
        maps = {"language": _resized((raw - raw.min()) / (raw.max() - raw.min()), self._size)}
        large = _resized(raw, self._size)
        scores = {"language": 1 - large.quantile(0.5) / large.max()}
        if memory.taps:
            far = []
            for (t, block), known in zip(self._taps, memory.taps, strict=True):
                far += [self._upsampled(_distance(tokens, known)) for tokens in outputs[block][:, steps.index(t)]]
            maps["vision"] = torch.stack(far).mean(0)
            scores["vision"] = maps["vision"].max()
        return maps, scores

    def clip_features(self, image: np.ndarray) -> tuple[torch.Tensor, torch.Tensor, list[torch.Tensor]]:
        """Class token and patches in the shared space, and the patches after each block."""
        pixels = (torch.from_numpy(image).float() / 255 - torch.tensor(MEAN)) / torch.tensor(STD)
        visual: Any = self.clip.visual
        patches = visual.conv1(pixels.permute(2, 0, 1)[None]).flatten(2).transpose(1, 2)
        o = torch.cat([visual.class_embedding[None, None], patches], 1) + visual.positional_embedding
        o = x = visual.ln_pre(o)
        blocks = []
        for block in visual.transformer.resblocks:
            u = block.ln_1(o)
            q, k, v = F.linear(u, block.attn.in_proj_weight, block.attn.in_proj_bias).chunk(3, -1)
            q, k, v = (y.unflatten(-1, (block.attn.num_heads, -1)).transpose(1, 2) for y in (q, k, v))
            own, values = (F.scaled_dot_product_attention(*inputs) for inputs in ((q, k, v), (v, v, v)))
            own, values = (block.attn.out_proj(y.transpose(1, 2).flatten(2)) for y in (own, values))
            x = x + values
            o = o + own
            o = o + block.mlp(block.ln_2(o))
            blocks.append(o[0, 1:])
        final = visual.ln_post(torch.cat([o[:, :1], x[:, 1:]], 1)) @ visual.proj
        return final[0, 0], final[0, 1:], blocks

    def tapped(self, image: np.ndarray, text: torch.Tensor) -> list[torch.Tensor]:
        """Patches [n c] of a reference at each tap, with its prompt's text tokens [k d]."""
        steps = sorted({t for t, _ in self._taps})
        outputs = self.passes(image, text[None], steps)[1]
        return [outputs[block][0, steps.index(t)] for t, block in self._taps]

    def passes(
        self, image: np.ndarray, texts: torch.Tensor, timesteps: Sequence[int]
    ) -> tuple[dict[str, torch.Tensor], dict[int, torch.Tensor]]:
        """All texts [s k d] at all timesteps: attention [s t n k] by site and features [s t n c] by up-block."""
        pixels = torch.from_numpy(image).float().permute(2, 0, 1)[None] / 127.5 - 1
        z = self.vae.encode(pixels).latent_dist.mode() * self.vae.config.scaling_factor
        s, t = len(texts), len(timesteps)
        inputs = torch.cat([z, torch.zeros_like(z[:, :1]), z], 1).expand(s * t, -1, -1, -1)
        self.unet(inputs, torch.tensor(timesteps).repeat(s), texts.repeat_interleave(t, 0))
        attention = {name: site.unflatten(0, (s, t)) for name, site in self._attention.items()}
        outputs = {block: x.flatten(2).transpose(1, 2).unflatten(0, (s, t)) for block, x in self._outputs.items()}
        self._attention.clear()
        self._outputs.clear()
        return attention, outputs

    def _recorded(self, name: str, module: Any) -> Any:
        scores = module.get_attention_scores

        def record(*inputs: torch.Tensor) -> torch.Tensor:
            probabilities = scores(*inputs)
            self._attention[name] = probabilities.unflatten(0, (-1, module.heads)).mean(1)
            return probabilities

        return record

    def _upsampled(self, patches: torch.Tensor) -> torch.Tensor:
        return _resized(patches, self._size)


def _resized(values: torch.Tensor, size: int) -> torch.Tensor:
    """A square map, [n] or [h w], to [size size]."""
    side = round(values.numel() ** 0.5)
    square = values.reshape(1, 1, side, side)
    return F.interpolate(square, (size, size), mode="bilinear", align_corners=False)[0, 0]


def _distance(tokens: torch.Tensor, references: torch.Tensor) -> torch.Tensor:
    """[n c] and [m c] -> [n]."""
    tokens, references = (F.normalize(y, dim=-1) for y in (tokens, references))
    return 0.5 * (1 - (tokens @ references.T).max(-1).values)
