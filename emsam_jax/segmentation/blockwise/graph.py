"""Stage 3: the fragments and the edges of all blocks, each as one table."""

import dataclasses
import itertools
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from emsam_jax.blocks import Block, Entry
from emsam_jax.segmentation.blockwise.edges import counts_key, edges_key
from emsam_jax.segmentation.blockwise.job import Job
from emsam_jax.segmentation.blockwise.merging import merge_edges, merge_objects
from emsam_jax.segmentation.blockwise.tables import Table, are_intact, read_table, write_table

_KEYS = ("edges.npy", "fragments.npy")
_THREADS, _AHEAD = 8, 64  # files read at once, and files held


@dataclasses.dataclass(frozen=True)
class Graph:
    """Has one block, the whole volume."""

    job: Job
    name: str = "graph"

    def identity(self) -> dict[str, Any]:
        return self.job.facts_of_graph()

    def run(self, block: Block) -> str:
        tables = merge_edges(self._read(edges_key)), merge_objects(self._read(counts_key))
        return ",".join(write_table(self.job.graph, key, table) for key, table in zip(_KEYS, tables, strict=True))

    def is_intact(self, block: Block, entry: Entry) -> bool:
        return are_intact(self.job.graph, _KEYS, entry.checksum)

    def _read(self, key: Callable[[Block], str]) -> Iterator[Table]:
        """In the plan's order."""
        blocks = iter(self.job.plan)
        with ThreadPoolExecutor(_THREADS) as pool:
            while some := list(itertools.islice(blocks, _AHEAD)):
                yield from pool.map(lambda block: read_table(self.job.graph, key(block)), some)
