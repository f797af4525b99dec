"""Everything that moves voxels, composed into one field of coordinates that is sampled once.

Sections are never interpolated between: a field says where in its section a voxel is read (for all sections alike),
which section, and how far that section is displaced. Raw is read linearly in y and x, labels from the nearest voxel.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Key, Shaped

from emsam_jax.data.augmentation import Augmentation, Voxels


class Field(NamedTuple):
    """Where each voxel of the patch is read in a window whose axes are taken in the order `axes`."""

    plane: Float[Array, "2 y x"]  # y and x in the window
    sections: Int[Array, " z"]
    shifts: Int[Array, "z 2"]  # of each section's y and x
    axes: Int[Array, "3"]  # which of the window's axes act as z, y, x


def draw_field(
    key: Key[Array, ""], augmentation: Augmentation, patch: Voxels, window: tuple[int, ...], isotropic: bool
) -> Field:
    turn_key, plane_key, elastic_key, shift_key = jax.random.split(key, 4)
    turns = jax.random.randint(turn_key, (5,), 0, jnp.array([2, 2, 2, 2, 3]))
    if not augmentation.symmetries:
        turns = jnp.zeros_like(turns)
    flip_z, flip_y, flip_x, transposed, axis = turns
    z, y, x = (jnp.arange(side, dtype=jnp.float32) - (side - 1) / 2 for side in patch)

    # Seen from the centre of the patch: [y, x] = matrix @ [y, x] of the patch, then the elastic displacement.
    straight = jnp.diag(1.0 - 2 * jnp.stack([flip_y, flip_x]).astype(jnp.float32))
    turned = jnp.where(transposed == 1, straight[::-1], straight) @ _rotation_and_scale(plane_key, augmentation)
    grid = jnp.stack([jnp.broadcast_to(y[:, None], patch[1:]), jnp.broadcast_to(x[None], patch[1:])])
    plane = jnp.einsum("ij,jyx->iyx", turned, grid, precision="highest")
    plane += _elastic(elastic_key, augmentation, patch)

    axes = (jnp.arange(3) + (axis if isotropic else 0)) % 3
    middle = (jnp.array(window)[axes] - 1) / 2
    sections = jnp.where(flip_z == 1, -z, z) + middle[0]
    return Field(
        plane + middle[1:, None, None],
        jnp.round(sections).astype(jnp.int32),
        _displacements(shift_key, augmentation, patch[0]),
        axes,
    )


def crop(field: Field, start: Voxels, shape: Voxels) -> Field:
    (z, y, x), (nz, ny, nx) = start, shape
    return Field(
        field.plane[:, y : y + ny, x : x + nx], field.sections[z : z + nz], field.shifts[z : z + nz], field.axes
    )


def sample_linear(window: Shaped[Array, "zw yw xw"], field: Field) -> Float[Array, "z y x"]:
    corner = jnp.floor(field.plane)
    fraction_y, fraction_x = (field.plane - corner)[:, None]
    at, (_, step_y, step_x) = _addresses(window.shape, field, corner.astype(jnp.int32))
    flat = window.reshape(-1)

    def read(offset: Array | int) -> Float[Array, "z y x"]:
        return jnp.take(flat, at + offset, mode="clip").astype(jnp.float32)

    # A fraction of 0 must not read on: the next voxel may lie outside the window.
    below, right = (jnp.where(f > 0, 1, 0) for f in (fraction_y, fraction_x))
    upper = read(0) * (1 - fraction_x) + read(right * step_x) * fraction_x
    lower = read(below * step_y) * (1 - fraction_x) + read(below * step_y + right * step_x) * fraction_x
    return upper * (1 - fraction_y) + lower * fraction_y


def sample_nearest(window: Shaped[Array, "zw yw xw"], field: Field) -> Shaped[Array, "z y x"]:
    at, _ = _addresses(window.shape, field, jnp.round(field.plane).astype(jnp.int32))
    return jnp.take(window.reshape(-1), at, mode="clip")


def _addresses(
    shape: tuple[int, ...], field: Field, plane: Int[Array, "2 y x"]
) -> tuple[Int[Array, "z y x"], Int[Array, "3"]]:
    """Places in the flattened window, and how far the next voxel along z, y and x is."""
    steps = jnp.array([shape[1] * shape[2], shape[2], 1], jnp.int32)[field.axes]
    in_plane = plane[0] * steps[1] + plane[1] * steps[2]
    of_section = field.sections * steps[0] + field.shifts @ steps[1:]
    return of_section[:, None, None] + in_plane[None], steps


def _rotation_and_scale(key: Key[Array, ""], augmentation: Augmentation) -> Float[Array, "2 2"]:
    do_rotate, do_scale, angle, size = jax.random.uniform(key, (4,))
    angle = jnp.where(do_rotate < augmentation.rotate, (2 * angle - 1) * np.deg2rad(augmentation.rotate_degrees), 0.0)
    scale = jnp.where(do_scale < augmentation.scale, augmentation.scale_by ** (2 * size - 1), 1.0)
    cos, sin = jnp.cos(angle), jnp.sin(angle)
    return scale * jnp.stack([jnp.stack([cos, -sin]), jnp.stack([sin, cos])])


def _elastic(key: Key[Array, ""], augmentation: Augmentation, patch: Voxels) -> Float[Array, "2 y x"]:
    """Random displacements of control points, joined by cubic B-splines."""
    if not augmentation.elastic:
        return jnp.zeros((2, *patch[1:]))
    do_key, point_key = jax.random.split(key)
    to_y, to_x = (_spline_basis(side, augmentation.elastic_spacing) for side in patch[1:])
    points = jax.random.truncated_normal(point_key, -2, 2, (2, to_y.shape[1], to_x.shape[1]))
    points *= augmentation.elastic_voxels * (jax.random.uniform(do_key) < augmentation.elastic)
    return jnp.einsum("ya,cab,xb->cyx", to_y, points, to_x, precision="highest")


def _spline_basis(side: int, spacing: float) -> Float[np.ndarray, "side points"]:
    """Cubic B-splines: no weighted mean of the points lies beyond the farthest of them."""
    places = np.arange(side)[:, None] / spacing
    t = np.abs(places - np.arange(-1, int(np.ceil(side / spacing)) + 2))
    return np.where(t < 1, 2 / 3 - t**2 + t**3 / 2, np.clip(2 - t, 0, None) ** 3 / 6).astype(np.float32)


def _displacements(key: Key[Array, ""], augmentation: Augmentation, z: int) -> Int[Array, "z 2"]:
    chance_key, place_key, far_key = jax.random.split(key, 3)
    slips, jumps = jax.random.uniform(chance_key, (2,)) < jnp.array([augmentation.slip, augmentation.jump])
    slipped, jumped = jax.random.randint(place_key, (2,), jnp.array([0, 1 % z]), z)
    most = augmentation.misalign_voxels
    slip, jump = jax.random.randint(far_key, (2, 2), -most, most + 1)
    sections = jnp.arange(z)[:, None]
    moved = jnp.where((sections == slipped) & slips, slip, 0) + jnp.where((sections >= jumped) & jumps, jump, 0)
    return jnp.clip(moved, -most, most)
