"""How far predicted affinities are from the truth."""

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float

from emsam_jax.config import LossConfig
from emsam_jax.data import Batch
from emsam_jax.model import Maps
from emsam_jax.training.balance import ClassWeights

Affinities = Float[Array, "b z y x c"]
Valid = Bool[Array, "b z y x c"]
VOXELS = (1, 2, 3)


def loss_of_maps(
    maps: Maps, batch: Batch, config: LossConfig, weights: ClassWeights | None = None
) -> tuple[Float[Array, ""], dict[str, Float[Array, ""]]]:
    """The refined map's loss and the weighted coarse one's, together and by name."""

    def loss_of(logits: Affinities) -> Float[Array, ""]:
        loss = balanced_cross_entropy(logits, batch.affinities, batch.valid, config.max_weight, weights)
        return loss + config.dice * boundary_dice(logits, batch.affinities, batch.valid) if config.dice else loss

    parts = {"refined": loss_of(maps.refined)}
    loss = parts["refined"]
    if maps.coarse is not None:
        parts["coarse"] = loss_of(maps.coarse)
        loss = loss + config.coarse * parts["coarse"]
    return loss, parts


def balanced_cross_entropy(
    logits: Affinities, truth: Affinities, valid: Valid, max_weight: float, weights: ClassWeights | None = None
) -> Float[Array, ""]:
    """The classes of each channel weighted; without weights both count the same in each sample, up to the most that
    one voxel may count.

    96% of the affinities to neighbours are 1 and 40% of those 27 voxels away: one weight for all would be wrong.
    """
    known = valid.astype(jnp.float32)
    positive = known * truth
    total, positives = (a.sum(VOXELS, keepdims=True) for a in (known, positive))

    def weight(count: Float[Array, "b 1 1 1 c"]) -> Float[Array, "b 1 1 1 c"]:
        return jnp.minimum(total / jnp.maximum(2 * count, 1), max_weight)

    one, zero = weight(positives), weight(total - positives)
    if weights is not None:
        one, zero = (jnp.asarray(of_class, jnp.float32)[None, None, None, None] for of_class in weights)
    weighted = positive * one + (known - positive) * zero
    losses = optax.sigmoid_binary_cross_entropy(logits, truth)
    return ((weighted * losses).sum(VOXELS, keepdims=True) / jnp.maximum(total, 1)).mean()


def boundary_dice(logits: Affinities, truth: Affinities, valid: Valid) -> Float[Array, ""]:
    """1 - Dice of where affinities are 0, per channel of each sample."""
    known = valid.astype(jnp.float32)
    found, wanted = jax.nn.sigmoid(-logits) * known, (1 - truth) * known
    both, either = (found * wanted).sum(VOXELS), (found**2 + wanted**2).sum(VOXELS)
    return (1 - (2 * both + 1) / (either + 1)).mean()
