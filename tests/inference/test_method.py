"""Pictures of the method: which words a detector has, what they show, and that nothing of the judgement changes."""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar, get_args

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import jaxad
from jaxad import parallel
from jaxad.cli._saving import METAVAR, Save
from jaxad.config.fields import Config
from jaxad.data import ImageList, Region, Tiling
from jaxad.detector import Detector, InputSpec
from jaxad.errors import ConfigError
from jaxad.inference.evaluation import score
from jaxad.inference.figures import METHOD, _method, figures
from jaxad.inference.heat import heat
from jaxad.inference.inspector import Inspector
from jaxad.inference.method import EXPLAINED, OF_MAPS, SIDE, draw
from jaxad.inference.predictor import Predictor
from jaxad.inference.threshold import Limits, Threshold
from jaxad.types import Explanation, Features, Judgement, View
from tests.compilations import counted

GRID = 8
RANDOM = np.random.default_rng(0)
IMAGES = [RANDOM.integers(0, 256, (side, 40, 3), np.uint8) for side in (30, 60, 90)]


@dataclasses.dataclass(frozen=True)
class Nothing(Config):
    """No settings."""


class Redrawing(Detector):
    """Takes each pixel's complement for its reconstruction."""

    name: ClassVar[str] = "redrawing"
    title: str = "Redrawing"
    config_class: ClassVar[type] = Nothing

    def __init__(self, config=None, *, rngs=None):
        self.config, self.offset = config or Nothing(), nnx.Param(jnp.zeros(()))

    @property
    def inputs(self):
        return InputSpec({"image": View(GRID, GRID)})

    def encode(self, batch):
        pixels = jnp.asarray(batch.images["image"], jnp.float32)
        return Features(pixels.reshape(len(pixels), -1, 3), (GRID, GRID))

    def judge(self, features, batch, keys):
        before = features.tokens.reshape(-1, GRID, GRID, 3)
        after = 255 - before + self.offset[...]
        maps = jnp.abs(before - after).mean(-1)
        near = jnp.stack([maps, -maps], 1)
        pictures = {"reconstruction": after.astype(jnp.uint8), "autoencoder": before.astype(jnp.uint8)}
        return Judgement(
            maps, None, Explanation(before, after, near, ("local 1", "local 2"), pictures, {"half": maps / 2})
        )


class Plain(Redrawing):
    """Has nothing to show but the map."""

    name: ClassVar[str] = "plain"
    title: str = "Plain"

    def judge(self, features, batch, keys):
        return dataclasses.replace(super().judge(features, batch, keys), explanation=Explanation())


def test_each_detector_says_which_words_it_has():
    tiles = Plain()
    tiles.tiling = Tiling(16)
    assert Predictor(Redrawing(), batch_size=2).words == (*OF_MAPS, *EXPLAINED)
    assert Predictor(Plain(), batch_size=2).words == (*OF_MAPS, "input")
    assert Predictor(tiles, batch_size=2).words == OF_MAPS
    with pytest.raises(ConfigError, match=r"^explain = terms: this plain has overlay map mask heatmap input$"):
        jaxad.predict(Plain(), IMAGES, explain=["input", "terms"])


def test_words_of_the_command_are_those_of_the_library():
    assert get_args(Save) == (*OF_MAPS, *EXPLAINED)
    assert f"{{{','.join(get_args(Save))}}}..." == METAVAR


@pytest.mark.parametrize("region", [None, Region.from_json({"box": [4, 4, 36, 26]})])
def test_pictures_come_with_the_answers_and_change_none(region):
    """The images are of three sizes, and fill a batch and a half."""
    detector = Redrawing()
    detector.regions = () if region is None else (("", region),)
    plain = jaxad.predict(detector, IMAGES, batch_size=2)
    answers = jaxad.predict(detector, IMAGES, batch_size=2, explain=EXPLAINED)
    for answer, other, image in zip(answers, plain, IMAGES, strict=True):
        np.testing.assert_allclose(answer.map, other.map, rtol=1e-6)
        assert answer.score == pytest.approx(other.score)
        (seen,) = Predictor(detector, batch_size=2).batches(ImageList([image]), None, 0)
        small = seen.batch.images["image"][0]
        np.testing.assert_array_equal(answer.pictures("input")[""], small)
        np.testing.assert_array_equal(answer.pictures("autoencoder")[""], small)
        np.testing.assert_array_equal(answer.pictures("reconstruction")[""], 255 - small)
        assert answer.pictures("terms").keys() == {"local 1", "local 2", "half", "residual"}
        assert answer.pictures("features").keys() == {"before", "after"}
        sized = (*answer.pictures("terms").values(), *answer.pictures("features").values())
        assert {picture.shape for picture in (*sized, answer.heatmap)} == {image.shape}
        np.testing.assert_array_equal(answer.explanation.terms["residual"], 2 * answer.explanation.terms["half"])


REGION = (("", Region.from_json({"box": [4, 4, 36, 26]})),)


@pytest.mark.parametrize("regions", [(), REGION])
def test_an_image_is_read_and_judged_once_for_map_and_pictures(regions, monkeypatch):
    detector, read = Redrawing(), []
    detector.regions = regions
    loaded = Predictor.batches

    def counted_batches(self, *args, **kwargs):
        for batch in loaded(self, *args, **kwargs):
            read.extend(batch.indices)
            yield batch

    predictor = Predictor(detector, batch_size=2)
    predictor.check_words(["terms"])
    monkeypatch.setattr(Predictor, "batches", counted_batches)
    outputs = list(predictor.stream(ImageList(IMAGES), explain=("terms",)))
    assert read == [0, 1, 2]
    assert [len(output.explanations) for output in outputs] == [len(output.scores) for output in outputs]


