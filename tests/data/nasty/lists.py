"""Lists of images in place of folders: CSV files, and exports of FiftyOne in the formats that it writes."""

from __future__ import annotations

import json

from tests.data.nasty.maker import nasty

TABLES, EXPORTS = "CSV files", "Exports of FiftyOne"
CSV = "csv:parts.csv"


def listed(make, *lines: str, name: str = "parts.csv", encoding: str = "utf-8") -> None:
    """Ten photos and two masks, and a table of these lines."""
    make.photos("img/ok", 6)
    make.photos("img/cut")
    make.masks("img/gt")
    make.path(name).write_bytes(("\n".join(lines) + "\n").encode(encoding))


GOOD = tuple(f"img/ok/{number:03d}.png" for number in range(6))
CUT = tuple(f"img/cut/{number:03d}.png" for number in range(2))
MASKS = tuple(f"img/gt/{number:03d}_mask.png" for number in range(2))
COMMON = (
    *(f"{file},bottle,train,good," for file in GOOD[:4]),
    *(f"{file},bottle,test,good," for file in GOOD[4:]),
    *(f"{file},bottle,test,cut,{mask}" for file, mask in zip(CUT, MASKS, strict=True)),
)
HEAD = "file,category,split,label,mask"


@nasty(TABLES, "`file,category,split,label,mask`", data=CSV)
def _(make):
    listed(make, HEAD, *COMMON)


@nasty(
    TABLES, "with a byte-order mark, semicolons, other heads: `Image Path;Product;Set;Target;Ground Truth`", data=CSV
)
def _(make):
    lines = [line.replace(",", ";").replace("good", "0").replace("test;cut", "test;1") for line in COMMON]
    listed(make, "Image Path;Product;Set;Target;Ground Truth", *lines, encoding="utf-8-sig")


@nasty(TABLES, "VisA's heads: `object,split,label,image,mask`", data=CSV)
def _(make):
    rows = (line.split(",") for line in COMMON)
    words = {"good": "normal", "cut": "anomaly"}
    lines = (f"{category},{split},{words[label]},{file},{mask}" for file, category, split, label, mask in rows)
    listed(make, "object,split,label,image,mask", *lines)


@nasty(TABLES, "label and kind of defect, no split: normal ones train", data=CSV, parts=(6, 0, 2, 2))
def _(make):
    lines = [*(f"{file},0,," for file in GOOD), *(f"{f},1,cut,{m}" for f, m in zip(CUT, MASKS, strict=True))]
    listed(make, "path,label,defect type,mask path", *lines)


@nasty(TABLES, "nothing but files: all normal", data=CSV, parts=(6, 0, 0, 0))
def _(make):
    listed(make, "file", *GOOD)


@nasty(TABLES, "test images without label", data=CSV, parts=(4, 0, 0, 0))
def _(make):
    listed(make, "file,split", *(f"{f},train" for f in GOOD[:4]), *(f"{f},test" for f in CUT))


@nasty(TABLES, "labels `A` and `B`, and `--good-names A`", data=CSV, flags=("--good-names", "A"), parts=(6, 0, 2, 0))
def _(make):
    listed(make, "file,label", *(f"{f},A" for f in GOOD), *(f"{f},B" for f in CUT))


@nasty(TABLES, "labels `A` and `B`", data=CSV, refused=("unclear label", "A, B", "good"))
def _(make):
    listed(make, "file,label", *(f"{f},A" for f in GOOD), *(f"{f},B" for f in CUT))


@nasty(TABLES, "columns that are not read", data=CSV, notes=("ignored column",))
def _(make):
    listed(make, f"{HEAD},camera,shift", *(f"{line},2,night" for line in COMMON))


@nasty(
    TABLES, "no label, and a column that may be one: `class`", data=CSV, refused=("ignored column", "class", "label")
)
def _(make):
    listed(make, "file,class", *(f"{f},fine" for f in GOOD))


@nasty(TABLES, "no column of files", data=CSV, refused=("photo_url", "filename"))
def _(make):
    listed(make, "photo_url,label", *(f"{f},good" for f in GOOD))


@nasty(TABLES, "two columns of files: `file`, `path`", data=CSV, refused=("file and path", "rename"))
def _(make):
    listed(make, "file,path,label", *(f"{f},{f},good" for f in GOOD))


@nasty(TABLES, "no head line", data=CSV, refused="no head line")
def _(make):
    listed(make, *COMMON)


@nasty(
    TABLES,
    "files that are not there",
    data=CSV,
    refused=("missing file", "line 2", "did you mean 000.png", "line 3", "mask"),
)
def _(make):
    listed(make, "file,label,mask", "img/ok/000.jpg,good,", "img/cut/000.png,cut,img/gt/9.txt", f"{GOOD[0]},good,")


@nasty(TABLES, "one file under two labels", data=CSV, refused=("contradictory labels", "line 3", "line 2"))
def _(make):
    listed(make, "file,split,label", f"{GOOD[0]},test,good", f"{GOOD[0]},test,cut", f"{GOOD[1]},train,good")


@nasty(TABLES, "one file in training and test", data=CSV, refused=("contradictory labels", "line 3"))
def _(make):
    listed(make, "file,split,label", f"{GOOD[0]},train,good", f"{GOOD[0]},test,good")


@nasty(TABLES, "one line twice", data=CSV, notes=("repeated image",))
def _(make):
    listed(make, HEAD, *COMMON, COMMON[0])


@nasty(TABLES, "a defective training image", data=CSV, refused=("contradictory labels", "must be normal", "cut"))
def _(make):
    listed(make, "file,split,label", f"{GOOD[0]},train,good", f"{CUT[0]},train,cut")


