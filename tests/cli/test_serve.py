"""`jaxad serve` from its command line; tests/serve asks the server itself."""

import pytest

from jaxad.errors import ConfigError
from tests.cli.shell import jaxad


def test_a_missing_caption_is_said_with_how_to_give_one(monkeypatch, capsys):
    def load(run, *, told, **_):
        told("1 of 1 images have no caption")
        raise ConfigError("that was all")

    monkeypatch.setattr("jaxad.inference.inspector.load", load)
    with pytest.raises(ConfigError, match="that was all"):
        jaxad("serve", "run", "--port", 0)
    assert "1 of 1 images have no caption; a request gives one as ?caption=TEXT" in capsys.readouterr().err
