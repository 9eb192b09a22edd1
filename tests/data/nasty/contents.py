"""Files that are no images, images that hold something else, and benchmarks as they are published."""

from __future__ import annotations

import numpy as np
from PIL import Image

from tests.data.nasty.maker import SIDE, nasty

OTHERS = "Other files"


@nasty(OTHERS, "a Synology's thumbnails: `@eaDir/000.png/SYNOPHOTO_THUMB_M.jpg`", notes=("ignored folder",))
def _(make):
    make.whole()
    for index in range(4):
        make.photo(f"bottle/train/good/@eaDir/{index:03d}.png/SYNOPHOTO_THUMB_M.jpg")


@nasty(OTHERS, "thumbnails of QNAP, GNOME and others: `.@__thumb`, `.thumbnails`, `Thumbs/`", notes=("ignored folder",))
def _(make):
    make.whole()
    for name in (".@__thumb", ".thumbnails", "Thumbs"):
        make.photos(f"bottle/test/good/{name}")


@nasty(OTHERS, "thumbnails and overlays beside images: `000_thumb.jpg`, `000-150x150.png`", notes=("ignored file",))
def _(make):
    make.whole()
    for name in ("000_thumb.jpg", "000-150x150.png", "001_overlay.png"):
        make.photo(f"bottle/test/scratch/{name}")


@nasty(OTHERS, "Lightroom's previews and trash of a file server", notes=("ignored folder",))
def _(make):
    make.whole()
    make.photos("bottle/Catalog Previews.lrdata")
    make.photos("#recycle/bottle/train/good")


@nasty(
    OTHERS,
    "system files: `.DS_Store`, `._000.png`, `Thumbs.db`, `__MACOSX`, `lost+found`, `$RECYCLE.BIN`",
)
def _(make):
    make.whole()
    for name in (".DS_Store", "._000.png", "Thumbs.db", "desktop.ini", ".hidden.png"):
        make.text(f"bottle/train/good/{name}")
    for name in ("__MACOSX", "lost+found", "$RECYCLE.BIN"):
        make.photos(f"{name}/train/good")


@nasty(OTHERS, "labels as `.json`, photos as `.heic`, an archive", notes=("ignored file",))
def _(make):
    make.whole()
    for name in ("test/scratch/000.json", "train/good/IMG_1.heic", "bottle.zip"):
        make.text(f"bottle/{name}")


@nasty(OTHERS, "nothing but `.heic`", refused=("empty category",))
def _(make):
    make.whole()
    make.text("screw/train/good/IMG_1.heic")


@nasty(OTHERS, "a link to an image that is gone", refused="dangling link")
def _(make):
    make.whole()
    make.path("bottle/train/good/gone.png").symlink_to("nowhere.png")


@nasty(OTHERS, "links in circles")
def _(make):
    make.whole()
    make.path("bottle/train/good/up").symlink_to(make.root, target_is_directory=True)
    make.path("bottle/test/loop").symlink_to(make.root / "bottle", target_is_directory=True)


CONTENTS = "What images hold"


@nasty(CONTENTS, "a Git LFS pointer in place of an image", refused=("unreadable image", "git lfs pull"))
def _(make):
    make.whole()
    make.text("bottle/train/good/000.png", "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n")


@nasty(CONTENTS, "a web page in place of an image", refused=("unreadable image", "web page"))
def _(make):
    make.whole()
    make.text("bottle/train/good/000.png", "<!DOCTYPE html><html>403</html>")


@nasty(CONTENTS, "an empty file", refused=("unreadable image", "empty file"))
def _(make):
    make.whole()
    make.text("bottle/train/good/000.png")


