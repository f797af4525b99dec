"""Connected components of thresholded affinities."""

import numpy as np
from bioimage_cpp.utils import UnionFind
from jaxtyping import Bool, Float32, UInt64

from emsam_jax.segmentation.relabel import compact


def connected_components(
    affinities: Float32[np.ndarray, "c z y x"],
    threshold: float,
    mask: Bool[np.ndarray, "z y x"] | None = None,
) -> UInt64[np.ndarray, "z y x"]:
    """Voxels joined by affinities above 1 - threshold; a voxel that nothing joins is background, 0.

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
    links = []
    for axis in (0, 1):
        here, before = (np.moveaxis(runs, axis, 0)[part] for part in (slice(1, None), slice(None, -1)))
        touching = np.moveaxis(joined[axis], axis, 0)[1:]
        pairs = np.stack([here[touching], before[touching]], axis=1).astype(np.uint64)
        repeats = (pairs[1:] == pairs[:-1]).all(1)
        links.append(pairs[np.append(True, ~repeats)] if len(pairs) else pairs)
    union = UnionFind(int(runs[-1, -1, -1]) + 1)
    for pairs in links:
        union.merge(np.ascontiguousarray(pairs))
    roots = union.element_labeling()

    sizes = np.zeros(len(roots), np.int64)
    np.add.at(sizes, roots, np.bincount(runs.ravel(), minlength=len(roots)))
    ids = np.where(sizes[roots] > 1, roots + 1, 0).astype(np.uint64)
    labels = ids[runs]
    return compact(labels, out=labels)