@nasty(TABLES, "label 0 and a kind of defect", data=CSV, refused=("contradictory labels", "'0'", "'cut'"))
def _(make):
    listed(make, "file,label,defect", f"{GOOD[0]},0,", f"{CUT[0]},0,cut")


@nasty(TABLES, "label 2", data=CSV, refused=("unclear label", "'2'"))
def _(make):
    listed(make, "file,label", f"{GOOD[0]},0", f"{CUT[0]},2")


@nasty(TABLES, "a mask for a normal image", data=CSV, refused="mask on normal image")
def _(make):
    listed(make, "file,label,mask", f"{GOOD[0]},good,{MASKS[0]}", f"{CUT[0]},cut,{MASKS[1]}")


@nasty(TABLES, "a split of another name", data=CSV, refused=("unknown split", "'fold3'"))
def _(make):
    listed(make, "file,split,label", f"{GOOD[0]},fold3,good", f"{GOOD[1]},train,good")


@nasty(TABLES, "rows of other length", data=CSV, refused=("wrong row", "line 3"))
def _(make):
    listed(make, "file,label", f"{GOOD[0]},good", GOOD[1])


@nasty(TABLES, "a picture in place of the table", data="csv:img/ok/000.png", refused="cannot be read as CSV")
def _(make):
    listed(make, HEAD)


def classified(make, folder: str, labels: dict, classes: list | None) -> None:
    make.text(f"{folder}/labels.json", json.dumps({"classes": classes, "labels": labels}))


@nasty(EXPORTS, "FiftyOneImageClassificationDataset: numbers of classes", parts=(4, 0, 2, 0))
def _(make):
    make.photos("data", 6)
    classified(make, ".", {f"{n:03d}": int(n < 4) for n in range(6)}, ["scratch", "good"])


@nasty(EXPORTS, "the same with labels as text, in `train/` and `test/`", parts=(4, 1, 1, 0))
def _(make):
    for split, number in (("train", 4), ("test", 2)):
        make.photos(f"{split}/data", number)
        names = {f"{n:03d}.png": "hole" if split == "test" and n else "ok" for n in range(number)}
        classified(make, split, names, None)


@nasty(EXPORTS, "a label without image, a class that is not there", refused=("labels.001", "2 classes"))
def _(make):
    make.photos("data", 1)
    classified(make, ".", {"000": 0, "001": 5}, ["good", "bad"])


@nasty(EXPORTS, "a label without image", refused=("missing file", "labels.00", "data/00"))
def _(make):
    make.photos("data", 1)
    classified(make, ".", {"000": "good", "00": "bad"}, None)


@nasty(EXPORTS, "an image without label", parts=(2, 0, 0, 0), notes=("ignored file",))
def _(make):
    make.photos("data", 3)
    classified(make, ".", {"000": "good", "001": {"label": "good", "confidence": 1.0}}, None)


def sample(number: int, label: str, *tags: str, mask: bool = False, **fields) -> dict:
    """A sample as FiftyOne writes it."""
    entry = {
        "_id": {"$oid": f"{number:024x}"},
        "_media_type": "image",
        "_rand": 0.25,
        "filepath": f"data/{number:03d}.png",
        "tags": list(tags),
        "metadata": None,
        "category": {"_id": {"$oid": "b"}, "_cls": "Classification", "tags": [], "label": "bottle"},
        "defect": {"_id": {"$oid": "a"}, "_cls": "Classification", "tags": [], "label": label},
        "defect_mask": None,
    }
    if mask:
        entry["defect_mask"] = {"_cls": "Segmentation", "mask_path": f"fields/defect_mask/{number:03d}.png"}
    return entry | fields


def exported(make, *samples: dict) -> None:
    make.photos("data", 8)
    make.masks("fields/defect_mask", 8, name="{:03d}.png")
    make.text("metadata.json", json.dumps({"name": "parts", "media_type": "image", "sample_fields": []}))
    make.text("samples.json", json.dumps({"samples": list(samples)}))


SAMPLES = (
    *(sample(n, "good", "train") for n in range(4)),
    *(sample(n, "good", "test") for n in (4, 5)),
    *(sample(n, "scratch", "test", "reviewed", mask=True) for n in (6, 7)),
)


@nasty(EXPORTS, "FiftyOneDataset: labels, masks as files, tags `train` and `test`")
def _(make):
    exported(make, *SAMPLES)


@nasty(EXPORTS, "two fields of labels, none called as usual", refused=("quality", "verdict", "defect"))
def _(make):
    fields = ({"quality": s["defect"], "verdict": s["defect"]} for s in SAMPLES)
    plain = ({name: value for name, value in s.items() if name != "defect"} for s in SAMPLES)
    exported(make, *(s | f for s, f in zip(plain, fields, strict=True)))


@nasty(EXPORTS, "a sample tagged as `train` and `test`", refused=("contradictory labels", "train and test"))
def _(make):
    exported(make, *SAMPLES[1:], sample(0, "good", "train", "test"))


@nasty(EXPORTS, "masks within the JSON", bottle=(4, 2, 2, 0), notes=("ignored mask",))
def _(make):
    inline = {"_cls": "Segmentation", "mask": {"$binary": {"base64": "eJw=", "subType": "00"}}}
    exported(make, *SAMPLES[:6], *(sample(n, "scratch", "test", defect_mask=inline) for n in (6, 7)))


@nasty(EXPORTS, "samples.json that is none", refused=("samples", "must be a list"))
def _(make):
    make.text("samples.json", json.dumps({"samples": {}}))
