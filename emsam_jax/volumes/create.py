"""New volumes: OME-Zarr 0.5 and precomputed, with chunks, shards, compression and checksums chosen for EM."""

import dataclasses
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import tensorstore as ts
from numpy.typing import DTypeLike

from emsam_jax.volumes.axes import Native, Sizes, ordered, sizes
from emsam_jax.volumes.box import Voxel
from emsam_jax.volumes.context import shared_context
from emsam_jax.volumes.errors import VolumeError
from emsam_jax.volumes.location import first_line, folder_spec, normalise, open_folder, read_key, write_key
from emsam_jax.volumes.volume import Volume

Format = Literal["ome-zarr", "precomputed"]

_SHARD_CHUNKS = 4  # chunks in a shard along each axis
_ARRAY = "0"  # the only level of the images that we write


@dataclasses.dataclass(frozen=True)
class Layout:
    """All that a volume is before it has voxels. Shape [z, y, x] or [c, z, y, x], chunk and shard z, y, x."""

    url: str
    format: Format
    shape: tuple[int, ...]
    dtype: np.dtype
    voxel_size_zyx: Sizes  # nm
    offset_zyx: Sizes  # nm
    chunk: Voxel
    shard: Voxel


def create_volume(
    url_or_path: str | Path,
    shape: Sequence[int],
    dtype: DTypeLike,
    voxel_size_zyx: Sequence[int | float],
    *,
    offset_zyx: Sequence[int | float] = (0.0, 0.0, 0.0),
    format: Format = "ome-zarr",  # noqa: A002
    chunk: Voxel | None = None,
    shard: Voxel | None = None,
    overwrite: bool = False,
) -> Volume:
    """An empty volume of `shape` [z, y, x] or [c, z, y, x] to write into; boxes of whole shards write fastest.

    Its voxels are 0, and a shard of nothing but zeros makes no file.
    """
    layout = plan_layout(
        url_or_path, shape, dtype, voxel_size_zyx, offset_zyx=offset_zyx, format=format, chunk=chunk, shard=shard
    )
    if not overwrite and occupied(layout.url):
        raise VolumeError(f"{layout.url}: there is a volume already; choose another place or ask for overwriting.")
    volume = create_array(layout, overwrite=overwrite)
    write_image_metadata(layout)
    return volume


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
) -> Layout:
    url = normalise(str(url_or_path))
    if len(voxel_size_zyx) != 3 or min(voxel_size_zyx) <= 0:
        raise VolumeError(
            f"{url}: expected a voxel size of three numbers above 0, found {voxel_size_zyx} (z, y, x, nm)."
        )
    if len(shape) not in (3, 4) or min(shape) < 1:
        raise VolumeError(f"{url}: expected a shape z, y, x or c, z, y, x of at least one voxel, found {tuple(shape)}.")
    if format not in ("ome-zarr", "precomputed"):
        raise VolumeError(f"{url}: expected the format ome-zarr or precomputed, found {format!r}.")
    size, offset = sizes(voxel_size_zyx), sizes(offset_zyx)
    chunk = chunk or chunk_for(shape[-3:], size)
    shard = shard or shard_for(shape[-3:], chunk)
    if any(s % c for s, c in zip(shard, chunk, strict=True)):
        raise VolumeError(f"{url}: expected shards of whole chunks {chunk}, found {shard}.")
    return Layout(url, format, tuple(shape), np.dtype(dtype), size, offset, chunk, shard)


def create_array(layout: Layout, *, overwrite: bool = False, resume: bool = False) -> Volume:
    """The array alone, which is no OME-Zarr image before `write_image_metadata`."""
    if overwrite:
        for name in ("zarr.json", "info"):
            write_key(open_folder(layout.url), name, None)
    spec = _zarr_spec(layout) if layout.format == "ome-zarr" else _precomputed_spec(layout)
    try:
        store = ts.open(
            spec, context=shared_context(), create=True, open=resume or None, delete_existing=overwrite
        ).result()
    except ValueError as error:
        raise VolumeError(f"{layout.url} cannot be created: {first_line(error)}") from None
    axes = "xyzc" if layout.format == "precomputed" else "czyx"[-len(layout.shape) :]
    store = ordered(Native(store, axes), "all" if len(layout.shape) == 4 else None, layout.url)
    return Volume(store, layout.url, voxel_size_zyx=layout.voxel_size_zyx, offset_zyx=layout.offset_zyx)


def chunk_for(shape: Sequence[int], voxel_size_zyx: Sizes) -> Voxel:
    """About 2**18 voxels, near a cube in nm, so that a patch touches few: 64 a side, or 16 or 32 thick sections."""
    z, y, x = shape
    ratio = voxel_size_zyx[0] / math.sqrt(voxel_size_zyx[1] * voxel_size_zyx[2])
    depth, side = (16, 128) if ratio >= 4 else (32, 96) if ratio >= 1.5 else (64, 64)
    return min(z, depth), min(y, side), min(x, side)


