"""Opens a declared volume: raw, labels and mask as one, on the raw's voxels, and mirrored beyond its ends."""

from collections.abc import Iterator

import numpy as np
from jaxtyping import Bool, Float, Int, Integer, Shaped

from emsam_jax.config import DeclaredVolume, Intensity, LabelRules
from emsam_jax.errors import UserError
from emsam_jax.volumes.box import Box, Voxel, box_of, parse_box
from emsam_jax.volumes.meet import (
    check_meet,
    check_within,
    extent_on,
    nearest_indices,
    read_nearest,
    span_of,
    with_size_of,
)
from emsam_jax.volumes.open import open_volume
from emsam_jax.volumes.volume import Volume

_TOGETHER = 8  # tiles along each axis that are looked for at once
_SAMPLE_SIDE, _SAMPLES = 32, 4  # percentiles come from 4 x 4 x 4 boxes of 32 voxels a side


def intensity_range(raw: Volume, intensity: Intensity, region: Box) -> tuple[float, float]:
    """Returns the declared values, or the percentiles of boxes spread evenly over the region."""
    low, high = intensity.low, intensity.high
    if intensity.percentiles:
        sample = np.concatenate([raw.read(box).ravel() for box in _spread(region)]).astype(np.float32)
        low, high = (float(value) for value in np.percentile(sample, [intensity.low, intensity.high]))
    elif high <= low:
        high = float(np.iinfo(raw.dtype).max) if np.issubdtype(raw.dtype, np.integer) else 1.0
    if not low < high:
        raise UserError(f"{raw.url}: expected an intensity range, found {low:g} to {high:g}; declare other bounds.")
    return low, high


def _spread(region: Box) -> Iterator[Box]:
    starts = []
    for first, last in zip(region.start, region.stop, strict=True):
        starts.append(sorted({int(s) for s in np.linspace(first, max(first, last - _SAMPLE_SIDE), _SAMPLES)}))
    z, y, x = (min(_SAMPLE_SIDE, side) for side in region.shape)
    for at in np.stack(np.meshgrid(*starts, indexing="ij"), -1).reshape(-1, 3).tolist():
        yield box_of((z, y, x)).shifted((at[0], at[1], at[2]))


class Specimen:
    """A declared volume, opened. Boxes are in voxels of the raw and may reach beyond everything."""

    def __init__(
        self,
        raw: Volume,
        labels: Volume | None = None,
        mask: Volume | None = None,
        *,
        name: str = "",
        roi: str = "",
        intensity: Intensity | None = None,
        rules: LabelRules | None = None,
    ):
        self.raw, self.labels, self.mask = raw, labels, mask
        self.name = name or raw.url
        self.rules = rules or LabelRules()
        self.region = parse_box(roi, raw.box)  # the region of interest
        for volume in (labels, mask):
            if volume is not None:
                check_meet(raw, volume)
        if labels is not None and not roi:
            check_within(raw, labels)
        if labels is not None and not np.issubdtype(labels.dtype, np.integer) and labels.dtype != bool:
            raise UserError(f"{labels.url}: expected labels of whole numbers, found {labels.dtype}; convert them.")
        self.intensity = intensity or Intensity()
        self._range: tuple[float, float] | None = None

    def without_region(self) -> "Specimen":
        """Raw and mask as a prediction sees them: percentiles are those of all grey values, wherever it looks."""
        return Specimen(self.raw, mask=self.mask, name=self.name, intensity=self.intensity)

    @property
    def labelled_region(self) -> Box:
        """Returns the part of the region of interest that the labels reach."""
        return self.region if self.labels is None else self.region.within(extent_on(self.raw, self.labels))

    def read_raw(self, box: Box) -> Shaped[np.ndarray, "z y x"]:
        """Reads raw values; 0 outside the volume."""
        values = self.raw.read(box)
        if values.dtype.kind in "fV" and np.isnan(values.astype(np.float32)).any():
            raise UserError(f"{self.raw.url}: expected numbers, found NaN within {box} (z, y, x).")
        return values

    def read_normalised(self, box: Box) -> Float[np.ndarray, "z y x"]:
        """Reads raw in [0, 1], by the declared intensity."""
        return self.normalised(self.read_raw(box))

    def normalised(self, values: Shaped[np.ndarray, "z y x"]) -> Float[np.ndarray, "z y x"]:
        low, high = self.intensity_range
        scaled = np.clip((values.astype(np.float32) - low) / (high - low), 0, 1).astype(np.float32)
        return 1 - scaled if self.intensity.invert else scaled

    @property
    def intensity_range(self) -> tuple[float, float]:
        """Returns the raw values that become 0 and 1 (before inversion)."""
        if self._range is None:
            self._range = intensity_range(self.raw, self.intensity, self.region)
        return self._range

    def read_labels(self, box: Box) -> tuple[Integer[np.ndarray, "z y x"], Bool[np.ndarray, "z y x"]]:
        """Reads ids, 0 for background and unlabelled voxels, and the mask of labelled voxels."""
        if self.labels is None:
            raise UserError(f"{self.name} has no labels; declare `labels`.")
        ids, labelled = read_nearest(self.raw, self.labels, box)
        if self.mask is not None:
            inside, there = read_nearest(self.raw, self.mask, box)
            labelled &= there & (inside != 0)
        ids, labelled = apply_rules(ids, labelled, self.rules)
        if ids.dtype.kind == "i" and ids.min(initial=0) < 0:
            raise UserError(
                f"{self.labels.url}: expected ids from 0, found {ids.min()} within {box} of the raw; "
                "declare it as background or unlabelled."
            )
        return ids, labelled

    def labelled_boxes(self, shape: Voxel, at_least: int = 1) -> Iterator[tuple[Box, int]]:
        """Yields tiles of the labelled region with `at_least` labelled voxels, and their count.

        Chunks of labels and mask that were never written are not read, where that makes them unlabelled.
        """
        z, y, x = (_TOGETHER * side for side in shape)
        for part in self.labelled_region.tiles((z, y, x)):
            if not all(volume.is_written(self._span(volume, part)) for volume, _ in self._sparse()):
                continue
            for box in part.tiles(shape):
                # Most tiles are empty, and to see that costs far less than to apply the rules.
                if all((volume.read(self._span(volume, box)) != nothing).any() for volume, nothing in self._sparse()):
                    count = int(self.read_labels(box)[1].sum())
                    if count >= at_least:
                        yield box, count

    def _sparse(self) -> Iterator[tuple[Volume, int]]:
        """Yields labels and mask with the value of voxels that were never written, where these are unlabelled."""
        for volume, nothing in ((self.labels, self.rules.unlabelled), (self.mask, (0,))):
            if volume is not None and int(volume.store.fill_value or 0) in nothing:
                yield volume, int(volume.store.fill_value or 0)

    def _span(self, volume: Volume, box: Box) -> Box:
        return span_of(nearest_indices(self.raw, volume, box))


