"""Chunks as PyChunkedGraph's ingest reads them: by the names, messages and types of its own code, written down here.

No index has a package with its reading code. So this follows its files io/edges.py, io/components.py,
ingest/common.py and ingest/ran_agglomeration.py, with the readers of protobuf, zstandard and CloudFiles.
"""

import itertools
import math
import re
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zstandard
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from emsam_jax.exports import export_labels
from emsam_jax.exports.pychunkedgraph import encode_components
from tests.exports.conftest import BLOCK, Run

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from cloudfiles import CloudFiles
    from cloudvolume import CloudVolume

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")

KINDS = {"in_chunk": 1, "cross_chunk": 2, "between_chunk": 3}
BITS = 10
Edges = dict[tuple[int, int], tuple[float, int]]  # supervoxels: sum of affinities, faces


def make_messages() -> tuple[Any, Any]:
    """chunkEdges.proto (as its generated code has it) and chunkComponents.proto."""
    kinds = descriptor_pb2.FieldDescriptorProto
    file = descriptor_pb2.FileDescriptorProto(name="chunk.proto", package="chunk", syntax="proto3")

    def message(name: str, fields: dict[str, int], **options: Any) -> None:
        added = file.message_type.add(name=name)
        for field, number in fields.items():
            added.field.add(name=field, number=number, **{"label": kinds.LABEL_OPTIONAL, **options})

    arrays = {"node_ids1": 1, "node_ids2": 2, "affinities": 3, "areas": 4}
    message("Edges", arrays, type=kinds.TYPE_BYTES)
    message("ChunkEdges", KINDS, type=kinds.TYPE_MESSAGE, type_name=".chunk.Edges")
    message("Components", {"components": 1}, type=kinds.TYPE_UINT64, label=kinds.LABEL_REPEATED)
    found = message_factory.GetMessages([file], pool=descriptor_pool.DescriptorPool())
    return found["chunk.ChunkEdges"], found["chunk.Components"]


CHUNK_EDGES, COMPONENTS = make_messages()


def read_chunk(folder: Path, place: tuple[int, ...]) -> tuple[dict[str, Edges], list[list[int]]]:
    """Edges of each kind, and the components; x, y, z."""
    name = "_".join(map(str, place))
    file: Any
    (file,) = CloudFiles(f"file://{folder}/edges").get([f"edges_{name}.proto.zst"], raw=True)
    content: Any
    (content,) = zstandard.ZstdDecompressor().multi_decompress_to_buffer([file["content"]])
    message = CHUNK_EDGES.FromString(bytes(content))
    edges: dict[str, Any] = {}
    for kind in KINDS:
        part = getattr(message, kind)
        ends = [np.frombuffer(part.node_ids1, "<u8").tolist(), np.frombuffer(part.node_ids2, "<u8").tolist()]
        values = np.frombuffer(part.affinities, "<f4").tolist(), np.frombuffer(part.areas, "<u8").tolist()
        edges[kind] = dict(zip(zip(*ends, strict=True), zip(*values, strict=True), strict=True))
        assert len(edges[kind]) == len(ends[0])
    stored = COMPONENTS.FromString(CloudFiles(f"file://{folder}/components").get(f"components_{name}.proto"))
    numbers, components = list(stored.components), []
    while numbers:
        components.append(numbers[1 : 1 + numbers[0]])
        numbers = numbers[1 + numbers[0] :]
    return edges, components


def chunk_of(supervoxel: int) -> tuple[int, ...]:
    """As graph/chunks/utils.py: the layer in 8 bits, then x, y and z."""
    assert supervoxel >> 56 == 1
    return tuple(supervoxel >> (56 - BITS * (axis + 1)) & (1 << BITS) - 1 for axis in range(3))


def partition(pairs: set[tuple[int, int]], ids: list[int]) -> set[frozenset[int]]:
    index = {one: row for row, one in enumerate(ids)}
    rows = np.array([(index[u], index[v]) for u, v in pairs]).reshape(-1, 2)
    _, part = connected_components(coo_array((np.ones(len(rows)), rows.T), (len(ids), len(ids))), directed=False)
    return {frozenset(np.array(ids)[part == one].tolist()) for one in range(part.max() + 1)}


