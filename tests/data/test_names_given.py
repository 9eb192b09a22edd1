"""What users say of names, and tables, through `load`: what contradicts itself is refused, what is read is told."""

from __future__ import annotations

import pytest

import jaxad
from jaxad.config import DataConfig
from jaxad.errors import ConfigError, DataError
from jaxad.testing import make_parts
from tests.data.nasty.lists import COMMON, CSV, HEAD, listed
from tests.data.nasty.maker import Maker


def test_a_name_means_one_thing_and_is_no_path():
    with pytest.raises(ConfigError, match=r"a/b(.|\n)*ok: is among good_names too"):
        jaxad.data.load("folder:nowhere", config=DataConfig(good_names=("ok", "a/b"), defect_names=("ok",)))


def test_names_are_for_folders_and_tables():
    with pytest.raises(ConfigError, match="mask_names = m"):
        jaxad.data.load("demo", config=DataConfig(mask_names=("m",)))


def test_the_summary_tells_kinds_of_defects_and_their_masks(tmp_path):
    listed(Maker(tmp_path), HEAD, *COMMON)
    kind, _, file = CSV.partition(":")
    data = jaxad.data.load(f"{kind}:{tmp_path / file}", config=DataConfig(holdout=0.0))
    assert data.defects == {"bottle": {"cut": (2, 2)}}
    assert "bottle: cut 2 (2 masks)" in data.summary().splitlines()
    assert [r.identity for r in data.train.records] == [f"img/ok/{n:03d}.png" for n in range(4)]


def test_categories_of_a_table_are_chosen_by_name(tmp_path):
    listed(Maker(tmp_path), HEAD, *COMMON, "img/ok/000.png,nut,train,good,".replace("000", "gone"))
    table = f"csv:{tmp_path / 'parts.csv'}"
    with pytest.raises(DataError, match="no category screw; there are bottle"):
        jaxad.data.load(table, config=DataConfig(categories=("screw",)))


def test_the_way_to_write_a_table_is_told(tmp_path):
    listed(Maker(tmp_path), HEAD, *COMMON)
    with pytest.raises(DataError, match="write csv:"):
        jaxad.data.load(str(tmp_path / "parts.csv"))


def test_evaluation_tells_what_it_understood(tmp_path, capsys):
    from tests.cli.shell import BANK
    from tests.cli.shell import jaxad as command

    data = f"folder:{make_parts(tmp_path / 'parts', ('disc',), train=10, test=2)}"
    command("fit", "patch-bank", "--data", data, "--workdir", tmp_path / "run", *BANK)
    command("evaluate", "--checkpoint", tmp_path / "run", "--data", data, "--out", tmp_path / "report")
    told = capsys.readouterr().err
    assert told.count("disc: blot 2 (2 masks)") == 2
