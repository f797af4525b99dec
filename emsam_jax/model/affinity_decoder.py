"""Decodes features of several levels to the logits of affinities at full resolution; used twice."""

import itertools

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from emsam_jax.model.lanes import fold, side_by_side, unfold
from emsam_jax.model.layers import Factors, FeatureMap, ResidualBlock, conv, ratios, upsample


class AffinityDecoder(nnx.Module):
    """From the deepest level up: project, double, add the level's features, refine by a residual block.

    The refined decoder mirrors the fine encoder, whose `entry` its blocks have; the coarse one, without, has a block
    for the deepest level too and starts above full resolution.
    """

    def __init__(
        self,
        channels: tuple[int, ...],
        outputs: int,
        *,
        entry: Factors | None,
        groups: int,
        dtype: jnp.dtype,
        rngs: nnx.Rngs,
    ):
        """`channels` of the levels, shallow to deep."""
        self.rise = nnx.List(
            [conv(deeper, here, (1, 1, 1), dtype=dtype, rngs=rngs) for here, deeper in itertools.pairwise(channels)]
        )
        refined = channels[:-1] if entry else channels
        self.blocks = nnx.List(
            [ResidualBlock(c, c, entry=entry, groups=groups, dtype=dtype, rngs=rngs) for c in refined]
        )
        self.logits = conv(channels[0], outputs, (1, 1, 1), dtype=dtype, rngs=rngs)

    def __call__(self, levels: tuple[Float[Array, "b _ _ _ _"], ...], shape: tuple[int, ...]) -> FeatureMap:
        """Returns logits of `shape` z, y, x from levels, shallow to deep."""
        deepest = len(levels) - 1
        x = levels[deepest]
        if deepest < len(self.blocks):
            with jax.named_scope(f"level_{deepest}"):
                x = self.blocks[deepest](x)
        for number in reversed(range(deepest)):
            with jax.named_scope(f"level_{number}"):
                skip = levels[number]
                pixels = side_by_side(skip.shape[-1], skip.shape[2:4])
                x = upsample(self.rise[number](x), ratios(skip.shape[1:4], x.shape[1:4]), pixels)
                x = self.blocks[number](unfold(x + fold(skip, pixels), pixels))
        pixels = side_by_side(x.shape[-1], x.shape[2:4])
        logits = unfold(self.logits(fold(x, pixels), pixels).astype(jnp.float32), pixels)
        return upsample(logits, ratios(shape, logits.shape[1:4]))
