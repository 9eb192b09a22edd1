"""Any supported weights as a folder of safetensors with a manifest of what they are and where they came from."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import jax.numpy as jnp
import numpy as np

from jaxad import __version__
from jaxad.errors import WeightsError
from jaxad.io.digests import digest
from jaxad.io.places import expanded
from jaxad.models.weights.loader import find_weights
from jaxad.models.weights.mapped_file import DTYPES, RenamedTensors
from jaxad.models.weights.place import Place, open_place
from jaxad.models.weights.safetensors_file import write_safetensors

MANIFEST = "manifest.json"
SHARD_BYTES = 5_000_000_000
"""Largest size of one weight file; the hub's own limit for shards."""

CastTo = Literal["keep", "float32", "float16", "bfloat16"]


def convert(
    source: str | Path,
    destination: Path,
    *,
    revision: str | None = None,
    subfolder: str = "",
    dtype: CastTo = "keep",
    license: str | None = None,
    overwrite: bool = False,
    shard_bytes: int = SHARD_BYTES,
) -> dict[str, Any]:
    """Write weights as `model.safetensors`, or shards of it with their index, and manifest.json.

    Names and layouts are those of torch; config.json and preprocessor_config.json are copied. The folder appears when
    it is complete, or not at all.

    Args:
        source: file, folder or hub id, as for `find_weights`.
        destination: folder to write.
        revision: branch, tag or commit on the hub.
        subfolder: folder within the source.
        dtype: type of all floating-point tensors; others stay as they are.
        license: name of the license; None to read it from the source's model card or LICENSE.
        overwrite: whether to replace a folder that `convert` has written before.
        shard_bytes: largest size of one weight file.

    Returns:
        The manifest: `source`, `license`, `tensors` and `bytes` (count and size of the tensors), `dtypes`, `files`.

    Raises:
        WeightsError: no such weights, values too large for `dtype`, or a destination that must not be overwritten.
    """
    _check_destination(source, destination, overwrite)
    weights = find_weights(source, revision, subfolder)
    kinds = {name: tensor.dtype for name, tensor in weights.tensors.items()}
    floats = {name for name, kind in kinds.items() if jnp.issubdtype(kind, jnp.floating)}
    dtypes = {name: kind.name if dtype == "keep" or name not in floats else dtype for name, kind in kinds.items()}
    sizes = {name: weights.tensors[name].size * DTYPES[dtypes[name]].itemsize for name in dtypes}

    partial = destination.parent / f".{destination.name}.partial-{os.getpid()}"
    partial.mkdir(parents=True)
    try:
        files = _write_tensors(partial, weights.tensors, dtypes, _shards(sizes, shard_bytes))
        for file in weights.described_in:
            shutil.copyfile(file, partial / file.name)
        manifest = {
            "jaxad": __version__,
            "source": {
                "id": str(source),
                "revision": revision,
                "subfolder": subfolder,
                "files": [_described(file) for file in weights.files],
            },
            "license": license or _license(source, revision),
            "tensors": len(sizes),
            "bytes": sum(sizes.values()),
            "dtypes": {name: list(dtypes.values()).count(name) for name in sorted(set(dtypes.values()))},
            "files": [_described(file) for file in files],
        }
        (partial / MANIFEST).write_text(json.dumps(manifest, indent=2) + "\n")
        _put_in_place(partial, destination)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return manifest


def _check_destination(source: str | Path, destination: Path, overwrite: bool) -> None:
    if not destination.exists() and not destination.is_symlink():
        return
    if not overwrite:
        raise WeightsError(f"{destination}: exists; name another destination, or set overwrite")
    if not (destination / MANIFEST).is_file() or destination.is_symlink():
        raise WeightsError(f"{destination}: is no folder that convert has written (no {MANIFEST}), so it stays")
    if expanded(source).resolve().is_relative_to(destination.resolve()):
        raise WeightsError(f"{destination}: holds the source {source}; name another folder")


def _shards(sizes: Mapping[str, int], largest: int) -> list[list[str]]:
    """Names in the order of the file, cut where a shard would grow above `largest` bytes."""
    shards, filled = [[]], 0
    for name, size in sizes.items():
        if filled + size > largest and shards[-1]:
            shards.append([])
            filled = 0
        shards[-1].append(name)
        filled += size
    return shards


def _write_tensors(
    folder: Path, tensors: Mapping[str, np.ndarray], dtypes: Mapping[str, str], shards: list[list[str]]
) -> list[Path]:
    """Write the shards, with an index where there are several; returns the weight files."""
    count = len(shards)
    names = (
        ["model.safetensors"] if count == 1 else [f"model-{i + 1:05}-of-{count:05}.safetensors" for i in range(count)]
    )
    for name, shard in zip(names, shards, strict=True):
        write_safetensors(folder / name, RenamedTensors(tensors, {tensor: tensor for tensor in shard}), dtypes)
    if count > 1:
        weight_map = {tensor: name for name, shard in zip(names, shards, strict=True) for tensor in shard}
        index = {"metadata": {"format": "pt"}, "weight_map": weight_map}
        (folder / "model.safetensors.index.json").write_text(json.dumps(index, indent=2) + "\n")
    return [folder / name for name in names]


def _described(file: Path) -> dict[str, Any]:
    return {"name": file.name, "sha256": digest(file), "bytes": file.stat().st_size}


def _license(source: str | Path, revision: str | None) -> str | None:
    """The license that the model card states, else the first line of LICENSE, else None; a lone file has neither."""
    if expanded(source).is_file():
        return None
    place: Place = open_place(source, revision)
    card, text = place.find("README.md"), place.find("LICENSE")
    if card:
        content = _beginning(card)
        front = content.split("---")[1] if content.startswith("---") else ""
        stated = dict(re.findall(r"^(license|license_name): *[\"']?([\w.+-]+)", front, re.MULTILINE))
        if stated:
            return stated.get("license_name") or stated["license"]
    lines = _beginning(text).split("\n") if text else []
    return next((line.strip() for line in lines if line.strip()), None)


def _beginning(file: Path) -> str:
    """The first part of a text, with more in it than a model card's head; "" of what cannot be read."""
    try:
        with file.open(encoding="utf-8", errors="replace") as stream:
            return stream.read(1 << 16)
    except OSError:
        return ""


def _put_in_place(partial: Path, destination: Path) -> None:
    old = partial.with_name(f"{partial.name}-old")
    if destination.exists():
        destination.rename(old)
    partial.rename(destination)
    shutil.rmtree(old, ignore_errors=True)
