"""Folders whose names the user explains by flags, among them those of anomalib's data modules."""

from __future__ import annotations

from tests.data.nasty.maker import nasty

GIVEN = "Names given by flags"


@nasty(GIVEN, "`--good-names fine`: `fine`, `scratch`", flags=("--good-names", "fine"), bottle=(4, 0, 2, 0))
def _(make):
    make.photos("bottle/fine", 4)
    make.photos("bottle/scratch")


@nasty(GIVEN, '`--good-names "Sans Défaut"`: `train/sans_défaut`, `test/...`', flags=("--good-names", "Sans Défaut"))
def _(make):
    make.part(train="train/sans_défaut", good="test/SANS DÉFAUT")
    make.photos("bottle/test/scratch")
    make.masks("bottle/ground_truth/scratch")
    make.photo("bottle/ground_truth/sans_défaut/000_mask.png", make.noise()[..., 0] * 0)


@nasty(
    GIVEN,
    "anomalib's `Folder` with directories of its own: `ref`, `ref_extra`, `cracked`, `gt_px`",
    flags=(
        *("--good-names", "ref", "--test-good-names", "ref_extra"),
        *("--defect-names", "cracked", "--mask-names", "gt_px"),
    ),
)
def _(make):
    make.photos("bottle/ref", 4)
    make.photos("bottle/ref_extra")
    make.photos("bottle/cracked")
    make.masks("bottle/gt_px", name="{:03d}.png")


@nasty(
    GIVEN,
    "anomalib's `Folder` with two `abnormal_dir`, and masks in folders of their names",
    bottle=(4, 0, 4, 4),
)
def _(make):
    make.photos("bottle/good", 4)
    for defect in ("crack", "hole"):
        make.photos(f"bottle/{defect}")
        make.masks(f"bottle/mask/{defect}", name="{:03d}.png")


@nasty(GIVEN, "`--defect-names label`: photos of labels, all else left out", flags=("--defect-names", "label"))
def _(make):
    make.part()
    make.photos("bottle/test/label")
    make.masks("bottle/ground_truth/label")
    make.photos("bottle/test/to_sort", 0)


@nasty(
    GIVEN,
    "`--defect-names scratch` beside another: it is left out with its masks",
    flags=("--defect-names", "scratch"),
    bottle=(4, 2, 2, 2),
    notes=("ignored folder",),
)
def _(make):
    make.whole()
    make.photos("bottle/test/to_sort")
    make.masks("bottle/ground_truth/to_sort")


@nasty(
    GIVEN,
    "`--defect-names ok`: a defect called as normal ones are",
    flags=("--defect-names", "ok", "scratch"),
    bottle=(4, 0, 4, 2),
    notes=("image without mask",),
)
def _(make):
    make.photos("bottle/train/good", 4)
    make.photos("bottle/test/ok")
    make.photos("bottle/test/scratch")
    make.masks("bottle/ground_truth/scratch")


@nasty(
    GIVEN,
    "`--good-names fine`, but there is no such folder",
    flags=("--good-names", "fine"),
    refused=("good", "fine", "scratch"),
)
def _(make):
    make.whole()
