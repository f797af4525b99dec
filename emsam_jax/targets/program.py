"""Reads a compiled program: kernels, transposes, copies, collectives, and the bytes that they move."""

import collections
import dataclasses
import math
import re
from collections.abc import Iterator
from typing import NamedTuple

_BITS = re.compile(r"(\d+)")
_ARRAY = re.compile(r"\b([a-z]+\d*(?:e\dm\d\w*)?)\[([\d,]*)\]")
_COMPUTATION = re.compile(r"^(?:ENTRY )?%?([\w.\-]+) .*\{$")
_INSTRUCTION = re.compile(r"^\s+(?:ROOT )?%?([\w.\-]+) = (\(.*?\)|\S+) ([a-z][\w\-]*)\((.*)$")
_CALLED = re.compile(r"(?:calls|to_apply)=%?([\w.\-]+)")  # by a fusion, a reduction: part of a kernel
_OPERAND = re.compile(r"%([\w.\-]+)")
_FREE = ("parameter", "get-tuple-element", "tuple", "bitcast", "constant", "conditional", "while", "call", "after-all")
COLLECTIVES = ("all-reduce", "all-gather", "reduce-scatter", "all-to-all", "collective-permute")


class Instruction(NamedTuple):
    name: str
    shape: str
    opcode: str
    rest: str  # operands and attributes

    @property
    def bytes(self) -> int:
        return _size(self.shape)


class Moved(NamedTuple):
    number: int
    bytes: int

    def __str__(self) -> str:
        return f"{self.number} of {self.bytes / 1e6:.1f} MB" if self.number else "none"


@dataclasses.dataclass(frozen=True)
class Program:
    """What one device does in one call; loops count once."""

    kernels: int
    bytes: int  # that kernels read and write, each its own; caches are not thought of
    transposes: Moved  # kernels that write in another order than they read
    copies: Moved
    collectives: dict[str, Moved]  # by kind, with the bytes of their results
    libraries: dict[str, int]  # calls of cuDNN, cuBLAS, ... by name


def read_program(text: str, large: int = 0) -> Program:
    """Reads a program's HLO; transposes and copies count from `large` bytes on."""
    top = list(_top_level(text))
    sizes = {instruction.name: instruction.bytes for instruction in top}
    kernels = [i for i in top if i.opcode not in _FREE and not i.opcode.endswith("-done")]
    moved = sum(i.bytes + sum(sizes.get(name, 0) for name in _operands(i)) for i in kernels)
    collectives: dict[str, list[int]] = collections.defaultdict(list)
    for i in kernels:
        kind = i.opcode.removesuffix("-start")
        if kind in COLLECTIVES:
            collectives[kind].append(i.bytes)
    targets = (re.search(r'custom_call_target="([^"]+)"', i.rest) for i in kernels)
    return Program(
        kernels=len(kernels),
        bytes=moved,
        transposes=_count([i for i in kernels if "transpose" in i.opcode or "transpose" in i.name], large),
        copies=_count([i for i in kernels if i.opcode in ("copy", "copy-start")], large),
        collectives={kind: Moved(len(each), sum(each)) for kind, each in sorted(collectives.items())},
        libraries=dict(collections.Counter(found[1] for found in targets if found)),
    )


def _count(instructions: list[Instruction], large: int) -> Moved:
    sizes = [i.bytes for i in instructions if i.bytes >= large]
    return Moved(len(sizes), sum(sizes))


def _operands(instruction: Instruction) -> list[str]:
    return _OPERAND.findall(instruction.rest.split("), ")[0])


def _top_level(text: str) -> Iterator[Instruction]:
    """Yields instructions that run by themselves: not those within a fusion's kernel."""
    within, computation = set(_CALLED.findall(text)), ""
    for line in text.splitlines():
        if (opened := _COMPUTATION.match(line)) and not line.startswith(" "):
            computation = opened[1]
        elif computation not in within and (found := _INSTRUCTION.match(line)):
            yield Instruction(*found.groups())


def _size(shape: str) -> int:
    """Returns the bytes of an array, or of all of a tuple's."""
    return sum(
        _item(kind) * math.prod(map(int, filter(None, sides.split(",")))) for kind, sides in _ARRAY.findall(shape)
    )


def _item(kind: str) -> int:
    bits = _BITS.search(kind)
    return max(int(bits[1]) // 8, 1) if bits else 1
