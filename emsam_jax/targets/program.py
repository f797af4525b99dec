"""Reads a compiled program: kernels, transposes, copies, collectives, and the bytes that they move."""

import collections
import dataclasses
import math
import re
from collections.abc import Iterator
from typing import NamedTuple

_BITS = re.compile(r"(\d+)")
_ARRAY = re.compile(r"\b([a-z]+\d*(?:e\dm\d\w*)?)\[([\d,]*)\]")
_COMPUTATION = re.compile(r"^(ENTRY )?%?([\w.\-]+) .*\{$")
_INSTRUCTION = re.compile(r"^\s+(?:ROOT )?%?([\w.\-]+) = (\(.*?\)|\S+) ([a-z][\w\-]*)\((.*)$")
_CALLED = re.compile(r"(?:calls|to_apply|body)=%?([\w.\-]+)")
_BRANCHES = re.compile(r"branch_computations=\{([^}]*)\}|(?:true|false)_computation=(%?[\w.\-]+)")
_ROUNDS = re.compile(r'"known_trip_count":\{"n":"(\d+)"')
_OPERAND = re.compile(r"%([\w.\-]+)")
_NUMBER = re.compile(r"(\d+)\)")  # of a parameter
_GROUPS = re.compile(r"replica_groups=(?:\[\d+,(\d+)\]|\{\{([\d,]+)\}|mesh\[(.*?)\][^{]*\{(.*?)\})")
_CHANNEL = re.compile(r"channel_id=(\d+)")
_FREE = ("parameter", "get-tuple-element", "tuple", "bitcast", "constant", "after-all", "partition-id")
_SLICES = ("slice", "dynamic-slice", "gather")  # read what they take, not all of their operand
_IN_PLACE = "dynamic-update-slice"  # writes what is updated, not all of its result
COLLECTIVES = ("all-reduce", "all-gather", "reduce-scatter", "all-to-all", "collective-permute")


class Instruction(NamedTuple):
    name: str
    shape: str
    opcode: str
    rest: str  # operands and attributes

    @property
    def bytes(self) -> int:
        """Returns the bytes of the result; what starts a transfer names its operands as well."""
        if not self.opcode.endswith("-start") or not self.shape.startswith("("):
            return _size(self.shape)
        parts = _parts(self.shape)
        return _size(parts[0] if self.opcode == "copy-start" else parts[1]) if len(parts) > 1 else _size(self.shape)

    @property
    def kind(self) -> str:
        return self.opcode.removesuffix("-start")

    @property
    def operands(self) -> list[str]:
        return _OPERAND.findall(self.rest.split("), ")[0])


class Kernel(NamedTuple):
    """An instruction that runs by itself, how often it does, and what it consists of."""

    instruction: Instruction
    times: int
    moved: int  # bytes read and written at least
    within: list[Instruction]


class Collective(NamedTuple):
    kind: str
    times: int
    bytes: int  # of the whole array
    devices: int  # that take part

    @property
    def sent(self) -> float:
        """Returns the bytes that each device sends at least; an array is reduced and then shared."""
        if self.kind == "collective-permute":
            return self.bytes
        return (2 if self.kind == "all-reduce" else 1) * (1 - 1 / self.devices) * self.bytes


class Moved(NamedTuple):
    number: int
    bytes: int

    def __str__(self) -> str:
        return f"{self.number} of {self.bytes / 1e6:.1f} MB" if self.number else "none"


@dataclasses.dataclass(frozen=True)
class Program:
    """What one device does in one call; of a branch's ways the one that moves most."""

    kernels: int
    bytes: int  # that kernels read and write, each its own; caches are not thought of
    transposes: Moved  # kernels that write in another order than they read
    copies: Moved
    collectives: dict[str, Moved]  # by kind, with the bytes of the whole arrays
    sent: int  # bytes that these send at least
    libraries: dict[str, int]  # calls of cuDNN, cuBLAS, ... by name


def read_program(text: str, large: int = 0) -> Program:
    """Reads a program's HLO; transposes and copies count from `large` bytes on."""
    computations, entry = _read(text)
    kernels = list(_run(computations, entry))
    collectives = _collectives(kernels)
    libraries: collections.Counter[str] = collections.Counter()
    for kernel in kernels:
        if found := re.search(r'custom_call_target="([^"]+)"', kernel.instruction.rest):
            libraries[found[1]] += kernel.times
    turned = [k for k in kernels if "transpose" in k.instruction.opcode or "transpose" in k.instruction.name]
    by_kind = {c.kind: [other for other in collectives if other.kind == c.kind] for c in collectives}
    return Program(
        kernels=sum(kernel.times for kernel in kernels),
        bytes=sum(kernel.moved * kernel.times for kernel in kernels),
        transposes=_count(turned, large),
        copies=_count([kernel for kernel in kernels if kernel.instruction.kind == "copy"], large),
        collectives={
            kind: Moved(sum(c.times for c in some), sum(c.bytes * c.times for c in some))
            for kind, some in sorted(by_kind.items())
        },
        sent=round(sum(collective.sent * collective.times for collective in collectives)),
        libraries=dict(libraries),
    )


