"""What a compiled program does, read off its text: memory traffic, collectives and kernels, loops counted in full."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

COLLECTIVES = ("all-reduce", "all-gather", "reduce-scatter", "all-to-all", "ragged-all-to-all", "collective-permute")
_WIDTHS = {"pred": 1, "bf16": 2, "f16": 2}
_CONTROL = {"while", "conditional", "call", "opt-barrier", "after-all", "partition-id", "replica-id"}
_SILENT = _CONTROL | {"parameter", "constant", "iota", "tuple", "get-tuple-element", "bitcast"}
"""Operations that move nothing, or whose computations are counted themselves."""
_ARRAY = re.compile(r"\b(pred|[subf]+\d+\w*)\[([\d,]*)\](\{[^}]*\})?")


@dataclass(frozen=True)
class Account:
    """Of one run of a program on one device.

    Attributes:
        traffic: bytes that operations read from and write to the main memory, each its whole operands.
        collectives: how often each runs, and bytes of its results, by "kind type", e.g. "all-reduce f32".
        kernels: how often each hand-written or library kernel runs, by its name.
        largest_float32: the largest array of 32-bit floats that an operation writes, as "f32[...]".
    """

    traffic: float
    collectives: dict[str, dict[str, int]]
    kernels: dict[str, int]
    largest_float32: str


@dataclass
class _Instruction:
    shape: str
    operation: str
    operands: list[str]
    text: str


@dataclass
class _Counts:
    traffic: float = 0.0
    runs: Counter[str] = field(default_factory=Counter)
    moved: Counter[str] = field(default_factory=Counter)
    kernels: Counter[str] = field(default_factory=Counter)
    largest: tuple[int, str] = (0, "")


def account(text: str) -> Account:
    """The account of a program.

    Args:
        text: what `jax.stages.Compiled.as_text` gives.
    """
    computations, entry = _computations(text)
    counts = _Counts()
    _walk(computations, entry, 1, counts)
    collectives = {name: {"runs": counts.runs[name], "bytes": counts.moved[name]} for name in sorted(counts.runs)}
    return Account(counts.traffic, collectives, dict(sorted(counts.kernels.items())), counts.largest[1])


def _walk(computations: dict[str, dict[str, _Instruction]], name: str, times: int, counts: _Counts) -> None:
    instructions = computations[name]
    for instruction in instructions.values():
        for called, runs in _called(instruction):
            _walk(computations, called, times * runs, counts)
        for label, moved in _exchanged(computations, instructions, instruction):
            counts.runs[label] += times
            counts.moved[label] += times * moved
        if instruction.operation in _SILENT or instruction.operation.endswith("-done"):
            continue
        read = sum(_bytes(instructions[name].shape) for name in instruction.operands if name in instructions)
        counts.traffic += times * (read + _bytes(instruction.shape))
        if found := re.search(r'custom_call_target="([^"]+)"', instruction.text):
            counts.kernels[found[1]] += times
        for kind, size, shape in _arrays(instruction.shape):
            if kind == "f32" and size > counts.largest[0]:
                counts.largest = (size, shape)


def _exchanged(
    computations: dict[str, dict[str, _Instruction]], around: dict[str, _Instruction], instruction: _Instruction
) -> Iterator[tuple[str, int]]:
    """Kind and type of every collective that an operation starts, itself or inside of it, and bytes of its results.

    A TPU's compiler puts collectives into fusions: one that begins it, some that compute while it runs, and one that
    ends it, each with the same collective of one `chain_id`. The first counts.
    """
    kind = instruction.operation.removesuffix("-start")
    if kind in COLLECTIVES:
        # Wherever they lie: a TPU receives into the memory on its chip, too.
        results = _arrays(instruction.shape, on_chip=True)
        if instruction.operation != kind and kind in ("all-gather", "collective-permute"):
            # What begins these gives its operands, too, and numbers to wait by.
            given = [
                array for name in instruction.operands if name in around for array in _arrays(around[name].shape, True)
            ]
            results = results[len(given) : 2 * len(given)]
        types = "+".join(sorted({name for name, _, _ in results}))
        yield f"{kind} {types}", sum(size for _, size, _ in results)
    elif instruction.operation in ("fusion", "async-start"):
        inside = computations.get(_name_behind("calls", instruction.text) or "", {})
        begins = any("AsyncCollectiveStart" in each.text for each in inside.values())
        for each in inside.values():
            if begins or "chain_id=" not in each.text:
                yield from _exchanged(computations, inside, each)


def _name_behind(key: str, text: str) -> str | None:
    """The name of the computation that an instruction gives as `key`."""
    found = re.search(rf"\b{key}=%?([\w.\-]+)", text)
    return found[1] if found else None


def _called(instruction: _Instruction) -> Iterator[tuple[str, int]]:
    """Computations that run as operations of their own, and how often; those of fusions are one operation."""
    if instruction.operation == "while":
        trips = re.search(r'known_trip_count"?:\s*\{"?n"?:\s*"?(\d+)', instruction.text)
        if body := _name_behind("body", instruction.text):
            yield body, int(trips[1]) if trips else 1
    elif instruction.operation == "call":
        if body := _name_behind("to_apply", instruction.text):
            yield body, 1
    elif branches := re.search(r"branch_computations=\{([^}]*)\}", instruction.text):
        yield from ((branch, 1) for branch in re.findall(r"[\w.\-]+", branches[1]))


def _computations(text: str) -> tuple[dict[str, dict[str, _Instruction]], str]:
    """Instructions by name, by computation; and the name of the first computation to run."""
    found: dict[str, dict[str, _Instruction]] = {}
    current: dict[str, _Instruction] = {}
    entry = ""
    for line in text.splitlines():
        if head := re.match(r"(ENTRY )?%?([\w.\-]+) .*\{$", line):
            current = found[head[2]] = {}
            entry = head[2] if head[1] else entry
        elif body := re.match(r"\s+(?:ROOT )?%?([\w.\-]+) = (.*)", line):
            shape, rest = _first_shape(body[2])
            if call := re.match(r"\s*([\w\-]+)\(", rest):
                inside = _balanced(rest[call.end() - 1 :])
                current[body[1]] = _Instruction(shape, call[1], re.findall(r"%([\w.\-]+)", inside), line)
    return found, entry


def _first_shape(text: str) -> tuple[str, str]:
    end = len(_balanced(text)) if text.startswith("(") else text.index(" ")
    return text[:end], text[end:]


def _balanced(text: str) -> str:
    """The beginning of a text up to the end of its first pair of parentheses."""
    depth = 0
    for place, character in enumerate(text):
        depth += (character == "(") - (character == ")")
        if depth == 0:
            return text[: place + 1]
    return text


def _arrays(shape: str, on_chip: bool = False) -> list[tuple[str, int, str]]:
    """Type, bytes and text of every array of a shape in main memory, and where asked in a TPU's on its chip, S(1)."""
    found = []
    for kind, sides, layout in _ARRAY.findall(shape):
        if on_chip or "S(1)" not in layout:
            bits = re.search(r"\d+", kind.removeprefix("bf").removeprefix("f"))
            width = _WIDTHS.get(kind) or max(int(bits[0]) if bits else 8, 8) // 8
            elements = 1
            for side in filter(None, sides.split(",")):
                elements *= int(side)
            found.append((kind, elements * width, f"{kind}[{sides}]"))
    return found


def _bytes(shape: str) -> int:
    return sum(size for _, size, _ in _arrays(shape))
