"""Filters of raw that need no training: what edges, blobs and sheets look like at four scales.

A classifier of single voxels learns from them within seconds what a network takes an hour to find by itself.
"""

import itertools

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from scipy.ndimage import gaussian_filter1d

SIGMAS = (1.0, 1.6, 2.5, 4.0)  # voxels
_EPSILON = 1e-6
Image = Float[Array, "b z y x"]
Axes = tuple[int, ...]  # of the image, that are filtered


def count_filters(axes: Axes) -> int:
    return len(SIGMAS) * (3 + 2 * len(axes))


def filter_raw(raw: Image, axes: Axes) -> Float[Array, "b z y x c"]:
    """Returns, for each scale: the smoothed image, its gradient's length, its Laplacian, and the eigenvalues of its
    Hessian and of its structure tensor, in order. Each has mean 0 and standard deviation 1 over the patch.
    """
    found: list[Image] = []
    for sigma in SIGMAS:
        half = {axis: _differentiate(raw, axes, sigma / 2, {axis: 1}) for axis in axes}
        pairs = list(itertools.combinations_with_replacement(axes, 2))
        tensor = {(i, j): _differentiate(half[i] * half[j], axes, sigma, {}) for i, j in pairs}
        hessian = {(i, j): _differentiate(raw, axes, sigma, {i: 2} if i == j else {i: 1, j: 1}) for i, j in pairs}
        slopes = [_differentiate(raw, axes, sigma, {axis: 1}) for axis in axes]
        found += [
            _differentiate(raw, axes, sigma, {}),
            jnp.sqrt(sum(slope**2 for slope in slopes)),
            sum(hessian[axis, axis] for axis in axes),
            *_eigenvalues(hessian, axes),
            *_eigenvalues(tensor, axes),
        ]
    stacked = jnp.stack(found, -1)
    centred = stacked - stacked.mean((1, 2, 3), keepdims=True)
    return centred / jnp.sqrt((centred**2).mean((1, 2, 3), keepdims=True) + _EPSILON**2)


def _differentiate(image: Image, axes: Axes, sigma: float, orders: dict[int, int]) -> Image:
    """Filters by derivatives of a Gaussian, of order 0 where none is given: along each axis one matrix product."""
    for axis in axes:
        side = image.shape[axis]
        matrix = gaussian_filter1d(np.eye(side), sigma, axis=0, order=orders.get(axis, 0), mode="reflect")
        image = jnp.moveaxis(jnp.tensordot(jnp.asarray(matrix, image.dtype), image, (1, axis)), 0, axis)
    return image


def _eigenvalues(matrix: dict[tuple[int, int], Image], axes: Axes) -> list[Image]:
    """Returns the eigenvalues of a symmetric matrix at each voxel, the largest first, in closed form."""
    diagonal = [matrix[axis, axis] for axis in axes]
    middle = sum(diagonal) / len(axes)
    off = [matrix[pair] for pair in itertools.combinations(axes, 2)]
    spread = sum((value - middle) ** 2 for value in diagonal) + 2 * sum(value**2 for value in off)
    if len(axes) == 2:
        radius = jnp.sqrt(spread / 2)
        return [middle + radius, middle - radius]
    a, b, c = ((value - middle) for value in diagonal)
    d, e, f = off  # (z, y), (z, x), (y, x)
    determinant = a * (b * c - f**2) - d * (d * c - f * e) + e * (d * f - b * e)
    radius = jnp.sqrt(spread / 6)
    cosine = determinant / jnp.maximum(2 * radius**3, jnp.finfo(radius.dtype).tiny)
    angle = jnp.arccos(jnp.clip(cosine, -1, 1)) / 3
    first, last = (middle + 2 * radius * jnp.cos(angle + turn) for turn in (0.0, 2 * np.pi / 3))
    return [first, 3 * middle - first - last, last]
