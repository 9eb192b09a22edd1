import re

from jaxad.models.catalog import networks
from jaxad.models.known_hashes import KNOWN


def test_hashes_are_hashes_of_networks_in_the_catalog():
    sources = {network.source.split(" ")[0] for network in networks()}
    assert KNOWN.keys() <= sources
    for files in KNOWN.values():
        assert files
        assert all(re.fullmatch("[0-9a-f]{64}", sha256) for sha256 in files.values())
