"""HLO as text: instructions, the arrays that they make, and how these lie in a device's memory."""

import itertools
import math
import re
from typing import NamedTuple

_BITS = re.compile(r"(\d+)")
_ARRAY = re.compile(r"\b([a-z]+\d*(?:e\dm\d\w*)?)\[([\d,]*)\](?:\{([^{}]*)\})?")
_TILE = re.compile(r":T\(([\d,]+)\)")  # the first; a second one orders what is within it
_SPACE = re.compile(r"S\((\d+)\)")
_HOST = 5
_COMPUTATION = re.compile(r"^(ENTRY )?%?([\w.\-]+) .*\{$")
_INSTRUCTION = re.compile(r"^\s+(?:ROOT )?%?([\w.\-]+) = (\(.*?\)|\S+) ([a-z][\w\-]*)\((.*)$")
_OPERAND = re.compile(r"%([\w.\-]+)")
_NAME = re.compile(r'op_name="([^"]*)"')
_TRANSFORMED = re.compile(r"^(?:jvp|transpose|vmap|checkpoint|remat\w*)\((.*)\)$")
_SCOPE = re.compile(r"^(?!(?:cond|while|body|scan|branch_\d+_fun|closed_call|checkpoint|remat\w*)$)[A-Za-z_]\w*$")


class Instruction(NamedTuple):
    name: str
    shape: str
    opcode: str
    rest: str  # operands and attributes

    @property
    def bytes(self) -> int:
        return sum(array.size() for array in self.result)

    @property
    def kind(self) -> str:
        return self.opcode.removesuffix("-start")

    @property
    def operands(self) -> list[str]:
        return _OPERAND.findall(self.rest.split("), ")[0])

    @property
    def scope(self) -> str:
        """Returns the part of the model that it belongs to: the scopes that its function was called in."""
        found = _NAME.search(self.rest)
        return "/".join(_scopes(found[1].split(";")[0])) if found else ""

    @property
    def result(self) -> "list[Array]":
        """Returns the arrays that it makes; what starts a transfer names its operands as well."""
        if not self.opcode.endswith("-start") or not self.shape.startswith("("):
            return _arrays(self.shape)
        parts = _parts(self.shape)
        return _arrays((parts[0] if self.opcode == "copy-start" else parts[1]) if len(parts) > 1 else self.shape)


class Array(NamedTuple):
    kind: str
    sides: tuple[int, ...]
    layout: str  # axes from the fastest to the slowest, then tiles and memory

    def size(self) -> int:
        """Returns the bytes of its values."""
        return _item(self.kind) * math.prod(self.sides)

    def filled(self) -> int:
        """Returns the bytes with the fastest axes filled up to whole tiles, as on TPUs: (8, 128) of float32."""
        tile = _TILE.search(self.layout)
        if tile is None:
            return self.size()
        order = [int(axis) for axis in self.layout.split(":")[0].split(",") if axis]
        sides = [self.sides[axis] for axis in reversed(order)]
        tiled = [int(side) for side in tile[1].split(",")]
        sides = [1] * (len(tiled) - len(sides)) + sides
        filled = [-(-side // whole) * whole for side, whole in zip(sides[-len(tiled) :], tiled, strict=True)]
        return _item(self.kind) * math.prod(sides[: -len(tiled)]) * math.prod(filled)

    @property
    def main(self) -> bool:
        """Returns whether it lies in the device's main memory, not on its chip."""
        space = _SPACE.search(self.layout)
        return space is None or int(space[1]) in (0, _HOST)


def read_hlo(text: str) -> tuple[dict[str, list[Instruction]], str]:
    """Returns the instructions of each computation, and the name of the one that is called."""
    computations: dict[str, list[Instruction]] = {}
    name = entry = ""
    for line in text.splitlines():
        if (opened := _COMPUTATION.match(line)) and not line.startswith(" "):
            name = opened[2]
            computations[name] = []
            entry = name if opened[1] else entry
        elif name and (found := _INSTRUCTION.match(line)):
            computations[name].append(Instruction(*found.groups()))
    return computations, entry


def _arrays(shape: str) -> list[Array]:
    return [
        Array(kind, tuple(map(int, filter(None, sides.split(",")))), layout)
        for kind, sides, layout in _ARRAY.findall(shape)
    ]


def _parts(shape: str) -> list[str]:
    """Splits a tuple's shape."""
    parts, depth = [""], 0
    for letter in shape[1:-1]:
        depth += (letter in "([{") - (letter in ")]}")
        if letter == "," and not depth:
            parts.append("")
        else:
            parts[-1] += letter
    return parts


def _item(kind: str) -> int:
    bits = _BITS.search(kind)
    return max(int(bits[1]) // 8, 1) if bits else 1


def _scopes(path: str) -> list[str]:
    """Returns the named scopes of an operation's path, without transformations, functions and the operation itself."""
    found = []
    root, *parts = path.split("/")
    # A function that is called twice has the path of its first call behind that of this one.
    for part in itertools.takewhile(lambda part: part != root, parts[:-1]):
        while inner := _TRANSFORMED.match(part):
            part = inner[1]  # noqa: PLW2901
        found += [part] if _SCOPE.match(part) else []
    return found
