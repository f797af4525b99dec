"""Labels whose sizes and lengths are known, on voxels that are no cubes, away from the origin."""

import csv
from pathlib import Path

import numpy as np

SIZE, OFFSET = (40.0, 8.0, 10.0), (400.0, -80.0, 5000.0)  # nm, z, y, x
SHAPE = (40, 120, 100)
BALL, TUBE, CUT, LARGE = 3, 7, 11, 2**40 + 5
RADIUS = 360.0  # nm, of the ball
LENGTH = 900.0  # nm, of the tube


def draw_shapes() -> np.ndarray:
    """A ball, a tube along x from the volume's face, a slab that three faces cut off, and two boxes of one id."""
    labels = np.zeros(SHAPE, np.uint64)
    z, y, x = (index * size for index, size in zip(np.indices(SHAPE), SIZE, strict=True))
    labels[(z - 800) ** 2 + (y - 480) ** 2 + (x - 500) ** 2 <= RADIUS**2] = BALL
    labels[((z - 160) ** 2 + (y - 104) ** 2 <= 100**2) & (x < LENGTH)] = TUBE
    labels[30:, 90:, 80:] = CUT
    labels[20:24, 100:110, 5:15] = LARGE
    labels[34:38, 110:120, 15:25] = LARGE
    return labels


def count_uses(faces: np.ndarray) -> set[int]:
    """Of each edge, in how many triangles it is."""
    edges = np.sort(np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]]), axis=1)
    return set(np.unique(edges, axis=0, return_counts=True)[1].tolist())


def volume_of(vertices: np.ndarray, faces: np.ndarray) -> float:
    """By the divergence theorem: above 0 where triangles face outwards."""
    a, b, c = (vertices[faces[:, corner]].astype(float) for corner in range(3))
    return float((np.cross(a, b) * c).sum() / 6)


def area_of(vertices: np.ndarray, faces: np.ndarray) -> float:
    a, b, c = (vertices[faces[:, corner]].astype(float) for corner in range(3))
    return float(np.linalg.norm(np.cross(b - a, c - a), axis=1).sum() / 2)


def shapes_in(out: Path) -> dict[str, bytes]:
    folders = [path for name in ("meshes", "skeletons", "segments") for path in (out / name).iterdir()]
    return {str(path.relative_to(out)): path.read_bytes() for path in [*folders, out / "objects.csv"]}


def read_rows(out: Path) -> dict[int, dict[str, float]]:
    with (out / "objects.csv").open() as file:
        return {int(row.pop("id")): {name: float(value) for name, value in row.items()} for row in csv.DictReader(file)}
