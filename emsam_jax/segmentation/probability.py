"""Turns what is known of a merge decision into the probability that both sides belong together."""

import dataclasses
from typing import Any

import numpy as np
from jaxtyping import Bool, Float64, Int64

FEATURES = (
    "mean",  # affinity between the sides, log odds
    "contact",  # between how many pairs of voxels, logarithm
    "level",  # log odds of the threshold from which on the two come together
    "nearest_mean",  # affinity between the two fragments of largest contact, log odds
    "nearest_contact",  # logarithm
    "fragment",  # voxels of the smaller of the two, logarithm
    "voxels",  # of the smaller side, logarithm
)
_CERTAIN = 1e-3  # shares closer to 0 or 1 than this count as this close
_RIDGE = 1.0  # weight decay, in units of one decision
_STEPS = 50
_UNSEEN = 3.0  # of n decisions without a mistake: 3 / n of all may be mistakes, at 95% (the rule of three)


@dataclasses.dataclass(frozen=True)
class Logistic:
    """A logistic regression, never surer than what it was fitted on: features are held within their range there."""

    bias: float
    weights: tuple[float, ...]  # in the order of FEATURES, as are the bounds
    low: tuple[float, ...]
    high: tuple[float, ...]
    least: float  # probability; 1 - least is the highest

    def __call__(self, features: Float64[np.ndarray, "n features"]) -> Float64[np.ndarray, " n"]:
        odds = np.clip(features, self.low, self.high) @ np.array(self.weights) + self.bias
        return np.clip(1 / (1 + np.exp(-odds)), self.least, 1 - self.least)


@dataclasses.dataclass(frozen=True)
class MergeProbability:
    """One regression for what was joined, and one for what was left apart."""

    joined: Logistic
    apart: Logistic

    def __call__(
        self, features: Float64[np.ndarray, "n features"], joined: Bool[np.ndarray, " n"]
    ) -> Float64[np.ndarray, " n"]:
        return np.where(joined, self.joined(features), self.apart(features))


def from_margins(mean: Float64[np.ndarray, " n"], threshold: float) -> Float64[np.ndarray, " n"]:
    """Returns what stands for a probability where none was fitted: 0.5 for means at 1 - threshold."""
    return 1 / (1 + np.exp(log_odds(1 - threshold) - log_odds(mean)))


def log_odds(shares: Any) -> Any:
    shares = np.clip(shares, _CERTAIN, 1 - _CERTAIN)
    return np.log(shares / (1 - shares))


def rank_by_cost(
    together: Float64[np.ndarray, " n"], joined: Bool[np.ndarray, " n"], voxels: Int64[np.ndarray, " n"]
) -> tuple[Int64[np.ndarray, " n"], Float64[np.ndarray, " n"]]:
    """Returns the order in which to look, and each decision's expected cost: probability of a mistake times voxels."""
    cost = np.where(joined, 1 - together, together) * voxels
    return np.argsort(-cost, kind="stable"), cost


def fit_probability(
    features: Float64[np.ndarray, "n features"], joined: Bool[np.ndarray, " n"], together: Bool[np.ndarray, " n"]
) -> MergeProbability:
    """Fits to decisions whose truth is known."""
    return MergeProbability(*(_fit(features[own], together[own]) for own in (joined, ~joined)))


def _fit(features: Float64[np.ndarray, "n features"], together: Bool[np.ndarray, " n"]) -> Logistic:
    """Fits by Newton's method, on standardised features and with a ridge."""
    n, count = features.shape
    if not n:
        zeros = (0.0,) * count
        return Logistic(0.0, zeros, zeros, zeros, 0.5)
    middle, spread = features.mean(0), features.std(0)
    spread[spread < 1e-9] = 1.0
    x = np.column_stack([np.ones(n), (features - middle) / spread])
    # Two decisions more, one of each kind, keep the bias finite where all are right.
    prior = np.eye(1, count + 1).repeat(2, 0)
    x, y = np.concatenate([x, prior]), np.concatenate([together, [0.0, 1.0]])
    ridge = np.diag([0.0, *[_RIDGE] * count])
    weights = np.zeros(count + 1)
    for _ in range(_STEPS):
        p = 1 / (1 + np.exp(-x @ weights))
        step = np.linalg.solve(x.T @ (x * (p * (1 - p))[:, None]) + ridge, x.T @ (y - p) - ridge @ weights)
        weights += step
        if np.abs(step).max() < 1e-9:
            break
    own = weights[1:] / spread
    bounds = (tuple(edge.tolist()) for edge in (features.min(0), features.max(0)))
    return Logistic(float(weights[0] - own @ middle), tuple(own.tolist()), *bounds, least=min(0.5, _UNSEEN / n))
