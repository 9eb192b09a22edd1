"""Every reader of files from anywhere, with small sound files of each of its formats.

A reader takes the path of the damaged file; what it needs besides lies beside it.
"""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import shutil
import tarfile
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import flax.serialization
import numpy as np
import safetensors.numpy
from PIL import Image

from jaxad.data.captions.attach import Captions
from jaxad.data.captions.writing import write_captions
from jaxad.data.decode import decode_image, decode_mask
from jaxad.data.references import listed
from jaxad.errors import DataError
from jaxad.io.digests import write_manifest
from jaxad.io.json_files import read_object
from jaxad.io.npy import map_npy
from jaxad.models.backbone import load_backbone
from jaxad.models.captioner.config import CaptionerConfig
from jaxad.models.captioner.config_files import read_config, with_preprocessor
from jaxad.models.captioner.tokenizer import load_chat_tokenizer
from jaxad.models.clip.config import CLIPConfig, TextConfig
from jaxad.models.clip.loading import load_clip
from jaxad.models.clip.tokenizer import load_tokenizer
from jaxad.models.convnets.efficientnet import EfficientNetConfig
from jaxad.models.convnets.resnet import ResNetConfig
from jaxad.models.stable_diffusion.config import AutoencoderConfig, UNetConfig
from jaxad.models.vit.config import ViTConfig
from jaxad.models.weights.loader import find_weights, read_tensors
from jaxad.nn.normalization import IMAGENET, Normalization
from jaxad.report.comparison.comparison import compare
from jaxad.report.schema import validate_report
from tests.campaigns.list_readers import read_user_list, user_lists
from tests.models.captioner import made_checkpoints as internvl
from tests.models.clip import made_checkpoints as clip
from tests.models.clip.vocabulary import write_tokenizer
from tests.models.stable_diffusion.made_checkpoints import AUTOENCODER, UNET
from tests.models.vit.made_checkpoints import write_dinov2
from tests.models.weights.torch_files import Storage, tensor, tensor_of, write_torch
from tests.report.cases import make_report
from tests.report.comparison.made_reports import write_made
from tests.tfds_builders.real_iad_layout import Writer, write_list
from tests.tfds_builders.test_coco_ad import ELEPHANT, PERSON, Coco, crowd, thing
from tests.tfds_builders.test_visa import HEAD, ROWS
from tfds_builders.archives import extract
from tfds_builders.coco_ad.annotations import read_instances
from tfds_builders.coco_ad.masks import draw_mask
from tfds_builders.real_iad.lists import Rules, samples
from tfds_builders.visa.listing import read_list

ARRAYS = {"conv.weight": np.arange(36, dtype=np.float32).reshape(4, 1, 3, 3), "norm.bias": np.ones(4, np.float16)}


class Reader(NamedTuple):
    """One reader.

    Attributes:
        name: what tables call it.
        seeds: writes sound files into a folder; returns those that are damaged, one at a time.
        read: reads such a file, and looks at all that it holds.
        share: of the files of a campaign, relative to the others; slow readers get fewer.
    """

    name: str
    seeds: Callable[[Path], list[Path]]
    read: Callable[[Path], object]
    share: int = 10


def _weights(file: Path) -> None:
    tensors = read_tensors(file)
    for name in tensors:
        np.array(tensors[name])


def _safetensors(folder: Path) -> list[Path]:
    safetensors.numpy.save_file(ARRAYS, folder / "a.safetensors", metadata={"format": "pt"})
    return [folder / "a.safetensors"]


def _torch(folder: Path) -> list[Path]:
    storage = Storage(np.arange(24, dtype=np.float32))
    views = {"transposed": tensor(storage, 0, (6, 4), (1, 6)), "expanded": tensor(storage, 5, (2, 3), (0, 1))}
    content = {"epoch": 3, "state_dict": {**views, **{name: tensor_of(array) for name, array in ARRAYS.items()}}}
    for legacy in (False, True):
        write_torch(folder / f"{legacy}.pth", content, legacy=legacy)
    return sorted(folder.glob("*.pth"))


def _msgpack(folder: Path) -> list[Path]:
    tree = {"params": {"conv": {"kernel": ARRAYS["conv.weight"]}, "norm": {"scale": np.float32(2)}}}
    (folder / "a.msgpack").write_bytes(flax.serialization.msgpack_serialize(tree))
    chunks = {"0": np.zeros(4, np.float32), "1": np.ones(2, np.float32)}
    chunked = {"a": {"__msgpack_chunked_array__": True, "shape": {"0": 2, "1": 3}, "chunks": chunks}}
    (folder / "b.msgpack").write_bytes(flax.serialization.msgpack_serialize(chunked))
    return [folder / "a.msgpack", folder / "b.msgpack"]


