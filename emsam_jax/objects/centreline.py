"""Traces the skeleton of one object by TEASAR, over the whole of its box, so that it is the same in any blocks."""

import dataclasses
from collections.abc import Iterable

import numpy as np
from bioimage_cpp.skeleton.distributed import block_teasar
from jaxtyping import Float32, UInt8

from emsam_jax.objects.objects_job import ObjectsJob
from emsam_jax.objects.pieces import Piece
from emsam_jax.scores import Skeleton
from emsam_jax.volumes import Box, Sizes, Voxel


@dataclasses.dataclass(frozen=True)
class Centreline(Skeleton):
    radii: Float32[np.ndarray, " nodes"]  # nm, from the node to the nearest voxel outside the object

    @property
    def thickness(self) -> tuple[float, float]:
        """Returns the mean along the skeleton and the largest diameter, in nm."""
        diameters = 2 * self.radii.astype(np.float64)
        lengths = self.lengths
        mean = np.average(diameters[self.edges].mean(1), weights=lengths) if len(lengths) else diameters.mean()
        return float(mean), float(diameters.max())


def trace_object(job: ObjectsJob, pieces: Iterable[Piece], box: Box) -> Centreline:
    """Traces an object that lies in the box. Its parts that do not touch give a tree each.

    Where the volume ends the object is taken to continue, which matters to its radii alone.
    """
    by = choose_factor(box, job.voxel_size_zyx, job.tracing.most_voxels)
    z, y, x = (low // step for low, step in zip(box.start, by, strict=True))
    ends = zip(range(3), box.start, box.stop, job.plan.volume.stop, strict=True)
    faces = [(axis, side) for axis, low, high, end in ends for side in _cut_off(low, high, end)]
    size = np.array(job.voxel_size_zyx) * by
    nodes, edges, radii = block_teasar(
        assemble(pieces, box, by),
        open_faces=faces,
        origin=(z, y, x),
        spacing=tuple(size),
        scale=job.tracing.scale,
        constant=job.tracing.constant,
        # As kimimaro does it: boxes would leave out branches that turn back, a sixth of the length in real tissue.
        invalidation="ball",
    )
    centres = (nodes + 0.5) * size + np.array(job.offset_zyx)
    return Centreline(centres, edges.astype(np.int64), radii)


def choose_factor(box: Box, voxel_size_zyx: Sizes, most: int) -> Voxel:
    """Returns how many voxels are taken as one along each axis: as few as it takes, doubled along the finest axis."""
    by = [1, 1, 1]
    while np.prod([-(-side // step) for side, step in zip(box.shape, by, strict=True)]) > most:
        sizes = [size * step for size, step in zip(voxel_size_zyx, by, strict=True)]
        by[max(range(3), key=lambda axis: (-sizes[axis], box.shape[axis]))] *= 2
    return by[0], by[1], by[2]


def assemble(pieces: Iterable[Piece], box: Box, by: Voxel) -> UInt8[np.ndarray, "z y x"]:
    """Puts the masks together; a coarser voxel is in the object where any of its voxels is."""
    first = [low // step for low, step in zip(box.start, by, strict=True)]
    shape = [-(-high // step) - low for high, step, low in zip(box.stop, by, first, strict=True)]
    whole = np.zeros(shape, np.uint8)
    for mask, own in pieces:
        common = own.within(box)  # without what surrounds the object
        z, y, x = own.start
        inside = mask[common.shifted((-z, -y, -x)).slices]
        if by == (1, 1, 1):
            z, y, x = box.start
            whole[common.shifted((-z, -y, -x)).slices] |= inside
        else:
            places = ((np.nonzero(inside)[axis] + common.start[axis]) // by[axis] - first[axis] for axis in range(3))
            whole[tuple(places)] = 1
    return whole


def _cut_off(low: int, high: int, end: int) -> list[str]:
    """Returns the sides on which a box from `low` to `high` reaches the end of the volume."""
    return ["low"] * (low == 0) + ["high"] * (high == end)
