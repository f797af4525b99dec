"""Tests whether labels lie on the raw: membranes are darker than cells, so the raw is darker where labels meet.

If that holds better for the labels flipped or transposed, somebody has mixed up their axes.
"""

import dataclasses
import itertools
from collections.abc import Iterator

import numpy as np
from jaxtyping import Bool, Float, Integer, Shaped

from emsam_jax.volumes.axes import is_isotropic
from emsam_jax.volumes.box import Box, Voxel, box_of
from emsam_jax.volumes.specimen import Specimen

_CROP: Voxel = (16, 192, 192)
_ENOUGH = 0.02  # share of a crop that must be labelled
_COUNTED = 200  # voxels on borders, below which a crop tells nothing


@dataclasses.dataclass(frozen=True)
class Orientation:
    """Labels transposed by `order`, then flipped along the axes marked in `flips`."""

    order: tuple[int, int, int] = (0, 1, 2)
    flips: tuple[bool, bool, bool] = (False, False, False)

    def __str__(self) -> str:
        words = []
        if self.order != (0, 1, 2):
            words.append("transposed to " + ", ".join("zyx"[axis] for axis in self.order))
        if any(self.flips):
            words.append("flipped along " + " and ".join(a for a, flip in zip("zyx", self.flips, strict=True) if flip))
        return " and ".join(words) or "as they are"

    def source(self, box: Box, shape: Voxel) -> Box:
        """Returns where, in an array of this shape, the voxels lie that the orientation brings into `box`."""
        spans = [(0, 0)] * 3
        for axis, flip in enumerate(self.flips):
            start, stop, size = box.start[axis], box.stop[axis], shape[axis]
            spans[self.order[axis]] = (size - stop, size - start) if flip else (start, stop)
        (z0, z1), (y0, y1), (x0, x1) = spans
        return Box((z0, y0, x0), (z1, y1, x1))

    def apply(self, values: Shaped[np.ndarray, "_ _ _"]) -> Shaped[np.ndarray, "_ _ _"]:
        return np.flip(values.transpose(self.order), tuple(axis for axis in range(3) if self.flips[axis]))


def orientations(shape: Voxel, voxel_size_zyx: tuple[float, float, float]) -> list[Orientation]:
    """Lists the identity, then all others that map the voxels onto themselves."""
    orders = [
        (z, y, x)
        for z, y, x in itertools.permutations(range(3))
        if (shape[z], shape[y], shape[x]) == shape
        and all(np.isclose(voxel_size_zyx[a], voxel_size_zyx[b]) for a, b in enumerate((z, y, x)))
    ]
    flips = itertools.product((False, True), repeat=3)
    return [Orientation(order, (z, y, x)) for (z, y, x), order in itertools.product(flips, orders)]


def border_contrasts(specimen: Specimen, crops: int, search: bool = False) -> dict[Orientation, float]:
    """Measures by how many standard deviations the raw is darker on label borders, for each orientation of the labels.

    Truth may be so sparse that crops spread over the volume miss it; `search` then reads on until it is found.
    """
    region = specimen.labelled_region
    isotropic = is_isotropic(specimen.raw.voxel_size_zyx)
    found: dict[Orientation, list[float]] = {}
    z, y, x = region.start
    for crop in itertools.islice(_labelled_crops(specimen, region, search), crops):
        raw = specimen.read_raw(crop).astype(np.float32)
        local = crop.shifted((-z, -y, -x))
        for orientation in orientations(region.shape, specimen.raw.voxel_size_zyx):
            source = orientation.source(local, region.shape).shifted((z, y, x))
            ids, labelled = specimen.read_labels(source)
            contrast = _contrast(raw, orientation.apply(ids), orientation.apply(labelled), isotropic)
            if contrast is None and orientation == Orientation():
                break
            found.setdefault(orientation, []).append(contrast or 0.0)
    return {orientation: float(np.mean(values)) for orientation, values in found.items()}


def _labelled_crops(specimen: Specimen, region: Box, search: bool) -> Iterator[Box]:
    """Yields crops with labels: the middle, then crops spread over the region."""
    found = False
    z, y, x = (min(crop, side) for crop, side in zip(_CROP, region.shape, strict=True))
    for at in [(0.5, 0.5, 0.5), *itertools.product((0.2, 0.8), repeat=3), *itertools.product((0, 0.5, 1), repeat=3)]:
        room = [side - own for side, own in zip(region.shape, (z, y, x), strict=True)]
        start = [first + round(part * left) for first, part, left in zip(region.start, at, room, strict=True)]
        crop = box_of((z, y, x)).shifted((start[0], start[1], start[2]))
        ids, labelled = specimen.read_labels(crop)
        if labelled.mean() > _ENOUGH and ids.min() != ids.max():
            found = True
            yield crop
    if search and not found:
        for crop, _ in sorted(specimen.labelled_boxes((z, y, x)), key=lambda at: -at[1]):
            yield crop


def _contrast(
    raw: Float[np.ndarray, "z y x"],
    ids: Integer[np.ndarray, "z y x"],
    labelled: Bool[np.ndarray, "z y x"],
    isotropic: bool,
) -> float | None:
    border = np.zeros(ids.shape, bool)
    for axis in (0, 1, 2) if isotropic else (1, 2):
        a = tuple(slice(None, -1) if i == axis else slice(None) for i in range(3))
        b = tuple(slice(1, None) if i == axis else slice(None) for i in range(3))
        differ = (ids[a] != ids[b]) & labelled[a] & labelled[b]
        border[a] |= differ
        border[b] |= differ
    inner, spread = labelled & ~border, raw.std()
    if spread == 0:
        return 0.0
    if border.sum() < _COUNTED or not inner.any():
        return None
    return float((raw[inner].mean() - raw[border].mean()) / spread)
