"""Loading by name."""

import pytest

from jaxad.config import DataConfig
from jaxad.data import DataSet, load
from jaxad.errors import DataError


@pytest.fixture
def parts(tree) -> str:
    tree.category("screw", train=20, good=3, bad=4)
    tree.image("cap/good/a.png")
    tree.image("cap/good/b.png")
    return f"folder:{tree.root}"


def test_parts_of_a_folder(parts):
    data = load(parts)
    assert isinstance(data, DataSet)
    assert (data.name, data.train.name, data.categories) == (parts, f"{parts}/train", ("cap", "screw"))
    assert data.counts == {
        "cap": {"train": 1, "holdout": 1, "test_normal": 0, "test_anomalous": 0, "masks": 0},
        "screw": {"train": 15, "holdout": 5, "test_normal": 3, "test_anomalous": 4, "masks": 4},
    }
    assert not {r.file for r in data.train.records} & {r.file for r in data.holdout.records}
    assert {r.label for r in (*data.train.records, *data.holdout.records)} == {0}
    (problem,) = data.problems
    assert (problem.kind, problem.fatal) == ("small hold-out", False)
    assert "cap holds out 1" in problem.detail


def test_summary_is_a_table(parts):
    assert load(parts).summary().splitlines() == [
        "category  train  hold-out  test normal  test anomalous  masks",
        "cap           1         1            0               0      0",
        "screw        15         5            3               4      4",
        "all          16         6            3               4      4",
        "screw: scratch 4 (4 masks)",
    ]


def test_config(parts):
    data = load(parts, config=DataConfig(categories=("screw",), holdout=0))
    assert (data.categories, len(data.train), len(data.holdout), data.problems) == (("screw",), 20, 0, ())
    assert len(load(parts, config=DataConfig(holdout=0.5)).holdout) == 11


def test_loading_is_deterministic(parts):
    first, second = load(parts), load(parts, config=DataConfig(workers=1))
    assert first == second


def test_unverified_loading_only_lists(parts, tree):
    tree.text("screw/train/good/bad.png", "no image")
    assert len(load(parts, verify=False, config=DataConfig(holdout=0)).train) == 23
    with pytest.raises(DataError, match=r"screw/train/good/bad\.png: unreadable image"):
        load(parts)


def test_license_files_are_read(parts, tree):
    tree.text("LICENSE", "for research only\n")
    tree.text("screw/license.txt", "screws: CC BY")
    tree.text("cap/license.txt", "screws: CC BY")
    tree.text("readme.txt", "no license")
    assert load(parts).license == "for research only\n\nscrews: CC BY"
    tree.text("LICENSE", "x" * 10_000)
    assert len(load(parts).license) < 5000


def test_no_license_no_notes(parts, tree):
    tree.text("demo.json", "[1, 2]")
    data = load(parts)
    assert (data.license, data.notes) == ("", {})


def test_unknown_names_say_what_there_is(tree):
    with pytest.raises(DataError, match=r"no data set 'mvtec': give folder:PATH, csv:FILE or demo"):
        load("mvtec")
    tree.category("c")
    with pytest.raises(DataError, match=f"write folder:{tree.root}"):
        load(str(tree.root))


def test_a_folder_without_usable_images(tree):
    tree.text("c/train/good/a.png", "no image")
    with pytest.raises(DataError, match=r"no usable image(.|\n)*a\.png"):
        load(f"folder:{tree.root}", config=DataConfig(on_bad="skip"))


def test_validation_images_are_the_hold_out_of_their_category(parts, tree):
    for index in range(3):
        tree.image(f"screw/validation/good/{index}.png")
    data = load(parts)
    assert [r.identity for r in data.holdout.filter(("screw",)).records] == [
        f"screw/validation/good/{index}.png" for index in range(3)
    ]
    assert data.counts["screw"]["train"] == 20
    reasons = {problem.detail.partition(" ")[0]: problem.detail for problem in data.problems}
    assert reasons["screw"] == "screw holds out 3 images, not 5: its validation images"
    assert reasons["cap"].endswith("never more than half of them are held out")
    assert data.counts["cap"] == {"train": 1, "holdout": 1, "test_normal": 0, "test_anomalous": 0, "masks": 0}


def test_without_a_hold_out_validation_images_train(parts, tree):
    tree.image("screw/validation/good/0.png")
    data = load(parts, config=DataConfig(holdout=0))
    assert (data.counts["screw"]["train"], data.counts["screw"]["holdout"]) == (21, 0)


def test_a_data_set_is_named_by_a_line_and_shown_by_its_counts(parts):
    data = load(parts)
    assert repr(data) == f"<DataSet {parts}: 16 train, 6 hold-out, 7 test images of 2 categories>"
    assert repr(data.train) == f"<FolderSource {parts}/train: 16 images of 2 categories>"
    html = data._repr_html_()
    assert html.count("<tr>") == 3
    assert ">screw</th>" in html
