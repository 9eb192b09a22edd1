"""What users of VLMDiff's published code have on their disks, in miniature.

Folders, names, lists, captions and checkpoints are those that the data sets' and VLMDiff's authors publish, or that
their commands leave; only images are few and networks small.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from jaxad.models.convnets.lpips import LINEARS, abstract_lpips
from jaxad.models.convnets.patch_discriminator import key_map, new_discriminator
from jaxad.models.convnets.vgg import key_maps
from jaxad.models.stable_diffusion.autoencoder_kl import abstract_autoencoder
from jaxad.models.stable_diffusion.checkpoints import autoencoder_key_maps
from jaxad.models.stable_diffusion.config import AutoencoderConfig
from jaxad.models.weights.key_map import to_torch
from tests.detectors.vlmdiff.made_checkpoints import networks_of, state_dict, write
from tests.models.stable_diffusion.made_checkpoints import randomized
from tests.models.weights.torch_files import tensor_of, write_torch
from tests.tfds_builders.real_iad_layout import Writer, write_list

ELSEWHERE = "/mnt/isilon/projects/shared_datasets"
"""Where the authors had the data."""

MVTEC_TRAIN = {
    "zipper": (2, 145, 119, 40, 67, 39, 178, 155, 213),
    "bottle": (2, 145, 119, 40, 67, 39, 178, 155, 77),
    "screw": (2, 296, 259, 145, 119, 40, 279, 67, 39),
}
"""Categories and images in the order of the authors' list of training images, which is shuffled."""
MVTEC_TEST = {
    "bottle/broken_large": (2, 9),
    "bottle/broken_small": (2, 20),
    "bottle/good": (2, 9, 17),
    "screw/good": (2, 40, 39),
    "screw/thread_top": (2, 20),
    "zipper/fabric_border": (2, 9),
    "zipper/good": (2, 20, 9),
}
"""Likewise of test images."""
UNLISTED = "screw/train/good/232.png"
"""The image of the official data set that the authors' list lacks."""

FACTOR = AutoencoderConfig(block_out_channels=(32, 32, 32, 32), layers_per_block=1)
"""Of the factor 8, as kl-f8 is."""


def mvtec_list(split: str) -> list[str]:
    """The images of MVTec-AD in the order of the authors' lists."""
    chosen = MVTEC_TEST if split == "test" else {f"{name}/good": images for name, images in MVTEC_TRAIN.items()}
    parts = ([*place.split("/"), numbers] for place, numbers in chosen.items())
    return [f"{name}/{split}/{kind}/{number:03d}.png" for name, kind, numbers in parts for number in numbers]


def write_mvtec(folder: Path) -> Path:
    """MVTec-AD as it is unpacked: zippers and screws in gray, masks beside the test images."""
    root, rng = folder / "mvtec_anomaly_detection", np.random.default_rng(0)
    for image in [*mvtec_list("train"), UNLISTED, *mvtec_list("test")]:
        name, split, kind, file = image.split("/")
        _save(root / image, rng.integers(0, 256, (40, 40) if name in ("zipper", "screw") else (40, 40, 3)))
        if split == "test" and kind != "good":
            mask = np.zeros((40, 40))
            mask[8:20, 10:30] = 255
            _save(root / name / "ground_truth" / kind / file.replace(".png", "_mask.png"), mask)
    for file in ("license.txt", "readme.txt"):
        (root / file).write_text("as published")
    return root


def write_real_iad(folder: Path) -> tuple[Path, dict[str, list[str]]]:
    """Real-IAD as VLMDiff's README has it, `real_iad/CATEGORY` and `real_iad_jsons/CATEGORY.json`; images by split."""
    writer = Writer(folder / "real_iad")
    images: dict[str, list[str]] = {"train": [], "test": []}
    for name, code in (("audiojack", "BX"), ("bottle_cap", "AK")):
        entries = {
            "train": [entry for number in (1, 2) for entry in writer.normal(name, number)],
            "test": [*writer.normal(name, 3), *writer.defective(name, code, 1)],
        }
        write_list(folder / "real_iad_jsons", name, **entries)
        for split, found in entries.items():
            images[split] += [f"{name}/{entry['image_path']}" for entry in found]
    return folder, images


def caption_of(image: str) -> str:
    """What the captions say of an image."""
    return f"The image shows a {image.split('/')[0]} with the number {Path(image).stem}."


