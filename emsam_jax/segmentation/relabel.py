"""Compact ids."""

import numpy as np
from jaxtyping import UInt64


def compact(labels: UInt64[np.ndarray, "z y x"], out: UInt64[np.ndarray, "z y x"]) -> UInt64[np.ndarray, "z y x"]:
    """The labels as 1..n in the order of their ids, 0 kept, written to `out`, which may be `labels` itself."""
    highest = int(labels.max())
    if highest > 4 * labels.size:  # a table of all ids would be larger than the volume
        ids, inverse = np.unique(labels, return_inverse=True)
        out[...] = inverse.reshape(labels.shape)
        if ids[0] != 0:
            out += 1
        return out
    present = np.zeros(highest + 1, bool)
    for section in labels:
        present[section] = True
    present[0] = False
    new_ids = np.where(present, np.cumsum(present, dtype=np.uint64), 0).astype(np.uint64)
    for section, target in zip(labels, out, strict=True):
        target[...] = new_ids[section]
    return out
