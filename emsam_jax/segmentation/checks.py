"""Checks affinities and thresholds before they are used."""

import itertools
from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float32

from emsam_jax.config import SHORT_OFFSETS
from emsam_jax.errors import UserError
from emsam_jax.volumes import Volume


def check_stored(affinities: Volume) -> None:
    """Affinities on disk, [channels, z, y, x], whose first three channels join neighbours along z, y and x."""
    if len(affinities.shape) != 4 or affinities.shape[0] < len(SHORT_OFFSETS):
        raise UserError(
            f"{affinities.url}: expected affinities [channels, z, y, x] of 3 or more channels, found the shape "
            f"{affinities.shape}; name a volume of affinities (and in Python open it with channel='all')."
        )
    if affinities.offsets and affinities.offsets[:3] != SHORT_OFFSETS:
        raise UserError(
            f"{affinities.url}: expected channels whose offsets begin with {SHORT_OFFSETS} (z, y, x), found "
            f"{affinities.offsets[:3]}; reorder them."
        )


def check_affinities(affinities: np.ndarray) -> Float32[np.ndarray, "c z y x"]:
    """Returns contiguous float32 affinities in [0, 1]; divides uint8 ones by 255."""
    if affinities.ndim != 4:
        raise UserError(
            f"Affinities must be [channels, z, y, x], but have {affinities.ndim} axes, shape {affinities.shape}."
        )
    if affinities.shape[0] < 3:
        raise UserError(
            f"Affinities must have 3 short channels z, y, x (long-range ones may follow), but have "
            f"{affinities.shape[0]}, shape {affinities.shape}: is the channel axis first?"
        )
    if affinities.size == 0:
        raise UserError(f"Affinities must have voxels, but their shape is {affinities.shape}.")
    if affinities.dtype == np.uint8:
        return affinities.astype(np.float32) / 255
    if affinities.dtype.kind != "f":
        raise UserError(f"Affinities must be floats in [0, 1] or uint8, but are {affinities.dtype}.")
    low, high = float(affinities.min()), float(affinities.max())
    if np.isnan(low) or np.isnan(high):
        count = int(np.isnan(affinities).sum())
        raise UserError(f"Affinities must be numbers in [0, 1], but {count} are NaN: look at what wrote them.")
    if low < 0 or high > 1:
        raise UserError(
            f"Affinities must lie in [0, 1], but reach from {low:g} to {high:g}: apply the sigmoid to logits."
        )
    return np.ascontiguousarray(affinities, np.float32)


def check_mask(mask: np.ndarray | None, shape: tuple[int, ...]) -> Bool[np.ndarray, "z y x"] | None:
    if mask is None:
        return None
    if mask.shape != shape:
        raise UserError(f"The mask must have the affinities' shape {shape}, but has {mask.shape}.")
    return np.ascontiguousarray(mask != 0)


def check_thresholds(thresholds: Sequence[float]) -> list[float]:
    """Refuses anything but one or more increasing thresholds in (0, 1)."""
    found = [float(threshold) for threshold in thresholds]
    if not found or not all(0 < threshold < 1 for threshold in found):
        raise UserError(f"Thresholds must lie between 0 and 1, but are {found}.")
    if any(later <= earlier for earlier, later in itertools.pairwise(found)):
        raise UserError(f"Thresholds must increase, but are {found}: sort them.")
    return found
