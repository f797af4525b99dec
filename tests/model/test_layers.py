"""The layers with gradients of their own, against flax's and jax's and the gradients that jax derives from those."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from scipy.special import ndtr

from emsam_jax.model import jit
from emsam_jax.model.group_norm import group_norm
from emsam_jax.model.hiera import gelu
from emsam_jax.model.layers import elu, upsample

RNG = np.random.default_rng(0)


def values(*shape: int) -> jax.Array:
    return jnp.asarray(RNG.standard_normal(shape) + 0.5, jnp.float32)


def flax_group_norm(x: Any, scale: jax.Array, bias: jax.Array) -> jax.Array:
    norm = nnx.GroupNorm(x.shape[-1], 3, rngs=nnx.Rngs(0))
    norm.scale, norm.bias = nnx.Param(scale), nnx.Param(bias)
    return norm(x)


def resize(x: jax.Array) -> jax.Array:
    b, z, y, width, c = x.shape
    return jax.image.resize(x, (b, 2 * z, y, 2 * width, c), "linear")


CASES = {
    "group norm": (lambda *a: group_norm(*a, 3), flax_group_norm, (values(2, 3, 4, 5, 6), values(6), values(6))),
    "gelu": (gelu, functools.partial(jax.nn.gelu, approximate=False), (3 * values(1000),)),
    "elu": (elu, jax.nn.elu, (5 * values(1000),)),
    "upsample": (lambda x: upsample(x, (2, 1, 2)), resize, (values(2, 3, 2, 4, 5),)),
}


@pytest.mark.parametrize("name", CASES)
def test_values_and_gradients_are_those_of_the_reference(name: str):
    ours, reference, arguments = CASES[name]
    expected, backward = jax.vjp(reference, *arguments)
    gradient = values(*expected.shape)
    found, our_gradients = jit(lambda a, g: (ours(*a), jax.vjp(ours, *a)[1](g)))(arguments, gradient)
    np.testing.assert_allclose(found, expected, atol=2e-6)
    for one, other in zip(our_gradients, backward(gradient), strict=True):
        np.testing.assert_allclose(one, other, atol=2e-5)


def test_group_norm_keeps_its_type_and_a_constant_harms_nothing():
    x = jnp.full((1, 2, 2, 2, 4), 3, jnp.bfloat16)
    y, backward = jax.vjp(lambda x: group_norm(x, jnp.ones(4), jnp.ones(4), 2), x)
    gradient = np.asarray(backward(y)[0], np.float32)
    assert jnp.asarray(y).dtype == jnp.bfloat16
    np.testing.assert_allclose(np.asarray(y, np.float32), 1, atol=1e-2)
    np.testing.assert_allclose(gradient, 0, atol=1e-2)


def test_gelu_in_half_precision_is_exact_up_to_its_last_rounding():
    """Also where it nearly vanishes: between -5 and -2."""
    x = jnp.linspace(-5, 5, 999).astype(jnp.bfloat16)
    exact = np.asarray(x, np.float64) * ndtr(np.asarray(x, np.float64))
    found = gelu(x)
    assert found.dtype == jnp.bfloat16
    np.testing.assert_allclose(np.asarray(found, np.float64), exact, rtol=2**-8, atol=1e-6)
