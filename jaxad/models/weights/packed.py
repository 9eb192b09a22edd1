"""A checkpoint that is published inside a zip archive, as latent diffusion's kl-f8.zip holds model.ckpt."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from jaxad.errors import WeightsError
from jaxad.io.atomic import write_whole
from jaxad.io.digests import digest_once
from jaxad.io.places import cache_folder
from jaxad.io.untrusted import beginning_of, reading
from jaxad.models.weights.mapped_file import damage
from jaxad.models.weights.torch_pickle import ZIP, open_zip

ENDS = (".ckpt", ".pth", ".pt", ".bin", ".safetensors")
_CHUNK = 1 << 24
_DENSEST = 20
"""How many times its packed size a member may unpack to; weights are noise, and hardly shrink."""


def unpacked(file: Path) -> Path:
    """The file itself, or what it packs where it is a zip archive around one checkpoint and not a file of torch.save.

    The checkpoint is unpacked once into jaxad's folder in the user's cache, under the archive's SHA-256, because
    weights are mapped into memory, which what is packed cannot be.

    Raises:
        WeightsError: several checkpoints are packed, or a damaged one.
    """
    if beginning_of(file, len(ZIP), damage(file, "weight")) != ZIP:
        return file
    with reading(damage(file, "zip")), file.open("rb") as stream, open_zip(stream) as archive:
        members = [entry for entry in archive.infolist() if not entry.is_dir()]
        # What torch.save writes is a zip archive, too.
        if any(PurePosixPath(entry.filename).name == "data.pkl" for entry in members):
            return file
        packed = [entry for entry in members if entry.filename.endswith(ENDS)]
        if len(packed) > 1:
            raise WeightsError(f"{file}: packs {', '.join(e.filename for e in packed)}; unpack it and give one of them")
        if not packed:
            return file
        (entry,) = packed
        if entry.file_size > _DENSEST * max(entry.compress_size, 1):
            raise WeightsError(f"{file}: {entry.filename} would unpack to {entry.file_size:,} bytes; no weights do so")
        place = cache_folder() / "unpacked" / digest_once(file) / PurePosixPath(entry.filename).name
        if not (place.is_file() and place.stat().st_size == entry.file_size):
            write_whole(place, _chunks(archive, entry))
    return place


def _chunks(archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> Iterator[bytes]:
    """The member in pieces; zipfile compares its sum at the end."""
    with archive.open(entry) as stream:
        while chunk := stream.read(_CHUNK):
            yield chunk
