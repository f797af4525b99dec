"""Stage 2: which fragments of a block there are, and by which affinities they touch."""

import dataclasses
from typing import Any

import numpy as np
from bioimage_cpp.graph.distributed import block_affinity_stats
from jaxtyping import Bool, Float32, UInt64
from scipy.ndimage import find_objects

from emsam_jax.blocks import Block, Entry
from emsam_jax.segmentation.blockwise.fragments import inner
from emsam_jax.segmentation.blockwise.ids import index_ids
from emsam_jax.segmentation.blockwise.job import Job
from emsam_jax.segmentation.blockwise.merging import merge_edges
from emsam_jax.segmentation.blockwise.tables import EDGE, OBJECT, Table, are_intact, write_table
from emsam_jax.segmentation.checks import SHORT_OFFSETS
from emsam_jax.volumes import Box
from emsam_jax.volumes.box import Voxel

_SLAB = 32  # sections whose affinities are doubles at a time


@dataclasses.dataclass(frozen=True)
class Edges:
    """A pair of voxels belongs to the block of the second: each face between two blocks is seen once."""

    job: Job
    name: str = "edges"

    def identity(self) -> dict[str, Any]:
        return self.job.facts_of_graph()

    def run(self, block: Block) -> str:
        job, own = self.job, block.box
        z, y, x = (max(0, start - 1) for start in own.start)
        grown = Box((z, y, x), own.stop)
        ids = job.read_fragments(grown)
        affinities = np.zeros((3, *grown.shape), np.float32)
        affinities[(..., *inner(own, grown).slices)] = job.read_affinities(own)
        begin = inner(own, grown).start
        if job.joins_voxels:
            edges = link_faces(ids, affinities > 1 - job.recipe.threshold, begin)
        else:
            edges = measure_edges(ids, affinities, begin)
        objects = list_objects(ids[inner(own, grown).slices], own.start)
        keys = edges_key(block), counts_key(block)
        return ",".join(write_table(job.graph, key, table) for key, table in zip(keys, (edges, objects), strict=True))

    def is_intact(self, block: Block, entry: Entry) -> bool:
        return are_intact(self.job.graph, (edges_key(block), counts_key(block)), entry.checksum)


def edges_key(block: Block) -> str:
    return f"edges/{block.name}.npy"


def counts_key(block: Block) -> str:
    return f"counts/{block.name}.npy"


def measure_edges(ids: UInt64[np.ndarray, "z y x"], affinities: Float32[np.ndarray, "3 z y x"], begin: Voxel) -> Table:
    """Edges whose second voxel is at `begin` or after it; the one before it may lie outside."""
    z, y, x = ids.shape
    parts = []
    for first in range(begin[0], z, _SLAB):
        before, stop = max(0, first - 1), min(z, first + _SLAB)
        pairs, stats = block_affinity_stats(
            ids[before:stop],
            affinities[:, before:stop],
            SHORT_OFFSETS,
            (first - before, *begin[1:]),
            (stop - first, y - begin[1], x - begin[2]),
            number_of_threads=1,
        )
        inside = pairs[:, 0] > 0  # background touches nothing
        part = np.zeros(int(inside.sum()), EDGE)
        part["u"], part["v"] = pairs[inside].T
        part["size"], part["mean"] = stats[inside, :2].T
        parts.append(part)
    return merge_edges(parts)


def link_faces(ids: UInt64[np.ndarray, "z y x"], joined: Bool[np.ndarray, "3 z y x"], begin: Voxel) -> Table:
    """Pieces of the block joined with pieces of the blocks before it; within a block they are connected as they are."""
    own = tuple(slice(first, None) for first in begin)
    parts = []
    for axis in range(3):
        if not begin[axis]:
            continue
        face = tuple(slice(1, 2) if i == axis else side for i, side in enumerate(own))
        lower = tuple(slice(0, 1) if i == axis else side for i, side in enumerate(own))
        before, here = ids[lower], ids[face]
        touching = joined[(axis, *face)] & (before > 0) & (here > 0)
        part = np.zeros(int(touching.sum()), EDGE)
        first, second = before[touching], here[touching]
        part["u"], part["v"] = np.minimum(first, second), np.maximum(first, second)
        part["mean"], part["size"] = 1, 1
        parts.append(part)
    return merge_edges(parts)


def list_objects(ids: UInt64[np.ndarray, "z y x"], start: Voxel) -> Table:
    """Each id but 0, in increasing order, with its voxels and its box; the array's first voxel lies at `start`."""
    names, sizes, places = index_ids(ids)
    found = np.zeros(len(names), OBJECT)
    found["id"], found["size"] = names, sizes
    boxes = find_objects(places, len(names))
    for row, slices in zip(found, boxes, strict=True):
        row["start"], row["stop"] = zip(*((side.start, side.stop) for side in slices), strict=True)
    found["start"] += start
    found["stop"] += start
    return found
