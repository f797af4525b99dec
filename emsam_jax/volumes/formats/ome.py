"""Reads voxel size, offset and axis names from OME-Zarr (0.4 and 0.5) and the field's looser habits."""

import math
from collections.abc import Mapping
from typing import NamedTuple

from emsam_jax.errors import UserError
from emsam_jax.storage import Field
from emsam_jax.volumes.axes import by_axis, named_axes, nanometres, to_zyx, unnamed_axes


def multiscale(attributes: Field) -> Field | None:
    """Returns the first image of an OME-Zarr group's attributes."""
    return next(iter((attributes["ome"] or attributes)["multiscales"]), None)


class Pyramid:
    """An OME-Zarr image: the path, axes, voxel size and offset (nm, by axis letter) of each level."""

    def __init__(self, image: Field):
        axes = list(image["axes"])
        names = [axis.value if isinstance(axis.value, str) else axis["name"].text for axis in axes]
        units = [None if isinstance(axis.value, str) else _unit(axis["unit"]) for axis in axes]
        self.axes = named_axes(names, len(names)) if names else ""
        self.paths, self.sizes, offsets = [], [], []
        for dataset in image["datasets"]:
            scale, shift = [1.0] * len(names), [0.0] * len(names)
            for step in [*dataset["coordinateTransformations"], *image["coordinateTransformations"]]:
                if step["type"].value == "scale":
                    by = step["scale"].numbers(len(names))
                    scale = [a * b for a, b in zip(scale, by, strict=True)]
                    shift = [a * b for a, b in zip(shift, by, strict=True)]
                elif step["type"].value == "translation":
                    shift = [a + b for a, b in zip(shift, step["translation"].numbers(len(names)), strict=True)]
            self.paths.append(_path(dataset["path"]))
            self.sizes.append(by_axis([nanometres(*pair) for pair in zip(scale, units, strict=True)], self.axes))
            offsets.append(by_axis([nanometres(*pair) for pair in zip(shift, units, strict=True)], self.axes))
        if not self.paths:
            raise image["datasets"].unlike("the levels of an OME-Zarr image")
        self.offsets = [
            self._corner(offset, size, offsets[0]) for offset, size in zip(offsets, self.sizes, strict=True)
        ]
        # Scales of 1 without a unit are what writers put when they know nothing.
        known = any(units) or any(value != 1 for value in self.sizes[0].values())
        self.levels = tuple(to_zyx(size, 1.0) for size in self.sizes) if known else ()
        if not known:
            self.sizes = [{} for _ in self.sizes]

    def _corner(
        self, offset: Mapping[str, int | float], size: Mapping[str, int | float], first: Mapping[str, int | float]
    ) -> Mapping[str, int | float]:
        """Some writers place a level's first voxel by its corner, others by its centre; levels must meet in either.

        By centres, a level starts half the difference of the voxel sizes later, which is no shift at all.
        """
        centred = {axis: first[axis] + (size[axis] - self.sizes[0][axis]) / 2 for axis in offset}
        same = all(math.isclose(offset[axis], centred[axis], abs_tol=1e-6 * abs(size[axis])) for axis in offset)
        return first if same else offset


def _path(field: Field) -> str:
    """Within the image: nobody's metadata chooses other files of this machine."""
    if field.text.startswith("/") or ".." in field.text.split("/"):
        raise field.unlike("a path within the image")
    return field.text


def _unit(field: Field) -> str | None:
    return field.value if isinstance(field.value, str) else None


class ArrayMetadata(NamedTuple):
    """What an array's own attributes give, in nm by axis letter; empty where they say nothing."""

    axes: str
    voxel_size: dict[str, float]
    offset: dict[str, float]
    faults: dict[str, str]  # what is wrong with `voxel_size_zyx` or `offset_zyx`: whoever opens it may give another


def array_metadata(attributes: Field, rank: int, driver: str) -> ArrayMetadata:
    """Reads attributes by the habits of gunpowder, CREMI, xarray and N5."""
    if "axes" in attributes["transform"]:  # COSEM, names its own order
        return _cosem(attributes["transform"], rank, driver)
    names = next(
        (found for n in ("axis_names", "_ARRAY_DIMENSIONS", "dimension_names") if (found := attributes[n])), ()
    )
    axes = named_axes([_unit(name) for name in names], rank, driver) if names else unnamed_axes(driver, rank)
    units = attributes["units"]
    units = [units.value] * rank if isinstance(units.value, str) else [_unit(unit) for unit in units]
    size = attributes["voxel_size"] or attributes["resolution"]
    if isinstance((pixel := attributes["pixelResolution"]).value, dict):  # N5 viewer
        size, units = pixel["dimensions"], [_unit(pixel["unit"])] * rank
    elif pixel:
        size = pixel
    spatial = sum(axis in "zyx" for axis in axes)
    faults: dict[str, str] = {}

    def vector(field: Field, name: str) -> dict[str, float]:
        try:
            values = field.numbers(rank, spatial) if field else []
        except UserError as problem:
            faults[name] = str(problem)
            return {}
        same = len(units) == len(values)
        return by_axis([nanometres(v, u) for v, u in zip(values, units, strict=True)] if same else values, axes)

    return ArrayMetadata(axes, vector(size, "voxel_size_zyx"), vector(attributes["offset"], "offset_zyx"), faults)


def _cosem(transform: Field, rank: int, driver: str) -> ArrayMetadata:
    letters = "".join(name.text[:1].lower() for name in transform["axes"])
    units = [_unit(unit) for unit in transform["units"]] or [None] * len(letters)
    scale = transform["scale"].numbers(len(letters))
    shift = transform["translate"].numbers(len(letters)) if transform["translate"] else [0.0] * len(letters)
    if len(units) != len(letters):
        raise transform["units"].unlike(f"{len(letters)} units")
    size, offset = ([nanometres(*pair) for pair in zip(values, units, strict=True)] for values in (scale, shift))
    # The names order these vectors, as numpy sees the array; the array's own order on disk is still the format's.
    return ArrayMetadata(unnamed_axes(driver, rank), by_axis(size, letters), by_axis(offset, letters), {})
