"""Damage to files: of bytes, blindly, and of values in JSON, which blind damage seldom reaches."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import random
import re
import struct
import zipfile
import zlib
from typing import Any

ODD_NUMBERS = (
    0,
    1,
    2,
    7,
    64,
    127,
    128,
    255,
    256,
    65535,
    65536,
    2**31 - 1,
    2**31,
    2**32 - 1,
    2**62,
    2**63 - 1,
    2**64 - 1,
)
ODD_VALUES: tuple[Any, ...] = (
    *(None, True, False, 0, 1, -1, 0.5, 1e308, float("inf"), float("nan"), 2**31, 2**63, 10**30, -(2**63)),
    *("", "a", "\0", "../../etc/passwd", "/dev/zero", "\udcff", "é" * 300, "a" * 5000, "99999999999"),
    *([], {}, [0], [[]], {"": 0}, [None] * 40, [1] * 100, {"a": {"a": {"a": {}}}}),
)
ODD_TEXTS = (b"-1", b"1e999", b"9" * 40, b"9" * 5000, b"null", b"true", b"[]", b"{}", b'"', b"\xff", b"\0", b"NaN")
ODD_TEXTS += (b"[" * 3000, b'{"a":' * 3000, b'"\\ud800"', b"\xef\xbb\xbf", b"," * 50, b"1.5", b'""', b"../x")
_PNG = b"\x89PNG\r\n\x1a\n"


def mutate(content: bytes, random: random.Random) -> bytes:
    """The content, damaged in one to four places, in a way that the dice choose."""
    if random.random() < 0.5:
        changed = _odd_json(content, random) or _repacked(content, random)
        if changed is not None:
            return changed
    damaged = bytearray(content)
    for _ in range(random.choice((1, 1, 1, 2, 4))):
        random.choice(_WAYS)(damaged, random)
    if content.startswith(_PNG) and random.random() < 0.7:
        return _with_checksums(bytes(damaged))
    return bytes(damaged)


def _flip(content: bytearray, random: random.Random) -> None:
    if content:
        content[random.randrange(len(content))] ^= 1 << random.randrange(8)


def _flip_early(content: bytearray, random: random.Random) -> None:
    """Headers come first and are short."""
    if content:
        content[random.randrange(min(len(content), 128))] = random.choice((0, 1, 127, 128, 255, random.randrange(256)))


def _replace(content: bytearray, random: random.Random) -> None:
    if content:
        content[random.randrange(len(content))] = random.randrange(256)


def _number(content: bytearray, random: random.Random) -> None:
    """A whole number of 2, 4 or 8 bytes, in either order."""
    size, order = random.choice((2, 4, 8)), random.choice(("little", "big"))
    if len(content) > size:
        start = random.randrange(min(len(content), random.choice((64, 1024, len(content)))) - min(size, 1) + 1)
        number = random.choice(ODD_NUMBERS) % (1 << 8 * size)
        content[start : start + size] = number.to_bytes(size, order)


def _cut(content: bytearray, random: random.Random) -> None:
    del content[random.randrange(len(content) + 1) :]


def _remove(content: bytearray, random: random.Random) -> None:
    start = random.randrange(len(content) + 1)
    del content[start : start + random.choice((1, 2, 8, 100))]


def _repeat(content: bytearray, random: random.Random) -> None:
    start, length = random.randrange(len(content) + 1), random.choice((1, 4, 32, 300))
    content[start:start] = content[start : start + length] * random.choice((1, 2, 50))


def _insert(content: bytearray, random: random.Random) -> None:
    start = random.randrange(len(content) + 1)
    content[start:start] = random.randbytes(random.choice((1, 4, 64)))


def _odd_text(content: bytearray, random: random.Random) -> None:
    """In the place of a number or word, or between two bytes."""
    places = [match.span() for match in re.finditer(rb"-?\d+(?:\.\d+)?|\w+", bytes(content[:20_000]))]
    start, end = random.choice(places) if places else (len(content), len(content))
    content[start:end] = random.choice(ODD_TEXTS)


def _move(content: bytearray, random: random.Random) -> None:
    start, length = random.randrange(len(content) + 1), random.choice((4, 32, 300))
    piece = content[start : start + length]
    del content[start : start + length]
    place = random.randrange(len(content) + 1)
    content[place:place] = piece


_WAYS = (
    _flip,
    _flip,
    _flip_early,
    _flip_early,
    _replace,
    _number,
    _number,
    _cut,
    _remove,
    _repeat,
    _insert,
    _odd_text,
    _move,
)


def _odd_json(content: bytes, random: random.Random) -> bytes | None:
    """JSON, or the JSON that opens a .safetensors file, with an odd value somewhere; None for what is no JSON."""
    head = int.from_bytes(content[:8], "little")
    framed = content[8:9] == b"{" and head < len(content)
    try:
        value = json.loads(content[8 : 8 + head] if framed else content)
    except (ValueError, RecursionError):
        return None
    holders = [holder for holder in _nodes([value]) if holder]
    for _ in range(random.choice((1, 1, 2, 3))):
        holder = random.choice(holders)
        key = random.choice(list(holder) if isinstance(holder, dict) else range(len(holder)))
        if random.random() < 0.15 and len(holder) > 1 and isinstance(holder, dict):
            del holder[key]
        else:
            holder[key] = random.choice(ODD_VALUES)
    text = json.dumps(value).encode()
    return len(text).to_bytes(8, "little") + text + content[8 + head :] if framed else text


def _repacked(content: bytes, random: random.Random) -> bytes | None:
    """Damage to what is packed, behind checksums that are right; None for what is not packed."""
    for head, module in ((b"\x1f\x8b", gzip), (b"\xfd7zXZ", lzma), (b"BZh", bz2)):
        if content.startswith(head):
            return module.compress(mutate(module.decompress(content), random))
    if not content.startswith(b"PK\x03\x04"):
        return None
    with zipfile.ZipFile(io.BytesIO(content)) as packed:
        members = {info: packed.read(info) for info in packed.infolist()}
    chosen, stream = random.choice(list(members)), io.BytesIO()
    with zipfile.ZipFile(stream, "w") as packed:
        for info, data in members.items():
            packed.writestr(info, mutate(data, random) if info is chosen else data, info.compress_type)
    return stream.getvalue()


def _nodes(value: Any) -> list[Any]:
    """All lists and objects in a value, itself first."""
    found, pending = [], [value]
    while pending:
        node = pending.pop()
        if isinstance(node, dict | list):
            found.append(node)
            pending += node.values() if isinstance(node, dict) else node
    return found


def _with_checksums(content: bytes) -> bytes:
    """A PNG with the checksum of each chunk made right, so that damage gets past it."""
    repaired, place = bytearray(content), len(_PNG)
    while place + 12 <= len(repaired):
        (length,) = struct.unpack(">I", repaired[place : place + 4])
        end = place + 8 + length
        if end + 4 > len(repaired):
            break
        repaired[end : end + 4] = zlib.crc32(repaired[place + 4 : end]).to_bytes(4, "big")
        place = end + 4
    return bytes(repaired)
