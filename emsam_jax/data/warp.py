"""Composes everything that moves voxels into one field of coordinates, which is sampled once, on the host.

Sections are never interpolated between: a field says where in its section a voxel is read (for all sections alike),
which section, and how far that section is displaced. Raw is read linearly in y and x, labels from the nearest voxel.
"""

import itertools
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Float32, Int, Shaped

from emsam_jax.config import Augmentation, Voxels
from emsam_jax.data.affinities import Target
from emsam_jax.volumes import Box

Read = Callable[[Box], Shaped[np.ndarray, "zv yv xv"]]
Plane = Float[np.ndarray, "2 y x"]


class Turn(NamedTuple):
    """A symmetry of the voxels."""

    axis: int = 0  # of the volume, that becomes the patch's z
    transposed: bool = False  # whether the other two, in their order, become x and y
    flips: tuple[int, int, int] = (1, 1, 1)  # -1 where it runs backwards: the axis, then the other two

    @property
    def axes(self) -> Voxels:
        """Returns which axis of the patch each axis of the volume becomes."""
        axes = [2, 1] if self.transposed else [1, 2]
        axes.insert(self.axis, 0)
        z, y, x = axes
        return z, y, x

    def shape(self, patch: Voxels) -> Voxels:
        """Returns the shape of the box in the volume that becomes the patch."""
        z, y, x = (patch[axis] for axis in self.axes)
        return z, y, x


def turns(isotropic: bool) -> list[Turn]:
    """Lists the symmetries of the voxels: 16, or 48 where all axes may be exchanged."""
    flips = [(z, y, x) for z in (1, -1) for y in (1, -1) for x in (1, -1)]
    return [Turn(*turn) for turn in itertools.product(range(3 if isotropic else 1), (False, True), flips)]


class WarpField(NamedTuple):
    """Where each voxel of a patch is read in the volume, in voxels."""

    axis: int  # of the volume, across which sections lie
    sections: Int[np.ndarray, " z"]
    plane: Plane  # along the two other axes
    shifts: Int[np.ndarray, "z 2"]  # of each section, along these

    def crop(self, start: Voxels, shape: Voxels) -> "WarpField":
        (z, y, x), (nz, ny, nx) = start, shape
        return self._replace(
            sections=self.sections[z : z + nz],
            plane=self.plane[:, y : y + ny, x : x + nx],
            shifts=self.shifts[z : z + nz],
        )

    def box(self) -> Box:
        """Returns the box of voxels that the field reads."""
        low = np.floor(self.plane.min((1, 2))).astype(int) + self.shifts.min(0)
        high = np.ceil(self.plane.max((1, 2))).astype(int) + self.shifts.max(0) + 1
        z0, y0, x0 = np.insert(low, self.axis, self.sections.min()).tolist()
        z1, y1, x1 = np.insert(high, self.axis, self.sections.max() + 1).tolist()
        return Box((z0, y0, x0), (z1, y1, x1))


def draw_field(
    rng: np.random.Generator, augmentation: Augmentation, target: Target, turn: Turn, place: Box
) -> WarpField:
    """Draws a field for the target's patch with its margin, warped around the middle of its place in the volume."""
    z, y, x = (
        np.arange(-before, side + behind) - (side - 1) / 2
        for side, before, behind in zip(target.patch, *target.margin, strict=True)
    )
    middle = [(start + stop - 1) / 2 for start, stop in zip(*place, strict=True)]
    middle_of_sections = middle.pop(turn.axis)
    sections = np.rint(middle_of_sections + turn.flips[0] * z).astype(int)

    # Seen from the middle: [a, b] in the volume = matrix @ [y, x] of the patch, then the elastic displacement.
    straight = np.eye(2)[::-1] if turn.transposed else np.eye(2)
    matrix = np.array(turn.flips[1:])[:, None] * straight @ _rotation_and_scale(rng, augmentation)
    plane = np.stack([a * y[:, None] + b * x + at for (a, b), at in zip(matrix, middle, strict=True)])
    plane += _elastic(rng, augmentation, (len(y), len(x)))
    return WarpField(turn.axis, sections, plane, _displacements(rng, augmentation, len(z)))


