"""The four maps of CLIPFusion against an implementation in torch, and the benchmark that times the two."""

from __future__ import annotations

import json

import jax
import numpy as np
import open_clip
import pytest
import torch
import transformers
from diffusers import AutoencoderKL, UNet2DConditionModel
from safetensors.torch import load_file

from jaxad.data import ClassNames, ImageList
from jaxad.data.batches import batches
from jaxad.detectors.clipfusion.detector import CLIPFusion
from jaxad.detectors.clipfusion.maps import fuse
from jaxad.nn import module_state
from tests.detectors.clipfusion.made_checkpoints import CONFIG, STATES, fusion_config, write_clip, write_diffusion
from tests.parity import clipfusion_benchmark
from tests.parity.clipfusion_torch import Memory, TorchFusion

pytestmark = pytest.mark.parity

CATEGORY = "metal_nut"


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


@pytest.fixture(scope="module")
def reference(folder):
    """The networks as torch libraries load them."""
    config = json.loads((folder / "clip" / "open_clip_config.json").read_text())["model_cfg"]
    clip = open_clip.CLIP(**config)
    clip.load_state_dict(load_file(folder / "clip" / "open_clip_model.safetensors"))
    vae = AutoencoderKL.from_pretrained(folder / "diffusion" / "vae")
    unet = UNet2DConditionModel.from_pretrained(folder / "diffusion" / "unet")
    settings = {"taps": CONFIG["diffusion_taps"], "timesteps": CONFIG["language_timesteps"]}
    return TorchFusion(clip, vae, unet, blocks=(1, 2), size=CONFIG["output_size"], **settings)


def remember(reference, folder, clip_images, images):
    """What the reference implementation is told of the category, and features of images of it."""
    tower = transformers.CLIPTextModel.from_pretrained(folder / "diffusion" / "text_encoder").eval()
    tokenizer = transformers.CLIPTokenizer.from_pretrained(folder / "diffusion" / "tokenizer")

    def clip_text(prompt):
        ids = tokenizer(prompt).input_ids
        row = torch.zeros(1, 77, dtype=torch.long)
        row[0, : len(ids)] = torch.tensor(ids)
        return reference.clip.encode_text(row, normalize=True)[0]

    def text(prompt):
        ids = tokenizer(prompt, padding="max_length", max_length=77, return_tensors="pt").input_ids
        return tower(ids).last_hidden_state[0], ids[0].tolist()

    prompt = "a good, cropped picture of the {} metal nut for classification"
    texts = torch.stack([clip_text(prompt.format(state)) for state in ("perfect", "damaged")])
    queries, places = [], []
    for state in STATES:
        hidden, ids = text(f"a close-up cropped png photo of a metal nut with {state} for anomaly segmentation")
        own = tokenizer(state, add_special_tokens=False).input_ids
        # As published: "crack" is one token, "residue" two.
        assert len(own) == {"crack": 1, "residue": 2}[state]
        (start,) = [i for i in range(len(ids)) if ids[i : i + len(own)] == own]
        queries.append(hidden)
        places.append(slice(start, start + len(own)))
    known = [[reference.clip_features(image)[2][block] for image in clip_images] for block in (1, 2)]
    perfect = text("a photo of a perfect metal nut")[0]
    tapped = [reference.tapped(image, perfect) for image in images]
    banks = [torch.cat(found) for found in known if found], [torch.cat(found) for found in zip(*tapped, strict=True)]
    return Memory(texts, torch.stack(queries), places, *banks)


@pytest.mark.parametrize(("shots", "memory_gb"), [(0, 8.0), (2, 1e-9)], ids=["0 shots", "2 shots, pass by pass"])
def test_every_map_and_score(folder, images, reference, shots, memory_gb, record_property):
    model = CLIPFusion.create(fusion_config(folder, clip_blocks=(2, 3), memory_gb=memory_gb))
    with jax.default_matmul_precision("highest"):
        model.remember(ImageList(images[:shots], CATEGORY) if shots else ClassNames((CATEGORY,)))
    loaded = next(batches(ImageList(images, CATEGORY), model.inputs.views, 4))
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
        return model.terms(features, model.context(batch))

    with jax.default_matmul_precision("highest"):
        maps, scores = run(arrays, batch)
    fused_map, fused_score = fuse(maps, 0.25, "sum"), fuse(scores, 0.75, "sum")
    worst = {}

    def compare(name, actual, expected):
        expected = expected.detach().numpy()
        rms = np.sqrt(np.mean(np.square(expected)))
        worst[name] = max(worst.get(name, 0.0), float(np.abs(np.asarray(actual) - expected).max() / rms))

    with torch.no_grad():
        memory = remember(reference, folder, *(views[view][:shots] for view in ("clip", "diffusion")))
        for row in range(2):
            clip_image, image = (views[view][2 + row] for view in ("clip", "diffusion"))
            found = {
                "clip": reference.clip_terms(clip_image, memory),
                "diffusion": reference.diffusion_terms(image, memory),
            }
            for name, terms in found.items():
                for modality in terms[0]:
                    compare(f"{name} {modality} map", maps[name][modality][row], terms[0][modality])
                    compare(f"{name} {modality} score", scores[name][modality][row], terms[1][modality])
            map, score = reference.predict(clip_image, image, memory)
            compare("map", fused_map[row], map)
            compare("score", fused_score[row], score)
    assert len(worst) == (10 if shots else 6)
    print({name: f"{figure:.1e}" for name, figure in worst.items()})
    record_property("largest_error", max(worst.values()))
    assert max(worst.values()) < 1e-4, worst


def test_benchmark_times_both_implementations(capsys):
    clipfusion_benchmark.main(["--size", "tiny", "--shots", "2", "--repeats", "1"])
    row = [cell.strip() for cell in capsys.readouterr().out.splitlines()[-1].strip("|").split("|")]
    ours, theirs, ratio = map(float, row[1:4])
    assert row[0] == "2"
    assert ratio == pytest.approx(ours / theirs, rel=0.1)
