"""Captions in the published layouts, attached by image."""

import json
from pathlib import Path

import pytest

from jaxad.data.captions.attach import MISSING, Captions
from jaxad.data.captions.writing import write_captions
from jaxad.errors import DataError

IDS = ("zipper/train/good/002.png", "bottle/train/good/000.png", "bottle/train/good/001.png")
TEXTS = ("a zipper", "a bottle", "another bottle")


def write(folder: Path, name: str, content) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(json.dumps(content))
    return folder / name


def publish(root: Path, ids=IDS, texts=TEXTS, part: str = "", split: str = "train") -> Path:
    folder = root / "mvtec_captions_internvl_pd"
    write(folder, f"{split}_captions_mvtec_internvl{part}.json", list(texts))
    write(folder, f"{split}_labels_mvtec_internvl{part}.json", list(ids))
    return folder


def kinds(captions: Captions, ids) -> dict[str, list[str]]:
    found = {}
    for problem in captions.check(ids):
        found.setdefault(problem.kind, []).append(problem.detail)
    return found


def test_a_folder(tmp_path):
    captions = Captions.load(publish(tmp_path))
    assert (captions.ids, captions.texts, captions.numbered) == (IDS, TEXTS, False)
    assert captions.check(IDS) == []
    assert captions.attach(IDS) == captions
    with pytest.raises(DataError, match=r"no file test_captions_\*\.json"):
        Captions.load(publish(tmp_path), "test")


def test_one_file(tmp_path):
    folder = publish(tmp_path, part="_0_3")
    publish(tmp_path, IDS[:1], ("of the test",), split="test")
    assert Captions.load(folder / "train_captions_mvtec_internvl_0_3.json").texts == TEXTS
    assert Captions.load(folder, "test").texts == ("of the test",)


def test_parts_are_joined_by_number(tmp_path):
    ids = [f"c/train/good/{i:04d}.png" for i in range(1500)]
    texts = [f"text {i}" for i in range(1500)]
    # 1000 sorts before 500 as text; the last part's name says more than there is.
    for start, end in ((0, 500), (500, 1000), (1000, 2000)):
        publish(tmp_path, ids[start:end], texts[start:end], f"_{start}_{end}")
    captions = Captions.load(tmp_path / "mvtec_captions_internvl_pd")
    assert captions.ids == tuple(ids)
    assert captions.texts == tuple(texts)


def test_parts_that_do_not_join(tmp_path):
    publish(tmp_path, IDS[:1], TEXTS[:1], "_1_2")
    publish(tmp_path, IDS[:1], TEXTS[:1], "_3_4")
    publish(tmp_path, IDS[:2], TEXTS[:2], "_3_5")
    with pytest.raises(DataError) as caught:
        Captions.load(tmp_path / "mvtec_captions_internvl_pd")
    for detail in ("2 to 3 is missing", "3 to 4 is there twice", "0 to 1 is missing"):
        assert detail in str(caught.value)


def test_a_part_that_is_cut_off(tmp_path):
    publish(tmp_path, IDS[:1], TEXTS[:1], "_0_2")
    publish(tmp_path, IDS[2:], TEXTS[2:], "_2_4")
    with pytest.raises(DataError, match=r"_0_2\.json: parts do not join: 1 captions, but 0 to 2 are 2"):
        Captions.load(tmp_path / "mvtec_captions_internvl_pd")


def test_several_captioners_in_one_folder(tmp_path):
    folder = publish(tmp_path)
    write(folder, "train_captions_mvtec_blip.json", [])
    with pytest.raises(DataError, match="holds train_captions_mvtec_blip, train_captions_mvtec_internvl; give"):
        Captions.load(folder)


def test_a_whole_file_beside_parts(tmp_path):
    publish(tmp_path, IDS[:2], TEXTS[:2], part="_0_2")
    publish(tmp_path)
    with pytest.raises(DataError, match="one file is whole, others are parts"):
        Captions.load(tmp_path / "mvtec_captions_internvl_pd")


def test_labels_with_the_folder_of_another_machine(tmp_path):
    captions = Captions.load(publish(tmp_path, [f"/mnt/data/mvtec/{i}" for i in IDS]))
    assert captions.attach(IDS).texts == TEXTS
    windows = Captions.load(publish(tmp_path, ["C:\\data\\" + i.replace("/", "\\") for i in IDS]))
    assert windows.attach(IDS).texts == TEXTS


