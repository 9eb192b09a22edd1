"""The one strict loader of pretrained weights: finds them, reads them and fills a network with them (DESIGN 4.5)."""

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
from huggingface_hub import errors as hub_errors

from jaxad import module_state
from jaxad.errors import WeightsError

CONFIG = "config.json"
SINGLE = "model.safetensors"
INDEX = "model.safetensors.index.json"


def _as_it_is(tensor: np.ndarray) -> np.ndarray:
    return tensor


Layout = Mapping[str, tuple[str, Callable[[np.ndarray], np.ndarray]]]
"""For each parameter of a module: the suffix of its tensor's name, and how that tensor becomes the parameter."""

ARRAY: Layout = {"": ("", _as_it_is)}
LINEAR: Layout = {"kernel": (".weight", np.transpose), "bias": (".bias", _as_it_is)}
CONV: Layout = {"kernel": (".weight", lambda tensor: tensor.transpose(2, 3, 1, 0)), "bias": (".bias", _as_it_is)}
NORM: Layout = {"scale": (".weight", _as_it_is), "bias": (".bias", _as_it_is)}

KeyMap = Sequence[tuple[str, str, Layout]]
"""Rows (module path, name in the file, layout); each `{}` stands for the same number on both sides."""


@dataclass(frozen=True)
class Weights:
    """Pretrained weights that were found but not yet read.

    Attributes:
        id: the folder, file or hub id they were asked for by.
        config: content of config.json, empty where there is none.
        files: the weight files in the order of their names.
        tensors: name -> array; each is read from its file when it is asked for.
    """

    id: str
    config: Mapping[str, Any]
    files: tuple[Path, ...]
    tensors: Mapping[str, np.ndarray]

    @functools.cached_property
    def sha256(self) -> str:
        """Their SHA-256."""
        return sha256(self.files)

    @property
    def bytes(self) -> int:
        """Size of the weight files together."""
        return sum(file.stat().st_size for file in self.files)


def find_weights(source: str | Path, revision: str | None = None) -> Weights:
    """Pretrained weights in a local folder or file, or of a Hugging Face hub id.

    Args:
        source: folder with config.json and model.safetensors (or its shards and their index), one .safetensors file,
            or a hub id such as "facebook/dinov2-small". The hub's cache and HF_HUB_OFFLINE are respected.
        revision: branch, tag or commit on the hub.

    Raises:
        WeightsError: nothing there, hub out of reach, repository missing or gated, damaged file, missing shard.
    """
    path = Path(source).expanduser()
    if path.is_file():
        return Weights(str(source), {}, (path,), read_tensors(path))
    place = _Folder(path) if path.is_dir() else _Hub(str(source), revision)
    config_file, single = place.find(CONFIG), place.find(SINGLE)
    config = _read_json(config_file) if config_file else {}
    if single:
        return Weights(str(source), config, (single,), read_tensors(single))
    index = place.find(INDEX)
    if not index:
        raise WeightsError(f"{source}: {place.absent(f'{SINGLE} or {INDEX}')}")
    files, tensors = _read_shards(place, index)
    return Weights(str(source), config, files, tensors)


def sha256(files: Sequence[Path]) -> str:
    """SHA-256 of files, one after the other, in hexadecimal."""
    digest = hashlib.sha256()
    for file in files:
        with file.open("rb") as stream:
            while block := stream.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()


def read_tensors(file: Path) -> Mapping[str, np.ndarray]:
    """Tensors of one weight file by name, each read when it is asked for. Further formats join `readers`.

    Raises:
        WeightsError: the file is damaged or of an unknown format.
    """
    readers = {".safetensors": _Safetensors}
    if file.suffix not in readers:
        raise WeightsError(f"{file}: unknown weight format {file.suffix!r}; needs to be one of {', '.join(readers)}")
    return readers[file.suffix](file)


def fill(module: Any, weights: Weights, key_map: KeyMap, ignore: Sequence[str] = ()) -> Any:
    """The abstract `module` with every parameter taken from `weights` and cast to the parameter's type.

    Args:
        module: an nnx.Module made under `nnx.eval_shape`, so that nothing is initialised only to be overwritten.
        weights: what `find_weights` found.
        key_map: where each parameter lies; rows for modules that this network lacks are skipped.
        ignore: names of tensors that the network has no use for.

    Raises:
        WeightsError: parameters without a tensor, tensors without a use, wrong shapes and values that are not finite,
            all listed at once, with the nearest names.
    """
    graphdef, parameters = module_state.split(module)
    keys = {path: _lookup(key_map, path) for path in parameters}
    unused = [name for name in weights.tensors if name not in {key for key, _ in keys.values()} | set(ignore)]
    arrays, problems = {}, []
    for path, (key, transform) in keys.items():
        wanted = parameters[path]
        if key not in weights.tensors:
            nearest = difflib.get_close_matches(key, unused, n=1, cutoff=0.8)
            hint = f"; nearest in the file: {nearest[0]}" if nearest else ""
            problems.append(f"{key}: missing, needed for {path} {list(wanted.shape)}{hint}")
            continue
        tensor = weights.tensors[key]
        array = _transformed(tensor, transform, wanted.dtype)
        if array is None or array.shape != wanted.shape:
            problems.append(f"{key}: shape {list(tensor.shape)} does not fit {path} {list(wanted.shape)}")
        elif not np.isfinite(array).all():
            problems.append(f"{key}: holds values that are not finite")
        else:
            arrays[path] = jnp.asarray(array)
    problems += [f"{name}: in the file, but not used by the network" for name in unused]
    if problems:
        raise WeightsError("\n".join([f"{weights.id}: weights do not fit the network:", *(f"  {p}" for p in problems)]))
    return module_state.merge(graphdef, arrays)


