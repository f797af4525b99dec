"""Stage 2: lists the pieces in a block, which of them continue in other blocks, and the affinities between them."""

import dataclasses
from typing import Any

import numpy as np
from bioimage_cpp.graph.distributed import block_affinity_stats
from jaxtyping import Float32, UInt64
from scipy.ndimage import find_objects

from emsam_jax.blocks import Block, Entry
from emsam_jax.config import SHORT_OFFSETS
from emsam_jax.segmentation.blockwise.job import Job
from emsam_jax.segmentation.blockwise.stage_1_fragments import Face, faces_key, index_ids, inner, read_face, take_plane
from emsam_jax.segmentation.blockwise.tables import (
    EDGE,
    LINK,
    OBJECT,
    Table,
    are_intact,
    merge_edges,
    read_table,
    write_table,
)
from emsam_jax.volumes import Box, Voxel

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
        within = inner(own, grown)
        edges = np.zeros(0, EDGE)
        if not job.joins_voxels:  # what an affinity joins is one fragment already
            affinities = np.zeros((3, *grown.shape), np.float32)
            affinities[(..., *within.slices)] = job.read_affinities(own)
            edges = measure_edges(ids, affinities, within.start)
        links = np.zeros(0, LINK) if job.given else self._link(block, ids, within)
        tables = edges, links, list_objects(ids[within.slices], own.start)
        return ",".join(write_table(job.graph, key, table) for key, table in zip(_keys(block), tables, strict=True))

    def _link(self, block: Block, ids: UInt64[np.ndarray, "z y x"], within: Box) -> Table:
        """Links pieces on both sides of a face where both blocks' watersheds say that they are one fragment."""
        job = self.job
        here = read_table(job.graph, faces_key(block), np.uint8)
        parts = [np.zeros(0, LINK)]
        for axis in range(3):
            if not block.index[axis]:
                continue
            z, y, x = (place - (axis == other) for other, place in enumerate(block.index))
            lower = job.plan.at((z, y, x))
            opinions = read_table(job.graph, faces_key(lower), np.uint8)
            theirs = read_face(opinions, lower.box.shape, Face(axis, upper=True))
            one = theirs & read_face(here, block.box.shape, Face(axis, upper=False))
            first = within.start[axis]
            before, after = (take_plane(ids, axis, at, within)[one] for at in (first - 1, first))
            part = np.zeros(len(before), LINK)
            part["u"], part["v"] = before, after
            parts.append(np.unique(part))
        return np.concatenate(parts)

    def is_intact(self, block: Block, entry: Entry) -> bool:
        return are_intact(self.job.graph, _keys(block), entry.checksum)


def edges_key(block: Block) -> str:
    return f"edges/{block.name}.npy"


def links_key(block: Block) -> str:
    return f"links/{block.name}.npy"


def counts_key(block: Block) -> str:
    return f"counts/{block.name}.npy"


def _keys(block: Block) -> tuple[str, str, str]:
    return edges_key(block), links_key(block), counts_key(block)


def measure_edges(ids: UInt64[np.ndarray, "z y x"], affinities: Float32[np.ndarray, "3 z y x"], begin: Voxel) -> Table:
    """Measures edges whose second voxel is at `begin` or after it; the first may lie outside."""
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


def list_objects(ids: UInt64[np.ndarray, "z y x"], start: Voxel) -> Table:
    """Lists each id but 0, in increasing order, with its voxels and box; the array's first voxel lies at `start`."""
    names, sizes, places = index_ids(ids)
    found = np.zeros(len(names), OBJECT)
    found["id"], found["voxels"] = names, sizes
    boxes = find_objects(places, len(names))
    for row, slices in zip(found, boxes, strict=True):
        row["start"], row["stop"] = zip(*((side.start, side.stop) for side in slices), strict=True)
    found["start"] += start
    found["stop"] += start
    return found
