"""Real-IAD Variety in its official layout, listed and prepared."""

import shutil
import zipfile
from collections import Counter
from pathlib import Path

import pytest

from jaxad.data.decode import decode_mask
from jaxad.errors import DataError
from tests.tfds_builders.real_iad_layout import Writer, write_list
from tfds_builders.listing import slug
from tfds_builders.real_iad_variety.listing import BENCHMARK, SUBSETS, find_categories, list_samples

RAW = {"resolution": "raw"}
NAMES = ("D-sub-connector", "battery", "slipper- model")


@pytest.fixture
def root(tmp_path) -> Path:
    """Three categories: one flat, one nested as in its archive, one whose name holds a space."""
    root = tmp_path / "Real-IAD_Variety"
    for name, nested in zip(NAMES, (False, True, False), strict=True):
        writer = Writer(root / "realiadvariety_raw", view="C{:02d}" if nested else "C{}", end="png", nested=nested)
        test = writer.normal(name, 2) + writer.defective(name, "AK", 1, visible=(2, 4), hidden="AK")
        write_list(root / "realiadvariety_jsons" / "Real-IAD_Variety_jsons", name, writer.normal(name, 1), test)
    return root


@pytest.mark.parametrize("category", NAMES)
def test_a_category(root, category):
    samples = list_samples(root, category, **RAW)
    assert Counter((sample.split, sample.label) for sample in samples) == {
        ("train", 0): 5,
        ("test", 0): 5 + 3,
        ("test", 1): 2,
    }
    assert [sample.view for sample in samples] == [1, 2, 3, 4, 5] * 3
    assert {sample.category for sample in samples} == {category}
    assert all(sample.image.is_file() for sample in samples)
    assert all(sample.mask is not None and sample.mask.is_file() for sample in samples if sample.label)
    assert samples[0].image_id.startswith(f"{category}/OK/S0001/{category}_0001_OK_C")
    assert {sample.object_id for sample in samples[10:]} == {f"{category}/NG/AK/S0001"}


def test_a_view_without_the_defect_is_normal(root):
    views = list_samples(root, "battery", **RAW)[10:]
    assert [view.label for view in views] == [0, 1, 0, 1, 0]
    hidden = "good (its object: pit)"
    assert [view.defect for view in views] == [hidden, "pit", hidden, "pit", hidden]
    assert [view.mask is None for view in views] == [True, False, True, False, True]


def test_reduced_images(root):
    with pytest.raises(DataError, match=r"the images \(px1024\); looked for realiadvariety_1024"):
        list_samples(root, "battery", resolution="px1024")
    (root / "realiadvariety_raw").rename(root / "realiadvariety_1024")
    assert list_samples(root, "battery", resolution="px1024")[0].image.is_file()


def test_archives_without_a_folder_of_their_own(root):
    raw = root / "realiadvariety_raw"
    for name in ("D-sub-connector", "slipper- model"):
        for file in list((raw / name).rglob("*.png")):
            target = raw / file.relative_to(raw / name)
            target.parent.mkdir(parents=True, exist_ok=True)
            file.rename(target)
        shutil.rmtree(raw / name)
        assert all(sample.image.is_file() for sample in list_samples(root, name, **RAW))
    assert all(sample.image.is_file() for sample in list_samples(root, "battery", **RAW))


def test_categories_are_the_lists_in_ascii_order(root, tmp_path):
    assert find_categories(root) == NAMES
    assert [slug(name) for name in NAMES] == ["D_sub_connector", "battery", "slipper__model"]
    outer = root / "realiadvariety_jsons"
    (outer / "Real-IAD_Variety_jsons").rename(root / "Real-IAD_Variety_jsons")
    outer.rmdir()
    assert find_categories(root) == NAMES
    (root / "Real-IAD_Variety_jsons").rename(outer)
    assert find_categories(root) == NAMES
    assert BENCHMARK.is_root(root)
    assert not BENCHMARK.is_root(tmp_path)
    with pytest.raises(DataError, match="missing folder: the lists; looked for realiadvariety_jsons/Real-IAD_"):
        find_categories(tmp_path)


def official() -> list[str]:
    """160 names with the three that the official subsets end with at their places."""
    last = dict(SUBSETS.values())
    names, before = [], ""
    for number in range(1, 161):
        before = last.get(number, f"{before}-")
        names.append(before)
    return names


def test_all_categories_are_checked_against_the_subsets(tmp_path):
    folder = tmp_path / "realiadvariety_jsons"
    names = official()
    for name in names:
        write_list(folder, name, [], [])
    assert find_categories(tmp_path) == tuple(names)
    (folder / f"{names[40]}.json").rename(folder / "zebra.json")
    with pytest.raises(DataError) as caught:
        find_categories(tmp_path)
    assert [problem.detail for problem in caught.value.problems] == [
        "number 60 is 'gear-', officially 'gear'",
        "number 100 is 'motor_gear_reducer-', officially 'motor_gear_reducer'",
    ]
    (folder / "zebra.json").unlink()
    assert len(find_categories(tmp_path)) == 159, "whoever has fewer has no subsets to check"


def test_only_a_mask_makes_a_training_image_anomalous(root):
    writer = Writer(root / "realiadvariety_raw", end="png")
    views = writer.defective("gear", "PS", 1, hidden="PS")
    folder = root / "realiadvariety_jsons" / "Real-IAD_Variety_jsons"
    write_list(folder, "gear", [entry for entry in views if entry["mask_path"] is None], [])
    assert [sample.label for sample in list_samples(root, "gear", **RAW)] == [0, 0, 0]
    write_list(folder, "gear", views, [])
    with pytest.raises(DataError, match="2 wrong entries"):
        list_samples(root, "gear", **RAW)


def test_archives_prepared_and_read_back(root, tmp_path, jaxad, stored):
    listed = {name: list_samples(root, name, **RAW) for name in NAMES}
    files = {s.image_id: (s.image.read_bytes(), s.mask and s.mask.read_bytes()) for n in NAMES for s in listed[n]}
    raw = root / "realiadvariety_raw"
    for folder, inside in (("D-sub-connector", True), ("battery", True), ("slipper- model", False)):
        with zipfile.ZipFile(raw / f"{folder}.zip", "w") as archive:
            for file in sorted((raw / folder).rglob("*.png")):
                archive.write(file, file.relative_to(raw if inside else raw / folder))
        shutil.rmtree(raw / folder)
    with zipfile.ZipFile(root / "realiadvariety_jsons.zip", "w") as archive:
        for file in sorted((root / "realiadvariety_jsons").rglob("*.json")):
            archive.write(file, file.relative_to(root / "realiadvariety_jsons"))
    shutil.rmtree(root / "realiadvariety_jsons")
    jaxad("real_iad_variety", "--source", root, "--partial")
    for name, samples in listed.items():
        examples = stored("real_iad_variety", name)
        assert [*examples] == [sample.image_id for sample in samples]
        for sample, example in zip(samples, examples.values(), strict=True):
            image, mask = files[sample.image_id]
            assert example["image"] == image
            assert example["mask"] == mask if mask else not decode_mask(example["mask"]).any()
            for field in ("split", "label", "category", "defect", "object_id", "view"):
                assert example[field] == getattr(sample, field), (sample.image_id, field)
    assert {file.name for file in root.iterdir()} == {"realiadvariety_raw", "realiadvariety_jsons.zip"}
    configs = [folder.name for folder in sorted((tmp_path / "data" / "real_iad_variety").iterdir())]
    assert configs == ["D_sub_connector", "battery", "slipper__model"]
