"""Pickles of plain data from anywhere: nothing runs, and memory and time are bounded by the size of the file.

The unpickler written in C allocates what a file declares (a memo of 2 ** 32 places, a text of terabytes), and both
unpicklers hash any key: tuples of the same tuple twice, nested, take for ever to hash or end the process. Python's own
unpickler therefore serves here, held to `_Opcodes`, to short texts and to keys that are plain.
"""

from __future__ import annotations

import pickle
from collections import OrderedDict
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

from jaxad.io.untrusted import MEBIBYTE

LONGEST = 16 * MEBIBYTE
"""Bytes of one text, number or frame."""
OPCODES = 4_000_000
"""Of one pickle; those of large training checkpoints have some hundred thousand."""
_InPython: Any = vars(pickle)["_Unpickler"]
_LARGEST_KEY = 1 << 61
"""Whole numbers from here on can be chosen so that all have one hash."""


class Function(NamedTuple):
    """The only objects that a pickle can call; a tuple, because a pickle can set the attributes of other objects."""

    function: Callable[..., Any]

    def __call__(self, *arguments: Any) -> Any:
        return self.function(*arguments)


class PlainUnpickler(_InPython):
    """Builds plain containers; `find_class` says what else there is.

    Args:
        stream: binary; read from where it stands to the end of the pickle.
    """

    def __init__(self, stream: Any):
        super().__init__(_Bounded(stream), encoding="utf-8")
        self.dispatch = _Opcodes(_DISPATCH)
        self._copied = 0

    def container(self, module: str, name: str) -> Function | None:
        """What makes a container of that name out of another, None for what is none."""
        kind = _CONTAINERS.get((module, name))
        return None if kind is None else Function(lambda *content: self._made(kind, *content))

    def _made(self, kind: type, *content: Any) -> Any:
        (items,) = content or ((),)
        # A few bytes of a pickle can ask for one more copy of a long list.
        self._copied += len(items)
        if self._copied > OPCODES:
            raise ValueError(f"copies of more than {OPCODES:,} elements")
        if kind in (dict, OrderedDict):
            _check_keys(items if isinstance(items, dict) else [pair[0] for pair in items])
        elif kind in (set, frozenset):
            _check_keys(items)
        return kind(items)

    def load_setitem(self) -> None:
        _check_keys(self.stack[-2:-1])
        super().load_setitem()

    def load_setitems(self) -> None:
        _check_keys(self.stack[::2])
        super().load_setitems()

    def load_dict(self) -> None:
        _check_keys(self.stack[::2])
        super().load_dict()

    def load_additems(self) -> None:
        _check_keys(self.stack)
        super().load_additems()

    def load_frozenset(self) -> None:
        _check_keys(self.stack)
        super().load_frozenset()


def _check_keys(keys: Iterable[Any]) -> None:
    """Raises ValueError for keys that are neither texts, numbers and the like nor tuples of those."""
    for key in keys:
        for part in key if type(key) is tuple else (key,):
            if isinstance(part, tuple | frozenset) or (isinstance(part, int) and abs(part) >= _LARGEST_KEY):
                raise ValueError("a key that is no plain text or number")


class _Bounded:
    """A stream that gives no more at once than a plain pickle needs."""

    def __init__(self, stream: Any):
        self._stream = stream

    def read(self, size: int) -> bytes:
        if size > LONGEST:
            raise ValueError(f"a text or number of {size:,} bytes")
        content = self._stream.read(size)
        if len(content) < size > 1:
            raise EOFError("the file ends within a text or number")
        return content

    def readline(self) -> bytes:
        line = self._stream.readline(LONGEST)
        if not line.endswith(b"\n"):
            raise EOFError("the file ends within a line")
        return line


class _Opcodes(dict[int, Callable[..., None]]):
    """The opcodes of plain data, counted as they are looked up."""

    left = OPCODES

    def __getitem__(self, code: int) -> Callable[..., None]:
        self.left -= 1
        if self.left < 0:
            raise ValueError(f"more than {OPCODES:,} opcodes")
        if code not in self:
            raise ValueError(f"opcode {code}, which plain data has not")
        return super().__getitem__(code)


_CONTAINERS: dict[tuple[str, str], type] = {
    ("collections", "OrderedDict"): OrderedDict,
    ("torch", "Size"): tuple,
    **{(module, c.__name__): c for module in ("builtins", "__builtin__") for c in (set, frozenset, dict, list, tuple)},
}
# Objects outside of the pickle, by number, and memory that is allocated before it is filled.
_REFUSED = (
    *(pickle.EXT1, pickle.EXT2, pickle.EXT4),
    *(pickle.BYTEARRAY8, pickle.NEXT_BUFFER, pickle.READONLY_BUFFER),
)
_OWN = {
    pickle.SETITEM: PlainUnpickler.load_setitem,
    pickle.SETITEMS: PlainUnpickler.load_setitems,
    pickle.DICT: PlainUnpickler.load_dict,
    pickle.ADDITEMS: PlainUnpickler.load_additems,
    pickle.FROZENSET: PlainUnpickler.load_frozenset,
}
_DISPATCH: dict[int, Callable[..., None]] = {
    **{code: load for code, load in _InPython.dispatch.items() if bytes([code]) not in _REFUSED},
    **{opcode[0]: load for opcode, load in _OWN.items()},
}
