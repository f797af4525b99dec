"""How much the two classes of a channel count in the loss, and what this adds to the logits.

With weights w1 for affinities that are 1 and w0 for the others, the cross-entropy is least where
sigmoid(logit) = w1 p / (w1 p + w0 (1 - p)): the logit is that of p and log(w1 / w0), the prior. The Dice loss moves
logits further, by no fixed amount.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from emsam_jax.config import LossConfig

Shares = Float[np.ndarray, "samples c"]  # of the known affinities, those that are 1


class ClassWeights(NamedTuple):
    """How often an affinity counts, by channel."""

    positive: tuple[float, ...]  # where it is 1
    negative: tuple[float, ...]


def shares_of(counts: Int[np.ndarray, "samples 2 c"]) -> Shares:
    """From the known affinities and those that are 1, of samples where any is known."""
    known, ones = np.moveaxis(counts, 1, 0)
    return np.where(known > 0, ones / np.maximum(known, 1), np.nan)


def mean_share(shares: Shares) -> tuple[float, ...]:
    """By channel; each sample counts the same, as in the loss. A half where nothing is known."""
    there = np.isfinite(shares)
    sums = np.where(there, shares, 0).sum(0)
    return tuple(float(total / n) if n else 0.5 for total, n in zip(sums, there.sum(0), strict=True))


def class_weights(positives: Sequence[float], config: LossConfig) -> ClassWeights | None:
    """By the share of positives in the data; None: each sample's own."""
    if config.balance == "sample":
        return None
    if config.balance == "none":
        even = (1.0,) * len(positives)
        return ClassWeights(even, even)
    share = np.asarray(positives)
    return ClassWeights(*(tuple(_weight(of_class, config).tolist()) for of_class in (share, 1 - share)))


def prior_of(shares: Shares, config: LossConfig) -> tuple[float, ...]:
    """log(w1 / w0), by channel. Of weights that each sample has for itself, the means."""
    weights = class_weights(mean_share(shares), config)
    if weights is not None:
        return tuple(np.log(np.divide(*weights)).tolist())
    known = np.where(np.isfinite(shares), shares, 0.5)
    one, zero = (_weight(of_class, config).mean(0) for of_class in (known, 1 - known))
    return tuple(np.log(one / zero).tolist())


def _weight(share: Float[np.ndarray, "*a"], config: LossConfig) -> Float[np.ndarray, "*a"]:
    """1 for a class that is half of all."""
    return np.minimum(0.5 / np.maximum(share, 1e-12), config.max_weight)
