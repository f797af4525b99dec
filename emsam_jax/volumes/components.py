"""Sizes and pieces of the objects in a label volume of any size, block by block."""

import dataclasses

import numpy as np
from bioimage_cpp.segmentation import label
from jaxtyping import Integer
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from emsam_jax.volumes.box import Box

Faces = tuple[Integer[np.ndarray, "_ _"], Integer[np.ndarray, "_ _"]]  # pieces and ids


@dataclasses.dataclass(frozen=True)
class Objects:
    ids: np.ndarray
    sizes: np.ndarray  # voxels
    pieces: np.ndarray  # connected by faces; 1 for a connected object


class Components:
    """Takes the blocks of a volume in the order of `Box.tiles`; keeps only the faces that wait for a neighbour."""

    def __init__(self) -> None:
        self._count = 0
        self._ids: list[np.ndarray] = []
        self._sizes: list[np.ndarray] = []
        self._joined: list[np.ndarray] = []
        self._waiting: dict[tuple[int, tuple[int, int, int]], Faces] = {}

    def add(self, box: Box, ids: Integer[np.ndarray, "z y x"]) -> None:
        """0 is no object."""
        ids = ids.astype(np.uint64)
        pieces = label(ids, background=0, connectivity=1)
        sizes = np.bincount(pieces.ravel().astype(np.int64))
        id_of = np.zeros(len(sizes), np.uint64)
        id_of[pieces] = ids
        pieces = np.where(pieces > 0, pieces + np.uint64(self._count), np.uint64(0))
        self._ids.append(id_of[1:])
        self._sizes.append(sizes[1:])
        self._count += len(sizes) - 1
        for axis in range(3):
            first, last = np.take(pieces, 0, axis), np.take(pieces, -1, axis)
            if below := self._waiting.pop((axis, box.start), None):
                self._join(below, (first, np.take(ids, 0, axis)))
            start = list(box.start)
            start[axis] = box.stop[axis]
            self._waiting[axis, (start[0], start[1], start[2])] = (last, np.take(ids, -1, axis))

    def _join(self, below: Faces, above: Faces) -> None:
        touch = (below[1] == above[1]) & (below[1] != 0)
        self._joined.append(np.unique(np.stack([below[0][touch], above[0][touch]], 1), axis=0))

    def objects(self) -> Objects:
        ids = np.concatenate([np.zeros(0, np.uint64), *self._ids])
        sizes = np.concatenate([np.zeros(0, np.int64), *self._sizes])
        joined = np.concatenate([np.zeros((0, 2), np.uint64), *self._joined]).astype(np.int64) - 1
        graph = coo_array((np.ones(len(joined), np.int8), (joined[:, 0], joined[:, 1])), shape=(len(ids), len(ids)))
        _, whole = connected_components(graph, directed=False) if len(ids) else (0, np.zeros(0, np.int64))
        _, first = np.unique(whole, return_index=True)  # one piece for each connected whole
        names, index = np.unique(ids, return_inverse=True)
        total = np.bincount(index, weights=sizes, minlength=len(names)).astype(np.int64)
        return Objects(names, total, np.bincount(index[first], minlength=len(names)))
