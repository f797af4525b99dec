"""Folds blocks of pixels into the channels of one, where a TPU's tiles are 128 lanes wide.

A map of 28 channels moves as many bytes there as one of 128, and its products fill a twentieth of the matrix unit. With
2 x 2 pixels side by side it has 112, and the layers compute the same values: a convolution's kernel is laid out for
blocks, and a group of channels is normalised over the pixels that stand side by side. `compile.jit` asks for it where a
program is compiled for TPUs; elsewhere, and in what is exported for several platforms, pixels stand alone. A layer
takes and gives maps as they are: where two follow each other, XLA takes out that they are unfolded and folded again.
"""

import contextlib
from collections.abc import Iterator
from contextvars import ContextVar

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

LANES = 128
ALONE = (1, 1)
Pixels = tuple[int, int]  # of a block, y and x
FeatureMap = Float[Array, "b z y x c"]
Folded = Float[Array, "b z blocks_y blocks_x pixels_c"]
_filling = ContextVar("filling", default=False)


@contextlib.contextmanager
def filling_lanes(wanted: bool) -> Iterator[None]:
    """Lets `side_by_side` choose blocks within."""
    before = _filling.set(wanted)
    try:
        yield
    finally:
        _filling.reset(before)


def side_by_side(channels: int, shape: tuple[int, ...]) -> Pixels:
    """Returns the block of at most 4 x 4 pixels that fills the lanes best and divides a map of this shape."""
    if not _filling.get():
        return ALONE
    y, x = shape[2:4]
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


def fold_kernel(
    kernel: Float[Array, "kz ky kx cin cout"], pixels: Pixels
) -> Float[Array, "kz _ _ pixels_cin pixels_cout"]:
    """Lays a convolution's kernel out for folded maps: each weight stands wherever it joins two pixels."""
    kz, ky, kx, cin, cout = kernel.shape
    along_y, along_x = _places(ky, pixels[0]), _places(kx, pixels[1])
    laid = jnp.einsum("zyxio,Yaby,Xpqx->zYXapibqo", kernel, along_y, along_x)
    block = pixels[0] * pixels[1]
    return laid.reshape(kz, len(along_y), len(along_x), block * cin, block * cout)


def _places(side: int, pixels: int) -> Float[np.ndarray, "blocks pixels pixels side"]:
    """Is 1 where a tap of the kernel, the last axis, joins an input's pixel to an output's, so many blocks apart."""
    reach = -(-(side // 2) // pixels)
    blocks, seen, made = np.ogrid[-reach : reach + 1, :pixels, :pixels]
    distance = pixels * blocks + seen - made
    return (distance[..., None] + side // 2 == np.arange(side)).astype(np.float32)
