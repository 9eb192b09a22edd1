"""What of a folder is judged: no masks, no thumbnails, no earlier results."""

from __future__ import annotations

from jaxad.data.images import ImageList
from jaxad.data.layout import photos, scan
from jaxad.testing import make_parts


def names(root, files):
    return [file.relative_to(root).as_posix() for file in files]


def test_masks_of_a_benchmark_are_not_photos(tmp_path):
    root = make_parts(tmp_path / "parts", ("disc",), train=1, test=2)
    found = photos(root)
    assert names(root, found.masks) == ["disc/ground_truth/blot/000_mask.png", "disc/ground_truth/blot/001_mask.png"]
    assert len(found.files) == 5
    assert "2 masks" in found.left_out()
    # Whoever names the folder of masks itself has them.
    assert len(photos(root / "disc/ground_truth/blot").files) == 2


def test_masks_and_thumbnails_beside_photos_are_not_photos(tree):
    for stem in ("a", "b"):
        tree.image(f"{stem}.png", seed=ord(stem))
    tree.image("a_thumb.png", seed=3)
    (tree.root / "b_mask.png").write_bytes(_mask())
    found = photos(tree.root)
    assert names(tree.root, found.files) == ["a.png", "b.png"]
    assert (names(tree.root, found.copies), names(tree.root, found.masks)) == (["a_thumb.png"], ["b_mask.png"])


def test_photos_in_folders_with_names_of_masks_are_photos(tree):
    """Labels are parts too: what the pictures hold decides."""
    tree.image("labels/a.png", seed=1)
    tree.image("overlay/b.png", seed=2)
    assert names(tree.root, photos(tree.root).files) == ["labels/a.png", "overlay/b.png"]


def test_pictures_of_earlier_results_are_not_photos(tree):
    tree.image("a.png", seed=1)
    for kind in ("overlay", "mask"):
        tree.image(f"out/{kind}/a.png", seed=2)
    tree.image("out/own/b.png", seed=3)
    (tree.root / "out/predictions.jsonl").write_text("")
    found = photos(tree.root)
    assert names(tree.root, found.files) == ["a.png", "out/own/b.png"]
    assert len(found.results) == 2


def test_pictures_of_an_evaluation_are_not_photos(tree):
    """Those that lie there without what jaxad writes beside them are."""
    tree.image("a.png", seed=1)
    for place in ("out/pictures/overlay/a", "out/pictures/explained/input/a", "out/sheet", "out/own/b"):
        tree.image(f"{place}.png", seed=2)
    tree.image("pictures/c.png", seed=3)
    tree.image("more/sheet.png", seed=4)
    (tree.root / "out/report.json").write_text("{}")
    (tree.root / "out/pictures/pictures.json").write_text("{}")
    found = photos(tree.root)
    assert sorted(names(tree.root, found.files)) == ["a.png", "more/sheet.png", "out/own/b.png", "pictures/c.png"]
    assert len(found.results) == 3
    assert "3 pictures of earlier results" in found.left_out()
    assert not found.others


def test_results_in_a_category_are_no_kind_of_defect(tree):
    for place in ("good/a", "good/b", "cut/c"):
        tree.image(f"part/{place}.png", seed=len(place))
    before = scan(tree.root)
    tree.image("part/out/overlay/c.png", seed=5)
    tree.image("part/out/sheet.png", seed=6)
    (tree.root / "part/out/predictions.jsonl").write_text("")
    (tree.root / "part/out/report.json").write_text("{}")
    after = scan(tree.root)
    assert [record.file for record in after.test] == [record.file for record in before.test]
    assert not any(problem.fatal for problem in after.problems)


def test_lists_say_what_was_left_out_and_take_categories_from_subfolders(tmp_path):
    root = make_parts(tmp_path / "parts", ("disc", "tile"), train=1, test=1)
    known = ("disc", "tile", "good")
    images = ImageList(root, known=known)
    # The outermost folder counts: one of defects may have the name of another category.
    assert [record.category for record in images.records] == ["disc"] * 3 + ["tile"] * 3
    assert images.categories == ("disc", "tile")
    assert "masks" in images.notes[0]
    assert {record.category for record in ImageList(root, "tile", known=known).records} == {"tile"}
    assert {record.category for record in ImageList(root / "tile", known=("disc",)).records} == {"disc"}
    file = root / "tile/train/good/000.png"
    assert ImageList([file], known=("disc", "tile")).records[0].category == ""
    assert ImageList([file], known=("disc", "tile"), root=root).records[0].category == "tile"


def _mask() -> bytes:
    import io

    import numpy as np
    from PIL import Image

    buffer, mask = io.BytesIO(), np.zeros((8, 8), np.uint8)
    mask[2:4, 2:4] = 255
    Image.fromarray(mask).save(buffer, "PNG")
    return buffer.getvalue()
