"""How good a segmentation is."""

from emsam_jax.scores.bootstrap import bootstrap_objects
from emsam_jax.scores.contingency import ContingencyTable, ScoreError, count_pairs, merge_tables
from emsam_jax.scores.conventions import Conventions
from emsam_jax.scores.objects import list_worst, locate
from emsam_jax.scores.report import report_segmentation
from emsam_jax.scores.score import score_segmentation
from emsam_jax.scores.skeletons import Skeleton, make_skeletons, score_skeletons
from emsam_jax.scores.sweep import format_sweep, plot_sweeps, sweep_thresholds
from emsam_jax.scores.tabulate import tabulate

__all__ = [
    "ContingencyTable",
    "Conventions",
    "ScoreError",
    "Skeleton",
    "bootstrap_objects",
    "count_pairs",
    "format_sweep",
    "list_worst",
    "locate",
    "make_skeletons",
    "merge_tables",
    "plot_sweeps",
    "report_segmentation",
    "score_segmentation",
    "score_skeletons",
    "sweep_thresholds",
    "tabulate",
]
