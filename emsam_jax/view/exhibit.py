"""Pairs one volume's segments with its neurons, to be drawn: which segment is which neuron, and where they part."""

import dataclasses
from enum import IntEnum
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Float32, Integer, UInt8, UInt64

from emsam_jax.scores import ContingencyTable, count_pairs

Labels = Integer[np.ndarray, "..."]


class Verdict(IntEnum):
    """The verdict on a voxel."""

    RIGHT = 0
    SPLIT = 1  # not in the segment that holds most of its neuron
    MERGE = 2  # not of the neuron that fills most of its segment
    BOTH = 3
    UNSEGMENTED = 4  # segment 0
    UNKNOWN = 5  # truth is background or unlabelled


@dataclasses.dataclass(frozen=True)
class Pairing:
    """The main segment of each true object and the main true object of each segment: those that share most voxels."""

    truth: UInt64[np.ndarray, " objects"]  # increasing
    main_segment: UInt64[np.ndarray, " objects"]
    segment: UInt64[np.ndarray, " segments"]  # increasing
    main_truth: UInt64[np.ndarray, " segments"]

    def segment_of(self, truth: Labels) -> UInt64[np.ndarray, "..."]:
        return _look_up(self.truth, self.main_segment, truth)

    def truth_of(self, segment: Labels) -> UInt64[np.ndarray, "..."]:
        return _look_up(self.segment, self.main_truth, segment)

    def matched(self, labels: Labels) -> UInt64[np.ndarray, "..."]:
        """Returns the segments; a neuron's main segment, if that is mostly this neuron, has the neuron's id.

        The others get ids that no neuron has.
        """
        ids, inverse = np.unique(labels, return_inverse=True)
        partner = self.truth_of(ids)
        mutual = (partner > 0) & (self.segment_of(partner) == ids)
        named = np.where(mutual, partner, ids.astype(np.uint64) + np.uint64(1 << 62))
        return np.where(ids == 0, np.uint64(0), named)[inverse].reshape(labels.shape)

    def judge(self, labels: Labels, truth: Labels, labelled: Bool[np.ndarray, "..."]) -> UInt8[np.ndarray, "..."]:
        """Returns a verdict on each voxel."""
        verdict = (
            Verdict.SPLIT * (self.segment_of(truth) != labels) + Verdict.MERGE * (self.truth_of(labels) != truth)
        ).astype(np.uint8)
        verdict[labels == 0] = Verdict.UNSEGMENTED
        verdict[~labelled | (truth == 0)] = Verdict.UNKNOWN
        return verdict


def pair(labels: Labels, truth: Labels, labelled: Bool[np.ndarray, "..."]) -> Pairing:
    return pair_table(count_pairs(labels, truth, keep=labelled & (truth > 0)))


def pair_table(table: ContingencyTable) -> Pairing:
    return Pairing(*_largest(table.truth, table.segment, table), *_largest(table.segment, table.truth, table))


def _largest(
    of: UInt64[np.ndarray, " pairs"], partner: UInt64[np.ndarray, " pairs"], table: ContingencyTable
) -> tuple[UInt64[np.ndarray, " n"], UInt64[np.ndarray, " n"]]:
    """Returns each id with the partner that shares most voxels with it; segment 0 only where there is no other."""
    order = np.lexsort((table.count, table.segment != 0, of))
    ids, first = np.unique(of[order][::-1], return_index=True)
    return ids, partner[order][::-1][first]


def _look_up(
    keys: UInt64[np.ndarray, " n"], values: UInt64[np.ndarray, " n"], wanted: Labels
) -> UInt64[np.ndarray, "..."]:
    """Looks up the keys' values; 0 for missing ones."""
    wanted = wanted.astype(np.uint64)
    if not keys.size:
        return np.zeros_like(wanted)
    at = np.searchsorted(keys, wanted).clip(max=keys.size - 1)
    return np.where(keys[at] == wanted, values[at], np.uint64(0))


@dataclasses.dataclass(frozen=True, eq=False)
class Exhibit:
    raw: Float[np.ndarray, "z y x"]  # 0 to 1
    labels: Integer[np.ndarray, "z y x"]
    truth: Integer[np.ndarray, "z y x"]  # 0: background, or unlabelled
    labelled: Bool[np.ndarray, "z y x"]
    affinities: Float32[np.ndarray, "3 z y x"] | None  # short channels z, y, x
    worst: dict[str, Any]  # as `report_segmentation` lists them
    voxel_size_zyx: tuple[float, float, float]  # nm
    start_zyx: tuple[int, int, int]  # of the box in the raw: places are told in the raw's voxels
