"""InternVL against transformers, with Qwen2 and Llama, and against a twin in torch, with InternLM2."""

from __future__ import annotations

import jax
import numpy as np
import pytest
import torch
from PIL import Image

from tests.parity import torch_oracles  # noqa: F401  before models of transformers

# isort: split
from safetensors.torch import load_file
from transformers import (
    AutoTokenizer,
    InternVLConfig,
    InternVLForConditionalGeneration,
    InternVLVisionConfig,
    LlamaConfig,
    Qwen2Config,
)
from transformers.models.got_ocr2.image_processing_pil_got_ocr2 import GotOcr2ImageProcessorPil

from jaxad.detectors.vlmdiff.internvl import InternVLCaptioner
from jaxad.models.captioner import decoding
from jaxad.models.captioner.tiles import tiles
from jaxad.nn import module_state
from tests.models.captioner import made_checkpoints as made
from tests.parity import internvl_torch

pytestmark = pytest.mark.parity

LONGEST = 24
PROMPT = "describe this part in detail"
TEMPLATE = (
    "{% for message in messages %}{{'<|im_start|>' + message['role'] + '\n'}}"
    "{% if message['content'] is string %}{{ message['content'] }}{% else %}{% for content in message['content'] %}"
    "{% if content['type'] == 'image' %}{{ '<IMG_CONTEXT>\n' }}"
    "{% elif content['type'] == 'text' %}{{ content['text'] }}{% endif %}{% endfor %}{% endif %}"
    "{{'<|im_end|>\n'}}{% endfor %}{% if add_generation_prompt %}{{'<|im_start|>assistant\n' }}{% endif %}"
)
"""That of the published files of transformers' form."""


def randomized(model, seed=0):
    """With parameters such that answers depend on the image, and logits are far apart."""
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in model.named_parameters():
        noise = torch.randn(parameter.shape, generator=generator)
        if parameter.ndim == 1:
            parameter.data = noise + ("norm" in name and name.endswith("weight"))
        elif "embed" in name or "token" in name:
            parameter.data = noise
        else:
            parameter.data = noise / parameter[0].numel() ** 0.5
    return model.eval()


def write_transformers(folder, kind, *, limit=64, scaling=None, tied=False):
    """A small InternVL of transformers with its processor; returns the model."""
    folder.mkdir()
    tokens = made.write_qwen2_tokenizer(folder)
    text = {**made.TEXT, "vocab_size": max(tokens.values()) + 1, "max_position_embeddings": limit}
    text |= {"rope_parameters": {"rope_theta": 1e4, **(scaling or {"rope_type": "default"})}}
    text |= {"eos_token_id": tokens["<|im_end|>"], "pad_token_id": 256, "bos_token_id": None}
    text |= {"tie_word_embeddings": tied}
    six_billion = kind == "llama"
    vision = {**made.VISION, "attention_bias": not six_billion, "use_qk_norm": six_billion}
    vision |= {"norm_type": "rms_norm" if six_billion else "layer_norm"}
    config = InternVLConfig(
        vision_config=InternVLVisionConfig(**vision),
        text_config={"qwen2": Qwen2Config, "llama": LlamaConfig}[kind](**text),
        image_token_id=tokens["<IMG_CONTEXT>"],
        image_seq_length=4,
        tie_word_embeddings=tied,
    )
    model = randomized(InternVLForConditionalGeneration(config))
    if tied:
        model.tie_weights()
    model.save_pretrained(folder)
    names = {"start_image_token": "<img>", "end_image_token": "</img>", "context_image_token": "<IMG_CONTEXT>"}
    tokenizer = AutoTokenizer.from_pretrained(folder, extra_special_tokens={**names, "video_token": "<|endoftext|>"})
    mean, std = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
    size = {"height": 28, "width": 28}
    pictures = GotOcr2ImageProcessorPil(size=size, image_mean=mean, image_std=std, crop_to_patches=True, max_patches=4)
    pictures.save_pretrained(folder)
    return model, tokenizer, pictures


def asked(tokenizer, pictures, image):
    """What transformers' processor gives the model: ids and pixels."""
    chat = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": PROMPT}]}]
    text = tokenizer.apply_chat_template(chat, chat_template=TEMPLATE, add_generation_prompt=True, tokenize=False)
    found = pictures(images=[Image.fromarray(image)], return_tensors="pt")
    context = "<img>" + "<IMG_CONTEXT>" * (4 * int(found["num_patches"][0])) + "</img>"
    ids = tokenizer(text.replace("<IMG_CONTEXT>", context), return_tensors="pt")["input_ids"]
    return ids, found["pixel_values"]


CASES = {
    "qwen2": ("qwen2", {}),
    "qwen2, tied": ("qwen2", {"tied": True}),
    "qwen2, longer than trained": ("qwen2", {"scaling": {"rope_type": "dynamic", "factor": 2.0}}),
    "llama, InternViT-6B": ("llama", {"scaling": {"rope_type": "linear", "factor": 4.0}}),
}


