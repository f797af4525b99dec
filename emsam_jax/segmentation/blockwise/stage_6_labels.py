"""Stage 6: relabels fragments, and makes each level of the labels' pyramid from the one before it."""

import dataclasses
import itertools
from typing import Any

import numpy as np

from emsam_jax.blocks import Block, Entry, Plan, is_intact, plan_blocks, write_block
from emsam_jax.segmentation.blockwise.job import Job
from emsam_jax.segmentation.blockwise.stage_1_fragments import index_ids
from emsam_jax.segmentation.blockwise.tables import look_up
from emsam_jax.volumes import Layout, box_of, create_array, plan_levels, read_coarsened


@dataclasses.dataclass(frozen=True)
class Labels:
    job: Job
    name: str = "labels"

    def identity(self) -> dict[str, Any]:
        return self.job.facts_of_labels()

    def run(self, block: Block) -> str:
        names, _, places = index_ids(self.job.read_fragments(block.box))
        labels = np.concatenate([np.zeros(1, np.uint64), look_up(self.job.labels.url, names)])[places]
        return write_block(self.job.open_labels(), self.job.plan.output_box(block), labels)

    def is_intact(self, block: Block, entry: Entry) -> bool:
        return is_intact(self.job.open_labels(), self.job.plan.output_box(block), entry.checksum)


@dataclasses.dataclass(frozen=True)
class PyramidLevel:
    job: Job
    fine: Layout
    coarse: Layout

    @property
    def name(self) -> str:
        return f"pyramid-{self.coarse.level}"

    @property
    def plan(self) -> Plan:
        """A shard is a block."""
        box = box_of(self.coarse.shape)
        return plan_blocks(box, box, self.coarse.shard, self.coarse.shard)

    def identity(self) -> dict[str, Any]:
        """Returns the labels' identity, with the level's own shape and blocks."""
        own = {"shape": list(self.coarse.shape), "blocks": list(self.plan.block)}
        return self.job.facts_of_labels() | own | {"voxel_size": list(self.coarse.voxel_size_zyx)}

    def run(self, block: Block) -> str:
        labels = read_coarsened(create_array(self.fine, resume=True), self.coarse, block.box, "mode")
        return write_block(create_array(self.coarse, resume=True), block.box, labels)

    def is_intact(self, block: Block, entry: Entry) -> bool:
        return is_intact(create_array(self.coarse, resume=True), block.box, entry.checksum)


def plan_pyramid(job: Job) -> list[PyramidLevel]:
    return [PyramidLevel(job, fine, coarse) for fine, coarse in itertools.pairwise(plan_levels(job.labels))]
