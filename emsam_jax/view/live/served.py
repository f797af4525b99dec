"""Volumes as neuroglancer asks for them: chunk by chunk, each from the level of the pyramid that fits."""

import functools
import io
import math
import threading
import zlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal, Protocol, runtime_checkable

import numpy as np
import tensorstore as ts
from jaxtyping import Shaped
from neuroglancer import CoordinateSpace, LocalVolume
from neuroglancer._neuroglancer import OnDemandObjectMeshGenerator
from neuroglancer.local_volume import InvalidObjectIdForMesh, MeshesNotSupportedForVolume

from emsam_jax.errors import UserError
from emsam_jax.volumes import Box, Sizes, Volume, Voxel, as_unit, box_of, open_volume

_MOST_VOXELS = 1 << 22  # of a request; the viewer's own are of 2**18
_WITHOUT_PYRAMID = 64  # voxels that one may stand for: more of the volume would have to be read
_GREY = {np.dtype(name) for name in ("uint8", "int8", "uint16", "int16", "uint32", "int32", "float32")}
_MESHED, _MOST_READ = 1 << 23, 1 << 28  # voxels: of which surfaces are made, and read for it where there is no pyramid
Role = Literal["grey", "affinities", "ids", "codes"]


@runtime_checkable
class Shown(Protocol):
    """What can be served: voxels [z, y, x] or [c, z, y, x], each standing for `factor` of the finest."""

    @property
    def finest(self) -> Volume: ...
    @property
    def has_pyramid(self) -> bool: ...
    def read(self, factor: Voxel, box: Box) -> Shaped[np.ndarray, "*c z y x"]: ...


