"""PromptAD against a torch implementation: texts, loss, gradients, optimizer steps, map and score."""

from __future__ import annotations

import json

import jax
import jax.numpy as jnp
import numpy as np
import open_clip
import pytest
import torch
import transformers
from flax import nnx
from safetensors.torch import load_file

import jaxad
from jaxad.data import ImageList
from jaxad.data.batches import batches
from jaxad.data.joined import JoinedSource
from jaxad.detectors._learned_prompts import embed
from jaxad.detectors.promptad import PromptAD
from jaxad.nn import module_state
from jaxad.training.optimizer import make_optimizer
from tests.detectors.clipfusion.made_checkpoints import write_clip
from tests.parity.clipfusion_torch import MEAN, STD
from tests.parity.promptad_torch import TorchPrompts, looked_at
from tests.parity.twins import BOUND, error

pytestmark = pytest.mark.parity

F = torch.nn.functional
CATEGORIES, WORDS = ("metal_nut", "pcb1"), ("metal nut", "printed circuit board")
STATES = [f"{word} {{}}." for word in ("damaged", "flawed", "abnormal", "imperfect", "blemished")]
STATES += [f"{{}} with {word}." for word in ("flaw", "defect", "damage")]
OWN = (("a bent shape", "color stain", "a flipped orientation", "scratch"), ("bent", "scratch", "missing", "melt"))
LEVELS = ("image", "patch")
SCALE = float(np.log(100))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_clip(tmp_path_factory.mktemp("networks") / "clip")


@pytest.fixture(scope="module")
def clip(folder):
    """The network as open_clip has it."""
    config = json.loads((folder / "open_clip_config.json").read_text())["model_cfg"]
    clip = open_clip.CLIP(**config).eval()
    clip.load_state_dict(load_file(folder / "open_clip_model.safetensors"))
    return clip.requires_grad_(False)


@pytest.fixture(scope="module")
def source():
    """Two references and a strange image of each of two categories."""
    generator = np.random.default_rng(5)
    pictures = [generator.integers(0, 256, (12, 12, 3), dtype=np.uint8) for _ in range(6)]
    parts = [ImageList(pictures[3 * place : 3 * place + 3], name) for place, name in enumerate(CATEGORIES)]
    return JoinedSource(parts)


def made(folder, source, preset):
    """A detector whose prompts are no longer small, features of the images, and the batch they are of."""
    changes = {"clip": str(folder), "clip_blocks": (1, 2), "output_size": 20}
    config = jaxad.PromptADConfig.preset(preset, **changes)
    model = PromptAD.create(config, key=jax.random.key(0))
    model.learn_names(source)
    generator = np.random.default_rng(6)
    for prompts in (model.image_prompts, model.patch_prompts):
        for tokens in (prompts.normal, prompts.suffixes):
            tokens.set_value(jnp.asarray(generator.normal(0, 0.3, tokens.shape), jnp.float32))
    batch = next(batches(source, model.inputs.views, 6)).batch
    category = np.array([0, 0, 0, 1, 1, 1], np.int32)
    features = jax.jit(model.encode)(batch.replace(extras={"category": category}))
    return model, features, batch.replace(category=category)


def twins(model, clip, folder):
    """What torch knows of each category, of images and of patches."""
    tokenizer = transformers.CLIPTokenizer.from_pretrained(folder)

    def ids(text):
        return tokenizer(text, add_special_tokens=False).input_ids

    found = []
    for place, (words, own) in enumerate(zip(WORDS, OWN, strict=True)):
        states = [ids(state.format(words)) for state in STATES] + [ids(f"{words} with {state}.") for state in own]
        for prompts in (model.image_prompts, model.patch_prompts):
            learned = (torch.tensor(np.asarray(part[...])[place]) for part in (prompts.normal, prompts.suffixes))
            found.append(TorchPrompts(clip, *learned, ids(f"{words}."), states))
    return found[::2], found[1::2]


@pytest.mark.parametrize(("preset", "over"), [("paper", 0), ("equations", 1)])
def test_loss_gradients_and_what_is_told(folder, clip, source, preset, over, record_property):
    with jax.default_matmul_precision("highest"):
        worst = _compared(folder, clip, source, preset, over)
    print({name: f"{figure:.1e}" for name, figure in worst.items()})
    record_property("largest_error", max(worst.values()))
    assert max(worst.values()) < BOUND, worst


