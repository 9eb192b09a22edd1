"""The captioner on small random models that transformers wrote."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import (
    Blip2Config,
    Blip2ForConditionalGeneration,
    Blip2Processor,
    Blip2QFormerConfig,
    Blip2VisionConfig,
    BlipImageProcessor,
    CLIPImageProcessor,
    CLIPVisionConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
    PreTrainedTokenizerFast,
    T5Config,
)

from jaxad.errors import ConfigError
from jaxad.models.captioner.hugging_face import HuggingFaceCaptioner

pytestmark = pytest.mark.parity

WORDS = ["<pad>", "<s>", "</s>", "<unk>", "<image>", "USER", "describe", "this", "part", "a", "gray", "bolt", "with"]
CHAT = (
    "{% for message in messages %}USER {% for item in message['content'] %}"
    "{% if item['type'] == 'image' %}<image> {% else %}{{ item['text'] }} {% endif %}{% endfor %}{% endfor %}"
)


def word_tokenizer(**options):
    words = Tokenizer(models.WordLevel({word: place for place, word in enumerate(WORDS)}, unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    special = {"pad_token": "<pad>", "bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
    return PreTrainedTokenizerFast(tokenizer_object=words, **special, **options)


def randomized(model, seed):
    """With parameters such that answers depend on the image."""
    torch.manual_seed(seed)
    for parameter in model.parameters():
        parameter.data = torch.randn(parameter.shape) * 0.5
    return model


@pytest.fixture(scope="module")
def blip2(tmp_path_factory):
    """A BLIP-2 with a T5, one of the published captioners in small: no chat template, encoder and decoder."""
    sizes = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    vision = Blip2VisionConfig(**sizes, image_size=16, patch_size=8)
    queries = Blip2QFormerConfig(**sizes, vocab_size=len(WORDS), encoder_hidden_size=16)
    special = {"pad_token_id": 0, "eos_token_id": 2, "bos_token_id": 1, "decoder_start_token_id": 0}
    text = T5Config(vocab_size=len(WORDS), d_model=16, d_kv=8, d_ff=32, num_layers=1, num_heads=2, **special)
    config = Blip2Config(
        vision_config=vision, qformer_config=queries, text_config=text, num_query_tokens=3, image_token_index=4
    )
    images = BlipImageProcessor(size={"height": 16, "width": 16})
    target = tmp_path_factory.mktemp("blip2")
    randomized(Blip2ForConditionalGeneration(config), 5).save_pretrained(target)
    Blip2Processor(images, word_tokenizer(), num_query_tokens=3).save_pretrained(target)
    return target


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A LLaVA of 2 layers with a vocabulary of words."""
    tokenizer = word_tokenizer(extra_special_tokens={"image_token": "<image>"})
    vision = CLIPVisionConfig(
        hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2, image_size=16, patch_size=8
    )
    text = LlamaConfig(
        vocab_size=len(WORDS),
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=2,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
    )
    config = LlavaConfig(vision_config=vision, text_config=text, image_token_index=4, image_seq_length=4)
    model = randomized(LlavaForConditionalGeneration(config), 3)
    images = CLIPImageProcessor(size={"shortest_edge": 16}, crop_size={"height": 16, "width": 16})
    processor = LlavaProcessor(
        images,
        tokenizer,
        patch_size=8,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=CHAT,
    )
    target = tmp_path_factory.mktemp("llava")
    model.save_pretrained(target)
    processor.save_pretrained(target)
    return target


def test_greedy_answers_without_the_prompt_in_any_batch(folder):
    images = [np.random.default_rng(seed).integers(0, 256, (20 + seed, 24, 3), np.uint8) for seed in range(3)]
    captioner = HuggingFaceCaptioner(str(folder), "describe this part", max_new_tokens=6)
    together = captioner(images)
    assert together == [captioner([image])[0] for image in images]
    assert together == captioner(images)
    assert len(set(together)) > 1
    assert all(len(text.split()) <= 6 for text in together)
    longest = max(range(3), key=lambda place: len(together[place]))
    assert together[longest]

    # What the model says, computed without generate: the likeliest word again and again.
    inputs = captioner._inputs([Image.fromarray(images[longest])])
    ids = inputs["input_ids"]
    assert captioner._processor.batch_decode(ids)[0].split()[-3:] == ["describe", "this", "part"]
    with torch.no_grad():
        for _ in range(6):
            logits = captioner._model(
                input_ids=ids, pixel_values=inputs["pixel_values"], attention_mask=torch.ones_like(ids)
            ).logits
            ids = torch.cat([ids, logits[:, -1:].argmax(-1)], dim=1)
            if ids[0, -1] == 2:
                break
    answer = ids[0, inputs["input_ids"].shape[1] :]
    assert captioner._processor.decode(answer, skip_special_tokens=True).split() == together[longest].split()


def test_a_model_without_chat_template_answers_the_bare_prompt(blip2):
    images = [np.random.default_rng(seed).integers(0, 256, (20 + seed, 24, 3), np.uint8) for seed in range(3)]
    captioner = HuggingFaceCaptioner(str(blip2), "describe this part", max_new_tokens=6)
    assert captioner._processor.chat_template is None
    together = captioner(images)
    assert together == [captioner([image])[0] for image in images]
    assert len(set(together)) > 1
    longest = max(range(3), key=lambda place: len(together[place]))
    assert together[longest]

    # What the model says, computed without generate: it repeats no prompt, and none is cut off its answer.
    inputs = captioner._inputs([Image.fromarray(images[longest])])
    asked = captioner._processor.batch_decode(inputs["input_ids"])[0].split()
    assert asked == ["<image>"] * 3 + ["describe", "this", "part"]
    ids = torch.zeros((1, 1), dtype=torch.long)
    with torch.no_grad():
        for _ in range(6):
            logits = captioner._model(**inputs, decoder_input_ids=ids).logits
            ids = torch.cat([ids, logits[:, -1:].argmax(-1)], dim=1)
            if ids[0, -1] == 2:
                break
    assert captioner._processor.decode(ids[0], skip_special_tokens=True).split() == together[longest].split()


def test_another_model_is_refused(tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(ConfigError, match="no image-text-to-text model"):
        HuggingFaceCaptioner(str(tmp_path), "pd")
