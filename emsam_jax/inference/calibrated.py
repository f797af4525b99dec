"""Calibrates a trained network: where affinities are 0.5, about half of them are 1."""

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
    """A network whose log odds are corrected by channel.

    Subtracts the prior, since a class that counts more in the loss is predicted more often, and from the refined map,
    which alone it sees, the shift that validation measured.
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
    """Wraps the network; without a prior, returns it as it is."""
    known = [part or [0.0] * len(network.config.offsets) for part in (prior, shift)]
    return Calibrated(network, *(np.asarray(part, np.float32) for part in known))


def without_prior(maps: Maps, prior: Any, shift: Any = 0.0) -> Maps:
    """Turns logits into log odds; both maps are trained with the same weights."""
    in_both, in_refined = (jnp.asarray(part)[None, None, None, None] for part in (prior, prior + shift))
    return Maps(None if maps.coarse is None else maps.coarse - in_both, maps.refined - in_refined)
