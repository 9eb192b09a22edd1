"""Folders of unusual names, and those that may be one category or several."""

from __future__ import annotations

from tests.data.nasty.maker import WHOLE, nasty

NAMES = "Names of parts"


@nasty(NAMES, "MVTec-AD's own: `train/good`, `test/good`, `test/scratch`, `ground_truth/scratch/000_mask.png`")
def _(make):
    make.whole()


@nasty(NAMES, "in capitals: `Train/GOOD`, `TEST/Ok`, `Ground Truth/Scratch`")
def _(make):
    make.part(train="Train/GOOD", good="TEST/Ok")
    make.photos("bottle/TEST/scratch", name="{:03d}.PNG")
    make.masks("bottle/Ground Truth/Scratch", name="{:03d}_MASK.png")


@nasty(NAMES, "`train/normal`, `test/ok`, `test/ng`, `masks/ng`")
def _(make):
    make.part(train="train/normal", good="test/ok")
    make.photos("bottle/test/ng")
    make.masks("bottle/masks/ng", name="{:03d}.png")


@nasty(NAMES, "no `train/`: `good`, `scratch`, `gt/scratch`", bottle=(4, 0, 2, 2))
def _(make):
    make.photos("bottle/good", 4)
    make.photos("bottle/scratch")
    make.masks("bottle/gt/scratch")


@nasty(NAMES, "nothing but `good`", bottle=(4, 0, 0, 0))
def _(make):
    make.photos("bottle/good", 4)


@nasty(NAMES, "anomalib's: `normal`, `abnormal`, `mask`", bottle=(4, 0, 2, 2))
def _(make):
    make.photos("bottle/normal", 4)
    make.photos("bottle/abnormal")
    make.masks("bottle/mask", name="{:03d}.png")


@nasty(NAMES, "anomalib's with `normal_test`")
def _(make):
    make.photos("bottle/normal", 4)
    make.photos("bottle/normal_test")
    make.photos("bottle/abnormal")
    make.masks("bottle/mask", name="{:03d}.png")


@nasty(NAMES, "in one word: `train_good`, `test_good`, `test_bad`", bottle=(4, 2, 2, 0))
def _(make):
    make.part(train="train_good", good="test_good")
    make.photos("bottle/test_bad")


@nasty(NAMES, "BTAD's: `train/ok`, `test/ok`, `test/ko`, masks of another format")
def _(make):
    make.part(train="train/ok", good="test/ok")
    make.photos("bottle/test/ko", name="{:04d}.bmp")
    make.masks("bottle/ground_truth/ko", name="{:04d}.png")


@nasty(
    NAMES,
    "MVTec AD 2's: `test_public` with its masks, `test_private` without labels",
    bottle=(6, 2, 2, 2),
    notes=("unlabeled image",),
)
def _(make):
    make.part(good="test_public/good")
    make.photos("bottle/validation/good")
    make.photos("bottle/test_public/bad", name="{:03d}_regular.png")
    make.masks("bottle/test_public/ground_truth/bad", name="{:03d}_regular_mask.png")
    make.photos("bottle/test_private")


@nasty(NAMES, "images in `train/` itself, `val/good` beside it", bottle=(6, 2, 2, 2))
def _(make):
    make.part(train="train")
    make.photos("bottle/val/good")
    make.photos("bottle/test/scratch")
    make.masks("bottle/ground_truth/scratch")


@nasty(NAMES, "cameras below the defect: `test/scratch/cam1`, `ground_truth/scratch/cam1`", bottle=(4, 2, 4, 4))
def _(make):
    make.part()
    for camera in ("cam1", "cam2"):
        make.photos(f"bottle/test/scratch/{camera}")
        make.masks(f"bottle/ground_truth/scratch/{camera}")


@nasty(NAMES, "defective images in `train/`", notes=("ignored folder",))
def _(make):
    make.whole()
    make.photos("bottle/train/scratch")


