"""SAM2's feature pyramid: the trunk's four stages to three maps of 256 channels, in Flax NNX.

The official neck (`sam2/modeling/backbones/image_encoder.py`) also makes sine position encodings, which only SAM2's
mask decoder and memory use, and drops its deepest level (`scalp=1`) after mixing it into the one above; so do we.
"""

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from emsam_jax.model.by_platform import convolve
from emsam_jax.model.hiera import Tokens
from emsam_jax.model.layers import Conv

CHANNELS = 256
TOP_DOWN_LEVEL = 2  # stride 16: the only kept level that the one below it is added to


class Lateral(nnx.Module):
    """A module of its own because in PyTorch it is a `Sequential` with one entry."""

    def __init__(self, dim: int, *, dtype: jnp.dtype, rngs: nnx.Rngs):
        self.conv = Conv(dim, CHANNELS, (1, 1), conv_general_dilated=convolve, dtype=dtype, rngs=rngs)

    def __call__(self, x: Tokens) -> Float[Array, "n h w 256"]:
        return self.conv(x)


class FpnNeck(nnx.Module):
    def __init__(self, channels: tuple[int, ...], *, dtype: jnp.dtype = jnp.float32, rngs: nnx.Rngs):
        """`channels`: of the trunk's stages, shallow to deep."""
        self.convs = nnx.List([Lateral(dim, dtype=dtype, rngs=rngs) for dim in reversed(channels)])  # deep to shallow

    def __call__(self, stages: tuple[Float[Array, "n _ _ _"], ...]) -> tuple[Float[Array, "n _ _ 256"], ...]:
        laterals = [conv(x) for conv, x in zip(self.convs, reversed(stages), strict=True)][::-1]
        laterals[TOP_DOWN_LEVEL] = laterals[TOP_DOWN_LEVEL] + upsample_nearest_2x(laterals[TOP_DOWN_LEVEL + 1])
        return tuple(laterals[:-1])


def upsample_nearest_2x(x: Tokens) -> Float[Array, "n 2*h 2*w c"]:
    n, h, w, c = x.shape
    return jnp.broadcast_to(x[:, :, None, :, None], (n, h, 2, w, 2, c)).reshape(n, 2 * h, 2 * w, c)
