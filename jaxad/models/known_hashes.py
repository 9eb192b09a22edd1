"""SHA-256 of published weight files on the Hugging Face hub, as the hub states them, by id and file name.

A file of one of these names that is loaded from one of these repositories must have that hash, unless the user names a
revision (`ID@REVISION`) and with it another file. Only hashes that several independent public sources agree on stand
here; the embedded network's is in `jaxad.models.weights.embedded`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from jaxad.errors import WeightsError
from jaxad.io.digests import digest_once

KNOWN: Mapping[str, Mapping[str, str]] = {
    "stable-diffusion-v1-5/stable-diffusion-v1-5": {
        "unet/diffusion_pytorch_model.safetensors": "19da7aaa4b880e59d56843f1fcb4dd9b599c28a1d9d9af7c1143057c8ffae9f1",
        "vae/diffusion_pytorch_model.safetensors": "a2b5134f4dbc140d9c11f11cba3233099e00af40f262f136c691fb7d38d2194c",
        "text_encoder/model.safetensors": "d008943c017f0092921106440254dbbe00b6a285f7883ec8ba160c3faad88334",
    },
    "openai/clip-vit-large-patch14": {
        "model.safetensors": "a2bf730a0c7debf160f7a6b50b3aaf3703e7e88ac73de7a314903141db026dcb",
    },
    "openai/clip-vit-base-patch32": {
        "pytorch_model.bin": "a63082132ba4f97a80bea76823f544493bffa8082296d62d71581a4feff1576f",
    },
}


def check_published(repository: str, subfolder: str, files: Sequence[Path]) -> None:
    """Compares files from the hub with what is known of them; reads those that are.

    Args:
        repository: hub id.
        subfolder: of the repository, "" for its root.
        files: that were loaded from there.

    Raises:
        WeightsError: a file is not the published one.
    """
    known = KNOWN.get(repository, {})
    for file in files:
        name = f"{subfolder}/{file.name}" if subfolder else file.name
        if name in known and (found := digest_once(file)) != known[name]:
            raise WeightsError(
                f"{file}: SHA-256 {found[:12]}... is not that of the published {name} of {repository}, "
                f"{known[name][:12]}...; delete it and get it again, or name the revision that you mean: "
                f"{repository}@REVISION"
            )
