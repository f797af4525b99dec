"""Reads a compiled program: kernels, transposes, copies, collectives, and the bytes that they move."""

import collections
import dataclasses
import math
import re
from collections.abc import Callable, Iterator
from typing import NamedTuple

from emsam_jax.targets.hlo import Array, Instruction, read_hlo

_CALLED = re.compile(r"(?:calls|to_apply|body)=%?([\w.\-]+)")
_BRANCHES = re.compile(r"branch_computations=\{([^}]*)\}|(?:true|false)_computation=(%?[\w.\-]+)")
_ROUNDS = re.compile(r'"known_trip_count":\{"n":"(\d+)"')
_NUMBER = re.compile(r"(\d+)\)")  # of a parameter
_GROUPS = re.compile(r"replica_groups=(?:\[\d+,(\d+)\]|\{\{([\d,]+)\}|mesh\[(.*?)\][^{]*\{(.*?)\})")
_CHANNEL = re.compile(r"channel_id=(\d+)")
_FREE = ("parameter", "get-tuple-element", "tuple", "bitcast", "constant", "after-all", "partition-id")
_SLICES = ("slice", "dynamic-slice", "gather")  # read what they take, not all of their operand
_IN_PLACE = "dynamic-update-slice"  # writes what is updated, not all of its result
COLLECTIVES = ("all-reduce", "all-gather", "reduce-scatter", "all-to-all", "collective-permute")
Size = Callable[[Array], int]
Computations = dict[str, list[Instruction]]


class Kernel(NamedTuple):
    """An instruction that runs by itself, how often it does, and what it consists of."""

    instruction: Instruction
    times: int
    moved: int  # bytes read and written at least
    useful: int  # of these; the others fill up tiles
    layer: str  # named scopes that it belongs to
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
            return float(self.bytes)
        return (2 if self.kind == "all-reduce" else 1) * (1 - 1 / self.devices) * self.bytes


class Moved(NamedTuple):
    number: int
    bytes: int

    def __str__(self) -> str:
        return f"{self.number} of {self.bytes / 1e6:.1f} MB" if self.number else "none"


class Traffic(NamedTuple):
    """Bytes between a device's main memory and its kernels."""

    moved: int
    useful: int  # of these; on TPUs the others fill up tiles of (8, 128)

    def __str__(self) -> str:
        return f"{self.moved / 1e9:.3g} GB, {self.useful / max(self.moved, 1):.0%} of them values"


@dataclasses.dataclass(frozen=True)
class Program:
    """What one device does in one call; of a branch's ways the one that moves most."""

    kernels: int
    bytes: int  # that kernels read and write, each its own; caches are not thought of
    useful: int  # of these; on TPUs the others fill up tiles
    transposes: Moved  # kernels that write in another order than they read
    copies: Moved
    collectives: dict[str, Moved]  # by kind, with the bytes of the whole arrays
    sent: int  # bytes that these send at least
    libraries: dict[str, int]  # calls of cuDNN, cuBLAS, ... by name
    layers: dict[str, Traffic]  # by named scope, what moves most first


def read_program(text: str, large: int = 0) -> Program:
    """Reads a program's HLO; transposes and copies count from `large` bytes on."""
    computations, entry = read_hlo(text)
    kernels = list(_run(computations, entry))
    collectives = _collectives(kernels)
    libraries: collections.Counter[str] = collections.Counter()
    for kernel in kernels:
        if found := re.search(r'custom_call_target="([^"]+)"', kernel.instruction.rest):
            libraries[found[1]] += kernel.times
    turned = [k for k in kernels if "transpose" in k.instruction.opcode or "transpose" in k.instruction.name]
    by_kind = {c.kind: [other for other in collectives if other.kind == c.kind] for c in collectives}
    layers = _by_layer(kernels)
    return Program(
        kernels=sum(kernel.times for kernel in kernels),
        bytes=sum(traffic.moved for traffic in layers.values()),
        useful=sum(traffic.useful for traffic in layers.values()),
        transposes=_count(turned, large),
        copies=_count([kernel for kernel in kernels if kernel.instruction.kind == "copy"], large),
        collectives={
            kind: Moved(sum(c.times for c in some), sum(c.bytes * c.times for c in some))
            for kind, some in sorted(by_kind.items())
        },
        sent=round(sum(collective.sent * collective.times for collective in collectives)),
        libraries=dict(libraries),
        layers=layers,
    )


