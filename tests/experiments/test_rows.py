import re
from pathlib import Path

import numpy as np
import pytest

from experiments.rows import DataOptions, Lines, combined, deviation, percent, slug


def test_rows_show_means_and_deviations_beside_the_published_values(capsys):
    lines = Lines(("image_auroc", "aupro"), {"one": (90.0, 80.0)}, width=8)
    mean = lines.show("one", [{"image_auroc": 0.5, "aupro": None}, {"image_auroc": 0.7, "aupro": 0.2}])
    lines.show("two", [{"image_auroc": 1.0, "aupro": 0.0}])
    assert mean == {"image_auroc": pytest.approx(0.6), "aupro": None}
    assert [line.split() for line in capsys.readouterr().out.splitlines()[1:]] == [
        ["one", "ours", "60.0", "-"],
        ["std", "14.1", "-"],
        ["published", "90.0", "80.0"],
        ["two", "ours", "100.0", "0.0"],
    ]


def test_a_value_that_is_undefined_for_one_seed_is_undefined():
    assert combined([1.0, None], np.mean) is None
    assert combined([1.0, 3.0], np.mean) == 2.0
    assert deviation([1.0, 3.0]) == pytest.approx(2**0.5)
    assert percent([0.5, None], 6) == "  50.0      -"


def test_names_become_folders():
    assert slug("mvtec_ad, DiAD, 100 epochs") == "mvtec_ad-DiAD-100-epochs"
    assert slug("folder:/my/parts") == "folder-my-parts"


def test_data_sets_have_all_of_their_training_images(parts):
    dataset = DataOptions().load(parts.name, categories=("tile",))
    assert (dataset.categories, len(dataset.train)) == (("tile",), 12)


def test_every_experiment_is_in_the_index_and_says_what_to_expect():
    folder = Path(__file__).parents[2] / "experiments"
    text = (folder / "README.md").read_text("utf-8")
    files = [file for file in folder.glob("*/*.py") if "rows" not in file.stem and file.stem != "__init__"]
    assert files
    for file in files:
        assert f"`{file.relative_to(folder)}`" in text
        assert re.search(r"^(Expected:|No published numbers:)", file.read_text("utf-8"), re.MULTILINE), file
