"""Names that others made: one form for terminals and files, and back."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from jaxad.io.json_files import json_text
from jaxad.io.text import ERRORS, apart, file_name, name_text, slug, typed, visible, writable

NAMES = st.text(st.one_of(st.characters(), st.sampled_from("\\xu0e9\udce9\x1b\n\u202e")), max_size=12)
"""As Python has names of files: any text, with lone surrogates for bytes that are not UTF-8."""
ACTING = "\x00\x07\n\r\x1b\x7f\x85\x9b\u200b\u200e\u2028\u202e\u2066\ufeff\udce9\ud800"
KEPT = "a é e\u0301 瓶子 \u3000 👩\u200d🔧 [bold] :bomb: \\ \\n C:\\parts"


@given(NAMES)
@example("\\xe9")
@example("\\x5cxe9")
def test_every_name_is_text_that_can_be_written_and_turned_back(name):
    text = name_text(name)
    assert file_name(text) == name
    assert text.encode().decode() == text
    assert visible(text) == text


def test_characters_that_act_are_escaped_and_all_others_kept():
    assert visible(ACTING).isascii()
    assert visible(ACTING).isprintable()
    assert visible(KEPT) == name_text(KEPT) == KEPT
    assert name_text("caf\udce9\x1b\n\u202e") == r"caf\xe9\x1b\x0a\u202e"
    assert visible("a\nb\x07", lines=True) == "a\nb\\x07"


def test_a_name_that_looks_escaped_is_no_escaped_name():
    assert name_text(r"caf\xe9") != name_text("caf\udce9")


@given(NAMES, NAMES)
def test_slugs_of_different_names_differ_but_for_punctuation_in_ascii(one, other):
    one, other = name_text(one), name_text(other)
    if one != other and not (one.isascii() and other.isascii()):
        assert slug(one) != slug(other)


def test_slugs():
    assert [slug(name) for name in ("bottle", "T-nut 2", "a_b")] == ["bottle", "T_nut_2", "a_b"]
    assert slug("瓶子") == "瓶子"
    assert slug("瓶 子") != slug("瓶-子")
    assert slug(name_text("a\udce4")) != slug("a_xe4")
    assert slug("é") != slug("e\u0301")
    assert "-" not in slug("瓶-子") + slug("é-é")


def test_what_users_type_is_the_name_or_what_was_shown():
    known = (r"gef\xe4", "é")
    assert [typed(word, known) for word in ("gef\udce4", r"gef\xe4", "é")] == [r"gef\xe4", r"gef\xe4", "é"]
    assert [typed(word) for word in ("gef\udce4", r"gef\xe4")] == [r"gef\xe4"] * 2


def test_json_is_strict_whatever_it_holds():
    content = {"k\udce9": ["v\ud800", ("\x1b", 1.5, None)]}
    assert json.loads(json_text(content)) == {r"k\xe9": [r"v\ud800", ["\x1b", 1.5, None]]}
    assert writable(content)[r"k\xe9"][0] == r"v\ud800"
    with pytest.raises(ValueError, match="JSON"):
        json_text({"a": float("nan")})


def test_an_own_word_differs_from_all_names():
    assert apart("mean", ["a"]) == "mean"
    assert apart("mean", ["mean", "(mean)"]) == "((mean))"


def test_an_encoding_without_a_character_has_its_escape():
    assert "é瓶👍\udce9".encode("ascii", ERRORS) == rb"\u00e9\u74f6\U0001f44d\xe9"


@pytest.mark.skipif(os.name != "posix", reason="names of files are no bytes")
def test_a_name_is_the_same_text_in_every_locale():
    code = "import os, sys; from jaxad.io.text import *; n = os.fsdecode(bytes.fromhex(sys.argv[1])); t = name_text(n)"
    code += "; assert file_name(t) == n; print(ascii(t))"
    name = "瓶é".encode() + b"\xe4"
    said = [
        subprocess.run(
            [sys.executable, "-c", code, name.hex()], env={**os.environ, **locale}, capture_output=True, check=True
        ).stdout
        for locale in ({"PYTHONUTF8": "1"}, {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"})
    ]
    assert said[0] == said[1] == ascii("瓶é" + r"\xe4").encode() + os.linesep.encode()
