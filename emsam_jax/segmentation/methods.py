"""Segments affinities by the chosen method."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool, Float32, UInt64

from emsam_jax.errors import UserError
from emsam_jax.segmentation.agglomeration import agglomerate, check_scorer
from emsam_jax.segmentation.checks import check_affinities, check_mask, check_thresholds
from emsam_jax.segmentation.cleaning import CleanUp, clean_labels, compact
from emsam_jax.segmentation.components import connected_components
from emsam_jax.segmentation.fragments import FragmentParameters, as_fragments, make_fragments
from emsam_jax.segmentation.multicut import cut_region_graph
from emsam_jax.segmentation.mutex_watershed import check_offsets, check_strides, split_by_mutex

METHODS = ("waterz", "multicut", "mutex", "components")
PER_SECTION = FragmentParameters()
AS_IT_IS = CleanUp()
Labels = UInt64[np.ndarray, "z y x"]


def segment_affinities(
    affinities: np.ndarray, method: str = "waterz", threshold: float = 0.5, **options: Any
) -> Labels:
    """Returns labels 1..n of affinities [c, z, y, x]; 0 is background. Options are those of `segmentations`.

    Pieces merge where their affinity is above 1 - threshold. For mutex, where long-range edges forbid merges, the
    threshold weighs attraction against repulsion: 0.5 is the method as published.
    """
    return next(segmentations(affinities, [threshold], method, **options))


def segmentations(
    affinities: np.ndarray,
    thresholds: Sequence[float],
    method: str = "waterz",
    *,
    fragments: FragmentParameters | np.ndarray = PER_SECTION,
    scorer: str = "mean",
    offsets: Sequence[Sequence[int]] = (),
    strides: Sequence[int] = (2, 2, 2),
    clean_up: CleanUp = AS_IT_IS,
    mask: np.ndarray | None = None,
    threads: int = 1,
) -> Iterator[Labels]:
    """Labels for each of the increasing thresholds; what they share is computed once.

    `fragments` (how to make them, or the fragments themselves) are for waterz and multicut, `scorer` for waterz,
    `offsets` of all channels and `strides` of the long-range ones for mutex. Outside the mask labels are 0.
    """
    if method not in METHODS:
        raise UserError(f"The method must be one of {', '.join(METHODS)}, but is {method!r}.")
    thresholds = check_thresholds(thresholds)
    check_scorer(scorer)
    checked = check_affinities(affinities)
    mask = check_mask(mask, checked.shape[1:])
    if method == "mutex":
        edges = check_offsets(offsets, len(checked))
        steps = check_strides(strides)
        found = (split_by_mutex(checked, edges, at, strides=steps, mask=mask) for at in thresholds)
    elif method == "components":
        found = (connected_components(checked, at, mask) for at in thresholds)
    else:
        pieces = prepare_fragments(checked, fragments, mask, threads)
        if method == "waterz":
            found = agglomerate(checked, pieces, thresholds, scorer)
        else:
            found = cut_region_graph(checked, pieces, thresholds, threads)
    return (clean_labels(labels, clean_up, mask) for labels in found) if clean_up != AS_IT_IS else found


def prepare_fragments(
    affinities: Float32[np.ndarray, "c z y x"],
    fragments: FragmentParameters | np.ndarray,
    mask: Bool[np.ndarray, "z y x"] | None,
    threads: int,
) -> Labels:
    """Returns fragments with compact ids that may be overwritten."""
    if isinstance(fragments, FragmentParameters):
        return make_fragments(affinities, fragments, mask=mask, threads=threads)
    own = as_fragments(fragments, affinities.shape[1:])
    if mask is not None:
        own[~mask] = 0
    return compact(own, out=own)
