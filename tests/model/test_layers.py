"""The layers that all networks share."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from emsam_jax.model.layers import Conv, Linear, add_shared

SHAPE = (1, 20, 40, 25, 3)  # b z y x c: enough voxels for a running sum in bfloat16 to stop growing


@pytest.mark.parametrize(
    "layer",
    [Linear(3, 3, dtype=jnp.bfloat16, rngs=nnx.Rngs(0)), Conv(3, 3, (1, 1, 1), dtype=jnp.bfloat16, rngs=nnx.Rngs(0))],
)
def test_the_gradient_of_a_bias_is_summed_in_float32(layer: Any):
    gradient = jnp.asarray(np.random.default_rng(0).normal(0.3, 1, SHAPE), jnp.bfloat16)
    y, backward = jax.vjp(lambda layer: layer(jnp.ones(SHAPE, jnp.bfloat16)), layer)
    assert y.dtype == jnp.bfloat16
    exact = np.asarray(gradient, np.float64).sum((0, 1, 2, 3))
    np.testing.assert_allclose(backward(gradient)[0].bias[...], exact, rtol=1e-5)


def test_what_is_shared_along_some_axes_gets_the_sum_over_the_others():
    """Flax's and numpy's broadcasting, in values and gradients."""
    x, shared = jnp.ones((2, 3, 4, 5)), jnp.arange(20.0).reshape(1, 1, 4, 5)
    y, backward = jax.vjp(add_shared, x, shared)
    np.testing.assert_array_equal(y, np.asarray(x) + np.asarray(shared))
    np.testing.assert_array_equal(backward(jnp.full_like(x, 2.0))[1], np.full(shared.shape, 12.0))
