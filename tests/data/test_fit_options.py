"""What detectors ask of `jaxad fit` besides settings: captions, and references or names."""

from pathlib import Path

import pytest

from jaxad.config import CLIPFusionConfig, DataConfig, VLMDiffConfig
from jaxad.data.captions.writing import write_captions
from jaxad.data.fit_options import CaptionOptions, FitData, FitOptions, LearnedReferenceOptions, ReferenceOptions
from jaxad.errors import DataError
from jaxad.io.progress import Reporter
from jaxad.testing import make_parts


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return make_parts(tmp_path_factory.mktemp("options"), train=4, test=1, size=16)


@pytest.fixture
def said(monkeypatch):
    warnings = []
    monkeypatch.setattr(Reporter, "warn", lambda _, messages: warnings.extend(messages))
    return warnings


def test_by_default_the_data_are_read_as_they_are(folder):
    data = FitData(f"folder:{folder}", config=DataConfig(("disc",), holdout=0.0))
    dataset, record = FitOptions().load(data, None, Reporter())
    assert (dataset.categories, len(dataset.train), record) == (("disc",), 4, {})
    assert FitOptions().problems(None, data) == []
    assert FitOptions().evaluation(None) == {}


def test_the_threshold_of_a_finished_checkpoint_comes_with_a_warning(folder, said):
    """Its authors' training may have seen the hold-out."""
    data = FitData(f"folder:{folder}")
    finished = VLMDiffConfig(checkpoint="authors.ckpt", trained=True)
    _, record = CaptionOptions().load(data, finished, Reporter())
    assert record == {"captions": {"source": None, "kind": "", "images": 0, "missing": 0}}
    (warning,) = said
    assert "authors may have trained on" in warning
    said.clear()
    dataset, record = CaptionOptions().load(data, VLMDiffConfig(checkpoint="authors.ckpt"), Reporter())
    missing = len(dataset.train)
    assert record == {"captions": {"source": None, "kind": "", "images": missing, "missing": missing}}
    assert len(said) == 1


def test_captions_that_are_not_used_are_a_problem():
    (problem,) = CaptionOptions(captions=Path("texts")).problems(VLMDiffConfig(captions="never"), FitData("demo"))
    assert "captions = texts" in problem
    assert CaptionOptions(captions=Path("texts")).problems(VLMDiffConfig(), FitData("demo")) == []


def test_test_images_are_watched_with_the_captions_that_condition_their_scores(folder, tmp_path):
    test = FitData(f"folder:{folder}").load().test
    ids = [record.identity for record in test.records]
    texts = write_captions(tmp_path, "parts", "vlm", "pd", "test", ids, lambda images: images)
    always, options = VLMDiffConfig(captions="always"), CaptionOptions(captions=texts)
    assert [record.caption for record in options.watched(test, always).records] == ids
    assert options.watched(test, VLMDiffConfig()) is CaptionOptions().watched(test, always) is test
    with pytest.raises(DataError, match="no file test_captions"):
        CaptionOptions(captions=tmp_path).watched(test, always)


def test_the_evaluation_is_given_the_captions_that_it_needs(tmp_path):
    always, train = VLMDiffConfig(captions="always"), VLMDiffConfig()
    assert CaptionOptions(captions=tmp_path).evaluation(always) == {"captions": tmp_path}
    # A file is of the training images.
    file = tmp_path / "captions_train2017_internvl.json"
    assert CaptionOptions(captions=file).evaluation(always) == {"captions": "TEST_CAPTIONS"}
    assert CaptionOptions(captions=tmp_path).evaluation(train) == CaptionOptions().evaluation(always) == {}


def test_names_alone_need_no_images():
    options = ReferenceOptions(classes=("nut", "screw"))
    dataset, record = options.load(FitData(""), CLIPFusionConfig(), Reporter())
    assert (dataset.categories, dataset.train.categories) == (("nut", "screw"), ("nut", "screw"))
    assert (len(dataset.train), len(dataset.test)) == (0, 0)
    assert record == {"shots": 0, "seed": 0, "reference_lists": None, "references": {"nut": [], "screw": []}}


