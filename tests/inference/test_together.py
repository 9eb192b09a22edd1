"""Several evaluations out of one pass; that it gives what single passes give is tested with the experiments."""

from __future__ import annotations

import pytest

from jaxad.data.tiles import Tiling
from jaxad.errors import ConfigError, DataError
from jaxad.inference.together import score_under
from jaxad.testing import toy_model


def test_detectors_of_tiles_and_images_without_labels_are_refused(parts):
    detector = toy_model()
    with pytest.raises(DataError, match="no test images"):
        score_under(detector, parts.test.select([]), ["exact-256"])
    detector.tiling = Tiling(56)
    with pytest.raises(ConfigError, match="tiles or of a region"):
        score_under(detector, parts.test, ["exact-256"])
