"""Questions about an image in the form that InternVL was trained with, as its authors' code puts them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

IMAGE, CONTEXT, IMAGE_END = "<img>", "<IMG_CONTEXT>", "</img>"
"""Tokens around the image, and the one that stands for each of its embeddings."""
TURN_END = "<|im_end|>"
"""Token that ends a turn, and so the answer."""
TRANSFORMERS = "transformers"
"""Name of the form of transformers' own files."""


class Template(NamedTuple):
    """A form of conversations.

    Attributes:
        system: what comes before the conversation, "" for nothing.
        end: what ends a turn.
    """

    system: str
    end: str


_VERSION_2 = (
    "你是由上海人工智能实验室联合商汤科技开发的书生多模态大模型，英文名叫InternVL, 是一个有用无害的人工智能助手。"
)
_VERSION_2_5 = (
    "你是书生·万象，英文名是InternVL，是由上海人工智能实验室、清华大学及多家合作单位联合开发的多模态大语言模型。"
)

TEMPLATES: Mapping[str, Template] = {
    "Hermes-2": Template(_VERSION_2, TURN_END),
    "internlm2-chat": Template(_VERSION_2, TURN_END),
    "internvl2_5": Template(_VERSION_2_5, f"{TURN_END}\n"),
}
"""Those of OpenGVLab's repositories, by the name that their config.json gives."""
_ALL = {**TEMPLATES, TRANSFORMERS: Template("", f"{TURN_END}\n")}


def conversation(template: str, prompt: str, embeddings: int) -> str:
    """A conversation of one question about one image, up to where the answer begins.

    Args:
        template: name of the form.
        prompt: what is asked.
        embeddings: number of tokens that stand for the image.
    """
    system, end = _ALL[template]
    before = f"<|im_start|>system\n{system}{end}" if system else ""
    image = f"{IMAGE}{CONTEXT * embeddings}{IMAGE_END}"
    return f"{before}<|im_start|>user\n{image}\n{prompt}{end}<|im_start|>assistant\n"
