"""Normalises groups, with a gradient that takes two sums and one pass.

The gradient derived from flax's takes five sums, and XLA computes what is summed anew for each of them. On CPUs it
does not do so for products of matrices: there the sums are taken as such (`benchmarks/train_step.py`). As compiled for
an H200, the gradient with two sums has a tenth to a fifth fewer kernels than the derived one, and about its bytes.
"""

import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

EPSILON = 1e-6  # flax's default
Sections = Float[Array, "b z y x c"]
Vector = Float[Array, "c"]
PerChannel = Float[Array, "b c"]
Sum = Callable[[Sections, Sections | None], PerChannel]  # of x, or of x y, over voxels


def sum_by_products(x: Sections, y: Sections | None) -> PerChannel:
    x = x.reshape(x.shape[0], -1, x.shape[-1])
    if y is None:
        return jnp.einsum("n,bnc->bc", jnp.ones(x.shape[1]), x)
    return jnp.diagonal(jnp.einsum("bnc,bnd->bcd", x, y.reshape(x.shape)), axis1=1, axis2=2)


def sum_by_reduction(x: Sections, y: Sections | None) -> PerChannel:
    return (x if y is None else x * y).sum((1, 2, 3))


class Groups(NamedTuple):
    number: int
    pixels: int = 1  # whose channels stand side by side


@functools.partial(jax.custom_vjp, nondiff_argnums=(3, 4))
def group_norm(x: Sections, scale: Vector, bias: Vector, groups: Groups, take_sum: Sum) -> Sections:
    """Normalises groups; statistics in float32, the result in x's own type. First-order gradients only."""
    return _forward(x, scale, bias, groups, take_sum)[0]


def _forward(x: Sections, scale: Vector, bias: Vector, groups: Groups, take_sum: Sum) -> tuple[Sections, Any]:
    values, scale, bias = x.astype(jnp.float32), scale[None], bias[None]
    mean = _mean_of_groups(take_sum(values, None), groups, x)
    variance = _mean_of_groups(take_sum(values, values), groups, x) - mean**2
    rate = jax.lax.rsqrt(jnp.maximum(variance, 0) + EPSILON)
    y = values * _over_voxels(rate * scale) + _over_voxels(bias - mean * rate * scale)
    return y.astype(x.dtype), (x, scale, mean, rate)


def _backward(groups: Groups, take_sum: Sum, kept: Any, gradient: Sections) -> tuple[Sections, Vector, Vector]:
    x, scale, mean, rate = kept
    values, g = x.astype(jnp.float32), gradient.astype(jnp.float32)
    of_bias = take_sum(g, None)
    of_scale = (take_sum(g, values) - mean * of_bias) * rate
    offset = _mean_of_groups(scale * of_bias, groups, x)
    slope = _mean_of_groups(scale * of_scale, groups, x) * rate
    of_x = _over_voxels(rate * scale) * g - _over_voxels(rate * slope) * values
    of_x = of_x + _over_voxels(rate * (slope * mean - offset))
    return of_x.astype(x.dtype), of_scale.sum(0), of_bias.sum(0)


group_norm.defvjp(_forward, _backward)


def _mean_of_groups(sums: PerChannel, groups: Groups, x: Sections) -> PerChannel:
    """Returns the mean of each channel's group, for each channel."""
    b, *voxels, c = x.shape
    of = (groups.pixels, groups.number, c // (groups.pixels * groups.number))
    totals = sums.reshape(b, *of).sum((1, 3), keepdims=True)
    return jnp.broadcast_to(totals / (c // groups.number * math.prod(voxels)), (b, *of)).reshape(b, c)


def _over_voxels(values: PerChannel) -> Float[Array, "b 1 1 1 c"]:
    return values[:, None, None, None]
