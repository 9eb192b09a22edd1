"""Real-IAD in its official layout, listed and prepared."""

import json
from collections import Counter
from pathlib import Path

import pytest

from jaxad.errors import DataError
from tests.tfds_builders.conftest import assert_copied
from tests.tfds_builders.real_iad_layout import Writer, write_list
from tfds_builders.listing import Sample, benchmark
from tfds_builders.real_iad.listing import BENCHMARK, CATEGORIES, LISTS, list_samples

STANDARD = {"resolution": "px1024", "protocol": "multi_view"}


@pytest.fixture
def root(tmp_path) -> Path:
    """Two categories at 1024, one of them at 256 too; lists nested as in the archive."""
    root = tmp_path / "Real-IAD"
    writer = Writer(root / "realiad_1024")
    lists = root / "realiad_jsons" / "realiad_jsons"
    write_list(
        lists,
        "audiojack",
        train=writer.normal("audiojack", 1) + writer.normal("audiojack", 2),
        test=writer.normal("audiojack", 3)
        + writer.defective("audiojack", "AK", 1)
        + writer.defective("audiojack", "ZZ", 1),
    )
    toy = {"train": writer.normal("toy_brick", 1), "test": writer.defective("toy_brick", "QS", 7, visible=(5,))}
    write_list(lists, "toy_brick", **toy)
    for part in toy:
        toy[part] = [entry for entry in toy[part] if "_C1_" in entry["image_path"]]
    write_list(lists.parent / "realiad_jsons_sv", "toy_brick", **toy)
    return root


def test_multi_view(root):
    samples = list_samples(root, "audiojack", **STANDARD)
    assert Counter((sample.split, sample.label) for sample in samples) == {
        ("train", 0): 10,
        ("test", 0): 5 + 3 + 3,
        ("test", 1): 2 + 2,
    }
    assert [sample.view for sample in samples] == [1, 2, 3, 4, 5] * 5
    objects = ["OK/S0001", "OK/S0002", "OK/S0003", "NG/AK/S0001", "NG/ZZ/S0001"]
    assert [sample.object_id for sample in samples[::5]] == [f"audiojack/{name}" for name in objects]
    pit = samples[17]
    assert (pit.label, pit.defect, pit.view, pit.category) == (1, "pit", 3, "audiojack")
    assert pit.image == root / "realiad_1024" / pit.image_id
    assert pit.mask == pit.image.with_name(f"{pit.image.stem}_mask.png")
    assert pit.image.is_file()
    assert pit.mask.is_file()
    hidden = samples[16]
    assert (hidden.label, hidden.defect, hidden.mask, hidden.object_id) == (0, "good", None, pit.object_id)
    assert samples[20].defect == "ZZ", "a code that is not known stays"


def test_lists_one_level_up_and_images_one_level_down(root):
    listed = [sample.image_id for sample in list_samples(root, "audiojack", **STANDARD)]
    nested = root / "realiad_1024" / "audiojack"
    nested.rename(root / "moved")
    nested.mkdir()
    (root / "moved").rename(nested / "audiojack")
    for file in (root / "realiad_jsons" / "realiad_jsons").iterdir():
        file.rename(root / "realiad_jsons" / file.name)
    (root / "realiad_jsons" / "realiad_jsons").rmdir()
    (root / "realiad_jsons" / "realiad_jsons_sv").rename(root / "realiad_jsons_sv")
    samples = list_samples(root, "audiojack", **STANDARD)
    assert [sample.image_id for sample in samples] == listed
    assert all(sample.image.is_file() for sample in samples)
    assert len(list_samples(root, "toy_brick", **STANDARD | {"protocol": "single_view"})) == 2
    assert BENCHMARK.is_root(root)


def test_the_tree_of_vlmdiff(root):
    listed = [sample.image_id for sample in list_samples(root, "audiojack", **STANDARD)]
    (root / "realiad_1024").rename(root / "real_iad")
    (root / "realiad_jsons").rename(root / "real_iad_jsons")
    for nested in (True, False):
        if not nested:
            # As their README shows it, where their code has one folder more.
            for file in (root / "real_iad_jsons" / "realiad_jsons").iterdir():
                file.rename(root / "real_iad_jsons" / file.name)
            (root / "real_iad_jsons" / "realiad_jsons").rmdir()
        assert BENCHMARK.is_root(root)
        for resolution in ("px1024", "px256"):
            samples = list_samples(root, "audiojack", resolution=resolution, protocol="multi_view")
            assert [sample.image_id for sample in samples] == listed
            assert all(sample.image.is_file() for sample in samples)


