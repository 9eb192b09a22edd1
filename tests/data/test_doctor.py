"""The data-set doctor finds every kind of bad input, all in one go."""

import dataclasses

import numpy as np
import pytest
from PIL import Image

from jaxad.config import DataConfig
from jaxad.data.dataset import load
from jaxad.errors import DataError

SKIP = DataConfig(on_bad="skip", holdout=0)


def check(root, **settings):
    """Everything wrong with a folder, fatal problems first."""
    problems = load(f"folder:{root}", config=dataclasses.replace(SKIP, **settings)).problems
    return sorted(problems, key=lambda problem: not problem.fatal)


def truncate(file):
    data = file.read_bytes()
    file.write_bytes(data[: len(data) // 2])


def unreadable(tree):
    return tree.text("c/train/good/bad.png", "no image")


def truncated(tree):
    file = tree.image("c/test/good/cut.png", (40, 40))
    truncate(file)
    return file


def unsupported(tree):
    return tree.write("c/train/good/float.tif", Image.fromarray(np.zeros((12, 10), np.float32)))


def mask_size(tree):
    tree.image("c/test/scratch/odd.png", (12, 10))
    return tree.mask("c/ground_truth/scratch/odd_mask.png", (10, 12))


def unreadable_mask(tree):
    tree.image("c/test/scratch/odd.png")
    return tree.text("c/ground_truth/scratch/odd_mask.png", "no mask")


def empty_mask(tree):
    tree.image("c/test/scratch/odd.png")
    return tree.mask("c/ground_truth/scratch/odd_mask.png", empty=True)


def mask_on_normal(tree):
    tree.image("c/test/good/odd.png")
    return tree.mask("c/ground_truth/good/odd.png")


def leaked(tree):
    tree.image("c/test/good/leak.png", seed=7)
    tree.image("c/train/good/leak.bmp", seed=7)
    return tree.root / "c/train/good/leak.bmp"


def stray_mask(tree):
    return tree.mask("c/ground_truth/scratch/stray_mask.png")


def empty_category(tree):
    folder = tree.root / "hollow/train/good"
    folder.mkdir(parents=True)
    return tree.root / "hollow"


def same_in_train(tree):
    tree.image("c/train/good/x1.png", seed=7)
    return tree.image("c/train/good/x2.bmp", seed=7)


def same_in_test(tree):
    tree.image("c/test/good/x1.png", seed=7)
    return tree.image("c/test/good/x2.bmp", seed=7)


def gray_mask(tree):
    tree.image("c/test/scratch/soft.png")
    tree.save(
        "c/ground_truth/scratch/soft_mask.png", np.maximum(np.arange(120) - 20, 0).astype(np.uint8).reshape(12, 10)
    )
    return "c"


def no_mask(tree):
    return tree.image("c/test/scratch/bare.png")


FATAL = {
    "unreadable image": unreadable,
    "truncated image": truncated,
    "unsupported mode": unsupported,
    "mask size": mask_size,
    "unreadable mask": unreadable_mask,
    "empty mask": empty_mask,
    "mask on normal image": mask_on_normal,
    "duplicate in train and test": leaked,
    "mask without image": stray_mask,
    "empty category": empty_category,
}
NOTES = {
    "duplicate in train": same_in_train,
    "duplicate in test": same_in_test,
    "image without mask": no_mask,
    "gray mask": gray_mask,
}
DROPPED = {
    "unreadable image": "c/train/good/bad.png",
    "truncated image": "c/test/good/cut.png",
    "unsupported mode": "c/train/good/float.tif",
    "mask size": "c/test/scratch/odd.png",
    "unreadable mask": "c/test/scratch/odd.png",
    "empty mask": "c/test/scratch/odd.png",
    "mask on normal image": "c/test/good/odd.png",
    "duplicate in train and test": "c/train/good/leak.bmp",
}


def test_a_sound_folder_has_no_problem(tree):
    tree.category("c")
    assert check(tree.root) == []


@pytest.mark.parametrize("kind", [*FATAL, *NOTES])
def test_every_kind(tree, kind):
    tree.category("c")
    file = {**FATAL, **NOTES}[kind](tree)
    (problem,) = check(tree.root)
    assert (problem.kind, problem.file, problem.fatal) == (kind, str(file), kind in FATAL)
    assert problem.detail


@pytest.mark.parametrize("kind", FATAL)
def test_stop_and_skip(tree, kind):
    tree.category("c")
    before = load(f"folder:{tree.root}", config=SKIP)
    file = FATAL[kind](tree)
    with pytest.raises(DataError) as caught:
        load(f"folder:{tree.root}")
    assert str(file) in str(caught.value)
    assert "on_bad = skip" in str(caught.value)
    after = load(f"folder:{tree.root}", config=SKIP)
    assert [problem.kind for problem in after.problems] == [kind]
    assert after.categories == ("c",)
    kept = {r.identity for r in (*after.train.records, *after.test.records)}
    assert kept >= {r.identity for r in (*before.train.records, *before.test.records)}
    assert DROPPED.get(kind) not in kept


@pytest.mark.parametrize("kind", NOTES)
def test_notes_neither_stop_nor_drop(tree, kind):
    tree.category("c")
    NOTES[kind](tree)
    data = load(f"folder:{tree.root}", config=DataConfig(holdout=0))
    assert [problem.kind for problem in data.problems] == [kind]
    assert len(data.train) + len(data.test) == 8 + {"image without mask": 1, "gray mask": 1}.get(kind, 2)


def test_decompression_bomb(tree, monkeypatch):
    tree.category("c")
    file = tree.image("c/train/good/big.png", (40, 40))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1500)
    with pytest.warns(Image.DecompressionBombWarning):
        (problem,) = check(tree.root)
    assert (problem.kind, problem.file, problem.fatal) == ("decompression bomb", str(file), True)


def test_every_bad_file_is_in_one_message(tree):
    tree.category("c")
    tree.category("d")
    files = [str(make(tree)) for kind, make in FATAL.items() if kind not in ("unreadable mask", "empty mask")]
    notes = [str(make(tree)) for make in (no_mask,)]
    with pytest.raises(DataError) as caught:
        load(f"folder:{tree.root}")
    message = str(caught.value)
    assert all(file in message for file in files)
    assert not any(note in message for note in notes)
    assert {problem.kind for problem in caught.value.problems} == set(FATAL) - {"unreadable mask", "empty mask"}
    problems = check(tree.root, workers=4)
    assert {problem.file for problem in problems} == {*files, *notes}
    assert [problem.fatal for problem in problems] == [True] * len(files) + [False]
    assert problems == check(tree.root, workers=1)


def test_leak_across_categories_and_formats(tree):
    tree.category("a")
    tree.category("b")
    tree.image("a/train/good/leak.png", seed=3)
    twin = tree.image("b/test/scratch/twin.tif", seed=3)
    tree.mask("b/ground_truth/scratch/twin.png")
    (problem,) = check(tree.root)
    assert problem.kind == "duplicate in train and test"
    assert str(twin) in problem.detail


def test_a_mask_of_wrong_size_and_empty_has_two_problems(tree):
    tree.category("c")
    tree.image("c/test/scratch/odd.png")
    tree.mask("c/ground_truth/scratch/odd_mask.png", (20, 20), empty=True)
    assert {problem.kind for problem in check(tree.root)} == {"mask size", "empty mask"}


def test_black_mask_of_a_normal_image_is_fine(tree):
    tree.category("c")
    tree.mask("c/ground_truth/good/000_mask.png", empty=True)
    assert check(tree.root) == []


def test_only_chosen_categories_are_examined(tree):
    tree.category("a")
    tree.category("b")
    tree.text("b/train/good/bad.png")
    assert check(tree.root, categories=("a",)) == []
    assert len(check(tree.root, categories=("b",))) == 1


def test_several_bad_images_in_threads_come_in_order(tree):
    tree.category("c", train=40)
    files = [str(tree.text(f"c/train/good/{index:03d}.png", "bad")) for index in range(0, 40, 3)]
    assert [problem.file for problem in check(tree.root, workers=4)] == files


def test_gray_masks_are_cut_where_the_note_says(tree):
    tree.category("c")
    gray_mask(tree)
    for level in (3, 200):
        codes = np.zeros((12, 10), np.uint8)
        codes[4:8] = level
        tree.image(f"c/test/scratch/code{level}.png")
        tree.save(f"c/ground_truth/scratch/code{level}.png", codes)
    (note,) = check(tree.root)
    assert "1 masks hold several values above 0, 1 to 99; every pixel above 0 counts as defect" in note.detail
    data = load(f"folder:{tree.root}", config=SKIP)
    marked = {r.file.stem: int(data.test.mask(i).sum()) for i, r in enumerate(data.test.records) if r.mask}
    assert marked == {"000": 9, "001": 9, "soft": 99, "code3": 40, "code200": 40}


def test_sizes_and_kinds_of_images(tree):
    tree.category("a", train=3, good=1, bad=1)
    tree.write("a/train/good/gray.jpg", Image.fromarray(np.zeros((7, 9), np.uint8)))
    tree.image("b/good/x.bmp", (4, 6))
    images = load(f"folder:{tree.root}", config=SKIP).images
    assert images == {
        "a": {"sizes": {"10 x 12": 5, "9 x 7": 1}, "kinds": {"JPEG L": 1, "PNG RGB": 5}},
        "b": {"sizes": {"6 x 4": 1}, "kinds": {"BMP RGB": 1}},
    }
    assert load(f"folder:{tree.root}", config=SKIP, verify=False).images == {}


def test_labels_that_contradict_each_other_are_fatal_on_both_sides(tree):
    tree.category("c")
    files = [tree.image(f"c/test/{folder}/twin.png", seed=7) for folder in ("good", "scratch")]
    tree.mask("c/ground_truth/scratch/twin.png")
    found = check(tree.root)
    assert [(problem.kind, problem.file) for problem in found] == [("contradictory labels", str(f)) for f in files]
    assert all(str(f) in p.detail for f, p in zip(reversed(files), found, strict=True))
    left = load(f"folder:{tree.root}", config=SKIP).test
    assert "twin.png" not in {record.file.name for record in left.records}


def test_the_same_pixels_in_two_categories_or_kinds_of_defect_are_no_contradiction(tree):
    tree.category("c")
    tree.category("d")
    tree.image("c/test/good/twin.png", seed=7)
    tree.image("d/test/scratch/twin.png", seed=7)
    tree.image("d/test/dent/twin.png", seed=7)
    kinds = [problem.kind for problem in check(tree.root)]
    assert sorted(kinds) == ["duplicate in test"] * 2 + ["image without mask"] * 2


def test_a_leak_names_the_label_of_its_twin(tree):
    tree.category("c")
    tree.image("c/train/good/twin.png", seed=7)
    tree.image("c/test/scratch/twin.png", seed=7)
    assert any("labeled scratch" in problem.detail for problem in check(tree.root))


def test_a_training_image_among_the_validation_images_is_dropped_from_training(tree):
    tree.category("c", train=8)
    tree.image("c/train/good/twin.bmp", seed=7)
    tree.image("c/validation/good/twin.png", seed=7)
    problem = check(tree.root, holdout=0.1)[0]
    assert (problem.kind, problem.file.endswith("twin.bmp")) == ("duplicate in train and validation", True)
    # Without a hold-out both are trained on, but whoever asks what is wrong is told.
    assert [problem.kind for problem in check(tree.root)] == ["duplicate in train"]
    asked = load(f"folder:{tree.root}", config=SKIP, verify=True)
    assert [problem.kind for problem in asked.problems] == ["duplicate in train and validation"]
    assert len(load(f"folder:{tree.root}", config=DataConfig(holdout=0)).train) == 10
    left = load(f"folder:{tree.root}", config=DataConfig(on_bad="skip", holdout=0.1))
    assert len(left.train) == 8
    assert [record.file.name for record in left.holdout.records] == ["twin.png"]


def test_masks_among_images_are_found_where_normal_images_are_photos(tree):
    tree.category("c")
    tree.mask("c/test/shapes/a.png")
    (problem,) = (problem for problem in check(tree.root) if problem.fatal)
    assert (problem.kind, problem.file.endswith("shapes/a.png")) == ("mask among images", True)
    # Parts before a light table are black and white themselves.
    tree.mask("c/train/good/shape.png", size=(11, 11))
    assert not [problem for problem in check(tree.root) if problem.fatal]


def test_a_black_frame_is_no_mask(tree):
    tree.category("c")
    tree.mask("c/test/scratch/dark.png", empty=True)
    assert not [problem for problem in check(tree.root) if problem.fatal]


@pytest.mark.parametrize(("rows", "notes"), [(12, ["large mask"]), (11, ["large mask"]), (10, [])])
def test_masks_of_nearly_the_whole_image(tree, rows, notes):
    tree.category("c")
    tree.image("c/test/scratch/big.png")
    mask = np.zeros((12, 10), np.uint8)
    mask[:rows] = 255
    tree.save("c/ground_truth/scratch/big.png", mask)
    assert [problem.kind for problem in check(tree.root)] == notes


def test_the_hold_out_has_no_twins_in_training(tree):
    tree.category("c", train=20)
    for file in sorted((tree.root / "c/train/good").iterdir()):
        Image.open(file).save(file.with_suffix(".bmp"))
    for verify in (True, False):
        data = load(f"folder:{tree.root}", verify=verify)
        assert len(data.holdout) == 4
        digests = [{source.digest(index) for index in range(len(source))} for source in (data.train, data.holdout)]
        assert not digests[0] & digests[1]
