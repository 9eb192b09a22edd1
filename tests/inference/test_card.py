"""The model card: what the run records, no path of this machine, and never over what a user has written."""

from __future__ import annotations

import dataclasses
import re
import shutil

import pytest
import yaml

import jaxad
from jaxad.inference.card import CARD, card, hub_id, public, write_card
from jaxad.inference.rechoose import read_decided, rechoose
from jaxad.inference.steps import open_step
from jaxad.io.progress import Reporter
from jaxad.models.known_licenses import license_of
from jaxad.testing import toy_model, toy_training


@pytest.fixture
def copy(trained, tmp_path):
    return shutil.copytree(trained.workdir, tmp_path / "run")


def sections(text):
    """The parts of a card by their titles; "" is all before the first."""
    first, *others = re.split(r"^## (.*)\n", text, flags=re.MULTILINE)
    return {"": first} | dict(zip(others[::2], others[1::2], strict=True))


def with_meta(decided, **changes):
    """The same end of a run that records something else."""
    step = dataclasses.replace(decided.step, meta=decided.step.meta | changes)
    return decided._replace(step=step)


def test_fit_leaves_a_card_of_what_it_has_recorded(trained, parts):
    text = (trained.workdir / CARD).read_text()
    decided = read_decided(trained.workdir)
    front = yaml.safe_load(text.split("---\n")[1])
    assert front["library_name"] == "jaxad"
    assert {"anomaly-detection", "dpdiff"} <= set(front["tags"])
    # Random networks are on no hub.
    assert "base_model" not in front
    part = sections(text)
    assert all(name in part[""] for name in parts.train.categories)
    assert f"{len(parts.train)} normal images of `folder:parts" in part["Fitted on"]
    for digest in decided.step.meta["data"]["sha256"].values():
        assert digest in part["Fitted on"]
    assert "12 steps of" in part["Fitted on"]
    assert "random weights" in part["Not for"]
    assert f"jaxad {decided.step.meta['jaxad']}" in part["Made by"]
    assert "jax " in part["Made by"]


def test_every_category_has_its_threshold_and_the_rate_that_its_holdout_supports(trained, copy):
    rows = [line.split(" | ") for line in (copy / CARD).read_text().splitlines() if line.startswith("| ")]
    scores = read_decided(copy).holdout
    categories = [name for name in trained.threshold.limits if name]
    assert sorted(row[0].strip("| *") for row in rows[1:]) == sorted(["all together", *categories])
    for row in rows[1:]:
        name = row[0].strip("| *")
        limits = trained.threshold.limits["" if name == "all together" else name]
        own = scores.scores[[name in (category, "all together") for category in scores.categories]]
        assert row[1] == str(limits.normals) == str(len(own))
        assert [float(value) for value in row[2:6]] == pytest.approx(
            [own.mean(), own.std(), own.max(), limits.image], rel=1e-4
        )
        assert f"1/{limits.normals + 1}" in row[7]


def test_another_threshold_is_in_the_card_at_once_and_the_rest_stays(copy):
    before = sections((copy / CARD).read_text())
    with (copy / CARD).open("a") as file:
        file.write("\nAsk Kim.\n")
    rechoose(copy, value=123.5)
    text = (copy / CARD).read_text()
    assert text.endswith("Ask Kim.\n")
    after = sections(text.removesuffix("\nAsk Kim.\n"))
    assert {name for name in before if after[name] != before[name]} == {"Decision"}
    assert "| 123.5 |" in after["Decision"]


def test_the_card_tells_of_the_newest_end_whichever_step_is_decided_upon(copy, trained):
    before, decided = (copy / CARD).read_text(), read_decided(copy)
    older = open_step(copy / "checkpoints/8")
    older.end(decided.threshold.to_json(), decided.holdout.to_json(), 0.01)
    rechoose(older.folder, value=123.5)
    assert (copy / CARD).read_text() == before
    # A run that goes on from its end has steps without one.
    (copy / "checkpoints/12/complete.json").unlink()
    assert rechoose(older.folder, value=321.5).value == 321.5
    text = (copy / CARD).read_text()
    assert "| 321.5 |" in text
    assert "\n- 8 steps of" in text
    # Damage is passed over, as everywhere.
    decided.step.end(decided.threshold.to_json(), decided.holdout.to_json(), 0.01)
    (decided.step.folder / "meta/metadata").write_text("{}")
    rechoose(copy, value=456.5)
    assert "| 456.5 |" in (copy / CARD).read_text()


@pytest.fixture
def full(monkeypatch):
    """A disk on which no card can be written."""

    def fail(file, text):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("jaxad.inference.card.write_whole", fail)


def test_a_card_that_cannot_be_written_is_a_warning_and_the_threshold_is_kept(copy, full):
    warned = []
    assert rechoose(copy, value=123.5, warn=warned.extend) == read_decided(copy).threshold
    (line,) = warned
    assert str(copy / CARD) in line
    assert "No space left on device" in line


