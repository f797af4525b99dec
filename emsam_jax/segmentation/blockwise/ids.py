"""Ids of one block: far from 0, but near each other."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Int32, Int64, UInt64


class Ids(NamedTuple):
    names: UInt64[np.ndarray, " n"]  # but 0, in increasing order
    sizes: Int64[np.ndarray, " n"]  # voxels
    places: Int32[np.ndarray, "z y x"]  # of each voxel's id among the names, from 1; 0 stays 0


def index_ids(ids: UInt64[np.ndarray, "z y x"]) -> Ids:
    """Where ids follow each other, a table of all between the first and the last needs no sorting."""
    lowest, highest = int((ids - np.uint64(1)).min()) + 1, int(ids.max())  # 0 - 1 is the largest number
    if not highest:
        return Ids(np.zeros(0, np.uint64), np.zeros(0, np.int64), np.zeros(ids.shape, np.int32))
    before = np.uint64(lowest - 1)
    if highest - lowest > 4 * ids.size:
        names, inverse, sizes = np.unique(ids, return_inverse=True, return_counts=True)
        background = int(names[0] == 0)
        places = (inverse + (1 - background)).reshape(ids.shape).astype(np.int32)
        return Ids(names[background:], sizes[background:], places)
    table_index = ids - before
    table_index[ids == 0] = 0
    sizes = np.bincount(table_index.view(np.int64).ravel())
    sizes[0] = 0
    present = sizes > 0
    if present[1:].all():
        places = table_index.astype(np.int32)
    else:
        places = np.where(present, np.cumsum(present), 0).astype(np.int32)[table_index.view(np.int64)]
    return Ids(np.flatnonzero(present).astype(np.uint64) + before, sizes[present], places)
