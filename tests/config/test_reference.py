import dataclasses
import re
from pathlib import Path
from typing import Literal

import pytest

import jaxad.config
from jaxad.config import DPDiffConfig, provenance

CONFIGS = [value for name, value in vars(jaxad.config).items() if name.endswith("Config") and name != "Config"]
DECISIONS = (Path(__file__).parents[2] / "docs" / "decisions.md").read_text("utf-8")


def decisions():
    """(anchor, text) of each paragraph; anchors are made as GitHub and mkdocs make them of headings."""
    for heading, text in re.findall(r"^### ([^\n]*)\n(.*?)(?=^##|\Z)", DECISIONS, re.MULTILINE | re.DOTALL):
        yield re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-"), text


@pytest.mark.parametrize("cls", CONFIGS)
def test_every_field_has_a_meaning_and_a_source(cls):
    rows = provenance(cls)
    assert [row.field for row in rows] == [field.name for field in dataclasses.fields(cls)]
    for row in rows:
        assert row.help, row.field
        assert row.type, row.field
        assert row.source in ("paper", "jaxad") or row.source.startswith("published code: "), row.field
        assert row.source == "paper" or row.reason, row.field
        assert len(row.reason) < 160, row.field


@pytest.mark.parametrize("cls", CONFIGS)
def test_help_leaves_provenance_to_the_metadata(cls):
    for row in provenance(cls):
        assert not re.search(r"\((paper|ours)\b|\bours\b", row.help), row.field


def test_the_decisions_that_settings_point_to_exist_and_name_them():
    paragraphs, missing = dict(decisions()), []
    for cls in CONFIGS:
        for row in provenance(cls):
            if row.decision and f"`{cls.__name__}.{row.field}`" not in paragraphs.get(row.decision, ""):
                missing.append((cls.__name__, row.field, row.decision))
    assert not missing


def test_anchors_are_unique_and_every_field_that_decisions_name_exists():
    anchors = [anchor for anchor, _ in decisions()]
    assert len(set(anchors)) == len(anchors)
    fields = {f"{cls.__name__}.{field.name}" for cls in CONFIGS for field in dataclasses.fields(cls)}
    named = re.findall(r"`(\w+Config\.\w+)`", DECISIONS)
    assert set(named) <= fields
    assert len(named) > 30


def test_rows_say_what_a_field_may_be():
    rows = {row.field: row for row in provenance(DPDiffConfig)}
    assert rows["blocks"].type == 'tuple[int, ...] | "middle" | None'
    assert rows["noise"].type == '"shared" | "fresh"'
    assert rows["train_timesteps"][1:3] == ("tuple[int, int]", "(0, 1000)")
    assert rows["local_prototypes"][1:5] == ("int", "8", "paper", "")


def test_fields_of_a_base_class_are_explained_and_those_without_source_have_none():
    @dataclasses.dataclass
    class Base:
        size: int = 3
        """Side in
        pixels."""

    @dataclasses.dataclass
    class Own(Base):
        kind: Literal["a", "b"] = "a"
        """Which."""

    assert [(row.field, row.help, row.source) for row in provenance(Own)] == [
        ("size", "Side in pixels.", ""),
        ("kind", "Which.", ""),
    ]
