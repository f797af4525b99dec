"""Scaled dot-product attention, in the form that is fastest on the platform it is compiled for."""

import functools

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from emsam_jax.config import AttentionKernel


def attend(
    q: Float[Array, "n q heads d"],
    k: Float[Array, "n t heads d"],
    v: Float[Array, "n t heads d"],
    kernel: AttentionKernel = "xla",
) -> Float[Array, "n q heads d"]:
    fused = functools.partial(jax.nn.dot_product_attention, implementation=kernel)
    return jax.lax.platform_dependent(q, k, v, cpu=_attend_keys_first, default=fused)


def _attend_keys_first(
    q: Float[Array, "n q heads d"], k: Float[Array, "n t heads d"], v: Float[Array, "n t heads d"]
) -> Float[Array, "n q heads d"]:
    """One batch axis and the logits as [keys, queries]: so XLA's batched products on the CPU run 1.5x as fast."""
    n, queries, heads, d = q.shape
    q, k, v = (a.swapaxes(1, 2).reshape(n * heads, -1, d) for a in (q * d**-0.5, k, v))
    logits = jnp.einsum("nqd,ntd->ntq", q, k, preferred_element_type=jnp.float32)
    weights = jax.nn.softmax(logits, axis=1).astype(v.dtype)
    out = jnp.einsum("ntq,ntd->nqd", weights, v)
    return out.reshape(n, heads, queries, d).swapaxes(1, 2)
