"""JSON from anywhere: bounded before it is parsed."""

import json

import pytest

from jaxad.errors import DataError, WeightsError
from jaxad.io.json_files import JSON_DEPTH, Size, parse_json, read_json, read_object


def nested(depth):
    return b'{"a":[' * (depth // 2) + b"1" + b"]}" * (depth // 2)


def test_what_is_sound_comes_through(tmp_path):
    value = {
        "a": [1, 2.5, None, True],
        "é": "\U0001f600",
        "path": "C:\\udder",
        "name of bytes": "\udce9",
        "[[[": "{" * 99,
    }
    for text in (json.dumps(value), json.dumps(value, ensure_ascii=True)):
        assert parse_json(text.encode(), "a.json") == value
    (tmp_path / "a.json").write_bytes(b"\xef\xbb\xbf{}")
    assert read_json(tmp_path / "a.json") == {}
    assert parse_json(nested(JSON_DEPTH), "a.json")


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (nested(JSON_DEPTH + 2), "nested"),
        (b"[" * 100_000, "nested"),
        # Brackets within texts must not hide those without.
        (b'["' + b"]" * 500 + b'",' + b"[" * 100 + b"]" * 101, "nested"),
        (b'["\\"' + b"]" * 500 + b'",' + b"[" * 100 + b"]" * 101, "nested"),
        # A third of it lies in the second mebibyte.
        (b"[" * 40 + b"1," * 700_000 + b"[" * 40 + b"]" * 80, "nested"),
        (b"9" * 5000, "digits"),
        (b'{"a": "\\ud800"}', "surrogate"),
        (b'{"a": "\\\\\\uDBFF"}', "surrogate"),
        (b'{"a": "\\udd00"}', "surrogate"),
        (b'{"a": "\\udc00"}', "surrogate"),
        # Looked through again from every quote, this would take hours.
        (b"[" * 65 + b'"' + b'\\"' * 3_000_000, "nested"),
        (b'{"a"', "column 5"),
        (b"\xff", "UTF-8"),
        (b"", "the file ends there"),
        (b"[1,2,3,4,5,6,7,8,9]", "values"),
        (b'"' + b"x" * 2_000_000 + b'"', "MiB"),
    ],
    ids=range(16),
)
def test_what_is_not_is_refused(content, kind):
    small = Size(1_000_000, 8) if kind in ("values", "MiB") else Size(10_000_000, 1_000_000)
    with pytest.raises(DataError, match=kind) as caught:
        parse_json(content, "a.json", size=small)
    assert caught.value.problems[0].file == "a.json"
    assert len(str(caught.value)) < 1000


def test_an_object_is_an_object(tmp_path):
    file = tmp_path / "config.json"
    for content in ("[]", "3", "null", '"a"', "{"):
        file.write_text(content)
        with pytest.raises(WeightsError, match=r"config\.json"):
            read_object(file, error=WeightsError)
    with pytest.raises(WeightsError, match=r"absent\.json"):
        read_object(tmp_path / "absent.json", error=WeightsError)
