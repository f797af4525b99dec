"""Filters of raw that need no training: what edges, blobs and sheets look like at four scales.

A classifier of single voxels learns from them within seconds what a network takes an hour to find by itself.
"""

import itertools

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from scipy.ndimage import gaussian_filter1d

SIGMAS = (1.0, 1.6, 2.5, 4.0)  # voxels
Image = Float[Array, "b z y x"]
Axes = tuple[int, ...]  # of the image, that are filtered
Orders = tuple[int, ...]  # of derivatives along those axes


def count_filters(axes: Axes) -> int:
    return len(SIGMAS) * (3 + 2 * len(axes))


def filter_raw(raw: Image, axes: Axes) -> Float[Array, "b c z y x"]:
    """Returns, for each scale: the smoothed image, its gradient's length, its Laplacian, and the eigenvalues of its
    Hessian and of its structure tensor, in order.
    """
    found: list[Image] = []
    pairs = list(itertools.combinations_with_replacement(range(len(axes)), 2))
    for sigma in SIGMAS:
        derivatives = _differentiate(raw, axes, sigma, most=2)
        half = _differentiate(raw, axes, sigma / 2, most=1)
        hessian = {(i, j): derivatives[_orders(axes, i, j)] for i, j in pairs}
        slopes = [half[_orders(axes, i)] for i in range(len(axes))]
        tensor = {(i, j): _differentiate(slopes[i] * slopes[j], axes, sigma, most=0)[_orders(axes)] for i, j in pairs}
        found += [
            derivatives[_orders(axes)],
            jnp.sqrt(sum(derivatives[_orders(axes, i)] ** 2 for i in range(len(axes)))),
            sum(hessian[i, i] for i in range(len(axes))),
            *_eigenvalues(hessian, len(axes)),
            *_eigenvalues(tensor, len(axes)),
        ]
    return jnp.stack(found, 1)


def _orders(axes: Axes, *along: int) -> Orders:
    return tuple(along.count(axis) for axis in range(len(axes)))


def _differentiate(image: Image, axes: Axes, sigma: float, most: int) -> dict[Orders, Image]:
    """Filters by the derivatives of a Gaussian up to an order in all: along each axis one matrix product.

    Each product puts its axis last, so that nothing is transposed: after all of them the axes are in order again.
    """
    found = {(): image.reshape(-1, *image.shape[axes[0] :])}
    for axis in axes:
        identity = np.eye(image.shape[axis])
        matrices = [
            jnp.asarray(gaussian_filter1d(identity, sigma, axis=0, order=order, mode="reflect"), image.dtype)
            for order in range(most + 1)
        ]
        found = {
            (*orders, order): _multiply(matrices[order], partly)
            for orders, partly in found.items()
            for order in range(most + 1 - sum(orders))
        }
    return {orders: filtered.reshape(image.shape) for orders, filtered in found.items()}


def _multiply(matrix: Float[Array, "s s"], images: Float[Array, "n s *others"]) -> Float[Array, "n *others s"]:
    """Multiplies along the second axis; in float32, which accelerators do not do by default."""
    n, side, *others = images.shape
    products = jnp.einsum("nso,is->noi", images.reshape(n, side, -1), matrix, precision="highest")
    return products.reshape(n, *others, side)


def _eigenvalues(matrix: dict[tuple[int, int], Image], size: int) -> list[Image]:
    """Returns the eigenvalues of a symmetric matrix at each voxel, the largest first, in closed form."""
    diagonal = [matrix[i, i] for i in range(size)]
    middle = sum(diagonal) / size
    off = [matrix[pair] for pair in itertools.combinations(range(size), 2)]
    spread = sum((value - middle) ** 2 for value in diagonal) + 2 * sum(value**2 for value in off)
    if size == 2:
        radius = jnp.sqrt(spread / 2)
        return [middle + radius, middle - radius]
    a, b, c = (value - middle for value in diagonal)
    d, e, f = off  # (z, y), (z, x), (y, x)
    determinant = a * (b * c - f**2) - d * (d * c - f * e) + e * (d * f - b * e)
    radius = jnp.sqrt(spread / 6)
    cosine = determinant / jnp.maximum(2 * radius**3, jnp.finfo(radius.dtype).tiny)
    angle = jnp.arccos(jnp.clip(cosine, -1, 1)) / 3
    first, last = (middle + 2 * radius * jnp.cos(angle + turn) for turn in (0.0, 2 * np.pi / 3))
    return [first, 3 * middle - first - last, last]
