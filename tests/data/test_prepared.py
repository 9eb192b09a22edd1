"""Prepared data sets are read like the folders they were made from."""

import itertools
import json
import pickle
import resource
import shutil
import sys
from dataclasses import astuple

import numpy as np
import pytest
from PIL import Image

import jaxad
from jaxad.config import DataConfig
from jaxad.data import load, prepared, prepared_index
from jaxad.data.batches import batches
from jaxad.data.prepared import PreparedSource, prepared_names
from jaxad.data.prepared_index import FILE, read_index, read_record
from jaxad.errors import DataError
from jaxad.features import cache_identity
from jaxad.inference.predictor import Predictor
from jaxad.nn import module_state
from jaxad.testing import toy_model, toy_training
from jaxad.types import Source, View
from tests.data.conftest import Tree
from tests.data.prepared import prepare
from tfds_builders.listing import slug

WHOLE = DataConfig(holdout=0)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Two categories with all that an image can lack or have, among them names that are no slugs."""
    tree = Tree(tmp_path_factory.mktemp("folder") / "parts")
    tree.category("screw", train=12, good=3, bad=3)
    tree.category("T-nut 2", train=6)
    tree.image("screw/test/scratch/bare.png")
    tree.image("screw/validation/good/000.png")
    tree.write("screw/train/good/photo.jpg", Image.fromarray(np.arange(300, dtype=np.uint8).reshape(10, 10, 3)))
    tree.mask("screw/ground_truth/good/000_mask.png", empty=True)
    return tree.root


@pytest.fixture(scope="module")
def data_dir(folder, tmp_path_factory):
    return prepare(folder, tmp_path_factory.mktemp("prepared"), caption="a part", object_id="S1", view=2)


@pytest.fixture
def copy(data_dir, tmp_path):
    """A data folder to spoil."""
    return shutil.copytree(data_dir, tmp_path / "copy")


def screw(data_dir):
    return data_dir / "own_parts" / "screw" / "1.0.0"


@pytest.mark.parametrize("share", [0, 0.2])
def test_everything_is_as_in_the_folder(folder, data_dir, share):
    config = DataConfig(holdout=share)
    files, prepared = load(f"folder:{folder}", config=config), load("own_parts", data_dir, config=config)
    assert (prepared.name, prepared.categories, prepared.counts) == ("own_parts", files.categories, files.counts)
    assert prepared.license == "own use only"
    for part in ("train", "holdout", "test"):
        mine, theirs = getattr(prepared, part), getattr(files, part)
        assert isinstance(mine, PreparedSource)
        assert isinstance(mine, Source)
        assert len(mine) == len(theirs)
        assert (mine.name, mine.categories) == (f"own_parts/{part}", theirs.categories)
        for index, (record, other) in enumerate(zip(mine.records, theirs.records, strict=True)):
            for field in ("category", "label", "defect", "identity"):
                assert getattr(record, field) == getattr(other, field)
            assert (record.caption, record.object_id, record.view) == ("a part", "S1", 2)
            assert mine.encoded(index) == other.file.read_bytes()
            np.testing.assert_array_equal(mine[index].image, theirs[index].image)
            # The black mask that the folder has of a normal image is stored like those it has not.
            np.testing.assert_equal(mine.mask(index), theirs.mask(index) if record.label else None)
            assert mine.digest(index) == theirs.digest(index)
    assert {p.kind for p in prepared.problems} == {p.kind for p in files.problems}


def test_masks_of_normal_images_and_unknown_masks_are_none(data_dir):
    test = load("own_parts/screw", data_dir, config=WHOLE).test
    assert {r.identity.split("/")[2]: r.mask is not None for r in test.records if "bare" not in r.identity} == {
        "good": False,
        "scratch": True,
    }
    (bare,) = (i for i, r in enumerate(test.records) if "bare" in r.identity)
    assert test.records[bare].label == 1
    assert test.mask(bare) is None


def test_selections(data_dir, folder):
    assert load("own_parts/screw", data_dir).categories == ("screw",)
    assert load("own_parts/T_nut_2", data_dir).categories == ("T-nut 2",)
    assert load("own_parts/all", data_dir).categories == ("T-nut 2", "screw")
    for name in ("T-nut 2", "T_nut_2"):
        assert load("own_parts", data_dir, config=DataConfig(categories=(name,))).categories == ("T-nut 2",)
    assert prepared_names(data_dir) == ("own_parts",)


def test_what_is_not_prepared_is_said(data_dir, monkeypatch):
    with pytest.raises(DataError, match=r"own_parts/bolt: not prepared in .*; there are T_nut_2, screw, and all"):
        load("own_parts/bolt", data_dir)
    with pytest.raises(DataError, match="own_parts/screw-512: not prepared"):
        load("own_parts/screw-512", data_dir)
    with pytest.raises(DataError, match="no category bolt; there are T_nut_2, screw"):
        load("own_parts", data_dir, config=DataConfig(categories=("bolt",)))
    with pytest.raises(DataError, match=r"visa is not prepared in .*; run: jaxad prepare visa --source PATH"):
        load("visa", data_dir)
    monkeypatch.setenv("TFDS_DATA_DIR", str(data_dir))
    with pytest.raises(DataError, match=r"no data set 'visum': .* prepared ones own_parts"):
        load("visum")
    assert len(load("own_parts").test) == 11


def test_prepared_sizes_are_apart(data_dir, copy):
    shutil.copytree(copy / "own_parts" / "screw", copy / "own_parts" / "screw-256")
    assert load("own_parts", copy).counts == load("own_parts", data_dir).counts
    assert load("own_parts/all-256", copy).categories == ("screw",)
    assert load("own_parts/screw-256", copy).categories == ("screw",)


def test_overlapping_configs_are_refused(copy):
    shutil.copytree(copy / "own_parts" / "screw", copy / "own_parts" / "screws")
    with pytest.raises(DataError, match="21 images are there twice"):
        load("own_parts", copy)


def test_subsets_go_up_to_their_last_category(data_dir, tmp_path):
    root = tmp_path / "real_iad_variety"
    names = [*(f"a-{number:02} b" for number in range(29)), "button_switch", "c"]
    for number, name in enumerate(names):
        config = shutil.copytree(screw(data_dir).parent, root / slug(name)) / "1.0.0"
        (config / "metadata.json").write_text(json.dumps({"category": name}))
        if number:  # the same images cannot be there twice
            (config / FILE).write_text(json.dumps(_emptied(config)))
    assert len(load("real_iad_variety/s1", tmp_path, config=WHOLE).train) == 14
    with pytest.raises(DataError, match=r"/S2: holds the 60 categories up to gear, and 31 of those are prepared in"):
        load("real_iad_variety/S2", tmp_path)
    shutil.rmtree(root / slug(names[7]))
    with pytest.raises(DataError, match=r"/s1: holds the 30 categories up to button_switch, and 29 of those"):
        load("real_iad_variety/s1", tmp_path)
    (root / "button_switch/1.0.0/metadata.json").write_text("{}")
    with pytest.raises(DataError, match=r"button_switch/1\.0\.0/metadata\.json: does not name the category"):
        load("real_iad_variety/s1", tmp_path)


def _emptied(folder):
    read_index(folder)
    return json.loads((folder / FILE).read_text()) | {"entries": []}


def test_training_and_predictions_are_those_of_the_folder(parts, trained, tmp_path):
    prepare(parts.train.records[0].file.parents[3], tmp_path / "prepared")
    data = load("own_parts", tmp_path / "prepared")
    run = jaxad.fit(toy_model(), data.train, toy_training(), workdir=tmp_path / "run", holdout=data.holdout)
    for path, array in module_state.split(run.model)[1].items():
        np.testing.assert_array_equal(array, module_state.split(trained.model)[1][path])
    assert run.threshold.limits == trained.threshold.limits
    mine, theirs = (
        next(Predictor(m, batch_size=16).stream(s)) for m, s in ((run.model, data.test), (trained.model, parts.test))
    )
    np.testing.assert_array_equal(mine.scores, theirs.scores)
    np.testing.assert_array_equal(mine.maps, theirs.maps)


def test_feature_caches_know_the_content(data_dir):
    train = load("own_parts", data_dir, config=WHOLE).train
    model = toy_model()
    assert cache_identity(model, train) == cache_identity(model, load("own_parts", data_dir, config=WHOLE).train)
    assert cache_identity(model, train) != cache_identity(model, train.select(range(1, len(train))))
    assert len({train.fingerprint(index) for index in range(len(train))}) == len(train)


def test_the_index_is_made_once_and_anew_for_other_shards(copy, monkeypatch):
    read_index(screw(copy))
    index = json.loads((screw(copy) / FILE).read_text())
    index["entries"] = index["entries"][:3]
    (screw(copy) / FILE).write_text(json.dumps(index))
    assert len(read_index(screw(copy)).entries) == 3
    (shard,) = screw(copy).glob("*train.array_record*")
    shard.touch()
    assert len(read_index(screw(copy)).entries) == 21
    (screw(copy) / FILE).write_text("{")
    assert len(read_index(screw(copy)).entries) == 21


def test_an_index_that_cannot_be_written_goes_to_the_cache(copy, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (screw(copy) / FILE).unlink(missing_ok=True)
    (screw(copy) / FILE).mkdir()  # cannot be replaced by a file
    first = read_index(screw(copy))
    (file,) = (tmp_path / "cache/jaxad/indexes").iterdir()
    assert len(json.loads(file.read_text())["entries"]) == len(first.entries) == 21
    assert read_index(screw(copy)) == first


def test_a_damaged_index_is_made_anew(copy):
    first, file = read_index(screw(copy)), screw(copy) / FILE
    sound = file.read_text()
    other = sound.replace('"entries"', '"entry"'), sound.replace('"train", ', "3, ", 1)
    for changed in (sound[:-5], "[]", "{}", *other):
        file.write_text(changed)
        assert read_index(screw(copy)) == first
        assert file.read_text() == sound
    for place, odd in itertools.product(range(len(astuple(first.entries[0]))), ([], -1.5)):
        content = json.loads(sound)
        content["entries"][0][place] = odd
        file.write_text(json.dumps(content))
        assert read_index(screw(copy)) == first, place


def test_names_of_categories_that_are_none(copy, monkeypatch):
    (screw(copy) / "metadata.json").write_text('{"category": 3}')
    with pytest.raises(DataError, match=r"metadata\.json: does not name the category"):
        prepared._official_name(screw(copy))


@pytest.mark.parametrize("key", ["pythonClassName", "python_class_name", "type"])
def test_no_module_is_imported_because_a_data_set_names_it(copy, key):
    file = screw(copy) / "features.json"
    named = '"pythonClassName": "tensorflow_datasets.core.features.text_feature.Text"'
    file.write_text(file.read_text().replace(named, f'"{key}": "this.Text"'))
    (screw(copy) / FILE).unlink(missing_ok=True)
    with pytest.raises(DataError, match=rf"features\.json: {key} = 'this\.Text'"):
        load("own_parts/screw", copy, config=WHOLE)
    assert "this" not in sys.modules


def test_damaged_shards_are_named(copy):
    data = load("own_parts/screw", copy, config=WHOLE)
    (shard,) = screw(copy).glob("*test.array_record*")
    content = bytearray(shard.read_bytes())
    content[200:4000] = bytes(3800)
    shard.write_bytes(content)
    (screw(copy) / FILE).unlink()
    with pytest.raises(DataError, match=r"screw/1\.0\.0: cannot read record \d+ of test .*prepare it again"):
        load("own_parts/screw", copy)
    shard.unlink()
    with pytest.raises(DataError, match="prepare it again"):
        load("own_parts/screw", copy)
    assert len(data.train) == 14


@pytest.mark.parametrize("change", [{"category": 99}, {"defect": b"\xff"}, {"view": "x"}])
def test_records_that_are_not_as_their_features_say_are_named(copy, monkeypatch, change):
    (screw(copy) / FILE).unlink(missing_ok=True)
    monkeypatch.setattr(prepared_index, "read_record", lambda *place: read_record(*place) | change)
    with pytest.raises(DataError, match=r"screw/1\.0\.0: record \d+ of train .*prepare it again"):
        load("own_parts/screw", copy)


def test_check_examines_prepared_images(tree, tmp_path):
    tree.category("c", train=6)
    tree.image("c/train/good/twin.png", seed=1)
    tree.image("c/test/good/twin.bmp", seed=1)
    tree.image("c/test/scratch/odd.png")
    tree.mask("c/ground_truth/scratch/odd_mask.png", (5, 5))
    prepare(tree.root, tmp_path / "prepared")
    assert load("own_parts", tmp_path / "prepared").images == {}
    with pytest.raises(DataError) as caught:
        load("own_parts", tmp_path / "prepared", verify=True)
    problems = {(problem.kind, problem.file) for problem in caught.value.problems}
    assert problems == {
        ("duplicate in train and test", "own_parts/c/c/train/good/twin.png"),
        ("mask size", "own_parts/c/c/test/scratch/odd.png#mask"),
    }
    left = load("own_parts", tmp_path / "prepared", config=DataConfig(on_bad="skip", holdout=0))
    assert (len(left.train), len(left.test)) == (6, 5)
    assert left.images == {"c": {"sizes": {"10 x 12": 13}, "kinds": {"BMP RGB": 1, "PNG RGB": 12}}}


def test_sources_travel_between_processes(data_dir):
    source = load("own_parts/screw", data_dir, config=WHOLE).train
    twin = pickle.loads(pickle.dumps(source))
    assert twin == source
    views = {"image": View(8, 8)}
    here = list(batches(source, views, 4))
    there = list(batches(source, views, 4, processes=1, workers=1))
    for one, other in zip(here, there, strict=True):
        assert (one.indices, one.sizes) == (other.indices, other.sizes)
        np.testing.assert_array_equal(one.batch.images["image"], other.batch.images["image"])
        np.testing.assert_array_equal(one.batch.seed, other.batch.seed)


@pytest.mark.slow
def test_memory_is_flat_over_a_pass_of_20000_records(data_dir):
    few = load("own_parts/screw", data_dir, config=WHOLE).train
    source = few.select(index % len(few) for index in range(20_000))
    peaks, seen = [], 0
    for loaded in batches(source, {"image": View(64, 64)}, 50):
        seen += len(loaded.records)
        peaks.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
    assert seen == 20_000
    # Megabytes; 20,000 of these images would take 240.
    assert peaks[-1] - peaks[len(peaks) // 10] < 8
