"""Stage 3: merges the tables of all blocks: pieces, the fragments that they make up, and the edges of those."""

import dataclasses
from typing import Any

import numpy as np

from emsam_jax.blocks import Block, Entry
from emsam_jax.segmentation.blockwise.job import Job
from emsam_jax.segmentation.blockwise.stage_2_edges import counts_key, edges_key, links_key
from emsam_jax.segmentation.blockwise.tables import (
    EDGE,
    LINK,
    LOOKUP,
    OBJECT,
    are_intact,
    lookup_keys,
    merge_edges,
    merge_objects,
    read_tables,
    rename_edges,
    unite,
    write_lookup,
    write_table,
)

_KEYS = ("edges.npy", "fragments.npy")


@dataclasses.dataclass(frozen=True)
class Graph:
    """Has one block, the whole volume."""

    job: Job
    name: str = "graph"

    def identity(self) -> dict[str, Any]:
        return self.job.facts_of_graph()

    def run(self, block: Block) -> str:
        graph, plan = self.job.graph, self.job.plan
        objects = merge_objects(read_tables(graph, counts_key, plan, OBJECT))
        pieces = np.zeros(len(objects), LOOKUP)
        pieces["fragment"] = objects["id"]
        links = np.concatenate([np.zeros(0, LINK), *read_tables(graph, links_key, plan, LINK)])
        pieces["label"] = unite(objects["id"], links)
        edges = merge_edges(rename_edges(part, pieces) for part in read_tables(graph, edges_key, plan, EDGE))
        objects["id"] = pieces["label"]
        tables = edges, merge_objects([objects])
        written = [write_table(graph, key, table) for key, table in zip(_KEYS, tables, strict=True)]
        return ",".join([*written, write_lookup(graph, pieces, "pieces")])

    def is_intact(self, block: Block, entry: Entry) -> bool:
        return are_intact(self.job.graph, (*_KEYS, *lookup_keys("pieces")), entry.checksum)
