"""Where the objects of a volume are, so that thin ones can be drawn as often as thick ones."""

import numpy as np
from jaxtyping import Int

from emsam_jax.volumes import Specimen, VolumeError

_TILE = (32, 256, 256)
_PLACES = 8  # remembered of an object in a tile


class ObjectIndex:
    """A few places in each object, from one pass over the labels, tile by tile."""

    def __init__(self, specimen: Specimen):
        ids, places, sizes = [], [], []
        for tile in specimen.labelled_region.tiles(_TILE):
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
            raise VolumeError(f"{specimen.name}: its labels hold no object in the region of interest.")
        _, numbers = np.unique(ids, return_inverse=True)
        self.places = np.stack(places)
        # An object is drawn whatever its size; its tiles as often as it has voxels in them.
        whole = np.bincount(numbers, weights=sizes)
        share = np.asarray(sizes) / whole[numbers]
        self.chances = share / share.sum()

    def draw(self, rng: np.random.Generator) -> Int[np.ndarray, "3"]:
        tile = rng.choice(len(self.chances), p=self.chances)
        return self.places[tile, rng.integers(_PLACES)]