@nasty(CONTENTS, "half a JPEG with an end put on", refused="truncated image")
def _(make):
    make.whole()
    file = make.photo("bottle/train/good/half.jpg")
    content = file.read_bytes()
    file.write_bytes(content[: len(content) * 3 // 4] + b"\xff\xd9")


@nasty(CONTENTS, "a JPEG with zeros in its middle", refused=("hole.jpg", "image"))
def _(make):
    make.whole()
    file = make.photo("bottle/train/good/hole.jpg", np.tile(make.noise(), (4, 4, 1)))
    content = bytearray(file.read_bytes())
    content[2000:2100] = bytes(100)
    file.write_bytes(content)


@nasty(CONTENTS, "a JPEG whose restart markers are broken", refused="damaged image")
def _(make):
    make.whole()
    file = make.photo("bottle/train/good/markers.jpg", np.tile(make.noise(), (4, 4, 1)), restart_marker_rows=1)
    file.write_bytes(file.read_bytes().replace(b"\xff\xd1", b"\xff\xd5"))


@nasty(CONTENTS, "one image in `test/good` and in `test/scratch`", refused="contradictory labels")
def _(make):
    make.whole()
    pixels = make.noise()
    make.photo("bottle/test/good/twin.png", pixels)
    make.photo("bottle/test/scratch/000.png", pixels)


@nasty(CONTENTS, "one image in training and test, in two formats", refused="duplicate in train and test")
def _(make):
    make.whole()
    pixels = make.noise()
    make.photo("bottle/train/good/twin.png", pixels)
    make.photo("bottle/test/good/twin.bmp", pixels)


@nasty(CONTENTS, "every training image as `.png` and `.bmp`", bottle=(8, 2, 2, 2), notes=("duplicate in train",))
def _(make):
    make.whole()
    for file in sorted((make.root / "bottle/train/good").iterdir()):
        Image.open(file).save(file.with_suffix(".bmp"))


@nasty(CONTENTS, "one image in `train` and `validation`", refused="duplicate in train and validation")
def _(make):
    make.whole()
    pixels = make.noise()
    make.photo("bottle/train/good/twin.png", pixels)
    make.photo("bottle/validation/good/twin.png", pixels)


@nasty(CONTENTS, "12 bits in 16-bit PNG", bottle=(4, 2, 0, 0), notes=("narrow range",))
def _(make):
    make.wide("bottle/train/good", 4, 12)
    make.wide("bottle/test/good", 2, 12)


@nasty(CONTENTS, "10 bits in 16-bit PNG, in color", bottle=(4, 2, 0, 0), notes=("narrow range",))
def _(make):
    make.wide("bottle/train/good", 4, 10, color=True)
    make.wide("bottle/test/good", 2, 10, color=True)


@nasty(CONTENTS, "12 bits to train on, 16 to test on", bottle=(4, 2, 0, 0), notes=("mixed range",))
def _(make):
    make.wide("bottle/train/good", 4, 12)
    make.wide("bottle/test/good", 2, 16)


@nasty(CONTENTS, "TIFF of signed integers, TIFF of floating point", refused="unsupported mode")
def _(make):
    make.whole()
    make.photo("bottle/train/good/float.tif", np.ones((SIDE, SIDE), np.float32))
    make.photo("bottle/train/good/signed.tif", np.ones((SIDE, SIDE), np.int32))


@nasty(CONTENTS, "TIFF of several frames", bottle=(5, 2, 2, 2), notes=("several frames",))
def _(make):
    make.whole()
    frames = [Image.fromarray(make.noise()) for _ in range(3)]
    frames[0].save(make.path("bottle/train/good/stack.tif"), save_all=True, append_images=frames[1:])


@nasty(CONTENTS, "photo turned by EXIF, its mask not", refused=("mask size", "EXIF"))
def _(make):
    make.part()
    exif = Image.Exif()
    exif[0x0112] = 6
    make.photo("bottle/test/scratch/000.png", make.noise()[:12], exif=exif)
    Image.fromarray(make.noise()[:12, :, 0] // 100 * 200).save(make.path("bottle/ground_truth/scratch/000.png"))


BENCHMARKS = "Benchmarks as they are published"


@nasty(BENCHMARKS, "VisA: `candle/Data/Images/Normal`", refused="prepare visa")
def _(make):
    make.photos("candle/Data/Images/Normal", 4, "{:04d}.JPG")
    make.photos("candle/Data/Images/Anomaly", name="{:03d}.JPG")
    make.masks("candle/Data/Masks/Anomaly", name="{:03d}.png")


@nasty(BENCHMARKS, "Real-IAD with its lists: `realiad_1024`, `realiad_jsons`", refused="prepare real_iad")
def _(make):
    make.photos("realiad_1024/audiojack/OK/S0001", name="audiojack_OK_C{}.jpg")
    make.photos("realiad_1024/audiojack/NG/BX/S0001", name="audiojack_NG_C{}.jpg")
    make.text("realiad_jsons/realiad_jsons/audiojack.json", "{}")


@nasty(BENCHMARKS, "Real-IAD's categories alone: masks beside images", audiojack=(2, 0, 2, 2), notes=("benchmark",))
def _(make):
    make.photos("audiojack/OK/S0001", name="audiojack_OK_C{}.jpg")
    make.photos("audiojack/NG/BX/S0001", name="audiojack_NG_C{}.jpg")
    make.masks("audiojack/NG/BX/S0001", name="audiojack_NG_C{}.png")


@nasty(BENCHMARKS, "COCO-AD: `train2017`, `val2017`, `annotations`", refused="prepare coco_ad")
def _(make):
    make.photos("train2017", name="{:012d}.jpg")
    make.photos("val2017", name="{:012d}.jpg")
    make.text("annotations/instances_train2017.json", "{}")
