"""Multicut, mutex watershed, ideal affinities and clean-up, against brute force and by hand."""

import itertools
from typing import Any

import numpy as np
import pytest

from emsam_jax.config import SHORT_OFFSETS
from emsam_jax.errors import UserError
from emsam_jax.scores import score_segmentation
from emsam_jax.segmentation import FragmentParameters, ideal_affinities, segment_affinities, segmentations
from emsam_jax.segmentation.cleaning import CleanUp, clean_labels
from emsam_jax.segmentation.methods import METHODS

LONG = (*SHORT_OFFSETS, *((-d * z, -d * y, -d * x) for d in (4, 9) for z, y, x in np.eye(3, dtype=int).tolist()))


def test_multicut_is_the_best_partition() -> None:
    """Eight cubes, all partitions tried."""
    rng = np.random.default_rng(5)
    cubes = np.kron(np.arange(1, 9).reshape(2, 2, 2), np.ones((3, 4, 5), int))
    affinities = rng.uniform(0.05, 0.95, (3, *cubes.shape)).astype(np.float32)
    edges = {}
    for axis in range(3):  # one random affinity a face, on top of the noise
        here, before = (np.moveaxis(cubes, axis, 0)[part] for part in (slice(1, None), slice(None, -1)))
        along = np.moveaxis(affinities[axis], axis, 0)[1:]
        for a, b in {(int(a), int(b)) for a, b in zip(before[here != before], here[here != before], strict=True)}:
            face = (before == a) & (here == b)
            along[face] = 0.3 * along[face] + 0.7 * rng.uniform(0.1, 0.9)
            edges[a, b] = (float(along[face].mean()), int(face.sum()))
    largest = max(size for _, size in edges.values())
    for threshold in (0.35, 0.5, 0.65):
        beta = 1 - threshold
        costs = {
            pair: (np.log(mean / (1 - mean)) - np.log(beta / (1 - beta))) * size / largest
            for pair, (mean, size) in edges.items()
        }

        def energy(nodes: dict[int, int], costs: dict = costs) -> float:
            return sum(cost for (a, b), cost in costs.items() if nodes[a] != nodes[b])

        lowest = min(
            energy(dict(enumerate(nodes, 1)))
            for nodes in itertools.product(range(4), repeat=8)  # no planar-like graph of a cube needs more than 4
        )
        labels = segment_affinities(affinities, "multicut", threshold, fragments=cubes)
        found = {i: int(labels[cubes == i][0]) for i in range(1, 9)}
        assert energy(found) == pytest.approx(lowest, abs=1e-4)


def test_multicut_keeps_background_apart() -> None:
    blocks = np.zeros((2, 4, 9), int)
    blocks[..., :4], blocks[..., 5:] = 1, 2
    labels = segment_affinities(np.full((3, *blocks.shape), 0.9, np.float32), "multicut", fragments=blocks)
    np.testing.assert_array_equal(labels, blocks)


def test_mutex_constraints_decide_by_strength() -> None:
    """Two halves joined by weak affinities, and what a long-range edge across says about them."""
    offsets = [*SHORT_OFFSETS, (0, 0, -4)]
    affinities = np.ones((4, 2, 6, 12), np.float32)
    affinities[2, :, :, 6] = 0.6
    affinities[3, :, :, 6:10] = 0.3  # repulsion of 0.7: stronger than 0.6
    apart, together = segmentations(affinities, [0.5, 0.6], "mutex", offsets=offsets, strides=(1, 1, 1))
    assert (apart.max(), together.max()) == (2, 1)
    np.testing.assert_array_equal(apart[..., :6], 1)
    np.testing.assert_array_equal(apart[..., 6:], 2)
    mask = np.ones((2, 6, 12), bool)
    mask[:, :, 3] = False
    masked = segment_affinities(affinities, "mutex", offsets=offsets, strides=(1, 1, 1), mask=mask)
    np.testing.assert_array_equal(masked > 0, mask)


@pytest.mark.parametrize(
    ("offsets", "message"),
    [
        ((), "needs the offset of each of the 4 channels"),
        (SHORT_OFFSETS, "4 channels, 3 offsets"),
        ([(1, 0, 0), (0, 1, 0), (0, 0, 1), (9, 0, 0)], "start with"),
    ],
)
def test_mutex_needs_offsets(offsets: list, message: str) -> None:
    with pytest.raises(UserError, match=message):
        segment_affinities(np.ones((4, 3, 4, 5), np.float32), "mutex", offsets=offsets)
    with pytest.raises(UserError, match="three numbers of voxels"):
        segment_affinities(np.ones((7, 3, 4, 5), np.float32), "mutex", offsets=LONG[:7], strides=(0, 2))
    with pytest.raises(UserError, match="there are 3 channels"):
        segment_affinities(np.ones((3, 3, 4, 5), np.float32), "mutex", offsets=SHORT_OFFSETS)