def test_its_ingest_would_make_the_same_objects(run: Run, tmp_path: Path):
    out = tmp_path / "graph"
    assert "supervoxels in 24 chunks" in export_labels("pychunkedgraph", str(run.url), str(out))
    config = (out / "ingest.yml").read_text()
    assert f"CHUNK_SIZE: [{BLOCK[2]}, {BLOCK[1]}, {BLOCK[0]}]" in config
    assert f"LAYER_ID_BITS: 8\n  SPATIAL_BITS: {BITS}\n" in config
    watershed: Any = CloudVolume(re.findall(r'WATERSHED: "(.+)"', config)[0], progress=False)
    assert (list(watershed.voxel_offset), list(watershed.resolution)) == ([2, 2, 2], [4, 4, 40])
    supervoxels = np.asarray(watershed[:])[..., 0].transpose()
    np.testing.assert_array_equal(supervoxels > 0, run.labels > 0)
    pairs = set(zip(supervoxels[supervoxels > 0].tolist(), run.pieces[supervoxels > 0].tolist(), strict=True))
    piece = dict(pairs)
    assert len(piece) == len(pairs) == len(set(piece.values()))
    for place in np.argwhere(supervoxels)[::97]:
        assert chunk_of(int(supervoxels[tuple(place)])) == tuple((place // BLOCK)[::-1])

    counts = [range(math.ceil(side / own)) for side, own in zip(run.labels.shape, BLOCK, strict=True)]
    expected: dict[str, Edges] = {kind: {} for kind in KINDS}
    back = {one: supervoxel for supervoxel, one in piece.items()}
    active, crossing, outward = set(), set(), set()
    for place in itertools.product(*reversed(counts)):
        edges, components = read_chunk(out, place)
        for kind, found in edges.items():
            for u, v in found:
                assert chunk_of(u) == place  # in either copy of an edge between chunks the chunk's own end is first
                assert (chunk_of(v) == place) == (kind == "in_chunk")
            expected[kind] |= {(min(pair), max(pair)): value for pair, value in found.items()}
        of = {one: number for number, component in enumerate(components) for one in component}
        assert all(len({run.lookup[piece[one]] for one in component}) == 1 for component in components)
        assert len(components) == len({run.lookup[piece[one]] for one in of})
        assert {one for one in piece if chunk_of(one) == place} <= of.keys()
        crossing |= edges["cross_chunk"].keys()
        outward |= edges["cross_chunk"].keys() | edges["between_chunk"].keys()
        active |= {(u, v) for kind in ("in_chunk", "between_chunk") for u, v in edges[kind] if of[u] == of[v]}
    assert outward == {(v, u) for u, v in outward}  # both chunks have them
    assert set(expected["cross_chunk"].values()) == {(math.inf, 1)}
    assert {(min(u, v), max(u, v)) for u, v in active} <= expected["in_chunk"].keys() | expected["between_chunk"].keys()

    kept = {(back[u], back[v]): values for (u, v), values in run.contacts.items() if u in back and v in back}
    kept = {(min(pair), max(pair)): (sum(values), len(values)) for pair, values in kept.items()}
    found = {**expected["in_chunk"], **expected["between_chunk"]}
    assert found.keys() | expected["cross_chunk"].keys() == kept.keys()
    assert not found.keys() & expected["cross_chunk"].keys()
    for pair, (affinity, area) in found.items():
        assert (affinity, area) == pytest.approx(kept[pair], rel=1e-5)

    objects: dict[int, set[int]] = {}
    for supervoxel, one in piece.items():
        objects.setdefault(run.lookup[one], set()).add(supervoxel)
    made = partition(active | crossing, sorted(piece))
    assert made == {frozenset(members) for members in objects.values()}


def test_numbers_of_any_size_are_encoded():
    ids = np.array([0, 1, 127, 128, 300, 1 << 35, (1 << 63) - 1, 1 << 63, (1 << 64) - 1], np.uint64)
    objects = np.array([2, 1, 2, 1, 2, 2, 2, 2, 2], np.uint64)
    numbers = list(COMPONENTS.FromString(encode_components(ids, objects)).components)
    assert numbers == [2, 1, 128, 7, *(int(one) for one in ids[objects == 2])]
    assert encode_components(ids[:0], objects[:0]) == b"\n\0"
