"""Captions written in parts."""

import json

import pytest

from jaxad.data.captions.attach import Captions
from jaxad.data.captions.writing import join_captions, write_captions
from jaxad.errors import DataError

IDS = [f"bolt/train/good/{number:03}.png" for number in range(10)]
CUTS = (4, 8)


def texts(start):
    """Texts of all images from a place on; more than a part wants."""
    return (f"image {number}" for number in range(start, 10))


def of(start, end):
    return lambda first: (f"image {number}" for number in range(max(first, start), end))


def write(out, part, *, cuts=CUTS, ids=IDS, made=None):
    bounds = (0, *cuts, len(ids))
    made = made or of(bounds[part], bounds[part + 1])
    return write_captions(out, "parts", "vlm", "pd", "train", ids, made, cuts=cuts, part=part)


def join(out, ids=IDS):
    return join_captions(out, "parts", "vlm", "pd", "train", ids, cuts=CUTS)


def names(folder):
    return sorted(file.name for file in folder.iterdir())


def test_parts_are_read_as_published_ones_and_joined_into_the_files_of_one(tmp_path):
    whole = write_captions(tmp_path / "one", "parts", "vlm", "pd", "train", IDS, texts)
    write(tmp_path / "three", 2)
    folder = write(tmp_path / "three", 0)
    assert not join(tmp_path / "three")
    assert "train_captions_parts_vlm_8_10.json" in names(folder)
    with pytest.raises(DataError, match="4 to 8 is missing"):
        Captions.load(folder)
    write(tmp_path / "three", 1)
    assert Captions.load(folder).texts == tuple(texts(0))
    assert join(tmp_path / "three")
    assert names(folder) == names(whole)
    assert all((folder / name).read_text() == (whole / name).read_text() for name in names(whole))
    # What was interrupted between writing the whole and removing the parts is tidied by the next call.
    (folder / "train_captions_parts_vlm_0_4.json").write_text("[]")
    assert join(tmp_path / "three")
    assert names(folder) == names(whole)


def test_a_part_goes_on_where_it_stopped_and_finished_ones_are_left_alone(tmp_path):
    with pytest.raises(DataError, match="2 captions for 4 images"):
        write(tmp_path, 1, made=lambda first: iter(["image 4", "image 5"]))
    asked = []
    write(tmp_path, 1, made=lambda first: asked.append(first) or of(4, 8)(first))
    assert asked == [6]
    write(tmp_path, 1, made=lambda first: pytest.fail("captioned again"))
    for part in (0, 2):
        write(tmp_path, part)
    assert join(tmp_path)
    write(tmp_path, 1, made=lambda first: pytest.fail("captioned again"))
    assert Captions.load(write(tmp_path, 0)).texts == tuple(texts(0))


def test_other_parts_do_not_mix(tmp_path):
    write(tmp_path, 0)
    for other in ({"cuts": (5,)}, {"cuts": ()}):
        with pytest.raises(DataError, match=r"holds train_captions_parts_vlm_0_4\.json; go on with as many shards"):
            write(tmp_path, 0, **other)
    with pytest.raises(DataError, match="1 captions for 10 images"):
        write(tmp_path / "whole", 0, cuts=(), made=lambda first: iter(["image 0"]))
    with pytest.raises(DataError, match=r"train_captions_parts_vlm\.journal"):
        write(tmp_path / "whole", 0)


def test_parts_of_other_images_are_not_joined(tmp_path):
    for part in range(3):
        write(tmp_path, part)
    with pytest.raises(DataError, match="parts are of other images"):
        join(tmp_path, ids=IDS[::-1])
    labels = tmp_path / "parts_captions_vlm_pd" / "train_labels_parts_vlm_0_4.json"
    labels.write_text(json.dumps(IDS[1:5]))
    with pytest.raises(DataError, match="holds captions of other images"):
        write(tmp_path, 0)
