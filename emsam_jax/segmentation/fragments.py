"""Cuts fragments by a watershed: the small pieces that agglomeration joins to neurons."""

import dataclasses
import functools
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from bioimage_cpp.distance import distance_transform
from bioimage_cpp.filters import gaussian_smoothing
from bioimage_cpp.segmentation import label, watershed, watershed_from_affinities
from jaxtyping import Bool, Float32, Shaped, UInt32, UInt64

from emsam_jax.config import SHORT_OFFSETS
from emsam_jax.errors import UserError

KINDS = ("2d", "3d", "affinities")


@dataclasses.dataclass(frozen=True)
class FragmentParameters:
    """The boundary is 1 - the mean affinity; a seed is a maximum of the distance to it."""

    kind: str = "2d"  # each section by itself (anisotropic), in 3D, or 3D flooding along the affinities
    boundary_threshold: float = 0.5  # boundary above which a voxel bounds the distance transform
    seed_distance: int = 5  # voxels to each side in which a seed is the maximum; 0: higher than all it touches
    sigma: float = 0.0  # voxels, Gaussian smoothing of the distance before its maxima are sought
    min_size: int = 0  # voxels; smaller fragments go to their neighbours

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise UserError(f"The kind of fragments must be one of {', '.join(KINDS)}, but is {self.kind!r}.")
        if self.seed_distance < 0 or self.sigma < 0 or self.min_size < 0:
            raise UserError(f"Fragments want seed_distance >= 0, sigma >= 0 and min_size >= 0, but have {self}.")


def make_fragments(
    affinities: Float32[np.ndarray, "c z y x"],
    parameters: FragmentParameters,
    *,
    mask: Bool[np.ndarray, "z y x"] | None = None,
    threads: int = 1,
) -> UInt64[np.ndarray, "z y x"]:
    """Cuts fragments 1..n; 0 where the mask is false, and in parts where the boundary leaves no seed."""
    if parameters.kind == "2d":
        return _make_in_sections(affinities, parameters, mask, threads)
    boundary = _boundary(affinities[:3])
    seeds = _find_seeds(boundary, parameters, mask)
    flood: Callable[[UInt32[np.ndarray, "z y x"]], UInt32[np.ndarray, "z y x"]]
    if parameters.kind == "3d":
        flood = functools.partial(watershed, boundary, mask=mask)
    else:
        flood = functools.partial(watershed_from_affinities, affinities[:3], SHORT_OFFSETS, mask=mask)
    return _flood(flood, seeds, parameters.min_size).astype(np.uint64)


def _make_in_sections(
    affinities: Float32[np.ndarray, "c z y x"],
    parameters: FragmentParameters,
    mask: Bool[np.ndarray, "z y x"] | None,
    threads: int,
) -> UInt64[np.ndarray, "z y x"]:
    fragments = np.empty(affinities.shape[1:], np.uint64)

    def cut(z: int) -> int:
        boundary = _boundary(affinities[1:3, z])
        inside = None if mask is None else mask[z]
        flood = functools.partial(watershed, boundary, mask=inside)
        fragments[z] = _flood(flood, _find_seeds(boundary, parameters, inside), parameters.min_size)
        return int(fragments[z].max())

    with ThreadPoolExecutor(threads) as pool:
        highest = list(pool.map(cut, range(len(fragments))))
    before = np.cumsum([0, *highest[:-1]], dtype=np.uint64)
    for section, offset in zip(fragments, before, strict=True):
        np.add(section, offset, out=section, where=section > 0)
    return fragments


def _boundary(affinities: Float32[np.ndarray, "c ..."]) -> Float32[np.ndarray, "..."]:
    boundary = affinities[0] + affinities[1]
    for more in affinities[2:]:
        boundary += more
    boundary *= -1 / len(affinities)
    boundary += 1
    return boundary


