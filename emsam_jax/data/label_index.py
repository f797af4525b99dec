"""Indexes where the labels of a volume are: by object, and by voxel where truth is sparse."""

import numpy as np
from jaxtyping import Int

from emsam_jax.errors import UserError
from emsam_jax.volumes import Box, Specimen

_TILE = (32, 256, 256)
_PLACES = 8  # remembered of an object in a tile
_BLOCK = (32, 128, 128)


class ObjectIndex:
    """A few places in each object, from one pass over the labels, tile by tile."""

    def __init__(self, specimen: Specimen):
        ids, places, sizes = [], [], []
        for tile, _ in specimen.labelled_boxes(_TILE):
            labels, _ = specimen.read_labels(tile)
            flat = labels.ravel()
            order = np.argsort(flat, kind="stable")
            present, first, counts = np.unique(flat[order], return_index=True, return_counts=True)
            for label, start, count in zip(present, first, counts, strict=True):
                if label:
                    chosen = order[start + np.arange(_PLACES) * count // _PLACES]
                    places.append(np.column_stack(np.unravel_index(chosen, labels.shape)) + tile.start)
                    ids.append(label)
                    sizes.append(count)
        if not ids:
            raise UserError(f"{specimen.name}: its labels hold no object in the region of interest.")
        _, numbers = np.unique(ids, return_inverse=True)
        self.places = np.stack(places)
        # An object is drawn whatever its size; its tiles as often as it has voxels in them.
        whole = np.bincount(numbers, weights=sizes)
        share = np.asarray(sizes) / whole[numbers]
        self.chances = share / share.sum()

    def draw(self, rng: np.random.Generator) -> Int[np.ndarray, "3"]:
        """Draws an object, then one of its places."""
        tile = rng.choice(len(self.chances), p=self.chances)
        return self.places[tile, rng.integers(_PLACES)]


class LabelIndex:
    """How many voxels each block has labelled, from one pass over the blocks of which anything was ever written."""

    def __init__(self, specimen: Specimen):
        found = list(specimen.labelled_boxes(_BLOCK))
        if not found:
            raise UserError(
                f"{specimen.name}: expected labels in the region of interest, found no voxel that the declared ids and "
                "the mask leave labelled; correct rules.unlabelled, the mask or the roi."
            )
        self.specimen = specimen
        self.boxes = np.array([box for box, _ in found])
        self.ends = np.cumsum([count for _, count in found])

    @property
    def voxels(self) -> int:
        return int(self.ends[-1])

    def draw(self, rng: np.random.Generator) -> Int[np.ndarray, "3"]:
        """Draws a labelled voxel, all of them alike; reads one block."""
        number = int(rng.integers(self.voxels))
        block = int(np.searchsorted(self.ends, number, side="right"))
        start, stop = self.boxes[block].tolist()
        _, labelled = self.specimen.read_labels(Box(tuple(start), tuple(stop)))
        # Counted from the block's end, so that the first block is none of its own.
        nth = np.flatnonzero(labelled)[number - int(self.ends[block])]
        return np.array(np.unravel_index(nth, labelled.shape)) + start
