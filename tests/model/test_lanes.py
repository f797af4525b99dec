"""Pixels side by side in a TPU's lanes: other arrays, the same values."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from emsam_jax.config import EncoderConfig, ModelConfig
from emsam_jax.model import abstract_fgnet, flat_state, jit
from emsam_jax.model.encoder_checkpoint import fill
from emsam_jax.model.lanes import filling_lanes, fold, side_by_side, unfold
from emsam_jax.model.layers import upsample

RNG = np.random.default_rng(0)


def test_blocks_fill_the_lanes_and_divide_the_map():
    with filling_lanes(True):
        whole = {channels: side_by_side(channels, (160, 160)) for channels in (1, 8, 28, 36, 64, 65)}
        cut = [side_by_side(8, (y, x)) for y, x in ((10, 20), (5, 10), (5, 7), (12, 6))]
    assert whole == {1: (4, 4), 8: (4, 4), 28: (2, 2), 36: (1, 2), 64: (1, 2), 65: (1, 1)}
    assert cut == [(2, 4), (1, 2), (1, 1), (2, 2)]
    assert side_by_side(8, (160, 160)) == (1, 1)  # where nobody asks


def test_channels_of_a_pixel_stand_side_by_side():
    x = np.arange(2 * 3 * 4 * 8 * 5, dtype=np.float32).reshape(2, 3, 4, 8, 5)
    folded = np.asarray(fold(jnp.asarray(x), (2, 4)))
    assert folded.shape == (2, 3, 2, 2, 5 * 8)
    np.testing.assert_array_equal(folded[1, 2, 1, 0, 6 * 5 :][:5], x[1, 2, 3, 2])
    np.testing.assert_array_equal(unfold(jnp.asarray(folded), (2, 4)), x)


@pytest.mark.parametrize("pixels", [(2, 2), (1, 2), (2, 4), (4, 4)])
@pytest.mark.parametrize("factors", [(1, 2, 2), (2, 4, 4), (4, 8, 1)])
def test_upsampling_into_lanes(factors: tuple[int, int, int], pixels: tuple[int, int]):
    x = jnp.asarray(RNG.normal(size=(1, 3, 4, 8, 5)), jnp.float32)
    np.testing.assert_allclose(unfold(upsample(x, factors, pixels), pixels), upsample(x, factors), atol=1e-6)


PLAIN = ModelConfig(encoder=EncoderConfig(size="none"), channels=(4, 8), norm_groups=2, isotropic=True)
GUIDED = dataclasses.replace(PLAIN, encoder=EncoderConfig(size="toy"), projected=4, isotropic=False)


@pytest.mark.parametrize(
    ("config", "side"), [(PLAIN, 16), pytest.param(GUIDED, 32, marks=pytest.mark.slow)], ids=["U-Net", "guided"]
)
def test_network_in_lanes_has_the_same_values_and_gradients(config: ModelConfig, side: int):
    """As TPUs run it, on the CPU: both paths, pooling, doubling, every parameter's gradient."""
    abstract = flat_state(abstract_fgnet(config))
    params = {name: jnp.asarray(RNG.normal(size=leaf.shape) / 2, jnp.float32) for name, leaf in abstract.items()}
    raw = jnp.asarray(RNG.uniform(size=(1, 4, side, side, 1)), jnp.float32)
    weights = jnp.asarray(RNG.normal(size=(1, 4, side, side, 3)), jnp.float32)

    def found(filled: bool) -> Any:
        def loss(params: dict[str, jax.Array]) -> Any:
            with filling_lanes(filled):
                maps = fill(abstract_fgnet(config), params)(raw)
            return (maps.refined * weights).mean(), maps.refined

        return jit(jax.value_and_grad(loss, has_aux=True)).lower(params)

    alone, in_lanes = found(False), found(True)
    kernels = ("x3x3x64x64xf32>", "x3x3x64x128xf32>")  # from 4 channels to 4, and to 8, of 4 x 4 pixels each
    assert [kernel in program.as_text() for program in (alone, in_lanes) for kernel in kernels] == [0, 0, 1, 1]
    ((_, map_alone), expected), ((_, map_in_lanes), gradients) = (each.compile()(params) for each in (alone, in_lanes))
    np.testing.assert_allclose(map_in_lanes, map_alone, rtol=1e-3, atol=1e-3)
    for name, gradient in expected.items():
        np.testing.assert_allclose(gradients[name], gradient, rtol=1e-3, atol=1e-5, err_msg=name)
