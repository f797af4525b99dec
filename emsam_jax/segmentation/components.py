"""Connected components of thresholded affinities."""

import numpy as np
from bioimage_cpp.utils import UnionFind
from jaxtyping import Bool, Float32, UInt32, UInt64

from emsam_jax.segmentation.cleaning import compact


def connected_components(
    affinities: Float32[np.ndarray, "c z y x"],
    threshold: float,
    mask: Bool[np.ndarray, "z y x"] | None = None,
) -> UInt64[np.ndarray, "z y x"]:
    """Labels voxels joined by affinities above 1 - threshold; a voxel that nothing joins is background, 0.

    Runs along x are joined first; then runs that touch along y and z, of which there are far fewer than voxels.
    """
    shape = affinities.shape[1:]
    joined = affinities[:3] > 1 - threshold
    for axis in range(3):  # the first voxel along an axis has no partner
        np.moveaxis(joined[axis], axis, 0)[0] = False
        if mask is not None:
            joined[axis] &= mask
            here, before = (np.moveaxis(a, axis, 0) for a in (joined[axis], mask))
            here[1:] &= before[:-1]

    runs = np.cumsum(~joined[2].ravel(), dtype=np.uint32).reshape(shape)  # 1..n
    runs -= 1
    union = UnionFind(int(runs[-1, -1, -1]) + 1)
    for z, section in enumerate(runs):
        union.merge(_link(section[1:], section[:-1], joined[1, z, 1:]))
        if z:
            union.merge(_link(section, runs[z - 1], joined[0, z]))
    roots = union.element_labeling()

    lengths = np.bincount(runs.ravel(), minlength=len(roots))
    sizes = np.bincount(roots.view(np.int64), lengths, len(roots))
    ids = np.where(sizes[roots] > 1, roots + 1, 0).astype(np.uint64)
    labels = ids[runs]
    return compact(labels, out=labels)


def _link(
    here: UInt32[np.ndarray, "y x"], before: UInt32[np.ndarray, "y x"], touching: Bool[np.ndarray, "y x"]
) -> UInt64[np.ndarray, "pairs 2"]:
    """Lists pairs of runs that touch, without the repeats along x."""
    first, second = here[touching], before[touching]
    new = np.ones(first.size, bool)
    new[1:] = (first[1:] != first[:-1]) | (second[1:] != second[:-1])
    return np.stack([first[new], second[new]], axis=1).astype(np.uint64)
