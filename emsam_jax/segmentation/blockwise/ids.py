"""Ids of one block: far from 0, but near each other."""

import numpy as np
from jaxtyping import Int32, UInt64


def compact_index(ids: UInt64[np.ndarray, "z y x"]) -> tuple[UInt64[np.ndarray, " n"], Int32[np.ndarray, "z y x"]]:
    """Ids but 0 in increasing order, and for each voxel its id's place among them, from 1; 0 stays 0.

    Ids of a block follow each other, mostly; then a table of all between the first and the last needs no sorting.
    """
    inside = ids > 0
    lowest = int(ids.min(where=inside, initial=np.iinfo(np.uint64).max))
    if not inside.any():
        return np.zeros(0, np.uint64), np.zeros(ids.shape, np.int32)
    if int(ids.max()) - lowest > 4 * ids.size:
        names, index = np.unique(ids, return_inverse=True)
        background = int(names[0] == 0)
        return names[background:], (index + 1 - background).reshape(ids.shape).astype(np.int32)
    index = np.where(inside, ids - np.uint64(lowest - 1), np.uint64(0)).view(np.int64)
    present = np.bincount(index.ravel()) > 0
    present[0] = False
    places = np.where(present, np.cumsum(present), 0).astype(np.int32)
    return np.flatnonzero(present).astype(np.uint64) + np.uint64(lowest - 1), places[index]
