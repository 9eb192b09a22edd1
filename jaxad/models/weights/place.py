"""Where the files of a checkpoint lie: a local folder, or a repository of the Hugging Face hub."""

from __future__ import annotations

import functools
import re
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any, Protocol

import huggingface_hub
from huggingface_hub import constants
from huggingface_hub import errors as hub_errors

from jaxad.errors import WeightsError
from jaxad.io.places import expanded
from jaxad.models.weights.packed import ENDS

_UNREACHABLE = hub_errors.HTTPError  # pyright: ignore[reportPrivateImportUsage]
"""Raised by the hub's client where nothing answers; a class of its HTTP library, which depends on its version."""


_WAITS = (1, 2)
"""Seconds before the hub is asked again that did not answer; its client would try five times."""

_SHOWN = 20

_BUSY = (408, 429, 500, 502, 503, 504)
"""Status of answers after which it is asked again."""

_SUFFIXES = (*ENDS, ".msgpack")


class Place(Protocol):
    """Finds files by their names."""

    def find(self, name: str) -> Path | None:
        """The file of that name here, None where there is none."""
        ...

    def absent(self, names: str) -> str:
        """What to say about files that were not found."""
        ...


def open_place(source: str | Path, revision: str | None = None, subfolder: str = "") -> Place:
    """The local folder of that name, else the hub's repository, at `revision`; or a folder in either.

    Args:
        source: a folder, ORG/NAME on the hub, or ORG/NAME@REVISION.
        revision: branch, tag or commit; goes before that in `source`.
        subfolder: within the folder or repository.
    """
    path = expanded(source)
    if path.is_dir():
        return Folder(path / subfolder)
    repository, named = split_revision(source)
    return Hub(repository, revision or named, subfolder)


def split_revision(source: str | Path) -> tuple[str, str | None]:
    """ORG/NAME@REVISION as its two parts; None for the revision where there is none, or the source is a local path."""
    text = str(source)
    if expanded(source).exists():
        return text, None
    repository, _, revision = text.partition("@")
    return repository, revision or None


def commit_of(file: Path) -> str | None:
    """The commit that a file in the hub's cache is of; None where its path does not say."""
    # The cache itself may lie in a folder of that name.
    for folder, name in reversed(list(pairwise(file.parts))):
        if folder == "snapshots":
            return name if re.fullmatch("[0-9a-f]{40}", name) else None
    return None


class Folder:
    """A checkpoint in a local folder."""

    def __init__(self, path: Path):
        self.path = path

    def find(self, name: str) -> Path | None:
        file = self.path / name
        try:
            return file if file.is_file() else None
        except OSError:
            # A name that no file can have.
            return None

    def absent(self, names: str) -> str:
        absent = not self.path.is_dir()
        try:
            # Of a subfolder that is not there, what lies in its place.
            lying = sorted((self.path.parent if absent else self.path).iterdir()) if self.path.parent.is_dir() else []
        except OSError as error:
            return f"the folder cannot be read ({error.strerror})"
        files = [file.name for file in lying if file.suffix in _SUFFIXES]
        hint = f"; to load one of {', '.join(files[:_SHOWN])}, name the file itself" if files else ""
        return f"no such folder{hint}" if absent else f"missing: {names}{hint}"


class Hub:
    """A checkpoint in a repository of the Hugging Face hub, or in its local cache.

    The hub is asked once for the names of all files, and then only for files that it has.
    """

    def __init__(self, repository: str, revision: str | None, subfolder: str = ""):
        self.repository, self.revision, self.subfolder = repository, revision, subfolder

    @functools.cached_property
    def listing(self) -> frozenset[str] | None:
        """Names of all files; None where the hub cannot be reached, so that only the cache is asked."""
        try:
            return frozenset(self._explained(self._list, "the list of its files"))
        except (hub_errors.OfflineModeIsEnabled, _UNREACHABLE):
            return None

    def _list(self) -> list[str]:
        """Names of all files, asked for again after each of `_WAITS`."""

        def ask() -> list[str]:
            found = huggingface_hub.model_info(self.repository, revision=self.revision, timeout=10).siblings
            return [file.rfilename for file in found or ()]

        for seconds in _WAITS:
            try:
                return ask()
            except _UNREACHABLE as error:
                if isinstance(error, hub_errors.HfHubHTTPError) and error.response.status_code not in _BUSY:
                    raise
            time.sleep(seconds)
        return ask()

    def find(self, name: str) -> Path | None:
        path = f"{self.subfolder}/{name}" if self.subfolder else name
        if self.listing is not None and path not in self.listing:
            return None
        download = functools.partial(
            huggingface_hub.hf_hub_download,
            self.repository,
            path,
            revision=self.revision if self.listing is not None else self._cached_revision,
            local_files_only=self.listing is None,
        )
        try:
            return Path(self._explained(download, path))
        except hub_errors.EntryNotFoundError:
            return None

    def absent(self, names: str) -> str:
        at = f" at revision {self.revision}" if self.revision else ""
        if self.listing is not None:
            return f"missing in the repository{at}: {names}"
        kept = ", ".join(self._snapshots)
        cached = f" (which has of it the revisions {kept})" if kept else ""
        return (
            f"no such folder or file here; on the hub, which cannot be reached or is switched off by HF_HUB_OFFLINE, "
            f"and not in its local cache{cached}{at}: {names}. Go online once, or name a local folder"
        )

    @property
    def _snapshots(self) -> list[str]:
        """Commits of which the local cache has files."""
        name = f"models--{self.repository.replace('/', '--')}"
        folder = Path(constants.HF_HUB_CACHE) / name / "snapshots"
        return sorted(path.name for path in folder.iterdir() if path.is_dir()) if folder.is_dir() else []

    @property
    def _cached_revision(self) -> str | None:
        """What the cache, which knows whole hashes alone, is to be asked for: a commit that was named by its beginning;
        or the only one that is there, where none was named and the cache does not say which is the newest."""
        cached = self._snapshots
        if self.revision is None:
            name = f"models--{self.repository.replace('/', '--')}"
            newest = Path(constants.HF_HUB_CACHE) / name / "refs" / "main"
            return cached[0] if len(cached) == 1 and not newest.exists() else None
        begun = [commit for commit in cached if commit.startswith(self.revision)]
        is_hash = re.fullmatch("[0-9a-f]{7,40}", self.revision)
        return begun[0] if is_hash and len(begun) == 1 else self.revision

    def _explained(self, request: Callable[[], Any], what: str) -> Any:
        """The answer to a request.

        Raises:
            WeightsError: the hub refused it; what the user can do about that.
        """
        page = f"https://huggingface.co/{self.repository}"
        try:
            return request()
        except (hub_errors.EntryNotFoundError, hub_errors.OfflineModeIsEnabled):
            raise
        except hub_errors.HFValidationError as error:
            raise WeightsError(f"{self.repository}: no such folder or file, and no hub id either") from error
        except hub_errors.RevisionNotFoundError as error:
            raise WeightsError(f"{self.repository}: has no revision {self.revision!r}; see {page}") from error
        except hub_errors.GatedRepoError as error:
            raise WeightsError(
                f"{self.repository}: is gated; accept its terms at {page}, then `hf auth login`"
            ) from error
        except hub_errors.RepositoryNotFoundError as error:
            raise WeightsError(
                f"{self.repository}: neither a folder or file here, nor a repository of the hub that is public or yours"
            ) from error
        except (hub_errors.HfHubHTTPError, OSError) as error:
            raise WeightsError(f"{self.repository}: {what} could not be downloaded: {error}") from error
