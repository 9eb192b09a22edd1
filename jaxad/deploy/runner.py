"""Judges images by the exported detector beside this file: prints one line of JSON for each.

    python run.py IMAGE_OR_FOLDER... [--category NAME] [--batch 4] [--maps FOLDER]

It needs numpy and Pillow, and onnxruntime or jax, as detector.json says; nothing else.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps

HERE = Path(__file__).resolve().parent
DETECTOR = "detector.json"
FORMATS = ("PNG", "JPEG", "BMP", "DIB", "TIFF", "WEBP", "GIF", "PPM")
SUFFIXES = {
    *(".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".bmp", ".dib", ".tif", ".tiff", ".webp", ".gif"),
    *(".ppm", ".pgm", ".pbm", ".pnm"),
}
BITS_PER_SAMPLE, SAMPLE_FORMAT, SIGNED = 258, 339, 2
RESAMPLING = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}


class UnusableError(Exception):
    """An image cannot be judged; the message says why."""


def not_of_8_bits(image: Image.Image, path: Path) -> str:
    """What is wrong with the depth of an opened file, "" for nothing: of colors Pillow would keep the high bytes."""
    if image.mode.startswith(("I", "F")):
        return f"of mode {image.mode}"
    if image.format == "PNG":
        with path.open("rb") as stream:
            return "of 16 bits a channel" if stream.read(25)[24:] == b"\x10" else ""
    tags = image.tag_v2 if image.format == "TIFF" else {}  # type: ignore[attr-defined]
    bits, kinds = (np.atleast_1d(tags.get(tag, 1)) for tag in (BITS_PER_SAMPLE, SAMPLE_FORMAT))
    if (bits > 8).any():
        return f"of {bits.max()} bits a channel"
    return "of signed integers" if SIGNED in kinds else ""


def decode(path: Path, least: int = 1) -> np.ndarray:
    """The pixels uint8 [h w 3] of an image file: upright, gray in three channels, what is transparent over black."""
    try:
        with path.open("rb") as stream, Image.open(stream, formats=FORMATS) as opened:
            if fault := not_of_8_bits(opened, path):
                raise UnusableError(f"{path}: {fault}; give an image of 8 bits")
            opened.load()
            image = ImageOps.exif_transpose(opened)
    except UnusableError:
        raise
    except Exception as error:
        raise UnusableError(f"{path}: {error}") from error
    if image.has_transparency_data:
        image = image.convert("LA") if image.mode == "La" else image
        rgba = np.asarray(image.convert("RGBA")).astype(np.uint16)
        pixels = ((rgba[..., :3] * rgba[..., 3:] + 127) // 255).astype(np.uint8)
    else:
        pixels = np.array(image.convert("RGB"))
    if min(pixels.shape[:2]) < least:
        raise UnusableError(f"{path}: its shorter side has fewer than {least} pixels")
    return pixels


def seed_of(pixels: np.ndarray) -> int:
    """The hash from which an image's noise is drawn: the first 4 bytes of BLAKE2b of its shape and pixels."""
    hasher = hashlib.blake2b(np.asarray(pixels.shape, "<u4").tobytes(), digest_size=16)
    hasher.update(np.ascontiguousarray(pixels).tobytes())
    return int.from_bytes(hasher.digest()[:4], "little")


def view_of(pixels: np.ndarray, view: dict) -> np.ndarray:
    """Pixels resized as the detector takes them: uint8 [height width 3]."""
    size = view["width"], view["height"]
    if pixels.shape[:2] == size[::-1]:
        return pixels
    height, width = pixels.shape[:2]
    scale = min(height / size[1], width / size[0])
    left, top = max(width - scale * size[0], 0) / 2, max(height - scale * size[1], 0) / 2
    box = (left, top, width - left, height - top) if view["crop"] else None
    return np.array(Image.fromarray(pixels).resize(size, RESAMPLING[view["interpolation"]], box))


def inputs_of(images: list[np.ndarray], detector: dict, category: str) -> list[np.ndarray]:
    """What the program takes, in its order, of decoded images."""
    number = detector["categories"].index(category) if category in detector["categories"] else -1
    known = {"seed": lambda pixels: np.uint32(seed_of(pixels)), "category": lambda pixels: np.int32(number)}
    found = []
    for one in detector["inputs"]:
        make = known[one["name"]] if one["view"] is None else lambda pixels, view=one["view"]: view_of(pixels, view)
        found.append(np.stack([make(pixels) for pixels in images]))
    return found