def shard_for(shape: Sequence[int], chunk: Voxel) -> Voxel:
    """Four chunks a side (16 million voxels), fewer where the volume ends."""
    z, y, x = (c * min(_SHARD_CHUNKS, -(-size // c)) for size, c in zip(shape, chunk, strict=True))
    return z, y, x


def shard_within(block: Voxel, chunk: Voxel, region: Voxel) -> Voxel:
    """As many chunks as usual, or fewer, so that they fill the block."""
    sides = []
    for own, usual, side, wanted in zip(chunk, shard_for(region, chunk), region, block, strict=True):
        fitting = (n for n in range(usual // own, 0, -1) if wanted >= side or wanted % (n * own) == 0)
        sides.append(own * next(fitting, 1))
    z, y, x = sides
    return z, y, x


def write_image_metadata(layout: Layout) -> None:
    """The group that makes the array an OME-Zarr 0.5 image; a precomputed volume has had its own from the start."""
    if layout.format == "precomputed":
        return
    axes: list[dict[str, str]] = [{"name": axis, "type": "space", "unit": "nanometer"} for axis in "zyx"]
    scale, shift = list(layout.voxel_size_zyx), list(layout.offset_zyx)
    if len(layout.shape) == 4:
        axes, scale, shift = [{"name": "c", "type": "channel"}, *axes], [1.0, *scale], [0.0, *shift]
    steps = [{"type": "scale", "scale": scale}, {"type": "translation", "translation": shift}]
    image = {"name": layout.url.rpartition("/")[2], "axes": axes}
    image |= {"datasets": [{"path": _ARRAY, "coordinateTransformations": steps}]}
    group = {"zarr_format": 3, "node_type": "group", "attributes": {"ome": {"version": "0.5", "multiscales": [image]}}}
    write_key(open_folder(layout.url), "zarr.json", json.dumps(group, indent=2).encode())


def _zarr_spec(layout: Layout) -> dict[str, Any]:
    rank, itemsize = len(layout.shape), layout.dtype.itemsize
    channels = (1,) * (rank - 3)
    blosc = {"cname": "zstd", "clevel": 5, "shuffle": "shuffle" if itemsize > 1 else "noshuffle"}
    little = {"name": "bytes", "configuration": {"endian": "little"}}
    checksum = {"name": "crc32c"}
    sharding = {
        "chunk_shape": [*channels, *layout.chunk],
        "codecs": [
            little if itemsize > 1 else {"name": "bytes"},
            {"name": "blosc", "configuration": blosc},
            checksum,
        ],
        "index_codecs": [little, checksum],
        "index_location": "end",
    }
    metadata = {
        "shape": list(layout.shape),
        "data_type": layout.dtype.name,
        "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": [*channels, *layout.shard]}},
        "codecs": [{"name": "sharding_indexed", "configuration": sharding}],
        "dimension_names": list("czyx"[-rank:]),
    }
    return {"driver": "zarr3", "kvstore": folder_spec(f"{layout.url}/{_ARRAY}"), "metadata": metadata}


def _precomputed_spec(layout: Layout) -> dict[str, Any]:
    """Labels of 32 or 64 bits as compressed_segmentation, the rest raw; every chunk gzipped, in shards."""
    size, offset = layout.voxel_size_zyx, layout.offset_zyx
    corner = [round(o / s) for o, s in zip(offset, size, strict=True)]
    if any(abs(c * s - o) > 1e-3 * s for c, s, o in zip(corner, size, offset, strict=True)):
        raise VolumeError(
            f"{layout.url}: precomputed wants an offset of whole voxels {size} nm, found {offset} nm (z, y, x)."
        )
    labels = layout.dtype.name in ("uint32", "uint64")
    # Chunks are numbered along a Morton curve: a shard holds 2**preshift neighbours of it, near a cube.
    in_shard = sum((s // c - 1).bit_length() for s, c in zip(layout.shard, layout.chunk, strict=True))
    in_all = sum((-(-n // c) - 1).bit_length() for n, c in zip(layout.shape[-3:], layout.chunk, strict=True))
    scale: dict[str, Any] = {
        "size": list(layout.shape[:-4:-1]),
        "resolution": list(size[::-1]),
        "voxel_offset": corner[::-1],
        "chunk_size": list(layout.chunk[::-1]),
        "encoding": "compressed_segmentation" if labels else "raw",
        "sharding": {
            "@type": "neuroglancer_uint64_sharded_v1",
            "preshift_bits": min(in_shard, in_all),
            "hash": "identity",
            "minishard_bits": 0,
            "shard_bits": max(0, in_all - in_shard),
            "data_encoding": "gzip",
            "minishard_index_encoding": "gzip",
        },
    }
    if labels:
        scale["compressed_segmentation_block_size"] = [8, 8, 8]
    image = {
        "type": "segmentation" if labels else "image",
        "data_type": layout.dtype.name,
        "num_channels": layout.shape[0] if len(layout.shape) == 4 else 1,
    }
    return {
        "driver": "neuroglancer_precomputed",
        "kvstore": folder_spec(layout.url),
        "multiscale_metadata": image,
        "scale_metadata": scale,
    }


def occupied(url: str) -> bool:
    folder = open_folder(url)
    return any(read_key(folder, name) is not None for name in ("zarr.json", f"{_ARRAY}/zarr.json", "info"))
