"""The four maps of CLIPFusion against an implementation in torch on open_clip, diffusers and transformers.

It is written from the paper and SPEC 2, image by image and pass by pass, and shares no code with jaxad.
"""

from __future__ import annotations

import json

import jax
import numpy as np
import open_clip
import pytest
import torch
import transformers
from diffusers import AutoencoderKL, UNet2DConditionModel
from diffusers.models.attention_processor import AttnProcessor
from safetensors.torch import load_file

from jaxad import module_state
from jaxad.data import ClassNames, ImageList, batches
from jaxad.systems.clipfusion import CLIPFusion
from jaxad.systems.clipfusion_maps import fuse
from tests.systems.fusion_checkpoints import CONFIG, STATES, fusion_config, write_clip, write_diffusion

pytestmark = pytest.mark.parity

F = torch.nn.functional
CATEGORY, SIZE = "metal_nut", CONFIG["output_size"]
MEAN, STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("networks")
    write_clip(folder / "clip")
    write_diffusion(folder / "diffusion")
    return folder


@pytest.fixture(scope="module")
def images():
    """Four images; the first two are references."""
    generator = np.random.default_rng(3)
    return [generator.integers(0, 256, (30, 26, 3), dtype=np.uint8) for _ in range(4)]


class Torch:
    """The networks as torch libraries load them, and what the paper computes with them."""

    def __init__(self, folder):
        config = json.loads((folder / "clip" / "open_clip_config.json").read_text())["model_cfg"]
        self.clip = open_clip.model.CLIP(**config).eval()
        self.clip.load_state_dict(load_file(folder / "clip" / "open_clip_model.safetensors"))
        self.unet = UNet2DConditionModel.from_pretrained(folder / "diffusion" / "unet").eval()
        self.vae = AutoencoderKL.from_pretrained(folder / "diffusion" / "vae").eval()
        self.text = transformers.CLIPTextModel.from_pretrained(folder / "diffusion" / "text_encoder").eval()
        self.tokenizer = transformers.CLIPTokenizer.from_pretrained(folder / "diffusion" / "tokenizer")
        self.attention, self.outputs = {}, {}
        for name, module in self.unet.named_modules():
            if name.endswith("attn2"):
                module.set_processor(AttnProcessor())
                module.get_attention_scores = self._recorded(name, module.get_attention_scores)
        for index, block in enumerate(self.unet.up_blocks):
            block.register_forward_hook(lambda module, inputs, output, i=index: self.outputs.update({i: output}))

    def _recorded(self, name, scores):
        def record(*args):
            self.attention[name] = scores(*args)
            return self.attention[name]

        return record

    def clip_text(self, prompt):
        ids = self.tokenizer(prompt).input_ids
        row = torch.zeros(1, 77, dtype=torch.long)
        row[0, : len(ids)] = torch.tensor(ids)
        return self.clip.encode_text(row, normalize=True)[0]

    def clip_image(self, image):
        """Class token and patches in the shared space, and the patches after each block."""
        pixels = (torch.from_numpy(image).float() / 255 - torch.tensor(MEAN)) / torch.tensor(STD)
        visual = self.clip.visual
        patches = visual.conv1(pixels.permute(2, 0, 1)[None]).flatten(2).transpose(1, 2)
        o = torch.cat([visual.class_embedding[None, None], patches], 1) + visual.positional_embedding
        o = x = visual.ln_pre(o)
        blocks = []
        for block in visual.transformer.resblocks:
            u = block.ln_1(o)
            q, k, v = F.linear(u, block.attn.in_proj_weight, block.attn.in_proj_bias).chunk(3, -1)
            heads = [y.unflatten(-1, (block.attn.num_heads, -1)).transpose(1, 2) for y in (q, k, v)]
            q, k, v = heads

            def attend(a, b, c, block=block):
                weights = (a @ b.transpose(-1, -2) / a.shape[-1] ** 0.5).softmax(-1)
                return block.attn.out_proj((weights @ c).transpose(1, 2).flatten(2))

            x = x + attend(v, v, v)
            o = o + attend(q, k, v)
            o = o + block.mlp(block.ln_2(o))
            blocks.append(o[0, 1:])
        final = visual.ln_post(torch.cat([o[:, :1], x[:, 1:]], 1)) @ visual.proj
        return final[0, 0], final[0, 1:], blocks

    def diffuse(self, image, prompt, timestep):
        """Fills `attention` and `outputs` by one pass of one image; returns the prompt's token ids."""
        pixels = torch.from_numpy(image).float().permute(2, 0, 1)[None] / 127.5 - 1
        z = self.vae.encode(pixels).latent_dist.mode() * self.vae.config.scaling_factor
        ids = self.tokenizer(prompt, padding="max_length", max_length=77, return_tensors="pt").input_ids
        hidden = self.text(ids).last_hidden_state
        self.unet(torch.cat([z, torch.zeros_like(z[:, :1]), z], 1), torch.tensor(timestep), hidden)
        return ids[0].tolist()


def upsample(map):
    return F.interpolate(map[None, None], (SIZE, SIZE), mode="bilinear", align_corners=False)[0, 0]


def distance(tokens, references):
    tokens, references = (F.normalize(y, dim=-1) for y in (tokens, references))
    return 0.5 * (1 - (tokens @ references.T).max(-1).values)


