"""What is found in a folder, by name alone."""

import os
from pathlib import Path

import pytest

from jaxad.data.layout import photos, scan
from jaxad.data.layout.category import HINTS
from jaxad.errors import DataError
from jaxad.io.locks import locked


def identities(records) -> list[str]:
    return [record.identity for record in records]


def kinds(listing) -> dict[str, bool]:
    return {problem.kind: problem.fatal for problem in listing.problems}


def test_several_categories(tree):
    tree.category("screw")
    tree.category("bolt", train=1, good=0, bad=1)
    listing = scan(tree.root)
    assert identities(listing.train) == ["bolt/train/good/000.png", *(f"screw/train/good/00{i}.png" for i in range(4))]
    assert [(r.category, r.label, r.defect) for r in listing.test] == [
        ("bolt", 1, "scratch"),
        *[("screw", 0, "good")] * 2,
        *[("screw", 1, "scratch")] * 2,
    ]
    assert all(r.label == 0 and r.defect == "good" and r.mask is None for r in listing.train)
    bolt = listing.test[0]
    assert bolt.file == tree.root / "bolt/test/scratch/000.png"
    assert bolt.mask == tree.root / "bolt/ground_truth/scratch/000_mask.png"
    assert listing.problems == ()


def test_order_does_not_depend_on_creation(tree, tmp_path):
    for name in ("b", "a", "c"):
        tree.category(name)
    other = type(tree)(tmp_path / "other")
    for name in ("c", "b", "a"):
        other.category(name)
    assert identities(scan(tree.root).test) == identities(scan(other.root).test)


def test_a_folder_that_is_itself_a_category(tree, monkeypatch):
    tree.category("screw")
    listing = scan(tree.root / "screw")
    assert {r.category for r in listing.train} == {"screw"}
    assert listing.test[2].identity == "test/scratch/000.png"
    assert listing.test[2].mask is not None
    monkeypatch.chdir(tree.root / "screw")
    assert {r.category for r in scan(".").train} == {"screw"}


def test_nothing_but_good(tree):
    tree.image("cap/good/1.png")
    for root in (tree.root, tree.root / "cap"):
        listing = scan(root)
        assert [(r.category, r.label) for r in listing.train] == [("cap", 0)]
        assert listing.test == ()
        assert listing.problems == ()


def test_good_and_defects_without_train_and_test(tree):
    tree.image("cap/good/1.png")
    tree.image("cap/dent/1.png")
    tree.mask("cap/ground_truth/dent/1.png")
    listing = scan(tree.root)
    assert identities(listing.train) == ["cap/good/1.png"]
    assert [(r.defect, r.label, r.mask is not None) for r in listing.test] == [("dent", 1, True)]


def test_no_masks_no_defects(tree):
    tree.category("screw", bad=0)
    tree.image("bolt/train/good/0.png")
    tree.image("bolt/test/bad/0.png")
    listing = scan(tree.root)
    assert [(r.category, r.defect, r.mask) for r in listing.test if r.label] == [("bolt", "bad", None)]
    assert listing.problems == ()


@pytest.mark.parametrize(
    ("image", "mask"),
    [
        ("test/bad/a.png", "ground_truth/bad/a_mask.png"),
        ("test/bad/a.JPG", "ground_truth/bad/a.png"),
        ("test/bad/a.png", "ground_truth/bad/a.bmp"),
        ("Test/Bad/A.Png", "Ground_Truth/bad/a_MASK.PNG"),
        ("test/bad/a.b.png", "masks/bad/a.b_mask.png"),
        ("test/bad/cam1/a.png", "ground_truth/bad/cam1/a_mask.png"),
        ("test/OK/a.png", "ground_truth/good/a.png"),
    ],
)
def test_mask_name_rules(tree, image, mask):
    tree.image("c/train/good/x.png")
    tree.image(f"c/{image}")
    tree.mask(f"c/{mask}")
    (record,) = scan(tree.root).test
    assert record.mask == tree.root / "c" / mask
    assert kinds(scan(tree.root)) == {}


