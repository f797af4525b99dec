"""Creates volumes: OME-Zarr 0.5 and 0.4 and precomputed, with chunks, shards and compression chosen for EM."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorstore as ts
from jaxtyping import Shaped
from numpy.typing import DTypeLike

from emsam_jax.errors import UserError, first_line
from emsam_jax.storage import (
    UNFINISHED,
    VOLUME,
    VOLUME_FILES,
    VOLUMES,
    Kind,
    check_free,
    claim,
    end_replacing,
    folder_spec,
    open_folder,
    put_in_place,
    read_key,
    remove,
    shared_context,
    write_key,
)
from emsam_jax.volumes.axes import Native, ordered
from emsam_jax.volumes.box import Voxel
from emsam_jax.volumes.layout import Format, Layout, corner_of, plan_layout
from emsam_jax.volumes.volume import AFFINITY_OFFSETS, Volume


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
    offsets: Sequence[Voxel] = (),
    overwrite: bool = False,
) -> Volume:
    """An empty volume of `shape` [z, y, x] or [c, z, y, x] to write into; boxes of whole shards write fastest.

    Its voxels are 0, and a shard of nothing but zeros makes no file. `offsets` (voxels z, y, x, one a channel) say what
    affinities join, and are kept with them. `overwrite` deletes a volume that this software wrote there, and no file of
    others, at once: only the caller knows when the new one is whole.
    """
    layout = plan_layout(
        url_or_path,
        shape,
        dtype,
        voxel_size_zyx,
        offset_zyx=offset_zyx,
        format=format,
        chunk=chunk,
        shard=shard,
        offsets=offsets,
    )
    end_replacing(layout.url)
    begun = claim(layout.url, VOLUME, over=VOLUMES if overwrite else [])
    if begun and not overwrite and occupied(layout.url):
        raise UserError(f"{layout.url}: there is a volume already; choose another place or ask for overwriting.")
    remove(layout.url, VOLUME_FILES)
    volume = create_array(layout)
    write_image_metadata(layout)
    return volume


def write_volume(
    url_or_path: str | Path,
    values: Shaped[np.ndarray, "*c z y x"],
    voxel_size_zyx: Sequence[int | float],
    kind: Kind,
    *,
    offset_zyx: Sequence[int | float] = (0.0, 0.0, 0.0),
) -> None:
    """An OME-Zarr that holds `values`; one of its kind that is there is replaced once the new one is whole.

    In an object store, which cannot rename, it is deleted first, and nothing opens the new one until it is whole.
    """
    layout = plan_layout(url_or_path, values.shape, values.dtype, voxel_size_zyx, offset_zyx=offset_zyx)
    end_replacing(layout.url)
    check_free(layout.url, kind)
    begun = layout.beside()
    claim(begun.url, kind, over=VOLUMES)
    folder = open_folder(begun.url)
    write_key(folder, UNFINISHED, b"{}")
    remove(begun.url, VOLUME_FILES, keep=[UNFINISHED])
    create_array(begun)[...] = values
    write_image_metadata(begun)
    write_key(folder, UNFINISHED, None)
    put_in_place(layout.url)


def create_array(layout: Layout, *, resume: bool = False) -> Volume:
    """Creates the array of one level, which is no OME-Zarr image before `write_image_metadata`."""
    spec = _SPECS[layout.format](layout)
    try:
        store = ts.open(spec, context=shared_context(), create=True, open=resume or None).result()
    except ValueError as error:
        raise UserError(f"{layout.url} cannot be created: {first_line(error)}") from None
    if layout.offsets:
        _keep_offsets(layout)
    axes = "xyzc" if layout.format == "precomputed" else "czyx"[-len(layout.shape) :]
    store = ordered(Native(store, axes), "all" if len(layout.shape) == 4 else None, layout.url)
    return Volume(
        store,
        layout.url,
        voxel_size_zyx=layout.voxel_size_zyx,
        offset_zyx=layout.offset_zyx,
        offsets=layout.offsets,
    )


def write_image_metadata(*levels: Layout) -> None:
    """Writes the group that makes arrays one OME-Zarr image; precomputed has had its own from the start."""
    finest = levels[0]
    if finest.format == "precomputed":
        return
    axes: list[dict[str, str]] = [{"name": axis, "type": "space", "unit": "nanometer"} for axis in "zyx"]
    if len(finest.shape) == 4:
        axes = [{"name": "c", "type": "channel"}, *axes]
    datasets = [
        {"path": str(level.level), "coordinateTransformations": _place(level, finest, len(axes))} for level in levels
    ]
    image = {"name": finest.name, "axes": axes, "datasets": datasets}
    if finest.format == "ome-zarr":
        ome = {"version": "0.5", "multiscales": [image]}
        _write_json(finest.url, "zarr.json", {"zarr_format": 3, "node_type": "group", "attributes": {"ome": ome}})
        return
    attributes: dict[str, Any] = {"multiscales": [{"version": "0.4", **image}]}
    if _are_labels(finest):
        attributes["image-label"] = {"version": "0.4"}  # viewers draw ids in colours then
    _write_json(finest.url, ".zattrs", attributes)
    _write_json(finest.url, ".zgroup", {"zarr_format": 2})


def _place(level: Layout, finest: Layout, rank: int) -> list[dict[str, Any]]:
    """Returns where a level lies: the finest by its corner, which OME-Zarr leaves open; coarser ones by centres."""
    sides = zip(level.offset_zyx, level.voxel_size_zyx, finest.voxel_size_zyx, strict=True)
    shift = [corner + (size - least) / 2 for corner, size, least in sides]
    scale, channels = list(level.voxel_size_zyx), rank - 3
    return [
        {"type": "scale", "scale": [1.0] * channels + scale},
        {"type": "translation", "translation": [0.0] * channels + shift},
    ]


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
    if layout.offsets:
        metadata["attributes"] = {AFFINITY_OFFSETS: layout.offsets}
    return {"driver": "zarr3", "kvstore": folder_spec(f"{layout.url}/{layout.level}"), "metadata": metadata}


def _zarr2_spec(layout: Layout) -> dict[str, Any]:
    """Returns the spec of zarr 2, which has no shards: each chunk is a file, gzipped, as every reader knows it."""
    channels = [1] * (len(layout.shape) - 3)
    metadata = {
        "shape": list(layout.shape),
        "chunks": [*channels, *layout.chunk],
        "dtype": layout.dtype.newbyteorder("<").str,
        "fill_value": 0,
        "compressor": {"id": "gzip", "level": 5},
        "dimension_separator": "/",
    }
    return {"driver": "zarr", "kvstore": folder_spec(f"{layout.url}/{layout.level}"), "metadata": metadata}


def _are_labels(layout: Layout) -> bool:
    return layout.dtype.name in ("uint32", "uint64")


def _precomputed_spec(layout: Layout) -> dict[str, Any]:
    """Returns the spec: labels of 32 or 64 bits as compressed_segmentation, the rest raw; gzipped, in shards."""
    labels = _are_labels(layout)
    # Chunks are numbered along a Morton curve: a shard holds 2**preshift neighbours of it, near a cube.
    in_shard = sum((s // c - 1).bit_length() for s, c in zip(layout.shard, layout.chunk, strict=True))
    in_all = sum((-(-n // c) - 1).bit_length() for n, c in zip(layout.shape[-3:], layout.chunk, strict=True))
    scale: dict[str, Any] = {
        "size": list(layout.shape[:-4:-1]),
        "resolution": list(layout.voxel_size_zyx[::-1]),
        "voxel_offset": list(corner_of(layout)[::-1]),
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


_SPECS = {"ome-zarr": _zarr_spec, "ome-zarr-0.4": _zarr2_spec, "precomputed": _precomputed_spec}


def _keep_offsets(layout: Layout) -> None:
    """Offsets of affinities, which TensorStore keeps in zarr 3 alone, and elsewhere leaves where they are."""
    keys = {"precomputed": "info", "ome-zarr-0.4": f"{layout.level}/.zattrs"}
    if key := keys.get(layout.format):
        found = json.loads(read_key(open_folder(layout.url), key) or b"{}")
        if AFFINITY_OFFSETS not in found:
            _write_json(layout.url, key, found | {AFFINITY_OFFSETS: layout.offsets})


def _write_json(url: str, key: str, content: dict[str, Any]) -> None:
    write_key(open_folder(url), key, json.dumps(content, indent=2).encode())


def occupied(url: str) -> bool:
    folder = open_folder(url)
    names = ("zarr.json", "0/zarr.json", ".zgroup", "0/.zarray", "info")
    return any(read_key(folder, name) is not None for name in names)
