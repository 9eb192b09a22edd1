"""What detectors ask of `jaxad fit` besides settings: captions, and references or names."""

from pathlib import Path

import pytest

from jaxad.config import CLIPFusionConfig, DataConfig, VLMDiffConfig
from jaxad.data.fit_options import CaptionOptions, FitData, FitOptions, ReferenceOptions
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
    assert record == {"captions": {"source": None, "images": 0, "missing": 0}}
    (warning,) = said
    assert "authors may have trained on" in warning
    said.clear()
    dataset, record = CaptionOptions().load(data, VLMDiffConfig(checkpoint="authors.ckpt"), Reporter())
    missing = len(dataset.train)
    assert record == {"captions": {"source": None, "images": missing, "missing": missing}}
    assert len(said) == 1


def test_captions_that_are_not_used_are_a_problem():
    (problem,) = CaptionOptions(captions=Path("texts")).problems(VLMDiffConfig(captions="never"), FitData("demo"))
    assert "captions = texts" in problem
    assert CaptionOptions(captions=Path("texts")).problems(VLMDiffConfig(), FitData("demo")) == []


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
    assert record == {"shots": 0, "seed": 0, "reference_lists": None}


def test_references_are_drawn_from_the_chosen_categories(folder):
    data = FitData(f"folder:{folder}", config=DataConfig(holdout=0.0))
    options = ReferenceOptions(shots=2, seed=3, classes=("disc",))
    dataset, record = options.load(data, CLIPFusionConfig(), Reporter())
    assert (dataset.categories, len(dataset.train), record["seed"]) == (("disc",), 2, 3)
    assert options.categories(None) == ("disc",)
    assert options.categories(("tile",)) == ("tile",)


def test_every_category_needs_images_where_some_are_remembered(tmp_path):
    make_parts(tmp_path, ("bolt", "disc"), train=2, test=1, size=12)
    for file in (tmp_path / "bolt/train/good").iterdir():
        file.unlink()
    data = FitData(f"folder:{tmp_path}", config=DataConfig(holdout=0.0, on_bad="skip"))
    with pytest.raises(DataError, match=r"none of bolt.*categories = disc.*shots = 0"):
        ReferenceOptions(shots=1).load(data, CLIPFusionConfig(), Reporter())


@pytest.mark.parametrize(
    ("options", "name", "names"),
    [
        ({"shots": -1}, "demo", ["shots = -1"]),
        ({"shots": 2, "classes": ("a",)}, "", ["shots = 2", "data = NAME"]),
        ({}, "", ["classes: "]),
        ({"classes": ("a",)}, "demo", ["classes, categories"]),
        ({"shots": 1, "reference_lists": Path("l")}, "demo", ["reference_lists = l", "holdout = 0"]),
        ({"classes": ("a",), "reference_lists": Path("l")}, "", ["reference_lists = l", "shots = 0"]),
    ],
)
def test_options_that_cannot_work(options, name, names):
    config = DataConfig(("b",) if names == ["classes, categories"] else None)
    found = "\n".join(ReferenceOptions(**options).problems(CLIPFusionConfig(), FitData(name, config=config)))
    assert all(part in found for part in names)


def test_the_size_of_images_that_no_network_sees_is_a_problem():
    data, options = FitData("demo"), ReferenceOptions()
    (problem,) = options.problems(CLIPFusionConfig.preset("winclip", image_size=448), data)
    assert "image_size = 448" in problem
    assert "clip_image_size" in problem
    assert options.problems(CLIPFusionConfig(image_size=448), data) == []
