"""Stage 1: cuts a block's objects out as masks, whose surfaces meet those of the next blocks, and counts their voxels.

A surface passes through cells of 2 x 2 x 2 voxels. Cell c spans voxels c - 1 and c along each axis and belongs to the
block of voxel c; the volume's last block has the cells behind its last voxels too. So a block reads one voxel before
its first ones, every cell is in one block, and a mask tells all of its cells.
"""

import dataclasses
import zlib
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import tensorstore as ts
from jaxtyping import Bool, Int64, UInt64
from scipy.ndimage import find_objects

from emsam_jax.blocks import Block, Entry
from emsam_jax.errors import UserError
from emsam_jax.objects.objects_job import ObjectsJob
from emsam_jax.segmentation.blockwise import (
    OBJECT,
    Table,
    are_intact,
    index_ids,
    list_objects,
    merge_objects,
    read_tables,
    write_file,
    write_table,
)
from emsam_jax.storage import open_folder
from emsam_jax.volumes import Box, Voxel

# An object's mask in a block: its box in voxels of the volume, and where its bytes lie in the block's file.
PIECE = np.dtype(
    [("id", "<u8"), ("start", "<i8", 3), ("stop", "<i8", 3), ("first", "<i8"), ("bytes", "<i8"), ("block", "<i8", 3)]
)


class Piece(NamedTuple):
    mask: Bool[np.ndarray, "z y x"]
    box: Box


@dataclasses.dataclass(frozen=True)
class Pieces:
    job: ObjectsJob
    name: str = "pieces"

    def identity(self) -> dict[str, Any]:
        return self.job.facts_of_labels()

    def run(self, block: Block) -> str:
        out, own = self.job.out, block.box
        z, y, x = own.start
        grown = Box((z - 1, y - 1, x - 1), own.stop)
        ids = self.job.read_ids(grown)
        pieces, masks = cut_masks(ids, grown, self.job.plan.volume.stop)
        pieces["block"] = block.index
        written = (
            write_table(out, _counts_key(block), list_objects(ids[1:, 1:, 1:], own.start)),
            write_table(out, _pieces_key(block), pieces),
            write_file(out, masks_key(block.index), masks),
        )
        return ",".join(written)

    def is_intact(self, block: Block, entry: Entry) -> bool:
        keys = _counts_key(block), _pieces_key(block), masks_key(block.index)
        return are_intact(self.job.out, keys, entry.checksum)


def cut_masks(ids: UInt64[np.ndarray, "z y x"], box: Box, end: Voxel) -> tuple[Table, bytes]:
    """Cuts out each object but 0; `box` is where the ids lie, of which the first along each axis are the next block's.

    A mask ends with a voxel of background wherever that is known to follow: all around the object, but where the box
    cuts it off.
    """
    names, _, places = index_ids(ids)
    pieces, masks, first = np.zeros(len(names), PIECE), [], 0
    pieces["id"] = names
    for number, (row, slices) in enumerate(zip(pieces, find_objects(places, len(names)), strict=True), 1):
        pads = [
            (int(side.start > 0), int(side.stop < size or stop == last))
            for side, size, stop, last in zip(slices, ids.shape, box.stop, end, strict=True)
        ]
        mask = zlib.compress(np.packbits(np.pad(places[slices] == number, pads)).data, 1)
        row["start"] = [at + side.start - low for at, side, (low, _) in zip(box.start, slices, pads, strict=True)]
        row["stop"] = [at + side.stop + high for at, side, (_, high) in zip(box.start, slices, pads, strict=True)]
        row["first"], row["bytes"] = first, len(mask)
        masks.append(mask)
        first += len(mask)
    return pieces, b"".join(masks)


def read_objects(job: ObjectsJob) -> Table:
    """Merges the blocks' counts: each object's voxels and the box that holds them, by increasing ids."""
    return merge_objects(read_tables(job.out, _counts_key, job.plan, OBJECT))


def read_pieces(job: ObjectsJob) -> Table:
    """Reads the tables of all pieces, block after block."""
    return np.concatenate([np.zeros(0, PIECE), *read_tables(job.out, _pieces_key, job.plan, PIECE)])


def read_masks(out: str, pieces: Table) -> Iterator[Piece]:
    """Yields the masks of pieces, in the table's order."""
    folder = open_folder(out)
    for row in pieces:
        start, stop = _voxel(row["start"]), _voxel(row["stop"])
        box = Box(start, stop)
        bits = np.frombuffer(zlib.decompress(_read_range(folder, row)), np.uint8)
        yield Piece(np.unpackbits(bits, count=box.voxels).reshape(box.shape).astype(bool), box)


def _read_range(folder: ts.KvStore, row: np.void) -> bytes:
    first, size = int(row["first"]), int(row["bytes"])
    key = masks_key(_voxel(row["block"]))
    try:
        return folder.read(key, byte_range=slice(first, first + size)).result().value
    except ValueError:
        raise UserError(
            f"{folder.url.rstrip('/')}/{key}: expected the bytes {first} to {first + size}, found fewer; the same "
            "command again makes it anew."
        ) from None


def _voxel(values: Int64[np.ndarray, "3"]) -> Voxel:
    z, y, x = values.tolist()
    return z, y, x


def masks_key(index: Voxel) -> str:
    return f"pieces/{'-'.join(map(str, index))}.masks"


def _pieces_key(block: Block) -> str:
    return f"pieces/{block.name}.npy"


def _counts_key(block: Block) -> str:
    return f"counts/{block.name}.npy"
