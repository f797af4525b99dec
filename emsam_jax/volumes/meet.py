"""Maps volumes of different extents, levels and offsets, in world coordinates, onto the voxels of one of them."""

import math
from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Integer, Shaped

from emsam_jax.errors import UserError
from emsam_jax.volumes.box import Box
from emsam_jax.volumes.volume import Volume

_ROUNDING = 1e-4  # of a voxel: sizes such as 4/3 nm are written with few digits


def read_nearest(
    grid: Volume, volume: Volume, box: Box
) -> tuple[Shaped[np.ndarray, "z y x"], Bool[np.ndarray, "z y x"]]:
    """Reads, for each voxel of a box of `grid`, the volume's voxel at its centre, and whether there is one (else 0)."""
    indices = nearest_indices(grid, volume, box)
    span = span_of(indices)
    values = volume.read(span)
    if values.shape != box.shape:  # another voxel size: some are taken more than once, or not at all
        values = values[np.ix_(*[i - first for i, first in zip(indices, span.start, strict=True)])]
    z, y, x = ((i >= 0) & (i < size) for i, size in zip(indices, volume.shape, strict=True))
    return values, z[:, None, None] & y[None, :, None] & x[None, None, :]


def with_size_of(raw: Volume, volume: Volume) -> Volume:
    """Gives a volume without a voxel size that of the raw."""
    if volume.voxel_size_known or not raw.voxel_size_known:
        return volume
    own = {"offset_zyx": volume.offset_zyx, "offsets": volume.offsets, "native": volume.native}
    return Volume(volume.store, volume.url, voxel_size_zyx=raw.voxel_size_zyx, **own)


def nearest_indices(raw: Volume, volume: Volume, box: Box) -> list[Integer[np.ndarray, " n"]]:
    """Returns, for each axis, the volume's voxel in which the centre of each of the raw's voxels lies."""
    found = []
    for axis in range(3):
        centres = raw.offset_zyx[axis] + (np.arange(box.start[axis], box.stop[axis]) + 0.5) * raw.voxel_size_zyx[axis]
        place = (centres - volume.offset_zyx[axis]) / volume.voxel_size_zyx[axis]
        found.append(np.floor(place + _ROUNDING).astype(np.int64))
    return found


def span_of(indices: Sequence[Integer[np.ndarray, "..."]]) -> Box:
    """Returns the box that indices along z, y, x lie in."""
    (z0, z1), (y0, y1), (x0, x1) = ((int(i.min()), int(i.max()) + 1) for i in indices)
    return Box((z0, y0, x0), (z1, y1, x1))


def extent_on(raw: Volume, volume: Volume) -> Box:
    """Returns the volume's extent as a box of the raw's voxels: those whose centres it holds."""
    bounds = []
    for axis in range(3):
        start = (volume.offset_zyx[axis] - raw.offset_zyx[axis]) / raw.voxel_size_zyx[axis]
        length = volume.shape[axis] * volume.voxel_size_zyx[axis] / raw.voxel_size_zyx[axis]
        bounds.append([math.ceil(edge - 0.5 - _ROUNDING) for edge in (start, start + length)])
    (z0, z1), (y0, y1), (x0, x1) = bounds
    return Box((z0, y0, x0), (z1, y1, x1))


def check_meet(raw: Volume, volume: Volume) -> None:
    """Raises where the two cannot belong together."""
    if not raw.voxel_size_known and volume.voxel_size_known and volume.voxel_size_zyx != raw.voxel_size_zyx:
        raise UserError(
            f"{raw.url} has no voxel size, and {volume.url} has {volume.voxel_size_zyx} nm (z, y, x), so that nobody "
            "knows where they meet; give the raw's (--voxel_size, or raw_voxel_size_zyx in a config)."
        )
    same_grid = np.allclose(raw.voxel_size_zyx, volume.voxel_size_zyx) and raw.offset_zyx == volume.offset_zyx
    if same_grid and raw.shape != volume.shape and sorted(raw.shape) == sorted(volume.shape):
        raise UserError(
            f"{volume.url}: expected the shape {raw.shape} (z, y, x) of {raw.url}, found {volume.shape}: "
            "its axes are swapped."
        )
    if not extent_on(raw, volume).within(raw.box).voxels:
        raise UserError(
            f"{volume.url} lies at {_span(volume)} and {raw.url} at {_span(raw)} (nm, z, y, x): they share no voxel; "
            "correct the offset or the voxel size of one."
        )


def check_within(raw: Volume, labels: Volume) -> None:
    """Refuses labels that end a voxel of theirs or more beyond the raw: their size or place is wrong."""
    extent = extent_on(raw, labels)
    slack = [math.ceil(own / size) for own, size in zip(labels.voxel_size_zyx, raw.voxel_size_zyx, strict=True)]
    beyond = (
        start < -more or stop > side + more
        for start, stop, side, more in zip(*extent, raw.box.shape, slack, strict=True)
    )
    if any(beyond):
        raise UserError(
            f"{labels.url} reaches beyond {raw.url}: it covers {extent} of the raw's {raw.box} (z, y, x). Correct its "
            "voxel size or offset (--labels_voxel_size, --labels_offset, or labels_voxel_size_zyx, labels_offset_zyx "
            "in a config), or declare the region of interest (roi)."
        )


def _span(volume: Volume) -> str:
    edges = zip(volume.offset_zyx, volume.voxel_size_zyx, volume.shape, strict=True)
    return ", ".join(f"{offset:g} to {offset + size * count:g}" for offset, size, count in edges)