def _shards(folder: Path) -> list[Path]:
    (folder / "config.json").write_text("{}")
    for name, array in ARRAYS.items():
        safetensors.numpy.save_file({name: array}, folder / f"{name}.safetensors")
    index = folder / "model.safetensors.index.json"
    index.write_text(json.dumps({"metadata": {}, "weight_map": {name: f"{name}.safetensors" for name in ARRAYS}}))
    return [index]


def _network(folder: Path) -> list[Path]:
    write_dinov2(folder / "vit")
    clip.write(folder / "clip", clip.draw_clip(), clip.HUGGINGFACE_CONFIG)
    return [folder / "vit/config.json", folder / "vit/model.safetensors", folder / "clip/config.json"]


def _load_network(file: Path) -> None:
    if file.parent.name == "clip":
        load_clip(find_weights(file.parent))
    else:
        load_backbone(str(file.parent))


_CONFIGS = {
    "vit": (
        {"model_type": "dinov2_with_registers", "hidden_size": 24, "num_attention_heads": 3, "mlp_ratio": 4},
        ViTConfig,
    ),
    "clip": (clip.HUGGINGFACE_CONFIG, CLIPConfig),
    "open_clip": (clip.OPEN_CLIP_CONFIG, CLIPConfig),
    "text": ({"model_type": "clip_text_model", "hidden_size": 12, "num_attention_heads": 2}, TextConfig),
    "resnet": (
        {"model_type": "resnet", "embedding_size": 8, "hidden_sizes": [8, 8, 16], "depths": [1, 1, 1]},
        ResNetConfig,
    ),
    "efficientnet": ({"width_coefficient": 0.5, "depth_coefficient": 0.5, "hidden_dim": 640}, EfficientNetConfig),
    "unet": (UNET.to_diffusers(), UNetConfig),
    "vae": (AUTOENCODER.to_diffusers(), AutoencoderConfig),
    "internvl": (internvl.internlm2_config(300), CaptionerConfig),
    "internvl-hf": (
        {
            "model_type": "internvl",
            "vision_config": {**internvl.VISION, "image_size": [28, 28], "use_qk_norm": False},
            "text_config": {"model_type": "qwen2", **internvl.TEXT, "rope_parameters": {"rope_type": "default"}},
        },
        CaptionerConfig,
    ),
    "preprocessor": ({"image_mean": [0.5] * 3, "image_std": [0.5] * 3, "rescale_factor": 1 / 255}, Normalization),
}


def _configs(folder: Path) -> list[Path]:
    for name, (content, _) in _CONFIGS.items():
        (folder / f"{name}.json").write_text(json.dumps(content))
    return sorted(folder.glob("*.json"))


def _read_config(file: Path) -> None:
    content, kind = read_object(file, error=DataError), _CONFIGS[file.stem][1]
    if kind is Normalization:
        Normalization.of(content, content, IMAGENET)
    elif kind is CaptionerConfig:
        with_preprocessor(read_config(content), content)
    elif kind is TextConfig:
        TextConfig.from_huggingface(content, projected=True)
    elif file.stem == "open_clip":
        CLIPConfig.from_open_clip(content)
    else:
        (kind.from_diffusers if hasattr(kind, "from_diffusers") else kind.from_huggingface)(content)


def _tokenizer(folder: Path) -> list[Path]:
    write_tokenizer(folder / "clip")
    for name in ("qwen2", "internlm2"):
        (folder / name).mkdir()
    internvl.write_qwen2_tokenizer(folder / "qwen2")
    internvl.write_internlm2_tokenizer(folder / "internlm2")
    return sorted(folder.glob("*/*"))


def _read_tokenizer(file: Path) -> None:
    (load_tokenizer if file.parent.name == "clip" else load_chat_tokenizer)(file.parent)


def _captions(folder: Path) -> list[Path]:
    ids = ["bottle/train/good/0.png", "bottle/train/good/1.png"]
    whole = write_captions(folder, "a", "vlm", "pd", "train", ids, lambda images: ["one", "two"])
    coco = folder / "captions_train2017.json"
    coco.write_text(json.dumps({"annotations": [{"image_id": 9, "caption": "a"}, {"image_id": "9", "caption": "b"}]}))
    half = folder / "b_captions_vlm_pd" / "train_captions_b_vlm.journal"
    half.parent.mkdir()
    half.write_text('["bottle/train/good/0.png", "one"]\n["bottle/train/good/1.png", "two"]\n')
    return [*sorted(whole.iterdir()), coco, half]


