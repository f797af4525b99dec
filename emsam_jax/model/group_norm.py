"""Normalises groups, with a gradient that takes two sums and one pass.

The gradient derived from flax's takes five sums, and XLA computes what is summed anew for each of them. It does not do
so for products of matrices: the sums are taken as such (`benchmarks/train_step.py`).
"""

import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from emsam_jax.model.cpu.convolution import Sections

EPSILON = 1e-6  # flax's default
Vector = Float[Array, "c"]
PerChannel = Float[Array, "b c"]


@functools.partial(jax.custom_vjp, nondiff_argnums=(3,))
def group_norm(x: Sections, scale: Vector, bias: Vector, groups: int) -> Sections:
    """Normalises groups; statistics in float32, the result in x's own type. First-order gradients only."""
    return _forward(x, scale, bias, groups)[0]


def _forward(x: Sections, scale: Vector, bias: Vector, groups: int) -> tuple[Sections, Any]:
    values, scale, bias = x.astype(jnp.float32), scale[None], bias[None]
    mean = _mean_of_groups(_sums(values), groups, x)
    variance = _mean_of_groups(_products(values, values), groups, x) - mean**2
    rate = jax.lax.rsqrt(jnp.maximum(variance, 0) + EPSILON)
    y = values * _over_voxels(rate * scale) + _over_voxels(bias - mean * rate * scale)
    return y.astype(x.dtype), (x, scale, mean, rate)


def _backward(groups: int, kept: Any, gradient: Sections) -> tuple[Sections, Vector, Vector]:
    x, scale, mean, rate = kept
    values, g = x.astype(jnp.float32), gradient.astype(jnp.float32)
    of_bias = _sums(g)
    of_scale = (_products(g, values) - mean * of_bias) * rate
    offset = _mean_of_groups(scale * of_bias, groups, x)
    slope = _mean_of_groups(scale * of_scale, groups, x) * rate
    of_x = _over_voxels(rate * scale) * g - _over_voxels(rate * slope) * values
    of_x = of_x + _over_voxels(rate * (slope * mean - offset))
    return of_x.astype(x.dtype), of_scale.sum(0), of_bias.sum(0)


group_norm.defvjp(_forward, _backward)


def _sums(x: Sections) -> PerChannel:
    x = x.reshape(x.shape[0], -1, x.shape[-1])
    return jnp.einsum("n,bnc->bc", jnp.ones(x.shape[1]), x)


def _products(x: Sections, y: Sections) -> PerChannel:
    """Returns sums of x y."""
    x, y = (a.reshape(a.shape[0], -1, a.shape[-1]) for a in (x, y))
    return jnp.diagonal(jnp.einsum("bnc,bnd->bcd", x, y), axis1=1, axis2=2)


def _mean_of_groups(sums: PerChannel, groups: int, x: Sections) -> PerChannel:
    """Returns the mean of each channel's group, for each channel."""
    b, *voxels, c = x.shape
    size = c // groups
    return jnp.repeat(sums.reshape(b, groups, size).sum(-1) / (size * math.prod(voxels)), size, axis=1)


def _over_voxels(values: PerChannel) -> Float[Array, "b 1 1 1 c"]:
    return values[:, None, None, None]
