"""A trained network whose affinities are to be believed: where they say 0.5, about half are 1."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from emsam_jax.config import ModelConfig
from emsam_jax.model import FGNet, Maps


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Calibrated:
    """The network without what is known to be wrong with its log odds, by channel.

    That is the prior, since a class that counts more in the loss is found more often; and the shift that validation
    saw in the refined map, which alone it predicts.
    """

    network: Any  # FGNet, or what else can be predicted with
    prior: Any  # arrays, or what jax puts in their place
    shift: Any

    @property
    def config(self) -> ModelConfig:
        return self.network.config

    def encode(self, sections: Float[Array, "n y x 1"]) -> tuple[Float[Array, "n _ _ _"], ...]:
        return self.network.encode(sections)

    def decode(self, raw: Float[Array, "b z y x 1"], features: Any) -> Maps:
        return without_prior(self.network.decode(raw, features), self.prior, self.shift)


def calibrate(network: FGNet, prior: Sequence[float], shift: Sequence[float] = ()) -> Calibrated:
    """Without a prior, the network as it is."""
    known = [part or [0.0] * len(network.config.offsets) for part in (prior, shift)]
    return Calibrated(network, *(np.asarray(part, np.float32) for part in known))


def without_prior(maps: Maps, prior: Any, shift: Any = 0.0) -> Maps:
    """Logits that are log odds; both maps are trained by the same weights."""
    in_both, in_refined = (jnp.asarray(part)[None, None, None, None] for part in (prior, prior + shift))
    return Maps(None if maps.coarse is None else maps.coarse - in_both, maps.refined - in_refined)
