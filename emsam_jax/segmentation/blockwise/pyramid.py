"""Stages after the labels: each level of their pyramid, made from the one before it."""

import dataclasses
import itertools
from typing import Any

from emsam_jax.blocks import Block, Entry, Plan, is_intact, plan_blocks, write_block
from emsam_jax.segmentation.blockwise.job import Job
from emsam_jax.volumes import box_of
from emsam_jax.volumes.create import create_array
from emsam_jax.volumes.layout import Layout
from emsam_jax.volumes.pyramid import plan_levels, read_coarsened


@dataclasses.dataclass(frozen=True)
class Level:
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
        """Of the labels, but for shape and blocks, which are the level's own."""
        own = {"shape": list(self.coarse.shape), "blocks": list(self.plan.block)}
        return self.job.facts_of_labels() | own | {"voxel_size": list(self.coarse.voxel_size_zyx)}

    def run(self, block: Block) -> str:
        labels = read_coarsened(create_array(self.fine, resume=True), self.coarse, block.box, "mode")
        return write_block(create_array(self.coarse, resume=True), block.box, labels)

    def is_intact(self, block: Block, entry: Entry) -> bool:
        return is_intact(create_array(self.coarse, resume=True), block.box, entry.checksum)


def plan_pyramid(job: Job) -> list[Level]:
    return [Level(job, fine, coarse) for fine, coarse in itertools.pairwise(plan_levels(job.labels))]
