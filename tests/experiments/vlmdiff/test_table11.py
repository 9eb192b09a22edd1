from pathlib import Path

import pytest

from experiments.vlmdiff import table11
from experiments.vlmdiff.rows import RowOptions, Table
from jaxad.errors import ConfigError
from tests.experiments.vlmdiff.made_captions import captioned


def test_captions_must_be_given():
    with pytest.raises(ConfigError, match="--captions"):
        table11.main(RowOptions())


def test_each_row_names_its_captions(parts, tmp_path, monkeypatch, capsys):
    name = Path(parts.name).name
    folders = [
        captioned(tmp_path, parts, "train", "a disc", name, vlm) for vlm in ("blip2", "deepseek", "internvl3-8b-hf")
    ]
    monkeypatch.setattr(Table, "row", lambda *_, **__: {})
    table11.main(RowOptions(captions=tmp_path, data=(parts.name,)))
    said = [line.split()[1] for line in capsys.readouterr().out.splitlines() if line.split()[0] == "captions"]
    assert said == list(map(str, folders))