@pytest.mark.parametrize("regions", [(), REGION])
def test_explanations_are_launched_as_predictions_are(regions, monkeypatch):
    """In turn with the programs of other threads, and each batch before the last one is taken from the device."""
    detector = Redrawing()
    detector.regions = regions
    predictor, events = Predictor(detector, batch_size=2), []
    shard, to_host = parallel.shard_batch, parallel.to_host

    def launched(*args):
        assert predictor._start._lock.locked()
        events.append("launched")
        return shard(*args)

    def taken(*args):
        assert not predictor._start._lock.locked()
        events.append("taken")
        return to_host(*args)

    monkeypatch.setattr(parallel, "shard_batch", launched)
    monkeypatch.setattr(parallel, "to_host", taken)
    shown = list(predictor.explain(ImageList(IMAGES), [0, 1, 2]))
    assert [image.shape for _, image in shown] == [image.shape for image in IMAGES]
    assert events == ["launched", "launched", "taken", "taken"]


def test_figures_and_predictions_share_a_program():
    predictor = Predictor(Redrawing(), batch_size=2)
    list(predictor.stream(ImageList(IMAGES), explain=EXPLAINED))
    with counted() as counts:
        list(predictor.explain(ImageList(IMAGES), [2, 0]))
    assert not counts["programs"]


def test_to_say_which_words_there_are_takes_no_room_on_devices():
    predictor = Predictor(Redrawing(), batch_size=2)
    assert predictor.check_words(["terms"]) == ("terms",)
    assert "arrays" not in vars(predictor)


def kept_bytes(array):
    """Bytes that an array keeps from being freed."""
    assert isinstance(array, np.ndarray)
    while isinstance(array.base, np.ndarray):
        array = array.base
    assert array.base is None, "memory of a device"
    return array.nbytes


def test_what_is_kept_of_an_image_keeps_no_other_of_its_batch(parts):
    for answer in jaxad.predict(Redrawing(), IMAGES, explain=EXPLAINED):
        for array in (answer.small_map, *jax.tree.leaves(answer.explanation)):
            assert kept_bytes(array) == array.nbytes
    rule = Threshold(0.1, "exact-256", {"": Limits(150.0, 150.0, 20.0, 9)})
    found = figures(score(Redrawing(), parts.test, threshold=rule, batch_size=8))
    assert found.cases
    assert found.pictures
    assert found.prototypes
    for shown in (*found.cases, *found.pictures.values()):
        assert kept_bytes(shown.map) == shown.map.nbytes
    for shown in found.prototypes:
        assert kept_bytes(shown.maps) == shown.maps.nbytes


def test_an_answer_holds_what_was_asked_for_alone():
    (answer,) = Inspector(Redrawing(), batch_size=2)(IMAGES[:1], explain=("input", "terms"))
    held = answer.explanation
    assert held.before is held.after is None
    assert held.pictures.keys() == {"input"}
    assert held.terms.keys() == {"half", "residual"}
    assert answer.pictures("features") == answer.pictures("reconstruction") == {}
    assert jaxad.predict(Redrawing(), IMAGES[0])[0].explanation is None


def test_detectors_and_inspectors_are_named_by_a_line():
    detector = Redrawing()
    assert repr(Inspector(detector, batch_size=2)) == "<Inspector: <Redrawing: no category yet>, no threshold>"
    detector.categories = ("disc", "tile")
    assert repr(detector) == "<Redrawing: disc, tile>"
    detector.categories = tuple("abcd")
    assert repr(detector) == "<Redrawing: 4 categories>"


def test_terms_run_over_the_colors_and_prototypes_have_others():
    terms = {"clip language": np.array([[1.0, 2.0], [3.0, 5.0]], np.float32)}
    near = np.array([[[0.0, 1.0], [1.0, 1.0]]], np.float32)
    found = draw("terms", Explanation(similarity=near, prototypes=("local 1",), terms=terms), (2, 2))
    np.testing.assert_array_equal(found["clip language"], heat(terms["clip language"], low=1, high=5))
    np.testing.assert_array_equal(found["local 1"], heat(near[0], low=0, high=1, palette="viridis"))


def test_equal_features_have_equal_colors_before_and_after():
    before = RANDOM.normal(size=(4, 4, 9)).astype(np.float32)
    same = draw("features", Explanation(before, before), (8, 8))
    np.testing.assert_array_equal(same["before"], same["after"])
    assert len(np.unique(same["before"].reshape(-1, 3), axis=0)) > 8
    turned = draw("features", Explanation(before, before[::-1]), (8, 8))
    np.testing.assert_array_equal(turned["before"], turned["after"][::-1])


def test_features_of_two_channels_and_pictures_of_large_images_stay_small():
    before = RANDOM.normal(size=(4, 4, 2)).astype(np.float32)
    drawn = draw("features", Explanation(before, -before), (3 * SIDE, SIDE))
    assert drawn["before"].shape == (SIDE, round(SIDE / 3), 3)
    assert not drawn["before"][..., 2].any()


def test_pictures_on_the_page_have_the_proportions_of_the_image():
    decision: Any = None
    square = np.zeros((64, 64, 3), np.uint8)
    features = np.random.default_rng(0).random((2, 4, 4, 3))
    seen = Explanation(*features, pictures={"input": square, "reconstruction": square})
    figure = _method(decision, seen, np.zeros((400, 300, 3), np.uint8))
    assert {picture.shape for picture in figure.pictures.values()} == {(METHOD, METHOD * 3 // 4, 3)}
