"""Folds blocks of pixels into the channels of one, where a TPU's tiles are 128 lanes wide.

A map of 28 channels moves as many bytes there as one of 128, and its products fill a twentieth of the matrix unit. With
2 x 2 pixels side by side it has 112, and the layers compute the same values: a convolution's kernel is laid out for
blocks, and a group of channels is normalised over the pixels that stand side by side. `compile.jit` asks for it where a
program is compiled for TPUs; elsewhere, and in what is exported for several platforms, pixels stand alone. A layer
takes and gives maps as they are: where two follow each other, XLA takes out that they are unfolded and folded again.
"""

import contextlib
import functools
import math
from collections.abc import Iterator
from contextvars import ContextVar
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

LANES = 128
ALONE = (1, 1)
Pixels = tuple[int, int]  # of a block, y and x
Voxels = tuple[int, int, int]  # along z, y, x
FeatureMap = Float[Array, "b z y x c"]
Folded = Float[Array, "b z blocks_y blocks_x pixels_c"]
OtherFolded = Float[Array, "b z2 blocks_y2 blocks_x2 pixels_c2"]
_filling = ContextVar("filling", default=False)


@contextlib.contextmanager
def filling_lanes(wanted: bool) -> Iterator[None]:
    """Lets `side_by_side` choose blocks within."""
    before = _filling.set(wanted)
    try:
        yield
    finally:
        _filling.reset(before)


def side_by_side(channels: int, plane: tuple[int, ...]) -> Pixels:
    """Returns the block of at most 4 x 4 pixels that fills the lanes best and divides a plane of y x x pixels."""
    if not _filling.get():
        return ALONE
    y, x = plane
    blocks = [(fy, fx) for fy in (1, 2, 4) for fx in (fy, 2 * fy) if fx <= 4 and not (y % fy or x % fx)]
    return max((block for block in blocks if channels * block[0] * block[1] <= LANES), default=ALONE)


