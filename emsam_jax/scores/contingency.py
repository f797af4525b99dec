"""Counts the voxels that each pair of a segment and a true object shares.

Every score here is computed from this table. Its memory grows with the number of touching pairs, not with voxels.
"""

import dataclasses
from collections.abc import Iterable

import numpy as np
from jaxtyping import Bool, Int64, Integer, UInt64

from emsam_jax.errors import UserError

CHUNK = 1 << 16  # voxels sorted at a time: the runs of a chunk stay in the cache
_MERGE_AT = 1 << 21  # pairs collected before they are merged, which bounds the memory


@dataclasses.dataclass(frozen=True)
class ContingencyTable:
    """Pairs in increasing order of (truth, segment), each once."""

    segment: UInt64[np.ndarray, " pairs"]
    truth: UInt64[np.ndarray, " pairs"]
    count: Int64[np.ndarray, " pairs"]  # voxels

    @property
    def voxels(self) -> int:
        return int(self.count.sum())

    def renamed(self, segments: UInt64[np.ndarray, " pairs"]) -> "ContingencyTable":
        """Gives each pair's segment another id; those of one id are added up."""
        return merge_tables([dataclasses.replace(self, segment=segments)])

    def where(self, keep: Bool[np.ndarray, " pairs"]) -> "ContingencyTable":
        return ContingencyTable(self.segment[keep], self.truth[keep], self.count[keep])


def count_pairs(
    labels: Integer[np.ndarray, "..."],
    truth: Integer[np.ndarray, "..."],
    keep: Bool[np.ndarray, "..."] | None = None,
) -> ContingencyTable:
    """Counts pairs of two volumes of one shape, of the voxels where `keep` is true."""
    check_same_shape(labels.shape, truth.shape)
    for name, volume in (("Labels", labels), ("Truth", truth)):
        if volume.dtype.kind == "i" and volume.size and volume.min() < 0:
            raise UserError(f"{name} must be ids from 0 up, but contain {volume.min()}: map it to another id.")
    labels, truth, keep = np.ravel(labels), np.ravel(truth), None if keep is None else np.ravel(keep)
    merged, parts, waiting = _EMPTY, [], 0
    for start in range(0, labels.size, CHUNK):
        chunk = slice(start, start + CHUNK)
        a, b = labels[chunk], truth[chunk]
        if keep is not None and not keep[chunk].all():
            a, b = a[keep[chunk]], b[keep[chunk]]
        if a.size:
            parts.append(_count_runs(a, b))
            waiting += parts[-1].count.size
        if waiting > _MERGE_AT:
            merged, parts, waiting = merge_tables([merged, *parts]), [], 0
    return merge_tables([merged, *parts])


def check_same_shape(labels: tuple[int, ...], truth: tuple[int, ...]) -> None:
    if tuple(labels) != tuple(truth):
        raise UserError(
            f"Labels and truth must have one shape, but labels are {labels} and truth is {truth}: "
            "crop both to the same box."
        )


def merge_tables(tables: Iterable[ContingencyTable]) -> ContingencyTable:
    """Adds up tables of disjoint voxels."""
    tables = list(tables)
    segment = np.concatenate([table.segment for table in tables]) if tables else _EMPTY.segment
    truth = np.concatenate([table.truth for table in tables]) if tables else _EMPTY.truth
    count = np.concatenate([table.count for table in tables]) if tables else _EMPTY.count
    return _sum_pairs(segment, truth, count) if count.size else _EMPTY


def _count_runs(a: Integer[np.ndarray, " n"], b: Integer[np.ndarray, " n"]) -> ContingencyTable:
    """Counts runs along x, which mostly repeat the pair, so that fewer keys are sorted."""
    changes = a[1:] != a[:-1]
    changes |= b[1:] != b[:-1]
    ends = np.flatnonzero(changes)
    ends = np.append(ends, a.size - 1)
    lengths = np.diff(ends, prepend=-1)
    return _sum_pairs(a[ends].astype(np.uint64), b[ends].astype(np.uint64), lengths)


def _sum_pairs(
    segment: UInt64[np.ndarray, " n"], truth: UInt64[np.ndarray, " n"], count: Int64[np.ndarray, " n"]
) -> ContingencyTable:
    """Sorts by one 64-bit key where the ranges of ids fit into it, by two otherwise."""
    low_segment, low_truth = segment.min(), truth.min()
    width = int(segment.max() - low_segment) + 1
    if width * (int(truth.max() - low_truth) + 1) < 2**64:
        key = (truth - low_truth) * np.uint64(width) + (segment - low_segment)
        order = np.argsort(key)
        key = key[order]
        new = key[1:] != key[:-1]
    else:
        order = np.lexsort((segment, truth))
        new = (segment[order][1:] != segment[order][:-1]) | (truth[order][1:] != truth[order][:-1])
    starts = np.append(0, np.flatnonzero(new) + 1)
    first = order[starts]
    return ContingencyTable(segment[first], truth[first], np.add.reduceat(count[order], starts))


_EMPTY = ContingencyTable(np.zeros(0, np.uint64), np.zeros(0, np.uint64), np.zeros(0, np.int64))
