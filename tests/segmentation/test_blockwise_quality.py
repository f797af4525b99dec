"""What blocks cost: how far labels made block by block are from those made at once, against truth."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from emsam_jax.scores import score_segmentation
from emsam_jax.segmentation import FragmentParameters, Recipe
from emsam_jax.segmentation.blockwise import segment_blockwise
from emsam_jax.volumes.box import Voxel
from tests.segmentation.noisy_cells import draw_affinities, store
from tests.segmentation.test_segment import draw_cells

LARGEST_COST = 0.03  # bits of VOI


def costs_of_blocks(cells: np.ndarray, recipe: Recipe, blocks: list[Voxel], folder: Path) -> list[float]:
    """By how much VOI against truth is higher than where the volume is segmented at once."""
    affinities = draw_affinities(cells).astype(np.float16)
    volume = store(folder / "affinities.zarr", affinities)
    at_once = score_segmentation(recipe.segment(affinities), cells)["voi"]
    costs = []
    for block in blocks:
        labels = segment_blockwise(volume, folder / f"{block}", recipe, block)[...]
        by_block = score_segmentation(labels, cells)["voi"]
        print(f"Blocks {block}, {recipe.fragments.kind}, {recipe.method}: VOI {by_block:.4f}, at once {at_once:.4f}")
        costs.append(by_block - at_once)
    return costs


@pytest.mark.parametrize("kind", ["2d", "3d"])
def test_fragments_of_blocks_cost_little(kind: str, tmp_path: Path):
    recipe = Recipe("waterz", 0.6, fragments=FragmentParameters(kind, seed_distance=4))
    blocks = [(16, 48, 50), (20, 40, 32)]
    assert max(costs_of_blocks(draw_cells(0, (32, 96, 100), 30), recipe, blocks, tmp_path)) < LARGEST_COST


@pytest.mark.parametrize(("method", "kind"), [("waterz", "2d"), ("waterz", "3d"), ("multicut", "3d")])
def test_fragments_of_blocks_cost_little_on_fib25(
    method: str, kind: str, read_fib25: Callable[[], np.ndarray], tmp_path: Path
):
    recipe = Recipe(method, 0.5, fragments=FragmentParameters(kind, seed_distance=3))
    cells = read_fib25()[:64, :160, :160].astype(np.uint64)
    blocks = [(32, 32, 32), (64, 64, 64), (32, 96, 96), (50, 64, 160)]
    assert max(costs_of_blocks(cells, recipe, blocks, tmp_path)) < LARGEST_COST
