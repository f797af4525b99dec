"""What blocks cost: how far labels made block by block are from those made at once, against truth."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from emsam_jax.scores import score_segmentation
from emsam_jax.segmentation import FragmentParameters, Recipe, make_fragments, segment_affinities
from emsam_jax.segmentation.blockwise import segment_blockwise
from emsam_jax.volumes import Volume, Voxel
from tests.segmentation.cells import AFFINITIES, draw_affinities, draw_cells, store

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


@pytest.mark.parametrize("kind", ["2d", pytest.param("3d", marks=pytest.mark.slow)])
def test_fragments_of_blocks_cost_little(kind: str, tmp_path: Path):
    recipe = Recipe("waterz", 0.6, fragments=FragmentParameters(kind, seed_distance=4))
    blocks = [(16, 48, 50), (20, 40, 32)]
    assert max(costs_of_blocks(draw_cells(0, (32, 96, 100), 30), recipe, blocks, tmp_path)) < LARGEST_COST


@pytest.mark.slow
@pytest.mark.parametrize(("method", "kind"), [("waterz", "2d"), ("waterz", "3d"), ("multicut", "3d")])
def test_fragments_of_blocks_cost_little_on_fib25(
    method: str, kind: str, read_fib25: Callable[[], np.ndarray], tmp_path: Path
):
    recipe = Recipe(method, 0.5, fragments=FragmentParameters(kind, seed_distance=3))
    cells = read_fib25()[:64, :160, :160].astype(np.uint64)
    blocks = [(32, 32, 32), (64, 64, 64), (32, 96, 96), (50, 64, 160)][: 2 if method == "multicut" else None]
    assert max(costs_of_blocks(cells, recipe, blocks, tmp_path)) < LARGEST_COST


def test_quantiles_by_blocks_that_see_everything_are_exact(
    stored: Volume, given: Volume, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    for threshold in (0.3, 0.5):
        recipe, out = Recipe("waterz", threshold, scorer="q50"), tmp_path / str(threshold)
        labels = segment_blockwise(stored, out, recipe, (20, 50, 32), fragments=given, graph=tmp_path / "graph")[...]
        assert capsys.readouterr().err.count("approximate") == 1
        expected = segment_affinities(AFFINITIES, "waterz", threshold, fragments=given[...], scorer="q50")
        by_mean = segment_affinities(AFFINITIES, "waterz", threshold, fragments=given[...])
        assert apart(labels, expected) == 0
        assert apart(by_mean, expected) > 0.05


@pytest.mark.slow
def test_quantiles_by_blocks_on_fib25(read_fib25: Callable[[], np.ndarray], tmp_path: Path):
    """Given the same fragments: what is left is what blocks don't see."""
    cells = read_fib25()[:64, :160, :160].astype(np.uint64)
    affinities, recipe = draw_affinities(cells), Recipe("waterz", 0.5, scorer="q50")
    fragments = make_fragments(affinities, FragmentParameters("2d", seed_distance=3))
    volume, given = (store(tmp_path / f"{a.ndim}.zarr", a) for a in (affinities, fragments))
    at_once = segment_affinities(affinities, "waterz", 0.5, fragments=fragments, scorer="q50")
    for block in [(32, 32, 32), (32, 80, 96)]:
        labels = segment_blockwise(volume, tmp_path / f"{block}", recipe, block, fragments=given)[...]
        by_block, whole = (score_segmentation(found, cells)["voi"] for found in (labels, at_once))
        distance = apart(labels, at_once)
        print(f"Blocks {block}, q50: VOI {by_block:.4f}, at once {whole:.4f}, between the two {distance:.4f}")
        assert distance < 0.05
        assert by_block - whole < LARGEST_COST


@pytest.mark.parametrize(("right", "objects"), [(0.9, 1), (0.1, 2)])
def test_what_one_block_does_not_merge_stays_apart(right: float, objects: int, tmp_path: Path):
    """Two fragments side by side; those at the left end see nothing of the right end."""
    affinities = np.full((3, 1, 2, 200), 0.99, np.float32)
    affinities[1] = np.where(np.arange(200) < 100, 0.9, right)
    fragments = np.array([[[1], [2]]], np.uint64).repeat(200, 2)
    volume, given = store(tmp_path / "affinities.zarr", affinities), store(tmp_path / "given.zarr", fragments)
    recipe = Recipe("waterz", 0.5, scorer="q50")
    labels = segment_blockwise(volume, tmp_path / "out", recipe, (1, 2, 40), fragments=given)[...]
    votes = [np.load(tmp_path / f"out/merges/0-0-{block}.npy")["mean"] for block in (0, 4)]
    assert [float(vote) for (vote,) in votes] == [1.0, float(objects == 1)]
    assert len(np.unique(labels)) == objects


def apart(labels: np.ndarray, other: np.ndarray) -> float:
    return score_segmentation(labels + np.uint64(1), other + np.uint64(1))["voi"]
