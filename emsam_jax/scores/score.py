"""Scores a segmentation against the truth, with the conventions they are computed under, in four ways.

Borders alone can cost 0.4 bit, and one large object can own the Rand error.
"""

import dataclasses
from typing import Any

import numpy as np

from emsam_jax.scores.measures import bootstrap_objects, object_terms, score_table, score_terms
from emsam_jax.scores.tabulate import Conventions, VoxelSource, tabulate
from emsam_jax.scores.worst_objects import find_swallowed, list_worst, locate

FIELDS = Conventions()  # what the field does
WAYS = ("all", "borders_ignored", "without_largest", "interior")


def score_segmentation(
    labels: VoxelSource,
    truth: VoxelSource,
    *,
    mask: VoxelSource | None = None,
    ignore_truth: tuple[int, ...] = (0,),
    unsegmented: str = "object",
    border: int = 0,
    border_plane: str = "3d",
    margin_zyx: tuple[int, int, int] = (0, 0, 0),
    block_zyx: tuple[int, ...] | None = None,
    threads: int = 1,
) -> dict[str, Any]:
    """Scores labels [z, y, x] or [y, x] where `mask` is true, in memory or on disk.

    `Conventions` says what can be chosen, `tabulate` how volumes are read.
    """
    conventions = Conventions(tuple(ignore_truth), unsegmented, border, border_plane, margin_zyx)
    if len(truth.shape) == 2:
        labels, truth = np.asarray(labels)[None], np.asarray(truth)[None]
        mask = None if mask is None else np.asarray(mask)[None]
    (table,) = tabulate(labels, truth, [conventions], mask=mask, block_zyx=block_zyx, threads=threads)
    return {**score_table(table, conventions.unsegmented), "conventions": conventions.describe()}


def report_segmentation(
    labels: VoxelSource,
    truth: VoxelSource,
    *,
    mask: VoxelSource | None = None,
    conventions: Conventions = FIELDS,
    border: int = 1,
    margin_zyx: tuple[int, int, int] | None = None,
    worst: int = 10,
    samples: int = 1000,
    block_zyx: tuple[int, ...] | None = None,
    threads: int = 1,
) -> dict[str, Any]:
    """Scores all voxels, those off the truth's borders, those off the largest object, and those off the volume's faces.

    Each has its conventions and its 95% bootstrap intervals over objects; `worst` objects are named with size and
    place. The margin is 16 voxels, or a sixth of a shorter axis, unless given.
    """
    if margin_zyx is None:
        deep, high, wide = (min(16, size // 6) for size in truth.shape)
        margin_zyx = deep, high, wide
    without_borders = dataclasses.replace(conventions, border=max(border, conventions.border))
    interior = dataclasses.replace(conventions, margin_zyx=margin_zyx)
    chosen = [conventions, without_borders, interior]
    whole, inside, inner = tabulate(labels, truth, chosen, mask=mask, block_zyx=block_zyx, threads=threads)

    everything = object_terms(whole, conventions.unsegmented)
    largest = int(everything.truth[everything.truth_size.argmax()]) if everything.truth.size else None
    without_largest = whole if largest is None else whole.where(whole.truth != np.uint64(largest))

    report: dict[str, Any] = {}
    for way, table, named in zip(
        WAYS,
        (whole, inside, without_largest, inner),
        (conventions, without_borders, conventions, interior),
        strict=True,
    ):
        terms = object_terms(table, conventions.unsegmented)
        intervals = bootstrap_objects(terms, samples=samples)
        report[way] = {**score_terms(terms), "intervals_95": intervals, "conventions": named.describe()}
    report["without_largest"]["left_out"] = largest
    report["without_largest"]["swallowed"] = None if largest is None else find_swallowed(whole, largest)

    report["worst"] = list_worst(whole, everything, worst)
    for rows, volume in ((report["worst"]["splits"], truth), (report["worst"]["merges"], labels)):
        places = locate(volume, [row["id"] for row in rows])
        for row in rows:
            row.update(places[row["id"]])
    return report
