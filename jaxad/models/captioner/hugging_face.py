"""Captions by an image-text-to-text model of transformers: the only module that imports torch (extra `caption`)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from PIL import Image

from jaxad.errors import ConfigError
from jaxad.io.untrusted import reading
from jaxad.models.weights.place import split_revision

Captioner = Callable[[Sequence[np.ndarray]], list[str]]
"""Images uint8 [h w 3] of any sizes -> a text for each."""


class HuggingFaceCaptioner:
    """Greedy answers of an image-text-to-text model such as Qwen-VL, LLaVA or BLIP-2.

    Only models whose code is part of transformers are loaded; code from the hub is never run. InternVL, the published
    captioner, runs without torch: `jaxad.detectors.vlmdiff.internvl`.

    Args:
        model: hub id, ORG/NAME or ORG/NAME@REVISION, or a folder with model and processor.
        prompt: asked of every image.
        max_new_tokens: longest answer.

    Raises:
        ConfigError: torch is not installed, or transformers cannot load such a model.
    """

    def __init__(self, model: str, prompt: str, *, max_new_tokens: int = 1024):
        try:
            import torch
        except ImportError as error:
            raise ConfigError("HuggingFaceCaptioner needs torch: pip install 'jaxad[caption]'") from error
        from transformers import AutoModelForImageTextToText, AutoProcessor

        self._torch: Any = torch
        self._device = "cuda" if torch.cuda.is_available() else "cpu"
        dtype = torch.bfloat16 if self._device == "cuda" else torch.float32
        name, revision = split_revision(model)
        where = {"revision": revision or "main", "trust_remote_code": False}
        with reading(lambda said: ConfigError(f"{_useless(model)}: {said}"), memory=True):
            self._processor: Any = AutoProcessor.from_pretrained(name, **where)
            loaded: Any = AutoModelForImageTextToText.from_pretrained(name, dtype=dtype, **where)
        self._model = loaded.to(self._device).eval()
        self._prompt, self._longest = prompt, max_new_tokens
        # Answers begin where prompts end, which is one place for all only if padding comes first.
        self._processor.tokenizer.padding_side = "left"
        if self._processor.tokenizer.pad_token is None:
            self._processor.tokenizer.pad_token = self._processor.tokenizer.eos_token

    def __call__(self, images: Sequence[np.ndarray]) -> list[str]:
        """A text for each image uint8 [h w 3]."""
        inputs = self._inputs([Image.fromarray(image) for image in images]).to(self._device, self._model.dtype)
        with self._torch.inference_mode():
            answers = self._model.generate(**inputs, do_sample=False, num_beams=1, max_new_tokens=self._longest)
        asked = inputs["input_ids"]
        # Models that only decode repeat what they were asked.
        if answers.shape[1] >= asked.shape[1] and bool((answers[:, : asked.shape[1]] == asked).all()):
            answers = answers[:, asked.shape[1] :]
        texts = self._processor.batch_decode(answers, skip_special_tokens=True)
        return [" ".join(text.split()) for text in texts]

    def _inputs(self, images: list[Image.Image]) -> Any:
        if not getattr(self._processor, "chat_template", None):
            return self._processor(images=images, text=[self._prompt] * len(images), padding=True, return_tensors="pt")
        text = {"type": "text", "text": self._prompt}
        chats = [[{"role": "user", "content": [{"type": "image", "image": image}, text]}] for image in images]
        return self._processor.apply_chat_template(
            chats,
            add_generation_prompt=True,
            tokenize=True,
            return_dict=True,
            return_tensors="pt",
            processor_kwargs={"padding": True},
        )


def _useless(model: str) -> str:
    return (
        f"model = {model!r}: transformers loads no image-text-to-text model from it; name a hub id or folder whose "
        "code is part of transformers, such as llava-hf/llava-1.5-7b-hf"
    )
