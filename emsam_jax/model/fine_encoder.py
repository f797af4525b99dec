"""The Fine-Grained Encoder: the light 3D network that sees voxels at full resolution."""

import itertools

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from emsam_jax.model.by_platform import elu
from emsam_jax.model.filter_bank import count_filters, filter_raw
from emsam_jax.model.layers import Factors, FeatureMap, Normalised, ResidualBlock, conv

_MIXED = 32  # channels between filters and the first level


class FineEncoder(nnx.Module):
    """Levels of strides 1, 2, 4, ... within the section; z is pooled, and convolved by the blocks' first
    convolution, only where voxels are isotropic.
    """

    def __init__(
        self,
        channels: tuple[int, ...],
        *,
        isotropic: bool,
        filters: bool,
        groups: int,
        dtype: jnp.dtype,
        rngs: nnx.Rngs,
    ):
        self.pool: Factors = (2, 2, 2) if isotropic else (1, 2, 2)
        self.entry: Factors = (3, 3, 3) if isotropic else (1, 3, 3)
        stem = (5, 5, 5) if isotropic else (1, 5, 5)
        self.stem = Normalised(1, channels[0], stem, groups=groups, dtype=dtype, rngs=rngs)
        widths = zip((channels[0], *channels), channels, strict=False)
        self.blocks = nnx.List(
            [ResidualBlock(cin, cout, entry=self.entry, groups=groups, dtype=dtype, rngs=rngs) for cin, cout in widths]
        )

        self.axes = (1, 2, 3) if isotropic else (2, 3)
        sizes = (count_filters(self.axes), _MIXED, channels[0]) if filters else ()
        self.mixing = nnx.List([conv(a, b, (1, 1, 1), dtype=dtype, rngs=rngs) for a, b in itertools.pairwise(sizes)])

    def enter(self, raw: Float[Array, "b z y x 1"], dtype: jnp.dtype) -> FeatureMap:
        """Computes filters in float32: eigenvalues are differences of what is almost equal."""
        x = self.stem(raw.astype(dtype))
        if self.mixing:
            first, second = self.mixing
            filtered = filter_raw(jax.lax.stop_gradient(raw[..., 0]), self.axes).astype(dtype)
            x += second(elu(first(filtered)))
        return elu(x)