@nasty(NAMES, "normal test images under another name: `test/good_2`", bottle=(4, 2, 4, 0), notes=("unclear name",))
def _(make):
    make.part()
    make.photos("bottle/test/scratch")
    make.photos("bottle/test/good_2")


CATEGORIES = "One category or several"


@nasty(CATEGORIES, "a category called `ok` beside another", bottle=WHOLE, ok=WHOLE)
def _(make):
    make.whole()
    make.whole("ok")


RESERVED = dict.fromkeys(("good", "train", "test", "masks"), WHOLE)


@nasty(CATEGORIES, "categories called `good`, `train`, `test`, `masks`", **RESERVED)
def _(make):
    for name in RESERVED:
        make.whole(name)


@nasty(CATEGORIES, "a category called `normal`, alone", normal=WHOLE)
def _(make):
    make.whole("normal")


@nasty(CATEGORIES, "categories without `train/`, one called `ok`", bottle=(4, 0, 2, 0), ok=(4, 0, 2, 0))
def _(make):
    for name in ("bottle", "ok"):
        make.photos(f"{name}/good", 4)
        make.photos(f"{name}/scratch")


@nasty(CATEGORIES, "a category `test` of `good` and `scratch` beside whole ones", bottle=WHOLE, test=(4, 0, 2, 0))
def _(make):
    make.whole()
    make.photos("test/good", 4)
    make.photos("test/scratch")


@nasty(CATEGORIES, "the path of one category is given", parts=WHOLE)
def _(make):
    make.whole(".")


@nasty(CATEGORIES, "a category called `test_tube`", test_tube=WHOLE)
def _(make):
    make.whole("test_tube")


@nasty(CATEGORIES, "`train/` and `test/` beside whole categories", refused="one category")
def _(make):
    make.whole(".")
    make.whole()


@nasty(CATEGORIES, "`good/` beside whole categories", refused="one category")
def _(make):
    make.photos("good")
    make.whole()


@nasty(CATEGORIES, "the path ends one folder too early", refused="2026")
def _(make):
    make.whole("2026/bottle")


@nasty(CATEGORIES, "photos in no folder: all are normal", parts=(3, 0, 0, 0), notes=("flat folder",))
def _(make):
    make.photos(".", 2)
    make.photo("defect_free_7.png")


@nasty(CATEGORIES, "photos in no folder, some called `NG_`", refused=("unclear image", "NG_000.png", "csv:FILE"))
def _(make):
    make.photos(".")
    make.photos(".", 1, name="NG_{:03d}.png")


@nasty(CATEGORIES, "photos beside an empty `train/good`", refused=("empty category",))
def _(make):
    make.photos("bottle")
    make.path("bottle/train/good/x").parent.mkdir(exist_ok=True)


@nasty(CATEGORIES, "a folder for each kind of part, but no `good/`", refused="holds no category")
def _(make):
    make.photos("bottle")
    make.photos("screw")


@nasty(CATEGORIES, "divided first: `train/bottle/good`, `test/bottle/good`", refused="unclear folder")
def _(make):
    for name in ("bottle", "screw"):
        make.photos(f"train/{name}/good", 4)
        make.photos(f"test/{name}/good")
        make.photos(f"test/{name}/scratch")


@nasty(CATEGORIES, "`train/cam1`, `train/cam2`, without `good/`", refused="unclear folder")
def _(make):
    make.photos("bottle/train/cam1")
    make.photos("bottle/train/cam2")
    make.photos("bottle/test/good")


@nasty(CATEGORIES, "an empty category", refused="empty category")
def _(make):
    make.whole()
    make.path("screw/train/good/x")


@nasty(CATEGORIES, "`bottle` and `Bottle`", bottle=WHOLE, Bottle=WHOLE, notes=("similar category",))
def _(make):
    make.whole("bottle")
    make.whole("Bottle")


@nasty(CATEGORIES, "folders of other pictures beside the categories", notes=("ignored folder", "ignored file"))
def _(make):
    make.whole()
    make.photos("documentation")
    make.photo("logo.png")