def test_a_finished_fit_is_none_the_less_finished_without_its_card(copy, full, parts, trained):
    (copy / CARD).unlink()
    warned = []

    class Told(Reporter):
        def warn(self, texts):
            warned.extend(texts)

    for false_alarm in (0.25, 0.25, 0.01):
        run = jaxad.fit(
            toy_model(),
            parts.train,
            toy_training(),
            workdir=copy,
            holdout=parts.holdout,
            false_alarm=false_alarm,
            reporter=Told(quiet=True),
        )
        assert run.threshold == jaxad.restore(copy).threshold
    assert run.threshold == trained.threshold
    assert len([line for line in warned if "the model card cannot be written (No space left" in line]) == 3


def test_nothing_is_written_that_is_there_already(copy, monkeypatch):
    monkeypatch.setattr("jaxad.inference.card.write_whole", lambda *_: pytest.fail("written"))
    assert write_card(read_decided(copy), copy)


def test_a_readme_of_the_user_stays(copy):
    (copy / CARD).write_text("mine")
    assert not write_card(read_decided(copy), copy)
    rechoose(copy, false_alarm=0.2)
    assert (copy / CARD).read_text() == "mine"


def test_no_path_of_the_machine_is_in_a_card(trained, tmp_path):
    decided = read_decided(trained.workdir)
    text = card(decided)
    assert str(trained.workdir.parent) not in text
    secret = {
        **decided.step.meta["data"],
        "source": "folder:/home/kim/parts/train",
        "data": "folder:/home/kim/my parts",
    }
    origin = {"source": "../kim/new", "sha256": "f00"}
    text = card(
        with_meta(
            decided,
            config={"autoencoder": "facebook/dinov2-base", "clip_tokenizer": "a/b", "depth": 2},
            weights={"autoencoder": "0", "clip_tokenizer": "2", "depth": "1"},
            data=secret | {"origins": [origin, origin], "license": "CC0\nby /x"},
            pretrained={
                "id": "clip=/home/kim/clip,diffusion=stable-diffusion-v1-5/stable-diffusion-v1-5",
                "sha256": "0",
            },
        )
    )
    assert "normal images of `folder:my parts`" in text
    assert "- images: CC0 by /x\n" in text
    assert "home" not in text
    assert "kim" not in text
    assert "--data 'folder:my parts'" in text
    assert "`clip`: not known to jaxad" in text
    assert "CreativeML Open RAIL-M" in text
    assert yaml.safe_load(text.split("---\n")[1])["base_model"] == [
        "stable-diffusion-v1-5/stable-diffusion-v1-5",
        "facebook/dinov2-base",
    ]
    assert "an update with normal images of `new`: `f00`" in text


def test_names_are_no_markup(trained):
    text = card(with_meta(read_decided(trained.workdir), categories=["a|b", "<i>\x1b"]))
    assert r"a\|b, \<i>\\x1b" in text


def test_a_run_without_holdout_decides_nothing(trained):
    text = card(read_decided(trained.workdir)._replace(threshold=None, holdout=None))
    assert "No threshold" in sections(text)["Decision"]


@pytest.mark.quick
@pytest.mark.parametrize(
    ("source", "shown"),
    [
        ("folder:/home/kim/parts", "folder:parts"),
        ("folder:parts/", "folder:parts"),
        ("csv:kim/table.csv", "csv:table.csv"),
        ("mvtec_ad/bottle", "mvtec_ad/bottle"),
        ("facebook/dinov2-base", "facebook/dinov2-base"),
        ("random:32x2", "random:32x2"),
        ("/data/weights.pth", "weights.pth"),
        ("~/weights", "weights"),
        ("kim/weights/last", "last"),
        ("C:\\kim\\weights", "weights"),
    ],
)
def test_what_is_public_of_a_source(source, shown):
    assert public(source) == shown


@pytest.mark.quick
@pytest.mark.parametrize(
    ("source", "id"),
    [
        (f"facebook/dinov2-base@{'a1' * 20}", "facebook/dinov2-base"),
        (f"kim/weights@{'0' * 40}", "kim/weights"),
        ("facebook/dinov2-base", "facebook/dinov2-base"),
        ("facebook/dinov2-base@main", "facebook/dinov2-base"),
        ("kim/weights", None),
        ("kim/weights@main", None),
        ("facebook/dinov2-base.pth", None),
        ("~/weights", None),
        ("kim\\weights/last", None),
        (f"/kim/weights@{'0' * 40}", None),
        ("embedded", None),
        ("random:32x2", None),
    ],
)
def test_only_what_is_on_the_hub_has_an_id_there(source, id):
    assert hub_id(source) == id


def test_a_base_model_is_named_once_without_its_commit_and_a_local_one_never(trained):
    decided = read_decided(trained.workdir)
    config = decided.step.meta["config"] | {"backbone": "facebook/dinov2-base", "autoencoder": "kim/autoencoder"}
    pinned = {"id": f"facebook/dinov2-base@{'a' * 40}", "sha256": "0"}
    weights = {"backbone": "0", "autoencoder": "1"}
    text = card(with_meta(decided, config=config, pretrained=pinned, weights=weights))
    assert yaml.safe_load(text.split("---\n")[1])["base_model"] == ["facebook/dinov2-base"]


@pytest.mark.quick
def test_licenses_of_weights_are_of_their_ids():
    assert license_of("facebook/dinov2-with-registers-base") == "Apache-2.0"
    assert license_of("kim/facebook/dinov2") is None
