"""Which normal images are kept out of training."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaxad.data.folder import FolderSource
from jaxad.data.holdout import split_holdout
from jaxad.data.layout import scan
from jaxad.types import Record


def written(folder, contents, category="c") -> FolderSource:
    records = []
    for number, content in enumerate(contents):
        file = folder / f"{category}-{number}.png"
        file.write_bytes(content)
        records.append(Record(file, category, 0, "good", identity=file.name))
    return FolderSource("written", tuple(records))


def joined(*sources: FolderSource) -> FolderSource:
    return FolderSource("joined", tuple(record for source in sources for record in source.records))


@pytest.mark.parametrize(
    ("images", "share", "held"),
    [
        (0, 0.1, 0),
        (1, 0.1, 0),
        (2, 0.1, 1),
        (5, 0.1, 2),
        (9, 0.1, 4),
        (10, 0.1, 5),
        (50, 0.1, 5),
        (64, 0.1, 6),
        (100, 0.3, 30),
        (40, 0.0, 0),
        (40, 1.0, 20),
    ],
)
def test_sizes(tmp_path, images, share, held):
    records = written(tmp_path, [str(i).encode() for i in range(images)])
    train, holdout = split_holdout(records, share)
    assert len(holdout) == held
    assert sorted(train + holdout) == list(range(images))


def test_every_category_gets_its_own(tmp_path):
    source = joined(
        written(tmp_path, [b"a%d" % i for i in range(80)], "a"), written(tmp_path, [b"b%d" % i for i in range(20)], "b")
    )
    _, holdout = split_holdout(source)
    assert Counter(source.records[i].category for i in holdout) == {"a": 8, "b": 5}


@given(st.permutations(range(30)))
def test_choice_is_of_the_content(tmp_path_factory, order):
    folder = tmp_path_factory.mktemp("renamed")
    contents = [b"image %d" % i for i in range(30)]
    records = written(folder, [contents[i] for i in order])
    _, holdout = split_holdout(records)
    expected = split_holdout(written(tmp_path_factory.mktemp("plain"), contents))[1]
    assert {order[i] for i in holdout} == set(expected)


def test_choice_does_not_depend_on_other_categories(tmp_path):
    own = written(tmp_path, [b"a%d" % i for i in range(30)], "a")
    others = written(tmp_path, [b"b%d" % i for i in range(7)], "b")
    alone = {own.records[i] for i in split_holdout(own)[1]}
    together = joined(others, own)
    held = {together.records[i] for i in split_holdout(together)[1]}
    assert {record for record in held if record.category == "a"} == alone


def test_copies_stay_on_one_side(tmp_path):
    contents = [b"image %d" % (i // 3) for i in range(60)]
    train, holdout = split_holdout(written(tmp_path, contents))
    assert holdout
    assert not {contents[i] for i in train} & {contents[i] for i in holdout}


def test_on_a_folder(tree):
    tree.category("a", train=12)
    train, holdout = split_holdout(FolderSource("train", scan(tree.root).train))
    assert (len(train), len(holdout)) == (7, 5)
