"""New volumes: OME-Zarr 0.5 and precomputed, with chunks, shards, compression and checksums chosen for EM."""

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import tensorstore as ts
from numpy.typing import DTypeLike

from emsam_jax.volumes.axes import Native, Sizes, ordered
from emsam_jax.volumes.box import Voxel
from emsam_jax.volumes.context import shared_context
from emsam_jax.volumes.errors import VolumeError
from emsam_jax.volumes.location import first_line, folder_spec, normalise, open_folder, read_key
from emsam_jax.volumes.volume import Volume

Format = Literal["ome-zarr", "precomputed"]

_SHARD_CHUNKS = 4  # chunks in a shard along each axis
_ARRAY = "0"  # the only level of the images that we write


def create_volume(
    url_or_path: str | Path,
    shape: Sequence[int],
    dtype: DTypeLike,
    voxel_size_zyx: Sequence[float],
    *,
    offset_zyx: Sequence[float] = (0.0, 0.0, 0.0),
    format: Format = "ome-zarr",  # noqa: A002
    chunk: Voxel | None = None,
    shard: Voxel | None = None,
    overwrite: bool = False,
) -> Volume:
    """An empty volume of `shape` [z, y, x] or [c, z, y, x] to write into; boxes of whole shards write fastest.

    Its voxels are 0, and a shard of nothing but zeros makes no file.
    """
    url = normalise(str(url_or_path))
    store, size, offset = create_array(
        url, shape, dtype, voxel_size_zyx, offset_zyx, format, chunk, shard, overwrite=overwrite
    )
    if format == "ome-zarr":
        write_image_metadata(url, len(shape), size, offset)
    return Volume(store, url, voxel_size_zyx=size, offset_zyx=offset)


def create_array(
    url: str,
    shape: Sequence[int],
    dtype: DTypeLike,
    voxel_size_zyx: Sequence[float],
    offset_zyx: Sequence[float],
    format: Format,  # noqa: A002
    chunk: Voxel | None,
    shard: Voxel | None,
    *,
    overwrite: bool,
) -> tuple[ts.TensorStore, Sizes, Sizes]:
    """The array alone: an OME-Zarr volume is none before `write_image_metadata`."""
    size, offset = _positive(voxel_size_zyx, url), _sizes(offset_zyx)
    if len(shape) not in (3, 4) or min(shape) < 1:
        raise VolumeError(f"{url}: expected a shape z, y, x or c, z, y, x of at least one voxel, found {tuple(shape)}.")
    chunk = chunk or chunk_for(shape[-3:], size)
    shard = shard or shard_for(shape[-3:], chunk)
    if any(s % c for s, c in zip(shard, chunk, strict=True)):
        raise VolumeError(f"{url}: expected shards of whole chunks {chunk}, found {shard}.")
    make = _zarr_spec if format == "ome-zarr" else _precomputed_spec
    spec = make(url, tuple(shape), np.dtype(dtype), size, offset, chunk, shard)
    if not overwrite and _occupied(url):
        raise VolumeError(f"{url}: there is a volume already; choose another place or ask for overwriting.")
    try:
        store = ts.open(spec, context=shared_context(), create=True, delete_existing=overwrite).result()
    except ValueError as error:
        raise VolumeError(f"{url} cannot be created: {first_line(error)}") from None
    axes = "xyzc" if format == "precomputed" else "czyx"[-len(shape) :]
    return ordered(Native(store, axes), "all" if len(shape) == 4 else None, url), size, offset


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


def write_image_metadata(url: str, rank: int, voxel_size_zyx: Sizes, offset_zyx: Sizes) -> None:
    """The group that makes the array an OME-Zarr 0.5 image."""
    axes: list[dict[str, str]] = [{"name": axis, "type": "space", "unit": "nanometer"} for axis in "zyx"]
    scale, shift = list(voxel_size_zyx), list(offset_zyx)
    if rank == 4:
        axes, scale, shift = [{"name": "c", "type": "channel"}, *axes], [1.0, *scale], [0.0, *shift]
    steps = [{"type": "scale", "scale": scale}, {"type": "translation", "translation": shift}]
    image = {"name": url.rpartition("/")[2], "axes": axes}
    image |= {"datasets": [{"path": _ARRAY, "coordinateTransformations": steps}]}
    group = {"zarr_format": 3, "node_type": "group", "attributes": {"ome": {"version": "0.5", "multiscales": [image]}}}
    open_folder(url).write("zarr.json", json.dumps(group, indent=2).encode()).result()


