"""Meshes and skeletons by bioimage-cpp, which `emsam objects` uses, and by zmesh and kimimaro, on the same labels.

    python benchmarks/objects.py
    EMSAM_DATA=... python benchmarks/objects.py --fib25

Seconds of a core, and peaks of memory in a process of its own; how closed meshes are and what they hold;
how long skeletons are, and how far kimimaro's own differ in the mirrored volume. Objects of 1000 voxels and more.
"""

import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import measure
import numpy as np
from absl import app, flags
from scipy.ndimage import find_objects

from emsam_jax.objects import make_objects, plan_objects
from emsam_jax.volumes import create_volume
from emsam_jax.volumes.synthetic import synthetic_volume

_QUICK = flags.DEFINE_bool("quick", False, "A small volume.")
_FIB25 = flags.DEFINE_bool("fib25", False, "The labels of FIB-25, z 0-124, in the folder that EMSAM_DATA names.")
_OUT = flags.DEFINE_string("out", None, "Folder for the results; benchmarks/results by default.")

SMALLEST = 1000  # voxels
TEASAR = {"scale": 1.5, "const": 300, "pdrf_scale": 100000, "pdrf_exponent": 4, "soma_detection_threshold": 1e9}
Shape = dict[int, tuple[float, ...]]  # of each object: closed edges, edges and volume in voxels; or length in nm


def main(_: list[str]) -> None:
    labels, size = read_labels()
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder) / "labels.npy"
        np.save(place, labels)
        found = {name: run_alone(function, str(place), size) for name, function in CASES.items()}
        whole = run_whole(labels, size, Path(folder))
    rows = {name: row for name, (row, _) in found.items()}
    shapes = {name: shape for name, (_, shape) in found.items()}
    voxels = {int(name): int(count) for name, count in zip(*np.unique(labels, return_counts=True), strict=True) if name}
    for name in ("mesh_bioimage", "mesh_zmesh"):
        ratios = [shapes[name][i][2] / voxels[i] for i in voxels]
        closed, edges = np.array([shapes[name][i][:2] for i in voxels]).sum(0)
        rows[name] |= {"closed_edges": closed / edges, "volume_to_voxels": [min(ratios), float(np.median(ratios))]}
    for name in ("skeleton_bioimage", "skeleton_bioimage_cubes", "kimimaro_mirrored"):
        rows[name] |= compare(shapes[name], shapes["skeleton_kimimaro"])
    results = {
        "machine": measure.machine(),
        "versions": measure.versions("bioimage-cpp", "zmesh", "kimimaro", "numpy"),
        "volume": {"shape": labels.shape, "voxel_size_zyx": size, "objects": len(voxels), "fib25": _FIB25.value},
        "libraries": rows,
        "emsam_objects": whole,
    }
    for name, row in (*rows.items(), ("emsam_objects", whole)):
        print(name, {key: round(value, 4) if isinstance(value, float) else value for key, value in row.items()})
    print(f"Results: {measure.write('objects_fib25-cpu' if _FIB25.value else 'objects-cpu', results, _OUT.value)}")


def read_labels() -> tuple[np.ndarray, tuple[float, float, float]]:
    if _FIB25.value:
        with h5py.File(Path(os.environ["EMSAM_DATA"]) / "fib25_training2.h5") as file:
            labels, size = np.asarray(file["labels"][:125]), (10.0, 10.0, 10.0)  # pyright: ignore[reportIndexIssue]
    else:
        shape, size = ((16, 96, 96) if _QUICK.value else (60, 300, 300)), (40.0, 8.0, 8.0)
        labels = synthetic_volume(shape, 1, size).labels
    counts = np.bincount(labels.ravel())
    return np.where(counts[labels] >= SMALLEST, labels, 0).astype(np.uint32), size


def run_alone(function: Callable[..., Shape], *arguments: Any) -> tuple[dict[str, Any], Shape]:
    """Runs a case for its result and time, and but for those that stand for no library again, for its memory."""
    began = time.process_time()
    shape = function(*arguments)
    seconds = time.process_time() - began
    row: dict[str, Any] = {"core_seconds": seconds}
    if function.__name__ in MEASURED:
        row["peak_bytes"] = measure.peak_bytes(function, *arguments)
    return row, shape


def mesh_bioimage(place: str, size: tuple[float, ...]) -> Shape:
    from emsam_jax.objects.pieces import Piece
    from emsam_jax.objects.surface import mesh_pieces
    from emsam_jax.volumes import Box

    found = {}
    for name, box, mask in objects_in(place):
        start, stop = tuple(side.start - 1 for side in box), tuple(side.stop + 1 for side in box)
        (surface,) = mesh_pieces([Piece(np.pad(mask, 1), Box(start, stop))])  # pyright: ignore[reportArgumentType]
        found[name] = judge(surface.vertices[:, ::-1] / 2, surface.faces)
    return found


