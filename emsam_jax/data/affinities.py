"""Computes affinities from labels, with the mask of those that are known.

| the two voxels | affinity | valid |
|---|---|---|
| same neuron | 1 | yes |
| different neurons, or background on either side | 0 | yes |
| unlabelled on either side, or one of them outside | 0 | no |
"""

import dataclasses
import itertools
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float32, Int, Integer

from emsam_jax.config import SHORT_OFFSETS, Offset, Voxels, Widening
from emsam_jax.errors import UserError

_INT32 = np.iinfo(np.int32)


def affinities_from_labels(
    labels: Integer[Array, "z y x"] | Integer[np.ndarray, "z y x"],
    offsets: Sequence[Sequence[int]] = SHORT_OFFSETS,
    background: int | None = 0,
    unlabelled: int | None = None,
) -> tuple[Float32[Array, "c z y x"], Bool[Array, "c z y x"]]:
    """Computes affinities [c, z, y, x] and their mask; channel c at voxel v joins v and v + offsets[c]."""
    if isinstance(labels, np.ndarray):
        labels, background, unlabelled = _to_int32(labels, background, unlabelled)
    _check_offsets(offsets)
    margin = [max(abs(offset[axis]) for offset in offsets) for axis in range(3)]
    known = jnp.ones(labels.shape, bool) if unlabelled is None else labels != unlabelled
    wide = [(n, n) for n in margin]
    inside, known = jnp.pad(labels, wide), jnp.pad(known, wide)
    return affinities_within(inside, known, offsets, background, start=margin, shape=labels.shape)


def affinities_within(
    labels: Int[Array, "zl yl xl"],
    known: Bool[Array, "zl yl xl"],
    offsets: Sequence[Sequence[int]],
    background: int | None = 0,
    *,
    start: Sequence[int],
    shape: Sequence[int],
) -> tuple[Float32[Array, "c z y x"], Bool[Array, "c z y x"]]:
    """Computes affinities of the voxels [start, start + shape); voxels around them are partners only."""

    def shifted(values: Array, offset: Sequence[int]) -> Array:
        first = [at + by for at, by in zip(start, offset, strict=True)]
        return jax.lax.slice(values, first, [at + n for at, n in zip(first, shape, strict=True)])

    here, known_here = shifted(labels, (0, 0, 0)), shifted(known, (0, 0, 0))
    valid = [known_here & shifted(known, offset) for offset in offsets]
    joined = [here == shifted(labels, offset) for offset in offsets]
    if background is not None:
        joined = [same & (here != background) for same in joined]
    affinities = [(same & both).astype(jnp.float32) for same, both in zip(joined, valid, strict=True)]
    return jnp.stack(affinities), jnp.stack(valid)


def widen_borders(
    labels: Int[Array, "z y x"],
    widening: Widening,
    radius: int = 1,
    background: int = 0,
    unlabelled: int | None = None,
) -> Int[Array, "z y x"]:
    """Turns neuron voxels near another neuron into background.

    Near is within a square of `radius` to each side in the section (2d), within such a cube (3d), or at most `radius`
    steps from face to face away (faces). Background and unlabelled voxels stay and widen nothing.
    """
    if widening == "none" or radius == 0:
        return labels
    deep = 0 if widening == "2d" else radius
    wide = jnp.pad(labels, [(deep, deep), (radius, radius), (radius, radius)], constant_values=background)

    def neurons(ids: Array) -> Array:
        return ids != background if unlabelled is None else (ids != background) & (ids != unlabelled)

    border = jnp.zeros(labels.shape, bool)
    for start in itertools.product(range(2 * deep + 1), range(2 * radius + 1), range(2 * radius + 1)):
        if widening == "faces" and sum(abs(at - radius) for at in start) > radius:
            continue
        near = jax.lax.slice(wide, start, [at + n for at, n in zip(start, labels.shape, strict=True)])
        border |= neurons(near) & (near != labels)
    return jnp.where(border & neurons(labels), background, labels)


def _check_offsets(offsets: Sequence[Sequence[int]]) -> None:
    for offset in offsets:
        if len(offset) != 3 or not any(offset):
            raise UserError(f"An offset is three voxel counts (z, y, x), not all of them 0; got {tuple(offset)}.")


def _to_int32(
    labels: Integer[np.ndarray, "z y x"], background: int | None, unlabelled: int | None
) -> tuple[Int[Array, "z y x"], int | None, int | None]:
    """Converts ids to int32, since jax has no 64-bit integers by default; ids that are too large are renumbered."""
    special = [n for n in (background, unlabelled) if n is not None]
    fits = (labels.dtype.kind == "i" and labels.itemsize <= 4) or labels.itemsize <= 2
    if not fits and labels.size:
        fits = int(labels.max()) <= _INT32.max and int(labels.min()) >= _INT32.min
    if fits and all(_INT32.min <= n <= _INT32.max for n in special):
        return jnp.asarray(labels.astype(np.int32)), background, unlabelled
    ids, numbers = renumbered(labels)
    places = {int(n): place for place, n in enumerate(ids)}
    renamed = [None if n is None else places.get(n, -1 - at) for at, n in enumerate((background, unlabelled))]
    return jnp.asarray(numbers), renamed[0], renamed[1]


def renumbered(
    labels: Integer[np.ndarray, "z y x"],
) -> tuple[Integer[np.ndarray, " ids"], Int[np.ndarray, "z y x"]]:
    """Returns the ids that occur, ascending, and each voxel's index among them. Sorts runs, which are few."""
    flat = labels.ravel()
    heads = np.flatnonzero(np.concatenate([[True], flat[1:] != flat[:-1]]))
    ids, places = np.unique(flat[heads], return_inverse=True)
    numbers = np.repeat(places.astype(np.int32), np.diff(heads, append=flat.size))
    return ids, numbers.reshape(labels.shape)


BACKGROUND, UNLABELLED = 0, -1  # in samples, whatever the volume's own ids are


class Margin(NamedTuple):
    """Voxels around a patch that are read with it."""

    before: Voxels
    behind: Voxels


@dataclasses.dataclass(frozen=True)
class Target:
    patch: Voxels = (18, 160, 160)
    offsets: tuple[Offset, ...] = SHORT_OFFSETS
    widening: Widening = "2d"  # of borders: none, 2d (anisotropic voxels), faces or 3d (isotropic)
    radius: int = 1  # of the widening, voxels
    isotropic: bool = False  # all axes may be exchanged; the warp stays within planes

    @property
    def margin(self) -> Margin:
        """Returns what affinities at the patch's faces read, and the widening that short channels see there."""
        widened = {"none": (), "2d": (1, 2), "3d": (0, 1, 2), "faces": (0, 1, 2)}[self.widening]
        wide = [self.radius if axis in widened else 0 for axis in range(3)]
        short = [offset for offset in self.offsets if is_short(offset)]

        def sides(sign: int) -> Voxels:
            far, near = _reach(self.offsets, sign), _reach(short, sign)
            z, y, x = (max(a, b + more) for a, b, more in zip(far, near, wide, strict=True))
            return z, y, x

        return Margin(sides(-1), sides(1))


def is_short(offset: Offset) -> bool:
    """Returns whether the channel joins neighbours: these learn the widened borders."""
    return max(map(abs, offset)) == 1


def _reach(offsets: Iterable[Offset], sign: int) -> Voxels:
    z, y, x = (max((sign * offset[axis] for offset in offsets), default=0) for axis in range(3))
    return max(z, 0), max(y, 0), max(x, 0)