def _compared(folder, clip, source, preset, over):
    model, features, batch = made(folder, source, preset)
    of_images, of_patches = twins(model, clip, folder)
    scale = SCALE if preset == "paper" else float(clip.logit_scale.exp())
    images = np.asarray(batch.images["clip"])
    seen = [looked_at(clip, image, (0, 1)) for image in images]
    worst = {}

    # Texts.
    texts = jax.jit(lambda: embed(model.backbone.text, [model.image_prompts, model.patch_prompts], model.ids[...]))()
    for level, ours, theirs in zip(LEVELS, texts, (of_images, of_patches), strict=True):
        for place, twin in enumerate(theirs):
            for name, mine, expected in zip(ours._fields, ours, twin.texts(), strict=True):
                mine = np.asarray(mine[place])
                worst[f"{level} texts {place} {name}"] = error(mine.reshape(-1, mine.shape[-1]), expected)

    # The loss of the references, one of which the batch holds twice, and its gradients.
    order = np.array([0, 1, 3, 4, 0, 4])
    graphdef, trained, rest = module_state.split(model, nnx.Param, ...)
    references = jax.tree.map(lambda array: array[order], features)

    def loss(params):
        return module_state.merge(graphdef, {**rest, **params}).loss(references, jax.random.key(0))

    step = jax.jit(jax.value_and_grad(loss, has_aux=True))
    (_, terms), gradients = step(trained)

    def total(twins, which, over):
        return sum(
            twin.loss([seen[3 * place][which], seen[3 * place + 1][which]], scale, 0.001, over)
            for place, twin in enumerate(twins)
        )

    losses = total(of_images, 0, 1), total(of_patches, 1, over)
    for name, ours, theirs in zip(("image", "patches"), terms.values(), losses, strict=True):
        worst[f"{name} loss"] = error(terms[name], theirs)
        assert float(ours) > 1
    sum(losses).backward()
    for level, theirs in zip(LEVELS, (of_images, of_patches), strict=True):
        for part in ("normal", "suffixes"):
            expected = torch.stack([getattr(twin, part).grad for twin in theirs])
            worst[f"{level} gradient {part}"] = error(gradients[f"{level}_prompts/{part}"], expected)

    # Three steps as they are published.
    training = jaxad.PromptADConfig.training(preset, steps=3)
    optimizer, _ = make_optimizer(training)
    state, params = optimizer.init(trained), trained
    for _ in range(3):
        (_, _), found = step(params)
        updates, state = optimizer.update(found, state, params)
        params = {path: array + updates[path] for path, array in params.items()}
    parameters = [p for twin in (*of_images, *of_patches) for p in twin.parameters()]
    sgd = torch.optim.SGD(parameters, lr=0.002, momentum=0.9, weight_decay=5e-4)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(sgd, 3, eta_min=1e-5)
    for _ in range(3):
        sgd.zero_grad()
        (total(of_images, 0, 1) + total(of_patches, 1, over)).backward()
        sgd.step()
        schedule.step()
    for level, theirs in zip(LEVELS, (of_images, of_patches), strict=True):
        for part in ("normal", "suffixes"):
            path, expected = f"{level}_prompts/{part}", torch.stack([getattr(twin, part) for twin in theirs])
            moved = expected.detach().numpy() - np.asarray(trained[path])
            # Parameters are a hundred times as large as what they move by, which their rounding is thus larger against.
            assert error(params[path] - trained[path], moved) < 10 * BOUND

    # Map and score of every image after these steps.
    finished = module_state.merge(graphdef, {**rest, **params})
    finished.prepare([jax.tree.map(lambda array: np.asarray(array)[[0, 1, 3, 4]], features)])
    finished.finish([])
    judgement = jax.jit(lambda: finished.judge(features, batch, None))()
    with torch.no_grad():
        for row, (token, patches, blocks) in enumerate(seen):
            place = row // 3
            if preset == "equations":
                blocks = plain_blocks(clip, images[row])
            far = []
            for number, block in enumerate(blocks):
                known = [
                    (seen[3 * place + i][2] if preset == "paper" else plain_blocks(clip, images[3 * place + i]))[number]
                    for i in (0, 1)
                ]
                bank = F.normalize(torch.cat(known), dim=-1)
                far.append((1 - F.normalize(block, dim=-1) @ bank.T).min(-1).values / 2)
            distance = (far[0] + far[1]) / 2
            told = (scale * patches @ of_patches[place].directions().T).softmax(-1)[:, 1]
            # Rows 0, 1, 3 and 4 are references themselves; their distance is rounding.
            map = 2 / (1 / told + 1 / distance.clamp(min=1e-6))
            of_image = (scale * token @ of_images[place].directions().T).softmax(-1)[0, 1]
            if row % 3 == 2:
                score = 2 / (1 / of_image + 1 / resized(distance).max())
                worst[f"map {row}"] = error(judgement.maps[row], resized(map))
                worst[f"score {row}"] = error(judgement.scores[row], score)
            else:
                assert float(judgement.maps[row].max()) < 1e-4
    return worst


def resized(patches):
    """[n] -> [20 20]."""
    square = patches.reshape(1, 1, 3, 3)
    return F.interpolate(square, (20, 20), mode="bilinear", align_corners=False)[0, 0]


def plain_blocks(clip, image):
    """Outputs [n c] of the first two blocks."""
    found = []
    hooks = [
        block.register_forward_hook(lambda module, inputs, output: found.append(output[0, 1:]))
        for block in clip.visual.transformer.resblocks[:2]
    ]
    pixels = torch.from_numpy(image).permute(2, 0, 1)[None] / 255
    mean, std = ((torch.tensor(values)[None, :, None, None]) for values in (MEAN, STD))
    clip.visual((pixels - mean) / std)
    for hook in hooks:
        hook.remove()
    return found