def write_captions(
    folder: Path,
    dataset: str,
    images: dict[str, Sequence[str]],
    *,
    root: str = "",
    cuts: Sequence[tuple[int, int]] = ((0, 10000),),
) -> Path:
    """What the authors' captioner leaves, called once for each of `cuts` (its --start_ind and --end_ind).

    Each call writes its part of the training images, and all test images, under names of that part.

    Args:
        folder: of the data.
        dataset: as --data_set names it.
        images: by split, in the order of the authors' loader.
        root: what stands before them in the labels.
        cuts: first image, and the one behind the last.
    """
    out = folder / f"{dataset}_captions_internvl_pd"
    out.mkdir(parents=True)
    for start, end in cuts:
        for split, every in images.items():
            described = every if split == "test" else every[start:end]
            contents = {"captions": [*map(caption_of, described)], "labels": [f"{root}{image}" for image in described]}
            for kind, content in contents.items():
                (out / f"{split}_{kind}_{dataset}_internvl_{start}_{end}.json").write_text(json.dumps(content))
    return out


def write_kl_f8(folder: Path) -> Path:
    """kl-f8.zip: model.ckpt as Lightning saves a training, with the LPIPS and the discriminator of that training."""
    return _zipped(folder / "kl-f8.zip", lambda file: write(file, first_stage(1)))


def write_first_stage(file: Path) -> Path:
    """A first stage as the authors' finetuning leaves it, such as their fs_realiad.ckpt."""
    file.parent.mkdir(parents=True, exist_ok=True)
    return write(file, first_stage(2))


def first_stage(seed: int) -> dict[str, np.ndarray]:
    """Tensors of an autoencoder and of all that its training took."""
    tensors = to_torch(randomized(abstract_autoencoder(FACTOR), seed), autoencoder_key_maps(FACTOR)["ldm"])
    lpips = randomized(abstract_lpips((2, 3, 4, 5, 6)), seed)
    perceptual = to_torch(lpips.vgg, key_maps()["lpips"]) | to_torch(lpips.linears, LINEARS)
    perceptual |= {f"scaling_layer.{name}": np.ones((1, 3, 1, 1), np.float32) for name in ("shift", "scale")}
    tensors |= {f"loss.perceptual_loss.{name}": tensor for name, tensor in perceptual.items()}
    judge = to_torch(new_discriminator(seed, width=2), key_map(3))
    for place, width in ((3, 4), (6, 8), (9, 16)):
        judge |= {f"main.{place}.{name}": np.ones(width, np.float32) for name in ("running_mean", "running_var")}
        judge[f"main.{place}.num_batches_tracked"] = np.array(7)
    tensors |= {f"loss.discriminator.{name}": tensor for name, tensor in judge.items()}
    return {**tensors, "loss.logvar": np.zeros((), np.float32)}


def write_stable_diffusion(file: Path) -> Path:
    """v1-5-pruned.ckpt, which has the UNet twice: as trained, and its moving average."""
    return write(file, {name: x for name, x in built().items() if not name.startswith("control_model.")})


def write_built(file: Path) -> Path:
    """What the authors' build_model.py makes of Stable Diffusion and a first stage: bare tensors."""
    tensors = {name: tensor for name, tensor in built().items() if not name.startswith("model_ema.")}
    write_torch(file, {name: tensor_of(np.ascontiguousarray(tensor)) for name, tensor in tensors.items()})
    return file


def built() -> dict[str, np.ndarray]:
    """Tensors of all networks."""
    tensors = state_dict(networks_of(FACTOR))
    average = {
        f"model_ema.{name.removeprefix('model.').replace('.', '')}": tensor + 1
        for name, tensor in tensors.items()
        if name.startswith("model.diffusion_model.")
    }
    return {**tensors, **average, "model_ema.decay": np.array(0.9999), "model_ema.num_updates": np.array(7)}


def _zipped(file: Path, write: Callable[[Path], Path]) -> Path:
    inner = write(file.with_name("model.ckpt"))
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.write(inner, inner.name)
    inner.unlink()
    return file


def _save(file: Path, pixels: np.ndarray) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels.astype(np.uint8)).save(file)


def rows(file: Path) -> Iterator[dict[str, Any]]:
    """Lines of JSON."""
    return map(json.loads, file.read_text().splitlines())