def program_of(detector: dict, folder: Path = HERE):
    """The program: inputs -> (scores [b], maps [b s s])."""
    for name, digest in detector["files"].items():
        with (folder / name).open("rb") as stream:
            if hashlib.file_digest(stream, "sha256").hexdigest() != digest:
                raise SystemExit(f"{folder / name}: is not the file that was exported (SHA-256 differs)")
    if detector["format"] == "onnx":
        import onnxruntime

        providers = onnxruntime.get_available_providers()
        session = onnxruntime.InferenceSession(str(folder / "detector.onnx"), providers=providers)
        names = [one["name"] for one in detector["inputs"]]
        return lambda *inputs: session.run(["score", "map"], dict(zip(names, inputs, strict=True)))
    import jax
    from jax import export

    jax.config.update("jax_enable_x64", False)
    # Whatever is not placed elsewhere runs on the first device.
    platform = {"gpu": "cuda"}.get(jax.devices()[0].platform, jax.devices()[0].platform)
    if platform not in detector["platforms"]:
        raise SystemExit(f"exported for {', '.join(detector['platforms'])}, not for {platform}; set JAX_PLATFORMS")
    call = jax.jit(export.deserialize(bytearray((folder / f"detector-{platform}.stablehlo").read_bytes())).call)
    with np.load(folder / "weights.npz") as file:
        arrays = jax.device_put({path: file[path] for path in file.files})
    return lambda *inputs: [np.asarray(array) for array in call(arrays, *inputs)]


def judged(
    files: list[Path], detector: dict, program, category: str, batch: int
) -> Iterator[tuple[Path, Any, Any, Any]]:
    """For each image (file, pixels, score, map), or (file, what is wrong, None, None)."""
    for start in range(0, len(files), batch):
        good = []
        for file in files[start : start + batch]:
            try:
                good.append((file, decode(file, detector["least_side"])))
            except UnusableError as error:
                yield file, str(error), None, None
        if good:
            images = [pixels for _, pixels in good]
            # Filled up, so that one size is compiled.
            images += [images[0]] * (min(batch, len(files)) - len(images))
            scores, maps = program(*inputs_of(images, detector, category))
            for (file, pixels), score, map in zip(good, scores, maps, strict=False):
                yield file, pixels, float(score), map


def line_of(file: Path, pixels: np.ndarray, score: float, map: np.ndarray, detector: dict, category: str) -> dict:
    """A line of the output; `peak` is the hottest place, [x, y] in pixels of the image."""
    limits = (detector["threshold"] or {}).get("limits", {})
    limit = limits.get(category, limits.get("", {})).get("image")
    place = np.array(np.unravel_index(int(map.argmax()), map.shape)) + 0.5
    row, column = (place / map.shape * pixels.shape[:2]).astype(int)
    anomalous = None if limit is None else score > limit
    line = {"file": str(file), "category": category, "score": score, "threshold": limit, "anomalous": anomalous}
    return {**line, "peak": [int(column), int(row)]}


def main(words: list[str] | None = None) -> int:
    """Exit status 0, 1 where images could not be judged, 2 for wrong usage."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("images", nargs="+", type=Path, help="images, or folders of images")
    parser.add_argument("--category", default="", help="which category the images show, for its own threshold")
    parser.add_argument("--batch", type=int, default=4, help="images at once")
    parser.add_argument("--maps", type=Path, help="folder for the anomaly maps, as .npy")
    asked = parser.parse_args(words)
    detector = json.loads((HERE / DETECTOR).read_text())
    categories = detector["categories"]
    if (
        asked.category or "category" in [one["name"] for one in detector["inputs"]]
    ) and asked.category not in categories:
        parser.error(f"--category must be one of {', '.join(categories)}")
    files = []
    for path in asked.images:
        inside = sorted(p for p in path.rglob("*") if p.suffix.lower() in SUFFIXES) if path.is_dir() else [path]
        files += inside
    if asked.maps is not None:
        asked.maps.mkdir(parents=True, exist_ok=True)
    status, program = 0, program_of(detector)
    for number, (file, pixels, score, map) in enumerate(judged(files, detector, program, asked.category, asked.batch)):
        if score is None:
            print(pixels, file=sys.stderr)
            status = 1
            continue
        print(json.dumps(line_of(file, pixels, score, map, detector, asked.category)), flush=True)
        if asked.maps is not None:
            np.save(asked.maps / f"{number:06}-{file.stem}.npy", map)
    return status


if __name__ == "__main__":
    sys.exit(main())
