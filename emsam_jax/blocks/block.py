"""Cuts a region of a volume into blocks; each writes a box of whole chunks and reads a halo around it."""

import dataclasses
import itertools
import math
from collections.abc import Iterator

from emsam_jax.errors import UserError
from emsam_jax.storage import free_disk, free_memory
from emsam_jax.volumes import Box, Specimen, Voxel, read_nearest

_LISTED = 100  # bytes of a block in the list of what is to be done
_ENTRY = 1 << 12  # bytes of an entry's file


@dataclasses.dataclass(frozen=True)
class Block:
    index: Voxel  # its place among the blocks
    box: Box  # what it writes, in voxels of the volume

    @property
    def name(self) -> str:
        return "-".join(map(str, self.index))


@dataclasses.dataclass(frozen=True)
class Plan:
    """Blocks of a region. The output is an array of the region's shape, whose voxel 0 is the region's first."""

    volume: Box
    region: Box  # within the volume
    block: Voxel  # shape; blocks at the region's far side are cut off there

    @property
    def counts(self) -> Voxel:
        z, y, x = (-(-side // own) for side, own in zip(self.region.shape, self.block, strict=True))
        return z, y, x

    def __len__(self) -> int:
        return math.prod(self.counts)

    def __iter__(self) -> Iterator[Block]:
        """Yields the blocks in the order of their indices z, y, x, x fastest."""
        yield from map(self.at, self.indices())

    def indices(self) -> Iterator[Voxel]:
        """Yields the indices of the blocks alone, in a sixth of the memory."""
        yield from ((z, y, x) for z, y, x in itertools.product(*map(range, self.counts)))

    def has(self, index: Voxel) -> bool:
        return all(0 <= place < count for place, count in zip(index, self.counts, strict=True))

    def at(self, index: tuple[int, ...]) -> Block:
        z, y, x = index
        start = tuple(first + i * own for first, i, own in zip(self.region.start, index, self.block, strict=True))
        return Block((z, y, x), Box((0, 0, 0), self.block).shifted((start[0], start[1], start[2])).within(self.region))

    def output_box(self, block: Block) -> Box:
        z, y, x = self.region.start
        return block.box.shifted((-z, -y, -x))

    def read_box(self, block: Block, halo: Voxel) -> Box:
        """Returns the block's box with a halo, cropped to the volume."""
        grown = Box(block.box.shifted((-halo[0], -halo[1], -halo[2])).start, block.box.shifted(halo).stop)
        return grown.within(self.volume)


def plan_blocks(volume: Box, region: Box, block: Voxel, chunk: Voxel) -> Plan:
    """Plans blocks that are multiples of `chunk`, which is what the output is written in (a shard, where it has
    shards): no two blocks write to the same one.
    """
    z, y, x = (min(own, side) for own, side in zip(block, region.shape, strict=True))
    if region.within(volume) != region or not region.voxels:
        raise UserError(f"Expected a region of interest within {volume}, found {region}; choose another.")
    for own, whole, side in zip((z, y, x), chunk, region.shape, strict=True):
        if own < 1 or (own % whole and own != side):
            raise UserError(f"Expected blocks of whole chunks {chunk} (z, y, x), found {block}; choose a multiple.")
    return Plan(volume, region, (z, y, x))


def is_masked(specimen: Specimen, box: Box) -> bool:
    """Returns whether the box lies wholly outside the mask."""
    if specimen.mask is None:
        return False
    inside, there = read_nearest(specimen.raw, specimen.mask, box)
    return not ((inside != 0) & there).any()


def check_room(plan: Plan, url: str) -> None:
    """Raises before anything is written at `url` where the list of blocks or their ledger would not fit."""
    blocks, memory, disk = len(plan), free_memory(), free_disk(url)
    needs = [(blocks * _LISTED, memory, "bytes of memory for the list of its blocks")]
    if disk is not None:
        needs += [(blocks * _ENTRY, disk.bytes, f"bytes at {url} for the record of its blocks")]
        needs += [(blocks, disk.files, f"files at {url}, one for each of its blocks")]
    for needed, free, what in needs:
        if free is not None and needed > free:
            sides, block = (" x ".join(map(str, shape)) for shape in (plan.region.shape, plan.block))
            raise UserError(
                f"{sides} voxels (z, y, x) in blocks of {block} need {needed:.3g} {what}, but {free:.3g} are free; "
                "choose larger blocks, or a part of the volume."
            )
