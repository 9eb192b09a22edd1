"""COCO-AD from COCO 2017 in its official layout, listed and prepared."""

import json
import pickle
import shutil
import sys
import zipfile
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_mask

from jaxad.data.decode import decode_image, decode_mask
from jaxad.errors import ConfigError, DataError
from tfds_builders.coco_ad import annotations
from tfds_builders.coco_ad.annotations import CATEGORY_IDS, read_instances
from tfds_builders.coco_ad.listing import BENCHMARK, COUNTS, list_samples

HEIGHT, WIDTH = 10, 12
PERSON, ELEPHANT, FORK, BOOK = 1, 22, 48, 84
"""COCO numbers of a category of each split."""
SQUARE = [[1.9, 2.9, 5.9, 2.9, 5.9, 6.9, 1.9, 6.9]]


class Coco:
    """Writes a miniature COCO 2017."""

    def __init__(self, root: Path):
        self.root = root
        self._parts = {part: {"images": [], "annotations": []} for part in ("train", "val")}
        self.categories = [{"supercategory": "thing", "id": number, "name": f"c{number}"} for number in CATEGORY_IDS]

    def image(self, part: str, number: int, *objects: dict, height: int = HEIGHT) -> Path:
        file = self.root / f"{part}2017" / f"{number:012d}.jpg"
        file.parent.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(number).integers(0, 256, (height, WIDTH, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(file)
        content = self._parts[part]
        content["images"].append(
            {"license": 4, "file_name": file.name, "height": height, "width": WIDTH, "id": number, "flickr_url": ""}
        )
        for entry in objects:
            content["annotations"].append({"image_id": number, "id": len(content["annotations"]), **entry})
        return file

    def write(self) -> Path:
        for part, content in self._parts.items():
            file = self.root / "annotations" / f"instances_{part}2017.json"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(json.dumps({"info": {}, "licenses": [], **content, "categories": self.categories}))
        return self.root


def thing(category: int, segmentation: object = SQUARE, **more) -> dict:
    return {
        "category_id": category,
        "segmentation": segmentation,
        "iscrowd": 0,
        "area": 1.0,
        "bbox": [0, 0, 1, 1],
        **more,
    }


def crowd(pixels: np.ndarray, *, compressed: bool) -> dict:
    """Run-length encoding as COCO stores it: column by column."""
    if compressed:
        encoded = coco_mask.encode(np.asfortranarray(pixels.astype(np.uint8)))
        return {"size": list(encoded["size"]), "counts": encoded["counts"].decode()}
    columns = pixels.T.ravel()
    edges = np.flatnonzero(np.diff(columns, prepend=0, append=-1))
    counts = np.diff(np.concatenate([[0], edges]))
    return {"size": list(pixels.shape), "counts": counts.tolist()}


@pytest.fixture
def coco(tmp_path) -> Coco:
    """Images with and without objects of each split."""
    coco = Coco(tmp_path / "COCO")
    coco.image("train", 9, thing(ELEPHANT), thing(FORK))
    coco.image("train", 25, thing(PERSON))
    coco.image("train", 30)
    coco.image("train", 34, thing(BOOK, crowd(np.eye(HEIGHT, WIDTH), compressed=False), iscrowd=1))
    coco.image("val", 139, thing(PERSON), thing(BOOK))
    coco.image("val", 285, thing(FORK))
    coco.image("val", 632)
    coco.image("val", 724, thing(ELEPHANT, crowd(np.eye(HEIGHT, WIDTH), compressed=True), iscrowd=1))
    return coco


def listed(root: Path, split: str) -> dict[str, tuple[str, int, str]]:
    samples = list_samples(root, "coco", split=split)
    return {sample.image_id: (sample.split, sample.label, sample.defect) for sample in samples}


def test_four_splits(coco):
    root = coco.write()
    train = {number: f"train2017/{number:012d}.jpg" for number in (9, 25, 34)}
    val = {number: f"val2017/{number:012d}.jpg" for number in (139, 285, 724)}
    for split, normal, defects in (
        ("split_0", (9, 34), {139: "c1"}),
        ("split_1", (25, 34), {724: "c22"}),
        ("split_2", (25, 34), {285: "c48"}),
        ("split_3", (9, 25), {139: "c84"}),
    ):
        expected = {train[number]: ("train", 0, "good") for number in normal}
        for number, image in val.items():
            expected[image] = ("test", int(number in defects), defects.get(number, "good"))
        assert listed(root, split) == expected


def test_samples(coco):
    root = coco.write()
    samples = list(list_samples(root, "coco", split="split_0"))
    assert all(sample.image == root / sample.image_id and sample.image.is_file() for sample in samples)
    assert {(sample.category, sample.view, sample.object_id) for sample in samples} == {("coco", 0, "")}
    assert [sample.label for sample in samples if sample.mask is not None] == [1]


def drawn(root: Path, split: str) -> np.ndarray:
    (sample,) = (sample for sample in list_samples(root, "coco", split=split) if sample.label)
    # Masks are drawn in worker processes.
    return decode_mask(pickle.loads(pickle.dumps(sample.mask))())


def test_polygons_are_truncated_and_filled_with_their_outline(coco):
    expected = np.zeros((HEIGHT, WIDTH), bool)
    expected[2:7, 1:6] = True
    np.testing.assert_array_equal(drawn(coco.write(), "split_0"), expected)


def test_a_mask_shows_the_anomalous_objects_alone(coco):
    triangle = [8, 0, 11, 0, 11, 3]
    coco.image(
        "val",
        900,
        thing(2, [*SQUARE, triangle]),
        thing(ELEPHANT, [[0, 0, 11, 0, 11, 9]]),
        thing(5, [[7, 8, 9, 8, 9, 9]]),
    )
    (sample,) = (s for s in list_samples(coco.write(), "coco", split="split_0") if s.image_id.endswith("900.jpg"))
    assert sample.defect == "c2, c5"
    expected = np.zeros((HEIGHT, WIDTH), bool)
    expected[2:7, 1:6] = True
    for row in range(4):
        expected[row, 8 + row : 12] = True
    expected[8, 7:10] = True
    expected[9, 8:10] = True
    found = decode_mask(sample.mask())
    # A slanted edge takes the pixels nearest to it; OpenCV's choice between two may change.
    expected[9, 8] = found[9, 8]
    np.testing.assert_array_equal(found, expected)
    assert np.unique(np.asarray(Image.open(BytesIO(sample.mask())))).tolist() == [0, 255]


@pytest.mark.parametrize("compressed", [False, True])
def test_run_lengths(coco, compressed):
    pixels = np.random.default_rng(0).random((HEIGHT, WIDTH)) < 0.4
    pixels[0, 0] = compressed
    coco._parts["val"] = {"images": [], "annotations": []}
    coco.image("val", 7, thing(FORK, crowd(pixels, compressed=compressed), iscrowd=1))
    np.testing.assert_array_equal(drawn(coco.write(), "split_2"), pixels)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_masks_turn_with_their_images(coco, orientation):
    root = coco.write()
    file = root / "val2017" / "000000000139.jpg"
    exif = Image.Exif()
    exif[0x0112] = orientation
    # An image that is its own mask, brighter than 128 on the object.
    expected = np.zeros((HEIGHT, WIDTH), np.uint8)
    expected[2:7, 1:6] = 255
    Image.fromarray(expected).save(file.with_suffix(".png"), exif=exif)
    file.with_suffix(".png").rename(file)
    np.testing.assert_array_equal(drawn(root, "split_0"), decode_image(file)[..., 0] > 128)


def test_each_file_is_parsed_once(coco, monkeypatch):
    root = coco.write()
    first = read_instances(root / "annotations" / "instances_val2017.json", segmentations=True)
    monkeypatch.setattr("tfds_builders.coco_ad.annotations.read_json", None)
    assert read_instances(root / "annotations" / "instances_val2017.json", segmentations=True) is first
    monkeypatch.undo()
    coco.image("val", 1000, thing(FORK))
    coco.write()
    assert len(read_instances(root / "annotations" / "instances_val2017.json", segmentations=True).images) == 4


def wrong(coco: Coco, part: str = "val") -> list[str]:
    """What is wrong with the annotations of one part."""
    file = coco.write() / "annotations" / f"instances_{part}2017.json"
    with pytest.raises(DataError) as caught:
        list(list_samples(coco.root, "coco", split="split_0"))
    return [problem.detail for problem in caught.value.problems if problem.file == str(file)]


def test_every_wrong_entry_is_listed(coco):
    coco.image("val", 139)
    coco.image("val", 1, height=4)
    images, annotations = coco._parts["val"]["images"], coco._parts["val"]["annotations"]
    images[3]["file_name"] = "../000000000724.jpg"
    del images[5]["width"]
    annotations[0]["category_id"] = 12
    annotations[1]["image_id"] = 140
    annotations[2]["segmentation"] = [[1, 2, 3, 4, 5], SQUARE[0], [1, 2, 3, 4, 5, "6"]]
    annotations[3]["segmentation"]["size"] = [WIDTH, HEIGHT]
    annotations += [
        {"image_id": 139, "category_id": PERSON, "segmentation": "none"},
        {"image_id": 139, "segmentation": []},
        {"image_id": 139, "category_id": PERSON, "segmentation": {"size": [HEIGHT, WIDTH], "counts": [119]}},
    ]
    assert wrong(coco) == [
        "images[3].file_name: '../000000000724.jpg' is no plain file name",
        "images[4].id: 139 is there twice",
        "images[5].width: is missing",
        "annotations[0].category_id: 12 is none of COCO's 80 categories",
        "annotations[1].image_id: 140 is no sound image of the file",
        "annotations[2].segmentation[0]: must be a list of three points or more, x and y of each",
        "annotations[2].segmentation[2]: holds what is no number",
        "annotations[3].segmentation.size: [12, 10], its image [10, 12] (height, width)",
        "annotations[4].segmentation: must be an object, is a text",
        "annotations[5].category_id: is missing",
        "annotations[6].segmentation.counts: needs whole numbers whose sum is 120",
    ]


@pytest.mark.parametrize("part", ["train", "val"])
def test_other_categories(coco, part):
    coco.categories[0]["id"] = 91
    assert wrong(coco, part) == [
        "categories: lack COCO's numbers 1",
        "categories: hold numbers that are not COCO's: 91",
    ]


def test_both_files_are_read_before_anything_is_stored(coco):
    annotations = coco.write() / "annotations"
    (annotations / "instances_train2017.json").write_text('{"images": [')
    (annotations / "instances_val2017.json").unlink()
    with pytest.raises(DataError) as caught:
        next(iter(list_samples(coco.root, "coco", split="split_0")))
    assert [problem.kind for problem in caught.value.problems] == ["damaged JSON", "unreadable JSON"]
    assert not BENCHMARK.is_root(coco.root)


def test_without_pycocotools(coco, monkeypatch):
    monkeypatch.setitem(sys.modules, "pycocotools", None)
    with pytest.raises(ConfigError, match=r"pip install 'jaxad\[coco\]'"):
        next(iter(list_samples(coco.write(), "coco", split="split_0")))


def test_what_it_says_of_itself(coco):
    ids = [
        *range(1, 12),
        *range(13, 26),
        27,
        28,
        *range(31, 45),
        *range(46, 66),
        67,
        70,
        *range(72, 83),
        *range(84, 91),
    ]
    assert list(CATEGORY_IDS) == ids
    assert [CATEGORY_IDS[20 * k] for k in range(4)] == [1, 22, 46, 67]
    assert [CATEGORY_IDS[20 * k + 19] for k in range(4)] == [21, 44, 65, 90]
    # Every split tests the 4,952 annotated images of val2017.
    for split, counts in COUNTS.items():
        assert counts["test", 0] + counts["test", 1] == 4_952
        assert BENCHMARK.counts("coco", split=split) is counts
    assert BENCHMARK.is_root(coco.write())
    assert BENCHMARK.choose({"split": "split_2"}) == {"split": "split_2"}


def test_prepared_and_read_back(coco, tmp_path, jaxad, stored):
    root = coco.write()
    captions = root / "annotations" / "captions_train2017_internvl.json"
    entries = [{"image_id": str(image), "caption": f"image {image}"} for image in (9, 25, 34)]
    captions.write_text(json.dumps({"annotations": entries}))
    captions.with_name("captions_val2017_internvl.json").write_text(
        json.dumps({"annotations": [{"id": 0, "image_id": image, "caption": "a"} for image in (139, 285, 632, 724)]})
    )
    for split in ("split_0", "split_2"):
        jaxad("coco_ad", "--source", root, "--options", f"split={split}", "--partial", "--captions", captions)
        examples = stored("coco_ad", "coco", split=split)
        samples = list(list_samples(root, "coco", split=split))
        assert {key: (e["split"], e["label"], e["defect"]) for key, e in examples.items()} == listed(root, split)
        for sample, example in zip(samples, examples.values(), strict=True):
            assert example["image"] == sample.image.read_bytes()
            mask = decode_mask(example["mask"])
            if sample.mask is None:
                assert mask.shape == (HEIGHT, WIDTH)
                assert not mask.any()
            else:
                np.testing.assert_array_equal(mask, drawn(root, split))
        assert [e["caption"] for e in examples.values() if e["split"] == "train"] == {
            "split_0": ["image 9", "image 34"],
            "split_2": ["image 25", "image 34"],
        }[split]
        assert [e["caption"] for e in examples.values() if e["split"] == "test"] == ["a"] * 3


def test_archives(coco, tmp_path, jaxad, stored):
    root = coco.write()
    images = {path.name: path.read_bytes() for path in root.rglob("*.jpg")}
    for folder in ("train2017", "val2017", "annotations"):
        name = "annotations_trainval2017.zip" if folder == "annotations" else f"{folder}.zip"
        with zipfile.ZipFile(root / name, "w") as archive:
            for file in sorted((root / folder).iterdir()):
                archive.write(file, file.relative_to(root))
        shutil.rmtree(root / folder)
    jaxad("coco_ad", "--source", root, "--partial")
    examples = stored("coco_ad", "coco")
    assert {Path(key).name: e["image"] for key, e in examples.items()} == {
        name: content for name, content in images.items() if int(Path(name).stem) not in (25, 30, 632)
    }
    assert [decode_mask(e["mask"]).any() for e in examples.values()] == [bool(e["label"]) for e in examples.values()]


def test_official_numbers_are_asked_for(coco, jaxad):
    with pytest.raises(DataError, match="train normal: 2 images, official 30438"):
        jaxad("coco_ad", "--source", coco.write())


def test_numbers_that_no_image_can_have(coco):
    """The codec writes beyond its memory where run lengths are not those of the image."""
    pixels = np.eye(HEIGHT, WIDTH)
    sound = crowd(pixels, compressed=True)["counts"]
    texts = [sound[:-1], sound + "1", sound.replace(sound[0], "z", 1), "", "\u00ff", "oooooooooooooooo", "0" * 5]
    for text in texts:
        coco.image("val", 200 + len(text), thing(PERSON, {"size": [HEIGHT, WIDTH], "counts": text}))
    for number in (1e9, -1e9, float("inf"), float("nan")):
        coco._parts["val"]["annotations"].append(
            {"image_id": 201, "category_id": PERSON, "segmentation": [[1, 1, 5, 5, number, 5]]}
        )
    details = wrong(coco)
    assert sum("counts" in detail for detail in details) == len(texts)
    assert sum("segmentation[0]: has a point more than" in detail for detail in details) == 4
    coco._parts["val"]["images"][0]["height"] = 1 << 30
    assert any("a size of 12 x 1073741824" in detail for detail in wrong(coco))


@pytest.mark.parametrize("seed", range(4))
def test_sound_run_lengths_are_sound(seed):
    rng = np.random.default_rng(seed)
    for _ in range(20):
        pixels = rng.random(rng.integers(1, 60, 2)) < rng.random()
        text = crowd(pixels, compressed=True)["counts"]
        assert annotations._cover(text, pixels.size)
        assert not annotations._cover(text, pixels.size + 1)
        assert annotations._unpacked(text) == crowd(pixels, compressed=False)["counts"]