def test_ideal_affinities_by_hand() -> None:
    labels = np.array([[[1, 1, 1, 1, 2, 2, 2, 0, 0]]])
    hard = ideal_affinities(labels, [*SHORT_OFFSETS, (0, 0, -3)], widen=False, sigma=0.0)
    np.testing.assert_array_equal(hard[2, 0, 0], [1, 1, 1, 1, 0, 1, 1, 0, 0])
    np.testing.assert_array_equal(hard[3, 0, 0, 3:], [1, 0, 0, 0, 0, 0])
    # One voxel on each side of a border with another neuron becomes background: 1 1 1 0 0 2 2 0 0.
    wide = ideal_affinities(labels, [*SHORT_OFFSETS, (0, 0, -3)], sigma=0.0)
    np.testing.assert_array_equal(wide[2, 0, 0], [1, 1, 1, 0, 0, 0, 1, 0, 0])
    np.testing.assert_array_equal(wide[0, 0, 0], [1, 1, 1, 0, 0, 1, 1, 0, 0])
    np.testing.assert_array_equal(wide[3], hard[3])  # not for long-range channels
    step = np.repeat([1, 2], 10)[None, None].repeat(5, 0).repeat(5, 1)
    soft = ideal_affinities(step)[2, 2, 2]
    np.testing.assert_allclose(soft, soft[::-1][[-1, *range(19)]], atol=1e-6)  # joins v and v-1: centred on 9.5
    np.testing.assert_allclose(soft[[0, 10]], [1, 0], atol=0.1)


def test_clean_up_by_hand() -> None:
    labels = np.array([[[4, 4, 4, 0, 0, 7, 7, 9, 9, 9]]], np.uint64)
    cleaned = {
        CleanUp(): [1, 1, 1, 0, 0, 2, 2, 3, 3, 3],
        CleanUp(min_size=3): [1, 1, 1, 0, 0, 0, 0, 2, 2, 2],
        CleanUp(fill=True): [1, 1, 1, 1, 2, 2, 2, 3, 3, 3],
        CleanUp(min_size=3, fill=True): [1, 1, 1, 1, 1, 2, 2, 2, 2, 2],
        CleanUp(min_size=9, fill=True): [0] * 10,
    }
    for how, expected in cleaned.items():
        np.testing.assert_array_equal(clean_labels(labels.copy(), how)[0, 0], expected)
    masked = clean_labels(labels.copy(), CleanUp(min_size=3, fill=True), labels > 0)
    np.testing.assert_array_equal(masked[0, 0], [1, 1, 1, 0, 0, 2, 2, 2, 2, 2])
    # Nearest by nm: 40 nm to the section above, 3 voxels of 4 nm within the section.
    corner = np.array([[[1, 1, 1, 1]], [[0, 0, 0, 2]]], np.uint64)
    anisotropic = clean_labels(corner, CleanUp(fill=True, voxel_size_zyx=(40.0, 4.0, 4.0)))
    np.testing.assert_array_equal(anisotropic[1, 0], [2, 2, 2, 2])


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("shape", [(1, 1, 1), (1, 8, 8), (3, 1, 9)])
def test_degenerate_volumes(method: str, shape: tuple[int, int, int]) -> None:
    """All joined is one object; nothing joined is background; a single voxel, which nothing joins, too."""
    short: dict[str, Any] = {"offsets": LONG[:4]} if method == "mutex" else {"fragments": FragmentParameters("3d")}
    channels = 4 if method == "mutex" else 3
    together = segment_affinities(np.ones((channels, *shape), np.float32), method, clean_up=CleanUp(2), **short)
    np.testing.assert_array_equal(together, np.full(shape, min(1, together.size - 1)))
    nowhere = np.zeros(shape, bool)
    masked = segment_affinities(np.ones((channels, *shape), np.float32), method, mask=nowhere, **short)
    np.testing.assert_array_equal(masked, 0)
    if method != "mutex":  # where nothing forbids a merge, the weakest attraction joins
        np.testing.assert_array_equal(segment_affinities(np.zeros((channels, *shape), np.float32), method, **short), 0)


@pytest.fixture(scope="module")
def fib25(read_fib25) -> np.ndarray:
    return read_fib25()


def assert_within(labels: np.ndarray, truth: np.ndarray, everywhere: float, without_borders: float) -> None:
    """VOI over all voxels, and without truth borders of 1 voxel."""
    found = [score_segmentation(labels, truth, border=border)["voi"] for border in (0, 1)]
    print(f"VOI over all voxels {found[0]:.3f}, borders ignored {found[1]:.3f}")
    assert found[0] <= everywhere
    assert found[1] <= without_borders


@pytest.mark.slow
def test_fib25_hard_affinities(fib25: np.ndarray) -> None:
    labels = segment_affinities(ideal_affinities(fib25, widen=False, sigma=0.0), "components")
    assert_within(labels, fib25, 0.08, 0.08)


@pytest.mark.slow
@pytest.mark.parametrize(("method", "without_borders"), [("waterz", 0.15), ("multicut", 0.20)])
def test_fib25_ideal_affinities(fib25: np.ndarray, method: str, without_borders: float) -> None:
    fragments = FragmentParameters("3d", boundary_threshold=0.5, seed_distance=3)
    labels = segment_affinities(ideal_affinities(fib25), method, 0.7, fragments=fragments)
    assert_within(labels, fib25, 0.50, without_borders)


@pytest.mark.slow
def test_fib25_mutex(fib25: np.ndarray) -> None:
    how = {"offsets": LONG, "strides": (4, 4, 4), "clean_up": CleanUp(min_size=50, fill=True)}
    assert_within(segment_affinities(ideal_affinities(fib25, LONG), "mutex", 0.7, **how), fib25, 0.60, 0.15)
