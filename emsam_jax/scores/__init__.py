"""How good a segmentation is: VOI, adapted Rand error, skeletons, the worst objects."""

from emsam_jax.scores.contingency import ContingencyTable, count_pairs
from emsam_jax.scores.measures import SCORE_NAMES
from emsam_jax.scores.score import WAYS, report_segmentation, score_segmentation
from emsam_jax.scores.sweep import format_sweep, plot_sweeps, sweep_thresholds
from emsam_jax.scores.tabulate import Conventions

__all__ = [
    "SCORE_NAMES",
    "WAYS",
    "ContingencyTable",
    "Conventions",
    "count_pairs",
    "format_sweep",
    "plot_sweeps",
    "report_segmentation",
    "score_segmentation",
    "sweep_thresholds",
]
