"""A few hundred damaged files of every format; `python -m tests.campaigns.fuzz` tries as many as one likes."""

from __future__ import annotations

import random
import zlib

import hypothesis
import hypothesis.strategies as st
import pytest

from jaxad.errors import JaxadError
from tests.campaigns import fuzz
from tests.campaigns.mutations import _PNG, mutate
from tests.campaigns.readers import READERS, Reader

SLOW = ("tokenizer", "whole networks", "prepared data sets")
"""Readers that import for seconds."""


@pytest.fixture(scope="module")
def targets(tmp_path_factory):
    readers = [reader for reader in READERS if reader.name not in SLOW]
    folder = tmp_path_factory.mktemp("fuzz")
    return [fuzz.Target(reader, folder / str(place)) for place, reader in enumerate(readers)]


def test_sound_files_are_accepted(targets):
    for target in targets:
        for file in target.sound:
            if file.name not in ("F.tif",):
                target.reader.read(file)


@hypothesis.given(st.integers(0, 14), st.integers(0, 10**6))
@hypothesis.settings(max_examples=400, derandomize=True)
@pytest.mark.filterwarnings("ignore")
def test_damaged_files_are_accepted_or_refused(targets, place, number):
    outcome, said = targets[place].attempt(number)
    assert outcome in ("accepted", "refused"), f"{targets[place].reader.name}, number {number}: {said}"


def test_every_reader_is_tried(targets):
    assert len(targets) == 15
    turns = list(fuzz.numbers(1000, "", 0))
    assert {place for place, _ in turns} == set(range(len(READERS)))
    assert len(set(turns)) == 1000
    assert {READERS[place].name for place, _ in fuzz.numbers(50, "list", 7)} == {"lists of data sets"}


def test_what_is_foreign_is_found(tmp_path):
    def seeds(folder):
        (folder / "a").write_bytes(b"sound")
        return [folder / "a"]

    def read(file):
        if file.read_bytes() != b"sound":
            raise (JaxadError, KeyError)[len(file.read_bytes()) > 5]("bad")

    target = fuzz.Target(Reader("made up", seeds, read), tmp_path / "made")
    outcomes = {target.attempt(number) for number in range(60)}
    assert {outcome for outcome, _ in outcomes} >= {"refused", "foreign"}
    assert any("a: KeyError: 'bad' in read" in said for _, said in outcomes)
    assert (tmp_path / "made" / "a").read_bytes() == b"sound"


def test_damage_is_the_same_for_the_same_dice_and_keeps_checksums():
    content = _PNG + b"\0\0\0\4tEXtabcd" + zlib.crc32(b"tEXtabcd").to_bytes(4, "big")
    assert mutate(content, random.Random(3)) == mutate(content, random.Random(3))
    right = 0
    for seed in range(200):
        changed = mutate(content, random.Random(seed))
        same = len(changed) == len(content) and changed[:12] == content[:12] and changed[12:20] != content[12:20]
        right += same and zlib.crc32(changed[12:20]).to_bytes(4, "big") == changed[20:]
    assert right > 10


def test_odd_values_reach_the_fields_of_json():
    content = b'{"hidden_size": 24, "depths": [1, 2]}'
    seen = {mutate(content, random.Random(seed)) for seed in range(100)}
    assert any(b'"hidden_size": null' in text for text in seen)
    assert any(b'"depths": [1, ' in text and b"[1, 2]" not in text for text in seen)


@pytest.mark.slow
def test_a_campaign_replaces_workers_that_die_or_hang():
    tallies = fuzz.campaign(60, 0, seconds=10, mebibytes=1024)
    assert sum(sum(tally.outcomes.values()) for tally in tallies.values()) == 60
    assert not any(tally.faults for tally in tallies.values())
    hasty = fuzz.campaign(2, 0, seconds=0, mebibytes=1024, only="safetensors")["safetensors"]
    assert sum(hasty.outcomes.values()) == 2
    assert len(hasty.faults) == hasty.outcomes["hang"] > 0
    small = fuzz.campaign(1, 0, seconds=10, mebibytes=-1, only="safetensors")["safetensors"]
    assert len(small.faults) == 1


def test_the_table_says_what_was_found():
    tally = fuzz.Tally()
    tally.outcomes.update(accepted=1, refused=1200, crash=2)
    assert "| archives | 1,203 | 1 | 1,200 | 0 | 2 | 0 | 0.00 |" in fuzz.table({"archives": tally})
