"""Affinities to neurons."""

from emsam_jax.segmentation.checks import SHORT_OFFSETS, SegmentationError
from emsam_jax.segmentation.fragments import FragmentParameters, make_fragments
from emsam_jax.segmentation.ideal import ideal_affinities
from emsam_jax.segmentation.segment import METHODS, segment_affinities, segmentations

__all__ = [
    "METHODS",
    "SHORT_OFFSETS",
    "FragmentParameters",
    "SegmentationError",
    "ideal_affinities",
    "make_fragments",
    "segment_affinities",
    "segmentations",
]
