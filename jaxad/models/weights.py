"""The one strict loader of pretrained weights: where they lie, how they are read, and how they fill a network (DESIGN 4.5)."""

from __future__ import annotations

import difflib
import functools
import hashlib
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import huggingface_hub
import jax.numpy as jnp
import numpy as np
import safetensors
from flax import nnx
from huggingface_hub import errors as hub_errors

from jaxad import module_state
from jaxad.errors import WeightsError

SINGLE = "model.safetensors"
INDEX = "model.safetensors.index.json"

Layout = Mapping[str, tuple[str, Callable[[np.ndarray], np.ndarray]]]
"""For each leaf of a module: the suffix of its tensor in the file, and how that tensor becomes the parameter."""

KeyMap = Sequence[tuple[str, str, Layout]]
"""Rows (module path, file key, layout); `{}` stands for the same number in both."""


def _keep(x: np.ndarray) -> np.ndarray:
    return x


ARRAY: Layout = {"": ("", _keep)}
LINEAR: Layout = {"kernel": (".weight", np.transpose), "bias": (".bias", _keep)}
CONV: Layout = {"kernel": (".weight", lambda x: x.transpose(2, 3, 1, 0)), "bias": (".bias", _keep)}
NORM: Layout = {"scale": (".weight", _keep), "bias": (".bias", _keep)}


@dataclass(frozen=True)
class Weights:
    """Weights of one pretrained network, found but not yet read.

    Attributes:
        id: the folder, file or hub id they were asked for by.
        config: content of config.json, {} where there is none.
        files: the weight files in the order of their names.
        tensors: name -> array; each is read from its file when it is asked for.
    """

    id: str
    config: Mapping[str, Any]
    files: tuple[Path, ...]
    tensors: Mapping[str, np.ndarray]

    @functools.cached_property
    def sha256(self) -> str:
        """SHA-256 of the weight files one after the other."""
        digest = hashlib.sha256()
        for file in self.files:
            with file.open("rb") as stream:
                while block := stream.read(1 << 20):
                    digest.update(block)
        return digest.hexdigest()

    @property
    def bytes(self) -> int:
        """Size of the weight files."""
        return sum(file.stat().st_size for file in self.files)


def find_weights(source: str | Path, revision: str | None = None) -> Weights:
    """Weights in a local folder or file, or of a Hugging Face hub id.

    Args:
        source: folder with config.json and model.safetensors (or its shards and index), one .safetensors file, or a hub
            id such as "facebook/dinov2-small". The hub's cache and HF_HUB_OFFLINE are respected.
        revision: branch, tag or commit on the hub.

    Raises:
        WeightsError: nothing there, hub out of reach, repository missing or gated, damaged file, missing shard.
    """
    path = Path(source)
    if path.is_file():
        return Weights(str(source), {}, (path,), read_file(path))
    get = _folder(path) if path.is_dir() else _hub(str(source), revision)
    config = _read_json(get("config.json"))
    single, index = get(SINGLE), None
    if single is not None:
        files = [single]
    elif index := get(INDEX):
        names = sorted(set(_read_json(index).get("weight_map", {}).values()))
        shards = {name: get(name) for name in names if Path(name).name == name}
        if missing := [name for name in names if shards.get(name) is None]:
            raise WeightsError(f"{source}: {INDEX} names shards that are missing: {', '.join(missing)}; download them")
        files = [file for file in shards.values() if file is not None]
    else:
        raise WeightsError(f"{source}: holds neither {SINGLE} nor {INDEX}")
    return Weights(str(source), config, tuple(files), _Joined([read_file(file) for file in files]))


def read_file(file: Path) -> Mapping[str, np.ndarray]:
    """Tensors of one weight file by name, read when asked for. Further formats are added here.

    Raises:
        WeightsError: the file is damaged or of an unknown format.
    """
    readers = {".safetensors": _Safetensors}
    if file.suffix not in readers:
        raise WeightsError(f"{file}: unknown weight format {file.suffix!r}; needs to be one of {', '.join(readers)}")
    return readers[file.suffix](file)


def fill(module: nnx.Module, weights: Weights, key_map: KeyMap, ignore: Sequence[str] = ()) -> Any:
    """The abstract `module` with every parameter taken from `weights` and cast to the parameter's type.

    Args:
        module: made under `nnx.eval_shape`, so that nothing is initialised only to be overwritten.
        weights: what `find_weights` found.
        key_map: table of module paths and file keys.
        ignore: names of tensors that the network does not use.

    Raises:
        WeightsError: parameters without tensor, tensors without use, wrong shapes, values that are not finite; all
            listed at once, with the nearest names.
    """
    graphdef, parameters = module_state.split(module)
    leaves = {
        f"{path}/{leaf}".rstrip("/"): (key + suffix, transform)
        for path, key, layout in key_map
        for leaf, (suffix, transform) in layout.items()
    }
    arrays, used, problems = {}, set(ignore), []
    for path, parameter in parameters.items():
        numbers = re.findall(r"(?<=/)\d+(?=/)", path)
        key, transform = leaves[re.sub(r"(?<=/)\d+(?=/)", "{}", path)]
        key = key.format(*numbers)
        used.add(key)
        if key not in weights.tensors:
            problems.append(f"{key}: missing (parameter {path} {list(parameter.shape)})")
            continue
        tensor = weights.tensors[key]
        array = np.asarray(transform(tensor), parameter.dtype)
        if array.shape != parameter.shape:
            problems.append(f"{key}: shape {list(tensor.shape)} does not give parameter {path} {list(parameter.shape)}")
        elif not np.isfinite(array).all():
            problems.append(f"{key}: holds values that are not finite")
        else:
            arrays[path] = jnp.asarray(array)
    problems += [f"{key}: not used by the network" for key in weights.tensors if key not in used]
    if problems:
        raise WeightsError("\n".join([f"{weights.id} does not fit:", *(f"  {problem}" for problem in problems)]))
    return module_state.merge(graphdef, arrays)


class _Safetensors(Mapping[str, np.ndarray]):
    """Tensors of a .safetensors file, memory-mapped."""

    def __init__(self, file: Path):
        self.file = file
        try:
            self.opened = safetensors.safe_open(file, framework="numpy")
        except (safetensors.SafetensorError, OSError) as error:
            raise WeightsError(f"{file}: damaged or truncated ({error}); download it again") from error
        self.names = dict.fromkeys(self.opened.keys())

    def __getitem__(self, name: str) -> np.ndarray:
        if name not in self.names:
            raise KeyError(name)
        return self.opened.get_tensor(name)

    def __iter__(self) -> Iterator[str]:
        return iter(self.names)

    def __len__(self) -> int:
        return len(self.names)


class _Joined(Mapping[str, np.ndarray]):
    """Tensors of several files as one mapping."""

    def __init__(self, parts: Sequence[Mapping[str, np.ndarray]]):
        self.part = {name: part for part in parts for name in part}

    def __getitem__(self, name: str) -> np.ndarray:
        return self.part[name][name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.part)

    def __len__(self) -> int:
        return len(self.part)


def _read_json(file: Path | None) -> dict[str, Any]:
    return json.loads(file.read_text()) if file else {}


def _folder(folder: Path) -> Callable[[str], Path | None]:
    return lambda name: folder / name if (folder / name).is_file() else None


def _hub(repository: str, revision: str | None) -> Callable[[str], Path | None]:
    def get(name: str) -> Path | None:
        try:
            return Path(huggingface_hub.hf_hub_download(repository, name, revision=revision))
        except hub_errors.EntryNotFoundError:
            return None

    return get
