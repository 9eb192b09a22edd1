"""Masks where users put them."""

from __future__ import annotations

import unicodedata

from tests.data.nasty.maker import nasty

MASKS = "Masks"


@nasty(MASKS, "beside their images: `000.png`, `000_mask.png`")
def _(make):
    make.part()
    make.photos("bottle/test/scratch")
    make.masks("bottle/test/scratch")


@nasty(MASKS, "beside their images: `000.jpg`, `mask_000.png`")
def _(make):
    make.part()
    make.photos("bottle/test/scratch", name="{:03d}.jpg")
    make.masks("bottle/test/scratch", name="mask_{:03d}.png")


@nasty(MASKS, "beside their images: `000.bmp`, `000-GT.png`")
def _(make):
    make.part()
    make.photos("bottle/test/scratch", name="{:03d}.bmp")
    make.masks("bottle/test/scratch", name="{:03d}-GT.png")


@nasty(MASKS, "beside their images by content alone: `000.jpg`, `000.png` in black and white")
def _(make):
    make.part()
    make.photos("bottle/test/scratch", name="{:03d}.jpg")
    make.masks("bottle/test/scratch", name="{:03d}.png")


@nasty(MASKS, "beside normal images too, all black")
def _(make):
    make.whole()
    for index in range(4):
        make.mask(f"bottle/train/good/{index:03d}_mask.png", value=0)
    for index in range(2):
        make.mask(f"bottle/test/good/{index:03d}_mask.png", value=0)


@nasty(MASKS, "in a folder among the images: `test/scratch/mask/000.png`")
def _(make):
    make.part()
    make.photos("bottle/test/scratch")
    make.masks("bottle/test/scratch/mask", name="{:03d}.png")


@nasty(MASKS, "within test/: `test/ground_truth/scratch`")
def _(make):
    make.part()
    make.photos("bottle/test/scratch")
    make.masks("bottle/test/ground_truth/scratch")


@nasty(MASKS, "divided like the images: `ground_truth/test/scratch`")
def _(make):
    make.part()
    make.photos("bottle/test/scratch")
    make.masks("bottle/ground_truth/test/scratch")


@nasty(MASKS, "in `ground_truth/` itself")
def _(make):
    make.part()
    make.photos("bottle/test/scratch")
    make.masks("bottle/ground_truth")


@nasty(MASKS, "in `Labels/scratch`")
def _(make):
    make.part()
    make.photos("bottle/test/scratch")
    make.masks("bottle/Labels/scratch", name="{:03d}_label.png")


@nasty(MASKS, "in `scratch_masks` beside `scratch`", bottle=(4, 0, 2, 2))
def _(make):
    make.photos("bottle/good", 4)
    make.photos("bottle/scratch")
    make.masks("bottle/scratch_masks", name="{:03d}.png")


@nasty(MASKS, "in a folder of any other name, among those of defects", refused="mask among images")
def _(make):
    make.photos("bottle/good", 4)
    make.photos("bottle/scratch")
    make.masks("bottle/pixelwise", name="{:03d}.png")


@nasty(MASKS, "no masks: `label` is a kind of defect", bottle=(4, 2, 4, 0))
def _(make):
    make.part()
    make.photos("bottle/test/scratch")
    make.photos("bottle/test/label")


@nasty(MASKS, "no masks: `cap_label.png` is the photo of a label", bottle=(4, 2, 2, 0))
def _(make):
    make.part()
    make.photo("bottle/test/scratch/cap.png")
    make.photo("bottle/test/scratch/cap_label.png")


@nasty(MASKS, "`000.png` and `000.bmp`, each with its mask of the same extension")
def _(make):
    make.part()
    for end in ("png", "bmp"):
        make.photo(f"bottle/test/scratch/000.{end}")
        make.mask(f"bottle/ground_truth/scratch/000_mask.{end}")


@nasty(MASKS, "`000.jpg` and `000.bmp`, and one `000_mask.png`", refused="ambiguous mask")
def _(make):
    make.part()
    for end in ("jpg", "bmp"):
        make.photo(f"bottle/test/scratch/000.{end}")
    make.mask("bottle/ground_truth/scratch/000_mask.png")


@nasty(MASKS, "two for one image: `000_mask_1.png`, `000_mask_2.png`", refused="ambiguous mask")
def _(make):
    make.whole()
    make.photo("bottle/test/scratch/007.png")
    for number in (1, 2):
        make.mask(f"bottle/ground_truth/scratch/007_mask_{number}.png")


@nasty(MASKS, "MVTec LOCO's, one for each image: `ground_truth/logical_anomalies/000/000.png`", notes=("benchmark",))
def _(make):
    make.part()
    make.photos("bottle/test/logical_anomalies")
    for index in range(2):
        make.mask(f"bottle/ground_truth/logical_anomalies/{index:03d}/000.png")


@nasty(MASKS, "MVTec LOCO's, several for an image", refused=("ambiguous mask", "prepare mvtec_loco"))
def _(make):
    make.part()
    make.photos("bottle/test/logical_anomalies")
    for number in range(2):
        make.mask(f"bottle/ground_truth/logical_anomalies/000/{number:03d}.png")


@nasty(MASKS, "image `prüf.png` composed, mask `prüf_mask.png` decomposed, as a Mac writes it", bottle=(4, 2, 1, 1))
def _(make):
    make.part()
    make.photo(f"bottle/test/größe/{unicodedata.normalize('NFC', 'prüf')}.png")
    make.mask(f"bottle/ground_truth/{unicodedata.normalize('NFD', 'größe/prüf')}_mask.png")


@nasty(MASKS, "image `001.png`, mask `0001_mask.png`", refused=("mask without image", "did you mean"))
def _(make):
    make.part()
    make.photo("bottle/test/scratch/001.png")
    make.mask("bottle/ground_truth/scratch/0001_mask.png")


@nasty(MASKS, "in the folder of another defect", refused=("mask without image", "did you mean test/scratch/000.png"))
def _(make):
    make.part()
    make.photo("bottle/test/scratch/000.png")
    make.mask("bottle/ground_truth/dent/000_mask.png")


@nasty(MASKS, "as JPEG, with its haze", notes=("gray mask",))
def _(make):
    make.part()
    make.photos("bottle/test/scratch")
    make.masks("bottle/ground_truth/scratch", name="{:03d}.jpg")


@nasty(MASKS, "inverted: black on the defect", notes=("large mask",))
def _(make):
    make.part()
    make.photos("bottle/test/scratch")
    for index in range(2):
        make.mask(f"bottle/ground_truth/scratch/{index:03d}_mask.png", inverted=True)


@nasty(MASKS, "empty though the image is labeled anomalous", refused="empty mask")
def _(make):
    make.part()
    make.photo("bottle/test/scratch/000.png")
    make.mask("bottle/ground_truth/scratch/000_mask.png", value=0)


@nasty(MASKS, "beside training images, and one marks a defect (KolektorSDD2)", refused="mask on normal image")
def _(make):
    make.photos("bottle/train", 4)
    make.masks("bottle/train", 3, "{:03d}_GT.png")
    make.photos("bottle/test")


@nasty(MASKS, "`masks/test/scratch` beside `images/test/scratch`", images=(4, 2, 2, 0), notes=("ignored folder",))
def _(make):
    make.part("images")
    make.photos("images/test/scratch")
    make.masks("masks/test/scratch", name="{:03d}.png")
