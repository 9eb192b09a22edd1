"""Captions that are written: interrupted, in shares, and with more images later."""

import json

import pytest

from jaxad.data.captions import writing
from jaxad.data.captions.attach import Captions
from jaxad.data.captions.writing import SETTINGS, CaptionFiles, write_captions
from jaxad.errors import DataError
from jaxad.io import atomic

IDS = [f"bolt/train/good/{number:03}.png" for number in range(10)]
BOUNDS = (0, 4, 8, 10)
ARGUMENTS = ("parts", "vlm", "pd", "train")


class Killed(BaseException):
    pass


class Describing:
    """Says of each image its name, keeps what it was asked, and is killed after a number of captions."""

    def __init__(self, lives: int = 1000):
        self.lives, self.asked = lives, []

    def __call__(self, images):
        self.asked.append(list(images))
        for image in images:
            if not self.lives:
                raise Killed
            self.lives -= 1
            yield f"a text of {image}"


def texts(images):
    return tuple(f"a text of {image}" for image in images)


def write(out, ids=IDS, describe=None):
    describe = Describing() if describe is None else describe
    write_captions(out, *ARGUMENTS, ids, describe)
    return describe.asked


def share(files, number, ids=IDS, describe=None):
    """What a process does for its share."""
    first, end = BOUNDS[number : number + 2]
    describe = Describing() if describe is None else describe
    files.write(ids[first:end], describe, (first, end))
    return describe.asked


@pytest.fixture
def files(tmp_path):
    found = CaptionFiles.of(tmp_path, *ARGUMENTS)
    found.folder.mkdir()
    return found


def names(folder):
    return sorted(file.name for file in folder.iterdir())


LISTS = ["train_captions_parts_vlm.json", "train_labels_parts_vlm.json"]


def test_writing_goes_on_where_it_was_killed(files, tmp_path):
    with pytest.raises(Killed):
        write(tmp_path, describe=Describing(2))
    with (files.folder / "train_captions_parts_vlm.journal").open("a") as journal:
        journal.write('["bolt/train/good/002.png", "cut o')
    assert write(tmp_path) == [IDS[2:]]
    assert Captions.load(files.folder).texts == texts(IDS)
    assert names(files.folder) == LISTS
    assert write(tmp_path) == [], "finished captions are not asked for again"


def test_further_images_are_added_and_no_other_is_described_again(files, tmp_path):
    write(tmp_path, IDS[2:5])
    # In the order of a data set that has grown at both ends.
    assert write(tmp_path, IDS[:7]) == [[*IDS[:2], *IDS[5:7]]]
    found = Captions.load(files.folder)
    assert found.ids == (*IDS[2:5], *IDS[:2], *IDS[5:7])
    assert found.attach(IDS[:7]).texts == texts(IDS[:7])
    # Fewer images than there are captions: nothing to do, and nothing is lost.
    assert write(tmp_path, IDS[3:4]) == []
    assert len(Captions.load(files.folder)) == 7


def test_captions_in_a_journal_stay_when_the_data_set_grows(files, tmp_path):
    with pytest.raises(Killed):
        write(tmp_path, IDS[4:8], Describing(3))
    assert write(tmp_path) == [[*IDS[:4], *IDS[7:]]]
    assert Captions.load(files.folder).attach(IDS).texts == texts(IDS)
    assert names(files.folder) == LISTS


def test_what_is_killed_between_its_two_lists_loses_nothing(files, tmp_path, monkeypatch):
    write(tmp_path, IDS[:3])
    with monkeypatch.context() as patch:
        whole = atomic.write_whole

        def labels_alone(file, content):
            if "_captions_" in file.name:
                raise Killed
            whole(file, content)

        patch.setattr("jaxad.data.captions.writing.write_whole", labels_alone)
        with pytest.raises(Killed):
            write(tmp_path, IDS[:5])
    assert write(tmp_path, IDS[:6]) == [IDS[5:6]]
    assert Captions.load(files.folder).attach(IDS[:6]).texts == texts(IDS[:6])


def test_shares_are_gathered_into_the_files_of_one(files, tmp_path):
    write(tmp_path / "one")
    share(files, 2)
    share(files, 0)
    assert not files.gather(IDS)
    assert not files.strays(IDS, BOUNDS)
    share(files, 1)
    assert files.gather(IDS)
    assert names(files.folder) == LISTS
    assert Captions.load(files.folder).attach(IDS).texts == texts(IDS)
    assert files.gather(IDS), "of the processes that end at once, the second finds it done"


