"""Stage 1: cuts fragments of each block, with ids that no other block has, and records its watershed at the faces."""

import dataclasses
import itertools
import math
from typing import Any, NamedTuple

import numpy as np
from bioimage_cpp.segmentation import label
from jaxtyping import Bool, Int32, Int64, Shaped, UInt8, UInt64

from emsam_jax.blocks import Block, Entry, is_intact, write_block
from emsam_jax.segmentation.blockwise.job import Job
from emsam_jax.segmentation.blockwise.tables import are_intact, write_table
from emsam_jax.segmentation.components import connected_components
from emsam_jax.segmentation.fragments import make_fragments
from emsam_jax.volumes import Box, Voxel


class Ids(NamedTuple):
    names: UInt64[np.ndarray, " n"]  # but 0, in increasing order
    sizes: Int64[np.ndarray, " n"]  # voxels
    places: Int32[np.ndarray, "z y x"]  # of each voxel's id among the names, from 1; 0 stays 0


def index_ids(ids: UInt64[np.ndarray, "z y x"]) -> Ids:
    """Returns ids, sizes and each voxel's index; where ids are dense, by a table and without sorting."""
    lowest, highest = int((ids - np.uint64(1)).min()) + 1, int(ids.max())  # 0 - 1 is the largest number
    if not highest:
        return Ids(np.zeros(0, np.uint64), np.zeros(0, np.int64), np.zeros(ids.shape, np.int32))
    before = np.uint64(lowest - 1)
    if highest - lowest > 4 * ids.size:
        names, inverse, sizes = np.unique(ids, return_inverse=True, return_counts=True)
        background = int(names[0] == 0)
        places = (inverse + (1 - background)).reshape(ids.shape).astype(np.int32)
        return Ids(names[background:], sizes[background:], places)
    table_index = ids - before
    table_index[ids == 0] = 0
    sizes = np.bincount(table_index.view(np.int64).ravel())
    sizes[0] = 0
    present = sizes > 0
    if present[1:].all():
        places = table_index.astype(np.int32)
    else:
        places = np.where(present, np.cumsum(present), 0).astype(np.int32)[table_index.view(np.int64)]
    return Ids(np.flatnonzero(present).astype(np.uint64) + before, sizes[present], places)


class Face(NamedTuple):
    axis: int
    upper: bool  # behind the block's last voxel, or before its first


FACES = tuple(Face(axis, upper) for axis, upper in itertools.product(range(3), (False, True)))


def compare_faces(found: UInt64[np.ndarray, "z y x"], inner: Box) -> UInt8[np.ndarray, " bytes"]:
    """Returns bits, face after face: for each pair of voxels across a face, whether both lie in one piece of `found`.

    `inner` is the block, in voxels of `found`. Where a face's other side is unknown, no pair does.
    """
    opinions = []
    for axis, upper in FACES:
        first = inner.stop[axis] if upper else inner.start[axis]
        here = np.zeros(_plane_of(inner.shape, axis), bool)
        if 0 < first < found.shape[axis]:
            before, after = (take_plane(found, axis, at, inner) for at in (first - 1, first))
            here = (before == after) & (after > 0)
        opinions.append(here.ravel())
    return np.packbits(np.concatenate(opinions))


def read_face(opinions: UInt8[np.ndarray, " bytes"], shape: Voxel, face: Face) -> Bool[np.ndarray, "a b"]:
    """Returns the bits of one face of a block of this shape."""
    sizes = [int(np.prod(_plane_of(shape, axis))) for axis, _ in FACES]
    number = FACES.index(face)
    first = sum(sizes[:number])
    bits = np.unpackbits(opinions, count=sum(sizes))[first : first + sizes[number]]
    return bits.astype(bool).reshape(_plane_of(shape, face.axis))


def take_plane(values: Shaped[np.ndarray, "z y x"], axis: int, at: int, within: Box) -> Shaped[np.ndarray, "a b"]:
    """Returns the voxels at the index `at` of the axis, within the box along the others."""
    place: list[slice | int] = list(within.slices)
    place[axis] = at
    return values[tuple(place)]


def _plane_of(shape: Voxel, axis: int) -> tuple[int, int]:
    a, b = (side for other, side in enumerate(shape) if other != axis)
    return a, b


@dataclasses.dataclass(frozen=True)
class Fragments:
    job: Job
    name: str = "fragments"

    def identity(self) -> dict[str, Any]:
        return self.job.facts_of_graph()

    def run(self, block: Block) -> str:
        """Cuts fragments with a halo around the block, and crops them; the halo tells which pieces continue beyond its
        faces.

        A piece that falls apart becomes several.
        """
        job = self.job
        grown = job.plan.read_box(block, (1, 1, 1) if job.joins_voxels else job.halo)
        affinities, mask = job.read_affinities(grown), job.read_mask(grown)
        if job.joins_voxels:
            # One voxel around it is enough to tell whether a voxel is joined by anything.
            found = connected_components(affinities, job.recipe.threshold, mask)
        else:
            found = make_fragments(affinities, job.recipe.fragments, mask=mask)
        own = inner(block.box, grown)
        pieces = label(found[own.slices], background=0, connectivity=1)
        first = job.number(block) * math.prod(job.plan.block)  # no block can have more fragments than voxels
        np.add(pieces, np.uint64(first), out=pieces, where=pieces > 0)
        written = write_block(job.open_fragments(), job.plan.output_box(block), pieces)
        return f"{written},{write_table(job.graph, faces_key(block), compare_faces(found, own))}"

    def is_intact(self, block: Block, entry: Entry) -> bool:
        pieces, _, faces = entry.checksum.partition(",")
        box = self.job.plan.output_box(block)
        return is_intact(self.job.open_fragments(), box, pieces) and are_intact(
            self.job.graph, [faces_key(block)], faces
        )


def faces_key(block: Block) -> str:
    return f"faces/{block.name}.npy"


def inner(box: Box, grown: Box) -> Box:
    """Returns the box in voxels of the larger box around it."""
    z, y, x = grown.start
    return box.shifted((-z, -y, -x))
