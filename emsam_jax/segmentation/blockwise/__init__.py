"""Segmentation of volumes larger than the machine, in blocks; labels as if it had been done at once."""

from emsam_jax.segmentation.blockwise.global_agglomeration import Guard, check_guard
from emsam_jax.segmentation.blockwise.job import check_recipe, plan_job, usual_block
from emsam_jax.segmentation.blockwise.stage_5_lookup import read_summary
from emsam_jax.segmentation.blockwise.steps import Step, plan_steps, segment_blockwise
from emsam_jax.segmentation.blockwise.tables import EDGE, read_table

__all__ = [
    "EDGE",
    "Guard",
    "Step",
    "check_guard",
    "check_recipe",
    "plan_job",
    "plan_steps",
    "read_summary",
    "read_table",
    "segment_blockwise",
    "usual_block",
]
