from __future__ import annotations

import pytest

from jaxad.inference.inspector import Inspector, load


@pytest.fixture(scope="session")
def inspector(trained) -> Inspector:
    return load(trained.workdir, batch_size=4)
