"""Validation: what a recipe is chosen by, and what becomes of one that a run did not live to see."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

from emsam_jax.blocks import plan_blocks
from emsam_jax.config import DeclaredVolume
from emsam_jax.errors import UserError
from emsam_jax.evaluation import Example, choose_recipes, read_subject
from emsam_jax.inference import declare_as_trained, load_trained, predict_affinities, settings_from
from emsam_jax.scores import score_segmentation
from emsam_jax.segmentation import FragmentParameters, Recipe, ideal_affinities
from emsam_jax.training.loop import train
from emsam_jax.training.scoring import ScoringJob, score
from emsam_jax.volumes import Box, open_declared
from emsam_jax.volumes.synthetic import synthetic_volume

OVERRIDES = (
    *("validation.every=2", "optim.steps=4", "checkpoint.every=1", "checkpoint.keep=1"),
    *(
        f"data.{part}[0].intensity.{field}"
        for part in ("train", "validation")
        for field in ("low=2", "high=98", "percentiles=true")
    ),
)


def test_scoring_needs_no_jax():
    program = "import sys, emsam_jax.training.scoring; sys.exit('jax' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], cwd=Path(__file__).parents[2], check=False).returncode == 0


def test_a_split_that_overlaps_is_refused(make_config, tmp_path):
    config = make_config("data.validation[0].roi=9:16,0:96,0:96")
    with pytest.raises(UserError, match=r"training volume synthetic 0:10.* validation .* \(9:16"):
        train(config, tmp_path / "run", jax.devices()[:1])
    assert not (tmp_path / "run").exists()


def test_validation_is_what_a_user_would_get(make_config, rows_of, tmp_path, capsys):
    config = make_config(*OVERRIDES)
    train(config, tmp_path, jax.devices()[:1])
    said = capsys.readouterr().out
    rows = {row["step"]: row for row in rows_of(tmp_path) if "validation_voi" in row}
    assert sorted(rows) == [2, 4]
    assert "step 4: VOI" in said

    trained = load_trained(tmp_path)
    assert trained.recipe is not None
    recipe = Recipe.read(trained.recipe)
    assert recipe.chosen["step"] == trained.step
    smoothed = {step: row["validation_smoothed_voi"] for step, row in rows.items()}
    assert recipe.chosen["score"] == smoothed[trained.step] == min(smoothed.values())
    assert recipe.chosen["voi"] == rows[trained.step]["validation_voi"]

    specimen = open_declared(declare_as_trained(config.data.validation[0], trained))
    seen = open_declared(config.data.train[0])  # whose percentiles are those of its region
    assert trained.measured.ranges == (seen.intensity_range,) == (specimen.intensity_range,)
    assert specimen.intensity_range != open_declared(config.data.validation[0]).intensity_range
    settings = settings_from(config, progress=False)
    affinities = predict_affinities(trained.model, specimen, tmp_path / "affinities.zarr", settings)
    example = Example(read_subject(specimen), affinities.read(affinities.box).astype(np.float32))
    choices = choose_recipes([example], ["waterz_mean"], step=trained.step)
    assert isinstance(recipe.fragments, FragmentParameters)
    assert choices["waterz_mean"].recipe == recipe

    # As a kill leaves it behind: the step is saved and its validation is not over.
    newest = tmp_path / "checkpoints/4"
    before = json.loads((newest / "postprocess.json").read_text())
    (newest / "postprocess.json").unlink()
    (tmp_path / "validating/4").mkdir(exist_ok=True)
    train(config, tmp_path, jax.devices()[:1])
    assert "The validation of step 4 had not ended: it is done again." in capsys.readouterr().out
    assert json.loads((newest / "postprocess.json").read_text()) == before
    assert [row["step"] for row in rows_of(tmp_path) if "validation_voi" in row] == [2, 4]
    assert not list((tmp_path / "validating").iterdir())

    # What fails would fail again: it is told, not predicted anew at every start.
    (newest / "postprocess.json").unlink()
    np.save(tmp_path / "nobody.npy", np.zeros((16, 96, 96), np.uint8))
    broken = make_config(*OVERRIDES, f"data.validation[0].labels={tmp_path}/nobody.npy")
    train(broken, tmp_path, jax.devices()[:1])
    assert "step 4: no validation: synthetic 10:16,0:96,0:96: no neuron is labelled" in capsys.readouterr().out
    train(broken, tmp_path, jax.devices()[:1])
    said = capsys.readouterr().out
    assert f"The validation of step 4 failed, as {newest}/validation_failed.json says" in said
    assert "validation predicted" not in said
    shutil.rmtree(tmp_path)


def test_three_validation_volumes_are_scored_by_their_mean(tmp_path):
    """No threshold is averaged: the row of the chosen one is found."""
    volumes, whole, box = [], [], Box((0, 0, 0), (6, 128, 128))
    plan = plan_blocks(box, box, box.shape, (1, 1, 1))
    (block,) = plan
    for number in range(3):
        raw, labels, _ = synthetic_volume(box.shape, number)
        noise = np.random.default_rng(number).normal(0, 0.6, (3, *box.shape))
        affinities = np.clip(ideal_affinities(labels) + noise, 0, 1).astype(np.float16)
        np.save(tmp_path / f"volume{number}-{block.name}.npy", affinities)
        whole.append((affinities, labels))
        paths = [f"{tmp_path}/{name}{number}.npy" for name in ("raw", "labels")]
        for path, values in zip(paths, (raw, labels), strict=True):
            np.save(path, values)
        volumes.append(DeclaredVolume(f"volume {number}", paths[0], paths[1], raw_voxel_size_zyx=(40, 8, 8)))
    score(ScoringJob(tmp_path, 5, tuple(volumes), (plan,) * 3, ("mean",), "2d"))
    found = json.loads((tmp_path / "result.json").read_text())
    recipe = Recipe.read(tmp_path / "recipe.json")
    own = [score_segmentation(recipe.segment(affinities), labels)["voi"] for affinities, labels in whole]
    assert found["voi"] == pytest.approx(np.mean(own), abs=1e-6)
    assert len(set(own)) == 3
    assert (found["threshold"], found["smoothed_voi"]) == (recipe.threshold, recipe.chosen["score"])
