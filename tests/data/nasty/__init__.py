"""Folders as users have them, each made by a small function, with what `jaxad check` has to say of it."""

from tests.data.nasty import structure, masks, contents, given, lists  # noqa: F401, I001  (in the order of the page)
from tests.data.nasty.maker import FOLDERS, PARTS, Maker

__all__ = ["FOLDERS", "PARTS", "Maker"]
