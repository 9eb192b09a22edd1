"""What is said of files that are no images."""

import pytest

from jaxad.data.contents import described
from jaxad.data.decode import decode_image, decode_mask
from jaxad.errors import DataError

CONTENTS = {
    "LFS": b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n",
    "annex": b"/annex/objects/SHA256E-s1--0.png\n",
    "empty": b"",
    "zero bytes": bytes(5000),
    "web page": b"\n<!doctype HTML>\n<html>",
    "HEIC": b"\0\0\0\x18ftypheic\0\0\0\0",
    "AVIF": b"\0\0\0\x18ftypavif\0\0\0\0",
    "film": b"\0\0\0\x18ftypmp42\0\0\0\0",
    "PDF": b"%PDF-1.7",
    "NumPy": b"\x93NUMPY\x01\0",
    "AppleDouble": b"\0\5\x16\7\0\2\0\0",
    "JSON": b'{"shapes": []}',
    "ZIP": b"PK\3\4\0\0",
    "JPEG XL": b"\xff\x0a\0\0",
}


@pytest.mark.parametrize("word", CONTENTS)
def test_what_a_file_holds(word):
    assert word in described(CONTENTS[word])
    for decode in (decode_image, decode_mask):
        with pytest.raises(DataError, match=rf"x\.png: unreadable image: .*{word}"):
            decode(CONTENTS[word], "x.png")


def test_what_nobody_knows():
    assert described(b"no image") == ""
    with pytest.raises(DataError, match="known format"):
        decode_image(b"no image")
