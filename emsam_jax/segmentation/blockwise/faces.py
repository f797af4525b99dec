"""What the watershed of a block says about the block's faces, since it sees the voxels on both sides of them."""

import itertools
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Shaped, UInt8, UInt64

from emsam_jax.volumes import Box
from emsam_jax.volumes.box import Voxel


class Face(NamedTuple):
    axis: int
    upper: bool  # behind the block's last voxel, or before its first


FACES = tuple(Face(axis, upper) for axis, upper in itertools.product(range(3), (False, True)))


def compare_faces(found: UInt64[np.ndarray, "z y x"], inner: Box) -> UInt8[np.ndarray, " bytes"]:
    """For each pair of voxels across a face, whether both lie in one piece of `found`, as bits, face after face.

    `inner` is the block, in voxels of `found`. Where nothing is known of a face's other side, no pair does.
    """
    opinions = []
    for axis, upper in FACES:
        first = inner.stop[axis] if upper else inner.start[axis]
        here = np.zeros(_plane_of(inner.shape, axis), bool)
        if 0 < first < found.shape[axis]:
            before, after = (take_plane(found, axis, at, inner) for at in (first - 1, first))
            here = (before == after) & (after > 0)
        opinions.append(here.ravel())
    return np.packbits(np.concatenate(opinions))


def read_face(opinions: UInt8[np.ndarray, " bytes"], shape: Voxel, face: Face) -> Bool[np.ndarray, "a b"]:
    """Of a block of this shape."""
    sizes = [int(np.prod(_plane_of(shape, axis))) for axis, _ in FACES]
    number = FACES.index(face)
    first = sum(sizes[:number])
    bits = np.unpackbits(opinions, count=sum(sizes))[first : first + sizes[number]]
    return bits.astype(bool).reshape(_plane_of(shape, face.axis))


def take_plane(values: Shaped[np.ndarray, "z y x"], axis: int, at: int, within: Box) -> Shaped[np.ndarray, "a b"]:
    """The voxels of a plane across the axis that lie beside the box."""
    place: list[slice | int] = list(within.slices)
    place[axis] = at
    return values[tuple(place)]


def _plane_of(shape: Voxel, axis: int) -> tuple[int, int]:
    a, b = (side for other, side in enumerate(shape) if other != axis)
    return a, b