def mesh_zmesh(place: str, size: tuple[float, ...]) -> Shape:
    import zmesh

    mesher: Any = getattr(zmesh, "Mesher")((1, 1, 1))  # noqa: B009
    mesher.mesh(np.load(place), close=True)
    meshes = ((name, mesher.get(name, normals=False, reduction_factor=0)) for name in mesher.ids())
    return {int(name): judge(mesh.vertices, mesh.faces) for name, mesh in meshes}


def judge(vertices: np.ndarray, faces: np.ndarray) -> tuple[float, ...]:
    """Edges that two triangles share, all edges, and the volume within."""
    faces = faces.astype(np.int64)
    edges = np.sort(np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]]), axis=1)
    _, uses = np.unique(edges[:, 0] * len(vertices) + edges[:, 1], return_counts=True)
    a, b, c = (vertices[faces[:, corner]].astype(np.float64) for corner in range(3))
    return float((uses == 2).sum()), float(len(uses)), abs(float((np.cross(a, b) * c).sum() / 6))


def skeleton_bioimage(place: str, size: tuple[float, ...], invalidation: str = "ball") -> Shape:
    from bioimage_cpp.skeleton import teasar

    found = {}
    for name, _, mask in objects_in(place):
        nodes, edges, _ = teasar(mask, spacing=size, scale=1.5, constant=300.0, invalidation=invalidation)
        ends = nodes[edges.astype(np.int64)]
        found[name] = (float(np.linalg.norm(ends[:, 0] - ends[:, 1], axis=1).sum()),)
    return found


def skeleton_bioimage_cubes(place: str, size: tuple[float, ...]) -> Shape:
    return skeleton_bioimage(place, size, "cube")


def skeleton_kimimaro(place: str, size: tuple[float, ...], step: int = 1) -> Shape:
    import kimimaro

    labels = np.ascontiguousarray(np.load(place)[::step, ::step, ::step])
    found = kimimaro.skeletonize(
        labels, teasar_params=TEASAR, dust_threshold=0, anisotropy=size, fix_borders=False, progress=False, parallel=1
    )
    return {int(name): (float(skeleton.cable_length()),) for name, skeleton in found.items()}


def kimimaro_mirrored(place: str, size: tuple[float, ...]) -> Shape:
    return skeleton_kimimaro(place, size, -1)


MEASURED = ("mesh_bioimage", "mesh_zmesh", "skeleton_bioimage", "skeleton_kimimaro")
CASES = {
    case.__name__: case
    for case in (mesh_bioimage, mesh_zmesh, skeleton_bioimage, skeleton_bioimage_cubes, skeleton_kimimaro)
} | {"kimimaro_mirrored": kimimaro_mirrored}


def objects_in(place: str) -> list[tuple[int, tuple[slice, ...], np.ndarray]]:
    labels = np.load(place)
    boxes = enumerate(find_objects(labels.astype(np.int32)), 1)
    return [(name, box, labels[box] == name) for name, box in boxes if box is not None]


def compare(lengths: Shape, reference: Shape) -> dict[str, Any]:
    pairs = np.array([(lengths[name][0], reference[name][0]) for name in reference])
    differences = np.abs(pairs[:, 0] / np.maximum(pairs[:, 1], 1) - 1)
    return {
        "total_to_kimimaro": float(pairs[:, 0].sum() / pairs[:, 1].sum()),
        "median_difference": float(np.median(differences)),
        "share_within_5_percent": float((differences < 0.05).mean()),
    }


def run_whole(labels: np.ndarray, size: tuple[float, float, float], folder: Path) -> dict[str, Any]:
    """All of `emsam objects` in this process, in blocks of 128 voxels a side; and the same in one block."""
    volume = create_volume(folder / "labels.zarr", labels.shape, np.uint32, size)
    volume[...] = labels
    began = time.process_time()
    make_objects(plan_objects(volume.url, str(folder / "blocks"), block=(128, 128, 128)))
    seconds = time.process_time() - began
    make_objects(plan_objects(volume.url, str(folder / "whole"), block=labels.shape))  # pyright: ignore[reportArgumentType]
    shown = ("meshes", "skeletons", "pieces", "segments")
    files = {name: {path.name: path.read_bytes() for path in (folder / "blocks" / name).iterdir()} for name in shown}
    same = all(
        files[name] == {path.name: path.read_bytes() for path in (folder / "whole" / name).iterdir()}
        for name in ("meshes", "skeletons", "segments")
    )
    sizes = {f"{name}_bytes_a_voxel": sum(map(len, files[name].values())) / labels.size for name in shown[:3]}
    return {"million_voxels_a_core_second": labels.size / seconds / 1e6, "blocks_as_whole": same, **sizes}


if __name__ == "__main__":
    app.run(main)