def _read_captions(file: Path) -> None:
    if file.suffix == ".journal":
        before = file.read_bytes()
        ids = ["bottle/train/good/0.png", "bottle/train/good/1.png"]
        try:
            write_captions(file.parents[1], "b", "vlm", "pd", "train", ids, lambda images: ["a text"] * len(images))
        finally:
            shutil.rmtree(file.parent)
            file.parent.mkdir()
            file.write_bytes(before)
    else:
        captions = Captions.load(file if file.name.startswith("captions_") else file.parent)
        captions.check(["bottle/train/good/0.png", "000000000009.jpg"])


def _lists(folder: Path) -> list[Path]:
    writer = Writer(folder / "realiad_1024")
    train, test = writer.normal("jack", 1), [*writer.normal("jack", 2), *writer.defective("jack", "HS", 3)]
    real_iad = write_list(folder / "lists", "jack", train, test)
    visa = folder / "split_csv" / "1cls.csv"
    visa.parent.mkdir()
    visa.write_text(HEAD + ROWS)
    chosen = folder / "chosen" / "bottle" / "selected_samples_per_run.txt"
    chosen.parent.mkdir(parents=True)
    chosen.write_text("0-2: 000 002\n#2: 1, 3\n")
    return [real_iad, visa, chosen]


def _read_list(file: Path) -> None:
    if file.suffix == ".json":
        for sample in samples(file, file.parents[1] / "realiad_1024", "jack", Rules()):
            sample.image.is_file()
    elif file.suffix == ".csv":
        for sample in read_list(file.parents[1]):
            sample.image.is_file()
    else:
        listed(file.parents[1], {"bottle": ["000", "001", "002", "003"]}, 2)


def _coco(folder: Path) -> list[Path]:
    coco = Coco(folder)
    blob = np.zeros((10, 12), np.uint8)
    blob[2:6, 3:8] = 1
    coco.image("val", 139, thing(PERSON), thing(ELEPHANT, crowd(blob, compressed=True)))
    coco.image("val", 724, thing(PERSON, crowd(blob, compressed=False)))
    coco.write()
    return [folder / "annotations" / "instances_val2017.json"]


def _read_coco(file: Path) -> None:
    read_instances(file, segmentations=False)
    for image in read_instances(file, segmentations=True).images:
        picture = file.parents[1] / "val2017" / "000000000139.jpg"
        draw_mask(picture, image.height, image.width, [one.segmentation for one in image.annotations])


def _archives(folder: Path) -> list[Path]:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as packed:
        for name in ("a/one.txt", "a/b/two.bin", "é" * 60 + ".txt"):
            info = tarfile.TarInfo(name)
            info.size = 400
            packed.addfile(info, io.BytesIO(b"abcd" * 100))
    tar = stream.getvalue()
    for end, pack in (("tar", bytes), ("tar.gz", gzip.compress), ("tar.xz", lzma.compress), ("tar.bz2", bz2.compress)):
        (folder / f"data.{end}").write_bytes(pack(tar))
    for name, way in (("stored", zipfile.ZIP_STORED), ("deflated", zipfile.ZIP_DEFLATED)):
        with zipfile.ZipFile(folder / f"{name}.zip", "w", way) as packed:
            packed.writestr("a/one.txt", b"abcd" * 100)
            packed.writestr("a/b/two.bin", b"abcd" * 100)
    return sorted(folder.iterdir())


def _unpack(file: Path) -> None:
    with tempfile.TemporaryDirectory() as scratch:
        extract(file, Path(scratch) / "out")


def _images(folder: Path) -> list[Path]:
    rng = np.random.default_rng(0)
    color = Image.fromarray(rng.integers(0, 256, (17, 23, 3), dtype=np.uint8))
    gray, wide = color.convert("L"), Image.fromarray(rng.integers(0, 65536, (9, 9), dtype=np.uint16))
    pictures = {f"color.{end}": color for end in ("png", "jpg", "bmp", "tif", "ppm", "webp", "gif")}
    pictures |= {"gray.png": gray, "gray.jpg": gray, "wide.png": wide, "wide.tif": wide}
    pictures |= {f"{mode}.png": color.convert(mode) for mode in ("P", "1", "RGBA")}
    pictures |= {"P.bmp": color.convert("P"), "CMYK.jpg": color.convert("CMYK"), "F.tif": color.convert("F")}
    for name, picture in pictures.items():
        picture.save(folder / name)
    color.save(folder / "progressive.jpg", progressive=True, exif=Image.Exif())
    color.save(folder / "packed.tif", compression="tiff_lzw")
    return sorted(folder.iterdir())


