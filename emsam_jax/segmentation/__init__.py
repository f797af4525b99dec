"""Affinities to neurons: fragments, agglomeration, and the recipe with its threshold."""

from emsam_jax.segmentation.checks import check_affinities, check_stored
from emsam_jax.segmentation.fragments import FragmentParameters, make_fragments
from emsam_jax.segmentation.methods import segment_affinities, segmentations
from emsam_jax.segmentation.recipe import Recipe
from emsam_jax.segmentation.tuner import FRAGMENTS, THRESHOLDS, Choice, Held, choose, sweep, tune
from emsam_jax.segmentation.without_network import baseline_recipe, ideal_affinities, intensity_affinities

__all__ = [
    "FRAGMENTS",
    "THRESHOLDS",
    "Choice",
    "FragmentParameters",
    "Held",
    "Recipe",
    "baseline_recipe",
    "check_affinities",
    "check_stored",
    "choose",
    "ideal_affinities",
    "intensity_affinities",
    "make_fragments",
    "segment_affinities",
    "segmentations",
    "sweep",
    "tune",
]
