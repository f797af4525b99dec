"""Measures whether affinities are calibrated: of those near 0.5, about half are 1. Imports jax.

Truth is the training's target: affinities with widened borders, where both voxels are labelled.
"""

from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float, Int, Shaped

from emsam_jax.config import Config
from emsam_jax.data import affinities_from_labels, as_int32, widen_borders
from emsam_jax.volumes import Box, Specimen, as_unit

_REACH, _STEP = 8.0, 0.05  # log odds: how far they are told apart, and how finely
ODDS = np.linspace(-_REACH, _REACH, round(2 * _REACH / _STEP) + 1)  # of the counts, the middle of each bin
_SHARES = 1 / (1 + np.exp(-ODDS))
_HALF = (0.4, 0.6)  # affinities that say: as likely as not
_BINS = 10  # of the calibration error, of equal width
_BACKGROUND, _UNLABELLED = 0, -1
Counts = Int[np.ndarray, "c 2 bins"]  # known affinities, and those that are 1, by channel and predicted log odds


def count_affinities(affinities: Shaped[np.ndarray, "c z y x"], specimen: Specimen, box: Box, config: Config) -> Counts:
    """Counts the box's stored affinities by value and truth."""
    truth, valid = true_affinities(specimen, box, config)
    return np.stack([_count(a, t, v) for a, t, v in zip(as_unit(affinities), truth, valid, strict=True)])


def true_affinities(
    specimen: Specimen, box: Box, config: Config
) -> tuple[Float[np.ndarray, "c z y x"], Bool[np.ndarray, "c z y x"]]:
    """Computes the training's target for the voxels of a box, and where it is known."""
    data, offsets = config.data, config.model.offsets
    margin = [max(abs(offset[axis]) for offset in offsets) + data.radius for axis in range(3)]
    z, y, x = (at - more for at, more in zip(box.start, margin, strict=True))
    end = [at + more for at, more in zip(box.stop, margin, strict=True)]
    labels = jnp.asarray(as_int32(*specimen.read_labels(Box((z, y, x), (end[0], end[1], end[2])))))
    widened = widen_borders(labels, data.widening, data.radius, _BACKGROUND, _UNLABELLED)
    inner = box.shifted((-z, -y, -x)).slices
    found = []
    for offset in offsets:
        source = widened if max(map(abs, offset)) == 1 else labels
        both = affinities_from_labels(source, [offset], _BACKGROUND, _UNLABELLED)
        found.append([np.asarray(values)[0][inner] for values in both])
    truth, valid = (np.stack(parts) for parts in zip(*found, strict=True))
    return truth, valid


def describe_reliability(counts: Counts) -> dict[str, list[Any]]:
    """Returns, by channel, share of 1 and count of affinities from 0.4 to 0.6, and the expected calibration error."""
    near = (_HALF[0] <= _SHARES) & (_HALF[1] >= _SHARES)
    known, ones = (counts[:, which, near].sum(-1) for which in range(2))
    return {
        "true_at_half": [float(one / n) if n else None for one, n in zip(ones, known, strict=True)],
        "known_at_half": known.tolist(),
        "calibration_error": [_calibration_error(*channel) for channel in counts],
    }


def find_shift(counts: Counts) -> Float[np.ndarray, " c"]:
    """Finds the log odds, by channel, at which half of the affinities are 1, to be subtracted; 0 where there are none.

    Affinities nearby count by their distance.
    """
    shift = np.zeros(len(counts))
    around = 1 / (1 + np.exp(-(ODDS[None] - ODDS[:, None])))  # what an affinity is after each shift
    weight = (4 * around * (1 - around)) ** 4  # hardly any beyond 0.2 and 0.8, where a slope may be another one
    for channel, (known, ones) in enumerate(counts):
        surplus = (weight * (ones - known * around)).sum(1)  # grows through 0 at the shift
        crossings = np.flatnonzero((surplus[:-1] <= 0) & (surplus[1:] > 0))
        if len(crossings):
            at = crossings[np.abs(ODDS[crossings]).argmin()]
            shift[channel] = np.interp(0.0, surplus[at : at + 2], ODDS[at : at + 2])
    return shift


def _count(
    affinity: Float[np.ndarray, "z y x"], truth: Float[np.ndarray, "z y x"], valid: Bool[np.ndarray, "z y x"]
) -> Int[np.ndarray, "2 bins"]:
    share = np.clip(affinity[valid].astype(np.float64), 1e-6, 1 - 1e-6)
    odds = np.clip(np.log(share / (1 - share)), -_REACH, _REACH)
    bins = np.rint((odds + _REACH) / _STEP).astype(np.int64)
    one = truth[valid] > 0
    return np.stack([np.bincount(b, minlength=len(ODDS)) for b in (bins, bins[one])])


def _calibration_error(known: Int[np.ndarray, " bins"], ones: Int[np.ndarray, " bins"]) -> float | None:
    if not known.sum():
        return None
    bins = np.minimum((_SHARES * _BINS).astype(int), _BINS - 1)
    gaps = np.bincount(bins, ones - known * _SHARES, _BINS)
    return float(np.abs(gaps).sum() / known.sum())
