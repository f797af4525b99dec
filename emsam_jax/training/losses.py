"""Computes losses of predicted affinities, with weights for the two classes of each channel."""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Bool, Float, Int

from emsam_jax.config import SHORT_OFFSETS, LossConfig
from emsam_jax.data import Batch
from emsam_jax.model import Maps

Shares = Float[np.ndarray, "samples c"]  # of the known affinities, those that are 1
Affinities = Float[Array, "b z y x c"]
Valid = Bool[Array, "b z y x c"]
VOXELS = (1, 2, 3)


class ClassWeights(NamedTuple):
    """Weights of the classes 0 and 1, by channel."""

    positive: tuple[float, ...]  # where it is 1
    negative: tuple[float, ...]


def shares_of(counts: Int[np.ndarray, "samples 2 c"]) -> Shares:
    """Returns the share of 1 among known affinities, of samples where any is known."""
    known, ones = np.moveaxis(counts, 1, 0)
    return np.where(known > 0, ones / np.maximum(known, 1), np.nan)


def mean_share(shares: Shares) -> tuple[float, ...]:
    """Returns the mean share by channel; each sample counts the same, as in the loss. 0.5 where nothing is known."""
    there = np.isfinite(shares)
    sums = np.where(there, shares, 0).sum(0)
    return tuple(float(total / n) if n else 0.5 for total, n in zip(sums, there.sum(0), strict=True))


def class_weights(positives: Sequence[float], config: LossConfig) -> ClassWeights | None:
    """Computes weights from the share of positives in the data; None: each sample has its own."""
    if config.balance == "sample":
        return None
    if config.balance == "none":
        even = (1.0,) * len(positives)
        return ClassWeights(even, even)
    share = np.asarray(positives)
    return ClassWeights(*(tuple(_weight(of_class, config).tolist()) for of_class in (share, 1 - share)))


def prior_of(shares: Shares, config: LossConfig) -> tuple[float, ...]:
    """Returns log(w1 / w0) by channel; of weights that each sample has for itself, the means."""
    weights = class_weights(mean_share(shares), config)
    if weights is not None:
        return tuple(np.log(np.divide(*weights)).tolist())
    known = np.where(np.isfinite(shares), shares, 0.5)
    one, zero = (_weight(of_class, config).mean(0) for of_class in (known, 1 - known))
    return tuple(np.log(one / zero).tolist())


def _weight(share: Float[np.ndarray, "*a"], config: LossConfig) -> Float[np.ndarray, "*a"]:
    """Returns the weight of a class; 1 for half of all."""
    return np.minimum(0.5 / np.maximum(share, 1e-12), config.max_weight)


def loss_of_maps(
    maps: Maps, batch: Batch, config: LossConfig, weights: ClassWeights | None = None
) -> tuple[Float[Array, ""], dict[str, Float[Array, ""]]]:
    """Returns the refined map's loss plus the weighted coarse one's, and each by name."""

    def loss_of(logits: Affinities) -> Float[Array, ""]:
        loss = balanced_cross_entropy(logits, batch.affinities, batch.valid, config.max_weight, weights)
        if config.dice:
            loss = loss + config.dice * boundary_dice(logits, batch.affinities, batch.valid)
        counts = jnp.where(jnp.arange(loss.shape[1]) < len(SHORT_OFFSETS), 1.0, config.long_weight)
        return (loss.mean(0) * counts).sum() / counts.sum()

    parts = {"refined": loss_of(maps.refined)}
    loss = parts["refined"]
    if maps.coarse is not None:
        parts["coarse"] = loss_of(maps.coarse)
        loss = loss + config.coarse * parts["coarse"]
    return loss, parts


def balanced_cross_entropy(
    logits: Affinities, truth: Affinities, valid: Valid, max_weight: float, weights: ClassWeights | None = None
) -> Float[Array, "b c"]:
    """Computes the mean over voxels, with the classes of each channel weighted.

    Without weights both classes count the same in each sample, up to the most that one voxel may count. 96% of the
    affinities to neighbours are 1 and 40% of those 27 voxels away: one weight for all would be wrong.
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
    return (weighted * losses).sum(VOXELS) / jnp.maximum(total.squeeze(VOXELS), 1)


def boundary_dice(logits: Affinities, truth: Affinities, valid: Valid) -> Float[Array, "b c"]:
    """Computes 1 - Dice of where affinities are 0."""
    known = valid.astype(jnp.float32)
    found, wanted = jax.nn.sigmoid(-logits) * known, (1 - truth) * known
    both, either = (found * wanted).sum(VOXELS), (found**2 + wanted**2).sum(VOXELS)
    return 1 - (2 * both + 1) / (either + 1)
