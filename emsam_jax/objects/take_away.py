"""Single objects as files that other tools read: skeletons as SWC, meshes as OBJ or PLY; x, y, z in nm."""

from collections.abc import Iterable, Sequence
from typing import Literal

import numpy as np
from jaxtyping import Float32, Int64

from emsam_jax.errors import UserError
from emsam_jax.objects.centreline import Centreline
from emsam_jax.objects.precomputed_shapes import read_centreline, read_surface
from emsam_jax.segmentation.blockwise import Table
from emsam_jax.storage import open_folder, write_keys

MeshFormat = Literal["obj", "ply"]
_LISTED = 5  # ids in a message


def check_ids(ids: Sequence[int], objects: Table, labels: str) -> None:
    if missing := sorted(set(ids) - set(objects["id"].tolist())):
        shown = ", ".join(map(str, missing[:_LISTED])) + f" and {len(missing) - _LISTED} more" * (
            len(missing) > _LISTED
        )
        raise UserError(
            f"--ids: expected objects of {labels}, found no {shown} among its {len(objects)} ids from "
            f"{objects['id'][0]} to {objects['id'][-1]}; objects.csv lists them."
        )


def take_away(out: str, ids: Iterable[int], mesh_format: MeshFormat) -> None:
    """Writes swc/ID.swc and, by the format, obj/ID.obj or ply/ID.ply of each object."""
    folder = open_folder(out)
    encode = {"obj": encode_obj, "ply": encode_ply}[mesh_format]
    for name in ids:
        skeleton, mesh = encode_swc(read_centreline(out, name), name), encode(*read_surface(out, name))
        write_keys(folder, {f"swc/{name}.swc": skeleton, f"{mesh_format}/{name}.{mesh_format}": mesh})


def encode_swc(line: Centreline, name: int) -> bytes:
    """Encodes trees, each from a node with one neighbour; parents come before their children."""
    order, parents = order_nodes(len(line.nodes), line.edges)
    lines = [f"# object {name}; x, y, z and radius in nm; node type x y z radius parent"]
    for number, (node, parent) in enumerate(zip(order, parents, strict=True), 1):
        z, y, x = line.nodes[node]
        lines.append(f"{number} 0 {x:.9g} {y:.9g} {z:.9g} {line.radii[node]:.9g} {parent}")
    return ("\n".join(lines) + "\n").encode()


def order_nodes(nodes: int, edges: Int64[np.ndarray, "edges 2"]) -> tuple[list[int], list[int]]:
    """Returns nodes in an order that begins each tree at its root, and each one's parent: its number from 1, or -1."""
    neighbours: list[list[int]] = [[] for _ in range(nodes)]
    for one, other in edges.tolist():
        neighbours[one].append(other)
        neighbours[other].append(one)
    order: list[int] = []
    parents: list[int] = []
    seen = [False] * nodes
    for root in sorted(range(nodes), key=lambda node: len(neighbours[node]) != 1):
        waiting = [(root, -1)]
        while waiting:
            node, parent = waiting.pop()
            if seen[node]:
                continue
            seen[node] = True
            order.append(node)
            parents.append(parent)
            waiting += [(other, len(order)) for other in neighbours[node] if not seen[other]]
    return order, parents


def encode_obj(vertices: Float32[np.ndarray, "n 3"], faces: Int64[np.ndarray, "m 3"]) -> bytes:
    lines = [f"v {x:.9g} {y:.9g} {z:.9g}" for x, y, z in vertices.tolist()]
    lines += [f"f {a} {b} {c}" for a, b, c in (faces + 1).tolist()]
    return ("\n".join(lines) + "\n").encode()


def encode_ply(vertices: Float32[np.ndarray, "n 3"], faces: Int64[np.ndarray, "m 3"]) -> bytes:
    header = (
        f"ply\nformat binary_little_endian 1.0\ncomment x y z in nm\nelement vertex {len(vertices)}\n"
        f"property float x\nproperty float y\nproperty float z\nelement face {len(faces)}\n"
        "property list uchar int vertex_indices\nend_header\n"
    )
    rows = np.zeros(len(faces), [("count", "u1"), ("corners", "<i4", 3)])
    rows["count"], rows["corners"] = 3, faces
    return header.encode() + vertices.astype("<f4").tobytes() + rows.tobytes()