def squared(values):
    side = round(len(values) ** 0.5)
    return values.reshape(side, side)


def tap(output):
    return output[0].flatten(1).T


def clip_terms(networks, image, references):
    prompt = "a good, cropped picture of the {} metal nut for classification"
    texts = torch.stack([networks.clip_text(prompt.format(state)) for state in ("perfect", "damaged")])
    token, patches, blocks = networks.clip_image(image)

    def abnormal(embeddings):
        logits = networks.clip.logit_scale.exp() * F.normalize(embeddings, dim=-1) @ texts.T
        return logits.softmax(-1)[..., 1]

    maps, scores = {"language": upsample(squared(abnormal(patches)))}, {"language": abnormal(token)}
    if references:
        known = [networks.clip_image(reference)[2] for reference in references]
        far = [distance(blocks[b], torch.cat([image[b] for image in known])) for b in (1, 2)]
        maps["vision"] = upsample(squared(sum(far) / 2))
        scores["vision"] = maps["vision"].max()
    return maps, scores


def diffusion_terms(networks, image, references):
    attention, far, side = [], [], 8
    known = {}
    for t, block in CONFIG["diffusion_taps"]:
        for reference in references:
            networks.diffuse(reference, "a photo of a perfect metal nut", t)
            known.setdefault((t, block), []).append(tap(networks.outputs[block]))
    for state in STATES:
        prompt = f"a close-up cropped png photo of a metal nut with {state} for anomaly segmentation"
        own = networks.tokenizer(state, add_special_tokens=False).input_ids
        for t in (201, 401):
            ids = networks.diffuse(image, prompt, t)
            starts = [i for i in range(len(ids)) if ids[i : i + len(own)] == own]
            assert len(starts) == 1
            for name, weights in networks.attention.items():
                if "mid_block" in name:
                    continue
                of_state = weights.mean(0)[:, starts[0] : starts[0] + len(own)].mean(-1)
                resized = F.interpolate(squared(of_state)[None, None], (side, side), mode="bilinear")
                attention.append(resized[0, 0])
        for t, block in CONFIG["diffusion_taps"] if references else ():
            networks.diffuse(image, prompt, t)
            far.append(upsample(squared(distance(tap(networks.outputs[block]), torch.cat(known[t, block])))))
    raw = torch.stack(attention).mean(0)
    maps = {"language": upsample((raw - raw.min()) / (raw.max() - raw.min()))}
    large = upsample(raw)
    scores = {"language": 1 - large.quantile(0.5) / large.max()}
    if references:
        maps["vision"] = torch.stack(far).mean(0)
        scores["vision"] = maps["vision"].max()
    return maps, scores


@pytest.mark.parametrize("shots", [0, 2])
def test_every_map_and_score(folder, images, shots, record_property):
    model = CLIPFusion.create(fusion_config(folder, clip_blocks=(2, 3)))
    with jax.default_matmul_precision("highest"):
        model.remember(ImageList(images[:shots], CATEGORY) if shots else ClassNames((CATEGORY,)))
    loaded = next(batches(ImageList(images, CATEGORY), model.views, 4))
    views = {name: np.asarray(view) for name, view in loaded.batch.images.items()}
    batch = loaded.batch.replace(
        images={name: view[2:] for name, view in views.items()},
        seed=loaded.batch.seed[2:],
        valid=loaded.batch.valid[2:],
        category=np.zeros(2, np.int32),
    )
    graphdef, arrays = module_state.split(model)

    @jax.jit
    def run(arrays, batch):
        model = module_state.merge(graphdef, arrays)
        features = model.encode(batch)
        return model.terms(features, model.context(features, batch))

    with jax.default_matmul_precision("highest"):
        maps, scores = run(arrays, batch)
    fused_map, fused_score = fuse(maps, 0.25, "sum"), fuse(scores, 0.75, "sum")
    networks, worst = Torch(folder), {}

    def compare(name, actual, expected):
        expected = expected.detach().numpy()
        rms = np.sqrt(np.mean(np.square(expected)))
        worst[name] = max(worst.get(name, 0.0), float(np.abs(np.asarray(actual) - expected).max() / rms))

    with torch.no_grad():
        for row in range(2):
            found = {}
            for model_name, view, terms in (("clip", "clip", clip_terms), ("diffusion", "diffusion", diffusion_terms)):
                references = [views[view][index] for index in range(shots)]
                found[model_name] = terms(networks, views[view][2 + row], references)
                for modality in found[model_name][0]:
                    name = f"{model_name} {modality}"
                    compare(f"{name} map", maps[model_name][modality][row], found[model_name][0][modality])
                    compare(f"{name} score", scores[model_name][modality][row], found[model_name][1][modality])
            totals = {model_name: [sum(part.values()) for part in both] for model_name, both in found.items()}
            fused = [
                alpha * totals["clip"][index] + (1 - alpha) * totals["diffusion"][index]
                for index, alpha in enumerate((0.25, 0.75))
            ]
            compare("map", fused_map[row], fused[0])
            compare("score", fused_score[row], fused[1])
    assert len(worst) == (10 if shots else 6)
    print({name: f"{figure:.1e}" for name, figure in worst.items()})
    record_property("largest_error", max(worst.values()))
    assert max(worst.values()) < 1e-4, worst
