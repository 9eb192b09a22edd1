"""Captions by InternVL, in JAX: questions about a batch of images, and their answers, on a mesh of devices."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from jaxad import parallel
from jaxad.config import Precision
from jaxad.errors import ConfigError, WeightsError
from jaxad.io.json_files import read_object
from jaxad.models.captioner import decoding
from jaxad.models.captioner.chat import CONTEXT, IMAGE, IMAGE_END, TURN_END, conversation
from jaxad.models.captioner.config import CaptionerConfig
from jaxad.models.captioner.config_files import ids_of, is_internvl
from jaxad.models.captioner.network import filled_up, load_internvl
from jaxad.models.captioner.tiles import rounded_up, tiles
from jaxad.models.captioner.tokenizer import ChatTokenizer, load_chat_tokenizer
from jaxad.models.weights.loader import find_weights
from jaxad.models.weights.place import open_place
from jaxad.nn import module_state
from jaxad.nn.precision import compute_dtype

BLOCK = 128
"""Tokens of questions and memories come in multiples of as many."""


class InternVLCaptioner:
    """Greedy answers of an InternVL 2, 2.5 or 3 with InternLM2, Qwen2 or Llama.

    Args:
        model: hub id, ORG/NAME or ORG/NAME@REVISION, or a folder: weights, config.json and tokenizer, of OpenGVLab's
            own form or of transformers'. No code of it is run.
        prompt: asked of every image.
        max_new_tokens: longest answer.
        batch_size: most images at once; a multiple of the number of devices.
        fsdp: how many devices share the parameters, for networks too large for one.
        mesh: the devices; None for all of this process.
        precision: "auto" for float32 on CPUs and bfloat16 elsewhere, of parameters too.

    Raises:
        ConfigError: numbers of devices that do not fit, a prompt with tokens of the network's own, or a package that is
            not installed.
        WeightsError: no such network there.
    """

    def __init__(
        self,
        model: str,
        prompt: str,
        *,
        max_new_tokens: int = 1024,
        batch_size: int = 8,
        fsdp: int = 1,
        mesh: Mesh | None = None,
        precision: Precision = "auto",
    ):
        self.mesh = mesh or parallel.make_mesh(fsdp, jax.local_devices())
        parallel.check_batch_size(batch_size, self.mesh)
        self.batch_size, self.longest = batch_size, max_new_tokens
        self.tokenizer = load_chat_tokenizer(model)
        weights = find_weights(model)
        with jax.sharding.use_abstract_mesh(self.mesh.abstract_mesh):
            dtype = jnp.dtype(compute_dtype(precision))
        network = load_internvl(weights, dtype, lambda array: parallel.shard_parameters(array, self.mesh))
        self.config: CaptionerConfig = network.config
        self.question = Question(self.tokenizer, self.config, prompt)
        self.stops = stops(self.tokenizer, self.config, _generation(model))
        self.room = self.question.length(self.config.most, max_new_tokens)
        self._graphdef, arrays = module_state.split(network)
        self._arrays = parallel.shard_parameters(filled_up(arrays, self.config.decoder), self.mesh)
        self._read, self._write = programs(self._graphdef, self.mesh, self.room, self.stops, self.longest)

    def __call__(self, images: Sequence[np.ndarray]) -> list[str]:
        """A text for each image uint8 [h w 3], of which there are `batch_size` at most."""
        return [self._text(ids) for ids in self.answers(images)]

    def answers(self, images: Sequence[np.ndarray]) -> list[list[int]]:
        """Token ids of the answer for each image, without what ends it."""
        rows = [self._tiles(image) for image in images]
        batch = parallel.shard_batch(self._batch(rows), self.mesh)
        ids, is_image, lengths, wanted, pixels = batch
        logits, memories = self._read(self._arrays, ids, is_image, lengths, pixels)
        found, _ = self._write(self._arrays, logits, memories, lengths, wanted)
        written = parallel.to_host(found)
        return [_until(row, self.stops) for row in written[: len(images)].tolist()]

    def _tiles(self, image: np.ndarray) -> np.ndarray:
        config = self.config
        side = config.tower.image_size
        return tiles(image, side, config.least_tiles, config.most_tiles, config.thumbnail)

    def _batch(self, rows: Sequence[np.ndarray]) -> tuple[np.ndarray, ...]:
        """What the programs take of images' tiles; rows of no image ask about black ones, and are not waited for."""
        side, count = self.config.tower.image_size, rounded_up(max(map(len, rows)), self.config.most)
        pixels = np.zeros((self.batch_size, count, side, side, 3), np.uint8)
        ids = np.zeros((self.batch_size, self.question.length(count)), np.int32)
        lengths = np.ones(self.batch_size, np.int32)
        for number, row in enumerate(rows):
            pixels[number, : len(row)] = row
            asked = self.question.ids(len(row))
            ids[number, : len(asked)] = asked
            lengths[number] = len(asked)
        wanted = np.arange(self.batch_size) < len(rows)
        return ids, ids == self.question.context, lengths, wanted, pixels

    def _text(self, ids: list[int]) -> str:
        return " ".join(self.tokenizer.text(ids).split(TURN_END)[0].split())