def sample_linear(read: Read, field: WarpField) -> Float32[np.ndarray, "z y x"]:
    take = _reader(read, field)
    corner = np.floor(field.plane)
    fraction_y, fraction_x = (field.plane - corner).astype(np.float32)
    y, x = corner.astype(np.intp)
    if not fraction_y.any() and not fraction_x.any():
        return take(y, x).astype(np.float32)
    # A fraction of 0 must not read on: the next voxel may lie outside what is read.
    below, right = y + (fraction_y > 0), x + (fraction_x > 0)
    upper = take(y, x) * (1 - fraction_x) + take(y, right) * fraction_x
    lower = take(below, x) * (1 - fraction_x) + take(below, right) * fraction_x
    return (upper * (1 - fraction_y) + lower * fraction_y).astype(np.float32, copy=False)


def sample_nearest(read: Read, field: WarpField) -> Shaped[np.ndarray, "z y x"]:
    y, x = np.rint(field.plane).astype(np.intp)
    return _reader(read, field)(y, x)


def _reader(
    read: Read, field: WarpField
) -> Callable[[Int[np.ndarray, "y x"], Int[np.ndarray, "y x"]], Shaped[np.ndarray, "z y x"]]:
    """Returns a function that gathers voxels at whole places in the plane, for all sections, from one box."""
    box = field.box()
    stack = np.moveaxis(read(box), field.axis, 0)
    width, flat = stack.shape[2], stack.reshape(len(stack), -1)
    corner = list(box.start)
    sections = field.sections - corner.pop(field.axis)
    backwards = len(sections) > 1 and sections[0] > sections[-1]
    # Few sections are displaced: all those between two that are not alike are taken at once.
    ends = [*np.flatnonzero(np.diff(field.shifts, axis=0).any(1)) + 1, len(sections)]
    runs = []
    for first, end in itertools.pairwise([0, *ends]):
        low, high = sorted((sections[first], sections[end - 1]))
        runs.append((slice(low, high + 1), field.shifts[first] @ (width, 1)))

    def take(y: Int[np.ndarray, "y x"], x: Int[np.ndarray, "y x"]) -> Shaped[np.ndarray, "z y x"]:
        at = (y - corner[0]) * width + (x - corner[1])
        parts = [np.take(flat[rows], at + shift, axis=1) for rows, shift in runs]
        taken = [part[::-1] if backwards else part for part in parts]
        return taken[0] if len(taken) == 1 else np.concatenate(taken)

    return take


def _rotation_and_scale(rng: np.random.Generator, augmentation: Augmentation) -> Float[np.ndarray, "2 2"]:
    do_rotate, do_scale = rng.random(2) < (augmentation.rotate, augmentation.scale)
    turn, size = rng.uniform(-1, 1, 2)
    angle = do_rotate * turn * np.deg2rad(augmentation.rotate_degrees)
    scale = augmentation.scale_by ** (do_scale * size)
    return scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])


def _elastic(rng: np.random.Generator, augmentation: Augmentation, shape: tuple[int, int]) -> Plane:
    """Draws random displacements of control points and interpolates them by cubic B-splines."""
    to_y, to_x = (_spline_basis(side, augmentation.elastic_spacing) for side in shape)
    points = np.clip(rng.standard_normal((2, to_y.shape[1], to_x.shape[1])), -2, 2) * augmentation.elastic_voxels
    return to_y @ points @ to_x.T if rng.random() < augmentation.elastic else np.zeros((2, *shape))


def _spline_basis(side: int, spacing: float) -> Float[np.ndarray, "side points"]:
    """Evaluates cubic B-splines, whose weighted means never lie beyond the farthest control point."""
    places = np.arange(side)[:, None] / spacing
    t = np.abs(places - np.arange(-1, int(np.ceil(side / spacing)) + 2))
    return np.where(t < 1, 2 / 3 - t**2 + t**3 / 2, np.clip(2 - t, 0, None) ** 3 / 6)


def _displacements(rng: np.random.Generator, augmentation: Augmentation, z: int) -> Int[np.ndarray, "z 2"]:
    slips, jumps = rng.random(2) < (augmentation.slip, augmentation.jump)
    slipped, jumped = rng.integers((0, 1 % z), z)
    most = augmentation.misalign_voxels
    slip, jump = rng.integers(-most, most, (2, 2), endpoint=True)
    sections = np.arange(z)[:, None]
    moved = np.where(sections == slipped, slips * slip, 0) + np.where(sections >= jumped, jumps * jump, 0)
    return np.clip(moved, -most, most)
