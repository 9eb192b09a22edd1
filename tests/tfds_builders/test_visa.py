"""VisA in its raw layout, whose split is a list, and as its authors' script re-orders it."""

from __future__ import annotations

import csv

import numpy as np
import pytest

from jaxad.errors import DataError
from tests.tfds_builders.conftest import assert_copied
from tfds_builders.listing import benchmark

DATA = benchmark("visa")
HEAD = "object,split,label,image,mask\n"
ROWS = (
    "candle,train,normal,candle/Data/Images/Normal/0836.JPG,\n"
    "candle,train,normal,candle/Data/Images/Normal/0012.JPG,\n"
    "candle,test,normal,candle/Data/Images/Normal/0451.JPG,\n"
    "candle,test,anomaly,candle/Data/Images/Anomaly/007.JPG,candle/Data/Masks/Anomaly/007.png\n"
    "pcb1,train,normal,pcb1/Data/Images/Normal/0003.JPG,\n"
)


@pytest.fixture
def raw(tree):
    tree.text("split_csv/1cls.csv", HEAD + ROWS)
    for row in csv.DictReader((HEAD + ROWS).splitlines()):
        tree.image(row["image"])
        if row["mask"]:
            codes = np.zeros((12, 10), np.uint8)
            codes[3:5, 2:4], codes[7, 7] = 1, 3
            tree.save(row["mask"], codes)
    return tree


def test_raw_layout_prepared_and_read_back(raw, jaxad, stored):
    jaxad("visa", "--source", raw.root.parent, "--partial")
    examples = stored("visa", "candle")
    masks = {"candle/Data/Images/Anomaly/007.JPG": "candle/Data/Masks/Anomaly/007.png"}
    assert_copied(examples, raw.root, masks)
    assert [(e["split"], e["label"], e["defect"], key.split("/")[-1]) for key, e in examples.items()] == [
        ("train", 0, "good", "0836.JPG"),
        ("train", 0, "good", "0012.JPG"),
        ("test", 0, "good", "0451.JPG"),
        ("test", 1, "anomaly", "007.JPG"),
    ]
    assert [e["category"] for e in stored("visa", "pcb1").values()] == ["pcb1"]


def test_reordered_layout_prepared_and_read_back(tree, jaxad, stored):
    tree.image("VisA_pytorch/1cls/candle/train/good/0836.JPG")
    tree.image("VisA_pytorch/1cls/candle/test/good/0451.JPG")
    tree.image("VisA_pytorch/1cls/candle/test/bad/007.JPG")
    tree.mask("VisA_pytorch/1cls/candle/ground_truth/bad/007.png")
    jaxad("visa", "--source", tree.root, "--partial")
    examples = stored("visa", "candle")
    masks = {"candle/test/bad/007.JPG": "candle/ground_truth/bad/007.png"}
    assert_copied(examples, tree.root / "VisA_pytorch/1cls", masks)
    assert {key.split("/")[-1]: (e["split"], e["label"], e["defect"]) for key, e in examples.items()} == {
        "0836.JPG": ("train", 0, "good"),
        "0451.JPG": ("test", 0, "good"),
        "007.JPG": ("test", 1, "anomaly"),
    }


def test_every_wrong_line_of_the_list_is_named(raw, tmp_path, jaxad):
    wrong = (
        "candle,train,normal\n"
        "cup,train,normal,cup/0.JPG,\n"
        "candle,val,normal,candle/1.JPG,\n"
        "candle,test,fine,candle/2.JPG,\n"
        "candle,train,anomaly,candle/3.JPG,candle/3.png\n"
        "candle,test,anomaly,candle/4.JPG,\n"
        "candle,test,normal,pcb1/5.JPG,\n"
        "candle,test,normal,candle/../6.JPG,\n"
        "candle,test,normal,candle/Data/Images/Normal/0012.JPG,\n"
    )
    raw.text("split_csv/1cls.csv", HEAD + ROWS + wrong)
    with pytest.raises(DataError) as caught:
        jaxad("visa", "--source", raw.root)
    lines = [problem for problem in caught.value.problems if problem.kind == "wrong line"]
    assert [problem.file.rsplit(":", 1)[1] for problem in lines] == [str(line) for line in range(7, 16)]
    details = " ".join(problem.detail for problem in lines)
    for fault in ("3 fields", "'cup'", "'val'", "'fine'", "anomalous training", "without a mask", "outside candle/"):
        assert fault in details
    assert "named in line 3 already" in details
    assert not (tmp_path / "data" / "visa").exists()


@pytest.mark.parametrize("content", ["", "object,label,split,image,mask\n", "\x00\x01"])
def test_wrong_head_of_the_list(raw, content):
    raw.text("split_csv/1cls.csv", content)
    with pytest.raises(DataError, match=r"1cls.csv: needs the columns object,split,label,image,mask"):
        list(DATA.list_samples(raw.root, "candle"))


@pytest.mark.parametrize(
    ("line", "sign"),
    [
        ('candle,train,normal,"candle/' + "a" * 200_000 + '",', "field larger"),
        ("candle,train,normal,candle/" + "a" * 300 + ".JPG,", "outside candle/"),
        ("candle,train,normal,candle/a\\b.JPG,", "outside candle/"),
        ("candle,train,normal,candle/a\0.JPG,", "outside candle/"),
    ],
    ids=range(4),
)
def test_lines_that_no_list_has(raw, line, sign):
    raw.text("split_csv/1cls.csv", f"{HEAD}{line}\n")
    with pytest.raises(DataError, match=sign) as caught:
        list(DATA.list_samples(raw.root, "candle"))
    assert "1cls.csv" in str(caught.value)


def test_missing_list(raw):
    (raw.root / "split_csv/1cls.csv").unlink()
    with pytest.raises(DataError, match=r"1cls.csv: the official split is missing"):
        list(DATA.list_samples(raw.root, "candle"))


def test_counts_add_up_to_the_official_totals():
    counts = [DATA.counts(category) for category in DATA.categories]
    assert [sum(c[key] for c in counts) for key in (("train", 0), ("test", 0), ("test", 1))] == [8659, 962, 1200]


@pytest.mark.real
def test_official_list_name_by_name(real_data, tmp_path):
    official = (real_data.parent / "reference" / "visa_1cls.csv").read_text()
    (tmp_path / "split_csv").mkdir()
    (tmp_path / "split_csv/1cls.csv").write_text(official)
    (tmp_path / "candle/Data/Images").mkdir(parents=True)
    samples = {s.image_id: s for category in DATA.categories for s in DATA.list_samples(tmp_path, category)}
    rows = list(csv.DictReader(official.splitlines()))
    assert len(rows) == len(samples) == 10_821
    for row in rows:
        sample = samples[row["image"]]
        assert (sample.category, sample.split) == (row["object"], row["split"])
        assert sample.label == (row["label"] == "anomaly")
        assert sample.mask == (tmp_path / row["mask"] if row["mask"] else None)
    for category in DATA.categories:
        keys = [(sample.split, sample.label) for sample in samples.values() if sample.category == category]
        assert {key: keys.count(key) for key in set(keys)} == DATA.counts(category)
