"""The convolution by sections is the one that XLA and scipy know, its gradients too."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from scipy.signal import correlate

from emsam_jax.model.cpu import convolve
from emsam_jax.model.layers import conv


def convolve_volume(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """XLA's own."""
    return jax.lax.conv_general_dilated(x, kernel, (1, 1, 1), "SAME", dimension_numbers=("NDHWC", "DHWIO", "NDHWC"))


CASES = {  # kernel sides and input channels and output channels, and the input's shape
    "isotropic": ((3, 3, 3), (6, 5), (2, 4, 6, 7)),
    "one section": ((3, 3, 3), (3, 4), (2, 1, 5, 5)),
    "flat": ((1, 3, 3), (4, 6), (2, 3, 5, 8)),
    "stem": ((1, 5, 5), (1, 8), (1, 2, 9, 6)),
    "deep stem": ((5, 5, 5), (1, 3), (1, 4, 5, 6)),
    "depth": ((3, 1, 1), (5, 5), (1, 6, 3, 4)),
    "point": ((1, 1, 1), (7, 2), (2, 3, 4, 5)),
}


@pytest.mark.parametrize("case", CASES)
def test_both_forms_agree_and_so_do_their_gradients(case):
    sides, channels, shape = CASES[case]
    keys = jax.random.split(jax.random.key(0), 3)
    x = jax.random.normal(keys[0], (*shape, channels[0]))
    kernel = jax.random.normal(keys[1], (*sides, *channels)) * np.prod((*sides, channels[0])) ** -0.5
    g = jax.random.normal(keys[2], (*shape, channels[1]))

    @jax.jit
    def both(x, kernel, g):
        results = []
        for function in (convolve, convolve_volume):
            y, backward = jax.vjp(function, x, kernel)
            results.append((y, *backward(g)))
        return results

    for ours, xlas in zip(*both(x, kernel, g), strict=True):
        assert ours.shape == xlas.shape
        np.testing.assert_allclose(ours, xlas, atol=1e-5 * max(1.0, float(jnp.abs(xlas).max())))


def test_a_voxel_is_the_sum_that_scipy_makes():
    rng = np.random.default_rng(0)
    x, kernel = rng.normal(size=(5, 6, 7)), rng.normal(size=(3, 5, 3))
    ours = convolve(*(jnp.asarray(a, jnp.float32) for a in (x[None, ..., None], kernel[..., None, None])))
    np.testing.assert_allclose(ours[0, ..., 0], correlate(x, kernel, mode="same"), atol=1e-5)


def test_layer_adds_a_bias_and_learns_it():
    layer = conv(3, 4, (3, 3, 3), dtype=jnp.float32, rngs=nnx.Rngs(0))
    assert layer.bias is not None
    layer.bias[...] = jnp.arange(4.0)
    x = jax.random.normal(jax.random.key(1), (2, 4, 5, 6, 3))
    expected = convolve_volume(x, layer.kernel[...]) + jnp.arange(4.0)[None, None, None, None]
    np.testing.assert_allclose(layer(x), expected, atol=1e-5)
    gradient = jax.grad(lambda layer: layer(x).sum())(layer)
    np.testing.assert_allclose(gradient.bias[...], 2 * 4 * 5 * 6, rtol=1e-6)


def test_half_precision_stays_and_is_near():
    layer, half = (conv(16, 8, (3, 3, 3), dtype=dtype, rngs=nnx.Rngs(0)) for dtype in (jnp.float32, jnp.bfloat16))
    x = jax.random.normal(jax.random.key(1), (1, 4, 6, 6, 16))
    assert half(x).dtype == jnp.bfloat16
    assert half.kernel[...].dtype == jnp.float32
    error = jnp.abs(layer(x) - half(x).astype(jnp.float32)).max() / jnp.abs(layer(x)).max()
    assert 1e-4 < float(error) < 3e-2


def test_nothing_but_the_input_is_kept_for_the_gradient():
    layer = conv(8, 8, (3, 3, 3), use_bias=False, dtype=jnp.float32, rngs=nnx.Rngs(0))
    x = jax.ShapeDtypeStruct((1, 4, 16, 16, 8), jnp.float32)
    kept = jax.tree.leaves(jax.eval_shape(lambda layer, x: jax.vjp(lambda x, layer: layer(x), x, layer)[1], layer, x))
    platform = 1  # its index
    assert sum(leaf.size for leaf in kept) == x.size + layer.kernel[...].size + platform


def test_batches_spread_over_devices_give_the_same():
    mesh = jax.make_mesh((8,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    spread = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("data"))
    x, kernel = (
        jax.random.normal(jax.random.key(0), (8, 4, 5, 6, 3)),
        jax.random.normal(jax.random.key(1), (3, 3, 3, 3, 4)),
    )
    step = jax.jit(jax.value_and_grad(lambda kernel, x: (convolve(x, kernel) ** 2).sum()))
    for ours, alone in zip(step(kernel, jax.device_put(x, spread)), step(kernel, x), strict=True):
        np.testing.assert_allclose(ours, alone, rtol=1e-4)
