"""Merges of two large objects against a brute force."""

from pathlib import Path

import numpy as np
import pytest

from emsam_jax.errors import UserError
from emsam_jax.scores import score_segmentation
from emsam_jax.segmentation import Recipe, segment_affinities
from emsam_jax.segmentation.blockwise import Guard, read_summary, segment_blockwise
from emsam_jax.segmentation.blockwise.global_agglomeration import agglomerate_edges, agglomerate_guarded
from emsam_jax.segmentation.blockwise.stage_5_lookup import Summary
from emsam_jax.volumes import Volume
from tests.segmentation.cells import AFFINITIES, draw_graph, store


def join_by_force(edges: np.ndarray, objects: np.ndarray, threshold: float, guard: Guard | None) -> list[set[int]]:
    """The strongest merge that is allowed, one after the other; each time all edges are counted anew."""
    parts, ends = [{int(i)} for i in objects["id"]], [{int(e["u"]), int(e["v"])} for e in edges]
    sizes = dict(zip(objects["id"].tolist(), objects["voxels"].tolist(), strict=True))
    while True:
        best, found = 1 - threshold, None
        for i, one in enumerate(parts):
            for j, other in enumerate(parts[:i]):
                between = edges[[bool(pair & one and pair & other) for pair in ends]]
                if not len(between):
                    continue
                mean = np.average(between["mean"], weights=between["size"])
                large = guard and min(sum(sizes[k] for k in part) for part in (one, other)) >= guard.size
                if mean > best and not (guard and large and mean <= 1 - guard.threshold):
                    best, found = mean, (i, j)
        if found is None:
            return parts
        i, j = found
        parts[j] |= parts.pop(i)


def as_sets(lookup: np.ndarray) -> set[frozenset[int]]:
    return {frozenset(lookup["fragment"][lookup["label"] == label].tolist()) for label in np.unique(lookup["label"])}


@pytest.mark.parametrize("seed", [0, 1, 2, 3, 4, 6, 7, 8])
def test_guarded_linkage_equals_a_brute_force(seed: int):
    edges, objects = draw_graph(seed)
    threshold, guard = 0.6, Guard(60, 0.3)
    expected = set()
    for whole in join_by_force(edges, objects, threshold, None):
        inside = np.isin(edges["u"], list(whole)) & np.isin(edges["v"], list(whole))
        own = objects[np.isin(objects["id"], list(whole))]
        expected |= set(map(frozenset, join_by_force(edges[inside], own, threshold, guard)))
    found = as_sets(agglomerate_guarded(edges, objects, threshold, guard))
    assert found == expected
    strict, lenient = map(as_sets, agglomerate_edges(edges, objects["id"], [guard.threshold, threshold]))
    assert len(strict) > len(found) > len(lenient)
    assert as_sets(agglomerate_guarded(edges, objects, threshold, Guard(1, 0.3))) == strict
    assert as_sets(agglomerate_guarded(edges, objects, threshold, Guard(10**6, 0.3))) == lenient


def test_a_guard_of_all_objects_is_the_stricter_threshold(stored: Volume, given: Volume, tmp_path: Path):
    recipe, options = Recipe("waterz", 0.7), {"fragments": given, "graph": tmp_path / "graph"}
    for size, threshold in ((1, 0.3), (AFFINITIES.size, 0.7)):
        out = tmp_path / f"{size}"
        labels = segment_blockwise(stored, out, recipe, (20, 50, 32), guard=Guard(size, 0.3), **options)[...]
        expected = segment_affinities(AFFINITIES, "waterz", threshold, fragments=given[...])
        assert score_segmentation(labels + np.uint64(1), expected + np.uint64(1))["voi"] == 0
        sizes = np.bincount(labels[labels > 0].astype(int))
        summary = (len(sizes) - 1, sizes.sum(), sizes.argmax(), sizes.max() / sizes.sum())
        assert tuple(read_summary(str(out))) == summary
    with pytest.raises(UserError, match="guard_size 180000 there, None here"):
        segment_blockwise(stored, out, recipe, (20, 50, 32), **options)


def test_one_object_that_holds_much_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    """400 voxels that are joined, beside 240 pairs of voxels."""
    affinities = np.zeros((3, 1, 44, 20), np.float32)
    affinities[2, 0, :24, 1::2] = 1  # pairs along x
    affinities[1:, 0, 25:] = 1
    volume = store(tmp_path / "affinities.zarr", affinities)
    segment_blockwise(volume, tmp_path / "out", Recipe("components"))
    told = capsys.readouterr().err
    assert told.count("241 objects, of which the largest, 241, holds 45.5% of the voxels") == 1
    assert Summary(2, 1000, 1, 0.9).is_suspicious
    assert not Summary(10**6, 1000, 1, 0.3).is_suspicious


@pytest.mark.parametrize(
    ("recipe", "message"),
    [
        (Recipe("multicut"), "A guard is for waterz with mean, but the recipe is multicut"),
        (Recipe(scorer="q50"), "waterz with q50: leave it out"),
        (Recipe(threshold=0.3), r"stricter than the recipe, whose threshold is 0\.3, but has 0\.3"),
    ],
)
def test_a_guard_that_has_no_meaning_is_refused(recipe: Recipe, message: str, stored: Volume, tmp_path: Path):
    with pytest.raises(UserError, match=message):
        segment_blockwise(stored, tmp_path / "out", recipe, guard=Guard(1, 0.3))
    with pytest.raises(UserError, match="a size from 1 voxel up"):
        Guard(0, 0.3)
