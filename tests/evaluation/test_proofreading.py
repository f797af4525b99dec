"""Merge decisions judged: calibration and curves against implementations of a few lines."""

import json
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from emsam_jax.evaluation.proofreading import describe_calibration, judge_decisions, proofread
from emsam_jax.scores import Conventions, score_segmentation
from emsam_jax.segmentation import Recipe, fit_probability, ideal_affinities
from emsam_jax.view.colours import MERGE, SPLIT
from emsam_jax.view.exhibit import Verdict
from emsam_jax.view.live import scene_of
from emsam_jax.view.live.arrangement import ERRORS, arrange
from emsam_jax.volumes import open_volume


def test_calibration_error_is_that_of_its_definition():
    rng = np.random.default_rng(0)
    probability = rng.random(500) ** 3
    together = rng.random(500) < probability**2
    found = describe_calibration(probability, together)
    expected = 0.0
    for low in np.arange(10) / 10:
        own = (probability >= low) & (probability < low + 0.1)
        if own.any():
            expected += own.mean() * abs(probability[own].mean() - together[own].mean())
    assert found["calibration_error"] == pytest.approx(expected)
    assert sum(row["decisions"] for row in found["reliability"]) == 500
    certain = describe_calibration(np.array([0.0, 1.0, 1.0]), np.array([False, True, True]))
    assert certain["calibration_error"] == 0
    assert describe_calibration(np.zeros(0), np.zeros(0, bool))["calibration_error"] is None


def test_an_oracle_that_looks_at_all_mends_all_and_the_costliest_first():
    """Six slabs in a row, three neurons of two each: one pair was left apart, and two neurons were merged."""
    fragments = np.broadcast_to(np.repeat(np.arange(1, 7), [4, 4, 20, 20, 6, 6]), (6, 8, 60)).astype(np.uint64)
    truth = (fragments + np.uint64(1)) // np.uint64(2)
    labels = np.array([0, 1, 2, 3, 3, 3, 3], np.uint64)[fragments]  # 1 and 2 apart, 3 to 6 in one
    affinities = ideal_affinities(truth, widen=False, sigma=0.0)
    edge = np.argmax(fragments[0, 0] == 5)
    affinities[2, :, :, edge] = 0.55  # between 4 and 5, of two neurons
    affinities[2, :, :, 4] = 0.45  # between 1 and 2, of one
    ruler: Any = SimpleNamespace(truth=truth, conventions=Conventions(), mask=None)
    asked = proofread(ruler, fragments, affinities, labels)
    assert asked.wrong.sum() == 2
    assert len(asked.decisions) == 5
    found = judge_decisions(asked, Recipe(threshold=0.5))
    objects = {0: labels, 1: labels.copy(), 2: truth}
    objects[1][fragments >= 5] = 4
    expected = [score_segmentation(objects[min(count, 2)], truth)["voi"] for count in found["looked_at"]]
    assert found["voi"]["cost"] == pytest.approx(expected, abs=1e-12)
    assert found["voi"]["margin"][-1] == found["voi"]["random"][-1] == pytest.approx(0, abs=1e-12)
    assert (found["wrongly_joined"], found["wrongly_apart"]) == (1, 1)
    assert found["to_halve"]["cost"] == 1


def test_an_evaluation_fits_on_validation_and_reports_on_the_test(answered):
    scores, _, out = answered
    recipe = Recipe.read(out / "postprocess.json")
    entry = scores["volumes"]["cells"][scores["headline"]]
    found = entry["decisions"]
    assert recipe.probability is not None
    assert found["fitted"]
    assert found["voi"]["cost"][0] == pytest.approx(entry["voi"])
    assert found["voi"]["cost"][-1] == pytest.approx(found["voi"]["margin"][-1])
    assert found["looked_at"][-1] == found["decisions"]
    assert json.loads(recipe.to_json())["probability"] == scores["recipes"][scores["headline"]]["probability"]
    page = (out / "report.html").read_text()
    assert "Where to look first" in page
    assert 'aria-label="VOI over the merge decisions' in page
    assert open_volume(out / "cells" / "segmentation.zarr").shape == (20, 48, 48)


def test_its_viewer_shows_the_worst_objects_where_they_are_and_colours_what_belongs_together(answered, study):
    _, _, out = answered
    scene = scene_of(str(out))
    labels, truth = open_volume(out / "cells" / "segmentation.zarr")[...], study.truth[20:40]
    worst = scene.places["worst objects"]
    assert {place.colour for place in worst} == {SPLIT, MERGE}
    for place in worst:
        number = int(place.text.split()[3])
        z, y, x = (int(at // 10) for at in place.at_zyx_nm)
        assert 20 <= z < 40
        if place.colour == SPLIT:
            assert (place.neurons, truth[z - 20, y, x]) == ((number,), number)
            assert set(place.segments) <= set(labels[truth == number].tolist())
        else:
            assert (place.segments, labels[z - 20, y, x]) == ((number,), number)
            assert set(place.neurons) <= set(truth[labels == number].tolist())
    shared = np.zeros((int(truth.max()) + 1, int(labels.max()) + 1), int)
    np.add.at(shared, (truth, labels.astype(int)), 1)
    shared[0], shared[:, 0] = 0, 0
    pairs = [(neuron, int(row.argmax())) for neuron, row in enumerate(shared) if row.any()]
    mutual = [(neuron, segment) for neuron, segment in pairs if shared[:, segment].argmax() == neuron]
    assert len(mutual) > 10
    assert all(scene.colours["truth"][n] == scene.colours["segmentation"][s] for n, s in mutual)
    state = arrange(scene, dict.fromkeys([*scene.volumes, ERRORS], "somewhere")).to_json()
    layers = {layer["name"]: layer for layer in state["layers"]}
    assert layers["worst objects"]["linkedSegmentationLayer"] == {"segments": "segmentation", "neurons": "truth"}
    channels = ", ".join(f"toNormalized(getDataValue({c}))" for c in range(3))  # z, y, x as red, green, blue
    assert f"vec3 affinities = vec3({channels});" in layers["affinities"]["shader"]
    for kind, name, ink in ((Verdict.SPLIT, "cut_off", "38, 132, 255"), (Verdict.MERGE, "joined", "255, 92, 40")):
        assert f"if (code == {int(kind)}u && {name}) emitRGBA(vec4(vec3({ink}) / 255.0" in layers[ERRORS]["shader"]


def test_where_there_is_nothing_to_decide_there_is_nothing_to_mend():
    nothing, truth = np.zeros((4, 8, 8), np.uint64), np.ones((4, 8, 8), np.uint64)
    ruler: Any = SimpleNamespace(truth=truth, conventions=Conventions(), mask=None)
    asked = proofread(ruler, nothing, np.zeros((3, 4, 8, 8), np.float32), nothing)
    found = judge_decisions(asked, Recipe(probability=fit_probability(*asked.examples())))
    assert (found["decisions"], found["calibration_error"], found["looked_at"]) == (0, None, [0])
    assert found["to_halve"] == {"cost": 0, "margin": 0, "random": 0}  # one object of all, and so it is
