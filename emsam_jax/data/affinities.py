"""Affinities from labels, with the mask of those that can be known.

| the two voxels | affinity | valid |
|---|---|---|
| same neuron | 1 | yes |
| different neurons, or background on either side | 0 | yes |
| unlabelled on either side, or one of them outside | 0 | no |
"""

from collections.abc import Sequence
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float32, Int, Integer

Offset = tuple[int, int, int]
Widening = Literal["none", "2d", "3d"]

SHORT_OFFSETS: tuple[Offset, ...] = ((-1, 0, 0), (0, -1, 0), (0, 0, -1))
_INT32 = np.iinfo(np.int32)


class AffinityError(ValueError):
    """Something that a user can put right, said in one sentence."""


def affinities_from_labels(
    labels: Integer[Array, "z y x"] | Integer[np.ndarray, "z y x"],
    offsets: Sequence[Sequence[int]] = SHORT_OFFSETS,
    background: int | None = 0,
    unlabelled: int | None = None,
) -> tuple[Float32[Array, "c z y x"], Bool[Array, "c z y x"]]:
    """Channel c at voxel v joins v and v + offsets[c]."""
    if isinstance(labels, np.ndarray):
        labels, background, unlabelled = _to_int32(labels, background, unlabelled)
    shape = labels.shape
    for offset in offsets:
        if len(offset) != 3 or not any(offset):
            raise AffinityError(f"An offset is three voxel counts (z, y, x), not all of them 0; got {tuple(offset)}.")
    known = jnp.ones(shape, bool) if unlabelled is None else labels != unlabelled
    neuron = known if background is None else known & (labels != background)

    reach = [tuple(max(sign * offset[axis] for offset in [*offsets, (0, 0, 0)]) for sign in (-1, 1)) for axis in range(3)]
    padded, padded_known = jnp.pad(labels, reach), jnp.pad(known, reach)

    def partners(of: Array, offset: Sequence[int]) -> Array:
        start = [before + shift for (before, _), shift in zip(reach, offset, strict=True)]
        return jax.lax.slice(of, start, [first + n for first, n in zip(start, shape, strict=True)])

    joined = jnp.stack([neuron & (labels == partners(padded, offset)) for offset in offsets])
    valid = jnp.stack([known & partners(padded_known, offset) for offset in offsets])
    return (joined & valid).astype(jnp.float32), valid


def widen_borders(
    labels: Int[Array, "z y x"],
    widening: Widening,
    radius: int = 1,
    background: int = 0,
    unlabelled: int | None = None,
) -> Int[Array, "z y x"]:
    """Neuron voxels with another neuron within `radius` of them (in the section for 2d, else in space) become
    background. Background and unlabelled voxels stay and widen nothing.
    """
    if widening == "none" or radius == 0:
        return labels
    neuron = labels != background
    if unlabelled is not None:
        neuron &= labels != unlabelled
    low, high = jnp.where(neuron, labels, _INT32.max), jnp.where(neuron, labels, _INT32.min)
    for axis in (1, 2) if widening == "2d" else (0, 1, 2):
        low = _windowed(low, axis, radius, jnp.minimum, _INT32.max)
        high = _windowed(high, axis, radius, jnp.maximum, _INT32.min)
    return jnp.where(neuron & (low != high), background, labels)


def _windowed(values: Array, axis: int, radius: int, choose: np.ufunc | jnp.ufunc, fill: int) -> Array:
    pad = [(radius if other == axis else 0,) * 2 for other in range(3)]
    padded, n = jnp.pad(values, pad, constant_values=fill), values.shape[axis]
    for shift in range(2 * radius + 1):
        values = choose(values, jax.lax.slice_in_dim(padded, shift, shift + n, axis=axis))
    return values


def _to_int32(
    labels: Integer[np.ndarray, "z y x"], background: int | None, unlabelled: int | None
) -> tuple[Int[Array, "z y x"], int | None, int | None]:
    """jax knows no 64-bit ids unless told to: where ids are too large, they are numbered anew."""
    special = [n for n in (background, unlabelled) if n is not None]
    fits = labels.dtype.kind == "i" and labels.itemsize <= 4 or labels.itemsize <= 2
    if not fits and labels.size:
        fits = int(labels.max()) <= _INT32.max and int(labels.min()) >= _INT32.min
    if fits and all(_INT32.min <= n <= _INT32.max for n in special):
        return jnp.asarray(labels.astype(np.int32)), background, unlabelled
    ids, numbers = np.unique(labels, return_inverse=True)
    places = {int(n): place for place, n in enumerate(ids)}
    renamed = [None if n is None else places.get(n, -1 - at) for at, n in enumerate((background, unlabelled))]
    return jnp.asarray(numbers.reshape(labels.shape).astype(np.int32)), renamed[0], renamed[1]