def _lookup(key_map: KeyMap, path: str) -> tuple[str, Callable[[np.ndarray], np.ndarray]]:
    """Name and transform of the tensor for the parameter at `path`."""
    pattern, numbers = re.sub(r"\b\d+\b", "{}", path), re.findall(r"\b\d+\b", path)
    for module_path, key, layout in key_map:
        for leaf, (suffix, transform) in layout.items():
            if pattern == f"{module_path}/{leaf}".rstrip("/"):
                return key.format(*numbers) + suffix, transform
    raise KeyError(f"the key map has no row for the parameter {path}")


def _transformed(tensor: np.ndarray, transform: Callable, dtype: Any) -> np.ndarray | None:
    """The parameter that a tensor gives, None where it has too few or too many axes."""
    try:
        return np.asarray(transform(tensor), dtype)
    except ValueError:
        return None


class _Safetensors(Mapping[str, np.ndarray]):
    """Tensors of a memory-mapped .safetensors file."""

    def __init__(self, file: Path):
        try:
            self.opened = safetensors.safe_open(file, framework="numpy")
        except (safetensors.SafetensorError, OSError) as error:
            raise WeightsError(f"{file}: damaged, truncated or no safetensors file ({error}); get it again") from error
        self.names = dict.fromkeys(self.opened.keys())

    def __getitem__(self, name: str) -> np.ndarray:
        if name not in self.names:
            raise KeyError(name)
        return self.opened.get_tensor(name)

    def __iter__(self) -> Iterator[str]:
        return iter(self.names)

    def __len__(self) -> int:
        return len(self.names)


class _Shards(Mapping[str, np.ndarray]):
    """Tensors of several files as one mapping."""

    def __init__(self, shards: Sequence[Mapping[str, np.ndarray]]):
        self.shard_of = {name: shard for shard in shards for name in shard}

    def __getitem__(self, name: str) -> np.ndarray:
        return self.shard_of[name][name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.shard_of)

    def __len__(self) -> int:
        return len(self.shard_of)


def _read_shards(place: _Folder | _Hub, index: Path) -> tuple[tuple[Path, ...], Mapping[str, np.ndarray]]:
    """Files and tensors of a sharded checkpoint, all of those that its index names."""
    weight_map = _read_json(index).get("weight_map", {})
    shards = {name: place.find(name) for name in sorted(set(weight_map.values())) if Path(name).name == name}
    missing = [name for name in sorted(set(weight_map.values())) if not shards.get(name)]
    if missing or not weight_map:
        raise WeightsError(f"{index}: {place.absent(', '.join(missing) or 'weight_map')}")
    files = tuple(file for file in shards.values() if file)
    tensors = _Shards([read_tensors(file) for file in files])
    if absent := [f"{name} (in {file})" for name, file in weight_map.items() if name not in tensors]:
        raise WeightsError(f"{index}: tensors that the shards do not hold: {', '.join(absent)}; get the shards again")
    return files, tensors


def _read_json(file: Path) -> dict[str, Any]:
    try:
        return dict(json.loads(file.read_text()))
    except ValueError as error:
        raise WeightsError(f"{file}: no JSON object ({error}); get it again") from error


class _Folder:
    """A checkpoint in a local folder."""

    def __init__(self, path: Path):
        self.path = path

    def find(self, name: str) -> Path | None:
        file = self.path / name
        return file if file.is_file() else None

    def absent(self, names: str) -> str:
        return f"missing: {names}"


class _Hub:
    """A checkpoint in a repository of the Hugging Face hub, or in its local cache."""

    def __init__(self, repository: str, revision: str | None):
        self.repository, self.revision = repository, revision
        self.unreachable = False

    def find(self, name: str) -> Path | None:
        page = f"https://huggingface.co/{self.repository}"
        try:
            # Once the hub has not answered, only the cache is asked: each further try would wait for 20 seconds.
            download = functools.partial(huggingface_hub.hf_hub_download, local_files_only=self.unreachable)
            return Path(download(self.repository, name, revision=self.revision))
        except hub_errors.LocalEntryNotFoundError:
            self.unreachable = True
            return None
        except hub_errors.EntryNotFoundError:
            return None
        except hub_errors.HFValidationError as error:
            raise WeightsError(f"{self.repository}: no such folder or file, and no hub id either") from error
        except hub_errors.RevisionNotFoundError as error:
            raise WeightsError(f"{self.repository}: has no revision {self.revision!r}; see {page}") from error
        except hub_errors.GatedRepoError as error:
            raise WeightsError(
                f"{self.repository}: is gated; accept its terms at {page}, then `hf auth login`"
            ) from error
        except hub_errors.RepositoryNotFoundError as error:
            raise WeightsError(
                f"{self.repository}: neither a folder or file here, nor a repository of the hub that is public or yours"
            ) from error
        except (hub_errors.HfHubHTTPError, OSError) as error:
            raise WeightsError(f"{self.repository}: {name} could not be downloaded: {error}") from error

    def absent(self, names: str) -> str:
        if not self.unreachable:
            return f"missing in the repository: {names}"
        return (
            f"no such folder or file here; on the hub, which cannot be reached or is switched off by HF_HUB_OFFLINE, "
            f"and not in its local cache: {names}. Go online once, or name a local folder"
        )
