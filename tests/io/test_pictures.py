"""Pictures as bytes, as URIs, and at other sizes."""

import base64
import io

import numpy as np
import pytest
from PIL import Image

from jaxad.errors import JaxadError
from jaxad.io.pictures import by_centers, data_uri


@pytest.mark.parametrize(("suffix", "kind"), [(".png", "png"), (".jpg", "jpeg"), (".JPEG", "jpeg")])
def test_a_uri_names_the_kind_of_its_picture(suffix, kind):
    head, _, content = data_uri(np.full((3, 5, 3), 90, np.uint8), suffix).partition(",")
    assert head == f"data:image/{kind};base64"
    opened = Image.open(io.BytesIO(base64.b64decode(content)))
    assert (opened.format, opened.size) == (kind.upper(), (5, 3))
    with pytest.raises(JaxadError, match="gif"):
        data_uri(np.zeros((3, 5), np.uint8), ".gif")


def test_what_lies_under_each_center_is_taken():
    array = np.arange(12).reshape(3, 4)
    np.testing.assert_array_equal(by_centers(array, (3, 4)), array)
    np.testing.assert_array_equal(by_centers(array, (1, 2)), [[5, 7]])
    np.testing.assert_array_equal(by_centers(array, (6, 8)), array.repeat(2, 0).repeat(2, 1))