def _find_seeds(
    boundary: Float32[np.ndarray, "*shape"],
    parameters: FragmentParameters,
    inside: Bool[np.ndarray, "*shape"] | None,
) -> UInt32[np.ndarray, "*shape"]:
    objects = boundary < parameters.boundary_threshold
    if inside is not None:
        objects &= inside
    if not objects.any():
        return np.zeros(boundary.shape, np.uint32)
    # Where nothing bounds it, a distance is measured to a row outside the volume: any seed there is good enough.
    distance = np.asarray(distance_transform(objects))
    if parameters.sigma:
        distance = gaussian_smoothing(distance, parameters.sigma)
    if not parameters.seed_distance:
        return regional_maxima(distance, objects)
    objects &= distance == _maximum_filter(distance, parameters.seed_distance)
    return label(objects).astype(np.uint32)


def regional_maxima(
    values: Float32[np.ndarray, "*shape"], objects: Bool[np.ndarray, "*shape"]
) -> UInt32[np.ndarray, "*shape"]:
    """Numbers, 1..n, plateaus in the objects that are higher than all their face neighbours."""
    highest = objects.copy()
    for axis in range(values.ndim):
        (before, here), (one, other) = _pairs(values, axis), _pairs(highest, axis)
        one &= before >= here
        other &= here >= before
    # Neighbours that are both highest are level: each piece is a plateau, or what a higher neighbour left of one.
    pieces = label(highest, connectivity=1).astype(np.uint32)
    whole = np.ones(int(pieces.max()) + 1, bool)
    whole[0] = False
    for axis in range(values.ndim):
        (before, here), (one, other) = _pairs(values, axis), _pairs(pieces, axis)
        left = (before == here) & ((one == 0) != (other == 0))
        whole[one[left]] = whole[other[left]] = False
    return np.where(whole, np.cumsum(whole), 0).astype(np.uint32)[pieces]


def _pairs(values: Shaped[np.ndarray, "*shape"], axis: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns views of the voxels and of the next ones along an axis."""
    along = np.moveaxis(values, axis, 0)
    return along[:-1], along[1:]


def _maximum_filter(values: Float32[np.ndarray, "*shape"], radius: int) -> Float32[np.ndarray, "*shape"]:
    """Computes the maximum in a box of `radius` to each side, by windows that double."""
    for axis in range(values.ndim):
        along = np.moveaxis(values, axis, 0)
        padded = np.full((along.shape[0] + 2 * radius, *along.shape[1:]), -np.inf, np.float32)
        padded[radius:-radius] = along
        width, window = 2 * radius + 1, 1
        while 2 * window <= width:
            np.maximum(padded[:-window], padded[window:], out=padded[:-window])
            window *= 2
        shift = width - window
        n = along.shape[0]
        values = np.moveaxis(np.maximum(padded[:n], padded[shift : shift + n]), 0, axis)
    return values


def _flood(
    flood: Callable[[UInt32[np.ndarray, "*shape"]], UInt32[np.ndarray, "*shape"]],
    seeds: UInt32[np.ndarray, "*shape"],
    min_size: int,
) -> UInt32[np.ndarray, "*shape"]:
    fragments = flood(seeds)
    if min_size <= 1:
        return fragments
    sizes = np.bincount(fragments.ravel())
    kept = sizes >= min_size
    kept[0] = False
    if not kept.any() or kept[1:].all():
        return fragments
    new_ids = np.where(kept, np.cumsum(kept), 0).astype(np.uint32)
    return flood(new_ids[fragments])


def as_fragments(fragments: np.ndarray, shape: tuple[int, ...]) -> UInt64[np.ndarray, "z y x"]:
    """Copies fragments made elsewhere, to be overwritten."""
    if fragments.shape != shape or fragments.dtype.kind not in "iu":
        raise UserError(
            f"Fragments must be integers of the affinities' shape {shape}, but are {fragments.dtype} {fragments.shape}."
        )
    return fragments.astype(np.uint64)