def test_everything_that_does_not_fit_is_listed(tmp_path):
    ids = ("a/2.png", "a/1.png", "a/1.png", "b/9.png", "a/3.png")
    captions = Captions.load(publish(tmp_path, ids, "vwxyz"))
    ours = ("a/1.png", "a/2.png", "a/3.png", "a/4.png", "a/5.png")
    assert kinds(captions, ours) == {
        "missing caption": ["a/4.png has no caption", "a/5.png has no caption"],
        "duplicate caption": ["a/1.png has 2 captions, keep one"],
        "surplus caption": ["b/9.png is no image of the data set"],
    }
    assert [problem.kind for problem in captions.check(ours) if problem.fatal] == ["duplicate caption"]
    with pytest.raises(DataError) as caught:
        captions.attach(ours)
    assert [problem.kind for problem in caught.value.problems] == ["duplicate caption"]


def test_a_shuffled_list_is_matched_by_its_labels(tmp_path):
    places = [2, 0, 1]
    ids, texts = ([every[place] for place in places] for every in (IDS, TEXTS))
    captions = Captions.load(publish(tmp_path, [f"/home/someone/mvtec/{i}" for i in ids], texts))
    assert captions.check(IDS) == []
    assert captions.attach(IDS).texts == TEXTS


def test_missing_captions_are_empty(tmp_path):
    captions = Captions.load(publish(tmp_path))
    assert captions.attach(("bottle/train/good/007.png", IDS[0])).texts == ("", "a zipper")


def test_many_problems_are_counted(tmp_path):
    problems = Captions.load(publish(tmp_path)).check([f"c/{i}.png" for i in range(200)])
    missing = [problem.detail for problem in problems if problem.kind == MISSING]
    assert len(missing) == 51
    assert missing[-1] == "and 150 more"


def test_coco_annotations(tmp_path):
    entries = [{"id": 0, "image_id": "9", "caption": "a bowl"}, {"id": 1, "image_id": 139, "caption": "a room"}]
    captions = Captions.load(
        write(tmp_path / "annotations", "captions_train2017_internvl.json", {"annotations": entries})
    )
    assert captions.ids == ("000000000009", "000000000139")
    # A split has only some of COCO's images, in another order.
    ids = ("train2017/000000000139.jpg", "train2017/000000000009.jpg")
    assert captions.attach(ids).texts == ("a room", "a bowl")
    assert captions.attach(ids[:1]).texts == ("a room",)
    twice = write(tmp_path, "captions_val2017_blip.json", {"annotations": [*entries, entries[0]]})
    assert kinds(Captions.load(twice), ids) == {"duplicate caption": ["000000000009 has 2 captions, keep one"]}


def test_coco_captions_by_people_are_joined(tmp_path):
    entries = [{"image_id": 9, "caption": text} for text in ("A bowl. ", "Some food")]
    captions = Captions.load(write(tmp_path, "captions_train2017.json", {"annotations": entries}))
    assert (captions.ids, captions.texts) == (("000000000009",), ("A bowl. Some food",))


def test_coco_lists_before_conversion(tmp_path):
    folder = tmp_path / "coco_captions_internvl_pd"
    write(folder, "train_captions_coco_internvl.json", ["a bowl", ["a room"]])
    write(folder, "train_labels_coco_internvl.json", [["9"], [139]])
    captions = Captions.load(folder)
    assert captions.numbered
    assert captions.attach(["train2017/000000000139.jpg"]).texts == ("a room",)


@pytest.mark.parametrize(
    ("captions", "labels", "message"),
    [
        ({"a": "b"}, [], "train_captions_mvtec_internvl.json: wrong entry: the file: must be a list, is an object"),
        (["a", 3], ["x", "y"], r"wrong entry: \[1\]: must be a text, is a whole number"),
        (["a"], [None], r"train_labels_mvtec_internvl.json: wrong entry: \[0\]: must be a text, is null"),
        (["a"], ["x", "y"], "unequal length: 1 captions, but 2 labels"),
        (["a", "b"], ["x", ["7"]], "some labels are paths, others image numbers"),
        (["a"], [["seven"]], "a list holds a COCO image number, not 'seven'"),
    ],
)
def test_wrong_lists(tmp_path, captions, labels, message):
    with pytest.raises(DataError, match=message):
        Captions.load(
            publish(tmp_path, labels, captions) if isinstance(captions, list) else _object(tmp_path, captions)
        )


