"""What OME-Zarr (0.4 and 0.5) and the looser habits of the field say about voxel size, offset and axis names."""

import math
from collections.abc import Mapping
from typing import Any

from emsam_jax.volumes.axes import by_axis, named_axes, nanometres, to_zyx, unnamed_axes
from emsam_jax.volumes.errors import VolumeError

Attributes = Mapping[str, Any]


def multiscale(attributes: Attributes) -> Attributes | None:
    """The first image of an OME-Zarr group's attributes."""
    found = attributes.get("ome", attributes).get("multiscales") or [None]
    return found[0]


class Pyramid:
    """An OME-Zarr image: the path, axes, voxel size and offset (nm, by axis letter) of each level."""

    def __init__(self, image: Attributes, url: str):
        axes = image.get("axes") or []
        names = [axis if isinstance(axis, str) else axis.get("name") for axis in axes]
        units = [None if isinstance(axis, str) else axis.get("unit") for axis in axes]
        self.axes = named_axes(names, len(names)) if names else ""
        self.paths, self.sizes, offsets = [], [], []
        self.has_unit = any(units)
        outer = image.get("coordinateTransformations", [])
        for dataset in image.get("datasets", []):
            scale, shift = [1.0] * len(names), [0.0] * len(names)
            for step in [*dataset.get("coordinateTransformations", []), *outer]:
                by = step.get(step.get("type"), [])
                if step.get("type") in ("scale", "translation") and len(by) != len(names):
                    raise VolumeError(f"{url}: expected a {step['type']} of {len(names)} numbers, found {by}.")
                if step.get("type") == "scale":
                    scale = [a * b for a, b in zip(scale, by, strict=True)]
                    shift = [a * b for a, b in zip(shift, by, strict=True)]
                elif step.get("type") == "translation":
                    shift = [a + b for a, b in zip(shift, by, strict=True)]
            self.paths.append(dataset["path"])
            self.sizes.append(by_axis([nanometres(*pair) for pair in zip(scale, units, strict=True)], self.axes))
            offsets.append(by_axis([nanometres(*pair) for pair in zip(shift, units, strict=True)], self.axes))
        if not self.paths:
            raise VolumeError(f"{url}: expected an OME-Zarr image with datasets, found none in its multiscales.")
        self.offsets = [
            self._corner(offset, size, offsets[0]) for offset, size in zip(offsets, self.sizes, strict=True)
        ]
        # Scales of 1 without a unit are what writers put when they know nothing.
        known = self.has_unit or any(value != 1 for value in self.sizes[0].values())
        self.levels = tuple(to_zyx(size, 1.0) for size in self.sizes) if known else ()
        if not known:
            self.sizes = [{} for _ in self.sizes]

    def _corner(
        self, offset: Mapping[str, float], size: Mapping[str, float], first: Mapping[str, float]
    ) -> Mapping[str, float]:
        """Some writers place a level's first voxel by its corner, others by its centre; levels must meet in either.

        By centres, a level starts half the difference of the voxel sizes later, which is no shift at all.
        """
        centred = {axis: first[axis] + (size[axis] - self.sizes[0][axis]) / 2 for axis in offset}
        same = all(math.isclose(offset[axis], centred[axis], abs_tol=1e-6 * size[axis]) for axis in offset)
        return first if same else offset


def array_metadata(attributes: Attributes, rank: int, driver: str) -> tuple[str, dict[str, float], dict[str, float]]:
    """Axes, voxel size and offset (nm) that an array's own attributes give: gunpowder's, CREMI's, xarray's, N5's."""
    transform = attributes.get("transform")
    if isinstance(transform, Mapping) and "axes" in transform:  # COSEM, names its own order
        return _cosem(transform, rank, driver)
    names = attributes.get("axis_names") or attributes.get("_ARRAY_DIMENSIONS") or attributes.get("dimension_names")
    axes = named_axes(names, rank, driver) if names else unnamed_axes(driver, rank)
    units = attributes.get("units") or []
    units = [units] * rank if isinstance(units, str) else units
    size, offset = attributes.get("voxel_size", attributes.get("resolution")), attributes.get("offset")
    if isinstance(pixel := attributes.get("pixelResolution"), Mapping):  # N5 viewer
        size, units = pixel.get("dimensions"), [pixel.get("unit")] * rank
    elif isinstance(pixel, list):
        size = pixel

    def vector(values: Any) -> dict[str, float]:
        if values is None:
            return {}
        values = [float(value) for value in values]
        same = len(units) == len(values)
        return by_axis([nanometres(v, u) for v, u in zip(values, units, strict=True)] if same else values, axes)

    return axes, vector(size), vector(offset)


def _cosem(transform: Attributes, rank: int, driver: str) -> tuple[str, dict[str, float], dict[str, float]]:
    names = transform["axes"]
    units = transform.get("units") or [None] * len(names)
    letters = "".join(name[:1].lower() for name in names)
    scale = [nanometres(*pair) for pair in zip(transform["scale"], units, strict=True)]
    shift = [nanometres(*pair) for pair in zip(transform.get("translate", [0.0] * len(names)), units, strict=True)]
    # The names order these vectors, as numpy sees the array; the array's own order on disk is still the format's.
    return unnamed_axes(driver, rank), by_axis(scale, letters), by_axis(shift, letters)
