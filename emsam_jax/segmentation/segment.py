"""From affinities to neurons, by the method of choice."""

from collections.abc import Iterator, Sequence

import numpy as np
from jaxtyping import UInt64

from emsam_jax.segmentation.agglomeration import agglomerate, check_scorer
from emsam_jax.segmentation.checks import SegmentationError, check_affinities, check_mask, check_thresholds
from emsam_jax.segmentation.components import connected_components
from emsam_jax.segmentation.fragments import FragmentParameters, as_fragments, make_fragments

METHODS = ("waterz", "components")
PER_SECTION = FragmentParameters()


def segment_affinities(
    affinities: np.ndarray,
    method: str = "waterz",
    threshold: float = 0.5,
    *,
    fragments: FragmentParameters | np.ndarray = PER_SECTION,
    scorer: str = "mean",
    mask: np.ndarray | None = None,
    threads: int = 1,
) -> UInt64[np.ndarray, "z y x"]:
    """Labels 1..n; 0 is background. Pieces merge where their affinity is above 1 - threshold."""
    return next(
        segmentations(affinities, [threshold], method, fragments=fragments, scorer=scorer, mask=mask, threads=threads)
    )


def segmentations(
    affinities: np.ndarray,
    thresholds: Sequence[float],
    method: str = "waterz",
    *,
    fragments: FragmentParameters | np.ndarray = PER_SECTION,
    scorer: str = "mean",
    mask: np.ndarray | None = None,
    threads: int = 1,
) -> Iterator[UInt64[np.ndarray, "z y x"]]:
    """Labels for each of the increasing thresholds; what they share is computed once."""
    if method not in METHODS:
        raise SegmentationError(f"The method must be one of {', '.join(METHODS)}, but is {method!r}.")
    thresholds = check_thresholds(thresholds)
    check_scorer(scorer)
    checked = check_affinities(affinities)
    mask = check_mask(mask, checked.shape[1:])
    if method == "components":
        return (connected_components(checked, threshold, mask) for threshold in thresholds)
    if isinstance(fragments, FragmentParameters):
        pieces = make_fragments(checked, fragments, mask=mask, threads=threads)
    else:
        pieces = as_fragments(fragments, checked.shape[1:])
    return agglomerate(checked, pieces, thresholds, scorer)
