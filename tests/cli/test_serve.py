"""`jaxad serve` from its command line; tests/serve asks the server itself."""

import pytest

from jaxad.errors import ConfigError
from tests.cli.shell import jaxad


def test_options_are_handed_on_and_a_missing_caption_is_said_with_how_to_give_one(monkeypatch, capsys):
    given = {}

    def load(run, *, told, **options):
        given.update(options)
        told("1 of 1 images have no caption")
        raise ConfigError("that was all")

    monkeypatch.setattr("jaxad.inference.inspector.load", load)
    with pytest.raises(ConfigError, match="that was all"):
        jaxad("serve", "run", "--port", 0, "--precision", "bfloat16")
    assert given["precision"] == "bfloat16"
    assert "1 of 1 images have no caption; a request gives one as ?caption=TEXT" in capsys.readouterr().err