@pytest.mark.parametrize("masks", ["test_masks", "Test Labels"])
def test_masks_beside_test_that_are_named_after_it(tree, masks):
    tree.image("c/train/good/x.png")
    tree.image("c/test/crack/000.png")
    tree.mask(f"c/{masks}/000.png")
    listing = scan(tree.root)
    assert listing.test[0].mask == tree.root / f"c/{masks}/000.png"
    assert kinds(listing) == {}


@pytest.mark.parametrize("masks", ["ok_masks", "mask_normal"])
@pytest.mark.parametrize("folder", ["test/ok", "normal"])
def test_masks_of_normal_images_are_named_by_any_word_for_these(tree, masks, folder):
    for file in (f"{folder}/000.png", "test/crack/000.png" if folder == "test/ok" else "crack/000.png"):
        tree.image(f"c/{file}")
    tree.mask(f"c/{masks}/000.png", empty=True)
    listing = scan(tree.root)
    found = {(r.defect, r.mask) for r in (*listing.train, *listing.test)}
    assert found == {("good", tree.root / f"c/{masks}/000.png"), ("crack", None)}
    assert "mask without image" not in kinds(listing)


def test_masks_named_after_train_are_none_of_test_images(tree):
    for part in ("train/good", "validation/good", "test/crack"):
        tree.image(f"c/{part}/000.png")
    for part in ("train", "val"):
        tree.mask(f"c/{part}_masks/000.png", empty=True)
    listing = scan(tree.root)
    assert [r.mask for r in listing.train] == [tree.root / "c/train_masks/000.png"]
    assert [r.mask for r in listing.validation] == [tree.root / "c/val_masks/000.png"]
    assert [r.mask for r in listing.test] == [None]


def test_of_many_masks_without_image_some_are_compared_with_all_names(tree, monkeypatch):
    tree.category("c")
    for index in range(HINTS + 5):
        tree.mask(f"c/ground_truth/scratch/stray{index}_mask.png")
    compared = []
    monkeypatch.setattr("difflib.get_close_matches", lambda name, *_, **__: compared.append(name) or [])
    listing = scan(tree.root)
    assert [problem.kind for problem in listing.problems] == ["mask without image"] * (HINTS + 5)
    assert len([name for name in compared if name.startswith("stray")]) == HINTS


def test_same_name_in_another_defect_is_not_the_mask(tree):
    tree.category("c", bad=0)
    tree.image("c/test/dent/000.png")
    tree.mask("c/ground_truth/scratch/000_mask.png")
    listing = scan(tree.root)
    assert listing.test[0].mask is None
    assert kinds(listing) == {"mask without image": True}


@pytest.mark.parametrize("end", ["png", "PNG", "jpg", "JPeG", "bmp", "tif", "tiff", "webp", "gif", "pgm"])
def test_extensions_in_any_case(tree, end):
    tree.text(f"c/train/good/a.{end}")
    assert identities(scan(tree.root).train) == [f"c/train/good/a.{end}"]


def test_hidden_and_system_files_are_ignored(tree):
    tree.category("c")
    for name in (".DS_Store", "._000.png", "Thumbs.db", "desktop.ini"):
        tree.text(f"c/train/good/{name}")
        tree.text(f"c/ground_truth/scratch/{name}")
    tree.image(".cache/train/good/a.png")
    tree.image("__MACOSX/train/good/a.png")
    listing = scan(tree.root)
    assert len(listing.train) == 4
    assert listing.problems == ()


def test_only_what_this_process_is_writing_is_no_data(tree):
    """A lock that a killed process left, or another one holds, takes no category away."""
    tree.category("c")
    tree.text("c/.lock")
    tree.category("run")
    assert {record.category for record in scan(tree.root).train} == {"c", "run"}
    with locked(tree.root / "run/.lock", "run"):
        assert {record.category for record in scan(tree.root).train} == {"c"}


def test_files_beside_the_categories_are_no_problem(tree):
    tree.category("c")
    tree.text("readme.txt")
    tree.text("c/license.txt")
    assert scan(tree.root).problems == ()


