"""Cells, and affinities of theirs that are noisy, on disk: what is segmented block by block in tests."""

from pathlib import Path

import numpy as np

from emsam_jax.segmentation import FragmentParameters, ideal_affinities
from emsam_jax.segmentation.blockwise import EDGE
from emsam_jax.segmentation.blockwise.tables import OBJECT
from emsam_jax.volumes import Volume, create_volume, open_volume

IN_3D = FragmentParameters("3d", seed_distance=3)


def draw_cells(seed: int = 0, shape: tuple[int, int, int] = (24, 60, 64), cells: int = 12) -> np.ndarray:
    """Voronoi cells: connected, convex, without background."""
    rng = np.random.default_rng(seed)
    centres = rng.uniform(0, shape, (cells, 3))
    grid = np.moveaxis(np.indices(shape), 0, -1)[..., None, :]
    return (((grid - centres) ** 2).sum(-1).argmin(-1) + 1).astype(np.uint64)


def draw_affinities(cells: np.ndarray, noise: float = 1.2, seed: int = 0) -> np.ndarray:
    """Of thick borders, with noise on their log odds."""
    ideal = np.clip(ideal_affinities(cells), 0.02, 0.98)
    odds = np.log(ideal / (1 - ideal)) + np.random.default_rng(seed).normal(0, noise, ideal.shape)
    return (1 / (1 + np.exp(-odds))).astype(np.float32)


CELLS = draw_cells(3, (20, 50, 60), 25)
AFFINITIES = draw_affinities(CELLS)
MASK = np.ones(CELLS.shape, np.uint8)
MASK[:, 20:24, :40] = 0


def store(path: Path, values: np.ndarray) -> Volume:
    volume = create_volume(path, values.shape, values.dtype, (40, 4, 4), offset_zyx=(80, 8, 8))
    volume[...] = values
    return open_volume(path, channel="all" if values.ndim == 4 else None)


def draw_graph(seed: int, fragments: int = 40, edges: int = 110) -> tuple[np.ndarray, np.ndarray]:
    """Edges of a fragment graph, and its fragments."""
    rng = np.random.default_rng(seed)
    objects = np.zeros(fragments, OBJECT)
    objects["id"] = np.sort(rng.choice(2**40, fragments, replace=False)) + 1
    objects["voxels"] = rng.integers(1, 30, fragments)
    pairs = np.unique(np.sort(rng.integers(0, fragments, (edges, 2)), axis=1), axis=0)
    pairs = pairs[pairs[:, 0] < pairs[:, 1]]
    table = np.zeros(len(pairs), EDGE)
    table["u"], table["v"] = objects["id"][pairs].T
    table["mean"], table["size"] = rng.random(len(pairs)), rng.integers(1, 20, len(pairs))
    return table, objects
