"""The Fine-Grained Encoder: the light 3D network that sees voxels at full resolution."""

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from emsam_jax.model.by_platform import elu
from emsam_jax.model.filter_bank import Axes, count_filters, filter_raw
from emsam_jax.model.lanes import fold, side_by_side, unfold
from emsam_jax.model.layers import (
    Factors,
    FeatureMap,
    Linear,
    Normalised,
    OtherFeatureMap,
    ResidualBlock,
    add_shared,
)

_MIXED = 32  # channels between filters and the first level
_EPSILON = 1e-8  # of greys on [0, 1], and of their squares in structure tensors


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
        self.filters = FilteredStem(self.axes, channels[0], dtype=dtype, rngs=rngs) if filters else None

    def enter(self, raw: Float[Array, "b z y x 1"]) -> OtherFeatureMap:
        pixels = side_by_side(self.stem.conv.out_features, raw.shape[2:4])
        x = self.stem(fold(raw.astype(self.stem.conv.dtype), pixels), pixels)
        if self.filters is not None:
            x += fold(self.filters(raw[..., 0]), pixels)
        return unfold(elu(x), pixels)


class FilteredStem(nnx.Module):
    """Fixed filters, each with mean 0 and standard deviation 1 over the patch, and two layers voxel by voxel."""

    def __init__(self, axes: Axes, cout: int, *, dtype: jnp.dtype, rngs: nnx.Rngs):
        self.axes = axes
        self.first = Linear(count_filters(axes), _MIXED, dtype=dtype, rngs=rngs)
        self.second = Linear(_MIXED, cout, dtype=dtype, rngs=rngs)

    def __call__(self, raw: Float[Array, "b z y x"]) -> FeatureMap:
        """Filters in float32: eigenvalues are differences of what is almost equal."""
        filtered = filter_raw(jax.lax.stop_gradient(raw.astype(jnp.float32)), self.axes)
        filtered -= filtered.mean((2, 3, 4), keepdims=True)
        deviation = jnp.sqrt((filtered**2).mean((2, 3, 4)) + _EPSILON**2)
        kernel = self.first.kernel[...][None] / deviation[..., None]  # scaled once, not voxel by voxel
        dtype = self.first.dtype
        mixed = jnp.einsum("bczyx,bcd->bzyxd", filtered.astype(dtype), kernel.astype(dtype))
        bias = self.first.bias[...]  # type: ignore[reportOptionalSubscript]
        return self.second(elu(add_shared(mixed, bias)))
