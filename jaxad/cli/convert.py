"""`jaxad convert`: pretrained weights of any supported format as safetensors."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar, Literal

import tyro

from jaxad.cli._command import Command
from jaxad.cli._printing import show


@dataclass(frozen=True)
class Convert(Command):
    """Rewrite pretrained weights of any supported format as safetensors, with a manifest of where they came from."""

    words: ClassVar[str] = "convert"

    source: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="SOURCE")]
    """Weight file (.safetensors, .msgpack, .pth, .pt, .ckpt, .bin), folder, or id on the Hugging Face hub."""
    destination: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="DESTINATION")]
    """Folder to write."""
    dtype: Literal["keep", "float32", "float16", "bfloat16"] = "keep"
    """Type of all floating-point tensors."""
    license: str | None = None
    """Name of the license; read from the source's model card or LICENSE if not given."""
    revision: str | None = None
    """Branch, tag or commit on the hub."""
    subfolder: str = ""
    """Folder within the source, such as `unet` in those of Stable Diffusion."""
    overwrite: bool = False
    """Replace a folder that convert has written before."""

    def run(self) -> None:
        """Converts."""
        from jaxad.io.progress import Reporter
        from jaxad.io.text import visible
        from jaxad.models.weights import conversion

        manifest = conversion.convert(
            self.source,
            self.destination,
            revision=self.revision,
            subfolder=self.subfolder,
            dtype=self.dtype,
            license=self.license,
            overwrite=self.overwrite,
        )
        if manifest["license"] is None:
            Reporter().warn(["the source states no license; --license NAME records it in the manifest"])
        kinds = ", ".join(f"{count} {dtype}" for dtype, count in manifest["dtypes"].items())
        show(f"{visible(self.destination)}: {manifest['tensors']} tensors ({kinds}), {manifest['bytes'] / 1e6:.1f} MB")
