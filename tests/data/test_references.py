"""Which images few-shot methods see."""

import pytest

from jaxad.data.folder import FolderSource
from jaxad.data.layout import scan
from jaxad.data.references import draw
from jaxad.errors import DataError


@pytest.fixture
def source(tree) -> FolderSource:
    for index in (0, 1, 2, 10, 11):
        tree.image(f"bottle/train/good/{index:03d}.png")
        tree.image(f"pcb1/train/good/{index:04d}.JPG")
    return FolderSource("parts/train", scan(tree.root).train)


@pytest.fixture
def lists(tree):
    tree.text("lists/bottle/selected_samples_per_run.txt", "0-1: 010\n0-2: 011 000\n1-2: 002\t001\n#4: 0\n")
    tree.text("lists/pcb1/selected_samples_per_run.txt", "#1: 3\n#2: 4, 0\n\n1-1: 2\n")
    return tree.root / "lists"


def stems(source):
    return {name: [r.file.stem for r in source.records if r.category == name] for name in source.categories}


def test_a_draw_is_without_replacement_and_nested():
    for seed in range(5):
        assert sorted(draw("screw", 9, 9, seed)) == list(range(9))
        assert draw("screw", 9, 4, seed) == draw("screw", 9, 5, seed)[:4]
    assert len({tuple(draw("screw", 100, 4, seed)) for seed in range(5)}) == 5
    assert draw("screw", 100, 4, 0) != draw("nut", 100, 4, 0)


def test_published_choices(source, lists):
    assert stems(source.per_class(2, lists=lists)) == {"bottle": ["011", "000"], "pcb1": ["0011", "0000"]}
    assert stems(source.per_class(2, seed=1, lists=lists)) == {"bottle": ["002", "001"], "pcb1": ["0011", "0000"]}


def test_a_run_of_its_own_goes_before_the_choice_for_all_runs(source, lists):
    only = source.filter(["pcb1"])
    assert stems(only.per_class(1, seed=1, lists=lists)) == {"pcb1": ["0002"]}
    assert stems(only.per_class(1, seed=0, lists=lists)) == {"pcb1": ["0010"]}


@pytest.mark.parametrize(("entries", "strangers"), [("002", "002"), ("000 002", "002"), ("002 4", "002, 4")])
def test_a_stem_held_out_is_no_position(source, lists, tree, entries, strangers):
    """Of 000, 001, 002, 010, 011 the third is held out."""
    tree.text("lists/bottle/selected_samples_per_run.txt", f"#{len(entries.split())}: {entries}")
    left = source.select([0, 1, 3, 4])
    assert [record.file.stem for record in left.records] == ["000", "001", "010", "011"]
    with pytest.raises(DataError, match=rf"no normal training images {strangers}"):
        left.per_class(len(entries.split()), lists=lists)


def test_lists_that_do_not_fit_are_all_named(source, lists, tree):
    with pytest.raises(DataError) as caught:
        source.per_class(4, lists=lists)
    message = str(caught.value)
    assert "bottle/selected_samples_per_run.txt: reference list: line #4 has 1 entries, not 4" in message
    assert "pcb1/selected_samples_per_run.txt: reference list: has no line 0-4 or #4" in message
    tree.text("lists/bottle/selected_samples_per_run.txt", "#1: 077")
    with pytest.raises(DataError, match=r"no normal training images 077"):
        source.filter(["bottle"]).per_class(1, lists=lists)
    with pytest.raises(DataError, match=r"bottle/selected_samples_per_run\.txt: reference list: No such file"):
        source.filter(["bottle"]).per_class(1, lists=tree.root / "nowhere")


def test_lists_that_are_no_text_are_named(source, lists):
    (lists / "bottle/selected_samples_per_run.txt").write_bytes(b"#1: \xff")
    with pytest.raises(DataError, match=r"bottle/selected_samples_per_run\.txt: reference list: .*utf-8"):
        source.filter(["bottle"]).per_class(1, lists=lists)
