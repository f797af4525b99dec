"""How good a segmentation is: VOI, adapted Rand error, skeletons, the worst objects."""

from emsam_jax.scores.contingency import ContingencyTable, count_pairs
from emsam_jax.scores.measures import SCORE_NAMES, score_table
from emsam_jax.scores.score import WAYS, report_segmentation, score_segmentation
from emsam_jax.scores.skeletons import Skeleton, make_skeletons, read_skeletons, score_skeletons
from emsam_jax.scores.tabulate import Conventions, tabulate

__all__ = [
    "SCORE_NAMES",
    "WAYS",
    "ContingencyTable",
    "Conventions",
    "Skeleton",
    "count_pairs",
    "make_skeletons",
    "read_skeletons",
    "report_segmentation",
    "score_segmentation",
    "score_skeletons",
    "score_table",
    "tabulate",
]