def open_declared(declared: DeclaredVolume) -> Specimen:
    """Opens raw, labels and mask from wherever they lie."""
    if not declared.raw:
        raise UserError(f"Volume {declared.name!r}: expected a path or URL as `raw`, found nothing.")
    raw = open_volume(
        declared.raw,
        level=declared.raw_level,
        voxel_size_zyx=declared.raw_voxel_size_zyx,
        offset_zyx=declared.raw_offset_zyx,
    )

    def beside(url: str, level: int, size: tuple[int | float, ...], offset: tuple[int | float, ...]) -> Volume | None:
        return with_size_of(raw, open_volume(url, level=level, voxel_size_zyx=size, offset_zyx=offset)) if url else None

    return Specimen(
        raw,
        beside(declared.labels, declared.labels_level, declared.labels_voxel_size_zyx, declared.labels_offset_zyx),
        beside(declared.mask, declared.mask_level, declared.mask_voxel_size_zyx, declared.mask_offset_zyx),
        name=declared.name,
        roi=declared.roi,
        intensity=declared.intensity,
        rules=declared.rules,
    )


def apply_rules(
    ids: Shaped[np.ndarray, "z y x"], labelled: Bool[np.ndarray, "z y x"], rules: LabelRules
) -> tuple[Integer[np.ndarray, "z y x"], Bool[np.ndarray, "z y x"]]:
    """Sets background and unlabelled ids to 0; returns the mask of labelled voxels too."""
    ids = ids.astype(np.uint8) if ids.dtype == bool else ids
    labelled = labelled & ~is_any(ids, rules.unlabelled)
    # Passes over large windows cost: 0 is 0 already, and mostly everything is labelled.
    none = ~labelled | is_any(ids, tuple(number for number in rules.background if number))
    return (np.where(none, ids.dtype.type(0), ids) if none.any() else ids), labelled


def is_any(ids: Integer[np.ndarray, "*a"], wanted: tuple[int, ...]) -> Bool[np.ndarray, "*a"]:
    """Returns where an id is one of these; those that its type cannot hold are nowhere."""
    limits = np.iinfo(ids.dtype)
    found = np.zeros(ids.shape, bool)
    for number in wanted:
        if limits.min <= number <= limits.max:
            found |= ids == number
    return found


def reflect(indices: Int[np.ndarray, "*n"], size: int) -> Int[np.ndarray, "*n"]:
    """Returns the index within an axis of this size, mirrored at its first and last voxel."""
    if size == 1:
        return np.zeros_like(indices)
    folded = np.abs(indices) % (2 * size - 2)
    return np.where(folded < size, folded, 2 * size - 2 - folded)


def read_mirrored(specimen: Specimen, box: Box) -> Shaped[np.ndarray, "z y x"]:
    """Reads raw mirrored at the faces of the specimen's region of interest."""
    indices = [
        first + reflect(np.arange(start, stop) - first, last - first)
        for start, stop, first, last in zip(*box, *specimen.region, strict=True)
    ]
    z, y, x = (int(i.min()) for i in indices)
    far_z, far_y, far_x = (int(i.max()) + 1 for i in indices)
    there = Box((z, y, x), (far_z, far_y, far_x))
    values = specimen.read_raw(there)
    return values if there == box else values[np.ix_(*(i - i.min() for i in indices))]
