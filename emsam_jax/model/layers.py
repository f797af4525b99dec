"""What the 3D parts share: a normalised convolution, the residual block, pooling, linear upsampling."""

import functools

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from emsam_jax.model.convolution import Conv3D
from emsam_jax.model.group_norm import GroupNorm

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
        self.norm = GroupNorm(cout, groups, scale=scale)

    def __call__(self, x: Voxels) -> OtherVoxels:
        return self.norm(self.conv(x))


class ResidualBlock(nnx.Module):
    """A convolution of kernel `entry`, then two of (3, 3, 3) added to it; None makes do without the first."""

    def __init__(self, cin: int, cout: int, *, entry: Factors | None, groups: int, dtype: jnp.dtype, rngs: nnx.Rngs):
        normalised = functools.partial(Normalised, groups=groups, dtype=dtype, rngs=rngs)
        self.entry = normalised(cin, cout, entry) if entry else None
        self.first = normalised(cout, cout, (3, 3, 3))
        self.second = normalised(cout, cout, (3, 3, 3))

    def __call__(self, x: Voxels) -> OtherVoxels:
        if self.entry is not None:
            x = elu(self.entry(x))
        return elu(x + self.second(elu(self.first(x))))


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
            x, factor = jnp.asarray(_double(x, axis)), factor // 2  # noqa: PLW2901
    return x


def ratios(fine: tuple[int, ...], coarse: tuple[int, ...]) -> Factors:
    """How often the coarse shape fits into the fine one, along z, y, x."""
    z, y, x = (there // here for there, here in zip(fine, coarse, strict=True))
    return z, y, x


@functools.partial(jax.custom_vjp, nondiff_argnums=(1,))
def _double(x: Voxels, axis: int) -> OtherVoxels:
    before, after = _shift(x, axis, before=_end(x, axis, 0)), _shift(x, axis, after=_end(x, axis, -1))
    pairs = jnp.stack([0.25 * before + 0.75 * x, 0.75 * x + 0.25 * after], axis + 1)
    return pairs.reshape(*x.shape[:axis], 2 * x.shape[axis], *x.shape[axis + 1 :])


def _halve(axis: int, _: None, g: OtherVoxels) -> tuple[Voxels]:
    """The gradient of `_double`. The one that is derived from it is a sum of padded slices, slow on the CPU."""
    pairs = g.reshape(*g.shape[:axis], g.shape[axis] // 2, 2, *g.shape[axis + 1 :])
    even, odd = (jax.lax.index_in_dim(pairs, side, axis + 1, keepdims=False) for side in (0, 1))
    before, after = _shift(odd, axis, before=_end(even, axis, 0)), _shift(even, axis, after=_end(odd, axis, -1))
    return (0.75 * (even + odd) + 0.25 * (before + after),)


_double.defvjp(lambda x, axis: (_double(x, axis), None), _halve)


def _end(x: Voxels, axis: int, index: int) -> OtherVoxels:
    return jax.lax.index_in_dim(x, index, axis)


def _shift(x: Voxels, axis: int, *, before: OtherVoxels | None = None, after: OtherVoxels | None = None) -> Voxels:
    """Moved by one along the axis, away from `before` or from `after`, which takes the place that is free."""
    if before is not None:
        return jnp.concatenate([before, jax.lax.slice_in_dim(x, 0, -1, axis=axis)], axis)
    assert after is not None
    return jnp.concatenate([jax.lax.slice_in_dim(x, 1, None, axis=axis), after], axis)


@jax.custom_vjp
def elu(x: Array) -> Array:
    """Its gradient is had from its result, without another exponential."""
    return jnp.where(x > 0, x, jnp.exp(jnp.minimum(x, 0)) - 1)


def _elu(x: Array) -> tuple[Array, Array]:
    y = elu(x)
    return y, y


elu.defvjp(_elu, lambda y, g: (jnp.where(y > 0, g, g * (y + 1)),))
