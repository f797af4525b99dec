"""The mutex watershed on short- and long-range affinities: no fragments and no seeds."""

from collections.abc import Sequence

import numpy as np
from bioimage_cpp.segmentation import mutex_watershed
from jaxtyping import Bool, Float32, UInt64

from emsam_jax.config import SHORT_OFFSETS
from emsam_jax.errors import UserError


def check_offsets(offsets: Sequence[Sequence[int]], channels: int) -> list[tuple[int, int, int]]:
    """An offset a channel, the short ones first, each from a voxel to its partner."""
    if not len(offsets):
        raise UserError(
            f"The mutex watershed needs the offset of each of the {channels} channels: give `offsets`, from a voxel to "
            f"its partner, starting with {list(SHORT_OFFSETS)}."
        )
    found = [tuple(int(step) for step in offset) for offset in offsets]
    if len(found) != channels:
        raise UserError(f"Each channel needs an offset, but there are {channels} channels, {len(found)} offsets.")
    if tuple(found[:3]) != SHORT_OFFSETS or any(len(offset) != 3 for offset in found):
        raise UserError(
            f"Offsets are [z, y, x] and start with {list(SHORT_OFFSETS)} (channel c joins v and v-1), but are {found}."
        )
    if channels < 4:
        raise UserError(
            f"The mutex watershed needs long-range channels after the 3 short ones, but there are {channels} channels: "
            "predict some, or choose another method."
        )
    return found  # type: ignore[reportReturnType]


def check_strides(strides: Sequence[int]) -> tuple[int, int, int]:
    found = tuple(int(step) for step in strides)
    if len(found) != 3 or min(found) < 1:
        raise UserError(f"`strides` must be three numbers of voxels from 1 up, z, y, x, but are {found}.")
    return found


def split_by_mutex(
    affinities: Float32[np.ndarray, "c z y x"],
    offsets: Sequence[tuple[int, int, int]],
    threshold: float,
    *,
    strides: tuple[int, int, int],
    mask: Bool[np.ndarray, "z y x"] | None = None,
) -> UInt64[np.ndarray, "z y x"]:
    """Labels 1..n. A threshold above 0.5 favours attraction, one below favours repulsion, by the distance to 0.5.

    Long-range edges are taken every `strides` voxels.
    """
    weights = np.empty_like(affinities)
    np.add(affinities[:3], threshold - 0.5, out=weights[:3])
    np.subtract(1.5 - threshold, affinities[3:], out=weights[3:])
    return mutex_watershed(weights, offsets, 3, strides=strides, mask=mask).view(np.uint64)
