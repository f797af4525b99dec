"""Cleans labels, and makes their ids compact."""

import dataclasses
from typing import cast

import fastremap
import numpy as np
from bioimage_cpp.distance import distance_transform
from jaxtyping import Bool, UInt64

from emsam_jax.errors import UserError


def compact(labels: UInt64[np.ndarray, "z y x"], out: UInt64[np.ndarray, "z y x"]) -> UInt64[np.ndarray, "z y x"]:
    """Renumbers labels as 1..n in the order of their ids, 0 kept; writes to `out`, which may be `labels` itself."""
    highest = int(labels.max())
    if highest > 4 * labels.size:  # a table of all ids would be larger than the volume
        ids = fastremap.unique(labels)
        numbers = {id_: number for number, id_ in enumerate(ids[ids != 0].tolist(), 1)} | {0: 0}
        out[...] = fastremap.remap(labels, numbers, in_place=out is labels)
        return out
    present = np.zeros(highest + 1, bool)
    index = labels.view(np.int64)  # numpy would convert unsigned indices first
    for section in index:
        present[section] = True
    present[0] = False
    if present[1:].all():
        if out is not labels:
            out[...] = labels
        return out
    new_ids = np.where(present, np.cumsum(present), 0).astype(np.uint64)
    for section, target in zip(index, out, strict=True):
        target[...] = new_ids[section]
    return out


@dataclasses.dataclass(frozen=True)
class CleanUp:
    """What is cleaned; by default nothing."""

    min_size: int = 0  # voxels; smaller objects become background
    fill: bool = False  # background, small objects too, takes the nearest label
    voxel_size_zyx: tuple[float, float, float] = (1.0, 1.0, 1.0)  # nm, or any unit: what "nearest" means

    def __post_init__(self) -> None:
        if self.min_size < 0 or min(self.voxel_size_zyx) <= 0:
            raise UserError(f"Clean-up wants min_size >= 0 and a positive voxel size, but has {self}.")


def clean_labels(
    labels: UInt64[np.ndarray, "z y x"], clean_up: CleanUp, mask: Bool[np.ndarray, "z y x"] | None = None
) -> UInt64[np.ndarray, "z y x"]:
    """Cleans and compacts labels in place; outside the mask they stay background."""
    labels = compact(labels, out=labels)
    if clean_up.min_size > 1:
        small = np.bincount(labels.ravel()) < clean_up.min_size
        labels[small[labels]] = 0
    if clean_up.fill and labels.any():
        empty = labels == 0
        nearest = distance_transform(
            empty, sampling=clean_up.voxel_size_zyx, return_distances=False, return_indices=True
        )
        if mask is not None:
            empty &= mask
        labels[empty] = labels[tuple(axis[empty] for axis in cast(np.ndarray, nearest))]
    return compact(labels, out=labels) if clean_up.min_size > 1 else labels
