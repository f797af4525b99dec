"""Feature-Guided Attention: what the image encoder saw decides which fine features count, and adds its own.

F' = n(W_l F) * gate(S) + n(W_g S), for fine features F and the image encoder's S at the same place. It starts with a
gate of 1 and nothing added.
"""

import functools

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from emsam_jax.model.config import Guidance
from emsam_jax.model.layers import Normalised, Voxels, ratios, upsample

Guide = Float[Array, "b zs ys xs cs"]


class GuidedAttention(nnx.Module):
    """For one level of the fine encoder."""

    def __init__(self, channels: int, projected: int, kind: Guidance, *, groups: int, dtype: jnp.dtype, rngs: nnx.Rngs):
        self.kind: Guidance = kind
        point = functools.partial(Normalised, kernel_size=(1, 1, 1), dtype=dtype, rngs=rngs)
        if kind == "concat":
            self.joined = point(channels + projected, channels, groups=groups)
            return
        self.fine = point(channels, channels, groups=groups)
        self.added = point(projected, channels, groups=groups, scale=0.0)
        seen = {"attention": (projected, channels), "one_gate": (projected, 1), "uncertainty": (1, channels)}
        gates = seen[kind][1]
        self.gate = point(*seen[kind], groups=min(groups, gates), scale=0.0)

    def __call__(self, fine: Voxels, guide: Guide, uncertainty: Float[Array, "b z y x 1"] | None = None) -> Voxels:
        """`uncertainty` of the coarse map, on the fine features' voxels, for the gate that is made from it."""
        factors = ratios(fine.shape[1:4], guide.shape[1:4])
        if self.kind == "concat":
            return self.joined(jnp.concatenate([fine, upsample(guide, factors)], -1))
        if self.kind == "uncertainty":
            assert uncertainty is not None
            gate = self.gate(uncertainty)
        else:
            gate = upsample(self.gate(guide), factors)
        # Twice the sigmoid: 1 where the gate has no opinion.
        return self.fine(fine) * (2 * jax.nn.sigmoid(gate)) + upsample(self.added(guide), factors)
