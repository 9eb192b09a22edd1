"""Names of data sets, options and configs."""

from __future__ import annotations

import pytest

from jaxad.errors import ConfigError, DataError
from tfds_builders.listing import Benchmark, Option, benchmark, config_name, names, slug

CORE = {"mvtec_ad", "visa", "mpdd", "btad", "mvtec_loco", "anomaly_folder"}
CHOICES = Benchmark(
    name="made_up",
    title="",
    homepage="",
    license="",
    how_to_obtain="",
    is_root=lambda folder: True,
    list_samples=lambda root, category: (),
    options=(Option("view", ("multi", "single"), ""), Option("noise", ("none", "ten"), "")),
)


def test_names():
    assert set(names()) >= CORE
    with pytest.raises(DataError, match=r"data set .mvtec. is unknown .did you mean mvtec_ad"):
        benchmark("mvtec")


@pytest.mark.parametrize("name", names())
def test_every_data_set_says_what_it_is(name):
    data = benchmark(name)
    assert data.name == name
    assert data.title
    assert data.license
    assert "source" in data.how_to_obtain
    # A category is either known beforehand or found in the source.
    assert bool(data.categories) == (data.find_categories is None)
    for option in data.options:
        assert option.name.isidentifier()
        assert not any("-" in choice or choice.isdigit() for choice in option.choices)
    chosen = data.choose({})
    for category in data.categories:
        assert all(number > 0 for number in data.counts(category, **chosen).values())
    assert len({config_name(data, category) for category in data.categories}) == len(data.categories)


def test_config_names():
    assert config_name(CHOICES, "slipper- model") == "slipper__model"
    assert config_name(CHOICES, "bottle", 512) == "bottle-512"
    assert config_name(CHOICES, "bottle", 512, view="single", noise="ten") == "bottle-single-ten-512"
    assert config_name(CHOICES, "bottle", view="multi", noise="ten") == "bottle-ten"
    assert slug("D-sub-connector") == "D_sub_connector"


def test_wrong_options_are_all_named():
    with pytest.raises(
        ConfigError, match=r"no option 'views'; there are: view, noise; option noise=9: must be .* none, ten"
    ):
        CHOICES.choose({"views": "multi", "noise": "9"})
