"""Folders of the user, on machines that may know of none."""

from __future__ import annotations

import os
from pathlib import Path

from jaxad.errors import ConfigError
from jaxad.io.text import visible


def expanded(path: str | Path) -> Path:
    """The path with the home folder in place of a "~" at its beginning.

    Raises:
        ConfigError: no home folder is known, as in a container whose user has no entry and that sets no HOME.
    """
    try:
        return Path(path).expanduser()
    except RuntimeError as error:
        raise ConfigError(f"{path}: no home folder is known for it; set HOME, or write the path without ~") from error


def check_storable(name: str, folder: str | Path) -> None:
    """Raises ConfigError for a folder that arrays cannot be stored in, named as the parameter `name`.

    The libraries that store them take no path that is not UTF-8.
    """
    try:
        str(Path(folder).absolute()).encode()
    except UnicodeEncodeError as error:
        raise ConfigError(f"{name} = {visible(folder)}: its path must be UTF-8; choose or rename the folder") from error


def cache_folder() -> Path:
    """jaxad's folder in the user's cache: XDG_CACHE_HOME or ~/.cache.

    Raises:
        ConfigError: neither is known.
    """
    given = os.environ.get("XDG_CACHE_HOME")
    try:
        return (Path(given) if given else Path.home() / ".cache") / "jaxad"
    except RuntimeError as error:
        raise ConfigError("no folder for caches is known; set HOME or XDG_CACHE_HOME") from error
