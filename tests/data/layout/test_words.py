"""What names say."""

import unicodedata

import pytest

from jaxad.data.layout.words import (
    is_kept_copy,
    is_system,
    resembles_normal,
    role,
    without_derived,
    without_mask,
)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("train", ("train", "")),
        ("Training", ("train", "")),
        ("VAL", ("validation", "")),
        ("test_public", ("test", "")),
        ("OK", ("normal", "good")),
        ("Defect-Free ", ("normal", "good")),
        ("良品", ("normal", "good")),
        ("Ground Truth", ("masks", "")),
        ("crack_masks", ("masks", "crack")),
        ("gt_crack", ("masks", "crack")),
        ("ok_masks", ("masks", "good")),
        ("mask-Normal", ("masks", "good")),
        ("test_masks", ("masks", "")),
        ("Train_Labels", ("masks", "")),
        ("test_good", ("test", "good")),
        ("good-train", ("train", "good")),
        ("test_NG", ("test", "ng")),
        ("test_tube", ("", "test_tube")),
        ("crack", ("", "crack")),
        ("gtx", ("", "gtx")),
    ],
)
def test_roles(name, expected):
    assert tuple(role(name)) == expected


def test_accents_compare_composed():
    assert role(unicodedata.normalize("NFD", "größe_mask")).defect != "größe"
    assert unicodedata.normalize("NFC", role(unicodedata.normalize("NFD", "größe_mask")).defect) == "größe"


@pytest.mark.parametrize(
    ("stem", "rest"),
    [("000_mask", "000"), ("000-GT", "000"), ("000.label", "000"), ("mask_000", "000"), ("a\nb_mask", "a\nb")],
)
def test_words_for_masks(stem, rest):
    assert without_mask(stem) == rest


@pytest.mark.parametrize("stem", ["000", "mask", "unmasked", "000_masked", "gt500"])
def test_no_words_for_masks(stem):
    assert without_mask(stem) is None


@pytest.mark.parametrize(
    ("stem", "rest"), [("000_thumb", "000"), ("thumb-000", "000"), ("a-150x150", "a"), ("a_1x1", None), ("thumb", None)]
)
def test_words_for_copies(stem, rest):
    assert without_derived(stem) == rest


def test_what_is_kept_aside():
    assert all(map(is_kept_copy, ("@eaDir", ".@__thumb", "#recycle", "A Previews.lrdata", "@Recently-Snapshot")))
    assert all(map(is_system, ("Thumbs.db", "._a.png", "Icon\r", "System Volume Information", "$RECYCLE.BIN")))
    assert not any(map(is_kept_copy, ("thumbs", "eaDir", "previews")))
    assert not any(map(is_system, ("thumbs", "recycle", "a.png")))


@pytest.mark.parametrize(
    ("name", "word"),
    [("good_2", "good"), ("ok images", "ok"), ("goood", "good"), ("norml", "normal")],
)
def test_names_that_nearly_say_normal(name, word):
    assert resembles_normal(name) == word


@pytest.mark.parametrize("name", ["good", "not_good", "abnormal", "wood", "scratch"])
def test_names_that_do_not_say_normal(name):
    assert resembles_normal(name) is None
