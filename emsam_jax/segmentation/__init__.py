"""Affinities to neurons: fragments, agglomeration, and the recipe with its threshold."""

from emsam_jax.segmentation.checks import check_affinities, check_stored
from emsam_jax.segmentation.edits import Edit, append_edit, in_force, new_edit, read_edits
from emsam_jax.segmentation.fragments import FragmentParameters, make_fragments
from emsam_jax.segmentation.methods import segment_affinities, segmentations
from emsam_jax.segmentation.probability import MergeProbability, fit_probability, from_margins, rank_by_cost
from emsam_jax.segmentation.recipe import Recipe
from emsam_jax.segmentation.tuner import FRAGMENTS, THRESHOLDS, Choice, Held, choose, sweep, tune
from emsam_jax.segmentation.without_network import baseline_recipe, ideal_affinities, intensity_affinities

__all__ = [
    "FRAGMENTS",
    "THRESHOLDS",
    "Choice",
    "Edit",
    "FragmentParameters",
    "Held",
    "MergeProbability",
    "Recipe",
    "append_edit",
    "baseline_recipe",
    "check_affinities",
    "check_stored",
    "choose",
    "fit_probability",
    "from_margins",
    "ideal_affinities",
    "in_force",
    "intensity_affinities",
    "make_fragments",
    "new_edit",
    "rank_by_cost",
    "read_edits",
    "segment_affinities",
    "segmentations",
    "sweep",
    "tune",
]
