"""Stage 1: fragments of each block, with ids that no other block has."""

import dataclasses
import math
from typing import Any

import numpy as np
from bioimage_cpp.segmentation import label

from emsam_jax.blocks import Block, Entry, is_intact, write_block
from emsam_jax.segmentation.blockwise.faces import compare_faces
from emsam_jax.segmentation.blockwise.job import Job
from emsam_jax.segmentation.blockwise.tables import are_intact, write_table
from emsam_jax.segmentation.components import connected_components
from emsam_jax.segmentation.fragments import make_fragments
from emsam_jax.volumes import Box


@dataclasses.dataclass(frozen=True)
class Fragments:
    job: Job
    name: str = "fragments"

    def identity(self) -> dict[str, Any]:
        return self.job.facts_of_graph()

    def run(self, block: Block) -> str:
        """Cut with a margin around the block, of which no more is kept than whether pieces go on beyond its faces.

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
    """The box, in voxels of the larger one around it."""
    z, y, x = grown.start
    return box.shifted((-z, -y, -x))
