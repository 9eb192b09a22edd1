"""Entries by name: registered, in a package of jaxad's, or of another package by its entry point."""

import sys
from types import SimpleNamespace

import pytest

from jaxad.errors import ConfigError
from jaxad.registry import Registry, registrar


class Red:
    name = "red"


class Blue:
    name = "blue"


def colors(package=None):
    return Registry("color", group="tests.colors", package=package)


@pytest.fixture
def site(tmp_path, monkeypatch):
    """Makes a package with entry points as pip would leave it."""

    def install(points, **modules):
        info = tmp_path / "paint-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text("Metadata-Version: 2.1\nName: paint\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text("[tests.colors]\n" + "\n".join(points))
        for name, text in modules.items():
            (tmp_path / f"{name}.py").write_text(text)
            monkeypatch.delitem(sys.modules, name, raising=False)
        monkeypatch.syspath_prepend(tmp_path)

    return install


def test_what_is_registered_is_found():
    registry = colors()
    register = registrar(registry)
    assert register(Red) is Red
    register(Red)
    assert registry.names() == ("red",)
    assert registry.get("red") is Red


def test_two_of_one_name_are_refused():
    registry = colors()
    registry.register("red", Red)
    with pytest.raises(ConfigError, match=r"'red'.*Blue.*Red"):
        registry.register("red", Blue)
    registry.register("shade", SimpleNamespace(value=1))
    registry.register("shade", SimpleNamespace(value=1))
    with pytest.raises(ConfigError, match="both have this name"):
        registry.register("shade", SimpleNamespace(value=2))


def test_the_nearest_name_is_shown():
    registry = colors()
    registry.register("red", Red)
    with pytest.raises(ConfigError, match=r"color 'rad' is unknown \(did you mean red\?\); there are red"):
        registry.get("rad")


def test_files_of_a_package_are_entries_and_imported_when_asked_for(site, monkeypatch, tmp_path):
    folder = tmp_path / "palette_of_tests"
    folder.mkdir()
    (folder / "__init__.py").write_text("")
    (folder / "_mixing.py").write_text("raise RuntimeError('no entry')")
    (folder / "dark_red.py").write_text(
        "from tests.test_registry import REGISTRY\n\nREGISTRY.register('dark-red', 'a color')\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    registry = colors("palette_of_tests")
    monkeypatch.setattr("tests.test_registry.REGISTRY", registry, raising=False)
    assert registry.names() == ("dark-red",)
    assert "palette_of_tests.dark_red" not in sys.modules
    assert registry.get("dark-red") == "a color"


def test_another_package_brings_entries(site):
    site(["green = paint_green:Green"], paint_green="class Green:\n    name = 'green'\n")
    registry = colors()
    assert registry.names() == ("green",)
    assert "paint_green" not in sys.modules
    assert registry.get("green").__name__ == "Green"


def test_a_broken_package_is_named_and_hides_nothing(site):
    site(["gone = paint_gone:Gone"], paint_gone="import a_module_that_is_not_there\n")
    registry = colors()
    registry.register("red", Red)
    with pytest.raises(ConfigError, match=r"'gone'.*package paint.*ModuleNotFoundError"):
        registry.get("gone")
    with pytest.warns(UserWarning, match="package paint"):
        assert registry.entries() == {"red": Red}


def test_an_entry_point_of_another_name_is_refused(site):
    site(["lime = paint_lime:Lime"], paint_lime="class Lime:\n    name = 'lemon'\n")
    with pytest.raises(ConfigError, match="calls itself 'lemon'"):
        colors().get("lime")
