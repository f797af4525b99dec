"""Feature-Guided Attention: features of the image encoder gate the fine features, and are added to them.

F' = (F + n(W_l F)) * gate(S) + n(W_g S), for fine features F and the image encoder's S at the same place. It starts as
the identity: n(W_l F) and n(W_g S) are zeros and the gate is 1.
"""

import functools

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from emsam_jax.config import Guidance
from emsam_jax.model.lanes import ALONE, fold, side_by_side, unfold
from emsam_jax.model.layers import FeatureMap, Normalised, ratios, upsample

Guide = Float[Array, "b zs ys xs cs"]


class GuidedAttention(nnx.Module):
    """The attention at one level of the fine encoder."""

    def __init__(self, channels: int, projected: int, kind: Guidance, *, groups: int, dtype: jnp.dtype, rngs: nnx.Rngs):
        self.kind: Guidance = kind
        silent = functools.partial(Normalised, kernel_size=(1, 1, 1), scale=0.0, dtype=dtype, rngs=rngs)
        if kind == "concat":
            self.joined = silent(channels + projected, channels, groups=groups)
            return
        self.fine = silent(channels, channels, groups=groups)
        self.added = silent(projected, channels, groups=groups)
        gates = 1 if kind == "one_gate" else channels
        self.gate = silent(1 if kind == "uncertainty" else projected, gates, groups=min(groups, gates))

    def __call__(
        self, fine: FeatureMap, guide: Guide, uncertainty: Float[Array, "b z y x 1"] | None = None
    ) -> FeatureMap:
        """`uncertainty` of the coarse map, on the fine features' voxels, for the gate that is made from it."""
        factors = ratios(fine.shape[1:4], guide.shape[1:4])
        if self.kind == "concat":
            return fine + self.joined(jnp.concatenate([fine, upsample(guide, factors)], -1))
        if self.kind == "uncertainty":
            assert uncertainty is not None
            gate = self._open(uncertainty)
            return (fine + self.fine(fine)) * gate + upsample(self.added(guide), factors)
        opened = self._open(guide)
        alone = opened.shape[-1] < fine.shape[-1]
        pixels = ALONE if alone else side_by_side(fine.shape[-1], fine.shape[2:4])
        fine = fold(fine, pixels)
        gate, added = (upsample(each, factors, pixels) for each in (opened, self.added(guide)))
        return unfold((fine + self.fine(fine, pixels)) * gate + added, pixels)

    def _open(self, seen: Float[Array, "b z _ _ _"]) -> Float[Array, "b z _ _ gates"]:
        """Returns the gate, between 0 and 2; 1 is neutral."""
        return 2 * jax.nn.sigmoid(self.gate(seen))