def test_what_is_left_out_is_noted(tree):
    tree.category("c")
    tree.text("c/train/good/a.heic")
    tree.image("c/train/bad/a.png")
    tree.image("c/test/a.png")
    tree.image("c/spare/good/a.png")
    tree.image("c/beside.png")
    tree.image("beside.png")
    tree.image("loose/a.png")
    tree.text("docs/a.txt")
    listing = scan(tree.root)
    files = {(problem.kind, Path(problem.file).relative_to(tree.root).as_posix()) for problem in listing.problems}
    assert files == {
        ("ignored file", "c/train/good"),
        ("ignored folder", "c/train/bad"),
        ("unlabeled image", "c/test"),
        ("ignored folder", "c/spare"),
        ("ignored file", "c"),
        ("ignored file", "."),
        ("ignored folder", "loose"),
    }
    assert not any(problem.fatal for problem in listing.problems)
    assert [r.label for r in listing.test if r.identity == "c/test/a.png"] == [None]


def test_test_only_category_is_noted(tree):
    tree.category("c", train=0)
    assert kinds(scan(tree.root)) == {"no training image": False}


def test_empty_categories(tree):
    tree.category("c")
    (tree.root / "hollow/train/good").mkdir(parents=True)
    (tree.root / "void").mkdir()
    tree.text("texts/train/good/a.txt")
    problems = [problem for problem in scan(tree.root).problems if problem.fatal]
    assert {problem.kind for problem in problems} == {"empty category"}
    assert {Path(problem.file).name for problem in problems} == {"hollow", "void", "texts"}


def test_image_without_mask_is_noted(tree):
    tree.category("c", bad=2)
    tree.image("c/test/dent/7.png")
    (problem,) = scan(tree.root).problems
    assert (problem.kind, problem.fatal) == ("image without mask", False)
    assert problem.file.endswith("dent/7.png")


def test_links_are_read_but_never_in_circles(tree):
    tree.category("c")
    tree.image("elsewhere/pile/z.png")
    inside = tree.root / "c/train/good"
    (inside / "linked.png").symlink_to(tree.root / "elsewhere/pile/z.png")
    (inside / "linked").symlink_to(tree.root / "elsewhere/pile", target_is_directory=True)
    (inside / "self").symlink_to(inside, target_is_directory=True)
    (inside / "up").symlink_to(tree.root, target_is_directory=True)
    (tree.root / "c/test/loop").symlink_to(tree.root / "c", target_is_directory=True)
    (tree.root / "elsewhere/pile/back").symlink_to(inside, target_is_directory=True)
    found = identities(scan(tree.root).train)
    assert found == [
        *(f"c/train/good/00{i}.png" for i in range(4)),
        "c/train/good/linked.png",
        "c/train/good/linked/z.png",
    ]
    assert {r.defect for r in scan(tree.root).test} == {"good", "scratch"}


def test_links_to_nothing_are_named(tree):
    tree.category("c")
    for name, target in (("gone.png", "nowhere.png"), ("good", "elsewhere")):
        (tree.root / "c/train/good" / name).symlink_to(tree.root / target)
    problems = scan(tree.root).problems
    assert [(problem.kind, Path(problem.file).name, problem.fatal) for problem in problems] == [
        ("dangling link", "gone.png", True),
        ("dangling link", "good", False),
    ]
    assert all(name in text.detail for name, text in zip(("nowhere.png", "elsewhere"), problems, strict=True))
    assert [file.name for file in photos(tree.root / "c/train").files][-1] == "gone.png"


def test_choice_of_categories(tree):
    for name in ("a", "b", "c"):
        tree.category(name)
    assert {r.category for r in scan(tree.root, ("a", "c")).train} == {"a", "c"}
    with pytest.raises(DataError, match=r"no category d, e; there are a, b, c"):
        scan(tree.root, ("a", "d", "e"))


def test_folders_that_hold_no_data(tree, tmp_path):
    with pytest.raises(DataError, match="no such folder"):
        scan(tmp_path / "missing")
    tree.text("only/readme.txt")
    with pytest.raises(DataError, match="holds no category"):
        scan(tree.root)


def test_photos_are_sorted_and_deep(tree):
    for name in ("b.png", "a/z.JPG", "a/c/y.tif"):
        tree.text(name)
    tree.text("a/notes.txt")
    os.symlink(tree.root, tree.root / "a/loop")
    assert [f.relative_to(tree.root).as_posix() for f in photos(tree.root).files] == ["b.png", "a/z.JPG", "a/c/y.tif"]
