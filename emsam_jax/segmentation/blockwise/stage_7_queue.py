"""Stage 7: lists the decisions to be looked at first, by what a mistake there would cost, each with its place."""

import dataclasses
import functools
import itertools
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from jaxtyping import Bool, Float64, UInt64

from emsam_jax.blocks import Block, Entry, Plan, hash_of
from emsam_jax.segmentation.blockwise.answers import find_answered
from emsam_jax.segmentation.blockwise.decisions import list_decisions
from emsam_jax.segmentation.blockwise.job import Job
from emsam_jax.segmentation.blockwise.placed_edits import place_edits
from emsam_jax.segmentation.blockwise.stage_2_edges import edges_key
from emsam_jax.segmentation.blockwise.tables import (
    EDGE,
    LOOKUP,
    OBJECT,
    Table,
    are_intact,
    find_rows,
    read_table,
    write_file,
)
from emsam_jax.segmentation.edits import Edit
from emsam_jax.segmentation.probability import from_margins, rank_by_cost
from emsam_jax.volumes import Box

QUEUE = "queue.csv"
_COLUMNS = "rank,z_nm,y_nm,x_nm,fragment_a,fragment_b,object_a,object_b,joined,probability,voxels,cost"
_THREADS, _HELD = 8, 256  # places sought at once, and blocks' tables held
Ids = UInt64[np.ndarray, " _"]


@dataclasses.dataclass(frozen=True)
class Queue:
    """Has one block, the whole volume; reads the tables, and of the fragments what lies around the places it lists."""

    job: Job
    edits: tuple[Edit, ...] = ()
    name: str = "queue"

    def identity(self) -> dict[str, Any]:
        known = self.job.recipe.probability
        by = hash_of(dataclasses.asdict(known)) if known else "margins"
        return self.job.facts_of_labels() | {"queue": self.job.queue, "probability": by}

    def run(self, block: Block) -> str:
        job, graph, out = self.job, self.job.graph, self.job.labels.url
        edges, fragments = read_table(graph, "edges.npy", EDGE), read_table(graph, "fragments.npy", OBJECT)
        lookup = read_table(out, "lookup.npy", LOOKUP)
        lookup = lookup[find_rows(lookup["fragment"], fragments["id"], f"{out}/lookup.npy")]
        found = list_decisions(edges, fragments, lookup)
        known = job.recipe.probability
        together = (
            known(found["features"], found["joined"]) if known else from_margins(found["mean"], job.recipe.threshold)
        )
        answered = find_answered(found, together, place_edits(job, self.edits), lookup)
        order, cost = rank_by_cost(together, found["joined"], found["voxels"])
        order, places = order[~answered[order]], Places(job, fragments)
        lines = [_COLUMNS]
        with ThreadPoolExecutor(_THREADS) as pool:
            chosen = order[: job.queue]
            for rank, (row, place) in enumerate(zip(chosen, pool.map(places.find, found[chosen]), strict=True), 1):
                one, size = found[row], (f"{together[row]:.4g}", found["voxels"][row], f"{cost[row]:.6g}")
                nm = (f"{value:.10g}" for value in place)
                values = rank, *nm, *one["fragments"], *one["objects"], int(one["joined"]), *size
                lines.append(",".join(map(str, values)))
        return write_file(out, QUEUE, ("\n".join(lines) + "\n").encode())

    def is_intact(self, block: Block, entry: Entry) -> bool:
        return are_intact(self.job.labels.url, [QUEUE], entry.checksum)


class Places:
    """Finds where two fragments touch, in the block in which they do most, by its table of edges."""

    def __init__(self, job: Job, fragments: Table):
        self.job, self.fragments = job, fragments
        pieces = read_table(job.graph, "pieces.npy", LOOKUP)
        self.pieces = pieces[np.argsort(pieces["label"], kind="stable")]
        self.edges = functools.lru_cache(_HELD)(lambda block: read_table(job.graph, edges_key(block), EDGE))

    def find(self, decision: np.void) -> Float64[np.ndarray, " 3"]:
        """Returns the centre, in nm of the world, of a voxel of the first fragment that touches the second."""
        one, other = (self._pieces_of(fragment) for fragment in decision["fragments"])
        near = self._box_of(decision["fragments"][0]).within(self._box_of(decision["fragments"][1]))
        block = max(blocks_within(self.job.plan, near), key=lambda block: contact(self.edges(block), one, other))
        box = self.job.plan.read_box(block, (1, 1, 1)).within(near)
        ids = self.job.read_fragments(box)
        voxels = np.argwhere(beside(np.isin(ids, one), np.isin(ids, other)))
        size = np.array(self.job.labels.voxel_size_zyx)
        middle = voxels[(((voxels - voxels.mean(0)) * size) ** 2).sum(1).argmin()]
        return np.array(self.job.labels.offset_zyx) + (middle + box.start + 0.5) * size

    def _pieces_of(self, fragment: np.uint64) -> Ids:
        first, stop = (np.searchsorted(self.pieces["label"], fragment, side) for side in ("left", "right"))
        return self.pieces["fragment"][first:stop]

    def _box_of(self, fragment: np.uint64) -> Box:
        """Returns the box that holds a fragment and all that it touches."""
        row = self.fragments[np.searchsorted(self.fragments["id"], fragment)]
        (z, y, x), (z1, y1, x1) = (row["start"] - 1).tolist(), (row["stop"] + 1).tolist()
        return Box((z, y, x), (z1, y1, x1)).within(self.job.plan.volume)


def blocks_within(plan: Plan, box: Box) -> Iterator[Block]:
    sides = zip(box.start, box.stop, plan.region.start, plan.block, strict=True)
    ranges = (range((start - first) // own, -(-(stop - first) // own)) for start, stop, first, own in sides)
    yield from map(plan.at, itertools.product(*ranges))


def contact(edges: Table, one: Ids, other: Ids) -> int:
    """Returns between how many pairs of voxels two fragments, each of several pieces, touch in a block."""
    ends = [[np.isin(edges[end], pieces) for end in "uv"] for pieces in (one, other)]
    return int(edges["size"][(ends[0][0] & ends[1][1]) | (ends[0][1] & ends[1][0])].sum())


def beside(one: Bool[np.ndarray, "z y x"], other: Bool[np.ndarray, "z y x"]) -> Bool[np.ndarray, "z y x"]:
    """Returns the voxels of one that have a face neighbour of the other."""
    touching = np.zeros(one.shape, bool)
    for axis in range(3):
        here, there, found = (np.moveaxis(values, axis, 0) for values in (one, other, touching))
        found[1:] |= here[1:] & there[:-1]
        found[:-1] |= here[:-1] & there[1:]
    return touching