def fold(x: FeatureMap, pixels: Pixels) -> Folded:
    """Puts the channels of each block's pixels side by side."""
    if pixels == ALONE:
        return x
    b, z, y, width, c = x.shape
    fy, fx = pixels
    blocks = x.reshape(b, z, y // fy, fy, width // fx, fx, c).transpose(0, 1, 2, 4, 3, 5, 6)
    return blocks.reshape(b, z, y // fy, width // fx, fy * fx * c)


def unfold(x: Folded, pixels: Pixels) -> FeatureMap:
    """Undoes `fold`."""
    if pixels == ALONE:
        return x
    b, z, y, width, c = x.shape
    fy, fx = pixels
    blocks = x.reshape(b, z, y, width, fy, fx, c // (fy * fx)).transpose(0, 1, 2, 4, 3, 5, 6)
    return blocks.reshape(b, z, y * fy, width * fx, c // (fy * fx))


def convolve_folded(x: Folded, kernel: Float[Array, "kz ky kx cin cout"], pixels: Pixels) -> OtherFolded:
    """Convolves with stride 1 and zeros around: each weight stands wherever it joins two pixels of the same or of
    neighbouring blocks.
    """
    along_y, along_x = (_places(side, one) for side, one in zip(kernel.shape[1:3], pixels, strict=True))
    laid = jnp.einsum("zyxio,Yaby,Xpqx->zYXapibqo", kernel, along_y, along_x)
    return _convolve(x, laid, "SAME")


def upsample_folded(x: FeatureMap, factors: Voxels, pixels: Pixels) -> OtherFolded:
    """Upsamples by powers of two, linearly and voxels centred, to a map with `pixels` side by side.

    It is one convolution with fixed weights, of blocks that stand apart (`lhs_dilation`) by as many as each becomes.
    What is sliced, padded or reshaped instead is moved once for each pixel.
    """
    made = (1, *pixels)  # of z, y, x, as all that follows
    seen = [max(1, one // factor) for one, factor in zip(made, factors, strict=True)]  # of x, for a block of the result
    apart = [max(1, factor // one) for one, factor in zip(made, factors, strict=True)]
    beyond = [(one, one) if factor > 1 else (0, 0) for one, factor in zip(seen, factors, strict=True)]
    x = jnp.pad(x, ((0, 0), *beyond, (0, 0)), "edge")
    around = [(one - 1, one - 1) for one in apart]
    along_z, along_y, along_x = (_shares(factor, one) for factor, one in zip(factors, made, strict=True))
    same = np.eye(x.shape[-1], dtype=np.float32)
    laid = jnp.einsum("io,Z,Yab,Xpq->ZYXapibqo", same, along_z[:, 0, 0], along_y, along_x)
    return _convolve(fold(x, (seen[1], seen[2])), laid, around, lhs_dilation=apart, precision="highest")


def max_of_pixels(x: Folded, pixels: Pixels) -> FeatureMap:
    return x if pixels == ALONE else _max_of_parts(x, pixels[0] * pixels[1])


@functools.partial(jax.custom_vjp, nondiff_argnums=(1,))
def _max_of_parts(x: Folded, parts: int) -> FeatureMap:
    return functools.reduce(jnp.maximum, jnp.split(x, parts, -1))


def _spread_gradient(parts: int, kept: tuple[Folded, FeatureMap], g: FeatureMap) -> tuple[Folded]:
    """Gives each part that has the maximum as much, as the gradient of a reduction does, in one pass."""
    x, highest = kept
    chosen = (x == jnp.concatenate([highest] * parts, -1)).astype(g.dtype)
    shared = g / functools.reduce(jnp.add, jnp.split(chosen, parts, -1))
    return (jnp.concatenate([shared] * parts, -1) * chosen,)


def _keep_highest(x: Folded, parts: int) -> tuple[FeatureMap, tuple[Folded, FeatureMap]]:
    highest: Any = _max_of_parts(x, parts)
    return highest, (x, highest)


_max_of_parts.defvjp(_keep_highest, _spread_gradient)


def _convolve(
    x: Folded, laid: Float[Array, "kz ky kx fy fx cin gy gx cout"], padding: Any, **options: Any
) -> OtherFolded:
    """`laid` is the kernel for pixels fy x fx of x's blocks and gy x gx of the result's."""
    cin, cout = math.prod(laid.shape[3:6]), math.prod(laid.shape[6:])
    kernel = laid.reshape(*laid.shape[:3], cin, cout).astype(x.dtype)
    layout = ("NDHWC", "DHWIO", "NDHWC")
    return jax.lax.conv_general_dilated(x, kernel, (1, 1, 1), padding, dimension_numbers=layout, **options)


def _places(side: int, pixels: int) -> Float[np.ndarray, "blocks pixels pixels side"]:
    """Is 1 where a tap of the kernel, the last axis, joins an input's pixel to an output's, so many blocks apart."""
    reach = -(-(side // 2) // pixels)
    blocks, seen, made = np.ogrid[-reach : reach + 1, :pixels, :pixels]
    distance = pixels * blocks + seen - made
    return (distance[..., None] + side // 2 == np.arange(side)).astype(np.float32)


def _shares(factor: int, pixels: int) -> Float[np.ndarray, "taps seen pixels"]:
    """Returns how much of each pixel of an input's block is in each of an output's, so many dilated blocks apart."""
    if factor == 1:
        return np.eye(pixels, dtype=np.float32)[None]
    seen, apart = max(1, pixels // factor), max(1, factor // pixels)
    line = np.eye(3 * seen, dtype=np.float32)  # of three blocks, the result's pixels from those of the input
    for _ in range(int(math.log2(factor))):
        before, after = np.vstack([line[:1], line[:-1]]), np.vstack([line[1:], line[-1:]])
        line = np.stack([0.75 * line + 0.25 * before, 0.75 * line + 0.25 * after], 1).reshape(-1, 3 * seen)
    middle = line.reshape(3, apart, pixels, 3, seen)[1]
    return middle[::-1].transpose(2, 0, 3, 1).reshape(3 * apart, seen, pixels)
