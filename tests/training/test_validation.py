"""Validation: what a recipe is chosen by, and what becomes of one that a run did not live to see."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np

from emsam_jax.evaluation import choose_on_specimen
from emsam_jax.inference import predict_affinities, settings_from
from emsam_jax.inference.trained import load_trained
from emsam_jax.segmentation import FragmentParameters, Recipe
from emsam_jax.segmentation.tuner import FRAGMENTS
from emsam_jax.training.loop import train
from emsam_jax.volumes import open_declared

OVERRIDES = ("validation.every=2", "optim.steps=4", "checkpoint.every=1", "checkpoint.keep=1")


def test_scoring_needs_no_jax():
    program = "import sys, emsam_jax.training.scoring; sys.exit('jax' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], cwd=Path(__file__).parents[2], check=False).returncode == 0


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
    assert (
        recipe.chosen["score"]
        == rows[trained.step]["validation_voi"]
        == min(r["validation_voi"] for r in rows.values())
    )

    (declared,) = config.data.validation
    specimen = open_declared(declared)
    settings = settings_from(config.predict, config.data.patch, progress=False)
    affinities = predict_affinities(trained.model, specimen, tmp_path / "affinities.zarr", settings)
    expected, _ = choose_on_specimen(
        affinities.read(affinities.box).astype(np.float32),
        specimen,
        methods=("waterz_mean",),
        thresholds=config.validation.thresholds,
        fragments=[one for one in FRAGMENTS if one.kind == "2d"],
        step=trained.step,
    )
    assert isinstance(recipe.fragments, FragmentParameters)
    assert expected == recipe

    # As a kill leaves it behind: the step is saved and its validation is not over.
    newest = tmp_path / "checkpoints/4"
    before = json.loads((newest / "postprocess.json").read_text())
    (newest / "postprocess.json").unlink()
    (tmp_path / "validation/4").mkdir(exist_ok=True)
    train(config, tmp_path, jax.devices()[:1])
    assert "The validation of step 4 had not ended: it is done again." in capsys.readouterr().out
    assert json.loads((newest / "postprocess.json").read_text()) == before
    assert [row["step"] for row in rows_of(tmp_path) if "validation_voi" in row] == [2, 4]
    assert not list((tmp_path / "validation").iterdir())
    shutil.rmtree(tmp_path)