def _by_layer(kernels: list[Kernel]) -> dict[str, Traffic]:
    found: dict[str, Traffic] = {}
    for kernel in kernels:
        before = found.get(kernel.layer, Traffic(0, 0))
        moved, useful = kernel.moved * kernel.times, kernel.useful * kernel.times
        found[kernel.layer] = Traffic(before.moved + moved, before.useful + useful)
    return dict(sorted(found.items(), key=lambda item: -item[1].moved))


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


def _run(computations: Computations, name: str, times: int = 1) -> Iterator[Kernel]:
    """Yields what runs by itself: not what is within a fusion's kernel, and each round of a loop."""
    made = {instruction.name: instruction for instruction in computations[name]}
    layers: dict[str, str] = {}
    for i in computations[name]:
        called = _CALLED.search(i.rest)
        within = computations[called[1]] if i.opcode == "fusion" and called else [i]
        # What the compiler adds has no name: it belongs to what it copies.
        names = (i.scope, *(part.scope for part in reversed(within)), *(layers.get(each, "") for each in i.operands))
        layers[i.name] = next(filter(None, names), "")
        if i.opcode == "conditional":
            names = ",".join(listed or one for listed, one in _BRANCHES.findall(i.rest)).split(",")
            ways = [list(_run(computations, one.strip("% "), times)) for one in names]
            yield from max(ways, key=lambda kernels: sum(k.moved for k in kernels))
        elif i.opcode in ("while", "call", "async-start") and called:
            rounds = _ROUNDS.search(i.rest)
            yield from _run(computations, called[1], times * int(rounds[1] if rounds else 1))
        elif i.opcode not in _FREE and not i.opcode.endswith(("-done", "-update")):
            operands = [made.get(operand) for operand in i.operands]
            moved, useful = (
                _moved(i, [_in_memory(o, size) if o else 0 for o in operands], within, size)
                for size in (Array.filled, Array.size)
            )
            yield Kernel(i, times, moved, useful, layers[i.name], within)


def _moved(instruction: Instruction, operands: list[int], within: list[Instruction], size: Size) -> int:
    """Returns the bytes that a kernel reads and writes, of slices only what they take or update."""
    if within == [instruction]:
        if instruction.kind in _SLICES:
            return min(_everywhere(instruction, size), operands[0]) + _in_memory(instruction, size)
        return 2 * operands[1] if instruction.opcode == _IN_PLACE else _in_memory(instruction, size) + sum(operands)
    of = {i.name: i for i in within}
    read = 0
    for i in within:
        if i.opcode == "parameter" and (number := _NUMBER.match(i.rest)) and int(number[1]) < len(operands):
            read += min(_read_of(i, within, size), operands[int(number[1])])
    return read + _written(of, within[-1], size)


def _read_of(parameter: Instruction, within: list[Instruction], size: Size) -> int:
    read = 0
    for i in within:
        if parameter.name in i.operands:
            if i.opcode == "bitcast":
                read += _read_of(i, within, size)
            elif i.opcode in _SLICES and i.operands[0] == parameter.name:
                read += _everywhere(i, size)
            elif i.opcode != _IN_PLACE or i.operands[0] != parameter.name:
                return _in_memory(parameter, size)
    return read


def _written(of: dict[str, Instruction], root: Instruction, size: Size) -> int:
    if root.opcode == "tuple":
        return sum(_written(of, of[name], size) for name in root.operands)
    if root.opcode == "bitcast":
        return _written(of, of[root.operands[0]], size)
    return _in_memory(of[root.operands[1]] if root.opcode == _IN_PLACE else root, size)


def _in_memory(instruction: Instruction, size: Size) -> int:
    """Returns the bytes of the result in the device's main memory; what stays on its chip is not moved."""
    return sum(size(array) for array in instruction.result if array.main)


def _everywhere(instruction: Instruction, size: Size) -> int:
    return sum(size(array) for array in instruction.result)


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
