"""Stage 3: the pieces of all blocks, the fragments that they make up, and the edges of those, each as one table."""

import dataclasses
import itertools
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from emsam_jax.blocks import Block, Entry
from emsam_jax.segmentation.blockwise.edges import counts_key, edges_key, links_key
from emsam_jax.segmentation.blockwise.job import Job
from emsam_jax.segmentation.blockwise.merging import merge_edges, merge_objects, unite
from emsam_jax.segmentation.blockwise.tables import LINK, LOOKUP, Table, are_intact, read_table, write_table

_KEYS = ("edges.npy", "fragments.npy", "pieces.npy")
_THREADS, _AHEAD = 8, 64  # files read at once, and files held


@dataclasses.dataclass(frozen=True)
class Graph:
    """Has one block, the whole volume."""

    job: Job
    name: str = "graph"

    def identity(self) -> dict[str, Any]:
        return self.job.facts_of_graph()

    def run(self, block: Block) -> str:
        objects = merge_objects(self._read(counts_key))
        pieces = np.zeros(len(objects), LOOKUP)
        pieces["fragment"] = objects["id"]
        pieces["label"] = unite(objects["id"], np.concatenate([np.zeros(0, LINK), *self._read(links_key)]))
        edges = merge_edges(rename_edges(part, pieces) for part in self._read(edges_key))
        objects["id"] = pieces["label"]
        tables = edges, merge_objects([objects]), pieces
        return ",".join(write_table(self.job.graph, key, table) for key, table in zip(_KEYS, tables, strict=True))

    def is_intact(self, block: Block, entry: Entry) -> bool:
        return are_intact(self.job.graph, _KEYS, entry.checksum)

    def _read(self, key: Callable[[Block], str]) -> Iterator[Table]:
        """In the plan's order."""
        blocks = iter(self.job.plan)
        with ThreadPoolExecutor(_THREADS) as pool:
            while some := list(itertools.islice(blocks, _AHEAD)):
                yield from pool.map(lambda block: read_table(self.job.graph, key(block)), some)


def rename_edges(edges: Table, pieces: Table) -> Table:
    """Between fragments instead of their pieces; those within a fragment fall away."""
    ends = [pieces["label"][np.searchsorted(pieces["fragment"], edges[end])] for end in "uv"]
    renamed = edges.copy()
    renamed["u"], renamed["v"] = np.minimum(*ends), np.maximum(*ends)
    return renamed[renamed["u"] != renamed["v"]]
