"""Merge decisions: which there are, their probabilities, and the queue of those to be looked at first."""

import csv
import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from emsam_jax.errors import UserError
from emsam_jax.segmentation import Recipe, ideal_affinities
from emsam_jax.segmentation.blockwise import segment_blockwise
from emsam_jax.segmentation.blockwise.decisions import list_decisions
from emsam_jax.segmentation.blockwise.global_agglomeration import agglomerate_edges
from emsam_jax.segmentation.edits import new_edit
from emsam_jax.segmentation.probability import FEATURES, Logistic, MergeProbability, fit_probability
from emsam_jax.volumes import open_volume
from tests.segmentation.cells import IN_3D, draw_graph, store

SIZE, OFFSET = np.array([40, 4, 4]), np.array([80, 8, 8])  # nm, as `store` writes them


@pytest.mark.parametrize("seed", range(4))
def test_decisions_are_what_objects_hang_on_and_the_pairs_that_touch(seed: int):
    edges, fragments = draw_graph(seed, 60, 150)
    (lookup,) = agglomerate_edges(edges, fragments["id"], [0.5])
    found = list_decisions(edges, fragments, lookup)
    label = dict(zip(lookup["fragment"].tolist(), lookup["label"].tolist(), strict=True))
    links, pairs = found[found["joined"]], found[~found["joined"]]
    assert len(links) == len(fragments) - lookup["label"].max()
    ids, voxels = fragments["id"], fragments["voxels"]
    ends = np.searchsorted(ids, links["fragments"])
    for row, link in enumerate(links):
        assert len({label[int(one)] for one in link["fragments"]}) == 1
        others = np.delete(ends, row, axis=0)
        _, parts = connected_components(coo_array((np.ones(len(others)), others.T), shape=(len(ids),) * 2))
        sides = [voxels[parts == parts[end]].sum() for end in ends[row]]
        assert parts[ends[row][0]] != parts[ends[row][1]]
        assert link["voxels"] == min(sides)
    between = {}
    for u, v, mean, size in edges.tolist():
        if label[u] != label[v]:
            between.setdefault(tuple(sorted((label[u], label[v]))), []).append((mean, size, {u, v}))
    assert sorted(tuple(sorted(one.tolist())) for one in pairs["objects"]) == sorted(between)
    for one in pairs:
        means, sizes, named = zip(*between[tuple(sorted(one["objects"].tolist()))], strict=True)
        assert one["mean"] == pytest.approx(np.average(means, weights=sizes))
        assert set(one["fragments"].tolist()) in [named[i] for i, size in enumerate(sizes) if size == max(sizes)]
        assert one["voxels"] == min(voxels[lookup["label"] == label].sum() for label in one["objects"])


def test_probabilities_are_those_that_decisions_were_drawn_with():
    rng = np.random.default_rng(0)
    features, joined = rng.normal(size=(40_000, len(FEATURES))), rng.random(40_000) < 0.5
    weights = rng.normal(size=(2, len(FEATURES)))
    true = 1 / (1 + np.exp(-np.where(joined, 2 + features @ weights[1], features @ weights[0] - 3)))
    found = fit_probability(features, joined, rng.random(40_000) < true)(features, joined)
    assert np.abs(found - true).mean() < 0.01
    assert np.abs(found - true).max() < 0.1
    few = fit_probability(features[:50], joined[:50], np.ones(50, bool))
    far = few(1e6 * rng.normal(size=(100, len(FEATURES))), rng.random(100) < 0.5)
    assert (far <= 1 - 3 / 50).all()  # all fifty were right, which is no proof


def test_a_recipe_keeps_probabilities_and_an_older_one_has_none(tmp_path: Path):
    rng = np.random.default_rng(0)
    fitted = fit_probability(rng.normal(size=(60, len(FEATURES))), rng.random(60) < 0.5, rng.random(60) < 0.5)
    path = tmp_path / "postprocess.json"
    Recipe(probability=fitted).write(path)
    assert Recipe.read(path).probability == fitted
    fields = json.loads(path.read_text())
    del fields["probability"]
    path.write_text(json.dumps(fields))
    assert Recipe.read(path).probability is None
    fields["probability"] = json.loads(json.dumps(dataclasses.asdict(fitted)))
    fields["probability"]["apart"]["weights"].pop()
    path.write_text(json.dumps(fields))
    with pytest.raises(UserError, match=rf"probability.apart.weights: expected {len(FEATURES)} numbers .*found \["):
        Recipe.read(path)


