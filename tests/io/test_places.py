"""Folders of users that the machine does not know."""

from __future__ import annotations

import os
import pwd
from pathlib import Path

import pytest

from jaxad.data.prepared import data_folder
from jaxad.errors import ConfigError
from jaxad.io.places import cache_folder, check_storable, expanded


@pytest.fixture
def homeless(monkeypatch):
    """A user without HOME and without an entry in the list of users, as in many containers."""

    def unknown(user):
        raise KeyError(user)

    for name in ("HOME", "XDG_CACHE_HOME", "TFDS_DATA_DIR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(pwd, "getpwuid", unknown)
    monkeypatch.setattr(pwd, "getpwnam", unknown)


@pytest.mark.usefixtures("homeless")
def test_without_a_home_the_variable_to_set_is_named(monkeypatch, tmp_path):
    with pytest.raises(ConfigError, match=r"~/parts.*HOME"):
        expanded("~/parts")
    with pytest.raises(ConfigError, match="XDG_CACHE_HOME"):
        cache_folder()
    with pytest.raises(ConfigError, match=r"data_dir.*TFDS_DATA_DIR"):
        data_folder()
    assert expanded("parts") == Path("parts")
    assert data_folder(tmp_path) == tmp_path
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder() == tmp_path / "jaxad"


def test_somebody_who_is_not_known_has_no_home_either():
    with pytest.raises(ConfigError, match="~nobody-of-that-name"):
        expanded("~nobody-of-that-name/parts")


def test_arrays_are_stored_in_utf8_paths_alone():
    check_storable("workdir", "läufe/瓶子")
    with pytest.raises(ConfigError, match=r"workdir = l\\xe4ufe"):
        check_storable("workdir", os.fsdecode(b"l\xe4ufe"))