def test_references_are_drawn_from_the_chosen_categories(folder):
    data = FitData(f"folder:{folder}", config=DataConfig(holdout=0.0))
    options = ReferenceOptions(shots=2, seed=3, classes=("disc",))
    dataset, record = options.load(data, CLIPFusionConfig(), Reporter())
    assert (dataset.categories, len(dataset.train), record["seed"]) == (("disc",), 2, 3)
    assert record["references"] == {"disc": [r.identity for r in dataset.train.records]}
    assert all(name.startswith("disc/train/good/") for name in record["references"]["disc"])
    assert options.categories(None) == ("disc",)
    assert options.categories(("tile",)) == ("tile",)


def test_every_category_needs_images_where_some_are_remembered(tmp_path):
    make_parts(tmp_path, ("bolt", "disc"), train=2, test=1, size=12)
    for file in (tmp_path / "bolt/train/good").iterdir():
        file.unlink()
    data = FitData(f"folder:{tmp_path}", config=DataConfig(holdout=0.0, on_bad="skip"))
    with pytest.raises(DataError, match=r"none of bolt.*categories = disc.*shots = 0"):
        ReferenceOptions(shots=1).load(data, CLIPFusionConfig(), Reporter())


@pytest.mark.parametrize(("shots", "held"), [(4, 0), (3, 1), (1, 3), (0, 4)])
def test_shots_come_before_the_hold_out(folder, shots, held):
    """Four photos of each category; nothing is learned of those that are not remembered."""
    dataset, _ = ReferenceOptions(shots=shots).load(FitData(f"folder:{folder}"), CLIPFusionConfig(), Reporter())
    assert [n["holdout"] for n in dataset.counts.values()] == [held, held]
    assert len(dataset.train) == 2 * shots
    assert not {r.file for r in dataset.train.records} & {r.file for r in dataset.holdout.records}
    kinds = [problem.kind for problem in dataset.problems]
    assert kinds == (["no hold-out"] if shots == 4 else ["small hold-out"] * 2)
    # The draw is the same whatever is held out.
    whole = FitData(f"folder:{folder}", config=DataConfig(holdout=0.0))
    without, _ = ReferenceOptions(shots=shots).load(whole, CLIPFusionConfig(), Reporter())
    assert without.train.records == dataset.train.records
    assert without.problems == ()


def test_copies_of_references_are_not_held_out(tmp_path):
    make_parts(tmp_path, ("disc",), train=4, test=1, size=16)
    first, *_ = sorted((tmp_path / "disc/train/good").iterdir())
    copy = first.with_name("zz.png")
    copy.write_bytes(first.read_bytes())
    apart = 0
    for seed in range(12):
        options = ReferenceOptions(shots=2, seed=seed)
        dataset, _ = options.load(FitData(f"folder:{tmp_path}"), CLIPFusionConfig(), Reporter())
        remembered, held = ({record.file for record in part.records} for part in (dataset.train, dataset.holdout))
        apart += len({first, copy} & remembered) == 1
        assert not ({first, copy} & remembered and {first, copy} & held)
        assert len(held) == (3 if not {first, copy} & remembered else 5 - len({first, copy} | remembered))
    assert apart


@pytest.mark.parametrize(
    ("options", "name", "names"),
    [
        ({"shots": -1}, "demo", ["shots = -1"]),
        ({"shots": 2, "classes": ("a",)}, "", ["shots = 2", "data = NAME"]),
        ({}, "", ["classes: "]),
        ({"classes": ("a",)}, "demo", ["classes, categories"]),
        ({"classes": ("a",), "reference_lists": Path("l")}, "", ["reference_lists = l", "shots = 0"]),
    ],
)
def test_options_that_cannot_work(options, name, names):
    config = DataConfig(("b",) if names == ["classes, categories"] else None)
    found = "\n".join(ReferenceOptions(**options).problems(CLIPFusionConfig(), FitData(name, config=config)))
    assert all(part in found for part in names)


def test_what_is_learned_from_needs_a_shot_and_data():
    options = LearnedReferenceOptions()
    assert (options.shots, options.needs_data, options.problems(None, FitData("demo"))) == (1, True, [])
    assert "shots = 0" in LearnedReferenceOptions(shots=0).problems(None, FitData("demo"))[0]


def test_the_size_of_images_that_no_network_sees_is_a_problem():
    data, options = FitData("demo"), ReferenceOptions()
    (problem,) = options.problems(CLIPFusionConfig.preset("winclip", image_size=448), data)
    assert "image_size = 448" in problem
    assert "clip_image_size" in problem
    assert options.problems(CLIPFusionConfig(image_size=448), data) == []
