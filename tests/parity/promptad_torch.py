"""PromptAD in torch on open_clip, for one category and one image at a time; written from its paper, shares no code."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import open_clip
import torch

from tests.parity.clipfusion_torch import MEAN, STD

F = torch.nn.functional


class TorchPrompts(torch.nn.Module):
    """Learned tokens of one category for one purpose.

    Args:
        clip: whose text tower embeds them.
        normal: [p l c].
        suffixes: [q m c].
        name, states: ids of the words "NAME." and of each state with the name in it, without start and end.
    """

    def __init__(
        self,
        clip: open_clip.CLIP,
        normal: torch.Tensor,
        suffixes: torch.Tensor,
        name: list[int],
        states: list[list[int]],
    ):
        super().__init__()
        self.clip = [clip]
        self.normal, self.suffixes = torch.nn.Parameter(normal), torch.nn.Parameter(suffixes)
        self.name, self.states = name, states

    def texts(self) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Embeddings of all normal, all manual abnormal and all learned abnormal prompts, [n d] each."""
        normal = [([context], self.name) for context in self.normal]
        manual = [([context], state) for context in self.normal for state in self.states]
        learned = [([context, suffix], self.name) for context in self.normal for suffix in self.suffixes]
        normal, manual, learned = self.embedded([*normal, *manual, *learned]).split(
            [len(normal), len(manual), len(learned)]
        )
        return normal, manual, learned

    def embedded(self, prompts: Sequence[tuple[list[torch.Tensor], list[int]]]) -> torch.Tensor:
        """Embeddings [n d] of prompts of learned tokens and words behind them."""
        clip: Any = self.clip[0]
        table = clip.token_embedding.weight
        start, end = len(table) - 2, len(table) - 1
        rows, places = [], []
        for learned, words in prompts:
            tokens = torch.cat([table[[start]], *learned, table[[*words, end]]])
            places.append(len(tokens) - 1)
            rows.append(torch.cat([tokens, table[[0] * (77 - len(tokens))]]))
        x = clip.transformer(torch.stack(rows) + clip.positional_embedding, attn_mask=clip.attn_mask)
        return clip.ln_final(x)[torch.arange(len(rows)), places] @ clip.text_projection

    def directions(self) -> torch.Tensor:
        """Normal and abnormal [2 d] of unit length."""
        normal, manual, learned = self.texts()
        return F.normalize(torch.stack([normal.mean(0), torch.cat([manual, learned]).mean(0)]), dim=-1)

    def loss(self, seen: Sequence[torch.Tensor], scale: float, weight: float, over: int) -> torch.Tensor:
        """Of images, each as [n d] of unit length; squared distances are summed over axis `over` of that."""
        _, manual, learned = self.texts()
        normal, abnormal = self.directions()
        each = F.normalize(torch.cat([manual, learned]), dim=-1)
        total = torch.zeros(())
        for x in seen:
            logits = scale * torch.cat([(x @ normal)[:, None], x @ each.T], 1)
            total = total + F.cross_entropy(logits, torch.zeros(len(x), dtype=torch.long))
            further = ((x - normal) ** 2).sum(over) - ((x - abnormal) ** 2).sum(over)
            total = total + further.clamp(min=0).mean()
        apart = F.normalize(manual, dim=-1).mean(0) - F.normalize(learned, dim=-1).mean(0)
        return total / len(seen) + weight * apart.norm() ** 2


def looked_at(clip: Any, image: Any, blocks: Sequence[int]) -> tuple[torch.Tensor, torch.Tensor, list[torch.Tensor]]:
    """Class token [1 d], VV patches [n d], and patches [n c] behind each block (from 0) with the next one's attention.

    All but the last are of unit length; `image` is uint8 [h w 3].
    """
    pixels = (torch.from_numpy(image).float() / 255 - torch.tensor(MEAN)) / torch.tensor(STD)
    visual = clip.visual
    patches = visual.conv1(pixels.permute(2, 0, 1)[None]).flatten(2).transpose(1, 2)
    o = torch.cat([visual.class_embedding[None, None], patches], 1) + visual.positional_embedding
    o = x = visual.ln_pre(o)
    kept = {}
    for number, block in enumerate(visual.transformer.resblocks):
        inputs = F.linear(block.ln_1(o), block.attn.in_proj_weight, block.attn.in_proj_bias).chunk(3, -1)
        q, k, v = (y.unflatten(-1, (block.attn.num_heads, -1)).transpose(1, 2) for y in inputs)
        own, values = (
            block.attn.out_proj(F.scaled_dot_product_attention(*y).transpose(1, 2).flatten(2))
            for y in ((q, k, v), (v, v, v))
        )
        x, o = x + values, o + own
        kept[number - 1] = o[0, 1:]
        o = o + block.mlp(block.ln_2(o))
    token, patches = (F.normalize(visual.ln_post(y) @ visual.proj, dim=-1) for y in (o[0, :1], x[0, 1:]))
    return token, patches, [kept[block] for block in blocks]
