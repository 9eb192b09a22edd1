"""Cells that spreadsheets take for texts."""

import pytest

from jaxad.report.prediction_rows import plain_text, text_cell


@pytest.mark.parametrize("text", ["=1+1", "'=1", "''-x", "'quoted'", "-", "@a", "plain", "", "\tx", "'"])
def test_texts_are_read_back_and_no_cell_begins_a_formula(text):
    cell = text_cell(text)
    assert plain_text(cell) == text
    assert not cell.startswith(("=", "+", "-", "@", "\t", "\r"))


def test_numbers_stay_numbers():
    assert text_cell(-1.5) == -1.5
    assert text_cell(None) is None