def test_a_share_goes_on_where_it_stopped(files):
    with pytest.raises(Killed):
        share(files, 1, describe=Describing(2))
    assert share(files, 1) == [IDS[6:8]]
    assert share(files, 1) == []


def test_other_shares_are_strays_whose_captions_stay(files, tmp_path):
    share(files, 0)
    share(files, 2)
    journal = files.folder / "train_captions_parts_vlm_0_4.journal"
    assert files.strays(IDS, (0, 5, 10)) == [journal, journal.with_name("train_captions_parts_vlm_8_10.journal")]
    # One image more in front: the names of the shares stay, and what they are of changes.
    assert journal in files.strays(["bolt/train/good/a.png", *IDS], (0, 4, 8, 11))
    assert write(tmp_path) == [IDS[4:8]]
    assert names(files.folder) == LISTS


def test_lists_are_read_once_before_and_once_after_images_are_described(files, tmp_path, monkeypatch):
    """Others wait meanwhile, and the lists of large data sets take seconds."""
    write(tmp_path, IDS[:5])
    read, original = [], writing.read_lists
    monkeypatch.setattr(writing, "read_lists", lambda part, **how: read.append(part) or original(part, **how))
    assert write(tmp_path, IDS[:7]) == [IDS[5:7]]
    assert read == [files.lists] * 2
    read.clear()
    assert files.gather(IDS[:7])
    assert read == [files.lists]
    assert not files.gather(IDS)


def test_splits_do_not_mix(files, tmp_path):
    share(files, 0)
    other = CaptionFiles.of(tmp_path, "parts", "vlm", "pd", "test")
    assert other.strays(IDS) == []
    assert other.lacking(IDS) == IDS
    assert not other.gather(IDS)


def test_a_captioner_that_says_too_much_or_too_little(files, tmp_path):
    with pytest.raises(DataError, match="2 captions for 10 images"):
        write_captions(tmp_path, *ARGUMENTS, IDS, lambda images: ["one", "two"])
    with pytest.raises(DataError, match="more captions than the 8 images"):
        write_captions(tmp_path, *ARGUMENTS, IDS, lambda images: ["three"] * 9)
    assert write(tmp_path) == [IDS[2:]], "those of that call are dropped"
    with pytest.raises(DataError, match="needs a short name"):
        write_captions(tmp_path, "parts", "OpenGVLab/InternVL2", "pd", "train", IDS, lambda images: [])


def test_a_journal_of_other_images_is_not_taken_for_a_share(files):
    share(files, 0)
    with pytest.raises(DataError, match="holds captions of other images"):
        share(files, 0, ids=IDS[::-1])


def test_lists_in_parts_are_left_to_their_owner(files, tmp_path):
    for kind in ("captions", "labels"):
        (files.folder / f"train_{kind}_parts_vlm_0_1.json").write_text(json.dumps(IDS[:1]))
    with pytest.raises(DataError, match=r"holds train_captions_parts_vlm_0_1\.json"):
        write(tmp_path)


def test_lists_in_parts_of_an_earlier_version_are_taken(files, tmp_path):
    """As shards wrote them that were interrupted before all were done, beside their settings."""
    (files.folder / SETTINGS).write_text("{}")
    for kind, content in (("captions", texts(IDS[4:8])), ("labels", IDS[4:8])):
        (files.folder / f"train_{kind}_parts_vlm_4_8.json").write_text(json.dumps(content))
    assert write(tmp_path) == [[*IDS[:4], *IDS[8:]]]
    assert names(files.folder) == [SETTINGS, *LISTS]
    assert Captions.load(files.folder).attach(IDS).texts == texts(IDS)


def test_image_numbers(tmp_path):
    ids = [f"train2017/{number:012}.jpg" for number in (9, 139, 30)]
    for some in (ids[:2], ids):
        folder = write_captions(tmp_path, "coco", "vlm", "coco", "train", some, Describing(2), numbered=True)
    assert json.loads((folder / "train_labels_coco_vlm.json").read_text()) == [["9"], ["139"], ["30"]]
    assert Captions.load(folder).attach(ids[::-1]).texts == texts(ids[::-1])
