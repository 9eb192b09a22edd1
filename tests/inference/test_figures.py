"""What is held for the page: no more than it can show, however many categories there are."""

import weakref
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from jaxad.inference import figures as figures_module
from jaxad.inference.decisions import Decision
from jaxad.inference.evaluation import score
from jaxad.inference.figures import METHOD, _explanations, _patch_labels
from jaxad.inference.results import PATCHES, choose_patches
from jaxad.types import Explanation, Record

GRID, CHANNELS = (24, 20), 8


class Explained:
    """A finished pass of categories with a defective and a normal image each, and all that its explanations hold.

    Of every fourth category the defect's mask is not known.
    """

    def __init__(self, categories):
        records = [Record(Path(f"{i}.png"), f"part{i // 2}", 1 - i % 2) for i in range(2 * categories)]
        self.decided = {i: Decision(i, f"{i}.png", r.category, "", 1 - i % 2, 0.0) for i, r in enumerate(records)}
        self.ranks = dict.fromkeys(range(0, len(records), 2), "median")
        self.features: dict[int, list[np.ndarray]] = {}
        self.most, self._alive = 0, []
        self.categories = [[2 * i, 2 * i + 1] for i in range(categories)]
        source = SimpleNamespace(records=records, mask=self.mask)
        self.scored = SimpleNamespace(source=source, predictor=SimpleNamespace(explain=self.explain))

    def mask(self, index):
        if index % 2 or index % 8 == 6:
            return None
        return np.add.outer(np.arange(48), np.arange(40)) < 20 + index % 17

    def explain(self, source, indices):
        draw = np.random.default_rng(0)
        for index in indices:
            pair = [draw.random((*GRID, CHANNELS), np.float32) for _ in range(2)]
            image = np.full((400, 300, 3), index % 256, np.uint8)
            self.features[index] = [features.copy() for features in pair]
            self._alive += [weakref.ref(array) for array in (*pair, image)]
            near = draw.random((4, 2, *GRID), np.float32)[0]
            yield Explanation(*pair, similarity=near, prototypes=("local 1", "global 1")), image
            del pair, image
            self.most = max(self.most, sum(array() is not None for array in self._alive))

    def run(self):
        return _explanations(self.scored, self.categories, self.ranks, self.decided)  # type: ignore[arg-type]

    def all_patches(self):
        """Features of all patches that could be chosen, whether they lie on a defect, and their categories."""
        before, after, anomalous, categories = [], [], [], []
        for index, pair in self.features.items():
            mask = self.mask(index)
            if mask is None and index % 2 == 0:
                continue
            anomalous.append(_patch_labels(mask, GRID))
            before.append(pair[0].reshape(-1, CHANNELS))
            after.append(pair[1].reshape(-1, CHANNELS))
            categories += [self.decided[index].category] * len(anomalous[-1])
        return np.concatenate(before), np.concatenate(after), np.concatenate(anomalous), np.array(categories)


@pytest.mark.parametrize("categories", [1, 2, 9, 60])
def test_patches_are_those_that_a_choice_of_all_of_them_gives(categories):
    made = Explained(categories)
    tsne = made.run()[2]
    assert tsne is not None
    every = made.all_patches()
    chosen = choose_patches(every[2])
    assert len(chosen) == min(PATCHES, len(every[2]))
    for taken, expected in zip((tsne.before, tsne.after, tsne.anomalous, tsne.categories), every, strict=True):
        np.testing.assert_array_equal(taken, expected[chosen])
    # The page draws all of them, not a choice of the choice.
    np.testing.assert_array_equal(choose_patches(tsne.anomalous), np.arange(len(chosen)))


def test_features_of_one_image_are_held_at_a_time_and_of_a_choice_in_the_end():
    made = Explained(60)
    tsne = made.run()[2]
    assert tsne is not None
    assert tsne.before.nbytes == tsne.after.nbytes == PATCHES * CHANNELS * 4
    # Both features and the image of the last one, which the loop still names.
    assert made.most <= 3


def test_defective_images_without_masks_alone_give_no_patches():
    made = Explained(4)
    made.mask = lambda index: None
    made.scored.source.mask = made.mask
    made.categories = [[2]]
    assert made.run()[2] is None


def test_up_to_a_third_of_the_patches_is_anomalous_and_more_where_normal_ones_are_few():
    mixed = np.arange(6000) % 2 == 0
    assert mixed[choose_patches(mixed)].sum() == PATCHES // 3
    few = np.arange(6000) >= 100
    assert few[choose_patches(few)].sum() == PATCHES - 100
    assert choose_patches(few[:PATCHES]).tolist() == list(range(PATCHES))


def test_similarities_are_held_small():
    shown = Explained(30).run()[0]
    assert [figure.decision.index for figure in shown] == list(range(60))
    for figure in shown:
        assert figure.image.shape == (METHOD, METHOD * 3 // 4, 3)
        # A view would keep the similarities of a whole batch.
        assert figure.maps.base is None


def test_images_are_predicted_again_only_of_categories_that_the_page_shows(trained, parts, monkeypatch):
    """Of two categories, where there is room for one: the weaker."""
    scored = score(trained.model, parts)
    results = scored.results()
    assert len(results) == 2
    monkeypatch.setattr(figures_module, "GALLERY", 1)
    monkeypatch.setattr(figures_module, "EXPLAINED_CATEGORIES", 1)
    explained = []
    explain = scored.predictor.explain
    monkeypatch.setattr(
        scored.predictor, "explain", lambda source, indices: explained.extend(indices) or explain(source, indices)
    )
    found = figures_module.figures(scored)
    weakest = min(results, key=lambda name: results[name]["image_auroc"])
    assert {case.decision.category for case in found.cases} == {weakest}
    assert explained
    assert {scored.source.records[index].category for index in explained} == {weakest}