def _collectives(kernels: list[Kernel]) -> list[Collective]:
    """Lists the collectives, once each where several kernels of arithmetic carry parts of one."""
    found, channels = [], set()
    for kernel in kernels:
        for i in kernel.within:
            channel = _CHANNEL.search(i.rest)
            if i.kind not in COLLECTIVES or (channel and channel[1] in channels):
                continue
            channels |= {channel[1]} if channel else set()
            devices = _group(i.rest)
            whole = i.bytes * (devices if i.kind == "reduce-scatter" else 1)
            found.append(Collective(i.kind, kernel.times, whole, devices))
    return found


def _count(kernels: list[Kernel], large: int) -> Moved:
    some = [kernel for kernel in kernels if kernel.instruction.bytes >= large]
    return Moved(sum(k.times for k in some), sum(k.instruction.bytes * k.times for k in some))


def _read(text: str) -> tuple[dict[str, list[Instruction]], str]:
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


def _run(computations: dict[str, list[Instruction]], name: str, times: int = 1) -> Iterator[Kernel]:
    """Yields what runs by itself: not what is within a fusion's kernel, and each round of a loop."""
    sizes = {instruction.name: instruction.bytes for instruction in computations[name]}
    for i in computations[name]:
        called = _CALLED.search(i.rest)
        if i.opcode == "conditional":
            names = ",".join(listed or one for listed, one in _BRANCHES.findall(i.rest)).split(",")
            ways = [list(_run(computations, one.strip("% "), times)) for one in names]
            yield from max(ways, key=lambda kernels: sum(k.moved for k in kernels))
        elif i.opcode in ("while", "call", "async-start") and called:
            rounds = _ROUNDS.search(i.rest)
            yield from _run(computations, called[1], times * int(rounds[1] if rounds else 1))
        elif i.opcode not in _FREE and not i.opcode.endswith(("-done", "-update")):
            operands = [sizes.get(operand, 0) for operand in i.operands]
            within = computations[called[1]] if i.opcode == "fusion" and called else [i]
            yield Kernel(i, times, _moved(i, operands, within), within)


def _moved(instruction: Instruction, operands: list[int], within: list[Instruction]) -> int:
    """Returns the bytes that a kernel reads and writes, of slices only what they take or update."""
    if within == [instruction]:
        if instruction.opcode in _SLICES:
            return 2 * instruction.bytes
        return 2 * operands[1] if instruction.opcode == _IN_PLACE else instruction.bytes + sum(operands)
    of = {i.name: i for i in within}
    read = 0
    for i in within:
        if i.opcode == "parameter" and (number := _NUMBER.match(i.rest)) and int(number[1]) < len(operands):
            read += min(_read_of(i, within), operands[int(number[1])])
    return read + _written(of, within[-1])


def _read_of(parameter: Instruction, within: list[Instruction]) -> int:
    read = 0
    for i in within:
        if parameter.name in i.operands:
            if i.opcode == "bitcast":
                read += _read_of(i, within)
            elif i.opcode in _SLICES and i.operands[0] == parameter.name:
                read += i.bytes
            elif i.opcode != _IN_PLACE or i.operands[0] != parameter.name:
                return parameter.bytes
    return read


def _written(of: dict[str, Instruction], root: Instruction) -> int:
    if root.opcode == "tuple":
        return sum(_written(of, of[name]) for name in root.operands)
    if root.opcode == "bitcast":
        return _written(of, of[root.operands[0]])
    return of[root.operands[1]].bytes if root.opcode == _IN_PLACE else root.bytes


def _group(attributes: str) -> int:
    """Returns the number of devices that take part in a collective, of which there are two at least."""
    found = _GROUPS.search(attributes)
    if found is None:
        return 2
    each, first, mesh, axes = found.groups()
    if each:
        return int(each)
    if first:
        return len(first.split(","))
    sides = dict(part.split("=") for part in mesh.split(","))
    # A part of an axis has its own size: 'axis':(before)size.
    return math.prod(int(axis.rpartition(")")[2] if ":" in axis else sides[axis]) for axis in axes.split(","))


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


def _size(shape: str) -> int:
    """Returns the bytes of an array, or of all of a tuple's."""
    return sum(
        _item(kind) * math.prod(map(int, filter(None, sides.split(",")))) for kind, sides in _ARRAY.findall(shape)
    )


def _item(kind: str) -> int:
    bits = _BITS.search(kind)
    return max(int(bits[1]) // 8, 1) if bits else 1
