"""The campaign on made-up parts."""

import pytest

from jaxad.testing import make_parts
from tests.campaigns import false_alarms
from tests.cli.shell import BANK


@pytest.mark.slow
def test_half_of_the_good_images_is_compared_and_none_of_it_learned(tmp_path):
    make_parts(tmp_path / "parts", categories=("tile",), test=8)
    found = false_alarms.campaign(tmp_path / "parts/tile", BANK[1], tmp_path / "work", *BANK[2:])
    good = sorted(file.name for file in (tmp_path / "parts/tile/test/good").iterdir())
    learned = {file.name for file in (tmp_path / "work/new").iterdir()}
    compared = {file.name for file in (tmp_path / "work/compared/tile/test/good").iterdir()}
    assert learned <= set(good[::2])
    assert compared == set(good[1::2])
    assert found["learned"] == len(learned) > 0