def _decode(file: Path) -> None:
    try:
        decode_image(file)
    finally:
        decode_mask(file)


def _npy(folder: Path) -> list[Path]:
    np.save(folder / "0.npy", np.zeros((4, 3, 2), np.float16))
    return [folder / "0.npy"]


def _read_npy(file: Path) -> None:
    np.array(map_npy(file, np.dtype(np.float16), (3, 2), DataError))


def _report(folder: Path) -> list[Path]:
    (folder / "report.json").write_text(json.dumps(make_report()))
    return [folder / "report.json"]


def _prepared(folder: Path) -> list[Path]:
    from jaxad.testing import make_parts
    from tests.data.prepared import prepare

    prepare(make_parts(folder / "parts", ("disc",), train=2, test=1, size=8), folder / "data")
    config = folder / "data" / "own_parts" / "disc" / "1.0.0"
    _read_prepared(config / "features.json")
    return sorted(config.iterdir())


def _read_prepared(file: Path) -> None:
    from jaxad.data import prepared_index
    from jaxad.data.prepared import open_prepared

    prepared_index._builder.cache_clear()
    prepared_index._open.cache_clear()
    index, kept = file.parent / prepared_index.FILE, None
    if index.is_file() and file != index:
        kept = index.read_bytes()
        index.unlink()
    try:
        found = open_prepared("own_parts", file.parents[3], workers=1)
        for source in (found.normal, found.test):
            for number in range(len(source)):
                source[number], source.mask(number)
    finally:
        if kept is not None:
            index.write_bytes(kept)


def _run(folder: Path) -> list[Path]:
    from jaxad.inference.steps import FORMAT, META, open_step

    step = folder / "checkpoints" / "4"
    (step / META).parent.mkdir(parents=True)
    record = {"format": FORMAT, "jaxad": "1", "step": 4, "system": "fit-autoencoder", "config": {"channels": [8, 8]}}
    (step / META).write_text(json.dumps(record))
    (step / "training").mkdir()
    (step / "training" / "0").write_bytes(bytes(range(64)))
    write_manifest(step, [META, "training/0"], step=4)
    holdout = {"protocol": "exact-256", "files": ["a.png"], "scores": [0.5], "peaks": [0.5], "medians": [0.25]}
    open_step(step).end({"value": 0.5, "kind": "false-alarm"}, holdout, 0.01)
    (folder / "config.json").write_text(json.dumps(record))
    (folder / "metrics.csv").write_text("step,seconds,loss\n1,0.5,2.25\n2,0.75,1.5\n")
    (folder / "evaluations-test.csv").write_text(
        "step,seconds,images,of,image_auroc\n0,0.5,4.0,8.0,0.5\n2,0.75,4.0,8.0,\n"
    )
    tables = (folder / "metrics.csv", folder / "evaluations-test.csv")
    return [step / META, step / "manifest.json", step / "complete.json", folder / "config.json", *tables]


def _verify(file: Path) -> None:
    from jaxad.training.verification import verify

    folder = next(path for path in file.parents if (path / "metrics.csv").is_file())
    if damaged := [str(finding) for finding in verify(folder) if finding.damage]:
        raise DataError("; ".join(damaged))


def _reports(folder: Path) -> list[Path]:
    write_made(folder, 1.0)
    return [folder / "report.json", folder / "images.csv"]


def _compare(file: Path) -> None:
    compare([file.parent], metrics=["image_auroc"], resamples=100)


READERS = (
    Reader("safetensors", _safetensors, _weights),
    Reader("torch, zip and legacy", _torch, _weights, 20),
    Reader("Flax msgpack", _msgpack, _weights),
    Reader("index of shards", _shards, lambda file: find_weights(file.parent), 5),
    Reader("config.json and its like", _configs, _read_config, 20),
    Reader("whole networks", _network, _load_network, 1),
    Reader("tokenizer", _tokenizer, _read_tokenizer, 2),
    Reader("captions", _captions, _read_captions),
    Reader("lists of data sets", _lists, _read_list, 5),
    Reader("tables, exports, regions", user_lists, read_user_list, 5),
    Reader("COCO's annotations", _coco, _read_coco),
    Reader("archives", _archives, _unpack),
    Reader("images and masks", _images, _decode, 30),
    Reader("feature caches (.npy)", _npy, _read_npy, 5),
    Reader("what runs leave", _run, _verify),
    Reader("report.json", _report, lambda file: validate_report(read_object(file, error=DataError)), 1),
    Reader("reports to compare", _reports, _compare, 2),
    Reader("prepared data sets", _prepared, _read_prepared, 1),
)