@pytest.mark.parametrize(
    ("kind", "options"),
    [pytest.param(*case, id=name, marks=[] if name == "qwen2" else pytest.mark.slow) for name, case in CASES.items()],
)
def test_greedy_answers_and_logits_equal_those_of_transformers(tmp_path, kind, options):
    model, tokenizer, pictures = write_transformers(tmp_path / "hf", kind, **options)
    images = made.images(20)
    captioner, answers = answered(tmp_path / "hf", images)
    written, logits = [], []
    for image, answer in zip(images, answers, strict=True):
        ids, pixels = asked(tokenizer, pictures, image)
        assert captioner.question.ids(len(pixels)) == ids[0].tolist()
        with torch.no_grad():
            # Wavelengths of an earlier, longer text are kept until a short one comes.
            model.model.language_model.rotary_emb(torch.zeros(1), torch.zeros((1, 1), dtype=torch.long))
            expected = model.generate(
                input_ids=ids,
                pixel_values=pixels,
                attention_mask=torch.ones_like(ids),
                do_sample=False,
                max_new_tokens=LONGEST,
                output_logits=True,
                return_dict_in_generate=True,
            )
        written.append(expected.sequences[0, ids.shape[1] :].tolist())
        logits.append([row[0].numpy() for row in expected.logits])
        assert answer == [number for number in written[-1] if number not in captioner.stops]
    assert_same_logits(captioner, images, written, logits)


@pytest.mark.parametrize(
    ("vision", "scaling"),
    [
        ("300M", "dynamic"),
        pytest.param("6B", None, marks=pytest.mark.slow),
        pytest.param("300M", "linear", marks=pytest.mark.slow),
    ],
)
def test_answers_with_internlm2_equal_those_of_the_twin(tmp_path, scaling, vision):
    tmp_path.joinpath("own").mkdir()
    config = made.internlm2_config(made.write_internlm2_tokenizer(tmp_path / "own"))
    config["llm_config"]["rope_scaling"] = scaling and {"type": scaling, "factor": 2.0}
    if vision == "6B":
        config["vision_config"] |= {"norm_type": "rms_norm", "qk_normalization": True, "qkv_bias": False}
    made.write(tmp_path / "own", config, "OpenGVLab, InternLM2")
    weights = load_file(tmp_path / "own/model.safetensors")
    images = made.images(20)
    captioner, answers = answered(tmp_path / "own", images)
    mean, std = np.array([0.485, 0.456, 0.406], np.float32), np.array([0.229, 0.224, 0.225], np.float32)
    context, stops, written, logits = captioner.question.context, captioner.stops, [], []
    for image, answer in zip(images, answers, strict=True):
        parts = (tiles(image, 28, 1, 4, True).astype(np.float32) / 255 - mean) / std
        pixels = torch.from_numpy(parts.transpose(0, 3, 1, 2))
        ids = captioner.question.ids(len(parts))
        expected = internvl_torch.answer(weights, config, ids, pixels, context, stops, LONGEST)
        written.append(expected[0])
        logits.append(expected[1])
        assert answer == [number for number in written[-1] if number not in captioner.stops]
    assert_same_logits(captioner, images, written, logits)


def answered(folder, images):
    """A captioner, and its answers about images, four at a time."""
    with jax.default_matmul_precision("highest"):
        captioner = InternVLCaptioner(str(folder), PROMPT, max_new_tokens=LONGEST, batch_size=4)
        found = [ids for start in range(0, len(images), 4) for ids in captioner.answers(images[start : start + 4])]
    assert len(set(map(tuple, found))) > len(images) // 2
    counts = {len(captioner._tiles(image)) for image in images}
    assert counts == {1, 3, 4, 5}
    return captioner, found


def assert_same_logits(captioner, images, written, expected):
    """Compares the logits of the first token, and of each after what a reference wrote, about all images at once."""
    captioner.batch_size = len(images)
    rows = [captioner._tiles(image) for image in images]
    ids, is_image, lengths, _, pixels = captioner._batch(rows)
    steps = [[row[min(number, len(row) - 1)] for row in written] for number in range(LONGEST - 1)]

    @jax.jit
    def all_logits(arrays, ids, is_image, lengths, pixels, steps):
        network = module_state.merge(captioner._graphdef, arrays)
        first, memories = decoding.read(network, ids, is_image, lengths, pixels, captioner.room)

        def step(state, ids):
            places, memories = state
            logits, memories = network.decoder.step(ids, places, memories)
            return (places + 1, memories), logits

        return first, jax.lax.scan(step, (lengths, memories), steps)[1]

    with jax.default_matmul_precision("highest"):
        first, others = all_logits(captioner._arrays, ids, is_image, lengths, pixels, np.array(steps, np.int32))
    found = np.concatenate([first[None], others])
    errors = [
        np.abs(found[number, row] - reference).max() / np.sqrt(np.mean(reference**2))
        for row, references in enumerate(expected)
        for number, reference in enumerate(references)
    ]
    print(f"largest error of {len(errors)} tokens' logits: {max(errors):.1e}")
    assert max(errors) < 1e-4
