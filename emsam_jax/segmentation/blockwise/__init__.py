"""Segmentation of volumes larger than the machine, in blocks; labels as if it had been done at once.

    stage_1_fragments  fragments of each block, cut with a halo        -> fragments/, faces/
    stage_2_edges      the pieces in a block and their mean affinities -> edges/, links/, counts/
    stage_3_graph      one graph, from the tables of all blocks        -> pieces.npy, fragments.npy, edges.npy
    stage_4_merges     merges around each block, for quantile scorers  -> merges/
    stage_5_lookup     one agglomeration: each piece's object          -> lookup.npy, objects.npy, summary.json
                       with edits: corrected, and what became of them  -> edits_report.json, edits_report.csv
    stage_6_labels     relabelled fragments, then their pyramid        -> 0/, 1/, ...
    stage_7_queue      the decisions to be looked at first             -> queue.csv

`steps` runs them in this order. `job` is what they share, `tables` what passes from one to the next.
"""

from emsam_jax.segmentation.blockwise.answers import Answers
from emsam_jax.segmentation.blockwise.decisions import Tables, list_decisions, tables_within
from emsam_jax.segmentation.blockwise.finished import Segmented, open_segmented
from emsam_jax.segmentation.blockwise.global_agglomeration import Guard, check_guard
from emsam_jax.segmentation.blockwise.job import check_recipe, plan_job, usual_block
from emsam_jax.segmentation.blockwise.placed_edits import read_edits_report
from emsam_jax.segmentation.blockwise.stage_1_fragments import index_ids
from emsam_jax.segmentation.blockwise.stage_2_edges import list_objects
from emsam_jax.segmentation.blockwise.stage_5_lookup import read_summary
from emsam_jax.segmentation.blockwise.steps import Step, plan_steps, segment_blockwise
from emsam_jax.segmentation.blockwise.tables import (
    EDGE,
    OBJECT,
    Table,
    are_intact,
    find_rows,
    merge_objects,
    read_table,
    read_tables,
    write_file,
    write_table,
)

__all__ = [
    "EDGE",
    "OBJECT",
    "Answers",
    "Guard",
    "Segmented",
    "Step",
    "Table",
    "Tables",
    "are_intact",
    "check_guard",
    "check_recipe",
    "find_rows",
    "index_ids",
    "list_decisions",
    "list_objects",
    "merge_objects",
    "open_segmented",
    "plan_job",
    "plan_steps",
    "read_edits_report",
    "read_summary",
    "read_table",
    "read_tables",
    "segment_blockwise",
    "tables_within",
    "usual_block",
    "write_file",
    "write_table",
]
