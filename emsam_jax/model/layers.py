"""What the 3D parts share: a normalised convolution, the residual block, pooling, linear upsampling."""

import functools

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from emsam_jax.model.convolution import Conv3D

Voxels = Float[Array, "b z y x c"]
OtherVoxels = Float[Array, "b z2 y2 x2 c2"]
Factors = tuple[int, int, int]


class Normalised(nnx.Module):
    """Convolution, then group normalisation. `scale` 0 makes it give zeros until it has learned otherwise."""

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
        self.conv = Conv3D(cin, cout, kernel_size, use_bias=False, dtype=dtype, rngs=rngs)
        self.norm = nnx.GroupNorm(cout, groups, dtype=dtype, scale_init=nnx.initializers.constant(scale), rngs=rngs)

    def __call__(self, x: Voxels) -> OtherVoxels:
        return self.norm(self.conv(x))


class ResidualBlock(nnx.Module):
    """One (1, 3, 3) convolution, then two of (3, 3, 3) added to it; `flat` makes do without the first."""

    def __init__(self, cin: int, cout: int, *, flat: bool = True, groups: int, dtype: jnp.dtype, rngs: nnx.Rngs):
        normalised = functools.partial(Normalised, groups=groups, dtype=dtype, rngs=rngs)
        self.entry = normalised(cin, cout, (1, 3, 3)) if flat else None
        self.first = normalised(cout, cout, (3, 3, 3))
        self.second = normalised(cout, cout, (3, 3, 3))

    def __call__(self, x: Voxels) -> OtherVoxels:
        if self.entry is not None:
            x = jax.nn.elu(self.entry(x))
        return jax.nn.elu(x + self.second(jax.nn.elu(self.first(x))))


def max_pool(x: Voxels, factors: Factors) -> OtherVoxels:
    """A maximum over reshaped axes: XLA's reduce-window is slow on the CPU."""
    return _blocks(x, factors).max((2, 4, 6))


def mean_pool(x: Voxels, factors: Factors) -> OtherVoxels:
    return _blocks(x, factors).mean((2, 4, 6))


def _blocks(x: Voxels, factors: Factors) -> Float[Array, "b _ fz _ fy _ fx c"]:
    b, z, y, x_side, c = x.shape
    fz, fy, fx = factors
    return x.reshape(b, z // fz, fz, y // fy, fy, x_side // fx, fx, c)


def upsample(x: Voxels, factors: Factors) -> OtherVoxels:
    """Linear, by powers of two, voxels centred: each doubling mixes a voxel with its neighbours 3 to 1."""
    for axis, factor in enumerate(factors, start=1):
        while factor > 1:
            x, factor = _double(x, axis), factor // 2  # noqa: PLW2901
    return x


def ratios(fine: tuple[int, ...], coarse: tuple[int, ...]) -> Factors:
    """How often the coarse shape fits into the fine one, along z, y, x."""
    z, y, x = (there // here for there, here in zip(fine, coarse, strict=True))
    return z, y, x


def _double(x: Voxels, axis: int) -> OtherVoxels:
    first, last = (jax.lax.slice_in_dim(x, i, i + 1, axis=axis) for i in (0, x.shape[axis] - 1))
    before = jnp.concatenate([first, jax.lax.slice_in_dim(x, 0, x.shape[axis] - 1, axis=axis)], axis)
    after = jnp.concatenate([jax.lax.slice_in_dim(x, 1, x.shape[axis], axis=axis), last], axis)
    pairs = jnp.stack([0.25 * before + 0.75 * x, 0.75 * x + 0.25 * after], axis + 1)
    return pairs.reshape(*x.shape[:axis], 2 * x.shape[axis], *x.shape[axis + 1 :])