def test_the_folder_of_the_images_alone_names_that_above(root, jaxad):
    """What the authors' commands call the data's path."""
    (root / "realiad_1024").rename(root / "real_iad")
    with pytest.raises(DataError, match=rf"real_iad: not Real-IAD; give the folder that it lies in, {root}, which is"):
        jaxad("real_iad", "--source", root / "real_iad", "--partial")


def test_images_of_another_size_name_the_option(root):
    (root / "realiad_1024").rename(root / "realiad_256")
    (root / "realiad_raw").mkdir()
    with pytest.raises(
        DataError, match="size 1024; there are those of 256 and raw: --options resolution=px256 or --opt"
    ):
        list_samples(root, "audiojack", **STANDARD)


def test_single_view(root):
    samples = list_samples(root, "toy_brick", **STANDARD | {"protocol": "single_view"})
    assert [(sample.split, sample.view, sample.label) for sample in samples] == [("train", 1, 0), ("test", 1, 0)]


def test_other_resolutions(root):
    with pytest.raises(DataError, match=r"at size 256; there are those of 1024: .*=px1024; looked for realiad_256"):
        list_samples(root, "toy_brick", **STANDARD | {"resolution": "px256"})
    (root / "realiad_1024").rename(root / "realiad_raw")
    samples = list_samples(root, "toy_brick", **STANDARD | {"resolution": "raw"})
    assert samples[0].image.is_file()
    assert samples[0].image_id.startswith("toy_brick/OK/S0001/toy_brick_0001_OK_C1_")


def test_a_category_that_is_not_there(root):
    assert list_samples(root, "zipper", **STANDARD) == []
    (root / "realiad_1024" / "toy_brick").rename(root / "elsewhere")
    assert list_samples(root, "toy_brick", **STANDARD) == [], "lists of all categories come in one archive"


@pytest.mark.parametrize("protocol", ["noisy_0", "noisy_10", "noisy_20", "noisy_40"])
def test_noisy_training(root, protocol):
    writer = Writer(root / "realiad_1024")
    noise, test = writer.defective("mint", "HS", 1), writer.defective("mint", "HS", 2)
    write_list(root / "realiad_jsons" / LISTS[protocol], "mint", writer.normal("mint", 1) + noise[:1], test)
    samples = list_samples(root, "mint", **STANDARD | {"protocol": protocol})
    assert [sample.label for sample in samples] == [0, 0, 0, 0, 0, 1, 1, 0, 1, 0, 0]
    assert (samples[5].split, samples[5].defect) == ("train", "scratch")
    write_list(root / "realiad_jsons" / "realiad_jsons", "mint", noise[:1], test)
    with pytest.raises(DataError) as caught:
        list_samples(root, "mint", **STANDARD)
    assert "train[0].anomaly_class: HS, but only normal images are for training" in str(caught.value)


def test_every_wrong_entry_is_listed(root):
    file = root / "realiad_jsons" / "realiad_jsons" / "audiojack.json"
    content = json.loads(file.read_text())
    train, test = content["train"], content["test"]
    train[0]["image_path"] = "../../secret/audiojack_C1_.jpg"
    train[1]["image_path"] = "/etc/audiojack_C1_.jpg"
    train[2]["anomaly_class"] = None
    del train[3]["mask_path"]
    train[4] = "audiojack.jpg"
    train[5]["mask_path"] = 7
    test[0]["image_path"] = train[6]["image_path"]
    test[1]["image_path"] = "OK/S0003/audiojack_0003_OK.jpg"
    test[2]["mask_path"] = "OK/S0003/x_mask.png"
    test[5]["mask_path"] = None
    file.write_text(json.dumps(content))
    with pytest.raises(DataError) as caught:
        list_samples(root, "audiojack", **STANDARD)
    assert all(problem.file == str(file) for problem in caught.value.problems)
    assert [problem.detail for problem in caught.value.problems] == [
        "train[0].image_path: '../../secret/audiojack_C1_.jpg' is no path inside the category's folder",
        "train[1].image_path: '/etc/audiojack_C1_.jpg' is no path inside the category's folder",
        "train[2].anomaly_class: must be a text, is null",
        "train[3].mask_path: is missing",
        "train[4]: must be an object, is a text",
        "train[5].mask_path: must be a text or null, is a whole number",
        f"test[0].image_path: {train[6]['image_path']} is listed before, at train[6]",
        "test[1].image_path: OK/S0003/audiojack_0003_OK.jpg names no view _C1_ to _C5_",
        "test[2].mask_path: OK/S0003/x_mask.png for an image of class OK, which has no mask",
        "test[5].mask_path: is null for an image of class AK, which has a mask",
    ]


