"""The one strict loader of pretrained weights: finds and reads them, and fills networks with them."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from jaxad.errors import WeightsError
from jaxad.io.digests import digest_once
from jaxad.io.json_files import read_object
from jaxad.io.places import expanded
from jaxad.io.untrusted import beginning_of, reading
from jaxad.models.known_hashes import check_published
from jaxad.models.weights.flax_msgpack import is_flax_msgpack, read_flax_msgpack
from jaxad.models.weights.mapped_file import LazyTensors, RenamedTensors, damage, damaged
from jaxad.models.weights.packed import unpacked
from jaxad.models.weights.place import Hub, Place, commit_of, open_place, split_revision
from jaxad.models.weights.safetensors_file import is_safetensors, read_safetensors
from jaxad.models.weights.torch_pickle import is_torch_pickle, read_torch_pickle

CONFIGS = ("config.json", "open_clip_config.json")
FILES = (
    "model.safetensors",
    "diffusion_pytorch_model.safetensors",
    "open_clip_model.safetensors",
    "pytorch_model.bin",
    "diffusion_pytorch_model.bin",
    "open_clip_pytorch_model.bin",
    "flax_model.msgpack",
    "diffusion_flax_model.msgpack",
)
"""What weights are called in repositories, in the order of preference; shards have `NAME.index.json`."""
VARIANTS = ("fp16", "bf16", "non_ema")
"""What weights are kept as besides, in the order of preference behind all that are kept as they are: the `variant` of
diffusers and transformers, as in model.fp16.safetensors."""
_SHARDS, _SHOWN = 10_000, 50


@dataclass(frozen=True)
class Weights:
    """Pretrained weights that were found but not yet read.

    Attributes:
        id: the folder, file or hub id they were asked for by.
        config: content of config.json, empty where there is none.
        files: the weight files in the order of their names.
        tensors: name -> array; each is mapped into memory when it is asked for.
        prefix: what the names in the files have before those in `tensors`.
        preprocessor: content of preprocessor_config.json, empty where there is none.
        described_in: the files that `config` and `preprocessor` were read from.
        commit: that the files are of, where they came from the hub and its cache says.
    """

    id: str
    config: Mapping[str, Any]
    files: tuple[Path, ...]
    tensors: Mapping[str, np.ndarray]
    prefix: str = ""
    preprocessor: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    described_in: tuple[Path, ...] = ()
    commit: str | None = None

    def __str__(self) -> str:
        return f"{self.id} below {self.prefix}" if self.prefix else self.id

    @property
    def sha256(self) -> str:
        """Their SHA-256."""
        return digest_once(*self.files)

    @property
    def pinned(self) -> str:
        """`id` as ORG/NAME@COMMIT, which always means these very files; of local files the `id` itself."""
        return self.id if self.commit is None else f"{split_revision(self.id)[0]}@{self.commit}"

    @property
    def bytes(self) -> int:
        """Size of the weight files together."""
        return sum(file.stat().st_size for file in self.files)

    def reading(self) -> AbstractContextManager[None]:
        """For whatever makes a network of them: what it stumbles over, such as a tensor of another number of axes than
        the network's shape is told by, becomes a WeightsError that names them."""
        return reading(
            lambda said: WeightsError(f"{self}: no such network, or damaged ({said}); get the weights again"),
            memory=True,
        )

    def check_blocks(self, blocks: int) -> None:
        """Compares the blocks of a network that a config describes with the tensors, before the network is begun.

        Raises:
            WeightsError: there are not even as many tensors.
        """
        if blocks > len(self.tensors):
            there = f"and there are {len(self.tensors)} tensors"
            raise WeightsError(f"{self}: config.json describes {blocks} blocks, {there}; it belongs to other weights")

    def has(self, prefix: str) -> bool:
        """Whether any tensor's name begins so."""
        return any(name.startswith(prefix) for name in self.tensors)

    def under(self, prefix: str) -> Weights:
        """The tensors below a prefix, without it; all others are simply left out.

        Args:
            prefix: as it stands in the names, with its dot, e.g. "model.diffusion_model.".

        Raises:
            WeightsError: there are none.
        """
        names = {name.removeprefix(prefix): name for name in self.tensors if name.startswith(prefix)}
        if not names:
            tops = sorted({name.split(".")[0] for name in self.tensors})
            raise WeightsError(
                f"{self}: no tensors below {prefix!r}; there are {', '.join(tops[:20]) or 'none at all'}"
            )
        return dataclasses.replace(self, tensors=RenamedTensors(self.tensors, names), prefix=self.prefix + prefix)

    def ema(self) -> Weights:
        """The same with each tensor `model.X` of an LDM checkpoint replaced by its moving average under `model_ema`.

        Raises:
            WeightsError: the checkpoint holds no moving averages.

        The averages are named without dots, and exist only for what was trained.
        """
        averages = {
            name: average
            for name in self.tensors
            if name.startswith("model.")
            and (average := "model_ema." + name.removeprefix("model.").replace(".", "")) in self.tensors
        }
        if not averages:
            raise WeightsError(f"{self}: no moving averages (model_ema.*)")
        kept = {name: name for name in self.tensors if not name.startswith("model_ema.")}
        return dataclasses.replace(self, tensors=RenamedTensors(self.tensors, kept | averages))


