"""How good a segmentation is."""

from emsam_jax.scores.contingency import ContingencyTable, ScoreError, count_pairs, merge_tables
from emsam_jax.scores.score import Conventions, score_segmentation

__all__ = ["ContingencyTable", "Conventions", "ScoreError", "count_pairs", "merge_tables", "score_segmentation"]
