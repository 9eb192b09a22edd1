"""Which mask belongs to which image."""

import unicodedata
from pathlib import Path

import pytest

from jaxad.data.layout.pairing import Nearest, Picture, pair


def pictures(*names, defect="cut"):
    return [Picture(Path(name), defect) for name in names]


def paired(images, masks):
    return {image.name: mask.name for image, mask in pair(images, masks).masks.items()}


@pytest.mark.parametrize(
    ("image", "mask"),
    [
        ("a.png", "a.png"),
        ("a.png", "a_mask.png"),
        ("a.jpg", "mask_a.bmp"),
        ("A.PNG", "a_MASK.png"),
        ("a.b.png", "a.b_mask.png"),
        ("a_mask.png", "a_mask_mask.png"),
        (unicodedata.normalize("NFC", "ü.png"), unicodedata.normalize("NFD", "ü_mask.png")),
    ],
)
def test_names_that_agree(image, mask):
    assert paired(pictures(image), pictures(mask)) == {image: mask}


def test_each_takes_the_one_that_fits_best():
    images = pictures("a.png", "a.bmp", "A.png")
    masks = pictures("a_mask.bmp", "A_mask.png", "a_mask.png")
    assert paired(images, masks) == {"a.png": "a_mask.png", "a.bmp": "a_mask.bmp", "A.png": "A_mask.png"}


def test_what_is_settled_settles_others():
    images = pictures("cap.png", "cap_label.png")
    assert paired(images, pictures("cap.png", "cap_label.png")) == {
        "cap.png": "cap.png",
        "cap_label.png": "cap_label.png",
    }
    assert pair(images, pictures("cap_label.png")).ambiguous.keys() == {Path("cap_label.png")}


def test_what_fits_in_several_ways_is_not_decided():
    found = pair(pictures("a.jpg", "a.bmp", "b.png"), pictures("a_mask.png", "b_mask.png"))
    assert found.ambiguous == {Path("a_mask.png"): [Path("a.bmp"), Path("a.jpg")]}
    assert found.masks == {Path("b.png"): Path("b_mask.png")}
    found = pair(pictures("a.png"), pictures("a_mask.png", "a_gt.png", "c.png"))
    assert not found.masks
    assert found.ambiguous[Path("a_mask.png")] == [Path("a.png"), Path("a_gt.png")]
    assert [mask.file.name for mask in found.unmatched] == ["c.png"]


def test_folders_must_agree():
    images = [Picture(Path("a.png"), "cut", ("cam1",))]
    assert paired(images, [Picture(Path("m/a.png"), "cut", ("cam1",))])
    assert not paired(images, [Picture(Path("m/a.png"), "cut", ("cam2",))])
    assert not paired(images, [Picture(Path("m/a.png"), "dent", ("cam1",))])


def test_masks_in_no_folder_of_a_defect_look_everywhere_and_prefer_defects():
    images = [
        Picture(Path("good/a.png"), "good"),
        Picture(Path("cut/a.png"), "cut"),
        Picture(Path("good/b.png"), "good"),
    ]
    masks = pictures("m/a.png", "m/b.png", defect="")
    assert pair(images, masks).masks == {Path("cut/a.png"): Path("m/a.png"), Path("good/b.png"): Path("m/b.png")}
    assert pair([*images, Picture(Path("dent/a.png"), "dent")], masks).ambiguous.keys() == {Path("m/a.png")}


def test_a_folder_named_as_an_image_holds_its_masks():
    images = pictures("000.png", "001.png")
    inside = [Picture(Path(f"{name}.png"), "cut", (name[:3],)) for name in ("000-0", "001-0", "001-1")]
    found = pair(images, inside)
    assert found.masks == {Path("000.png"): Path("000-0.png")}
    assert found.ambiguous.keys() == {Path("001-0.png"), Path("001-1.png")}


@pytest.mark.parametrize(
    ("mask", "image"), [("0001_mask.png", "001.png"), ("part-12.png", "part_12.png"), ("screw.png", None)]
)
def test_the_nearest_name(mask, image):
    found = Nearest(pictures("001.png", "002.png", "part_12.png"))(Picture(Path(mask)))
    assert (found and found.file.name) == image
