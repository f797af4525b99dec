"""Switches by platform: jax's own functions, or forms that fuse on accelerators, and on CPUs those of `model.cpu`.

It is decided as a program is lowered, by the platform of the lowering, whose devices need not be at hand. A gradient is
that of the form taken, and nothing of the other one is compiled. Each function is jitted so that calls for the same
shapes are traced once.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax.lax import platform_dependent
from jaxtyping import Array, Float

from emsam_jax.config import AttentionKernel
from emsam_jax.model.cpu import attend as attend_on_cpu
from emsam_jax.model.cpu import convolve as convolve_on_cpu
from emsam_jax.model.cpu import double as double_on_cpu
from emsam_jax.model.cpu import elu as elu_on_cpu
from emsam_jax.model.cpu import gelu as gelu_on_cpu
from emsam_jax.model.group_norm import Groups, Sum, group_norm, sum_by_products, sum_by_reduction


def convolve(x: Array, kernel: Array, strides: tuple[int, ...], padding: str, **options: Any) -> Array:
    """Computes the `conv_general_dilated` of an `nnx.Conv` whose output is as large as its input."""
    assert padding == "SAME", padding
    assert set(strides) == {1}, strides
    return _convolve(x, kernel, tuple({"window_strides": strides, "padding": padding, **options}.items()))


@functools.partial(jax.jit, static_argnums=2)
def _convolve(x: Array, kernel: Array, options: tuple[tuple[str, Any], ...]) -> Array:
    plain = functools.partial(jax.lax.conv_general_dilated, **dict(options))
    return platform_dependent(x, kernel, cpu=convolve_on_cpu, default=plain)


@jax.jit
def normalise(norm: nnx.GroupNorm, x: Float[Array, "b z y x c"]) -> Float[Array, "b z y x c"]:
    """Computes `norm(x)`; also where the channels of several pixels stand side by side."""
    assert norm.scale is not None
    assert norm.bias is not None
    pixels = x.shape[-1] // norm.scale.shape[0]
    scale, bias = (jnp.tile(values[...], pixels) for values in (norm.scale, norm.bias))
    groups = Groups(norm.num_groups, pixels)

    def by(take_sum: Sum) -> Callable[[Array], Any]:
        return lambda x: group_norm(x, scale, bias, groups, take_sum)

    if pixels > 1:  # on TPUs only
        return by(sum_by_reduction)(x)
    return platform_dependent(x, cpu=by(sum_by_products), default=by(sum_by_reduction))


@jax.jit
def elu(x: Array) -> Array:
    return platform_dependent(x, cpu=elu_on_cpu, default=jax.nn.elu)


@jax.jit
def gelu(x: Array) -> Array:
    """Computes the exact form, in float32 whatever the type, since in bfloat16 its lower tail is lost."""

    def plain(x: Array) -> Array:
        return jax.nn.gelu(x.astype(jnp.float32), approximate=False).astype(x.dtype)

    return platform_dependent(x, cpu=gelu_on_cpu, default=plain)


@functools.partial(jax.jit, static_argnames="kernel")
def attend(
    q: Float[Array, "n q heads d"],
    k: Float[Array, "n t heads d"],
    v: Float[Array, "n t heads d"],
    kernel: AttentionKernel = "xla",
) -> Float[Array, "n q heads d"]:
    """Computes scaled dot-product attention."""
    if q.shape[1] % 2 or k.shape[1] % 2:
        kernel = "xla"  # cuDNN has no gradient for odd lengths, such as a window of 7 x 7
    plain = functools.partial(jax.nn.dot_product_attention, implementation=kernel)
    return platform_dependent(q, k, v, cpu=attend_on_cpu, default=plain)


@functools.partial(jax.jit, static_argnames="axis")
def double(x: Float[Array, "b z y x c"], axis: int) -> Float[Array, "b z2 y2 x2 c"]:
    """Upsamples linearly, voxels centred: along the axis each voxel becomes two, mixed with its neighbours 3 to 1."""
    on_cpu = functools.partial(double_on_cpu, axis=axis)
    return platform_dependent(x, cpu=on_cpu, default=functools.partial(double_by_padding, axis=axis))


def double_by_padding(x: Array, axis: int) -> Array:
    """Doubles in the same axes throughout: what is stacked and reshaped is transposed for cuDNN, padding is fused."""
    n = x.shape[axis]
    first, last = (jax.lax.slice_in_dim(x, start, start + 1, axis=axis) for start in (0, n - 1))
    before = jnp.concatenate([first, jax.lax.slice_in_dim(x, 0, n - 1, axis=axis)], axis)
    after = jnp.concatenate([jax.lax.slice_in_dim(x, 1, n, axis=axis), last], axis)

    def spread(values: Array, place: int) -> Array:
        """Gives each value this place of two, and zeros the other."""
        gaps = [(place, 1 - place, 1) if each == axis else (0, 0, 0) for each in range(x.ndim)]
        return jax.lax.pad(values, jnp.zeros((), x.dtype), gaps)

    return spread(0.75 * x + 0.25 * before, 0) + spread(0.75 * x + 0.25 * after, 1)