def programs(graphdef: Any, mesh: Mesh, room: int, stops: Sequence[int], longest: int) -> tuple[Any, Any]:
    """`decoding.read` and `decoding.write`, compiled where they are called first.

    Args:
        graphdef: of the network (`jaxad.nn.module_state.split`).
        mesh: devices, over which images are divided.
        room, stops, longest: as they take them.

    Returns:
        Jitted functions of the network's arrays and of what else they take; the second donates the memories.
    """

    def read(arrays: Any, ids: Any, is_image: Any, lengths: Any, pixels: Any) -> Any:
        return decoding.read(module_state.merge(graphdef, arrays), ids, is_image, lengths, pixels, room)

    def write(arrays: Any, logits: Any, memories: Any, lengths: Any, wanted: Any) -> Any:
        network = module_state.merge(graphdef, arrays)
        return decoding.write(network, logits, memories, lengths, wanted, stops, longest)

    divided = parallel.batch_sharding(mesh)
    # The memories, which are large, become those that grow.
    reading = jax.jit(parallel.on_mesh(read, mesh), out_shardings=divided)
    return reading, jax.jit(parallel.on_mesh(write, mesh), out_shardings=divided, donate_argnums=2)


class Question:
    """A prompt about an image, in ids.

    Args:
        tokenizer: of the network.
        config: of the network.
        prompt: what is asked.

    Attributes:
        context: id that stands for an embedding of the image.

    Raises:
        ConfigError: the prompt holds tokens that stand for images.
        WeightsError: the tokenizer lacks them.
    """

    def __init__(self, tokenizer: ChatTokenizer, config: CaptionerConfig, prompt: str):
        if within := [token for token in (CONTEXT, "<image>") if token in prompt]:
            raise ConfigError(f"prompt: holds {', '.join(within)}, which stands for the image; leave it out")
        context = tokenizer.id_of(CONTEXT)
        if missing := [token for token in (IMAGE, CONTEXT, IMAGE_END, TURN_END) if tokenizer.id_of(token) is None]:
            raise WeightsError(f"tokenizer: lacks the tokens {', '.join(missing)}; it belongs to another network")
        asked = tokenizer.ids(conversation(config.template, prompt, 1))
        if context is None or asked.count(context) != 1 or max(asked) >= config.decoder.vocabulary:
            raise WeightsError(
                f"tokenizer: makes of a question the ids {asked[:20]}, with {asked.count(context or 0)} for the image, "
                f"of {config.decoder.vocabulary} that the network knows; it belongs to another network"
            )
        place = asked.index(context)
        self.context, self._per_tile = context, config.tile_tokens
        self._before, self._after = asked[:place], asked[place + 1 :]

    def ids(self, count: int) -> list[int]:
        """Ids of the question about an image of so many tiles."""
        return [*self._before, *[self.context] * (count * self._per_tile), *self._after]

    def length(self, count: int, more: int = 0) -> int:
        """Tokens that a program has room for, of a question about so many tiles and of `more` behind it."""
        needed = len(self._before) + count * self._per_tile + len(self._after) + more
        return -(-needed // BLOCK) * BLOCK


def stops(tokenizer: ChatTokenizer, config: CaptionerConfig, generation: dict[str, Any]) -> tuple[int, ...]:
    """Ids that end an answer.

    Args:
        tokenizer, config: of the network.
        generation: content of generation_config.json, empty where there is none; goes before the config.
    """
    end = tokenizer.id_of(TURN_END)
    others = ids_of(generation.get("eos_token_id")) or config.stops
    return tuple(dict.fromkeys(number for number in (end, *others) if number is not None))


def captions_in_jax(model: str) -> bool:
    """Whether `InternVLCaptioner` is meant for a model, by its config.json.

    Raises:
        WeightsError: a damaged config.json, or a hub that refuses it.
    """
    file = open_place(model).find("config.json")
    return file is not None and is_internvl(read_object(file, error=WeightsError))


def _generation(model: str) -> dict[str, Any]:
    file = open_place(model).find("generation_config.json")
    return read_object(file, error=WeightsError) if file else {}


def _until(ids: list[int], stops: Sequence[int]) -> list[int]:
    """Ids up to the first of those that end an answer."""
    end = next((place for place, number in enumerate(ids) if number in stops), len(ids))
    return ids[:end]
