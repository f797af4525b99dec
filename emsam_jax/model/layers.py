"""Layers that the 3D parts share: a normalised convolution, the residual block, pooling, linear upsampling."""

import functools
from typing import Any

import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from emsam_jax.model.by_platform import convolve, double, elu, normalise

FeatureMap = Float[Array, "b z y x c"]
OtherFeatureMap = Float[Array, "b z2 y2 x2 c2"]
Factors = tuple[int, int, int]
_KERNEL = nnx.initializers.variance_scaling(2.0, "fan_in", "normal")


def conv(
    cin: int, cout: int, kernel_size: Factors, *, use_bias: bool = True, dtype: DTypeLike, rngs: nnx.Rngs
) -> nnx.Conv:
    """Makes a convolution of odd sides, zero-padded; only its kernel draws from the random stream."""
    kernel = _KERNEL(rngs.params(), (*kernel_size, cin, cout), jnp.float32)
    options: Any = {"kernel_init": lambda *_: kernel, "conv_general_dilated": convolve, "rngs": nnx.Rngs(0)}
    return nnx.Conv(cin, cout, kernel_size, use_bias=use_bias, dtype=dtype, **options)


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

    def __call__(self, x: FeatureMap) -> OtherFeatureMap:
        return normalise(self.norm, self.conv(x))


class ResidualBlock(nnx.Module):
    """A convolution of kernel `entry`, then two of (3, 3, 3) added to it; None skips the first."""

    def __init__(self, cin: int, cout: int, *, entry: Factors | None, groups: int, dtype: jnp.dtype, rngs: nnx.Rngs):
        normalised = functools.partial(Normalised, groups=groups, dtype=dtype, rngs=rngs)
        self.entry = normalised(cin, cout, entry) if entry else None
        self.first = normalised(cout, cout, (3, 3, 3))
        self.second = normalised(cout, cout, (3, 3, 3))

    def __call__(self, x: FeatureMap) -> OtherFeatureMap:
        if self.entry is not None:
            x = elu(self.entry(x))
        return elu(x + self.second(elu(self.first(x))))


def max_pool(x: FeatureMap, factors: Factors) -> OtherFeatureMap:
    """Takes a maximum over reshaped axes: XLA's reduce-window is slow on the CPU."""
    return _blocks(x, factors).max((2, 4, 6))


def mean_pool(x: FeatureMap, factors: Factors) -> OtherFeatureMap:
    return _blocks(x, factors).mean((2, 4, 6))


def _blocks(x: FeatureMap, factors: Factors) -> Float[Array, "b _ fz _ fy _ fx c"]:
    b, z, y, x_side, c = x.shape
    fz, fy, fx = factors
    return x.reshape(b, z // fz, fz, y // fy, fy, x_side // fx, fx, c)


def upsample(x: FeatureMap, factors: Factors) -> OtherFeatureMap:
    """Upsamples linearly, by powers of two, voxels centred."""
    for axis, factor in enumerate(factors, start=1):
        while factor > 1:
            x, factor = double(x, axis), factor // 2  # noqa: PLW2901
    return x


def ratios(fine: tuple[int, ...], coarse: tuple[int, ...]) -> Factors:
    """Returns how often the coarse shape fits into the fine one, along z, y, x."""
    z, y, x = (there // here for there, here in zip(fine, coarse, strict=True))
    return z, y, x
