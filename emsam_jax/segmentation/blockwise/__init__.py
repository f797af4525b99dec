"""Segmentation of volumes larger than the machine, in blocks; labels as if it had been done at once."""

from emsam_jax.segmentation.blockwise.agglomeration import agglomerate_edges
from emsam_jax.segmentation.blockwise.guard import Guard, check_guard
from emsam_jax.segmentation.blockwise.job import Job, check_recipe, plan_job, usual_block
from emsam_jax.segmentation.blockwise.merging import merge_edges, merge_objects
from emsam_jax.segmentation.blockwise.segment import Step, plan_steps, prepare, segment_blockwise
from emsam_jax.segmentation.blockwise.summary import read_summary
from emsam_jax.segmentation.blockwise.tables import EDGE, LOOKUP, OBJECT, look_up, read_table

__all__ = [
    "EDGE",
    "LOOKUP",
    "OBJECT",
    "Guard",
    "Job",
    "Step",
    "agglomerate_edges",
    "check_guard",
    "check_recipe",
    "look_up",
    "merge_edges",
    "merge_objects",
    "plan_job",
    "plan_steps",
    "prepare",
    "read_summary",
    "read_table",
    "segment_blockwise",
    "usual_block",
]
