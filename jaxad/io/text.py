"""Text that others made, such as names of files, in one form that every terminal and every file can hold.

A name of a file is bytes: it may be no UTF-8, and it may hold characters that move a terminal's cursor or turn the
direction of writing. In what jaxad prints and writes, such a character is an escape in ASCII:

    \\xHH      a control character (ESC is \\x1b, a new line \\x0a), or from \\x80 on a byte that is not UTF-8
    \\uHHHH    another character that cannot be seen but acts, such as U+202E, which turns the direction of writing

All other characters are kept, of whatever script.
"""

from __future__ import annotations

import codecs
import hashlib
import os
import re
import sys
from collections.abc import Collection
from pathlib import PurePath
from typing import Any

# Python has a byte that is not UTF-8 as a lone surrogate. The set is fixed, as names must not change with Python.
_ACTING = r"\x00-\x1f\x7f-\x9f\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb\ud800-\udfff"
_ESCAPE = r"\\(?:x[0-9a-f]{2}|u[0-9a-f]{4})"
_BACKSLASH = r"\x5c"
_UTF8 = sys.getfilesystemencoding() == "utf-8"
ERRORS = "jaxad.escape"
"""Name of a codec's error handler that writes what an encoding does not have as an escape."""


def visible(text: object, *, lines: bool = False) -> str:
    """The text with an escape in place of every character that acts; again the same when done twice.

    Args:
        text: to show to people, or what is written as such: a path, a message.
        lines: keep new lines, for messages of several lines.
    """
    parts = str(text).split("\n") if lines else [str(text)]
    return "\n".join(re.sub(f"[{_ACTING}]", lambda found: _escape(found[0]), part) for part in parts)


def name_text(name: str | PurePath) -> str:
    """The name of a file or folder as text: as `visible`, and no two names are alike.

    A backslash that would be read as the beginning of an escape becomes \\x5c. The text is the same in every locale.
    To be done once, where the name comes from the file system; `file_name` is the inverse.
    """
    return visible(re.sub(_ESCAPE, lambda found: _BACKSLASH + found[0][1:], _decoded(str(name))))


def file_name(text: str) -> str:
    """The name of the file or folder that `name_text` wrote in this way."""
    return _encoded(re.sub(_ESCAPE, lambda found: _meant(found[0]), text))


def typed(name: str, known: Collection[str] = ()) -> str:
    """The text of a name that a user typed, as the file system has it or as it was shown.

    Args:
        name: the words of the user.
        known: texts of the names that there are.
    """
    return name if name in known or (not known and visible(name) == name) else name_text(name)


def slug(name: str) -> str:
    """A name as part of the name of a folder: letters and digits of every script, and "_" in place of the rest.

    Names in ASCII have nothing added, so that two which differ in punctuation alone have the same slug. All others have
    slugs of their own: where something had to be replaced, a hash of the name ends it.
    """
    plain = re.sub(r"\W", "_", name)
    if plain == name or (name.isascii() and not re.search(_ESCAPE, name)):
        return plain
    return f"{plain}_{hashlib.sha256(name.encode('utf-8', 'surrogatepass')).hexdigest()[:8]}"


def writable(content: Any) -> Any:
    """JSON-ready content with escapes, as in `visible`, for the lone surrogates that no UTF-8 file can hold."""
    if isinstance(content, str):
        return re.sub(r"[\ud800-\udfff]", lambda found: _escape(found[0]), content)
    if isinstance(content, dict):
        return {writable(key): writable(value) for key, value in content.items()}
    return [writable(item) for item in content] if isinstance(content, list | tuple) else content


def apart(word: str, names: Collection[str]) -> str:
    """A word of jaxad's own, such as "mean", in as many parentheses as tell it from the names of a user beside it."""
    while word in names:
        word = f"({word})"
    return word


def _escape(character: str) -> str:
    code = ord(character)
    if 0xDC80 <= code <= 0xDCFF:
        code -= 0xDC00
        return f"\\x{code:02x}"
    return f"\\x{code:02x}" if code < 0x80 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def _meant(escape: str) -> str:
    code = int(escape[2:], 16)
    return chr(0xDC00 + code) if escape[1] == "x" and code >= 0x80 else chr(code)


def _decoded(name: str) -> str:
    """The name as UTF-8, also in a locale that takes each of its bytes for a stranger."""
    if _UTF8:
        return name
    try:
        return os.fsencode(name).decode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        # No name of this file system; text from elsewhere.
        return name


def _encoded(name: str) -> str:
    """The inverse of `_decoded`."""
    return name if _UTF8 else os.fsdecode(name.encode("utf-8", "surrogateescape"))


def _escape_unencodable(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    return "".join(map(_escape, error.object[error.start : error.end])), error.end


codecs.register_error(ERRORS, _escape_unencodable)
