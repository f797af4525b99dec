"""Copies one level of the destination, shard by shard: one is read while two are written, if memory allows."""

import dataclasses
import math
import time
from collections import deque
from collections.abc import Callable, Iterator
from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np
import tensorstore as ts
from jaxtyping import Shaped
from tqdm import tqdm

from emsam_jax.blocks import Block, Entry, Ledger, Plan, Todo, check_room, checksum, find_todo, is_intact, plan_blocks
from emsam_jax.errors import UserError, first_line
from emsam_jax.storage import free_disk, free_memory
from emsam_jax.volumes.axes import Sizes
from emsam_jax.volumes.box import Box, Voxel, box_of
from emsam_jax.volumes.layout import Layout
from emsam_jax.volumes.volume import Volume

IN_FLIGHT = 2  # shards that are written at once
_COMPRESSED = 100  # times: hardly any voxels take less of a disk


@runtime_checkable
class Copyable(Protocol):
    """What is copied: a volume, or voxels that are computed as they are read."""

    @property
    def url(self) -> str: ...
    @property
    def shape(self) -> tuple[int, ...]: ...
    @property
    def dtype(self) -> np.dtype: ...
    @property
    def voxel_size_zyx(self) -> Sizes: ...
    @property
    def offset_zyx(self) -> Sizes: ...
    @property
    def offsets(self) -> tuple[Voxel, ...]: ...
    @property
    def box(self) -> Box: ...
    def read(self, box: Box) -> Shaped[np.ndarray, "*c z y x"]: ...


@dataclasses.dataclass(frozen=True)
class LevelCopy:
    plan: Plan
    read: Callable[[Box], Shaped[np.ndarray, "*c z y x"]]
    target: Volume
    ledger: Ledger

    def find_todo(self, *, check: bool) -> Todo:
        return find_todo(self.plan, self.ledger, self._is_intact if check else None)

    def copy(self, todo: Todo) -> Iterator[Block]:
        """Each block once it is in the ledger, in order."""
        writing: deque[_Writing] = deque()
        for block in map(todo.plan.at, todo.indices):
            if len(writing) == IN_FLIGHT:
                yield self._finish(writing.popleft())
            start = time.monotonic()
            values = self.read(block.box)
            view = self.target.store[(..., *block.box.slices)]
            future = view.write(values, can_reference_source_data_indefinitely=True)
            writing.append(_Writing(block, checksum(values), start, future))
        while writing:
            yield self._finish(writing.popleft())

    def _finish(self, one: "_Writing") -> Block:
        try:
            one.future.result()
        except ValueError as error:
            raise UserError(
                f"{self.target.url}: voxels {one.block.box} cannot be written: {first_line(error)}"
            ) from None
        self.ledger.record(one.block, one.checksum, time.monotonic() - one.start)
        return one.block

    def _is_intact(self, block: Block, entry: Entry) -> bool:
        return is_intact(self.target, block.box, entry.checksum)


class _Writing(NamedTuple):
    block: Block
    checksum: str
    start: float
    future: ts.WriteFutures


def plan_shards(layout: Layout) -> Plan:
    box = box_of(layout.shape[-3:])
    return plan_blocks(box, box, layout.shard, layout.shard)


def refuse_too_large(layout: Layout) -> None:
    """Refuses what exceeds the disk, or needs more memory than there is."""
    plan = plan_shards(layout)
    check_room(plan, layout.url)
    size = math.prod(layout.shape) * layout.dtype.itemsize
    disk, memory = free_disk(layout.url), free_memory()
    if disk is not None and size > _COMPRESSED * disk.bytes:
        raise UserError(
            f"{layout.url}: {_bytes(size)} of voxels {layout.shape} would be too much for its disk even if they were "
            f"compressed {_COMPRESSED} times, {_bytes(disk.bytes)} are free; choose another place or a coarser "
            "--level, or say --nocheck_room."
        )
    held = math.prod(plan.block) * size // math.prod(layout.shape[-3:]) * (IN_FLIGHT + 1)
    if memory is not None and held > memory:
        raise UserError(
            f"{layout.url}: shards of {plan.block} voxels (z, y, x), of which {IN_FLIGHT + 1} are held at once, need "
            f"{_bytes(held)} of memory, {_bytes(memory)} are free; choose smaller ones by --shard."
        )


def _bytes(count: int) -> str:
    return tqdm.format_sizeof(count, "B", 1024)
