"""Fragments under the ids that another tool wants, relabelled as they are read."""

from collections.abc import Callable

import numpy as np
from jaxtyping import Integer, UInt, UInt64
from numpy.typing import DTypeLike

from emsam_jax.segmentation.blockwise import Segmented, index_ids
from emsam_jax.volumes import Box, Sizes, Voxel, box_of

Rename = Callable[[UInt64[np.ndarray, " n"]], Integer[np.ndarray, " n"]]


class Relabelled:
    """Pieces of fragments [z, y, x] under other ids, to be copied; 0 in `pad` voxels before them along each axis."""

    def __init__(self, segmented: Segmented, rename: Rename, dtype: DTypeLike, pad: Voxel = (0, 0, 0)):
        self._fragments, self._rename, self._pad = segmented.open_fragments(), rename, pad
        self.url, self.dtype = self._fragments.url, np.dtype(dtype)
        self.voxel_size_zyx: Sizes = self._fragments.voxel_size_zyx
        self.offsets: tuple[Voxel, ...] = ()

    @property
    def shape(self) -> Voxel:
        z, y, x = (before + side for before, side in zip(self._pad, self._fragments.shape, strict=True))
        return z, y, x

    @property
    def offset_zyx(self) -> Sizes:
        sides = zip(self._fragments.offset_zyx, self._pad, self.voxel_size_zyx, strict=True)
        z, y, x = (offset - before * size for offset, before, size in sides)
        return z, y, x

    @property
    def box(self) -> Box:
        return box_of(self.shape)

    def read(self, box: Box) -> UInt[np.ndarray, "z y x"]:
        z, y, x = self._pad
        ids = np.ascontiguousarray(self._fragments.read(box.shifted((-z, -y, -x))), np.uint64)
        names, _, places = index_ids(ids)
        return np.concatenate([np.zeros(1, self.dtype), self._rename(names).astype(self.dtype)])[places]


def number_pieces(pieces: UInt64[np.ndarray, " n"], names: UInt64[np.ndarray, " m"]) -> Integer[np.ndarray, " m"]:
    """Returns the segment of each name, from 1 in the order of the pieces; 0 of those that are none of them."""
    rows = np.searchsorted(pieces, names)
    there = pieces.take(rows, mode="clip") == names if len(pieces) else np.zeros(len(names), bool)
    return np.where(there, rows + 1, 0)