class Levels:
    """A volume with the levels of its pyramid, each opened when it is first read; grey values are averaged, ids not."""

    def __init__(self, finest: Volume, *, averaged: bool, reopen: Callable[[int], Volume] | None = None):
        self.finest, self._reopen = finest, reopen
        self._method: Literal["mean", "stride"] = "mean" if averaged else "stride"
        sizes = finest.levels if reopen else finest.levels[:1]
        ratios = [[own / first for own, first in zip(size, sizes[0], strict=True)] for size in sizes]
        self._factors = {
            tuple(round(ratio) for ratio in by): level
            for level, by in enumerate(ratios)
            if all(math.isclose(ratio, round(ratio), rel_tol=1e-2) for ratio in by)
        }
        self._lock = threading.Lock()
        self.at = functools.cache(self._at)

    @property
    def has_pyramid(self) -> bool:
        return len(self._factors) > 1

    def coarser(self) -> Iterator[Volume]:
        """Yields the levels, from the finest."""
        return (self.at(factor) for factor in sorted(self._factors, key=math.prod))

    def read(self, factor: Voxel, box: Box) -> Shaped[np.ndarray, "*c z y x"]:
        view = self.at(factor)
        z, y, x = _steps(self.finest.offset_zyx, view)
        return view.read(box.shifted((z, y, x)))

    def _at(self, factor: Voxel) -> Volume:
        """The volume in voxels of `factor` of the finest, each computed from the coarsest level that fits."""
        with self._lock:
            own = max(filter(lambda own: _divides(own, factor), self._factors), key=math.prod)
            at, first = self._factors[own], self.finest
            level = self._reopen(at) if at and self._reopen else first
        store, channels = level.store, len(level.shape) - 3
        if channels:
            store = store[:3]
        size = _times(first.voxel_size_zyx, own)
        moved = Volume(level.store, level.url, voxel_size_zyx=size, offset_zyx=level.offset_zyx)
        shift = [-step for step in _steps(first.offset_zyx, moved)] if at else [0, 0, 0]
        store = store[ts.d[channels:].translate_to[shift]]
        rest = [by // done for by, done in zip(factor, own, strict=True)]
        if max(rest) > 1:
            store = ts.downsample(store, [*[1] * channels, *rest], self._method)
        size = _times(first.voxel_size_zyx, factor)
        begins = store.domain.origin[channels:]
        offset = [corner + start * side for corner, start, side in zip(first.offset_zyx, begins, size, strict=True)]
        return Volume(store[ts.d[:].translate_to[0]], level.url, voxel_size_zyx=size, offset_zyx=offset)


def open_levels(
    url: str,
    *,
    averaged: bool,
    channel: Literal["all"] | None = None,
    voxel_size_zyx: Sequence[int | float] | None = None,
    offset_zyx: Sequence[int | float] | None = None,
) -> Levels:
    """Opens a volume of any format; a voxel size that is that of one of its levels is no other than the file's."""
    stored = finest = open_volume(url, channel=channel)
    at_a_level = stored.voxel_size_known and _is_among(voxel_size_zyx, stored.levels)
    declared: dict[str, Any] = {"voxel_size_zyx": None if at_a_level else voxel_size_zyx, "offset_zyx": offset_zyx}
    if any(declared.values()):
        finest = open_volume(url, channel=channel, **declared)
    shift = [now - own for now, own in zip(finest.offset_zyx, stored.offset_zyx, strict=True)]

    def reopen(level: int) -> Volume:
        volume = open_volume(url, level=level, channel=channel)
        offset = [own + by for own, by in zip(volume.offset_zyx, shift, strict=True)]
        return Volume(volume.store, volume.url, voxel_size_zyx=volume.voxel_size_zyx, offset_zyx=offset)

    return Levels(finest, averaged=averaged, reopen=reopen)


class ServedVolume(LocalVolume):
    """A data source of neuroglancer's client, which asks for voxels of 1, 2, 4, ... times the size along each axis."""

    def __init__(self, shown: Shown, role: Role):
        self.shown = shown
        self._role: Role = role
        shape, size = shown.finest.shape, shown.finest.voxel_size_zyx
        if len(shape) == 4:
            shape = (min(3, shape[0]), *shape[1:])
        super().__init__(
            data=_Described(shape, served_dtype(shown.finest.dtype, role)),
            dimensions=dimensions_of(size, channels=len(shape) == 4),
            volume_type="segmentation" if role == "ids" else "image",
            max_downsampling=math.inf if shown.has_pyramid else _WITHOUT_PYRAMID,  # type: ignore[reportArgumentType]
        )
        self._meshing, self._meshes = threading.Lock(), None

    def get_encoded_subvolume(self, data_format: str, start: Any, end: Any, scale_key: str) -> tuple[bytes, Any]:
        factor = tuple(int(by) for by in scale_key.split(","))[-3:]
        first, last = (tuple(int(place) for place in ends[-3:]) for ends in (start, end))
        box = Box(first, last)  # type: ignore[reportArgumentType]
        if len(factor) != 3 or min(factor) < 1 or box.voxels > _MOST_VOXELS or data_format != "npz":
            raise ValueError("Expected a chunk of a level of this volume.")
        try:
            values = to_served(self.shown.read(factor, box), self._role)
        except UserError as problem:
            raise ValueError(str(problem)) from None
        file = io.BytesIO()
        np.save(file, np.asfortranarray(values))
        return zlib.compress(file.getvalue(), 1), "application/octet-stream"

    def get_object_mesh(self, object_id: int) -> bytes:
        """A surface of an object that is selected, at the finest level of few enough voxels."""
        with self._meshing:
            if self._meshes is None:
                self._meshes = self._make_meshes()
        mesh = self._meshes.get_mesh(object_id)
        if mesh is None:
            raise InvalidObjectIdForMesh
        return mesh

    def _make_meshes(self) -> OnDemandObjectMeshGenerator:
        finest, factor = self.shown.finest, [1, 1, 1]
        if self._role != "ids" or (finest.box.voxels > _MOST_READ and not self.shown.has_pyramid):
            raise MeshesNotSupportedForVolume
        while math.prod(side / by for side, by in zip(finest.shape, factor, strict=True)) > _MESHED:
            sizes = [size * by for size, by in zip(finest.voxel_size_zyx, factor, strict=True)]
            factor[int(np.argmin(sizes))] *= 2
        z, y, x = factor
        shape = [-(-side // by) for side, by in zip(finest.shape, factor, strict=True)]
        values = to_served(self.shown.read((z, y, x), box_of((shape[0], shape[1], shape[2]))), self._role)
        scales = [size * by for size, by in zip(self.dimensions.scales, factor, strict=True)]
        return OnDemandObjectMeshGenerator(values.transpose(), scales, np.zeros(3))


def served_dtype(dtype: np.dtype, role: Role) -> np.dtype:
    """The type in which the client gets them: it knows no halves, no 64 bits but of ids."""
    if role in ("affinities", "codes"):
        return np.dtype(np.uint8)
    if role == "ids":
        return np.dtype(np.uint32 if dtype.kind in "ub" and dtype.itemsize <= 4 else np.uint64)
    return np.dtype(np.uint8) if dtype.kind == "b" else dtype if dtype in _GREY else np.dtype(np.float32)


def to_served(values: Shaped[np.ndarray, "*c z y x"], role: Role) -> Shaped[np.ndarray, "*c z y x"]:
    if role == "affinities":
        return np.rint(255 * np.clip(as_unit(values), 0, 1)).astype(np.uint8)
    return values.astype(served_dtype(values.dtype, role), copy=False)


def dimensions_of(size_zyx: Sizes, *, channels: bool = False) -> CoordinateSpace:
    """The axes of a source; a name with ^ is one that shaders read together."""
    names, units, scales = ["z", "y", "x"], ["nm"] * 3, [*size_zyx]
    if channels:
        names, units, scales = ["c^", *names], ["", *units], [1, *scales]
    return CoordinateSpace(names=names, units=units, scales=scales)


class _Described:
    """What LocalVolume wants to know of an array that nobody reads as a whole."""

    def __init__(self, shape: tuple[int, ...], dtype: np.dtype):
        self.shape, self.dtype = shape, dtype


def _is_among(size: Sequence[int | float] | None, levels: Sequence[Sizes]) -> bool:
    return bool(size) and any(np.allclose(own, size) for own in levels)


def _divides(own: tuple[int, ...], factor: Voxel) -> bool:
    return all(by % done == 0 for by, done in zip(factor, own, strict=True))


def _times(size: Sizes, by: Sequence[int]) -> Sizes:
    z, y, x = (side * times for side, times in zip(size, by, strict=True))
    return z, y, x


def _steps(corner: Sizes, volume: Volume) -> Voxel:
    """The voxel of the volume in whose corner a place in nm lies; levels of precomputed begin up to one earlier."""
    sides = zip(corner, volume.offset_zyx, volume.voxel_size_zyx, strict=True)
    z, y, x = (round((place - offset) / size) for place, offset, size in sides)
    return z, y, x
