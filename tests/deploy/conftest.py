"""Detectors to export, each made once."""

from __future__ import annotations

import pytest

from jaxad import metrics
from jaxad.deploy.program import Program
from tests.deploy.zoo import zoo


@pytest.fixture(scope="session")
def program_of(parts, tmp_path_factory):
    """The program of the smallest detector of a name."""
    made: dict[str, Program] = {}

    def program(name: str) -> Program:
        if name not in made:
            detector = zoo(name, parts.train, tmp_path_factory.mktemp(name))
            made[name] = Program.of(detector, metrics.protocol(detector.protocol))
        return made[name]

    return program
