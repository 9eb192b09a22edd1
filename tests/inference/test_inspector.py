"""A checkpoint that is loaded once: one program, whatever is asked, from however many threads."""

from __future__ import annotations

import dataclasses
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import jaxad
from jaxad.errors import ConfigError, DataError
from jaxad.inference.inspector import Inspector
from jaxad.inference.threshold import overridden
from jaxad.testing import make_parts
from tests.compilations import counted


@pytest.fixture(scope="module")
def inspector(trained) -> Inspector:
    return jaxad.load(trained.workdir)


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> list[Path]:
    folder = make_parts(tmp_path_factory.mktemp("photos"), train=1, test=3, size=71)
    return sorted(folder.rglob("test/*/*.png"))


def test_no_number_size_or_kind_of_image_compiles(inspector, files):
    with counted() as counts:
        inspector(files[0])
        inspector(files[:3], category="disc")
        inspector(np.zeros((300, 20), np.uint8))
        inspector(files)
    assert counts["programs"] == 0


def test_answers_are_those_of_predict(inspector, trained, files):
    expected = jaxad.predict(trained.model, files, threshold=trained.threshold, category="tile")
    for found in (inspector(files, category="tile"), [inspector(file, category="tile") for file in files]):
        for mine, theirs in zip(found, expected, strict=True):
            assert mine.score == pytest.approx(theirs.score, rel=1e-5)
            assert (mine.file, mine.category, mine.threshold) == (theirs.file, "tile", theirs.threshold)
            np.testing.assert_allclose(mine.map, theirs.map, rtol=1e-4, atol=1e-5)


def test_threads_get_the_answers_to_their_own_images(inspector, files):
    expected = {file: inspector(file).score for file in files}
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda file: (file, inspector(file)), files * 5))
    assert all(answer.file == str(file) for file, answer in found)
    assert [answer.score for _, answer in found] == pytest.approx([expected[file] for file, _ in found], rel=1e-5)


def test_one_image_has_one_answer_and_several_a_list(inspector, files):
    pixels = np.asarray(Image.open(files[0]))
    for one in (files[0], str(files[0]), Image.open(files[0]), pixels):
        assert inspector(one).score == pytest.approx(inspector(files[0]).score, rel=1e-5)
    assert [answer.file for answer in inspector([pixels, files[1]])] == ["image-0", str(files[1])]
    assert [answer.file for answer in inspector(files[0].parent)] == [
        str(f) for f in files if f.parent == files[0].parent
    ]


def test_categories_are_given_or_those_of_subfolders(inspector, files):
    root = files[0].parents[3]
    assert [(Path(answer.file).relative_to(root).parts[0]) for answer in inspector(root)] == [
        answer.category for answer in inspector(root)
    ]
    assert {answer.category for answer in inspector(root, category="tile")} == {"tile"}
    assert inspector(files[0]).category == ""
    with pytest.raises(ConfigError, match="category = bolt: the checkpoint knows disc, tile"):
        inspector(files[0], category="bolt")


def test_what_an_image_shows_is_what_is_named_or_set_or_the_only_one_known(trained):
    mine, other = (jaxad.load(trained.workdir, category=name, warm=False) for name in ("disc", ""))
    assert [mine.category_of(name) for name in (None, "tile", "")] == ["disc", "tile", ""]
    assert other.category_of() == ""
    other.detector.categories = ("disc",)
    assert [other.category_of(name) for name in (None, "", "disc")] == ["disc"] * 3
    with pytest.raises(ConfigError, match="category = tile: the checkpoint knows disc"):
        other.category_of("tile")


def test_a_category_may_be_set_at_loading_and_a_threshold_by_hand(trained, files):
    mine = jaxad.load(trained.workdir, category="disc", threshold=0.0, warm=False)
    answer = mine(files[0])
    assert (answer.category, answer.threshold, answer.verdict) == ("disc", 0.0, "anomalous")
    assert mine.identity["threshold_set_by_hand"] == 0.0
    with pytest.raises(ConfigError, match="bolt"):
        jaxad.load(trained.workdir, category="bolt", warm=False)


def test_a_precision_may_be_set_at_loading_and_leaves_the_threshold(inspector, trained, files):
    low = jaxad.load(trained.workdir, precision="bfloat16", warm=False)
    assert (low.identity["precision"], inspector.identity["precision"]) == ("bfloat16", "auto")
    rounded, exact = low(files[0], category="tile"), inspector(files[0], category="tile")
    assert rounded.threshold == exact.threshold
    assert 0 < abs(rounded.score - exact.score) < 0.1 * exact.score


def test_broken_images_are_named_all_at_once(inspector, files, tmp_path):
    broken = [tmp_path / "a.png", tmp_path / "b.png"]
    for file in broken:
        file.write_bytes(b"no image")
    with pytest.raises(DataError, match="2 of 3 images") as error:
        inspector([broken[0], files[0], broken[1]])
    assert [problem.file for problem in error.value.problems] == list(map(str, broken))


def test_answers_say_which_checkpoint_judged(inspector, trained, files):
    restored = jaxad.restore(trained.workdir)
    identity = inspector.identity
    assert identity["sha256"] == restored.sha256
    assert (identity["step"], identity["detector"]) == (restored.meta["step"], "dpdiff")
    assert Path(identity["run"]) == Path(trained.workdir).absolute()
    assert inspector(files[0]).model == identity["sha256"][:12] != ""
    older = sorted((Path(trained.workdir) / "checkpoints").iterdir(), key=lambda step: int(step.name))[0]
    assert jaxad.restore(older).sha256 != restored.sha256


@pytest.fixture
def conditioned(trained, monkeypatch):
    """The detector, as if captions conditioned it."""
    inputs = dataclasses.replace(trained.model.inputs, captions="always")
    monkeypatch.setattr(type(trained.model), "inputs", inputs)
    return trained.model


def test_missing_captions_are_said_once(conditioned, files):
    said = []
    inspector = Inspector(conditioned, batch_size=2, told=said.append)
    inspector(files[:2], captions=["a disc", "another"])
    inspector(files[0], captions="a disc")
    assert said == []
    inspector(files[:3], captions=["a disc", "", "a disc"])
    inspector(files[0])
    assert said == [f'1 of 3 images have no caption ({files[1]}); "" stands for it']
    with pytest.raises(ConfigError, match="captions: 1 for 2 images"):
        inspector(files[:2], captions="a disc")
    with pytest.warns(UserWarning, match=r'1 of 1 images have no caption; "" stands for it; give them with captions'):
        jaxad.predict(conditioned, files[0])
    jaxad.predict(conditioned, files[0], captions="a disc")


def test_a_threshold_that_was_measured_with_captions_is_said_not_to_hold(conditioned, trained, files):
    restored = jaxad.restore(trained.workdir)
    captions = {"source": "captions", "kind": "vlm, pd", "images": 3, "missing": 0}
    restored = dataclasses.replace(restored, meta={**restored.meta, "data": {"captions": captions}})
    by_hand = dataclasses.replace(restored, threshold=overridden(restored.threshold, 0.5))
    said = []
    for run in (restored, by_hand):
        Inspector(conditioned, run.threshold, restored=run, told=said.append)(files[0])
    end = "the threshold does not hold, it was measured with captions of vlm, pd, and here are none"
    assert [text.partition("stands for it")[2] for text in said] == [f"; {end}", ""]


def test_detectors_without_captions_want_none(inspector, files):
    with pytest.raises(ConfigError, match="captions: this dpdiff takes none"):
        inspector(files[0], captions="a disc")
