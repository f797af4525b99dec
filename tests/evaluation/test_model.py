"""eval.py with a checkpoint alone: it names its volumes, and its numbers are those of the affinities that it leaves."""

import dataclasses
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from emsam_jax.config import Config, DataConfig, DeclaredVolume, EncoderConfig, Intensity, ModelConfig, PredictConfig
from emsam_jax.errors import UserError
from emsam_jax.evaluation import EvaluationRequest, evaluate
from emsam_jax.evaluation.clock import Clock
from emsam_jax.evaluation.predicted import Predicted, describe_model
from emsam_jax.inference import RECIPE_FILE, load_trained, validation_score
from emsam_jax.scores import score_segmentation
from emsam_jax.segmentation import THRESHOLDS, Recipe, segment_affinities
from emsam_jax.volumes import open_volume
from tests.evaluation.conftest import SIZE, Study, run_eval
from tests.programs import ROOT, environment
from tests.untrained import save_untrained

UNRUNNABLE = ("mutex", "baseline")  # by segment.py
OFFSETS = ((-1, 0, 0), (0, -1, 0), (0, 0, -1), (-3, 0, 0), (0, -5, 0), (0, 0, -5))
GREYS = Intensity(1.0, 99.0, percentiles=True)


@pytest.fixture(scope="module")
def run_folder(study: Study, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of a run that learned nothing."""
    folder = tmp_path_factory.mktemp("run")

    def declare(roi: str) -> DeclaredVolume:
        name = f"cells {roi.partition(',')[0]}"
        return DeclaredVolume(name, f"{study.folder}/raw.zarr", f"{study.folder}/labels.zarr", roi=roi, intensity=GREYS)

    config = Config(
        name="small",
        standings="fib25",
        model=ModelConfig(encoder=EncoderConfig(size="none"), channels=(4, 8), isotropic=True, offsets=OFFSETS),
        data=DataConfig(
            train=(declare("0:8,:,:"),),
            validation=(declare("8:16,:,:"),),
            test=(declare("20:28,:,:"), declare("30:38,0:40,:")),
            patch=(8, 16, 16),
        ),
        predict=PredictConfig(block=(8, 32, 32)),
    )
    learned = {"ranges": ((17.0, 230.0),), "positives": (0.9,) * 6, "prior": (1.0,) * 6}
    save_untrained(folder / "run", config, SIZE, **learned)
    return folder / "run"


@pytest.fixture(scope="module")
def scores(run_folder: Path) -> dict:
    done = run_eval(ckpt=str(run_folder))
    assert done.returncode == 0, done.stderr
    assert done.stdout.rstrip().endswith(f"In the viewer: emsam view --out={run_folder}/eval")
    return json.loads((run_folder / "eval" / "scores.json").read_text())


def test_volumes_methods_and_recipe_come_from_the_checkpoint(run_folder, scores):
    assert set(scores["volumes"]) == {"cells 20:28", "cells 30:38"}
    for methods in scores["volumes"].values():
        assert set(methods) == {"waterz_q50", "waterz_mean", "waterz_literature", "multicut", "mutex", "baseline"}
    assert scores["validation"]["where"] == [{"volume": "cells 8:16", "roi": "8:16,0:48,0:48"}]
    assert scores["standings"] == "fib25"
    assert scores["model"]["step"] == 3
    assert {tuple(data["intensity"]) for data in scores["data"].values()} == {(17.0, 230.0)}  # the training's
    assert [(part["role"], part["region"]) for part in scores["split"]] == [
        ("training", "0:8,0:48,0:48"),
        ("validation", "8:16,0:48,0:48"),
        ("test", "20:28,0:48,0:48"),
        ("test", "30:38,0:40,0:48"),
    ]
    assert scores["overlaps"] == []
    assert scores["config"]["data"]["patch"] == [8, 16, 16]
    assert scores["model"]["encoder"] == "none"
    written = Recipe.read(run_folder / "eval" / "postprocess.json")
    tried = scores["validation"]["methods"]
    assert written.chosen["score"] == min(tried[name]["smoothed_voi"] for name in tried if name not in UNRUNNABLE)
    assert scores["headline"] not in UNRUNNABLE
    assert written.chosen["step"] == 3
    assert scores["validation"]["thresholds"] == list(THRESHOLDS)
    page = (run_folder / "eval" / "report.html").read_text()
    assert page.count('class="kind') == 20
    assert 'id="cells 30:38-worst"' in page


def test_the_report_says_what_the_network_is_and_whose():
    encoder = EncoderConfig(size="toy", frozen=False)
    said = describe_model(Config(model=ModelConfig(encoder=encoder)))
    assert said["encoder"] == "toy Hiera, random weights, trained from scratch"
    assert "The paper's body was not at hand" in said["origin"]
    assert describe_model(Config()) == {"encoder": "none"}


@pytest.mark.slow
def test_the_checkpoint_takes_a_recipe_over_only_when_asked_to_and_ranks_as_before(run_folder, scores, tmp_path):
    step = shutil.copytree(run_folder / "checkpoints" / "3", tmp_path / "run" / "checkpoints" / "3")
    assert not (step / RECIPE_FILE).exists()  # eval.py has run
    request = EvaluationRequest(
        out=str(tmp_path / "out"), ckpt=str(step), methods=("waterz_mean",), roi="20:28,:,:", update_checkpoint=True
    )
    evaluate(request, print)
    chosen = Recipe.read(tmp_path / "out" / RECIPE_FILE)
    taken = Recipe.read(step / RECIPE_FILE)
    assert (taken.threshold, taken.fragments) == (chosen.threshold, chosen.fragments)
    assert validation_score(step) is None  # training never validated this step: it must not win by eval.py's word
    Recipe("multicut", chosen={"score": 0.7}).write(step / RECIPE_FILE)
    evaluate(request, print)
    assert Recipe.read(step / RECIPE_FILE).threshold == chosen.threshold
    assert validation_score(step) == 0.7


def test_what_was_trained_on_is_no_test(study, run_folder, tmp_path):
    """Also by another name of its file; unless that is allowed, and then said."""
    (tmp_path / "link.zarr").symlink_to(study.folder / "raw.zarr")
    volume = DeclaredVolume("cells again", f"{tmp_path}/link.zarr/", f"{study.folder}/labels.zarr", roi="4:12,:,:")
    request = EvaluationRequest(
        out=str(tmp_path / "out"), ckpt=str(run_folder), test=(volume,), methods=("waterz_mean",)
    )
    with pytest.raises(UserError, match=r"training volume cells 0:8 .* test volume cells again \(4:12"):
        evaluate(request)
    scores = evaluate(dataclasses.replace(request, allow_overlap=True))
    assert len(scores["overlaps"]) == 2  # with the validation volume, too
    assert "The training volume cells 0:8" in (tmp_path / "out/report.html").read_text()


def test_its_numbers_are_those_of_the_affinities_that_it_leaves(study, run_folder, scores, tmp_path):
    """With their offsets, which the mutex watershed needs."""
    (path,) = (run_folder / "eval").glob("cells_20*/affinities-3-*.zarr")
    name = scores["headline"]
    given = {"raw": f"{study.folder}/raw.zarr", "labels": f"{study.folder}/labels.zarr", "roi": "20:28,0:48,0:48"}
    recipe, methods = f"{run_folder}/eval/postprocess.json", f"{name},mutex"
    done = run_eval(**given, affinities=str(path), recipe=recipe, methods=methods, name="again", out=str(tmp_path))
    assert done.returncode == 0, done.stderr
    again = json.loads((tmp_path / "scores.json").read_text())
    assert again["headline"] == name
    before, after = scores["volumes"]["cells 20:28"], again["volumes"]["again"]
    # The baseline's grey range is in the checkpoint.
    assert [row["voi"] for row in after[name]["sweep"]] == [row["voi"] for row in before[name]["sweep"]]
    assert after[name]["arand"] == before[name]["arand"]

    affinities, truth = open_volume(path, channel="all"), study.truth[20:28]
    assert affinities.offsets == OFFSETS
    labels = segment_affinities(affinities[...], "mutex", offsets=affinities.offsets)
    assert (after["mutex"]["threshold"], after["mutex"]["voi"]) == (0.5, score_segmentation(labels, truth)["voi"])
    others = segment_affinities(affinities[...], "mutex", offsets=(*OFFSETS[:3], *OFFSETS[:2:-1]))
    assert score_segmentation(others, truth)["voi"] != after["mutex"]["voi"]


def test_prediction_is_set_apart_from_the_training(study, run_folder, tmp_path):
    other = ("window=8,24,24", "stride=1,0.5,0.5", "symmetries=2")
    settings = Predicted(
        EvaluationRequest(out=str(tmp_path), ckpt=str(run_folder), predict=other), Clock(print)
    ).settings
    assert (settings.window, settings.stride, settings.symmetries) == ((8, 24, 24), (8, 12, 12), ("zyx", "zyX"))
    with pytest.raises(UserError, match=r"config.predict has no field 'symmetry'; did you mean 'symmetries'"):
        load_trained(run_folder, ["symmetry=2"])
    with pytest.raises(UserError, match="--predict=symmetries=2: expected --ckpt, which predicts, found --affinities"):
        EvaluationRequest(out=str(tmp_path), affinities="a.zarr", predict=("symmetries=2",))
    for program in ("eval.py", "segment.py"):
        given = [f"--ckpt={run_folder}", f"--raw={study.folder}/raw.zarr", f"--out={tmp_path}/out"]
        command = [sys.executable, ROOT / program, *given, "--predict=window=7,24,24"]
        done = subprocess.run(command, check=False, capture_output=True, text=True, env=environment())
        assert done.returncode == 1
        assert (
            "predict.window: expected sides (z, y, x) that are multiples of (2, 2, 2), found (7, 24, 24)" in done.stderr
        )
        assert "Traceback" not in done.stderr


def test_voxels_of_another_size_are_refused_with_both_sizes(study, run_folder, tmp_path):
    volume = DeclaredVolume("thick", f"{study.folder}/raw.zarr", raw_voxel_size_zyx=(40, 4, 4))
    with pytest.raises(UserError, match=r"expected voxels of 10 x 10 x 10 nm .* found 40 x 4 x 4 nm"):
        evaluate(EvaluationRequest(out=str(tmp_path / "out"), ckpt=str(run_folder), test=(volume,)))
    with pytest.raises(UserError, match="it holds no finished checkpoint"):
        evaluate(EvaluationRequest(out=str(tmp_path / "out"), ckpt=str(tmp_path)))
    assert not (tmp_path / "out").exists()


def test_a_checkpoints_score_is_a_number_or_none(tmp_path):
    for text in ('{"chosen": {"score": NaN}}', '{"chosen": {"score": "best"}}', '{"chosen": {"score": 1e999}}', "[]"):
        (tmp_path / RECIPE_FILE).write_text(text)
        with pytest.raises(UserError, match=r"postprocess\.json: expected a number or null as chosen\.score"):
            validation_score(tmp_path)
    (tmp_path / RECIPE_FILE).write_text('{"chosen": {"score": null}}')
    assert validation_score(tmp_path) is None
