"""The page and the table of predictions: order, bounds, and names that would act."""

from __future__ import annotations

import csv
import io
import re

import numpy as np

from jaxad.errors import Problem
from jaxad.inference.answer import Answer
from jaxad.inference.threshold import Limits, Threshold
from jaxad.report.prediction_page import Worst
from jaxad.report.prediction_rows import COLUMNS, answer_cells, problem_cells, table_line

RULE = Threshold(0.01, "exact-256", {"": Limits(0.5, 0.5, 0.1, 9), "disc": Limits(50.0, 0.5, 0.1, 9)})


def answer(name: str, score: float, category: str = "", rule: Threshold | None = RULE) -> Answer:
    return Answer(name, category, score, np.zeros((8, 8, 3), np.uint8), rule, "abc", np.zeros((4, 4), np.float32))


def shown(page: str) -> list[str]:
    return re.findall(r'data-text="(\w+)', page)


def test_the_worst_come_first_by_distance_to_their_own_threshold():
    worst = Worst()
    for found in (answer("calm", 0.1), answer("high", 40.0, "disc"), answer("bad", 0.9), answer("worse", 1.5)):
        worst.add(found)
    page = worst.page()
    assert shown(page) == ["worse", "bad", "high", "calm"]
    assert "2 of 4 images are anomalous" in page


def test_a_page_of_many_images_stays_small_and_counts_all():
    worst = Worst(listed=5)
    order = np.random.default_rng(0).permutation(100)
    for number in order:
        worst.add(answer(f"n{number}", float(number), rule=None))
    page = worst.page()
    assert shown(page) == ["n99", "n98", "n97", "n96", "n95"]
    assert "0 of 100 images" in page
    assert "worst 5 are shown" in page


def test_what_is_not_among_the_worst_is_never_drawn():
    worst = Worst(listed=1)
    worst.add(answer("bad", 2.0))
    good = answer("good", 0.1)
    worst.add(good)
    assert "overlay" not in vars(good)


def test_names_cannot_act_on_the_page_or_in_a_spreadsheet():
    worst = Worst()
    evil = '=cmd|"calc"!A0,<script>alert(1)</script>\u202e.png'
    worst.add(answer(evil, 1.0), link="overlay/a b#c?.jpg")
    page = worst.page(problems=[{"file": "<b>x", "kind": "k", "detail": "<i>d"}])
    assert "<script>alert" not in page
    assert "<b>x" not in page
    assert "\u202e" not in page
    assert 'href="overlay/a%20b%23c%3F.jpg"' in page
    (row,) = csv.DictReader(io.StringIO(table_line() + table_line(answer_cells(answer(evil, 1.0)))))
    assert row["file"].startswith("'=cmd")


def test_the_table_has_a_line_for_each_image_also_those_left_out():
    problem = Problem("truncated image", "b.png", "ends, early\nhere")
    lines = [table_line(), table_line(answer_cells(answer("a.png", 1.0))), table_line(problem_cells(problem))]
    first, second = csv.DictReader(io.StringIO("".join(lines)))
    assert tuple(first) == COLUMNS
    assert (first["verdict"], first["score"], first["threshold"], first["model"]) == ("anomalous", "1.0", "0.5", "abc")
    assert (second["file"], second["verdict"]) == ("b.png", "")
    assert second["problem"] == "truncated image: ends, early\nhere"
