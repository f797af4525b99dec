"""Writes WEBKNOSSOS's agglomerate attachment, version 4: what each segment belongs to, and by which edges.

Zarr 3 arrays of a group. Segments are numbered 1, 2, .. without gaps, 0 is background; agglomerate 0 is empty. Arrays
named agglomerate_to_* list agglomerate after agglomerate, `*_offsets` where each begins.
"""

import json
from typing import NamedTuple

import numpy as np
import tensorstore as ts
from jaxtyping import Float32, Int32, Integer, Shaped, UInt64

from emsam_jax.storage import folder_spec, open_folder, shared_context, write_key

_CHUNK, _OFFSETS_CHUNK = 1 << 18, 1 << 16  # bytes
_SHARD_CHUNKS = 1 << 12
_GROUP = {"artifact_schema_version": 4, "artifact_class": "AgglomerateViewArtifact"}


class Agglomerates(NamedTuple):
    """Segment i + 1 is row i."""

    of_segments: UInt64[np.ndarray, " n"]  # the agglomerate of each, from 1
    places: Int32[np.ndarray, "n 3"]  # a voxel x, y, z of each
    edges: Integer[np.ndarray, "e 2"]  # segments u < v, each pair once, of one agglomerate
    affinities: Float32[np.ndarray, " e"]


def write_agglomerates(url: str, found: Agglomerates, dtype: np.dtype) -> None:
    """Writes the attachment for a segmentation layer of this dtype."""
    own, count = found.of_segments.astype(np.int64), int(found.of_segments.max(initial=0))
    order = np.argsort(own, kind="stable")  # increasing segments within each
    begins = _offsets(own, count)
    local = np.empty(len(own), np.int64)
    local[order] = np.arange(len(own)) - begins[own[order]]
    ends = local[found.edges - 1].reshape(-1, 2)
    of_edges = own[found.edges[:, 0] - 1]
    edge_order = np.lexsort((ends[:, 1], ends[:, 0], of_edges))
    _write(url, "segment_to_agglomerate", np.concatenate([[0], own]).astype(np.uint64))
    _write(url, "agglomerate_to_segments_offsets", begins.astype(np.uint64), _OFFSETS_CHUNK)
    _write(url, "agglomerate_to_segments", (order + 1).astype(dtype))
    _write(url, "agglomerate_to_edges_offsets", _offsets(of_edges, count).astype(np.uint64), _OFFSETS_CHUNK)
    _write(url, "agglomerate_to_edges", ends[edge_order].astype(dtype))
    _write(url, "agglomerate_to_affinities", found.affinities[edge_order].astype(np.float32))
    _write(url, "agglomerate_to_positions", found.places[order].astype(np.int32))
    group = {"zarr_format": 3, "node_type": "group", "attributes": {"voxelytics": _GROUP}}
    write_key(open_folder(url), "zarr.json", json.dumps(group, indent=2).encode())


def _offsets(own: Integer[np.ndarray, " n"], count: int) -> Integer[np.ndarray, " m"]:
    """Returns where the rows of each agglomerate 0, .., count begin, and where the last ones end."""
    return np.concatenate([[0], np.cumsum(np.bincount(own, minlength=count + 1))])


def _write(url: str, name: str, values: Shaped[np.ndarray, "..."], chunk_bytes: int = _CHUNK) -> None:
    rest = values.shape[1:]
    rows = max(1, chunk_bytes // (values.itemsize * int(np.prod(rest, dtype=int))))
    in_shard = min(_SHARD_CHUNKS, max(1, -(-len(values) // rows)))
    little, checksum = {"name": "bytes", "configuration": {"endian": "little"}}, {"name": "crc32c"}
    sharding = {
        "chunk_shape": [rows, *rest],
        "codecs": [little, {"name": "zstd", "configuration": {"level": 5, "checksum": True}}],
        "index_codecs": [little, checksum],
    }
    metadata = {
        "shape": list(values.shape),
        "data_type": values.dtype.name,
        "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": [rows * in_shard, *rest]}},
        "codecs": [{"name": "sharding_indexed", "configuration": sharding}],
    }
    spec = {"driver": "zarr3", "kvstore": folder_spec(f"{url}/{name}"), "metadata": metadata}
    store = ts.open(spec, context=shared_context(), create=True, delete_existing=True).result()
    store.write(values).result()
