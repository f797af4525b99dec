"""Makes closed surfaces of masks, by marching cubes, and welds those of neighbouring blocks into one.

Every vertex lies halfway between two voxels. In halves of a voxel it is whole numbers, so that pieces meet exactly, and
areas are the same to the bit however the volume was cut.
"""

import itertools
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np
from bioimage_cpp.mesh import marching_cubes
from jaxtyping import Int64

from emsam_jax.objects.pieces import Piece
from emsam_jax.volumes import Sizes

_MOST_FACES = 1 << 23  # welded at once, about 200 bytes each
_LONGEST = 5  # of a triangle's normal, in halves of a voxel, along an axis: edges are at most 2 long


class Surface(NamedTuple):
    """Triangles, counterclockwise seen from outside with axes x, y, z."""

    vertices: Int64[np.ndarray, "n 3"]  # z, y, x in halves of a voxel from the volume's corner
    faces: Int64[np.ndarray, "m 3"]


def mesh_pieces(pieces: Iterable[Piece], most_faces: int = _MOST_FACES) -> Iterator[Surface]:
    """Yields the surface of an object in as few parts as memory allows, mostly one; parts meet exactly."""
    waiting, faces = [], 0
    for part in filter(None, map(mesh_mask, pieces)):
        if waiting and faces + len(part.faces) > most_faces:
            yield weld(waiting)
            waiting, faces = [], 0
        waiting.append(part)
        faces += len(part.faces)
    if waiting:
        yield weld(waiting)


def mesh_mask(piece: Piece) -> Surface | None:
    """Makes the surface within the cells of a mask; None where it has none. Where the mask is cut off, it is open."""
    if piece.mask.all():
        return None
    # Lewiner's tables join pairs of faces at ambiguous cells, which leaves edges that four triangles share.
    vertices, faces, *_ = marching_cubes(piece.mask, 0.5, method="lorensen")
    halves = np.rint(2 * vertices).astype(np.int64) + 2 * np.array(piece.box.start) + 1
    return Surface(halves, faces.astype(np.int64))


def weld(parts: list[Surface]) -> Surface:
    """Unites equal vertices; in an order of vertices and faces that does not depend on the parts."""
    vertices = np.concatenate([part.vertices for part in parts])
    counts = itertools.accumulate((len(part.vertices) for part in parts[:-1]), initial=0)
    faces = np.concatenate([part.faces + before for part, before in zip(parts, counts, strict=True)])
    low = vertices.min(0)
    sides = vertices.max(0) - low + 1
    codes, place = np.unique(np.ravel_multi_index(tuple((vertices - low).T), tuple(sides)), return_inverse=True)
    faces = place.reshape(-1)[faces]
    first = faces.argmin(1)[:, None]
    faces = np.take_along_axis(faces, (first + np.arange(3)) % 3, 1)
    faces = faces[np.lexsort(faces.T[::-1])]
    return Surface(np.stack(np.unravel_index(codes, tuple(sides)), 1) + low, faces)


def count_normals(surface: Surface) -> Int64[np.ndarray, " kinds"]:
    """Counts triangles by their normal: there are few, which makes the sum of areas exact."""
    a, b, c = (surface.vertices[surface.faces[:, corner]] for corner in range(3))
    normals = np.abs(np.cross(b - a, c - a))
    return np.bincount(np.ravel_multi_index(tuple(normals.T), (_LONGEST,) * 3), minlength=_LONGEST**3)


def area_of(counts: Int64[np.ndarray, " kinds"], voxel_size_zyx: Sizes) -> float:
    """Returns the area in nm^2 of triangles that were counted by their normals."""
    z, y, x = voxel_size_zyx
    normals = np.stack(np.unravel_index(np.arange(_LONGEST**3), (_LONGEST,) * 3), 1)
    areas = np.linalg.norm(normals * np.array([y * x, z * x, z * y]) / 4, axis=1) / 2
    return float((counts * areas).sum())
