"""Affinities to neurons."""

from emsam_jax.segmentation.checks import SHORT_OFFSETS, SegmentationError
from emsam_jax.segmentation.cleaning import CleanUp, clean_labels
from emsam_jax.segmentation.fragments import FragmentParameters, make_fragments
from emsam_jax.segmentation.ideal import ideal_affinities
from emsam_jax.segmentation.recipe import Recipe
from emsam_jax.segmentation.segment import METHODS, segment_affinities, segmentations
from emsam_jax.segmentation.tuner import Choice, Held, choose, sweep, tune

__all__ = [
    "METHODS",
    "SHORT_OFFSETS",
    "Choice",
    "CleanUp",
    "FragmentParameters",
    "Held",
    "Recipe",
    "SegmentationError",
    "choose",
    "clean_labels",
    "ideal_affinities",
    "make_fragments",
    "segment_affinities",
    "segmentations",
    "sweep",
    "tune",
]
