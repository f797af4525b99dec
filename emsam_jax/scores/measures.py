"""Computes VOI, adapted Rand error and CREMI score of a contingency table, with bootstrap intervals."""

import dataclasses

import numpy as np
from jaxtyping import Float, Int64, UInt64

from emsam_jax.scores.contingency import ContingencyTable

SCORE_NAMES = ("voi_split", "voi_merge", "voi", "arand", "precision", "recall", "cremi_score", "largest_segment_share")
Scores = dict[str, float | int | str | None]
Intervals = dict[str, tuple[float, float] | None]


@dataclasses.dataclass(frozen=True)
class ObjectTerms:
    """What each true object and each segment adds to the scores; splits and merges in bits times voxels."""

    truth: UInt64[np.ndarray, " objects"]
    truth_size: Int64[np.ndarray, " objects"]
    split: Float[np.ndarray, " objects"]  # size * H(segment | this object)
    merge: Float[np.ndarray, " objects"]  # its voxels' share of H(truth | segment)
    pairs_both: Float[np.ndarray, " objects"]  # ordered pairs of different voxels, joined in truth and in labels
    pairs_truth: Float[np.ndarray, " objects"]  # joined in truth
    pairs_labels: Float[np.ndarray, " objects"]  # joined in labels, first voxel in this object
    segment: UInt64[np.ndarray, " segments"]
    segment_size: Int64[np.ndarray, " segments"]
    segment_merge: Float[np.ndarray, " segments"]  # size * H(truth | this segment)


def object_terms(table: ContingencyTable, unsegmented: str = "object") -> ObjectTerms:
    """Splits the scores into terms by object. `unsegmented`: segment 0 is one object, ignored, or singletons."""
    if unsegmented == "ignore":
        table = table.where(table.segment != 0)
    alone = (table.segment == 0) if unsegmented == "singletons" else np.zeros(table.count.size, bool)
    truth, of_truth = np.unique(table.truth, return_inverse=True)
    segment, of_segment = np.unique(table.segment, return_inverse=True)
    count = table.count.astype(np.float64)  # exact up to 2^53

    def per_object(values: Float[np.ndarray, " pairs"]) -> Float[np.ndarray, " objects"]:
        return np.bincount(of_truth, values, truth.size).astype(np.float64)  # integers where there are none

    def per_segment(values: Float[np.ndarray, " pairs"]) -> Float[np.ndarray, " segments"]:
        return np.bincount(of_segment, values, segment.size).astype(np.float64)

    truth_size, segment_size = per_object(count), per_segment(count)
    within_segment = np.where(alone, 1.0, segment_size[of_segment])
    joined = np.where(alone, 1.0, count)  # voxels of this pair that share one segment

    split = count * np.log2(truth_size[of_truth] / joined)
    merge = count * np.log2(within_segment / joined)

    return ObjectTerms(
        truth=truth,
        truth_size=truth_size.astype(np.int64),
        split=per_object(split),
        merge=per_object(merge),
        pairs_both=per_object(count * (joined - 1)),
        pairs_truth=truth_size * (truth_size - 1),
        pairs_labels=per_object(count * (within_segment - 1)),
        segment=segment,
        segment_size=segment_size.astype(np.int64),
        segment_merge=per_segment(merge),
    )


def score_table(table: ContingencyTable, unsegmented: str = "object") -> Scores:
    return score_terms(object_terms(table, unsegmented))


def score_terms(terms: ObjectTerms) -> Scores:
    """Computes the scores of all objects; null with a reason where one is undefined."""
    voxels = int(terms.truth_size.sum())
    scores: Scores = {"voxels": voxels, "objects": terms.truth.size, "segments": terms.segment.size}
    if voxels == 0:
        reason = "no voxel is left to compare: truth is background everywhere, or all of it was ignored"
        return {**dict.fromkeys(SCORE_NAMES), "reason": reason, **scores}
    voi_split, voi_merge = float(terms.split.sum() / voxels), float(terms.merge.sum() / voxels)
    both, in_truth, in_labels = (
        float(pairs.sum()) for pairs in (terms.pairs_both, terms.pairs_truth, terms.pairs_labels)
    )
    # Where no two voxels share an object, neither in truth nor in labels, the two agree.
    arand = 1 - 2 * both / (in_truth + in_labels) if in_truth + in_labels else 0.0
    voi = voi_split + voi_merge
    largest = int(terms.segment_size[terms.segment != 0].max(initial=0))
    return {
        "voi_split": voi_split,
        "voi_merge": voi_merge,
        "voi": voi,
        "arand": arand,
        "precision": both / in_labels if in_labels else None,  # merges lower it
        "recall": both / in_truth if in_truth else None,  # splits lower it
        "cremi_score": float(np.sqrt(voi * max(arand, 0.0))),
        **scores,
        "largest_segment_share": largest / voxels,  # percolation shows here first
    }


def bootstrap_objects(terms: ObjectTerms, *, samples: int = 1000, level: float = 0.95, seed: int = 0) -> Intervals:
    """Computes percentile intervals of the scores over true objects drawn with replacement."""
    rng = np.random.default_rng(seed)
    n = terms.truth.size
    if n < 2:
        return dict.fromkeys(("voi_split", "voi_merge", "voi", "arand"))
    per_object = np.stack(
        [terms.truth_size, terms.split, terms.merge, terms.pairs_both, terms.pairs_truth, terms.pairs_labels]
    ).astype(np.float64)
    drawn = np.empty((samples, len(per_object)))
    for sample in drawn:
        sample[:] = per_object @ np.bincount(rng.integers(0, n, n), minlength=n)
    size, split, merge, both, in_truth, in_labels = drawn.T
    pairs = in_truth + in_labels
    arand = 1 - np.divide(2 * both, pairs, out=np.ones_like(both), where=pairs > 0)

    def interval(values: Float[np.ndarray, " samples"]) -> tuple[float, float]:
        low, high = np.quantile(values, [(1 - level) / 2, (1 + level) / 2])
        return float(low), float(high)

    return {
        "voi_split": interval(split / size),
        "voi_merge": interval(merge / size),
        "voi": interval((split + merge) / size),
        "arand": interval(arand),
    }
