"""SAM2's feature pyramid: the trunk's four stages to three maps of 256 channels, in Flax NNX.

The official neck (`sam2/modeling/backbones/image_encoder.py`) also makes sine position encodings, which only SAM2's
mask decoder and memory use, and drops its deepest level (`scalp=1`) after mixing it into the one above; so do we.
"""

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

CHANNELS = 256
TOP_DOWN_LEVEL = 2  # stride 16: the only kept level that the one below it is added to
Tokens = Float[Array, "n h w c"]


class Lateral(nnx.Module):
    """A 1x1 convolution, run as the matrix product that it is: twice as fast on the CPU.

    It is a module of its own because in PyTorch it is a `Sequential` with one entry.
    """

    def __init__(self, dim: int, *, dtype: jnp.dtype, rngs: nnx.Rngs):
        self.conv = nnx.Conv(dim, CHANNELS, (1, 1), dtype=dtype, rngs=rngs)

    def __call__(self, x: Tokens) -> Float[Array, "n h w 256"]:
        kernel, bias = self.conv.kernel, self.conv.bias
        assert bias is not None
        return x @ kernel[0, 0].astype(x.dtype) + bias[...].astype(x.dtype)[None, None, None]


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