def test_damaged_lists(root):
    file = root / "realiad_jsons" / "realiad_jsons" / "audiojack.json"
    whole = file.read_text()
    file.write_text(whole[:-40])
    with pytest.raises(DataError, match=r"audiojack\.json: damaged JSON: line 1, column "):
        list_samples(root, "audiojack", **STANDARD)
    file.write_text('{"train": {}}')
    with pytest.raises(DataError) as caught:
        list_samples(root, "audiojack", **STANDARD)
    assert "the file.train: must be a list, is an object" in str(caught.value)
    assert "the file.test: is missing" in str(caught.value)
    file.unlink()
    with pytest.raises(DataError, match=r"audiojack\.json: unreadable JSON: No such file"):
        list_samples(root, "audiojack", **STANDARD)
    file.write_text(json.dumps({"train": [3] * 200, "test": []}))
    with pytest.raises(DataError, match="200 wrong entries") as caught:
        list_samples(root, "audiojack", **STANDARD)
    assert len(caught.value.problems) == 51
    assert caught.value.problems[-1].detail == "and 150 more"


def test_what_it_says_of_itself(root, tmp_path):
    assert benchmark("real_iad") is BENCHMARK
    assert len(CATEGORIES) == 30
    assert list(CATEGORIES) == sorted(CATEGORIES)
    totals = BENCHMARK.totals(**STANDARD)
    assert sum(totals.values()) == 151_050
    assert totals["test", 0] + totals["test", 1] == 114_585
    assert BENCHMARK.totals(**STANDARD | {"protocol": "noisy_40"}) == {}
    assert BENCHMARK.is_root(root)
    assert not BENCHMARK.is_root(tmp_path)
    assert not BENCHMARK.is_root(root / "realiad_1024")


def test_prepared_and_read_back(root, tmp_path, jaxad, stored):
    train = [*training_samples(root, "audiojack"), *training_samples(root, "toy_brick")]
    labels = [f"/data/real_iad/{sample.image_id}" for sample in train]
    captions = tmp_path / "realiad_captions_internvl_pd"
    captions.mkdir()
    (captions / "train_labels_realiad_internvl_0_100.json").write_text(json.dumps(labels))
    texts = [f"caption {number}" for number in range(len(labels))]
    (captions / "train_captions_realiad_internvl_0_100.json").write_text(json.dumps(texts))
    jaxad("real_iad", "--source", root.parent, "--partial", "--captions", captions)
    for category in ("audiojack", "toy_brick"):
        samples = list_samples(root, category, **STANDARD)
        examples = stored("real_iad", category)
        assert list(examples) == [sample.image_id for sample in samples]
        masks = {s.image_id: str(s.mask.relative_to(root / "realiad_1024")) for s in samples if s.mask is not None}
        assert_copied(examples, root / "realiad_1024", masks)
        for sample, example in zip(samples, examples.values(), strict=True):
            for name in ("split", "label", "category", "defect", "object_id", "view"):
                assert example[name] == getattr(sample, name), (sample.image_id, name)
    assert [e["caption"] for e in examples.values()] == [*texts[10:], "", "", "", "", ""]


def test_single_view_at_another_size(root, jaxad, stored):
    jaxad(
        "real_iad", "--source", root, "--categories", "toy_brick", "--options", "protocol=single_view", "--size", "32"
    )
    examples = stored("real_iad", "toy_brick", 32, protocol="single_view")
    assert [(e["split"], e["view"], e["label"]) for e in examples.values()] == [("train", 1, 0), ("test", 1, 0)]


def test_without_all_categories_the_official_numbers_are_asked_for(root, jaxad):
    with pytest.raises(DataError) as caught:
        jaxad("real_iad", "--source", root)
    missing = [problem for problem in caught.value.problems if problem.kind == "missing category"]
    assert len(missing) == 28
    assert "partial = True" in missing[0].detail


def test_a_missing_file_is_named(root, jaxad):
    samples = list_samples(root, "toy_brick", **STANDARD)
    samples[2].image.unlink()
    samples[9].mask.unlink()
    with pytest.raises(DataError) as caught:
        jaxad("real_iad", "--source", root, "--categories", "toy_brick")
    assert [(problem.kind, problem.file) for problem in caught.value.problems] == [
        ("missing image", str(samples[2].image)),
        ("missing mask", str(samples[9].mask)),
    ]


def training_samples(root: Path, category: str) -> list[Sample]:
    return [sample for sample in list_samples(root, category, **STANDARD) if sample.split == "train"]