def test_the_queue_begins_with_the_planted_mistakes_at_their_places(tmp_path: Path):
    """Slabs along x: the wall between the first two is thin enough to be merged, and one hardly parts the fourth."""
    affinities = ideal_affinities(
        np.zeros((12, 40, 64), np.uint64) + np.arange(64, dtype=np.uint64) // 16 + np.uint64(1)
    )
    affinities[:, :, :, 14:18] = np.maximum(affinities[:, :, :, 14:18], 0.45)
    affinities[:, :, 19:21, 50:] = 0.35
    volume, recipe = store(tmp_path / "affinities.zarr", affinities), Recipe("waterz", 0.6, IN_3D)
    for name, block in (("whole", (12, 40, 64)), ("blocks", (12, 20, 32))):
        segment_blockwise(volume, tmp_path / name, recipe, block, queue=20)
        rows = list(csv.DictReader((tmp_path / name / "queue.csv").read_text().splitlines()))
        labels, fragments = (open_volume(tmp_path / name / part)[...] for part in (".", "fragments"))
        pieces = np.load(tmp_path / name / "pieces.npy")
        named = pieces["label"]
        assert [row["rank"] for row in rows] == [str(rank) for rank in range(1, len(rows) + 1)]
        costs = [float(row["cost"]) for row in rows]
        assert costs == sorted(costs, reverse=True)
        assert costs[2] < 0.2 * costs[1]
        for row, joined, axis, at in zip(rows, "10", (2, 1), (16, 20), strict=False):
            place = (np.array([float(row[f"{axis}_nm"]) for axis in "zyx"]) - OFFSET) / SIZE
            assert (place % 1 == 0.5).all()
            voxel = tuple(place.astype(int))
            assert row["joined"] == joined
            assert abs(voxel[axis] + 0.5 - at) < 3
            assert labels[voxel] == int(row["object_a"])
            near = [np.add(voxel, step) for step in ((0, 0, 0), *np.eye(3, dtype=int), *-np.eye(3, dtype=int))]
            here, *around = (named[np.searchsorted(pieces["fragment"], fragments[tuple(one)])] for one in near)
            assert here == int(row["fragment_a"])
            assert int(row["fragment_b"]) in around
            assert (row["object_a"] == row["object_b"]) == (joined == "1")
            assert float(row["probability"]) == pytest.approx(0.5, abs=0.1)
    zeros = (0.0,) * len(FEATURES)
    sure, unsure = (Logistic(bias, zeros, zeros, zeros, least=0.01) for bias in (2.0, 0.0))
    fitted = dataclasses.replace(recipe, probability=MergeProbability(joined=sure, apart=unsure))
    segment_blockwise(volume, tmp_path / "fitted", fitted, (12, 40, 64), graph=tmp_path / "whole", queue=20)
    rows = list(csv.DictReader((tmp_path / "fitted" / "queue.csv").read_text().splitlines()))
    assert {(row["joined"], row["probability"]) for row in rows} == {("1", "0.8808"), ("0", "0.5")}


def test_what_edits_have_decided_is_listed_no_more(tmp_path: Path):
    affinities = ideal_affinities(np.broadcast_to(np.arange(64) // 16 + 1, (12, 40, 64)))
    affinities[:, :, :, 14:18] = np.maximum(affinities[:, :, :, 14:18], 0.45)
    affinities[:, :, 19:21, 50:] = 0.35
    volume, recipe = store(tmp_path / "affinities.zarr", affinities), Recipe("waterz", 0.6, IN_3D)
    places = {"part": [(6, 20, 8), (6, 20, 24)], "join": [(6, 8, 56), (6, 32, 56)], "done": [(6, 20, 40)]}
    edits = [new_edit(kind, OFFSET + SIZE * (np.array(place) + 0.5), "ada") for kind, place in places.items()]
    pairs = []
    for number, given in enumerate((None, edits[:2], edits)):
        out = tmp_path / str(number)
        segment_blockwise(
            volume, out, recipe, (12, 40, 32), graph=tmp_path / "0" if given else None, edits=given, queue=100
        )
        rows = list(csv.DictReader((out / "queue.csv").read_text().splitlines()))
        pairs.append([{int(row["object_a"]), int(row["object_b"])} for row in rows])
    assert len(pairs[0]) == 5
    labels = open_volume(tmp_path / "1")[...][6, 20]
    second, third, fourth = (int(labels[x]) for x in (24, 40, 56))
    assert sorted(map(sorted, pairs[1])) == sorted(map(sorted, [{second, third}, {third, fourth}]))
    assert pairs[2] == []
