"""How far scores would move with other objects of the same kind."""

import numpy as np
from jaxtyping import Float

from emsam_jax.scores.measures import ObjectTerms

Intervals = dict[str, tuple[float, float] | None]


def bootstrap_objects(terms: ObjectTerms, *, samples: int = 1000, level: float = 0.95, seed: int = 0) -> Intervals:
    """Percentile intervals of the scores over true objects drawn with replacement."""
    rng = np.random.default_rng(seed)
    n = terms.truth.size
    if n < 2:
        return dict.fromkeys(("voi_split", "voi_merge", "voi", "arand"))
    per_object = np.stack(
        [terms.truth_size, terms.split, terms.merge, terms.pairs_both, terms.pairs_truth, terms.pairs_labels]
    ).astype(np.float64)
    drawn = np.empty((samples, len(per_object)))
    for sample in drawn:
        sample[:] = per_object @ np.bincount(rng.integers(0, n, n), minlength=n)
    size, split, merge, both, in_truth, in_labels = drawn.T
    pairs = in_truth + in_labels
    arand = 1 - np.divide(2 * both, pairs, out=np.ones_like(both), where=pairs > 0)

    def interval(values: Float[np.ndarray, " samples"]) -> tuple[float, float]:
        low, high = np.quantile(values, [(1 - level) / 2, (1 + level) / 2])
        return float(low), float(high)

    return {
        "voi_split": interval(split / size),
        "voi_merge": interval(merge / size),
        "voi": interval((split + merge) / size),
        "arand": interval(arand),
    }
