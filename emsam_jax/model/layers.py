"""Layers that the networks share: linear, convolution, normalised convolution, residual block, pooling, upsampling."""

import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from emsam_jax.model.by_platform import convolve, double, elu, normalise
from emsam_jax.model.lanes import (
    ALONE,
    FeatureMap,
    Pixels,
    convolve_folded,
    fold,
    max_of_pixels,
    side_by_side,
    unfold,
    upsample_folded,
)

OtherFeatureMap = Float[Array, "b z2 y2 x2 c2"]
Factors = tuple[int, int, int]
_KERNEL = nnx.initializers.variance_scaling(2.0, "fan_in", "normal")


@jax.custom_vjp
def add_shared(x: Array, shared: Array) -> Array:
    """Adds a parameter along x's last axes or those of size 1; its gradient is summed in float32, whatever x's type.

    The derived one is summed in x's type: of 20,000 voxels in bfloat16 a fifth may be lost.
    """
    return x + shared.reshape((1,) * (x.ndim - shared.ndim) + shared.shape).astype(x.dtype)


def _sum_for_shared(shared: Array, g: Array) -> tuple[Array, Array]:
    shape = (1,) * (g.ndim - shared.ndim) + shared.shape
    axes = tuple(axis for axis, side in enumerate(shape) if side < g.shape[axis])
    return g, g.sum(axes, dtype=jnp.float32).reshape(shared.shape).astype(shared.dtype)


add_shared.defvjp(lambda x, shared: (add_shared(x, shared), shared), _sum_for_shared)


class Linear(nnx.Linear):
    """Flax's, with its bias added by `add_shared`."""

    def __call__(self, x: Float[Array, "*a cin"]) -> Float[Array, "*a cout"]:  # type: ignore[reportIncompatibleMethodOverride]
        assert self.bias is not None
        dtype = self.dtype or x.dtype
        return add_shared(x.astype(dtype) @ self.kernel[...].astype(dtype), self.bias[...])


class Conv(nnx.Conv):
    """Flax's, with its bias added by `add_shared`."""

    def __init__(self, *sizes: Any, use_bias: bool = True, **options: Any):
        super().__init__(*sizes, use_bias=use_bias, **options)
        self.use_bias = False  # to flax, which would add it

    def __call__(self, x: Float[Array, "b *a cin"], pixels: Pixels = ALONE) -> Float[Array, "b *c cout"]:  # type: ignore[reportIncompatibleMethodOverride]
        """`pixels` stand side by side in x and in the result."""
        dtype = self.dtype or x.dtype
        alone = pixels == ALONE
        y = super().__call__(x) if alone else convolve_folded(x.astype(dtype), self.kernel[...], pixels)
        return y if self.bias is None else add_shared(y, jnp.tile(self.bias[...], y.shape[-1] // self.out_features))


def conv(cin: int, cout: int, kernel_size: Factors, *, use_bias: bool = True, dtype: DTypeLike, rngs: nnx.Rngs) -> Conv:
    """Makes a convolution of odd sides, zero-padded; only its kernel draws from the random stream."""
    kernel = _KERNEL(rngs.params(), (*kernel_size, cin, cout), jnp.float32)
    options: Any = {"kernel_init": lambda *_: kernel, "conv_general_dilated": convolve, "rngs": nnx.Rngs(0)}
    return Conv(cin, cout, kernel_size, use_bias=use_bias, dtype=dtype, **options)


class Normalised(nnx.Module):
    """Convolution, then group normalisation. With `scale` 0 its output is zero until it is trained."""

    def __init__(
        self,
        cin: int,
        cout: int,
        kernel_size: Factors,
        *,
        groups: int,
        scale: float = 1.0,
        dtype: jnp.dtype,
        rngs: nnx.Rngs,
    ):
        self.conv = conv(cin, cout, kernel_size, use_bias=False, dtype=dtype, rngs=rngs)
        initial = nnx.initializers.constant(scale)
        self.norm = nnx.GroupNorm(cout, groups, scale_init=initial, dtype=dtype, rngs=nnx.Rngs(0))  # draws nothing

    def __call__(self, x: FeatureMap, pixels: Pixels = ALONE) -> OtherFeatureMap:
        return normalise(self.norm, self.conv(x, pixels))


class ResidualBlock(nnx.Module):
    """A convolution of kernel `entry`, then two of (3, 3, 3) added to it; None skips the first."""

    def __init__(self, cin: int, cout: int, *, entry: Factors | None, groups: int, dtype: jnp.dtype, rngs: nnx.Rngs):
        normalised = functools.partial(Normalised, groups=groups, dtype=dtype, rngs=rngs)
        self.entry = normalised(cin, cout, entry) if entry else None
        self.first = normalised(cout, cout, (3, 3, 3))
        self.second = normalised(cout, cout, (3, 3, 3))

    def __call__(self, x: FeatureMap) -> OtherFeatureMap:
        pixels = side_by_side(max(x.shape[-1], self.first.conv.in_features), x.shape[2:4])
        x = fold(x, pixels)
        if self.entry is not None:
            x = elu(self.entry(x, pixels))
        return unfold(elu(x + self.second(elu(self.first(x, pixels)), pixels)), pixels)


def max_pool(x: FeatureMap, factors: Factors) -> OtherFeatureMap:
    """Takes a maximum over pixels side by side, and over reshaped axes: XLA's reduce-window is slow on the CPU."""
    fz, fy, fx = factors
    py, px = side_by_side(x.shape[-1], x.shape[2:4])
    pixels = (min(py, fy), min(px, fx))
    x = fold(x, pixels)
    if factors != (1, *pixels):
        x = _blocks(x, (fz, fy // pixels[0], fx // pixels[1])).max((2, 4, 6))
    return max_of_pixels(x, pixels)


def mean_pool(x: FeatureMap, factors: Factors) -> OtherFeatureMap:
    return _blocks(x, factors).mean((2, 4, 6))


def _blocks(x: FeatureMap, factors: Factors) -> Float[Array, "b _ fz _ fy _ fx c"]:
    b, z, y, x_side, c = x.shape
    fz, fy, fx = factors
    return x.reshape(b, z // fz, fz, y // fy, fy, x_side // fx, fx, c)


def upsample(x: FeatureMap, factors: Factors, pixels: Pixels = ALONE) -> OtherFeatureMap:
    """Upsamples linearly, by powers of two, voxels centred; with `pixels` side by side in the result."""
    if pixels != ALONE:
        return upsample_folded(x, factors, pixels)
    for axis, factor in enumerate(factors, start=1):
        for _ in range(int(math.log2(factor))):
            x = double(x, axis)
    return x


def ratios(fine: tuple[int, ...], coarse: tuple[int, ...]) -> Factors:
    """Returns how often the coarse shape fits into the fine one, along z, y, x."""
    z, y, x = (there // here for there, here in zip(fine, coarse, strict=True))
    return z, y, x