def _zarr_spec(
    url: str, shape: tuple[int, ...], dtype: np.dtype, size: Sizes, offset: Sizes, chunk: Voxel, shard: Voxel
) -> dict[str, Any]:
    channels = (1,) * (len(shape) - 3)
    blosc = {"cname": "zstd", "clevel": 5, "shuffle": "shuffle" if dtype.itemsize > 1 else "noshuffle"}
    little = {"name": "bytes", "configuration": {"endian": "little"}} if dtype.itemsize > 1 else {"name": "bytes"}
    checksum = {"name": "crc32c"}
    sharding = {
        "chunk_shape": [*channels, *chunk],
        "codecs": [little, {"name": "blosc", "configuration": blosc}, checksum],
        "index_codecs": [{"name": "bytes", "configuration": {"endian": "little"}}, checksum],
        "index_location": "end",
    }
    metadata = {
        "shape": list(shape),
        "data_type": dtype.name,
        "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": [*channels, *shard]}},
        "codecs": [{"name": "sharding_indexed", "configuration": sharding}],
        "dimension_names": list("czyx"[-len(shape) :]),
    }
    return {"driver": "zarr3", "kvstore": folder_spec(f"{url}/{_ARRAY}"), "metadata": metadata}


def _precomputed_spec(
    url: str, shape: tuple[int, ...], dtype: np.dtype, size: Sizes, offset: Sizes, chunk: Voxel, shard: Voxel
) -> dict[str, Any]:
    """Labels of 32 or 64 bits as compressed_segmentation, the rest raw; every chunk gzipped, in shards."""
    corner = [round(o / s) for o, s in zip(offset, size, strict=True)]
    if any(abs(c * s - o) > 1e-3 * s for c, s, o in zip(corner, size, offset, strict=True)):
        raise VolumeError(f"{url}: precomputed wants an offset of whole voxels {size} nm, found {offset} nm (z, y, x).")
    labels = dtype.name in ("uint32", "uint64")
    bits = sum(math.ceil(math.log2(max(1, s // c))) for s, c in zip(shard, chunk, strict=True))
    scale: dict[str, Any] = {
        "size": list(shape[:-4:-1]),
        "resolution": list(size[::-1]),
        "voxel_offset": corner[::-1],
        "chunk_size": list(chunk[::-1]),
        "encoding": "compressed_segmentation" if labels else "raw",
        "sharding": {
            "@type": "neuroglancer_uint64_sharded_v1",
            "preshift_bits": 0,
            "hash": "identity",
            "minishard_bits": 0,
            "shard_bits": 0,
            "data_encoding": "gzip",
            "minishard_index_encoding": "gzip",
        },
    }
    chunks = [-(-n // c) for n, c in zip(shape[-3:], chunk, strict=True)]
    total = sum((n - 1).bit_length() for n in chunks)
    scale["sharding"] |= {"preshift_bits": min(bits, total), "shard_bits": max(0, total - bits)}
    if labels:
        scale["compressed_segmentation_block_size"] = [8, 8, 8]
    channels = shape[0] if len(shape) == 4 else 1
    image = {"type": "segmentation" if labels else "image", "data_type": dtype.name, "num_channels": channels}
    return {
        "driver": "neuroglancer_precomputed",
        "kvstore": folder_spec(url),
        "multiscale_metadata": image,
        "scale_metadata": scale,
    }


def _occupied(url: str) -> bool:
    folder = open_folder(url)
    return any(read_key(folder, name) is not None for name in ("zarr.json", f"{_ARRAY}/zarr.json", "info"))


def _sizes(values: Sequence[float]) -> Sizes:
    z, y, x = (float(value) for value in values)
    return z, y, x


def _positive(values: Sequence[float], url: str) -> Sizes:
    if len(values) != 3 or min(values) <= 0:
        raise VolumeError(f"{url}: expected a voxel size of three numbers above 0 (z, y, x, in nm), found {values}.")
    return _sizes(values)
