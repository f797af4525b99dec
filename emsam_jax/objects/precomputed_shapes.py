"""Meshes and skeletons as neuroglancer reads them (precomputed, one file an object); coordinates x, y, z in nm.

meshes/info, meshes/ID:0, meshes/ID:0:N      a list of fragments, and each: counts, vertices, triangles
skeletons/info, skeletons/ID                 counts, nodes, edges, and the nodes' radii
"""

import json

import numpy as np
from jaxtyping import Float, Float32, Int64

from emsam_jax.errors import UserError
from emsam_jax.objects.centreline import Centreline
from emsam_jax.objects.surface import Surface
from emsam_jax.storage import open_folder, read_key
from emsam_jax.volumes import Sizes

_IDENTITY = [1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1, 0]  # from stored coordinates to nm
INFOS = {
    "meshes/info": {"@type": "neuroglancer_legacy_mesh"},
    "skeletons/info": {
        "@type": "neuroglancer_skeletons",
        "transform": _IDENTITY,
        "vertex_attributes": [{"id": "radius", "data_type": "float32", "num_components": 1}],
    },
}


def name_mesh(name: int) -> str:
    return f"meshes/{name}:0"


def name_skeleton(name: int) -> str:
    return f"skeletons/{name}"


def encode_manifest(name: int, parts: int) -> bytes:
    return json.dumps({"fragments": [f"{name}:0:{part}" for part in range(parts)]}).encode()


def list_parts(manifest: bytes) -> list[str]:
    """Returns the keys of a mesh's fragments."""
    return [f"meshes/{part}" for part in json.loads(manifest)["fragments"]]


def encode_surface(surface: Surface, voxel_size_zyx: Sizes, offset_zyx: Sizes) -> bytes:
    nm = surface.vertices / 2 * np.array(voxel_size_zyx) + np.array(offset_zyx)
    return b"".join((np.uint32(len(nm)).tobytes(), _as_xyz(nm), surface.faces.astype("<u4").tobytes()))


def encode_centreline(line: Centreline) -> bytes:
    counts = np.array([len(line.nodes), len(line.edges)], "<u4").tobytes()
    return b"".join(
        (counts, _as_xyz(line.nodes), line.edges.astype("<u4").tobytes(), line.radii.astype("<f4").tobytes())
    )


def read_surface(out: str, name: int) -> tuple[Float32[np.ndarray, "n 3"], Int64[np.ndarray, "m 3"]]:
    """Reads vertices x, y, z in nm and triangles of a mesh, with its fragments united."""
    vertices, faces, before = [], [], 0
    for key in list_parts(_read(out, name_mesh(name))):
        content = _read(out, key)
        count = int(np.frombuffer(content, "<u4", 1)[0])
        vertices.append(np.frombuffer(content, "<f4", 3 * count, 4).reshape(-1, 3))
        faces.append(np.frombuffer(content, "<u4", offset=4 + 12 * count).reshape(-1, 3).astype(np.int64) + before)
        before += count
    if len(vertices) == 1:
        return vertices[0], faces[0]
    found, place = np.unique(np.concatenate(vertices), axis=0, return_inverse=True)
    return found, place.reshape(-1)[np.concatenate(faces)]


def read_centreline(out: str, name: int) -> Centreline:
    content = _read(out, name_skeleton(name))
    nodes, edges = map(int, np.frombuffer(content, "<u4", 2))
    places = np.frombuffer(content, "<f4", 3 * nodes, 8).reshape(-1, 3)[:, ::-1].astype(np.float64)
    pairs = np.frombuffer(content, "<u4", 2 * edges, 8 + 12 * nodes).reshape(-1, 2).astype(np.int64)
    return Centreline(places, pairs, np.frombuffer(content, "<f4", nodes, 8 + 12 * nodes + 8 * edges))


def _read(out: str, key: str) -> bytes:
    content = read_key(open_folder(out), key)
    if content is None:
        raise UserError(f"{out}/{key}: expected a file of a finished run, found none; the same command makes it anew.")
    return content


def _as_xyz(places_zyx: Float[np.ndarray, "n 3"]) -> bytes:
    return places_zyx[:, ::-1].astype("<f4").tobytes()