def find_weights(source: str | Path, revision: str | None = None, subfolder: str = "", *, prefer: str = "") -> Weights:
    """Pretrained weights in a local folder or file, or of a Hugging Face hub id.

    Args:
        source: folder with config.json and weights, or their shards and index, under one of the names in `FILES`, or
            as one of the `VARIANTS`; one weight file, or a zip archive around one; or a hub id such as
            "facebook/dinov2-small", or with a branch, tag or commit "facebook/dinov2-small@REVISION". The hub's cache
            and HF_HUB_OFFLINE are respected.
        revision: branch, tag or commit on the hub; goes before that in `source`.
        subfolder: folder within the folder or repository, such as "unet" in those of Stable Diffusion.
        prefer: how the names of the files begin that go before all others, such as "open_clip" in repositories that
            hold a CLIP beside timm's image tower.

    Raises:
        WeightsError: nothing there, hub out of reach, repository missing or gated, damaged file, missing shard; or
            a published file whose hash is known and another.
    """
    path = expanded(source)
    if path.is_file():
        if subfolder:
            raise WeightsError(f"{source}: is a file, and has no subfolder {subfolder!r}")
        path = unpacked(path)
        return Weights(str(source), {}, (path,), read_tensors(path))
    place = open_place(source, revision, subfolder)
    name = f"{source}/{subfolder}" if subfolder else str(source)
    others = " or ".join(FILES[1:])
    configs, files = (sorted(names, key=lambda name: not name.startswith(prefer)) for names in (CONFIGS, FILES))
    config_file = next((file for config in configs if (file := place.find(config))), None)
    config = _read_json(config_file) if config_file else {}
    preprocessor_file = place.find("preprocessor_config.json")
    preprocessor = _read_json(preprocessor_file) if preprocessor_file else {}
    described_in = tuple(file for file in (config_file, preprocessor_file) if file)
    for file_name, indexes in _names(files):
        if file := place.find(file_name):
            found, tensors = (file,), read_tensors(file)
        elif index := next((index for name in indexes if (index := place.find(name))), None):
            found, tensors = _read_shards(place, index)
        else:
            continue
        commit = None
        if isinstance(place, Hub):
            commit = commit_of(found[0])
            if place.revision is None:
                check_published(place.repository, subfolder, found)
        return Weights(name, config, found, tensors, "", preprocessor, described_in, commit)
    raise WeightsError(f"{name}: {place.absent(f'{FILES[0]} or {FILES[0]}.index.json, or {others}')}")


def _names(files: Sequence[str]) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Each name that weights may have, and what the index of its shards may be called."""
    yield from ((name, (f"{name}.index.json",)) for name in files)
    for variant in VARIANTS:
        for name in files:
            stem, _, suffix = name.rpartition(".")
            own = f"{stem}.{variant}.{suffix}"
            # As diffusers and transformers write it now, as diffusers once did, and as other tools do.
            yield own, (f"{name}.index.{variant}.json", f"{name}.{variant}.index.json", f"{own}.index.json")


def read_tensors(file: Path) -> Mapping[str, np.ndarray]:
    """Tensors of one weight file by name, under the names and in the layouts of torch whatever its format.

    Each is mapped into memory when it is asked for. The content tells the format: safetensors, what torch.save wrote,
    or Flax msgpack.

    Raises:
        WeightsError: the file is damaged, of an unknown format, or a pickle of more than tensors and plain data.
    """
    head = beginning_of(file, 64, damage(file, "weight"))
    for fits, read in (
        (is_safetensors, read_safetensors),
        (is_torch_pickle, read_torch_pickle),
        (is_flax_msgpack, read_flax_msgpack),
    ):
        if fits(head):
            return read(file)
    if head.startswith(b"version https://git-lfs"):
        raise WeightsError(f"{file}: stands for a file in Git LFS that was not downloaded; run git lfs pull")
    kinds = {".safetensors": "safetensors", ".msgpack": "Flax msgpack"} | dict.fromkeys(
        (".pth", ".pt", ".ckpt", ".bin"), "torch"
    )
    if file.suffix in kinds:
        raise damaged(file, kinds[file.suffix], "the first bytes are of no weight format")
    raise WeightsError(f"{file}: unknown weight format {file.suffix!r}; must be one of {', '.join(kinds)}")


def _read_shards(place: Place, index: Path) -> tuple[tuple[Path, ...], Mapping[str, np.ndarray]]:
    """Files and tensors of a sharded checkpoint, all of those that its index names."""
    weight_map = _read_json(index).get("weight_map") or {}
    if not isinstance(weight_map, dict) or not all(isinstance(name, str) for name in weight_map.values()):
        raise WeightsError(f"{index}: weight_map is no object of file names by tensor; get it again")
    names = sorted(set(weight_map.values()))
    if len(names) > _SHARDS:
        raise WeightsError(f"{index}: weight_map names {len(names)} files; a network has at most {_SHARDS}")
    shards = {name: place.find(name) for name in names if Path(name).name == name}
    missing = [f"{name:.100}" for name in names if not shards.get(name)][:_SHOWN]
    if missing or not weight_map:
        raise WeightsError(f"{index}: {place.absent(', '.join(missing) or 'weight_map')}")
    files = tuple(file for file in shards.values() if file)
    makers = {}
    for file in files:
        tensors = read_tensors(file)
        makers |= {name: functools.partial(tensors.__getitem__, name) for name in tensors}
    if absent := [f"{name:.100} (in {file})" for name, file in weight_map.items() if name not in makers]:
        listed = ", ".join(absent[:_SHOWN]) + (f" and {len(absent) - _SHOWN} more" if len(absent) > _SHOWN else "")
        raise WeightsError(f"{index}: tensors that the shards do not hold: {listed}; get the shards again")
    return files, LazyTensors(makers)


def _read_json(file: Path) -> dict[str, Any]:
    return read_object(file, error=WeightsError)
