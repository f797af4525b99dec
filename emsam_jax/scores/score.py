"""Scores of a segmentation against the truth, with the conventions they were computed under."""

from typing import Any

import numpy as np

from emsam_jax.scores.conventions import Conventions
from emsam_jax.scores.measures import object_terms, score_terms
from emsam_jax.scores.tabulate import Volume, tabulate


def score_segmentation(
    labels: Volume,
    truth: Volume,
    *,
    mask: Volume | None = None,
    ignore_truth: tuple[int, ...] = (0,),
    unsegmented: str = "object",
    border: int = 0,
    border_plane: str = "3d",
    margin_zyx: tuple[int, int, int] = (0, 0, 0),
    block_zyx: tuple[int, ...] | None = None,
    threads: int = 1,
) -> dict[str, Any]:
    """Scores of labels [z, y, x] or [y, x] where `mask` is true, in memory or on disk.

    `Conventions` says what can be chosen, `tabulate` how volumes are read.
    """
    conventions = Conventions(tuple(ignore_truth), unsegmented, border, border_plane, margin_zyx)
    if len(truth.shape) == 2:
        labels, truth = np.asarray(labels)[None], np.asarray(truth)[None]
        mask = None if mask is None else np.asarray(mask)[None]
    (table,) = tabulate(labels, truth, [conventions], mask=mask, block_zyx=block_zyx, threads=threads)
    scores = score_terms(object_terms(table, conventions.unsegmented))
    return {**scores, "conventions": conventions.describe()}
