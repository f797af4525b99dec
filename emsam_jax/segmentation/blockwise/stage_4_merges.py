"""Stage 4, for waterz's quantile scorers, which need more than an edge's mean: merges fragments around each block."""

import dataclasses
from typing import Any

import numpy as np

from emsam_jax.blocks import Block, Entry
from emsam_jax.segmentation.agglomeration import merge_fragments
from emsam_jax.segmentation.blockwise.job import Job
from emsam_jax.segmentation.blockwise.stage_1_fragments import index_ids, inner
from emsam_jax.segmentation.blockwise.stage_2_edges import measure_edges
from emsam_jax.segmentation.blockwise.tables import are_intact, look_up, write_table
from emsam_jax.volumes import Box


@dataclasses.dataclass(frozen=True)
class Merges:
    """Agglomerates a block with a halo, and records which fragments that touch in the block are merged."""

    job: Job
    name: str = "merges"

    def identity(self) -> dict[str, Any]:
        return self.job.facts_of_merges()

    def run(self, block: Block) -> str:
        """Writes a table of edges whose mean is 1 where the two were merged, and 0 where not."""
        job, own = self.job, block.box
        grown = job.plan.read_box(block, job.context)
        names, _, places = index_ids(job.read_fragments(grown))
        found, node = np.unique(look_up(job.graph, names, "pieces"), return_inverse=True)
        nodes = np.concatenate([[0], node + 1]).astype(np.uint64)[places]
        affinities = job.read_affinities(grown)
        scorer, thresholds = job.recipe.scorer, [job.recipe.threshold]
        merged = next(merge_fragments(affinities, nodes.copy(), thresholds, scorer)) if len(found) else nodes
        objects = np.zeros(len(found) + 1, np.uint64)
        objects[nodes] = merged

        z, y, x = (max(0, start - 1) for start in own.start)
        seen = Box((z, y, x), own.stop)  # a pair of voxels belongs to the block of the second
        place = inner(seen, grown).slices
        votes = measure_edges(nodes[place], affinities[(slice(None), *place)], inner(own, seen).start)
        votes["mean"] = objects[votes["u"]] == objects[votes["v"]]
        for end in "uv":
            votes[end] = found[votes[end] - np.uint64(1)]
        return write_table(job.merges, merges_key(block), votes)

    def is_intact(self, block: Block, entry: Entry) -> bool:
        return are_intact(self.job.merges, [merges_key(block)], entry.checksum)


def merges_key(block: Block) -> str:
    return f"merges/{block.name}.npy"
