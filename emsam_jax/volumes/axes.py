"""The one place that decides axis order: files have many, users see z, y, x (channels, where asked for, first)."""

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Literal

import tensorstore as ts

from emsam_jax.errors import UserError
from emsam_jax.storage import Field
from emsam_jax.volumes.chunk_files import ChunkFiles, Missing

Sizes = tuple[float, float, float]
Channel = int | Literal["all"] | None
NOTHING = Field(None, "")

# Where a file does not name its axes. N5 and precomputed list x first, the others z first.
_UNNAMED = {
    "zarr": {2: "yx", 3: "zyx", 4: "czyx", 5: "tczyx"},
    "n5": {2: "xy", 3: "xyz", 4: "xyzc", 5: "xyzct"},
    "neuroglancer_precomputed": {4: "xyzc"},
}
_NANOMETRES = {
    "nm": 1.0,
    "nanometer": 1.0,
    "nanometre": 1.0,
    "um": 1e3,
    "\u00b5m": 1e3,
    "\u03bcm": 1e3,
    "micron": 1e3,
    "microns": 1e3,
    "micrometer": 1e3,
    "micrometre": 1e3,
    "mm": 1e6,
    "millimeter": 1e6,
    "m": 1e9,
    "meter": 1e9,
    "angstrom": 0.1,
    "\u00e5": 0.1,
    "picometer": 1e-3,
    "pm": 1e-3,
}


@dataclasses.dataclass(frozen=True)
class Native:
    """A volume as its file has it: `axes` names each axis by a letter; sizes and offsets in nm go by that letter."""

    store: ts.TensorStore
    axes: str
    voxel_size: Mapping[str, int | float] = dataclasses.field(default_factory=dict)  # empty: the file says nothing
    offset: Mapping[str, int | float] = dataclasses.field(default_factory=dict)
    levels: tuple[Sizes, ...] = ()  # voxel size z, y, x of each pyramid level
    faults: Mapping[str, str] = dataclasses.field(default_factory=dict)  # of sizes that open_volume may be given
    files: ChunkFiles | None = None  # that hold its chunks, where TensorStore looks for others
    stored: Callable[[], Missing] | None = None  # where the format itself counts its chunks
    notes: tuple[str, ...] = ()  # what the voxels are not: sections that were missing and filled
    attributes: Field = NOTHING  # of the array itself


def thickness(voxel_size_zyx: Sequence[int | float]) -> float:
    """How many times as thick as wide a voxel is."""
    z, y, x = voxel_size_zyx
    return z / math.sqrt(y * x)


def is_isotropic(voxel_size_zyx: Sequence[int | float]) -> bool:
    """Whether neighbouring sections see nearly the same, so that z is treated as y and x: below twice as thick."""
    return thickness(voxel_size_zyx) < 2


def unnamed_axes(driver: str, rank: int) -> str:
    table = _UNNAMED.get(driver, _UNNAMED["zarr"])
    if rank not in table:
        raise UserError(f"Expected a volume of {min(table)} to {max(table)} axes; found {rank}.")
    return table[rank]


def named_axes(names: Sequence[str | None] | None, rank: int, driver: str = "zarr") -> str:
    """Maps names such as `z`, `Z`, `channel` or `z^` to letters; the format's own order where they say too little."""
    letters = "".join((name or "?").lower().removeprefix("dim_")[:1] for name in names or ())
    letters = letters.replace("s", "c")
    complete = len(letters) == rank == len(set(letters)) and set(letters) <= set("tczyx") and set("yx") <= set(letters)
    return letters if complete else unnamed_axes(driver, rank)


def nanometres(value: int | float, unit: str | None) -> float:
    """Converts to nm. Without a unit, or with one that is none of length, the number is taken as nm."""
    factor = _NANOMETRES.get(unit or "", _NANOMETRES.get((unit or "").lower(), 1.0))
    return float(value) * factor


def by_axis(values: Sequence[int | float], axes: str) -> dict[str, float]:
    """Returns a vector in the file's order, one value an axis or one a spatial axis, by letter."""
    spatial = [axis for axis in axes if axis in "zyx"]
    names = axes if len(values) == len(axes) else spatial
    if len(values) != len(names):
        return {}
    return {axis: float(value) for axis, value in zip(names, values, strict=True) if axis in "zyx"}


def to_zyx(sizes: Mapping[str, int | float], missing: int | float) -> Sizes:
    z, y, x = (float(sizes.get(axis, missing)) for axis in "zyx")
    return z, y, x


def sizes(values: Sequence[int | float]) -> Sizes:
    z, y, x = (float(value) for value in values)
    return z, y, x


def ordered(native: Native, channel: Channel, url: str) -> ts.TensorStore:
    """Returns the store with axes z, y, x, starting at 0; with channel="all", c, z, y, x."""
    store, axes = native.store, native.axes
    if "t" in axes:
        at = axes.index("t")
        if store.shape[at] != 1:
            raise UserError(f"{url}: expected one volume, found {store.shape[at]} time points; cut out one of them.")
        store, axes = _pick(store, at, 0), axes.replace("t", "")
    if "c" in axes and channel != "all":
        at = axes.index("c")
        count = store.shape[at]
        if channel is None and count != 1:
            raise UserError(f'{url}: expected one channel, found {count}; choose one, 0 to {count - 1}, or "all".')
        if not 0 <= (channel or 0) < count:
            raise UserError(f"{url}: expected a channel from 0 to {count - 1}, found {channel}.")
        store, axes = _pick(store, at, channel or 0), axes.replace("c", "")
    wanted = "czyx" if channel == "all" else "zyx"
    for axis in wanted:
        if axis not in axes:
            store, axes = store[ts.newaxis], axis + axes
    store = store.transpose([axes.index(axis) for axis in wanted])
    return store[ts.d[:].translate_to[0]][ts.d[:].label[list(wanted)]]


def _pick(store: ts.TensorStore, axis: int, index: int) -> ts.TensorStore:
    return store[ts.d[axis][store.domain[axis].inclusive_min + index]]
