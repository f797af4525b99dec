"""One level of the destination, written shard by shard: one is read while two are written."""

import dataclasses
import time
from collections import deque
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
import tensorstore as ts
from jaxtyping import Shaped

from emsam_jax.blocks import Block, Entry, Ledger, Plan, Todo, find_todo, is_intact, plan_blocks
from emsam_jax.blocks.written import checksum
from emsam_jax.volumes import Box, Volume, VolumeError, box_of
from emsam_jax.volumes.errors import first_line
from emsam_jax.volumes.layout import Layout

IN_FLIGHT = 2  # shards that are written at once


@dataclasses.dataclass(frozen=True)
class Level:
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
            raise VolumeError(
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
