"""Lays out a new volume: its shape, and the chunks and shards that it is stored in."""

import dataclasses
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, get_args

import numpy as np
from numpy.typing import DTypeLike

from emsam_jax.errors import UserError
from emsam_jax.storage import beside, normalise, split_last
from emsam_jax.volumes.axes import Sizes, sizes, thickness
from emsam_jax.volumes.box import Voxel

Format = Literal["ome-zarr", "ome-zarr-0.4", "precomputed"]  # OME-Zarr 0.5 where no version is named
_SHARD_CHUNKS = 4  # chunks in a shard along each axis


@dataclasses.dataclass(frozen=True)
class Layout:
    """The layout of a volume. Shape [z, y, x] or [c, z, y, x], chunk and shard z, y, x."""

    url: str
    format: Format
    shape: tuple[int, ...]
    dtype: np.dtype
    voxel_size_zyx: Sizes  # nm
    offset_zyx: Sizes  # nm
    chunk: Voxel
    shard: Voxel
    offsets: tuple[Voxel, ...] = ()  # of the channels, where they are affinities
    level: int = 0  # of a pyramid, from the finest
    name: str = ""  # of the image

    def beside(self) -> "Layout":
        """Where it is written until it is whole and replaces what is at its URL."""
        return dataclasses.replace(self, url=beside(self.url))


def plan_layout(
    url_or_path: str | Path,
    shape: Sequence[int],
    dtype: DTypeLike,
    voxel_size_zyx: Sequence[int | float],
    *,
    offset_zyx: Sequence[int | float] = (0.0, 0.0, 0.0),
    format: Format = "ome-zarr",  # noqa: A002
    chunk: Voxel | None = None,
    shard: Voxel | None = None,
    offsets: Sequence[Voxel] = (),
) -> Layout:
    url = normalise(str(url_or_path))
    if len(voxel_size_zyx) != 3 or not all(0 < size < math.inf for size in voxel_size_zyx):
        raise UserError(f"{url}: expected a voxel size of three numbers above 0, found {voxel_size_zyx} (z, y, x, nm).")
    if len(shape) not in (3, 4) or min(shape) < 1:
        raise UserError(f"{url}: expected a shape z, y, x or c, z, y, x of at least one voxel, found {tuple(shape)}.")
    if len(offset_zyx) != 3 or not all(map(math.isfinite, offset_zyx)):
        raise UserError(f"{url}: expected an offset of three numbers, found {offset_zyx} (z, y, x, nm).")
    if format not in get_args(Format):
        raise UserError(f"{url}: expected the format {', '.join(get_args(Format))}, found {format!r}.")
    size, offset = sizes(voxel_size_zyx), sizes(offset_zyx)
    for name, sides in (("chunks", chunk), ("shards", shard)):
        if sides and min(sides) < 1:
            raise UserError(f"{url}: expected {name} of at least one voxel along each axis, found {sides} (z, y, x).")
    chunk = chunk or chunk_for(shape[-3:], size)
    shard = shard or shard_for(shape[-3:], chunk)
    if any(s % c for s, c in zip(shard, chunk, strict=True)):
        raise UserError(f"{url}: expected shards of whole chunks {chunk}, found {shard}.")
    if offsets and (len(shape), len(offsets)) != (4, shape[0]):
        raise UserError(
            f"{url}: expected an offset for each channel of the shape {tuple(shape)}, found {len(offsets)}."
        )
    name = split_last(url)[1]
    return Layout(url, format, tuple(shape), np.dtype(dtype), size, offset, chunk, shard, tuple(offsets), name=name)


def chunk_for(shape: Sequence[int], voxel_size_zyx: Sizes) -> Voxel:
    """Returns chunks of about 2**18 voxels, near a cube in nm, so that a patch touches few: 64 a side, or flatter."""
    z, y, x = shape
    ratio = thickness(voxel_size_zyx)
    depth, side = (16, 128) if ratio >= 4 else (32, 96) if ratio >= 1.5 else (64, 64)
    return min(z, depth), min(y, side), min(x, side)


def shard_for(shape: Sequence[int], chunk: Voxel) -> Voxel:
    """Returns shards of four chunks a side (16 million voxels), fewer where the volume ends."""
    z, y, x = (c * min(_SHARD_CHUNKS, -(-size // c)) for size, c in zip(shape, chunk, strict=True))
    return z, y, x


def shard_within(block: Voxel, chunk: Voxel, region: Voxel, format: Format = "ome-zarr") -> Voxel:  # noqa: A002
    """Returns a shard that fills the block, of as many chunks as usual, or fewer."""
    usual = shard_for(region, chunk)
    if format == "precomputed":
        return _longest_run(block, chunk, region, usual)
    z, y, x = (
        own * next((n for n in range(most // own, 0, -1) if _fill(n * own, wanted, side)), 1)
        for own, most, side, wanted in zip(chunk, usual, region, block, strict=True)
    )
    return z, y, x


def _longest_run(block: Voxel, chunk: Voxel, region: Voxel, usual: Voxel) -> Voxel:
    """Returns the longest run of 2**n chunks along precomputed's Morton curve, which is a shard; its box doubles with
    n.

    It doubles along x, y and z in turn, leaving out an axis where the region ends.
    """
    doublings = [(-(-side // own) - 1).bit_length() for side, own in zip(region, chunk, strict=True)]
    turns = [axis for turn in range(max(doublings)) for axis in (2, 1, 0) if turn < doublings[axis]]
    longest, run = chunk, list(chunk)
    for axis in turns:
        run[axis] *= 2
        if any(own >= 2 * most for own, most in zip(run, usual, strict=True)):
            break
        if all(map(_fill, run, block, region)):
            longest = (run[0], run[1], run[2])
    return longest


def _fill(part: int, whole: int, region: int) -> bool:
    """Returns whether parts of this side fill the whole, or the region ends before."""
    return whole >= region or whole % part == 0


def corner_of(layout: Layout) -> Voxel:
    """Returns the first voxel's corner for precomputed: in voxels of a grid that starts at 0 nm."""
    sides = list(zip(layout.offset_zyx, layout.voxel_size_zyx, strict=True))
    z, y, x = (round(offset / size) for offset, size in sides)
    if any(abs(at * size - offset) > 1e-3 * size for at, (offset, size) in zip((z, y, x), sides, strict=True)):
        raise UserError(
            f"{layout.url}: precomputed wants an offset of whole voxels {layout.voxel_size_zyx} nm, found "
            f"{layout.offset_zyx} nm (z, y, x)."
        )
    return z, y, x
