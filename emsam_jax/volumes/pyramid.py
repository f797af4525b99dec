"""Computes coarser levels of a volume for viewers: each has half the voxels of the one before along some axes."""

import dataclasses
import math
from typing import Literal

import numpy as np
import tensorstore as ts
from jaxtyping import Shaped

from emsam_jax.volumes.axes import sizes
from emsam_jax.volumes.box import Box, Voxel
from emsam_jax.volumes.layout import Layout, chunk_for, corner_of, shard_for, shard_within
from emsam_jax.volumes.volume import Volume

Method = Literal["mean", "mode"]  # of grey values, and the most frequent of ids
_SMALL = 2  # chunks a side, of which a viewer wants nothing coarser
_EQUAL = math.sqrt(2)  # voxel sizes that differ by more get nearer to each other by halving the finer one alone


def plan_levels(finest: Layout) -> list[Layout]:
    """Plans all levels, the finest included, until one is a few chunks."""
    levels = [finest]
    while any(side > _SMALL * own for side, own in zip(levels[-1].shape[-3:], _usual_chunk(levels[-1]), strict=True)):
        levels.append(coarsen(levels[-1]))
    return levels


def coarsen(fine: Layout) -> Layout:
    """Plans the next level.

    Of OME-Zarr, it begins at the corner of the finer one; of precomputed, at a multiple of its own voxel size, because
    its offsets are whole numbers. Voxels on the border may stand for fewer of the finer level's.
    """
    factor = factor_of(fine)
    size = sizes([own * by for own, by in zip(fine.voxel_size_zyx, factor, strict=True)])
    corner = corner_of(fine) if fine.format == "precomputed" else (0, 0, 0)
    first = [at // by for at, by in zip(corner, factor, strict=True)]
    z, y, x = (
        -(-(at + side) // by) - start
        for at, side, by, start in zip(corner, fine.shape[-3:], factor, first, strict=True)
    )
    offset = fine.offset_zyx
    if fine.format == "precomputed":
        offset = sizes([start * own for start, own in zip(first, size, strict=True)])
    shape, level = (*fine.shape[:-3], z, y, x), fine.level + 1
    coarse = dataclasses.replace(fine, shape=shape, voxel_size_zyx=size, offset_zyx=offset, offsets=(), level=level)
    chunk = _usual_chunk(coarse)
    usual = shard_for((z, y, x), chunk)
    # A worker holds a shard: none is to be larger than the finer level's.
    room = [own * max(1, min(side, most) // own) for own, side, most in zip(chunk, fine.shard, usual, strict=True)]
    shard = shard_within((room[0], room[1], room[2]), chunk, (z, y, x), fine.format)
    return dataclasses.replace(coarse, chunk=chunk, shard=shard)


def factor_of(fine: Layout) -> Voxel:
    """Returns 2 along the axes whose voxels are about the finest, so that voxels become cubes and then stay so."""
    sides = list(zip(fine.shape[-3:], fine.voxel_size_zyx, strict=True))
    finest = min((size for side, size in sides if side > 1), default=0.0)
    z, y, x = (2 if side > 1 and size < _EQUAL * finest else 1 for side, size in sides)
    return z, y, x


def read_coarsened(volume: Volume, coarse: Layout, box: Box, method: Method) -> Shaped[np.ndarray, "*c z y x"]:
    """Reads the box of the level `coarse`, from the voxels of the level before it.

    Chunk by chunk, because TensorStore holds all voxels that it reads for chunks which begin within a coarse voxel.
    """
    by = [round(own / size) for own, size in zip(coarse.voxel_size_zyx, volume.voxel_size_zyx, strict=True)]
    sides = zip(volume.offset_zyx, coarse.offset_zyx, volume.voxel_size_zyx, strict=True)
    inside = [round((own - corner) / size) for own, corner, size in sides]
    channels = [1] * (len(volume.shape) - 3)
    placed = volume.store[ts.d[len(channels) :].translate_to[inside]]
    view = Volume(ts.downsample(placed, [*channels, *by], method), volume.url)
    values = np.empty((*volume.shape[:-3], *box.shape), volume.dtype)
    back = (-box.start[0], -box.start[1], -box.start[2])
    for tile in box.tiles(coarse.chunk):
        values[(..., *tile.shifted(back).slices)] = view[(..., *tile.slices)]
    return values


def _usual_chunk(layout: Layout) -> Voxel:
    return chunk_for(layout.shape[-3:], layout.voxel_size_zyx)