def _object(root: Path, captions: dict) -> Path:
    folder = publish(root)
    write(folder, "train_captions_mvtec_internvl.json", captions)
    return folder


def test_damaged_files(tmp_path):
    folder = publish(tmp_path)
    (folder / "train_captions_mvtec_internvl.json").write_text('["a", ')
    with pytest.raises(DataError, match=r"damaged JSON: line 1, column 7: .*the file ends there, get it again"):
        Captions.load(folder)
    (folder / "train_captions_mvtec_internvl.json").write_bytes(b'["\xff"]')
    (folder / "train_labels_mvtec_internvl.json").unlink()
    with pytest.raises(DataError, match="byte 2 is not UTF-8"):
        Captions.load(folder)
    publish(tmp_path)
    (folder / "train_labels_mvtec_internvl.json").unlink()
    with pytest.raises(DataError, match=r"train_labels_mvtec_internvl\.json: unreadable JSON: No such file"):
        Captions.load(folder)
    coco = write(
        tmp_path, "captions_val2017_x.json", {"annotations": [{"image_id": 1.5, "caption": "a"}, {"image_id": 1}]}
    )
    with pytest.raises(DataError) as caught:
        Captions.load(coco)
    assert "annotations[0].image_id: must be a whole number or a text, is a number" in str(caught.value)
    assert "annotations[1].caption: is missing" in str(caught.value)


def test_test_images_that_are_written_again_beside_every_part(tmp_path):
    """As the authors' captioner does, whose files of test images have the names of its training images' parts."""
    publish(tmp_path, part="_0_2", split="test")
    folder = publish(tmp_path, part="_2_4", split="test", texts=("other", "words", "now"))
    found = Captions.load(folder, "test")
    assert (found.ids, found.texts) == (IDS, TEXTS)
    # Of training images each part has its own.
    for part in ("_0_3", "_3_6"):
        publish(tmp_path, part=part)
    assert len(Captions.load(folder).ids) == 6


def test_image_numbers_without_a_list(tmp_path):
    folder = publish(tmp_path, ["9", "139", "000000000030"])
    found = Captions.load(folder)
    assert found.attach(["train2017/000000000030.jpg", "train2017/000000000009.jpg"]).texts == (TEXTS[2], TEXTS[0])


def test_written_captions_are_read_back(tmp_path):
    folder = write_captions(tmp_path, "mvtec", "internvl", "pa", "train", IDS, lambda images: TEXTS)
    assert folder == tmp_path / "mvtec_captions_internvl_pa"
    assert sorted(file.name for file in folder.iterdir()) == [
        "train_captions_mvtec_internvl.json",
        "train_labels_mvtec_internvl.json",
    ]
    assert Captions.load(folder).attach(IDS).texts == TEXTS
    coco = write_captions(
        tmp_path, "coco", "blip2", "pd", "test", ["val2017/000000000139.jpg"], lambda images: ["Ä room"], numbered=True
    )
    assert json.loads((coco / "test_labels_coco_blip2.json").read_text()) == [["139"]]
    assert Captions.load(coco, "test").attach(["val2017/000000000139.jpg"]).texts == ("Ä room",)


@pytest.mark.parametrize("line", ['["a"]', '["a", 3]', "{}", "3", '["a", "b", "c"]', "[[[["])
def test_journals_of_anything_else_are_named(tmp_path, line):
    arguments = (tmp_path, "mvtec", "internvl", "pd", "train", IDS)
    journal = tmp_path / "mvtec_captions_internvl_pd" / "train_captions_mvtec_internvl.journal"
    journal.parent.mkdir()
    journal.write_text(f"{line}\n")
    with pytest.raises(DataError, match=r"train_captions_mvtec_internvl\.journal"):
        write_captions(*arguments, lambda images: TEXTS)
