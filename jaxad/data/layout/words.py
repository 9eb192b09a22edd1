"""What folders and files are called, and what that says of them.

Names are compared as words: in any case, composed or decomposed (accents from a Mac), with blanks, hyphens and
underscores taken for the same.
"""

from __future__ import annotations

import difflib
import re
import unicodedata
from typing import Literal, NamedTuple


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split(" "))


Part = Literal["train", "validation", "test", "normal", "masks", ""]

NORMAL = _words(
    "good normal ok okay pass passed io gut healthy intact defect_free no_defect non_defective nondefective "
    "正常 良品 合格"
)
"""Words for what is as it should be; the last ones are Chinese, and some of them Japanese."""
DEFECTIVE = _words("bad abnormal anomaly anomalies anomalous defect defects defective ng nok ko nio fail failed faulty")
SPLITS: dict[str, Part] = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("validation", "val", "valid"), "validation"),
    **dict.fromkeys(("test", "testing", "test_public", "test_private", "test_private_mixed"), "test"),
}
MASKS = _words(
    "ground_truth ground_truths groundtruth gt gts mask masks segmentation segmentations seg label labels annotation "
    "annotations anomaly_mask anomaly_masks defect_mask defect_masks segmentation_mask segmentation_masks"
)
CERTAIN_MASKS = _words("ground_truth ground_truths groundtruth gt mask masks")
"""Words for masks that are hardly the name of a defect or a part."""

# Names may hold line breaks.
_FLAGS = re.IGNORECASE | re.DOTALL
_AFFIXES = "ground_truth|groundtruth|segmentation|annotation|masks|mask|labels|label|seg|gt"
_MASK_BEHIND = re.compile(rf"^(?P<rest>.+?)[\s_.\-]+(?:{_AFFIXES})(?:[\s_\-]*\d{{1,2}})?$", _FLAGS)
_MASK_BEFORE = re.compile(rf"^(?:{_AFFIXES})[\s_.\-]+(?P<rest>.+)$", _FLAGS)
_DERIVED = "thumbnail|thumb|preview|overlay|heatmap|anomaly_map"
_DERIVED_BEHIND = re.compile(rf"^(?P<rest>.+?)[\s_.\-]+(?:{_DERIVED}|\d{{2,4}}x\d{{2,4}})$", _FLAGS)
_DERIVED_BEFORE = re.compile(rf"^(?:{_DERIVED})[\s_.\-]+(?P<rest>.+)$", _FLAGS)

THUMBNAILS = _words(
    "@eadir .@__thumb @__thumb .thumbnails .thumbs #recycle @recycle #snapshot @recently_snapshot @sharebin @tmp "
    "ipod_photo_cache .picasaoriginals"
)
"""Folders in which storage and programs keep copies of pictures, or deleted ones."""
PREVIEWS = _words("thumb thumbs thumbnail thumbnails preview previews")
"""Folders of small copies, unless they hold whole categories."""
_LIBRARIES = (".lrdata", ".lrlibrary", ".lrcat", ".photoslibrary", ".photolibrary", ".aplibrary", ".cocatalogdb")
SYSTEM = _words(
    "thumbs.db ehthumbs.db desktop.ini icon\r __macosx lost+found $recycle.bin recycler system_volume_information "
    "network_trash_folder temporary_items"
)


class Role(NamedTuple):
    """What a folder's name says it holds: a part, and which defect ("good" for normal images, "" where it is open)."""

    part: Part
    defect: str


class Names(NamedTuple):
    """Names of folders that a user has given, as words; they go before what jaxad takes a name for.

    Attributes:
        good: of normal images: those to train on, within test/ those to test on.
        test_good: of normal images to test on, where no test/ says so.
        defects: of kinds of defects, all there are; empty where every other name is one.
        masks: of masks.
    """

    good: frozenset[str] = frozenset()
    test_good: frozenset[str] = frozenset()
    defects: frozenset[str] = frozenset()
    masks: frozenset[str] = frozenset()


FOUND = Names()
"""None given: every name is taken for what it is commonly used for."""


def folded(name: str) -> str:
    """A name as it compares: composed (NFC), in one case."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())


def word(name: str) -> str:
    """A name as one word."""
    return re.sub(r"[ \t\-]+", "_", folded(name).strip(" "))


def role(name: str, names: Names = FOUND) -> Role:
    """What a folder's name says it holds; what `names` say of it goes first.

    "train" -> train; "Test" -> test; "OK" -> normal, "good"; "ground_truth" -> masks; "crack_masks" -> masks, "crack";
    "ok_masks" -> masks, "good"; "test_masks" -> masks;
    "test_good" -> test, "good"; "NG_train" -> train, "ng"; any other name, such as "crack", is that of a defect.
    """
    named = word(name)
    if named in names.defects:
        return Role("", name)
    if named in names.good:
        return Role("normal", "good")
    if named in names.test_good:
        return Role("test", "good")
    if named in names.masks:
        return Role("masks", "")
    if named in SPLITS:
        return Role(SPLITS[named], "")
    if named in NORMAL:
        return Role("normal", "good")
    if named in MASKS:
        return Role("masks", "")
    for first, second in ((named.partition("_")[::2]), (named.rpartition("_")[::-2])):
        if first in SPLITS and second in NORMAL | names.good | DEFECTIVE:
            return Role(SPLITS[first], "good" if second in NORMAL | names.good else second)
    if (rest := without_mask(name)) is not None:
        return Role("masks", "" if word(rest) in SPLITS else defect_of(rest, names))
    return Role("", name)


def defect_of(name: str, names: Names = FOUND) -> str:
    """The defect that a folder is named after, "good" for every word for normal images."""
    return "good" if word(name) in (NORMAL | names.good | names.test_good) - names.defects else name


def resembles_normal(name: str) -> str | None:
    """The word for normal images that a folder's name holds or nearly is, "good" of "good_2" or "goood"; else None."""
    tokens = re.split(r"[_\d]+", word(name))
    if word(name) in NORMAL or (DEFECTIVE | {"not", "no", "non", "nicht"}) & set(tokens):
        return None
    held = next((token for token in tokens if token in NORMAL), None)
    return held or next(iter(difflib.get_close_matches(word(name), ("good", "normal"), 1, cutoff=0.85)), None)


def is_preview(name: str) -> bool:
    """Whether a folder of that name holds small copies, unless it holds whole categories."""
    return word(name).strip("_.") in PREVIEWS


def without_mask(stem: str) -> str | None:
    """What is left of a name without its word for masks: "000_mask", "mask_000" -> "000"; None where it has none."""
    return _rest(stem, _MASK_BEHIND, _MASK_BEFORE)


def without_derived(stem: str) -> str | None:
    """What is left of a name without its word for small or painted copies: "000_thumb", "000-150x150" -> "000"."""
    return _rest(stem, _DERIVED_BEHIND, _DERIVED_BEFORE)


def is_kept_copy(name: str) -> bool:
    """Whether a folder of that name holds what a system or a program keeps for itself: thumbnails, trash, a library."""
    return word(name) in THUMBNAILS or folded(name).endswith(_LIBRARIES)


def is_system(name: str) -> bool:
    """Whether a file or folder of that name is of the system, hidden or half written: no data, not worth a word."""
    return name.startswith((".", "~$")) or word(name) in SYSTEM or folded(name).startswith("synofile_thumb")


def _rest(stem: str, *patterns: re.Pattern[str]) -> str | None:
    for pattern in patterns:
        if found := pattern.match(stem):
            return found["rest"]
    return None
