"""What lies beyond the end of a volume: the volume, mirrored at its first and its last voxel."""

import numpy as np
from jaxtyping import Int, Shaped

from emsam_jax.volumes.box import Box
from emsam_jax.volumes.specimen import Specimen


def reflect(indices: Int[np.ndarray, "*n"], size: int) -> Int[np.ndarray, "*n"]:
    """Where in an axis of this size an index beyond it lies, with mirrors at the first and the last voxel."""
    if size == 1:
        return np.zeros_like(indices)
    folded = np.abs(indices) % (2 * size - 2)
    return np.where(folded < size, folded, 2 * size - 2 - folded)


def read_mirrored(specimen: Specimen, box: Box) -> Shaped[np.ndarray, "z y x"]:
    """Raw as if the volume ended with the specimen's region of interest."""
    indices = [
        first + reflect(np.arange(start, stop) - first, last - first)
        for start, stop, first, last in zip(*box, *specimen.region, strict=True)
    ]
    z, y, x = (int(i.min()) for i in indices)
    far_z, far_y, far_x = (int(i.max()) + 1 for i in indices)
    there = Box((z, y, x), (far_z, far_y, far_x))
    values = specimen.read_raw(there)
    return values if there == box else values[np.ix_(*(i - i.min() for i in indices))]
