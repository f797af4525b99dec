"""Which voxels lie at a border between true objects."""

import numpy as np
from bioimage_cpp.distance import distance_transform
from jaxtyping import Bool, Integer


def find_borders(truth: Integer[np.ndarray, "z y x"], width: int, plane: str) -> Bool[np.ndarray, "z y x"]:
    """Voxels up to `width` voxels deep on each side of a border, seen in each section or in 3D.

    Width 1 is the voxels with a face neighbour of another id. CREMI's tolerance of d voxels is width d + 1 in 2D.
    """
    borders = np.zeros(truth.shape, bool)
    if width < 1:
        return borders
    for axis in (0, 1, 2) if plane == "3d" else (1, 2):
        here, before = (np.moveaxis(truth, axis, 0)[part] for part in (slice(1, None), slice(None, -1)))
        changes = here != before
        at = np.moveaxis(borders, axis, 0)
        at[1:] |= changes
        at[:-1] |= changes
    if width == 1 or not borders.any():
        return borders
    if plane == "3d":
        return np.asarray(distance_transform(~borders)) <= width - 1
    deeper = [
        np.asarray(distance_transform(~section)) <= width - 1 if section.any() else section for section in borders
    ]
    return np.stack(deeper)
